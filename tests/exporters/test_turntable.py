"""Films of a turn: as many frames as went in, in their colours, closed, with their origin, and taken one by one."""

import io
import json
import math
import shutil
import subprocess
import weakref
from collections.abc import Iterator
from typing import get_args

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dp360.exporters import turntable
from dp360.exporters.provenance import provenance_from_json, provenance_to_json

EXTENSIONS = get_args(turntable.Extension)
COUNT, FPS = 12, 20.0


def turning_dot(count: int, size: tuple[int, int] = (48, 64)) -> Iterator[torch.Tensor]:
    """A soft reddish dot that circles once, over nothing."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for index in range(count):
        angle = 2 * math.pi * index / count
        distance = torch.hypot(x - width / 2 - 14 * math.cos(angle), y - height / 2 - 14 * math.sin(angle))
        alpha = ((9 - distance) / 4).clamp(0, 1) * 255
        colour = torch.tensor([200, 60, 40]).expand(height, width, 3)
        yield torch.cat([colour, alpha[..., None]], dim=-1).round().to(torch.uint8)


def over_white(frame: torch.Tensor) -> np.ndarray:
    rgba = frame.numpy().astype(float)
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def read(data: bytes, extension: str) -> list[np.ndarray]:
    """Frames by a reader of its own: FFmpeg for .mp4, Pillow for the others."""
    if extension == ".mp4":
        return list(iio.imread(data, plugin="pyav", extension=".mp4"))
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_frames_come_back(extension, provenance):
    data = turntable.encode(turning_dot(COUNT), provenance, extension=extension, fps=FPS)
    frames = read(data, extension)
    assert len(frames) == COUNT
    expected = np.stack([over_white(frame) for frame in turning_dot(COUNT)])
    error = np.stack(frames).astype(float) - expected
    assert -10 * math.log10((error**2).mean() / 255**2) > 30
    assert np.abs(np.stack(frames)[0, 24, 46] - np.array([200.0, 60, 40])).max() < 16  # BT.709 and its range are right
    assert np.abs(np.stack(frames)[:, :4, :4].astype(float) - 255).max() < 6


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_same_frames_same_bytes(extension, provenance):
    first, second = (turntable.encode(turning_dot(5), provenance, extension=extension) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_turn_takes_its_time(extension, provenance):
    data = turntable.encode(turning_dot(COUNT), provenance, extension=extension, fps=FPS)
    if extension == ".mp4":
        assert iio.immeta(data, plugin="pyav", extension=".mp4")["duration"] == pytest.approx(COUNT / FPS, abs=0.01)
        return
    image = Image.open(io.BytesIO(data))
    assert image.info["loop"] == 0  # for ever
    durations = []
    for index in range(COUNT):
        image.seek(index)
        image.load()
        durations.append(image.info["duration"])
    assert sum(durations) == pytest.approx(1000 * COUNT / FPS, abs=20)


def test_provenance_inside(provenance):
    mp4, gif, webp = (turntable.encode(turning_dot(3), provenance, extension=e) for e in EXTENSIONS)
    metadata = iio.immeta(mp4, plugin="pyav", extension=".mp4", exclude_applied=False)
    assert provenance_from_json(metadata["comment"]) == provenance
    assert metadata["title"] == provenance.statement
    statement, note = Image.open(io.BytesIO(gif)).info["comment"].decode().split("\n", 1)
    assert statement == provenance.statement
    assert provenance_from_json(note) == provenance
    xmp = Image.open(io.BytesIO(webp)).getxmp()["xmpmeta"]["RDF"]["Description"]
    assert provenance_from_json(xmp["provenance"]) == provenance
    assert xmp["CreatorTool"] == "dp360 0.1.0"


def test_mp4_plays_everywhere(provenance):
    data = turntable.encode(turning_dot(COUNT, (49, 65)), provenance, extension=".mp4")
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # starts before it is wholly there
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe")
    words = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", "-"]
    done = subprocess.run(words, check=True, input=data, capture_output=True, timeout=60)
    report = json.loads(done.stdout)
    (stream,) = report["streams"]
    assert (stream["codec_name"], stream["pix_fmt"], stream["color_space"]) == ("h264", "yuv420p", "bt709")
    assert (stream["width"], stream["height"]) == (64, 48)  # even
    assert report["format"]["tags"]["comment"] == provenance_to_json(provenance)


@pytest.mark.parametrize("extension", [".mp4", ".webp"])
def test_few_frames_at_a_time(extension, provenance):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def watched() -> Iterator[torch.Tensor]:
        nonlocal most
        for frame in turning_dot(40):
            alive.add(frame)
            most = max(most, len(alive))
            yield frame
            del frame

    turntable.encode(watched(), provenance, extension=extension)
    assert most <= 3


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_cannot_become_a_film(extension, provenance):
    with pytest.raises(ValueError, match="at least one frame"):
        turntable.encode(iter(()), provenance, extension=extension)
    mixed = [*turning_dot(1), *turning_dot(1, (32, 32))]
    with pytest.raises(ValueError, match=r"expected frames of 64x48 pixels like the first, got 32x32"):
        turntable.encode(iter(mixed), provenance, extension=extension)
    for fps in (0.0, -1.0, math.nan, 1e6):
        with pytest.raises(ValueError, match="expected fps"):
            turntable.encode(turning_dot(2), provenance, extension=extension, fps=fps)


def test_a_film_without_movement_keeps_its_origin(provenance):
    frame = next(turning_dot(1))
    film = turntable.encode([frame] * 3, provenance, extension=".webp")
    picture = Image.open(io.BytesIO(film))
    assert picture.getxmp()["xmpmeta"]["RDF"]["Description"]["statement"] == provenance.statement
    assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - over_white(frame)).mean() < 4
