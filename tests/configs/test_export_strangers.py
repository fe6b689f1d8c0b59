"""`dp360 export` and `dp360 view` on other programs' files: lengths stay, axes turn, pictures show what is there."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageSequence

from dp360.configs import cli
from dp360.configs.export import ExportCommand
from dp360.configs.export_files import export
from dp360.configs.fitted_head import open_head
from dp360.configs.view import ViewCommand
from dp360.configs.viewer import _splats
from dp360.exporters import head_files, splat_ply
from dp360.exporters.formats import decode_splats, read_splat_file
from dp360.exporters.ply_tables import ply_bytes
from dp360.generation import Provenance, ViewSet
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.front_view import FrontCamera, framing_of
from dp360.reconstruction.splats import Splats


def strangers_ply(splats: Splats) -> bytes:
    names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
    parts = [splats.means_world, splats.sh0, splats.opacity_logits[:, None], splats.log_scales, splats.quats_wxyz]
    return ply_bytes([], [("vertex", names, torch.cat(parts, dim=1).numpy().astype("<f4"))])


def elsewhere(splats: Splats, scale: float, offset: tuple[float, float, float]) -> Splats:
    means = splats.means_world * scale + torch.tensor(offset)
    rest = splats.sh_rest[:, :0]
    logs = splats.log_scales + float(np.log(scale))
    return Splats(means, logs, splats.quats_wxyz, splats.opacity_logits, splats.sh0, rest)


@pytest.fixture
def theirs(ball, tmp_path) -> Path:
    path = tmp_path / "stranger.ply"
    path.write_bytes(strangers_ply(elsewhere(ball, 7.0, (3.0, -20.0, 11.0))))
    return path


def places(path: Path) -> np.ndarray:
    """The positions as the file holds them."""
    file = read_splat_file(path, path.read_bytes())
    written = file.splats.means_world.numpy()
    noted = file.provenance is not None and b"metres_per_unit" in path.read_bytes()[:4000]
    return np.sort(written * (file.metres_per_unit if noted else 1.0), axis=0)


def test_conversion_changes_nothing_but_the_format(theirs, tmp_path):
    before = np.sort(decode_splats(theirs, theirs.read_bytes())[0].means_world.numpy(), axis=0)
    names = [tmp_path / f"a{end}" for end in (".ply", ".spz", ".sog", ".splat", ".compressed.ply", ".html")]
    splat_glb = tmp_path / "s.glb"
    assert cli.main(["export", "--input", str(theirs), "--output", *map(str, names)]) == 0
    assert cli.main(["export", "--input", str(theirs), "--output", str(splat_glb), "--kind", "splats"]) == 0
    for path in (*names, splat_glb):
        np.testing.assert_allclose(places(path), before, atol=0.02, err_msg=path.name)
        again = tmp_path / "again.ply"  # a converted file keeps its lengths, too
        assert cli.main(["export", "--input", str(path), "--output", str(again)]) == 0
        np.testing.assert_allclose(places(again), before, atol=0.02, err_msg=path.name)


def test_a_unit_and_an_up_axis_may_be_named(theirs, tmp_path):
    out = tmp_path / "a.ply"
    words = ["export", "--input", str(theirs), "--output", str(out), "--metres-per-unit", "0.01"]
    assert cli.main([*words, "--input-up-axis", "-z"]) == 0
    x, y, z = decode_splats(theirs, theirs.read_bytes())[0].means_world.numpy().T * 0.01
    np.testing.assert_allclose(places(out), np.sort(np.stack([x, -z, y], axis=1), axis=0), atol=1e-5)


def test_our_own_files_are_in_metres_still(ball, provenance, tmp_path):
    (tmp_path / "in.ply").write_bytes(splat_ply.encode(ball, provenance))
    assert cli.main(["export", "--input", str(tmp_path / "in.ply"), "--output", str(tmp_path / "out.ply")]) == 0
    assert (tmp_path / "out.ply").read_bytes() == (tmp_path / "in.ply").read_bytes()


@pytest.mark.parametrize(("scale", "offset"), [(7.0, (3.0, -20.0, 11.0)), (1e-3, (0.0, 0.0, 5.0)), (900.0, (0, 0, 0))])
def test_films_show_what_is_there(ball, tmp_path, scale, offset):
    path, film = tmp_path / "in.ply", tmp_path / "a.gif"
    path.write_bytes(strangers_ply(elsewhere(ball, scale, offset)))
    export(ExportCommand(((film,),), input=path, frames=4, frame_px=64))
    with Image.open(film) as pictures:
        for frame in ImageSequence.Iterator(pictures):
            dark = np.asarray(frame.convert("L")) < 250
            rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
            assert 40 < rows[-1] - rows[0] < 62 and 40 < columns[-1] - columns[0] < 62
            assert abs(rows.mean() - 31.5) < 3 and abs(columns.mean() - 31.5) < 3


def test_meshes_lie_where_the_gaussians_do(ball, tmp_path, monkeypatch):
    from dp360.exporters import meshing

    monkeypatch.setattr(meshing, "MeshConfig", functools.partial(meshing.MeshConfig, voxel_size=0.03, render_px=64))
    path = tmp_path / "in.ply"
    path.write_bytes(strangers_ply(elsewhere(ball, 7.0, (3.0, -20.0, 11.0))))
    export(ExportCommand(((tmp_path / "a.stl",),), input=path, face_budget=600, texture_px=64))
    bounds = trimesh.load_mesh(tmp_path / "a.stl").bounds
    np.testing.assert_allclose(bounds, np.add([[-1.4] * 3, [1.4] * 3], [3, -20, 11]), atol=0.3)


def test_what_is_cut_is_said_before_the_work(ball, tmp_path, quick_mesh, capsys):
    means = ball.means_world.clone()
    means[:5] = torch.tensor([0.0, 50.0, 0.0])
    stray = Splats(means, ball.log_scales, ball.quats_wxyz, ball.opacity_logits, ball.sh0, ball.sh_rest[:, :0])
    (tmp_path / "in.ply").write_bytes(strangers_ply(stray))
    cli.main(["export", "--input", str(tmp_path / "in.ply"), "--output", str(tmp_path / "a.stl")])
    error = capsys.readouterr().err
    assert f"5 of {len(ball)} Gaussians lie far from the others; a mesh is cut there" in error
    assert error.index("lie far") < error.index("mesh ")


def test_the_viewer_frames_it(theirs):
    shown = _splats(ViewCommand(theirs), lambda sentence: None)
    assert framing_of(shown, known=True).front_camera == FrontCamera()
    assert 0.2 < float(shown.means_world.abs().max()) < 0.3


def test_a_strangers_mesh_keeps_its_unit(tmp_path):
    box = trimesh.creation.box(extents=[10.0, 20.0, 30.0])
    box.export(tmp_path / "in.obj")
    export(ExportCommand(((tmp_path / "a.stl",),), input=tmp_path / "in.obj"))
    np.testing.assert_allclose(trimesh.load_mesh(tmp_path / "a.stl").extents, [10, 20, 30], rtol=1e-5)
    command = ExportCommand(
        ((tmp_path / "b.stl",),), input=tmp_path / "in.obj", metres_per_unit=0.01, input_up_axis="z"
    )
    export(command)
    np.testing.assert_allclose(trimesh.load_mesh(tmp_path / "b.stl").extents, [0.1, 0.3, 0.2], rtol=1e-5)


def test_what_was_fitted_to_others_views_keeps_their_unit(ball, views: ViewSet, tmp_path, monkeypatch, quick_mesh):
    import dataclasses

    unknown = dataclasses.replace(views, provenance=Provenance.unknown("Read from a data set without provenance"))
    head_files.write_head(tmp_path, ball, unknown)
    head = open_head(None, tmp_path / "head.ply")
    assert head.metres_per_unit == 1.0
    assert b"metres_per_unit 1.0" in (tmp_path / "head.ply").read_bytes()[:4000]
    head_files.write_head(tmp_path, ball, views)
    assert open_head(None, tmp_path / "head.ply").metres_per_unit == METRES_PER_UNIT
