"""Training on a machine that is there for some minutes at a time: a stage's state in a few small files.

    files = pack_slice(stage_folder, out)     # here, when the time is over
    unpack_slice(out, stage_folder)           # on the next machine; the same training command then goes on

A slice is `slice.json` (names, sizes, hashes, newest figures), the journal's end, the newest sheet, and pieces
`slice_STEP_NN.part` that joined are one file of `torch.save`. What it holds depends on the room:

1. everything: weights and their averages in float16, AdamW's moments as they are;
2. without the moments, which are the largest part: AdamW starts afresh, at the same step and with the schedule's
   learning rate, which another warm-up of `LoopConfig.warmup_steps` reaches;
3. the averages alone: training goes on from them, with a fresh AdamW.

Averages are kept as float16 difference to the weights wherever that is more exact. The pipeline folder comes along:
networks that learn are filled in from the averages, the others are kept in float16, so that on the next machine it
is there to start from and to draw with.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..errors import InputError
from ..files import directory_written_atomically, write_bytes_atomically, write_errors_for_people
from .loop import NEWEST, PREVIOUS, read_checkpoint

MANIFEST = "slice.json"
_FORMAT = 1
_JOURNAL, _PIPELINE = "journal.jsonl", "pipeline"
_JOURNAL_LINES = 2000
_WEIGHTS_SUFFIX = ".safetensors"
_ROOM_FOR_MANIFEST = 10_000
_OWN_BACK = ("back_unet", "back_appearance")


@dataclass(frozen=True)
class SliceContent:
    """What room there is for."""

    moments: bool
    """AdamW's state."""
    weights: bool
    """The weights beside their averages."""


_CONTENTS = (SliceContent(True, True), SliceContent(False, True), SliceContent(False, False))


def pack_slice(
    folder: Path,
    output: Path,
    piece_bytes: int = 15_000_000,
    total_bytes: int = 60_000_000,
    *,
    pipeline: Path | None = None,
) -> list[Path]:
    """Write what the next slice needs out of a stage's folder.

    Args:
        folder: with checkpoint.pt, and journal.jsonl, sheets and pipeline/ where they are.
        output: folder for the slice; pieces of an earlier slice in it are removed when the new ones are complete.
        piece_bytes: largest size of a piece.
        total_bytes: largest size of all files together.
        pipeline: pipeline folder to take along; None takes the stage's own.

    Returns:
        The files, slice.json last.

    Raises:
        InputError: no checkpoint that can be read, or one that does not fit.
    """
    state = next((s for name in (NEWEST, PREVIOUS) if (s := read_checkpoint(folder / name)) is not None), None)
    if state is None:
        raise InputError(f"{folder} has no checkpoint that can be read; train there first, then pack the slice")
    plain = _plain_files(folder, state["step"])
    pipeline = pipeline or folder / _PIPELINE
    surroundings = _read_pipeline(pipeline, state["averaged"]) if pipeline.is_dir() else None
    room = total_bytes - sum(map(len, plain.values())) - _ROOM_FOR_MANIFEST
    for content in _CONTENTS:
        data = _to_bytes({**_packed(state, content), "pipeline": surroundings})
        if len(data) <= room:
            break
    else:
        raise InputError(
            f"The smallest slice of {folder} has {len(data) / 1e6:.1f} MB; expected at most {room / 1e6:.1f} MB of "
            "weights: allow more in total, or train smaller networks"
        )
    starts = range(0, len(data), piece_bytes)
    pieces = {f"slice_{state['step']:07d}_{n:02d}.part": data[at : at + piece_bytes] for n, at in enumerate(starts)}
    manifest = {
        "format": _FORMAT,
        "step": state["step"],
        "weights": content.weights,
        "moments": content.moments,
        "figures": newest_figures(plain.get(_JOURNAL, b"")),
        "pieces": _described(pieces),
        "others": _described(plain),
    }
    files = {**pieces, **plain, MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()}
    for name, content_bytes in files.items():
        write_bytes_atomically(output / name, content_bytes)
    with write_errors_for_people(output):
        for old in (*output.glob("slice_*.part"), *output.glob("sheet_*.jpg")):
            if old.name not in files:
                old.unlink()
    return [output / name for name in files]


def unpack_slice(pieces_folder: Path, folder: Path) -> int:
    """Put a slice's content where training looks for it.

    Args:
        pieces_folder: what `pack_slice` has written, complete.
        folder: the stage's folder; a checkpoint in it is replaced, and only when all else is written.

    Returns:
        Steps done so far.

    Raises:
        InputError: no slice there, or a file of it is missing or damaged.
    """
    manifest = _read_manifest(pieces_folder / MANIFEST)
    data = b"".join(_checked(pieces_folder, entry) for entry in manifest["pieces"])
    others = {entry["name"]: _checked(pieces_folder, entry) for entry in manifest["others"]}
    packed = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    state = _restored(packed)
    for name, content in others.items():
        write_bytes_atomically(folder / name, content)
    if packed["pipeline"] is not None:
        _write_pipeline(packed["pipeline"], state["averaged"], folder / _PIPELINE)
    write_bytes_atomically(folder / NEWEST, _to_bytes(state))
    return int(state["step"])


def newest_figures(journal: bytes) -> dict[str, float]:
    """The last value of every figure of a journal, the newest step, and as validation/step that of the validation."""
    newest: dict[str, float] = {}
    for line in journal.splitlines():
        try:
            figures = {name: float(value) for name, value in json.loads(line).items()}
        except ValueError:  # a line that a kill has cut
            continue
        newest.update(figures)
        if any(name.startswith("validation/") for name in figures):
            newest["validation/step"] = figures["step"]
    return newest


