"""`dp360 export`: a fitted head, written in other forms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .console import Display, Outcome


@dataclass(frozen=True)
class ExportCommand:
    """Write a fitted head in other forms: splats, meshes, pictures; the endings of the names say which."""

    output: Annotated[tuple[tuple[Path, ...], ...], tyro.conf.UseAppendAction]
    """Files to write, several at once: --output head.spz head.html turntable.mp4. The endings: .ply .compressed.ply
    .splat .spz .sog .glb .usdc .usd .usda .usdz (splats), .glb .obj .ply .stl .usdz (mesh), .html (a viewer in one
    file), .mp4 .gif .webp (turntable), .png (contact sheet), and, of a run, avatar.glb and avatar.html (a head that
    moves). A name without ending is a folder for what a run makes by itself: head.ply, head.glb and
    contact_sheet.png."""
    load_config: Path | None = None
    """The config.yml of an ns-train run. A run of dp360-nerf has no splats: it gives meshes and pictures."""
    input: Path | None = None
    """Instead of a run of ns-train: splats in a file of any of the formats, or a mesh (.glb .obj .ply .stl), from dp360
    or any other program, or the folder that dp360 run has made. A mesh becomes other mesh files alone."""
    kind: Literal["splats", "mesh"] | None = None
    """What to put into .ply, .glb and .usdz, which may hold either; if not given, splats into .ply and a mesh into .glb
    and .usdz."""
    metres_per_unit: float | None = None
    """Factor on lengths. For heads of dp360 it leads from world units to files: metres if not given, 1 keeps world
    units. For another program's file it leads from its unit to the outputs: 0.01 if it is in centimetres; if not given,
    lengths stay as they are, or become metres where the file says its unit."""
    input_up_axis: Literal["y", "-y", "z", "-z", "auto"] | None = None
    """Which way is up in another program's file; outputs have +y up. If not given, what the file says of itself is
    believed, and one that says nothing stays as it is; auto guesses from its shape then, and says what."""
    up_axis: Literal["+y", "-y"] = "+y"
    """Which way the crown points in .ply, .compressed.ply, .splat, .spz and .sog; -y for viewers that would show the
    head upside down."""
    face_budget: int | None = None
    """Triangles of a mesh at most; 50000 if not given."""
    texture_px: int | None = None
    """Side of a mesh's texture in pixels; 2048 if not given."""
    texture_format: Literal["png", "jpeg"] | None = None
    """How a mesh .glb stores its texture: png keeps every texel, jpeg is several times smaller; png if not given."""
    unlit: bool = False
    """An avatar.glb in the portrait's light, shown as it is; otherwise its colours are without light, for a scene's."""
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


def run(command: ExportCommand, display: Display) -> Outcome:
    """Write the files."""
    from .export_files import export

    return export(command, track=display.track, notify=display.notify)
