"""A finished head as files in one folder: what `dp360 run` and the end of ns-train both leave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import UInt8
from torch import Tensor

from dp360.generation import InputError, ViewSet
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.files import write_bytes_atomically
from dp360.generation.progress import Track, silent
from dp360.reconstruction.front_view import framing_of
from dp360.reconstruction.splat_scene import SplatScene
from dp360.reconstruction.splats import Splats, splat_pictures

from . import contact_sheet, mesh_glb, splat_ply

if TYPE_CHECKING:
    from .meshing import MeshConfig

PORTRAIT_NAME, SPLATS_NAME, MESH_NAME, SHEET_NAME = "portrait.png", "head.ply", "head.glb", "contact_sheet.png"


def write_head(
    folder: Path,
    splats: Splats,
    views: ViewSet,
    *,
    portrait_rgb: UInt8[Tensor, "h w 3"] | None = None,
    mesh_config: MeshConfig | None = None,
    track: Track = silent,
) -> tuple[Path, ...]:
    """Write head.ply, head.glb (the mesh of the splats) and contact_sheet.png, each whole or not at all.

    Splats come first: whatever the mesh meets, they are kept.

    Args:
        folder: made if missing.
        splats: fitted Gaussians, world units.
        views: the generated views, and the provenance that every file gets.
        portrait_rgb: the aligned portrait for the sheet; the first view over white if not given.
        mesh_config: how fine the mesh is; `run_mesh` of the views' size if not given.

    Raises:
        InputError: the folder cannot be written, or the splats show no surface.
    """
    from .meshing import mesh_from_renders, run_mesh

    paths = tuple(folder / name for name in (SPLATS_NAME, MESH_NAME, SHEET_NAME))
    known = views.provenance.is_known
    unit = METRES_PER_UNIT if known else 1.0  # views of others keep their unit
    write_bytes_atomically(paths[0], splat_ply.encode(splats, views.provenance, metres_per_unit=unit))
    if not len(splats):
        raise InputError("Cannot make a mesh: expected splats, got none")
    framing = framing_of(splats, known=known)
    splats = framing.framed(splats)
    if portrait_rgb is None:
        portrait_rgb = (views.rgb_unit()[0] * 255).round().byte()
    with ThreadPoolExecutor(1) as beside:
        sheet = beside.submit(_sheet, splats, views, portrait_rgb)
        config = (mesh_config or run_mesh(views.cameras.width)).framed(framing)
        mesh = mesh_from_renders(SplatScene(splats), config, track=track)
        mesh = framing.mesh_to_world(mesh)
        write_bytes_atomically(paths[1], mesh_glb.encode(mesh, views.provenance, metres_per_unit=unit))
        write_bytes_atomically(paths[2], sheet.result())
    return paths


def _sheet(splats: Splats, views: ViewSet, portrait_rgb: UInt8[Tensor, "h w 3"]) -> bytes:
    """The contact sheet; `splats` in their framing."""
    pictures = splat_pictures(splats, contact_sheet.sheet_cameras())
    return contact_sheet.encode(contact_sheet.SheetContent(portrait_rgb, views, pictures), views.provenance)
