"""A mesh as binary .stl: bare triangles, for printing.

Frame and unit: metres, +y up, the face to +z; the format has no place for a unit and most slicers take numbers for
millimetres, for which `metres_per_unit` is multiplied by 1000.

Source: 3D Systems, "StereoLithography Interface Specification", 1988, binary form: 80 bytes of text, the number of
facets, and 50 bytes per facet.
"""

from __future__ import annotations

import numpy as np

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file

_HEADER_BYTES = 80
_FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def encode(mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .stl file.

    Args:
        mesh: in world units.
        provenance: origin; the header has room for generator, version, seed and the start of the input's hash.
        metres_per_unit: positive factor on positions.

    Raises:
        ValueError: as `arrays_for_mesh_file`.
    """
    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_stl.encode")
    facets = np.zeros(len(arrays.faces), _FACET)
    corners = arrays.positions[arrays.faces]
    facets["corners"] = corners
    wide = corners.astype(np.float64)
    normal = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    facets["normal"] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    return _header(provenance) + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()


def _header(provenance: Provenance) -> bytes:
    """80 bytes that do not begin with `solid`, by which readers tell text files."""
    text = (
        f"dp360 {provenance.version} AI-generated from one image {provenance.generator[:15]} seed {provenance.seed} "
        f"{provenance.input_sha256[:16]}"
    )
    return text.encode("ascii", "replace")[:_HEADER_BYTES].ljust(_HEADER_BYTES, b" ")
