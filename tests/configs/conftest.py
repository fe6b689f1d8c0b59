"""What tests of several commands share."""

import numpy as np
import pytest
import trimesh

from dp360.generation.mesh import TexturedMesh
from dp360.generation.progress import Track


@pytest.fixture
def quick_mesh(monkeypatch) -> list:
    """A ball in place of the mesh, which takes its time; the list gets the settings of each one made."""
    from dp360.exporters import meshing

    made: list[meshing.MeshConfig] = []
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.2)
    count = len(ball.vertices)

    def make(scene: meshing.Renderable, config: meshing.MeshConfig, *, track: Track) -> TexturedMesh:
        made.extend(track([config], total=1, description="mesh"))
        return TexturedMesh(
            ball.vertices.astype(np.float32),
            (ball.vertices / 0.2).astype(np.float32),
            np.random.default_rng(0).random((count, 2), dtype=np.float32),
            ball.faces.astype(np.int32),
            np.full((64, 64, 3), 120, dtype=np.uint8),
        )

    monkeypatch.setattr(meshing, "mesh_from_renders", make)
    return made
