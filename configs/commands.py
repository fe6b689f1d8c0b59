"""What can be asked of the `dp360` command: one dataclass per subcommand, its docstrings are the help texts.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .presets import PRESETS, Preset, Quality

Device = Literal["auto", "cpu", "cuda"]
Generator = Literal["auto", "prior", "compact", "diffportrait360"]
Rings = Literal["three", "level"]
_DIFFUSION_SIZE_PX = 512  # what the official weights were trained at


@dataclass(frozen=True)
class DiffusionOptions:
    """How views are drawn with --generator compact or diffportrait360."""

    schedule: Literal["default", "official"] = "default"
    """official: the release's sampler to the letter; default: fewer steps, and clips that close the circle."""
    steps: int | None = None
    """Denoising steps; 16 if not given, 50 with the official schedule, 8 with the compact model on a CPU."""
    guidance_scale: float | None = None
    """How strongly portrait and control are followed; 3 if not given, 1 with the compact model. 1 is fastest, since one
    of two predictions falls away."""
    guidance_rescale: float = 0.0
    """0 to 1: how much of the contrast that guidance adds is taken back."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """First and last part of the steps, 0 to 1, in which guidance acts; elsewhere it costs nothing."""
    eta: float | None = None
    """Noise that each step adds, 0 to 1, where the sampler has it; 0.5 with the official schedule, else 0."""
    strength: float = 1.0
    """Below 1 the first steps are left out, so that more of the start views stays."""
    clip_length: int | None = None
    """Views that see each other; what the weights were trained with if not given."""
    window_stride: int | None = None
    """Views between the starts of two clips: below the clip's length they overlap, for more time."""
    clips_per_batch: int = 1
    """Clips computed at once: more is faster on a GPU and takes more memory."""
    view_consistency: bool = True
    """Views see each other; --no-view-consistency draws each for itself (for ablations)."""
    dual_appearance: bool = True
    """The back of the head is a reference beside the portrait; --no-dual-appearance leaves it out (for ablations)."""
    condition_views: Annotated[Path | None, tyro.conf.arg(aliases=["--condition-views"])] = None
    """Folder or film of control pictures (some other head from each camera) in place of our own; not for the compact
    model, which the prior controls."""
    start_views: Annotated[Path | None, tyro.conf.arg(aliases=["--start-views"])] = None
    """Folder or film of rough views to start from, in place of the prior's; not for the compact model."""
    back_image: Annotated[Path | None, tyro.conf.arg(aliases=["--back-image"])] = None
    """Picture of the back of the head over white, aligned as the views are; otherwise the weights draw one."""
    camera_labels: Path | None = None
    """PanoHead's dataset.json with the camera of --image, which is then used as it is, without being aligned again."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers to compute with; auto takes float32 on a CPU and bfloat16 (or float16) on a GPU."""
    device: Device = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    offload: bool = False
    """Keep on the GPU only the networks that work at the moment: less memory, a little slower."""
    vae_tiling: bool = False
    """Decode pictures in tiles: for sizes far above 512 px."""


@dataclass(frozen=True)
class ViewsCommand:
    """Make the posed views of a head and stop: a data set that every nerfstudio method reads."""

    image: Path
    """The portrait: any picture file."""
    output: Path
    """Folder for the results; it gets portrait.png, head.glb (the mesh) and dataset/."""
    quality: Quality = "standard"
    """Dial that derives the numbers below where they are not given."""
    views: int | None = None
    """Views on the level ring; the rings above and below the head get 3/8 and 1/4 as many."""
    size_px: int | None = None
    """Side of the views in pixels; 512 with diffportrait360 if not given."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    face_index: int | None = None
    """Which face of several, 0 being the largest; the largest one, with a notice, if not given."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """wide has room for long hair and hats; auto takes it where the standard frame would cut them off."""
    no_face: bool = False
    """Align by the silhouette alone: for heads in which no face is found."""
    rings: Rings = "three"
    """level: only the ring at eye height, as DiffPortrait360 has it; three: rings above and below it as well."""
    generator: Generator = "auto"
    """Who makes the views: the geometric prior, the compact diffusion model that ships, or diffportrait360, which needs
    --weights; auto takes the compact model where it ships and was better than the prior on held-out heads."""
    weights: str | None = None
    """Weights for diffportrait360: a folder, or a hub id such as gym890/diffportrait360; for compact, a folder of other
    compact weights than those that ship."""
    diffusion: DiffusionOptions = field(default_factory=DiffusionOptions)
    """How the diffusion model draws."""

    @property
    def preset(self) -> Preset:
        """The numbers in force: the dial's, overridden one by one."""
        dial = PRESETS[self.quality]
        size_px = _DIFFUSION_SIZE_PX if self.generator == "diffportrait360" else dial.size_px
        return Preset(
            views=dial.views if self.views is None else self.views,
            size_px=size_px if self.size_px is None else self.size_px,
            iterations=dial.iterations,
        )


@dataclass(frozen=True)
class RunCommand(ViewsCommand):
    """Make a head: portrait, views, Gaussian splats, mesh and contact sheet, all in one folder."""

    iterations: int | None = None
    """Steps of the splat fit."""
    device: Device = "auto"
    """Where the splats are fitted; auto takes the GPU if there is one."""

    @property
    def preset(self) -> Preset:
        """The numbers in force: the dial's, overridden one by one."""
        numbers = super().preset
        iterations = numbers.iterations if self.iterations is None else self.iterations
        return Preset(numbers.views, numbers.size_px, iterations)


