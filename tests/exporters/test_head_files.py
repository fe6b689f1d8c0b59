"""The files that every finished head leaves: its splats, the mesh of these splats, and a sheet of both."""

import numpy as np
import pytest
import torch

from dp360.exporters import splat_ply, write_head
from dp360.exporters.mesh_read import load_trimesh, read_mesh
from dp360.exporters.meshing import MeshConfig, Ring
from dp360.generation import InputError
from dp360.generation.cameras import METRES_PER_UNIT

QUICK = MeshConfig(
    face_budget=1500,
    texture_px=128,
    voxel_size=0.01,
    render_px=96,
    near_rings=(Ring(8, 0.0),),
    far_rings=(Ring(6, 20.0), Ring(4, 60.0), Ring(6, -20.0)),
)


def test_the_mesh_is_that_of_the_splats(ball, views, tmp_path):
    files = write_head(tmp_path / "out", ball, views, mesh_config=QUICK)
    assert [f.name for f in files] == ["head.ply", "head.glb", "contact_sheet.png"] and all(f.is_file() for f in files)
    assert len(splat_ply.decode(files[0].read_bytes())[0]) == len(ball)
    mesh, origin = read_mesh(files[1])
    assert origin == views.provenance
    radius = np.linalg.norm(mesh.vertices_world, axis=1)
    assert abs(np.median(radius) - 0.2) < 0.01 and radius.max() < 0.23
    surface = load_trimesh(files[1])
    surface.merge_vertices(merge_tex=True, merge_norm=True)
    assert surface.is_watertight and surface.extents[1] == pytest.approx(0.4 * METRES_PER_UNIT, rel=0.06)


def test_splats_are_kept_where_no_mesh_can_be_made(ball, views, tmp_path):
    faint = type(ball)(**{**vars(ball), "opacity_logits": torch.full((len(ball),), -12.0)})
    with pytest.raises(InputError, match="Cannot make a mesh"):
        write_head(tmp_path, faint, views, mesh_config=QUICK)
    assert [f.name for f in tmp_path.iterdir()] == ["head.ply"]
