"""`dp360 export`: many outputs in one run, options that mean something, damaged input, and former files left alone."""

import dataclasses
import functools
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageSequence
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import SimpleMaterial

from dp360.configs import cli, export_files
from dp360.configs.export import ExportCommand
from dp360.configs.export_files import export
from dp360.exporters import formats, splat_ply
from dp360.generation import InputError, ViewSet
from dp360.generation.dataset.view_dataset import write_dataset

if TYPE_CHECKING:
    from dp360.reconstruction.nerfstudio_nerf import HeadNerfModel

READABLE = sorted({f.extension for f in formats.FORMATS if f.decode is not None})
TURN = ("--frames", "3", "--frame-px", "32")


def dp360_export(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def refusal(capsys, *words: object) -> str:
    """The one sentence with which the command leaves, exit code 2."""
    with pytest.raises(SystemExit) as left:
        dp360_export(*words)
    output = capsys.readouterr()
    assert left.value.code == 2 and output.out == "" and "Traceback" not in output.err
    (line,) = [line for line in output.err.splitlines() if line.startswith("dp360: ")]
    return line


@pytest.fixture
def file(ball, provenance, tmp_path) -> Path:
    path = tmp_path / "in.ply"
    path.write_bytes(splat_ply.encode(ball, provenance))
    return path


@pytest.fixture
def folder(ball, views: ViewSet, provenance, tmp_path) -> Path:
    """As `dp360 run` leaves it."""
    write_dataset(views, tmp_path / "run" / "dataset")
    (tmp_path / "run" / "head.ply").write_bytes(splat_ply.encode(ball, provenance))
    return tmp_path / "run"


def test_outputs_may_stand_together_or_repeat_the_option(file, tmp_path, capsys):
    names = [tmp_path / "out" / n for n in ("a.spz", "b.sog", "C.PLY", "d.html", "e.gif")]
    assert dp360_export("--input", file, "--output", *names[:2], "--output", *names[2:], *TURN) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {n}" for n in names]
    count = len(splat_ply.decode(file.read_bytes())[0])
    for name in names[:4]:
        splats, origin = formats.decode_splats(name, name.read_bytes())
        assert len(splats) == count and origin is not None and origin.generator == "prior"
    with Image.open(names[4]) as film:
        assert len(list(ImageSequence.Iterator(film))) == 3 and film.size == (32, 32)


def test_the_folder_of_a_run_gives_everything(folder, tmp_path, quick_mesh):
    assert dp360_export("--input", folder, "--output", tmp_path / "copy", tmp_path / "sheet.png") == 0
    out = tmp_path / "copy"
    assert {p.name for p in out.iterdir()} == {"head.ply", "head.glb", "contact_sheet.png"}
    assert (out / "head.ply").read_bytes() == (folder / "head.ply").read_bytes()
    assert len(quick_mesh) == 1 and trimesh.load_mesh(out / "head.glb").is_watertight  # of the splats
    assert (out / "contact_sheet.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_one_mesh_serves_all_mesh_files(file, tmp_path, quick_mesh):
    names = tuple(tmp_path / n for n in ("a.glb", "a.stl", "b.ply"))
    command = ExportCommand((names,), input=file, kind="mesh", face_budget=700, texture_px=128, metres_per_unit=1.0)
    assert export(command) == names
    (config,) = quick_mesh
    assert (config.face_budget, config.texture_px) == (700, 128)
    for name in names:
        mesh = trimesh.load_mesh(name)
        np.testing.assert_allclose(mesh.bounds, [[-0.2] * 3, [0.2] * 3], atol=0.01)


def test_the_mesh_is_that_of_the_splats(file, tmp_path, monkeypatch):
    """A ball of radius 0.2, its left half red, through the mesher itself, coarsely."""
    from dp360.exporters import meshing

    monkeypatch.setattr(meshing, "MeshConfig", functools.partial(meshing.MeshConfig, voxel_size=0.03, render_px=64))
    command = ExportCommand(((tmp_path / "a.ply",),), input=file, kind="mesh", face_budget=600, texture_px=64)
    export(dataclasses.replace(command, metres_per_unit=1.0))
    mesh = trimesh.load_mesh(tmp_path / "a.ply")
    np.testing.assert_allclose(mesh.bounds, [[-0.2] * 3, [0.2] * 3], atol=0.03)
    assert mesh.is_watertight and len(mesh.faces) <= 600
    assert isinstance(mesh.visual, ColorVisuals)
    rgb = mesh.visual.vertex_colors[:, :3].astype(int)
    assert mesh.vertices[rgb[:, 0] - rgb[:, 2] > 100].mean(axis=0)[0] > 0.1


def test_kind_chooses_what_a_glb_holds(file, tmp_path, quick_mesh):
    kinds: tuple[tuple[Literal["splats", "mesh"] | None, str], ...]
    kinds = ((None, "mesh"), ("mesh", "mesh"), ("splats", "splats"))
    for kind, held in kinds:
        export(ExportCommand(((tmp_path / "a.glb",),), input=file, kind=kind))
        assert (b"KHR_gaussian_splatting" in (tmp_path / "a.glb").read_bytes()) == (held == "splats")
    assert len(quick_mesh) == 2


def test_kind_may_repeat_what_an_ending_says(file, tmp_path):
    assert dp360_export("--input", file, "--output", tmp_path / "a.spz", "--kind", "splats") == 0


def test_an_obj_brings_its_companions(file, tmp_path, quick_mesh):
    paths = export(ExportCommand(((tmp_path / "ada.obj",),), input=file))
    assert [p.suffix for p in paths] == [".obj", ".mtl", ".png"] and all(p.stem == "ada" for p in paths)
    visual = trimesh.load_mesh(tmp_path / "ada.obj").visual
    assert isinstance(visual, TextureVisuals)
    assert isinstance(visual.material, SimpleMaterial)
    assert visual.material.image is not None and visual.material.image.size == (64, 64)


def test_splat_says_that_it_forgets_the_origin(file, tmp_path, capsys):
    dp360_export("--input", file, "--output", tmp_path / "a.splat", tmp_path / "a.spz")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "a.splat has no place for where it comes from" in line


def test_meshing_shows_how_far_it_is(file, tmp_path, quick_mesh):
    shown = []

    def track(sequence: Iterable, *, total: float | None, description: str) -> Iterable:
        shown.append(description)
        return sequence

    export(ExportCommand(((tmp_path / "a.stl", tmp_path / "a.mp4"),), input=file, frames=2), track=track)
    assert shown == ["mesh", "turntable"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.obj2",), r"expected a name that ends in one of .compressed.ply, .gif, .glb"),
        (("a.spz", "b.unknown"), r"Cannot tell the format of b.unknown"),
        (("a.spz", "a.spz"), "Cannot write a.spz twice"),
        (("a.spz", "--kind", "mesh"), "none of the outputs holds a mesh, as --kind mesh asks"),
        (("a.spz", "--face-budget", "9"), "none of the outputs takes --face-budget"),
        (("a.glb", "--up-axis=-y"), "none of the outputs takes --up-axis"),
        (("a.ply", "--fps", "9"), "none of the outputs takes --fps"),
        (("a.glb", "--spz-version", "2"), "none of the outputs takes --spz-version"),
        (("a.spz", "--metres-per-unit", "nan"), "expected a positive --metres-per-unit, got nan"),
        (("a.spz", "--sh-bits", "9"), "Cannot write a.spz: splat_spz.encode: expected sh_bits from 1 to 8, got 9"),
        (("a.glb", "--face-budget", "9"), "Cannot write a.glb: MeshConfig: expected a face_budget of at least 100"),
        (("a.mp4", "--frames", "0"), "Cannot write a.mp4: expected --frames from 2 to 3600, got 0"),
        (("a.mp4", "--frame-px", "9999"), "Cannot write a.mp4: expected --frame-px from 16 to 4096, got 9999"),
        (("a.gif", *TURN, "--fps", "0"), "Cannot write a.gif: turntable.encode: expected fps"),
        (("a.png",), "Cannot make a.png: a contact sheet shows the views"),
        (("out",), "Cannot write the folder out from in.ply, which is no run: name files"),
        (("a.obj", "a.png", "--kind", "splats"), "none of the outputs holds splats"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(file, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, "--input", "in.ply", "--output", *words)
    assert [p.name for p in tmp_path.iterdir()] == ["in.ply"]


def test_a_sheet_does_not_overwrite_the_texture_of_an_obj(folder, tmp_path, quick_mesh, capsys):
    names = tmp_path / "head.obj", tmp_path / "head.png"
    assert f"Cannot write {names[1]} twice" in refusal(capsys, "--input", folder, "--output", *names)
    assert not names[0].exists()


def test_a_radiance_field_has_no_splats(views, tmp_path, monkeypatch):
    head = export_files.FittedHead("config.yml", cast("HeadNerfModel", torch.nn.Identity()), None, None)
    monkeypatch.setattr(export_files, "open_head", lambda *given: head)
    with pytest.raises(InputError, match=r"config.yml is a radiance field and has no Gaussian splats; export a mesh"):
        export(ExportCommand(((tmp_path / "a.stl", tmp_path / "a.spz"),), load_config=Path("config.yml")))


def test_a_folder_without_a_head_is_refused(tmp_path, capsys):
    line = refusal(capsys, "--input", tmp_path, "--output", tmp_path / "a.spz")
    assert f"Cannot read {tmp_path}: expected the folder of a dp360 run, with head.ply in it" in line


def damages(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {
        "empty": b"",
        "cut off": data[: middle + 3],
        "other": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
        "letter": b"Dear Sir or Madam, \xff\xfe" * 50,
    }


@pytest.mark.parametrize("extension", READABLE)
def test_damaged_input_is_one_sentence_soon(extension, make_splats, provenance, tmp_path, capsys):
    """Within 5 s and 1 GB, and the file that was there before stays as it was."""
    if extension.startswith(".usd"):
        pytest.importorskip("pxr.UsdVol")
    whole = formats.format_of(f"a{extension}", "splats").encode(make_splats(200, 1), provenance)
    path, output = tmp_path / f"in{extension}", tmp_path / "out.spz"
    output.write_bytes(b"the former file")
    for name, data in damages(whole).items():
        path.write_bytes(data)
        tracemalloc.start()
        start = time.perf_counter()
        line = refusal(capsys, "--input", path, "--output", output)
        seconds, memory = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "Cannot read" in line and str(path) in line and len(line) < 500, name
        assert seconds < 5 and memory < 1e9, name
        assert output.read_bytes() == b"the former file"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out.spz"])


def test_if_one_file_cannot_be_made_none_is_written(file, tmp_path, capsys):
    former = {tmp_path / n: n.encode() for n in ("a.ply", "b.spz")}
    for path, data in former.items():
        path.write_bytes(data)
    refusal(capsys, "--input", file, "--output", *former, tmp_path / "new.sog", "--sh-bits", "0")
    assert {p: p.read_bytes() for p in former} == former and not (tmp_path / "new.sog").exists()


def test_a_full_disk_leaves_the_former_file(file, make_disk, capsys):
    disk = make_disk("size=64k")
    (disk / "head.ply").write_bytes(b"the former file")
    assert "the disk is full" in refusal(capsys, "--input", file, "--output", disk / "head.ply")
    assert [p.name for p in disk.iterdir()] == ["head.ply"]
    assert (disk / "head.ply").read_bytes() == b"the former file"
