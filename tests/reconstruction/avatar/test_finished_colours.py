"""What a diffusion model has changed of a head reaches the texture of its avatar."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.configs import avatar_files
from dp360.generation import Provenance
from dp360.generation.mesh_raster import sample_texture
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_SKIN, MATERIAL_TEETH
from dp360.reconstruction.avatar.finished_colours import with_finished_colours
from dp360.reconstruction.avatar.rig import Rig, build_rig
from dp360.reconstruction.spherical_harmonics import SH_C0
from dp360.reconstruction.splats import Splats


@pytest.fixture(scope="module")
def rig(mean_fit) -> Rig:
    """A rig of the mean head."""
    return build_rig(mean_fit())


def splats_on(rig: Rig, count: int = 60_000) -> Splats:
    """Opaque discs all over the portrait's surface, in the colours of the texture."""
    rng = np.random.default_rng(0)
    corners = rig.portrait_vertices_world[rig.faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    face = rng.choice(len(areas), count, p=areas / areas.sum())
    weights = rng.dirichlet((1, 1, 1), count)
    means = (weights[..., None] * corners[face]).sum(1)
    size = np.array(rig.texture_rgb.shape[1::-1])
    uv_px = (weights[..., None] * (rig.uv_unit * size)[rig.faces[face]]).sum(1)
    rgb = sample_texture(rig.texture_rgb.astype(np.float32), uv_px) / 255
    spacing = np.sqrt(areas.sum() / count)
    return Splats(
        torch.from_numpy(means).float(),
        torch.full((count, 3), float(np.log(0.7 * spacing))),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count,), 6.0),
        torch.from_numpy((rgb - 0.5) / SH_C0).float(),
        torch.zeros(count, 0, 3),
    )


def texels_of(rig: Rig, materials: tuple[int, ...], side: float = 0.0) -> np.ndarray:
    """Rows and columns of texels at the middles of triangles of materials, on one side of the head or on both."""
    middle = rig.portrait_vertices_world[rig.faces].mean(1)
    chosen = np.isin(rig.material, materials) & ((middle[:, 0] * side > 0.03) | (side == 0))
    size = np.array(rig.texture_rgb.shape[1::-1])
    return np.floor((rig.uv_unit * size)[rig.faces[chosen]].mean(1)).astype(int)[:, ::-1]


def test_a_head_as_the_prior_has_it_changes_little(rig: Rig) -> None:
    finished = with_finished_colours(rig, splats_on(rig))
    skin = tuple(texels_of(rig, (MATERIAL_SKIN,), 1.0).T)
    change = finished.texture_rgb[skin].astype(float) - rig.texture_rgb[skin]
    assert np.median(np.abs(change)) < 3


def test_one_half_that_was_made_blue_is_blue_on_the_texture_too(rig: Rig) -> None:
    splats = splats_on(rig)
    blue = splats.means_world[:, 0] > 0
    sh0 = torch.where(blue[:, None], splats.sh0 + torch.tensor([-0.4, 0.0, 0.4]) / SH_C0 / 2, splats.sh0)
    finished = with_finished_colours(rig, replace(splats, sh0=sh0))
    for picture, before in ((finished.texture_rgb, rig.texture_rgb), (finished.albedo_rgb, rig.albedo_rgb)):
        for side, wanted in ((1.0, 51), (-1.0, 0)):
            skin = tuple(texels_of(rig, (MATERIAL_SKIN,), side).T)
            change = picture[skin].astype(float) - before[skin]
            assert abs(np.median(change[:, 2]) - min(wanted, np.median(255 - before[skin][:, 2]))) < 6
            assert abs(np.median(change[:, 1])) < 4
    inner = tuple(texels_of(rig, (MATERIAL_EYE, MATERIAL_TEETH, MATERIAL_MOUTH)).T)
    change = np.abs(finished.texture_rgb[inner].astype(int) - rig.texture_rgb[inner]).max(1)
    assert len(change) > 100 and np.median(change) == 0


@pytest.mark.parametrize(("generator", "taken"), [("prior", False), ("field", False), ("compact", True)])
def test_a_run_takes_them_where_a_diffusion_model_drew_the_views(
    generator: str, taken: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    avatar = avatar_files.RunAvatar(tmp_path)
    vars(avatar)["fit"], vars(avatar)["head"] = None, (None, Provenance(generator, "weights", 0, "0" * 64))
    (tmp_path / "head.ply").touch()
    monkeypatch.setattr(avatar_files, "build_rig", lambda fit: rig)
    finished = replace(rig)
    monkeypatch.setattr(avatar_files, "with_finished_colours", lambda given, splats: finished)
    assert avatar.rig is (finished if taken else rig)