def _packed(state: Mapping[str, Any], content: SliceContent) -> dict[str, Any]:
    """A checkpoint in few bytes."""
    weights = {name: narrowed(tensor) for name, tensor in state["model"].items()} if content.weights else {}
    averaged, differences = {}, []
    for name, tensor in state["averaged"].items():
        averaged[name] = narrowed(tensor)
        if content.weights:
            base = weights[name].float()
            difference = narrowed(tensor.float() - base)
            if _error(base + difference.float(), tensor) < _error(averaged[name].float(), tensor):
                averaged[name] = difference
                differences.append(name)
    kept = ("optimizer", "optimizer_since") if content.moments else ()
    others = {name: state[name] for name in kept if name in state}
    return {"step": state["step"], "model": weights, "averaged": averaged, "differences": differences, **others}


def _restored(packed: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint that `loop` reads; without weights of their own the averages are the weights."""
    averaged = {name: tensor.float() for name, tensor in packed["averaged"].items()}
    weights = {name: tensor.float() for name, tensor in packed["model"].items()} or averaged
    for name in packed["differences"]:
        averaged[name] = weights[name] + averaged[name]
    others = {name: packed[name] for name in ("optimizer", "optimizer_since") if name in packed}
    return {"step": packed["step"], "model": weights, "averaged": averaged, **others}


def narrowed(tensor: Tensor) -> Tensor:
    """Floating numbers as float16, in memory of their own; as they are where that overflows, and whole numbers."""
    if tensor.is_floating_point():
        half = tensor.detach().half()
        if bool(half.isfinite().all()):
            return half.contiguous()
    return tensor.detach().clone()


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b.float()).square().sum())


def _read_pipeline(pipeline: Path, learned: Iterable[str]) -> dict[str, Any]:
    """A pipeline folder without the weights that `learned` names as FOLDER.NAME."""
    texts: dict[str, Tensor] = {}
    tensors: dict[str, dict[str, Tensor]] = {}
    left_out: dict[str, list[str]] = {}
    components = {path.name for path in pipeline.iterdir() if path.is_dir()}
    # Where the back view has networks of its own, names do not tell whose weights a checkpoint holds.
    known = set() if components.intersection(_OWN_BACK) else set(learned)
    for path in sorted(path for path in pipeline.rglob("*") if path.is_file()):
        name = path.relative_to(pipeline).as_posix()
        if path.suffix != _WEIGHTS_SUFFIX:
            texts[name] = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            continue
        tensors[name], left_out[name] = {}, []
        for key, tensor in safetensors.torch.load(path.read_bytes()).items():
            if f"{path.parent.name}.{key}" in known:
                left_out[name].append(key)
            else:
                tensors[name][key] = narrowed(tensor)
    return {"texts": texts, "tensors": tensors, "left_out": left_out}


def _write_pipeline(packed: Mapping[str, Any], averaged: Mapping[str, Tensor], folder: Path) -> None:
    """Write the pipeline folder again, with the averages where weights were left out."""
    with directory_written_atomically(folder) as temporary:
        for name, content in packed["texts"].items():
            _within(temporary, name).write_bytes(content.numpy().tobytes())
        for name, kept in packed["tensors"].items():
            path = _within(temporary, name)
            tensors = {key: t.float() if t.is_floating_point() else t for key, t in kept.items()}
            for key in packed["left_out"][name]:
                tensors[key] = averaged[f"{path.parent.name}.{key}"].contiguous()
            path.write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))


def _within(folder: Path, name: str) -> Path:
    """The path of a file in `folder`, its own folder made."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"The slice names a file outside its folder, {name}; it was not written by dp360")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _plain_files(folder: Path, step: int) -> dict[str, bytes]:
    """The journal's figures of validations and its last lines, up to the checkpoint's step, and the newest sheet."""
    files: dict[str, bytes] = {}
    if (folder / _JOURNAL).is_file():
        lines = (folder / _JOURNAL).read_bytes().splitlines(keepends=True)
        lines = [line for line in lines if newest_figures(line).get("step", math.inf) <= step]
        early = [line for line in lines[:-_JOURNAL_LINES] if b'"validation/' in line]
        files[_JOURNAL] = b"".join(early + lines[-_JOURNAL_LINES:])
    for sheet in sorted(folder.glob("sheet_*.jpg"))[-1:]:
        files[sheet.name] = sheet.read_bytes()
    return files


def _described(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [{"name": n, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()]


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"No slice in {path.parent}: expected {MANIFEST} and the pieces that it names")
    try:
        manifest = json.loads(path.read_bytes())
        entries = [*manifest["pieces"], *manifest["others"]]
        readable = manifest["format"] == _FORMAT and all({"name", "bytes", "sha256"} <= set(e) for e in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; fetch it again") from error
    if not readable:
        raise InputError(f"{path} is of another version of dp360; expected format {_FORMAT}")
    return manifest


def _checked(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """A file of the slice.

    Raises:
        InputError: it is not there, or its bytes are others than those that were packed.
    """
    path = folder / Path(entry["name"]).name
    if not path.is_file():
        raise InputError(f"{path.name} is missing in {folder}; fetch this piece of the slice again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(
            f"{path.name} in {folder} is damaged: expected {entry['bytes']} bytes with the hash that {MANIFEST} "
            f"names, got {len(data)} others; fetch this piece of the slice again"
        )
    return data


def _to_bytes(content: Mapping[str, Any]) -> bytes:
    data = io.BytesIO()
    torch.save(dict(content), data)
    return data.getvalue()
