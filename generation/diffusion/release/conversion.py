"""From the official checkpoint files to a pipeline folder, strictly and without holding a network in memory.

Networks exist on the meta device only, for their names and shapes, but for the moment in which they are written: then
they have the mapped weights. The text encoder runs once, on the empty prompt that the release always uses, and leaves
its output as the pipeline's constant context.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel

from ...errors import InputError
from ...files import directory_written_atomically
from ...progress import Track, silent
from ..architectures import OFFICIAL, Architecture
from ..null_context import NullContext
from ..pipeline import DiffPortrait360Pipeline
from .checkpoint import CheckpointFile, sha256_of_file
from .checks import compare_with_stock, require_all_keys, same_bits, schedule_notes
from .conversion_report import ROLE_NAMES, ConversionReport, Role, SourceFile, WrittenComponent
from .keys import (
    END_TOKEN,
    IGNORED_KEYS,
    MOTION_PREFIXES,
    START_TOKEN,
    TEXT_PREFIX,
    CheckpointPart,
    Home,
    official_keys,
    text_config,
    with_text_prefix,
)
from .schedule import schedule_tables

CONVERSION_RECORD = "dp360_conversion.json"
"""File in the pipeline folder that says what it was made from."""

_LARGEST_FILE_BYTES = 10 * 10**9
DTYPE_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def convert_release(
    output: Path,
    *,
    views_model: Path | None = None,
    back_model: Path | None = None,
    architecture: Architecture = OFFICIAL,
    dtype: torch.dtype = torch.float32,
    context: Float[Tensor, "*b n d"] | Path | None = None,
    stock: Path | None = None,
    largest_file_bytes: int = _LARGEST_FILE_BYTES,
    known_sha256: Mapping[Path, str] | None = None,
    track: Track = silent,
) -> ConversionReport:
    """Make one pipeline folder of one or both official checkpoints.

    Args:
        output: the folder to write; an earlier pipeline folder is replaced, once the new one is complete.
        views_model: the 360 model, `model_state-340000.th` or any file with its keys.
        back_model: F, the back-head model, `back_head-230000.th`. Alone it makes a folder that makes backs only;
            without it a back picture has to be given to the pipeline.
        architecture: sizes of the networks in the files.
        dtype: float32, float16 or bfloat16, of all stored weights.
        context: the text context, [n, d] or [1, n, d], or a file with it; None computes it from the text encoder in the
            checkpoint.
        stock: folder of Stable Diffusion 1.5 in diffusers' layout; the report then says which parts equal it.
        largest_file_bytes: weights beyond this are split over several files.
        known_sha256: hashes of source files that the caller has computed already.

    Raises:
        InputError: no file given, an unreadable file, a missing, unexpected or wrongly shaped tensor, numbers that are
            not finite in `dtype`, no context, or a folder that cannot be written.
    """
    given: dict[Role, Path | None] = {"views": views_model, "back": back_model}
    if not any(given.values()):
        raise InputError("There is no checkpoint to convert; give the 360 model's file, the back-head model's, or both")
    if dtype not in DTYPE_NAMES:
        raise InputError(f"Weights cannot be stored as {dtype}; take one of {', '.join(DTYPE_NAMES.values())}")
    paths: dict[Role, Path] = {role: path for role, path in given.items() if path is not None}
    _refuse_to_lose_files(output, list(paths.values()))
    with torch.device("meta"):
        networks = architecture.components()
    keys = official_keys(architecture)
    scheduler = networks["scheduler"]
    tables = schedule_tables(*(scheduler.config[name] for name in ("beta_start", "beta_end", "num_train_timesteps")))
    sources = [_Source.inspect(role, path, keys) for role, path in paths.items()]
    notes = [note for source in sources for note in schedule_notes(source.checkpoint, tables)]
    contexts = _contexts(sources, context, architecture)
    tokens, context_source = next(iter(contexts.values())), next(iter(contexts))
    comparisons = []
    if stock is not None:
        for source in sources:
            comparisons += compare_with_stock(source.checkpoint, source.role, source.homes, stock, track)
    parts, sharing = _parts_to_write(sources, track)
    notes += sharing
    if len(contexts) == 2 and not torch.equal(*contexts.values()):
        notes.append("the text contexts of the two checkpoints differ; the 360 model's is kept")
    components = {part.name: networks[part.part] for part in parts}
    with torch.device("meta"):
        components["context"] = NullContext(*tokens.shape[1:])
    _require_room(output, components.values(), dtype)
    known = known_sha256 or {}
    hashes = {path: known.get(path) or sha256_of_file(path, track) for path in paths.values()}
    described = tuple(source.described(hashes[source.checkpoint.path]) for source in sources)
    with directory_written_atomically(output) as folder:
        for part in parts:
            _write_component(folder, part, components[part.name], dtype, largest_file_bytes, track)
        components["context"].load_state_dict({"context": tokens.to(dtype)}, assign=True)
        components["context"].save_pretrained(folder / "context")
        weights = sorted(folder.rglob("*.safetensors"))
        files = {file.relative_to(folder).as_posix(): sha256_of_file(file, silent) for file in weights}
        scheduler.save_pretrained(folder / "scheduler")
        DiffPortrait360Pipeline(**components, scheduler=scheduler).save_config(folder)
        origins = {**{part.name: ROLE_NAMES[part.source.role] for part in parts}, "context": context_source}
        report = ConversionReport(
            output,
            DTYPE_NAMES[dtype],
            described,
            tuple(_written(folder / name, components[name], origin) for name, origin in origins.items()),
            tuple(notes),
            tuple(comparisons),
            files,
        )
        record = {
            "dp360": importlib.metadata.version("dp360"),
            "architecture": dataclasses.asdict(architecture),
            **report.to_json(),
        }
        (folder / CONVERSION_RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return report


def release_role(path: Path) -> Role:
    """Which of the two models a checkpoint is: only the 360 model has temporal modules.

    Raises:
        InputError: the file cannot be read.
    """
    return "views" if any(key.startswith(MOTION_PREFIXES) for key in CheckpointFile.inspect(path).shapes) else "back"


@dataclass(frozen=True)
class _Source:
    """One official file that has been found complete."""

    role: Role
    checkpoint: CheckpointFile
    homes: Mapping[str, Home]

    @classmethod
    def inspect(cls, role: Role, path: Path, keys: Mapping[str, Home]) -> _Source:
        checkpoint = CheckpointFile.inspect(path)
        has_text = any(key.startswith(TEXT_PREFIX) for key in checkpoint.shapes.keys() - IGNORED_KEYS)
        wanted = {key: home for key, home in keys.items() if has_text or home.part != "text_encoder"}
        homes_by_role: dict[Role, dict[str, Home]] = {
            "views": wanted,
            "back": {key: home for key, home in wanted.items() if home.part != "view_consistency"},
        }
        other: Role = "back" if role == "views" else "views"
        if checkpoint.shapes.keys() - IGNORED_KEYS == homes_by_role[other].keys():
            raise InputError(
                f"{path.name} was given as {ROLE_NAMES[role]}, but it is {ROLE_NAMES[other]}: it has "
                f"{'no' if role == 'views' else 'the'} temporal modules; give it as {ROLE_NAMES[other]}"
            )
        require_all_keys(checkpoint, role, homes_by_role[role])
        return cls(role, checkpoint, homes_by_role[role])

    def of_part(self, part: CheckpointPart) -> dict[str, Home]:
        return {key: home for key, home in self.homes.items() if home.part == part}

    def described(self, sha256: str) -> SourceFile:
        path = self.checkpoint.path
        return SourceFile(self.role, path.name, sha256, path.stat().st_size, len(self.checkpoint.shapes))


@dataclass(frozen=True)
class _PartToWrite:
    """A component of the folder and the part of a checkpoint it comes from."""

    name: str
    part: CheckpointPart
    source: _Source


@torch.no_grad()
def empty_prompt_context(checkpoint: CheckpointFile, architecture: Architecture) -> Float[Tensor, "1 n d"]:
    """Output of the checkpoint's own text encoder for the empty prompt: start token, then end tokens throughout.

    Source: last hidden state of CLIP ViT-L/14, as latent-diffusion's `FrozenCLIPEmbedder` takes it.
    """
    config = text_config(architecture)
    with torch.device("meta"):
        encoder = CLIPTextModel(config)
    count = config.max_position_embeddings
    tokens = torch.tensor([[START_TOKEN] + [END_TOKEN] * (count - 1)])
    stored = checkpoint.tensors()
    weights = {name: stored[TEXT_PREFIX + with_text_prefix(name)].float() for name in encoder.state_dict()}
    encoder.load_state_dict(weights, assign=True)
    # Positions are given because the encoder's own table of them was left on the meta device.
    return encoder.eval()(tokens, position_ids=torch.arange(count)[None]).last_hidden_state


def _contexts(
    sources: Sequence[_Source], given: Tensor | Path | None, architecture: Architecture
) -> dict[str, Float[Tensor, "1 n d"]]:
    """Text contexts by where they come from, the one to keep first."""
    width = architecture.unet.context_dim
    assert width is not None  # every official network has a context
    if given is not None:
        return {"the given context": _given_context(given, width)}
    contexts = {
        f"the text encoder of {ROLE_NAMES[source.role]}": empty_prompt_context(source.checkpoint, architecture)
        for source in sources
        if source.of_part("text_encoder")
    }
    if not contexts:
        names = " and ".join(source.checkpoint.path.name for source in sources)
        raise InputError(
            f"{names}: no text encoder (keys {TEXT_PREFIX}*), so the context of the empty prompt cannot be computed; "
            f"give it as a tensor [tokens, {width}] in a .safetensors or .pt file"
        )
    return contexts


def _given_context(given: Tensor | Path, width: int) -> Float[Tensor, "1 n d"]:
    where = "The given context"
    if isinstance(given, Path):
        where, checkpoint = f"The context in {given}", CheckpointFile.inspect(given)
        if len(checkpoint.shapes) != 1:
            raise InputError(
                f"{where} should be one tensor, got {len(checkpoint.shapes)}; give a file with that tensor"
            )
        given = next(iter(checkpoint.tensors().values())).clone()
    tokens = given if given.ndim == 3 else given[None]
    if tokens.ndim != 3 or len(tokens) != 1 or tokens.shape[2] != width:
        raise InputError(
            f"{where} should have the shape [tokens, {width}], got {list(given.shape)}; give that of one prompt"
        )
    return tokens.float()


def _parts_to_write(sources: Sequence[_Source], track: Track) -> tuple[list[_PartToWrite], list[str]]:
    """The components of the folder, and sentences on what two checkpoints share."""
    by_role = {source.role: source for source in sources}
    parts, notes = [], []
    if views := by_role.get("views"):
        names: tuple[CheckpointPart, ...] = ("unet", "appearance", "camera_control", "view_consistency", "vae")
        parts += [_PartToWrite(name, name, views) for name in names]
    if back := by_role.get("back"):
        shared = {part: _differing(views, back, part, track) for part in ("unet", "vae")} if views else {}
        names = ("unet", "appearance", "camera_control")
        parts += [_PartToWrite(f"back_{name}", name, back) for name in names if shared.get(name) != 0]
        if views is None:
            parts.append(_PartToWrite("vae", "vae", back))
        if shared.get("unet") == 0:
            notes.append("the denoising UNets of the two checkpoints are equal bit for bit; stored once")
        if shared.get("vae"):
            notes.append(f"the VAEs of the two checkpoints differ in {shared['vae']} tensors; the 360 model's is kept")
    return parts, notes


def _differing(first: _Source, second: _Source, part: CheckpointPart, track: Track) -> int:
    """How many tensors of a part are not equal bit for bit."""
    keys = first.of_part(part)
    ours, theirs = first.checkpoint.tensors(), second.checkpoint.tensors()
    compared = track(keys, total=len(keys), description=f"Comparing {part} of the two checkpoints")
    return sum(not same_bits(ours[key], theirs[key]) for key in compared)


def _write_component(
    folder: Path, part: _PartToWrite, network: ModelMixin, dtype: torch.dtype, largest_file_bytes: int, track: Track
) -> None:
    """Write one network, whose weights are the mapped ones while it is written."""
    official = part.source.of_part(part.part)
    read = part.source.checkpoint.tensors()
    homes = track(official.items(), total=len(official), description=f"Writing {part.name}")
    weights = {h.name: _as_stored(read[key].reshape(h.shape), dtype, key, part.source) for key, h in homes}
    network.load_state_dict(weights, assign=True)
    network.save_pretrained(folder / part.name, max_shard_size=largest_file_bytes)
    nn.Module.to(network, "meta")


def _as_stored(tensor: Tensor, dtype: torch.dtype, key: str, source: _Source) -> Tensor:
    name = source.checkpoint.path.name
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has numbers of type {tensor.dtype} in {key}, expected floating-point weights; "
            "give the released file, not a quantised one"
        )
    stored = tensor.to(dtype)
    if not bool(torch.isfinite(stored).all()):
        raise InputError(
            f"{name} has numbers in {key} that are not finite as {DTYPE_NAMES[dtype]}; "
            "take float32 or bfloat16, and if that fails too, download the file again"
        )
    return stored


def _written(folder: Path, network: ModelMixin, origin: str) -> WrittenComponent:
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    return WrittenComponent(folder.name, origin, numbers, sum(f.stat().st_size for f in folder.glob("*.safetensors")))


def _refuse_to_lose_files(output: Path, sources: Sequence[Path]) -> None:
    """The output takes the place of an earlier folder; see that nothing but a pipeline is lost."""
    if not output.is_dir():
        return
    if any(output.iterdir()) and not (output / "model_index.json").is_file():
        raise InputError(
            f"{output} holds files that are not a pipeline folder's; give a new or an empty folder as output"
        )
    if any(output.resolve() in path.resolve().parents for path in sources):
        raise InputError(f"The checkpoint lies inside {output}, which would be replaced; give another folder as output")


def _require_room(output: Path, networks: Iterable[ModelMixin], dtype: torch.dtype) -> None:
    """See that the disk has room before minutes of writing."""
    needed = sum(t.numel() for network in networks for t in network.state_dict().values()) * dtype.itemsize
    place = next(parent for parent in (output, *output.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"Cannot write {output}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "free some space, choose another disk, or store float16"
        )