@dataclass(frozen=True)
class FitCommand:
    """Fit Gaussian splats to views that are already on disk."""

    data: Path
    """A data set's folder (with transforms.json, or dataset/transforms.json), from dp360 or any other program."""
    output: Path
    """Folder for the results; it gets head.ply and contact_sheet.png."""
    quality: Quality = "standard"
    """Dial that derives the number of iterations where it is not given."""
    iterations: int | None = None
    """Steps of the splat fit."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    device: Device = "auto"
    """Where the splats are fitted; auto takes the GPU if there is one."""

    @property
    def preset(self) -> Preset:
        """The numbers in force."""
        dial = PRESETS[self.quality]
        iterations = dial.iterations if self.iterations is None else self.iterations
        return Preset(dial.views, dial.size_px, iterations)


@dataclass(frozen=True)
class ExportCommand:
    """Write a fitted head in other forms: splats, meshes, pictures; the endings of the names say which."""

    output: Annotated[tuple[tuple[Path, ...], ...], tyro.conf.UseAppendAction]
    """Files to write, several at once: --output head.spz head.html turntable.mp4. The endings: .ply .compressed.ply
    .splat .spz .sog .glb .usdc .usd .usda .usdz (splats), .glb .obj .ply .stl .usdz (mesh), .html (a viewer in one
    file), .mp4 .gif .webp (turntable), .png (contact sheet). A name without ending is a folder for what a run makes by
    itself: head.ply, head.glb and contact_sheet.png."""
    load_config: Path | None = None
    """The config.yml of an ns-train run. A run of dp360-nerf has no splats: it gives meshes and pictures."""
    input: Path | None = None
    """Instead of a run of ns-train: splats in a file of any of the formats, from dp360 or any other program, or the
    folder that dp360 run has made."""
    kind: Literal["splats", "mesh"] | None = None
    """What to put into .ply, .glb and .usdz, which may hold either; if not given, splats into .ply and a mesh into .glb
    and .usdz."""
    metres_per_unit: float | None = None
    """Factor from world units to the lengths in files; metres if not given, 1 keeps world units."""
    up_axis: Literal["+y", "-y"] = "+y"
    """Which way the crown points in .ply, .compressed.ply, .splat, .spz and .sog; -y for viewers that would show the
    head upside down."""
    face_budget: int | None = None
    """Triangles of a mesh at most; 50000 if not given."""
    texture_px: int | None = None
    """Side of a mesh's texture in pixels; 2048 if not given."""
    texture_format: Literal["png", "jpeg"] | None = None
    """How a mesh .glb stores its texture: png keeps every texel, jpeg is several times smaller; png if not given."""
    spz_version: Literal[2, 3] | None = None
    """Version of .spz: 3 if not given, 2 for old readers."""
    sh_bits: int | None = None
    """Bits of each harmonic above the constant one in .spz, 1 to 8: fewer make smaller files; 8 if not given."""
    palette_size: int | None = None
    """Entries for harmonics above the constant one in .sog, 1 to 65536; about half the Gaussians if not given."""
    frames: int | None = None
    """Pictures of a turntable; 96 if not given."""
    frame_px: int | None = None
    """Side of a turntable's pictures in pixels; 512 if not given."""
    fps: float | None = None
    """Pictures of a turntable per second; 24 if not given."""

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write, in the order in which they were named."""
        return tuple(path for named_together in self.output for path in named_together)


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
class DataCommand:
    """Compose heads and write each as a nerfstudio data set with its truth; heads that are there are kept."""

    what: tyro.conf.Positional[Literal["heads"]]
    """heads: a portrait, the prior fitted to it, and true views with alpha, normals and labels."""
    output: Path
    """Folder for the heads; each gets a folder of its own."""
    data: Path = Path("../shared/data/heads")
    """Folder of the head assets, with makehuman, valid, hdri and the others inside."""
    count: int = 10
    """Heads to make; those whose face is not found in the portrait are left out and named."""
    first: int = 0
    """Number of the first head."""
    split: Literal["train", "validation", "held-out"] = "train"
    """Whose shapes, skins and hair: people of one split never appear in another."""
    views: int = 32
    """True views round each head, beside the one of the portrait's camera."""
    size: int = 512
    """Side of the views in pixels."""
    orbit: Literal["level", "swinging", "random", "grid"] = "swinging"
    """level: one ring; swinging: it rises and sinks; random: anywhere from below the chin to above the crown; grid:
    three rings, level, above and below."""
    maps: bool = True
    """Also write normals, labels and what the prior shows; --no-maps makes heads faster."""
    jobs: int = 1
    """Heads made side by side, a core and about 1.5 GB of memory each."""
    seed: int = 0
    """Seed of portraits and cameras; the same seed gives the same bytes."""


@dataclass(frozen=True)
class ExampleCommand:
    """Write a real public-domain portrait to try things on; nothing is downloaded."""

    path: tyro.conf.Positional[Path] = Path("face.png")
    """Where to; a name that ends in .png."""


@dataclass(frozen=True)
class DoctorCommand:
    """Say what this machine has, what it lacks, and what for."""

    output: Path = Path()
    """Where results would go: its disk is looked at."""


Command = (
    RunCommand
    | ViewsCommand
    | FitCommand
    | ExportCommand
    | ViewCommand
    | DataCommand
    | ExampleCommand
    | DoctorCommand
)
