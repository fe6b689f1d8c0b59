"""What can be asked of the `dp360` command: one dataclass per subcommand, its docstrings are the help texts.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

CaptureKind = Literal["renderme360", "nersemble", "ava256"]


@dataclass(frozen=True)
class ViewCommand:
    """Show a head in the browser, seen from the front; Ctrl-C ends it."""

    file: tyro.conf.Positional[Path]
    """Splats in any format of dp360 export, a mesh .glb, or the config.yml of an ns-train run with dp360-splat."""
    port: int = 7007
    """Port to serve at; if it is taken, the next free one."""
    host: str = "127.0.0.1"
    """Address to serve at: by default only this machine may look; 0.0.0.0 lets the whole network in."""
    open: bool = True
    """The browser opens by itself where there is a screen, unless --no-open is given."""


@dataclass(frozen=True)
class ConvertCommand:
    """Turn the official DiffPortrait360 checkpoints into a folder for --weights."""

    official: Path
    """The 360 model: model_state-340000.th."""
    output: Path
    """Folder to write."""
    back_head: Path | None = None
    """The back-view model: back_head-230000.th; without it a picture of the back has to be given with each portrait."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Numbers to store; float16 and bfloat16 need half the room."""
    stock: Path | None = None
    """A Stable Diffusion 1.5 folder of diffusers: the report then says which parts equal it."""
    context: Path | None = None
    """Context of the empty prompt, a tensor [tokens, 768] in a .safetensors or .pt file; only for checkpoints without
    a text encoder."""


@dataclass(frozen=True)
class ImportReleaseCommand:
    """Make a data set of what the official DiffPortrait360 release has made."""

    folder: tyro.conf.Positional[Path]
    """The release's sample_data."""
    name: str
    """Name of the portrait in it, without ending."""
    output: Path
    """Folder of the data set."""


@dataclass(frozen=True)
class ImportCaptureCommand:
    """Make a data set of one frame of a real head that many cameras have taken (data sets licensed for research)."""

    capture: tyro.conf.Positional[Path]
    """A RenderMe-360 .smc file, a NeRSemble participant's folder, or an Ava-256 capture's folder."""
    output: Path
    """Folder of the data set."""
    kind: CaptureKind | None = None
    """Which data set it is; found out by the names of its files if not given."""
    sequence: str | None = None
    """NeRSemble: the sequence, for example EXP-1-head. Ava-256: the segment; a neutral one if not given."""
    frame: int | None = None
    """Number of the frame; the first if not given."""
    cameras: tuple[str, ...] = ()
    """Names of cameras; all if none is given."""
    size: int = 512
    """Side of the square pictures in pixels."""
    framing: Literal["head", "full"] = "head"
    """head: each picture is cut to what generated views show; full: all of it fits the square."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure what a stage costs on this machine; the splat engine, or the diffusion model with random weights."""

    what: tyro.conf.Positional[Literal["diffusion", "splats"]]
    """diffusion: operations, parameters, memory and time of the full-size networks, the release's way and ours;
    splats: milliseconds of the CPU engine at 20,000 and 50,000 Gaussians, 256 and 512 px, and a fit of --data."""
    views: int = 32
    """diffusion: views on the level ring."""
    size_px: int = 512
    """diffusion: side of the views in pixels, a multiple of 64."""
    steps: int = 50
    """diffusion: denoising steps of the comparison with the release; the default sampler keeps its own number."""
    device: Literal["auto", "cpu", "cuda", "meta"] = "auto"
    """diffusion: where to time; auto takes the GPU if there is one, meta only counts; cpu times one clip and one step
    of the full-size networks, which takes 16 GB of memory."""
    data: Path | None = None
    """splats: a data set's folder, to time the default fit of it; none without."""
    json: Path | None = None
    """File for the same figures as JSON."""
