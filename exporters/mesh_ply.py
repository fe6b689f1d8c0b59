"""A mesh as binary .ply with a colour per vertex, written by trimesh, for MeshLab, CloudCompare, Blender and open3d.

Frame and unit: metres, +y up, the face to +z. Vertices are welded, so a closed surface is closed in the file. Colours
are those of the texture around each vertex; who needs the texture itself takes .glb, .obj or .usdz.

Source: G. Turk, "The PLY Polygon File Format", 1994, https://paulbourke.net/dataformats/ply/
"""

from __future__ import annotations

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file, vertex_colours
from .ply_tables import our_comments
from .splat_file_frame import FileNote


def encode(mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .ply file.

    Args:
        mesh: in world units.
        provenance: origin, written as comments.
        metres_per_unit: positive factor on positions.

    Raises:
        ValueError: as `arrays_for_mesh_file`.
    """
    from trimesh.exchange.ply import export_ply
    from trimesh.visual import ColorVisuals

    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_ply.encode")
    surface = arrays.to_trimesh()
    surface.visual = ColorVisuals(surface, vertex_colors=vertex_colours(mesh, arrays))
    before, after = export_ply(surface, vertex_normal=True).split(b"element vertex ", 1)
    comments = "\n".join(our_comments(FileNote(provenance, metres_per_unit))) + "\n"
    return before + comments.encode("ascii") + b"element vertex " + after
