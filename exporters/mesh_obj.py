"""A textured mesh as Wavefront .obj, with a .mtl and a .png beside it.

Frame and unit: metres, +y up, the face to +z. Positions, texture coordinates and normals are indexed apart, so a closed
surface is closed in the file. The texture holds light as it fell on the portrait; its material reflects diffusely only.

Own code: trimesh's writer gives a position, a texture coordinate and a normal one number in common, which tears a
closed surface along the seams of its texture. trimesh reads these files in the tests.

Source: Wavefront, "Object Files (.obj)" and "MTL material format", Appendix B of the Advanced Visualizer manual,
https://www.martinreddy.net/gfx/3d/OBJ.spec and https://www.fileformat.info/format/material/
"""

from __future__ import annotations

import re

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file, texture_png
from .provenance import one_line, provenance_to_json


def encode(
    mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT, stem: str = "head"
) -> bytes:
    """The .obj itself; it names the .mtl that `companions` makes for the same stem.

    Args:
        mesh: in world units.
        provenance: origin, written as comments.
        metres_per_unit: positive factor on positions.
        stem: name of the .obj file without its extension.

    Raises:
        ValueError: as `arrays_for_mesh_file`.
    """
    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_obj.encode")
    lines = [*_comments(provenance), "# unit: metre, +y up, face to +z", f"mtllib {_plain(stem)}.mtl", "o head"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in arrays.positions.tolist()]
    lines += [f"vt {u:.7g} {v:.7g}" for u, v in arrays.uv_bottom_left.tolist()]
    lines += [f"vn {x:.5g} {y:.5g} {z:.5g}" for x, y, z in arrays.normals.tolist()]
    lines += ["usemtl head", "s 1"]
    for (a, b, c), (p, q, r) in zip((arrays.faces + 1).tolist(), (arrays.uv_faces + 1).tolist()):
        lines.append(f"f {a}/{p}/{a} {b}/{q}/{b} {c}/{r}/{c}")
    return ("\n".join(lines) + "\n").encode("ascii")


def companions(mesh: TexturedMesh, provenance: Provenance, *, stem: str = "head") -> dict[str, bytes]:
    """The files that must lie beside the .obj: its material and the texture.

    Args:
        provenance: origin, written into both.
        stem: the one given to `encode`.

    Returns:
        Bytes by file name. Characters of the stem that readers of .obj stumble over (spaces above all) become `_`.
    """
    name = _plain(stem)
    material = [
        *_comments(provenance),
        "newmtl head",
        "Ka 0 0 0",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "d 1",
        "illum 1",
        f"map_Kd {name}.png",
    ]
    return {f"{name}.mtl": ("\n".join(material) + "\n").encode("ascii"), f"{name}.png": texture_png(mesh, provenance)}


def _comments(provenance: Provenance) -> list[str]:
    """Lines for people, and one for programs."""
    return [
        f"# dp360 {_plain(provenance.version)}",
        f"# {one_line(provenance.statement)}",
        f"# dp360.provenance {provenance_to_json(provenance)}",
    ]


def _plain(stem: str) -> str:
    """A file name that every reader takes as one word."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem) or "head"
