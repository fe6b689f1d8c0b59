"""A mesh as binary .ply with a colour per vertex, which MeshLab, CloudCompare, Blender and open3d read.

Frame and unit: metres, +y up, the face to +z. Vertices are welded, so a closed surface is closed in the file. Colours
are those of the texture around each vertex; who needs the texture itself takes .glb, .obj or .usdz.

Source: G. Turk, "The PLY Polygon File Format", 1994, https://paulbourke.net/dataformats/ply/
"""

from __future__ import annotations

import numpy as np

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file, vertex_colours
from .ply_header import our_comments

_VERTEX = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
_VERTEX += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
_FACE = np.dtype([("count", "u1"), ("vertex_indices", "<i4", (3,))])


def encode(mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .ply file.

    Args:
        mesh: in world units.
        provenance: origin, written as comments.
        metres_per_unit: positive factor on positions.

    Raises:
        ValueError: as `arrays_for_mesh_file`.
    """
    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_ply.encode")
    colours = vertex_colours(mesh, arrays)
    table = np.empty(len(arrays.positions), np.dtype(_VERTEX))
    for k in range(3):
        table["xyz"[k]] = arrays.positions[:, k]
        table[("nx", "ny", "nz")[k]] = arrays.normals[:, k]
        table[("red", "green", "blue")[k]] = colours[:, k]
    faces = np.empty(len(arrays.faces), _FACE)
    faces["count"], faces["vertex_indices"] = 3, arrays.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *our_comments(provenance, metres_per_unit, "+y"),
        f"element vertex {len(table)}",
        *(f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in _VERTEX),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode("ascii") + table.tobytes() + faces.tobytes()
