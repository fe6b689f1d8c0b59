"""`dp360 animate` and avatars of a run's folder: stills, films, and sentences about what cannot be done."""

import io

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dp360.configs import cli
from dp360.configs.avatar_files import write_avatar
from dp360.exporters import splat_ply
from dp360.generation import PointCloud
from dp360.generation.mesh import vertex_normals
from dp360.reconstruction.splats import splats_from_point_cloud


@pytest.fixture(scope="module")
def run_folder(mean_fit, tmp_path_factory):
    """What is needed of a run: its fit, and splats over its surface."""
    from dp360.generation import Provenance

    folder, fit = tmp_path_factory.mktemp("run"), mean_fit({"jawOpen": 0.1})
    (folder / "head_fit.npz").write_bytes(fit.encode())
    points = fit.vertices_world[::3]
    normals = vertex_normals(fit.vertices_world.astype(np.float64), fit.faces)[::3]
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0, 1, 0)
    arrays = (points, normals.astype(np.float32), np.full_like(points, 0.6))
    splats = splats_from_point_cloud(PointCloud(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)))
    (folder / "head.ply").write_bytes(splat_ply.encode(splats, Provenance.unknown("a test's head")))
    return folder


def refused(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_an_avatar_is_written_and_taken_up_again(run_folder, tmp_path, capsys):
    written = write_avatar(run_folder)
    assert [path.name for path in written] == ["avatar.glb", "avatar.html", "avatar.ply", "avatar.npz"]
    assert all(path.stat().st_size > 10_000 for path in written)
    words = ("animate", "--avatar", run_folder, "--poses", "neutral,jawOpen", "--output", tmp_path / "a.png")
    assert cli.main([str(word) for word in (*words, "--frame-px", 96)]) == 0
    first, second = (np.array(Image.open(tmp_path / f"a-0{k}-{name}.png")).astype(int)
                     for k, name in ((1, "neutral"), (2, "jawOpen")))  # fmt: skip
    assert first.shape == (96, 96, 4) and np.abs(first - second).max() > 60
    assert np.abs(first - second)[:40].max() < 12  # nothing above the eyes
    (run_folder / "avatar.npz").write_bytes(b"of an earlier layout")  # without files that fit it is made anew
    one = ("animate", "--avatar", run_folder, "--poses", "jawOpen", "--output", tmp_path / "b.png", "--frame-px", 96)
    assert cli.main([str(word) for word in one]) == 0
    assert np.abs(np.array(Image.open(tmp_path / "b.png")).astype(int) - second).max() < 8


def test_a_take_becomes_a_film(run_folder, tmp_path):
    take = tmp_path / "take.csv"
    header = "Timecode,BlendShapeCount,JawOpen,EyeBlinkLeft,EyeBlinkRight,MouthLeft,TongueOut,HeadYaw\n"
    take.write_text(header + "".join(f"00:00:00:{k:02d}.0,61,{k / 20},0,0,0,0,0.2\n" for k in range(12)))
    words = ("animate", "--avatar", run_folder, "--csv", take, "--output", tmp_path / "talk.mp4", "--frame-px", 64)
    assert cli.main([str(word) for word in words]) == 0
    with av.open(io.BytesIO((tmp_path / "talk.mp4").read_bytes()), "r") as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 6 and frames[0].shape == (64, 64, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 20


def test_a_head_is_lit_while_it_turns(run_folder, tmp_path):
    def still(light: str) -> np.ndarray:
        path = tmp_path / "lit.png"
        words = ("animate", "--avatar", run_folder, "--poses", "headYaw=30", "--output", path, "--frame-px", 96)
        assert cli.main([str(word) for word in (*words, "--light", light)]) == 0
        rgba = np.array(Image.open(path)).astype(float)
        return rgba[..., :3][rgba[..., 3] > 250].mean(1)

    picture = np.full((16, 32, 3), 0.05, np.float32)
    picture[4:9, 14:18] = 20.0  # the middle of a panorama lies at the head's left
    panorama = tmp_path / "left.hdr"
    assert cv2.imwrite(str(panorama), picture)
    plain, even, left = still("portrait"), still("even"), still(str(panorama))
    assert even.std() < left.std() and np.abs(plain.mean() - left.mean()) > 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--poses", "smile", "--output", "a.png", "--light", "moon"), "expected --light portrait, even, studio or"),
        (("--poses", "smile", "--output", "a.png", "--light", "none.hdr"), "Cannot read the light none.hdr"),
        (("--output", "a.png"), "give either --csv take.csv or --poses"),
        (("--poses", "smile", "--output", "a.xyz"), "ends in .mp4, .webp or .gif"),
        (("--poses", "frown", "--output", "a.png"), "expected one of neutral"),
        (("--poses", "smile", "--output", "a.mp4", "--fps", "0"), "expected --fps above 0"),
        (("--poses", "smile", "--output", "a.png", "--frame-px", "1"), "expected --frame-px from 16"),
        (("--csv", "none.csv", "--output", "a.mp4"), "Cannot read none.csv"),
        (("--csv", "none.csv", "--output", "a.png"), "a performance becomes a film"),
    ],
)
def test_what_cannot_be_done_is_said(run_folder, capsys, words, message):
    assert message in refused(capsys, "animate", "--avatar", run_folder, *words)


def test_folders_without_a_fit_are_named(tmp_path, capsys):
    words = ("--poses", "smile", "--output", tmp_path / "a.png")
    assert "expected the folder of dp360 run" in refused(capsys, "animate", "--avatar", tmp_path / "no", *words)
    assert "head.ply, which dp360 run writes" in refused(capsys, "animate", "--avatar", tmp_path, *words)
    (tmp_path / "x.ply").write_bytes(b"")
    line = refused(capsys, "export", "--input", tmp_path / "x.ply", "--output", tmp_path / "avatar.glb")
    assert "x.ply" in line
