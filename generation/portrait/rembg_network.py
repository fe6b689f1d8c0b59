"""The outline of a person by one of rembg's networks, for those who ask for it with `--matte rembg`.

rembg (https://github.com/danielgatis/rembg) is an extra, imported when it is asked for. Its networks compute here, on
the CPU: nothing of the portrait leaves the machine. What it may fetch is a network's file, once, which it keeps in a
folder of its own (`U2NET_HOME`, by default ~/.u2net).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ..errors import InputError

DEFAULT_MODEL = "birefnet-portrait"
"""The one of rembg's networks that was trained on portraits with their hair."""
_INSTALL = 'pip install "dp360[matte]"'
_OTHER_TASKS = ("sam", "u2net_cloth_seg", "u2net_custom", "dis_custom", "ben_custom")
"""Networks of rembg's that want a prompt, find clothes, or are no networks but ways to name a file."""
_CUSTOM = {320: "u2net_custom", 1024: "dis_custom"}
"""rembg's ways to take somebody's file, by the side of the picture that the network wants: U-2-Net's and IS-Net's."""
_CPU = ["CPUExecutionProvider"]


def rembg_model(matte: str) -> str | None:
    """Name or file of the network that a value of `--matte` means; None for `own`.

    Raises:
        InputError: neither `own` nor `rembg` nor `rembg:MODEL`.
    """
    if matte == "own":
        return None
    word, _, model = matte.partition(":")
    if word != "rembg" or (":" in matte and not model):
        raise InputError(
            f"Unknown matte {matte!r}: expected own, rembg, or rembg:MODEL with a name that rembg knows or the path of "
            "an .onnx file; leave it out for own"
        )
    return model or DEFAULT_MODEL


def rembg_file(matte: str) -> Path | None:
    """The file that a value of `--matte` names, whether it exists or not; None where it names none.

    Raises:
        InputError: as of `rembg_model`.
    """
    model = rembg_model(matte)
    is_file = model is not None and (model.lower().endswith(".onnx") or "/" in model or os.sep in model)
    return Path(model).expanduser() if model is not None and is_file else None


@dataclass(frozen=True)
class RembgNetwork:
    """One of rembg's networks, opened (and fetched by rembg, if need be) when it first sees a picture."""

    model: str
    """Name that rembg knows, or the path of an .onnx file."""
    file: Path | None
    """The .onnx file, where one was named."""

    @staticmethod
    def of(matte: str) -> RembgNetwork | None:
        """The network that a value of `--matte` asks for; None for `own`. Nothing is fetched yet.

        Raises:
            InputError: the value is none, rembg is not installed, or it does not know the network, or the file that
                was named does not exist.
        """
        model, file = rembg_model(matte), rembg_file(matte)
        if model is None:
            return None
        known = _names_that_rembg_knows(matte)
        if file is not None and not file.is_file():
            raise InputError(f"No file {file} for --matte {matte}: expected a network as an .onnx file; check the path")
        if file is None and model not in known:
            raise InputError(
                f"rembg has no network {model!r} that outlines people: expected one of {', '.join(known)}, or the path "
                f"of an .onnx file; --matte rembg takes {DEFAULT_MODEL}"
            )
        return RembgNetwork(model, file)

    @property
    def matte(self) -> str:
        """The value of `--matte` that means this network; of a file only the name."""
        return f"rembg:{self.model if self.file is None else self.file.name}"

    def provenance(self) -> str:
        """Name and hash of the network, and rembg's version."""
        file, name = self.file, self.model if self.file is None else self.file.name
        if file is None:
            file = _folder() / f"{self.model}.onnx"
        digest = f" (sha256 {_sha256(file)[:16]})" if file.is_file() else ""
        return f"{name}{digest} by rembg {_version()}"

    def maps(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Float32[np.ndarray, "h w"]]:
        """Probability of "person" in a picture: one map.

        Raises:
            InputError: the network cannot be had, or it is none that outlines.
        """
        import rembg

        session = self._session
        try:
            with np.errstate(invalid="ignore"):  # where a network sees the same everywhere, rembg divides by zero
                mask = np.asarray(rembg.remove(rgb, session=session, only_mask=True))
        except Exception as error:  # onnxruntime's errors have no base in common
            raise InputError(
                f"The network {self.model} could not be used ({_in_one_line(error)}): expected one that tells a person "
                "from the background; try another, or leave --matte out"
            ) from error
        if mask.shape != rgb.shape[:2]:
            raise InputError(
                f"The network {self.model} is not for outlines: expected one mask of {rgb.shape[1]}x{rgb.shape[0]} "
                f"pixels, got an array of shape {mask.shape}; try another, or leave --matte out"
            )
        return [mask.astype(np.float32) / 255]

    @cached_property
    def _session(self) -> Any:
        """rembg's session; it fetches the file where that is not yet there.

        Raises:
            InputError: the file cannot be fetched or read.
        """
        import rembg

        try:
            if self.file is None:
                return rembg.new_session(self.model, providers=_CPU)
            session = rembg.new_session(_CUSTOM[320], model_path=str(self.file), providers=_CPU)
            side = session.inner_session.get_inputs()[0].shape[-1]
            if isinstance(side, int) and side != 320 and side in _CUSTOM:
                session = rembg.new_session(_CUSTOM[side], model_path=str(self.file), providers=_CPU)
            return session
        except Exception as error:  # the errors of network libraries and of onnxruntime have no base in common
            if self.file is not None:
                raise InputError(
                    f"{self.file} cannot be read as a network ({_in_one_line(error)}): expected an .onnx file; give "
                    "another one, or leave --matte out"
                ) from error
            raise InputError(
                f"rembg cannot get its network {self.model} ({_in_one_line(error)}): it is fetched once, which needs "
                f"the internet; put the file into {_folder()} as {self.model}.onnx, or leave --matte out"
            ) from error


def _version() -> str | None:
    """rembg's version; None where it is not installed."""
    try:
        return metadata.version("rembg")
    except metadata.PackageNotFoundError:
        return None


def _names_that_rembg_knows(matte: str) -> list[str]:
    """rembg's networks that outline things by themselves.

    Raises:
        InputError: rembg, or onnxruntime, which it needs, is not installed.
    """
    try:
        import onnxruntime  # noqa: F401  # older releases of rembg end the program where it is missing
        import rembg  # noqa: F401
        from rembg.sessions import sessions_names
    except ImportError as error:
        raise InputError(
            f"--matte {matte} needs the packages rembg and onnxruntime, which cannot be imported here "
            f"({_in_one_line(error)}); run {_INSTALL}, or leave --matte out"
        ) from error
    return [name for name in sessions_names if name not in _OTHER_TASKS]


def _sha256(file: Path) -> str:
    """Hash of a file that may be a gigabyte, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()


def _folder() -> Path:
    """Where rembg keeps its files, by its own rule."""
    chosen = os.environ.get("U2NET_HOME") or os.path.join(os.environ.get("XDG_DATA_HOME", "~"), ".u2net")
    return Path(chosen).expanduser()


def _in_one_line(error: Exception) -> str:
    """What an error says, in at most 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:199]}…"
