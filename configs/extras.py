"""Packages that an installation may lack, and the extra of dp360 that brings each: said before any work starts.

`pip install dp360` makes heads, exports and shows them; what else there is needs packages of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

_OPENUSD = (".usd", ".usda", ".usdc", ".usdz")

EXTRA_OF = {
    "nerfstudio": "nerfstudio",
    "gsplat": "nerfstudio",
    "diffusers": "diffusion",
    "transformers": "diffusion",
    "huggingface_hub": "diffusion",
    "accelerate": "train",
    "h5py": "train",
    "av": "export",
    "open3d": "export",
    "OpenEXR": "export",
    "pxr": "usd",
    "dlib": "eval",
    "matplotlib": "eval",
    "torchmetrics": "eval",
    "timm": "eval",
    "rembg": "matte",
    "onnxruntime": "matte",
    "ray": "cluster",
    "fastapi": "serve",
    "uvicorn": "serve",
    "starlette": "serve",
    "pydantic": "serve",
}
"""Name that is imported: extra."""


def refuse_missing(packages: Iterable[str], purpose: str) -> None:
    """See that packages can be imported, without importing them.

    Args:
        packages: names that are imported.
        purpose: what needs them, the start of a sentence.

    Raises:
        InputError: some are not installed.
    """
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    if lacking:
        from dp360.generation import InputError

        raise InputError(missing_sentence(lacking, purpose))


def missing_sentence(lacking: list[str], purpose: str) -> str:
    """What is missing and how to get it."""
    extras = ",".join(sorted({EXTRA_OF[name] for name in lacking}))
    kind = "package" if len(lacking) == 1 else "packages"
    return f"{purpose} needs the {kind} {', '.join(lacking)}; install with: pip install 'dp360[{extras}]'"


def refuse_command_without_packages(command: Any) -> None:
    """See that what a command of `dp360` was asked to do can be done with what is installed.

    Raises:
        InputError: a package is missing.
    """
    match type(command).__name__:  # modules of other commands are not imported for this
        case "RunCommand" | "ViewsCommand" | "BatchCommand":
            drawn = command.generator in ("field", "compact", "diffportrait360")
            if drawn or getattr(command, "variants", None) is not None:
                refuse_missing(["diffusers"], f"--generator {command.generator}" if drawn else "--variants")
            if command.light.lower().endswith(".exr"):
                refuse_missing(["OpenEXR"], "--light FILE.exr")
            if getattr(command, "ray", None) is not None:
                refuse_missing(["ray"], "--ray")
        case "ExportCommand":
            _refuse_export(command)
        case "ServeCommand":
            refuse_missing(["fastapi", "uvicorn", "starlette", "pydantic"], "dp360 serve")
        case "TrainCommand":
            of_prior = ("TrainLabelsCommand", "TrainLightCommand", "TrainLandmarksCommand")
            of_views = type(command.what).__name__ not in of_prior
            refuse_missing(["accelerate", *(["diffusers", "transformers"] if of_views else [])], "dp360 train")
        case "EvalCommand":
            refuse_missing(["matplotlib"], "dp360 eval")
        case "BenchCommand" if command.what == "diffusion":
            refuse_missing(["diffusers"], "dp360 bench diffusion")
        case "ConvertCommand" | "ImportReleaseCommand":
            refuse_missing(["diffusers", "transformers", "huggingface_hub"], "Reading the release's weights")
        case "ImportCaptureCommand" if command.capture.suffix == ".smc":
            refuse_missing(["h5py"], "A capture of RenderMe-360")
        case _:
            pass


def _refuse_export(command: Any) -> None:
    """What the formats of an export need."""
    if command.load_config is not None:
        refuse_missing(["nerfstudio"], "A run of ns-train")
    endings = {path.suffix.lower() for paths in command.output for path in paths}
    if ".mp4" in endings:
        refuse_missing(["av"], "A film as .mp4")
    if endings & set(_OPENUSD) or (command.input is not None and command.input.suffix.lower() in _OPENUSD):
        refuse_missing(["pxr"], "OpenUSD")
