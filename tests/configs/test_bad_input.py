"""What people hand in by mistake, through both commands: one sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import copy
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dp360.configs import cli, portrait_to_head
from dp360.configs.example import write_example_portrait
from dp360.exporters import splat_ply
from dp360.generation import InputError, ViewSet
from dp360.generation.dataset.view_dataset import write_dataset

SMALL = ("--views", "4", "--size-px", "48", "--fit.iterations", "2", "--device", "cpu")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(whole, "jpeg" if path.suffix == ".jpg" else "png")
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])


def huge_header(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)))


def letter(path: Path) -> None:
    path.write_text("Dear Ada, this is no picture.")


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def texture(path: Path) -> None:
    Image.fromarray(skimage.data.brick()).save(path)


def gradient(path: Path) -> None:
    y, x = np.mgrid[:300, :300] * 255 // 300
    Image.fromarray(np.stack([x, y, 0 * x + 90], axis=-1).astype(np.uint8)).save(path)


def back_of_a_head(path: Path) -> None:
    y, x = np.mgrid[:600, :500] + 0.5
    picture = np.full((600, 500, 3), (200.0, 205.0, 210.0))
    picture[((x - 250) / 200) ** 2 + ((y - 560) / 180) ** 2 < 1] = (60, 80, 120)
    picture[((x - 250) / 100) ** 2 + ((y - 220) / 130) ** 2 < 1] = (40, 28, 20)
    picture += np.random.default_rng(0).normal(0, 4, picture.shape)
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)


def dp360(*words: str | Path) -> None:
    assert cli.main([str(word) for word in words]) == 0


def run(*words: str | Path) -> None:
    dp360("run", *SMALL, *words)


def ns_train(*words: str | Path) -> None:
    import tyro
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
    from nerfstudio.scripts.train import main

    words = ("dp360-splat", "--quality", "fast", "--vis", "tensorboard", *words)
    main(copy.deepcopy(tyro.cli(AnnotatedBaseConfigUnion, args=[str(word) for word in words])))


def refusal(capsys: pytest.CaptureFixture[str], command: Callable[..., None], *words: str | Path) -> str:
    """The one sentence with which a command refuses."""
    with pytest.raises(SystemExit) as left:
        command(*words)
    assert left.value.code == 2
    output = capsys.readouterr()
    assert "Traceback" not in output.err and "wrote" not in output.out
    (line,) = [line for line in output.err.splitlines() if line.startswith("dp360: ")]
    return line


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (empty, "ada.png", "the file is empty; expected a picture"),
        (cut_off, "ada.png", "damaged or cut off"),
        (cut_off, "ada.jpg", "damaged or cut off"),
        (huge_header, "ada.png", "more than 100 megapixels"),
        (letter, "ada.png", "not a picture in a known format, whatever its name says"),
        (one_pixel, "ada.png", "1 x 1 pixels, too small for a portrait"),
        (Path.mkdir, "ada.png", "is a folder; expected a picture file"),
        (texture, "ada.png", "no face was found"),
        (gradient, "ada.png", "no face was found"),
        (back_of_a_head, "ada.png", "the back of a head, a strong profile"),
    ],
)
def test_pictures_that_cannot_be_used(tmp_path, capsys, make, name, message):
    make(tmp_path / name)
    line = refusal(capsys, run, "--image", tmp_path / name, "--output", tmp_path / "new" / "out")
    assert message in line and name in line
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("make", "message"), [(cut_off, "damaged or cut off"), (texture, "no face was found")])
def test_pictures_that_cannot_be_used_for_ns_train(tmp_path, capsys, make, message):
    make(tmp_path / "ada.png")
    line = refusal(capsys, ns_train, "--image", tmp_path / "ada.png", "--output-dir", tmp_path / "out")
    assert message in line and "ada.png" in line
    assert [p.name for p in tmp_path.iterdir()] == ["ada.png"]


def test_an_earlier_head_survives_a_bad_picture(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "head.ply").write_bytes(b"earlier")
    cut_off(tmp_path / "ada.png")
    refusal(capsys, run, "--image", tmp_path / "ada.png", "--output", tmp_path / "out")
    assert [p.read_bytes() for p in (tmp_path / "out").iterdir()] == [b"earlier"]


def test_of_two_faces_the_largest_is_taken_and_said_in_one_line(tmp_path, capsys, monkeypatch):
    astronaut = Image.fromarray(skimage.data.astronaut())
    both = Image.new("RGB", (900, 512), (128, 128, 128))
    both.paste(astronaut, (0, 0))
    both.paste(astronaut.resize((384, 384)), (514, 64))
    both.save(tmp_path / "two.png")

    def stop(portrait, **settings):
        raise InputError("far enough for this test")

    monkeypatch.setattr(portrait_to_head, "build_head_prior", stop)
    with pytest.raises(SystemExit):
        run("--image", tmp_path / "two.png", "--output", tmp_path / "out", "--generator", "prior")
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note == "note: 2 faces were found; the largest is used (--face-index 1 takes the next smaller one)."


@pytest.mark.parametrize("seed", ["-1", "4294967296", "99999999999999999999"])
def test_a_seed_out_of_range_is_refused_before_any_work(tmp_path, capsys, seed):
    line = refusal(capsys, run, "--image", "a.png", "--output", tmp_path / "out", "--seed", seed)
    assert f"expected --seed from 0 to 4294967295, got {seed}" in line and not (tmp_path / "out").exists()


def test_a_damaged_ply_is_named(tmp_path, capsys):
    letter(tmp_path / "letter.ply")
    line = refusal(capsys, dp360, "export", "--input", tmp_path / "letter.ply", "--output", "out.ply")
    assert "letter.ply" in line and "expected a first line 'ply'" in line


@pytest.mark.parametrize("below", ["", "deep/out"])
@pytest.mark.parametrize(("command", "option"), [(run, "--output"), (ns_train, "--output-dir")])
def test_a_file_where_results_should_go(tmp_path, capsys, command, option, below):
    write_example_portrait(tmp_path / "ada.png")
    (tmp_path / "file").write_text("mine")
    line = refusal(capsys, command, "--image", tmp_path / "ada.png", option, tmp_path / "file" / below)
    assert "a file stands where a folder is needed; move it away or choose another output folder" in line
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ada.png", "file"]


def test_ns_train_on_a_data_set_names_an_output_that_cannot_be_written(tmp_path, capsys, views):
    write_dataset(views, tmp_path / "data")
    (tmp_path / "file").write_text("mine")
    line = refusal(capsys, ns_train, "--data", tmp_path / "data", "--output-dir", tmp_path / "file")
    assert "a file stands where a folder is needed" in line


def test_a_read_only_disk(tmp_path, capsys, make_disk):
    disk = make_disk("ro")
    write_example_portrait(tmp_path / "ada.png")
    for words in ((run, "--output", disk / "out"), (run, "--output", disk), (ns_train, "--output-dir", disk / "out")):
        line = refusal(capsys, *words, "--image", tmp_path / "ada.png")
        assert str(disk) in line and "the file system is read-only; choose another output folder" in line


def test_a_disk_that_fills_up_during_a_fit(tmp_path, capsys, make_disk, views):
    write_dataset(views, tmp_path / "data")
    disk = make_disk("size=200k")
    words = ("fit", "--data", tmp_path / "data", "--output", disk / "out", "--fit.iterations", "2", "--device", "cpu")
    line = refusal(capsys, dp360, *words)
    assert "head.ply: the disk is full; free some space and run again" in line
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_under_a_data_set(make_disk, views: ViewSet):
    disk = make_disk("size=60k")
    with pytest.raises(InputError, match="dataset: the disk is full"):
        write_dataset(views, disk / "dataset")
    assert list(disk.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_run_keeps_whole_files_only(tmp_path, capsys, make_disk):
    write_example_portrait(tmp_path / "ada.png")
    disk = make_disk("size=2m")
    line = refusal(capsys, run, "--image", tmp_path / "ada.png", "--output", disk / "out")
    assert "the disk is full; free some space and run again" in line
    left = {p.name: p for p in (disk / "out").iterdir()}
    assert left.keys() <= {
        "portrait.png",
        "prior.glb",
        "head_fit.npz",
        "dataset",
        "head.ply",
        "head.glb",
    }  # no record, no temporary file
    if "portrait.png" in left:
        Image.open(left["portrait.png"]).load()
    if "head.ply" in left:
        splat_ply.decode(left["head.ply"].read_bytes())
