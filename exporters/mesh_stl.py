"""A mesh as binary .stl, written by trimesh: bare triangles, for printing.

Frame and unit: metres, +y up, the face to +z; the format has no place for a unit and most slicers take numbers for
millimetres, for which `metres_per_unit` is multiplied by 1000. Its one place for words, the 80 bytes of the header,
says where the head comes from.

Source: 3D Systems, "StereoLithography Interface Specification", 1988, binary form.
"""

from __future__ import annotations

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file

_HEADER_BYTES = 80


def encode(mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .stl file.

    Args:
        mesh: in world units.
        provenance: origin; the header has room for generator, version, seed and the start of the input's hash.
        metres_per_unit: positive factor on positions.

    Raises:
        ValueError: as `arrays_for_mesh_file`.
    """
    from trimesh.exchange.stl import export_stl

    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_stl.encode")
    return _header(provenance) + export_stl(arrays.to_trimesh())[_HEADER_BYTES:]


def _header(provenance: Provenance) -> bytes:
    """80 bytes that do not begin with `solid`, by which readers tell text files."""
    text = (
        f"dp360 {provenance.version} AI-generated from one image {provenance.generator[:15]} seed {provenance.seed} "
        f"{provenance.input_sha256[:16]}"
    )
    return text.encode("ascii", "replace")[:_HEADER_BYTES].ljust(_HEADER_BYTES, b" ")
