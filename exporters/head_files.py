"""A finished head as files in one folder: what `dp360 run` and the end of ns-train both leave."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from dp360.generation import ViewSet
from dp360.generation.files import write_bytes_atomically
from dp360.generation.mesh import TexturedMesh
from dp360.generation.progress import Track, silent
from dp360.reconstruction.splat_pictures import splat_pictures
from dp360.reconstruction.splats import Splats

from . import contact_sheet, mesh_glb, splat_ply

PORTRAIT_NAME, SPLATS_NAME, MESH_NAME, SHEET_NAME = "portrait.png", "head.ply", "head.glb", "contact_sheet.png"


def write_head(
    folder: Path,
    splats: Splats,
    views: ViewSet,
    *,
    portrait_rgb: UInt8[Tensor, "h w 3"] | None = None,
    mesh: TexturedMesh | None = None,
    track: Track = silent,
) -> tuple[Path, ...]:
    """Write head.ply, head.glb (where a mesh is given) and contact_sheet.png, each whole or not at all.

    Args:
        folder: made if missing.
        splats: fitted Gaussians, world units.
        views: the generated views, and the provenance that every file gets.
        portrait_rgb: the aligned portrait for the sheet; the first view over white if not given.
        mesh: the textured head.

    Returns:
        The files written.

    Raises:
        InputError: the folder cannot be written.
    """
    files = [(SPLATS_NAME, splat_ply.encode(splats, views.provenance))]
    if mesh is None:
        from dp360.reconstruction.splat_scene import SplatScene

        from .meshing import MeshConfig, mesh_from_renders

        mesh = mesh_from_renders(SplatScene(splats), MeshConfig(), track=track)
    if mesh is not None:
        files.append((MESH_NAME, mesh_glb.encode(mesh, views.provenance)))
    if portrait_rgb is None:
        portrait_rgb = (views.rgb_unit()[0] * 255).round().byte()
    pictures = splat_pictures(splats, contact_sheet.sheet_cameras())
    sheet = contact_sheet.SheetContent(portrait_rgb, views, pictures)
    files.append((SHEET_NAME, contact_sheet.encode(sheet, views.provenance)))
    for name, data in files:
        write_bytes_atomically(folder / name, data)
    return tuple(folder / name for name, _ in files)
