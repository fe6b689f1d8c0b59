"""Reading picture files: what comes in upright 8-bit sRGB, and one clear sentence for everything else."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dp360.generation import InputError
from dp360.generation.portrait import image_io, load_image


def gradient(height: int = 80, width: int = 100) -> np.ndarray:
    """A smooth colour picture in which every corner differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 50 + 100], axis=-1).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def png_with_declared_size(width: int, height: int) -> bytes:
    """A PNG whose header declares a size and whose data is missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_lossless_rgb_is_read_bit_for_bit(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    loaded = load_image(path)
    np.testing.assert_array_equal(loaded.rgb, gradient())
    assert loaded.alpha is None
    assert loaded.notices == ()
    assert loaded.source_name == "a.png"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    # What a camera held in that way stores: the inverse of the turn that a viewer has to make.
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.rot90(a, 3),
    }[orientation](gradient())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_image(path).rgb, gradient())


def test_alpha_channel_comes_back_as_matte(tmp_path: Path) -> None:
    alpha = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (80, 1))
    loaded = load_image(saved(tmp_path / "a.png", Image.fromarray(np.dstack([gradient(), alpha]))))
    assert loaded.alpha is not None
    np.testing.assert_array_equal(loaded.alpha, alpha)
    np.testing.assert_array_equal(loaded.rgb, gradient())


def test_opaque_alpha_channel_is_no_matte(tmp_path: Path) -> None:
    opaque = np.full((80, 100), 255, np.uint8)
    assert load_image(saved(tmp_path / "a.png", Image.fromarray(np.dstack([gradient(), opaque])))).alpha is None


def test_grey_with_alpha(tmp_path: Path) -> None:
    grey, alpha = gradient()[..., 0], gradient()[..., 1]
    loaded = load_image(saved(tmp_path / "a.png", Image.fromarray(np.dstack([grey, alpha]), mode="LA")))
    np.testing.assert_array_equal(loaded.rgb[..., 1], grey)
    assert loaded.alpha is not None
    np.testing.assert_array_equal(loaded.alpha, alpha)


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    index = np.zeros((80, 100), np.uint8)
    index[20:60, 30:70] = 1
    image = Image.fromarray(index, mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    loaded = load_image(saved(tmp_path / "a.png", image, transparency=0))
    assert loaded.alpha is not None
    np.testing.assert_array_equal(loaded.alpha, index * 255)
    np.testing.assert_array_equal(loaded.rgb[40, 50], [200, 100, 50])


def test_sixteen_bit_grey_is_divided_by_257(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 8000).reshape(80, 100).astype(np.uint16)
    loaded = load_image(saved(tmp_path / "a.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(loaded.rgb[..., 0], np.round(grey / 257).astype(np.uint8))
    np.testing.assert_array_equal(loaded.rgb[..., 0], loaded.rgb[..., 2])


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    wide = gradient().astype(np.uint16) * 257
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100, 80, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(load_image(path).rgb, gradient())


@pytest.mark.parametrize("white", [1.0, 255.0, 17.5])
def test_floating_point_grey_keeps_its_shape(tmp_path: Path, white: float) -> None:
    unit = np.linspace(0, 1, 8000).reshape(80, 100).astype(np.float32)
    unit[0, 0] = 0
    loaded = load_image(saved(tmp_path / "a.tiff", Image.fromarray(unit * white)))
    expected = unit * 17.5 if white == 17.5 else unit * 255  # values up to 255 are taken as 8-bit numbers
    np.testing.assert_allclose(loaded.rgb[..., 0], expected, atol=0.51)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (100, 80), (0, 255, 255, 0))
    red = load_image(saved(tmp_path / "a.tiff", image)).rgb[40, 50].astype(int)
    assert red[0] > 180 and red[1] < 80 and red[2] < 80


def profile_with_red_and_green_exchanged() -> bytes:
    """The built-in sRGB profile under another name, its red and green primaries exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return data.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    profile = profile_with_red_and_green_exchanged()
    loaded = load_image(saved(tmp_path / "a.png", Image.new("RGB", (100, 80), (200, 60, 120)), icc_profile=profile))
    np.testing.assert_allclose(loaded.rgb[40, 50], (60, 200, 120), atol=3)
    assert loaded.notices == ()


def test_broken_colour_profile_gives_a_notice(tmp_path: Path) -> None:
    loaded = load_image(saved(tmp_path / "a.png", Image.fromarray(gradient()), icc_profile=b"not a profile" * 20))
    np.testing.assert_array_equal(loaded.rgb, gradient())
    assert any("profile" in notice for notice in loaded.notices)


def test_animation_gives_its_first_frame_and_a_notice(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (100, 80), colour) for colour in ("red", "blue", "green")]
    loaded = load_image(saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(loaded.rgb[40, 50], [255, 0, 0])
    assert any("first one" in notice for notice in loaded.notices)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_large_pictures_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(image_io, "_MOST_SIDE_PX", 300)
    flat = Image.new("RGB", (1500, 900), (90, 140, 30))
    loaded = load_image(saved(tmp_path / name, flat))
    assert loaded.rgb.shape == (180, 300, 3)
    np.testing.assert_allclose(loaded.rgb[90, 150], (90, 140, 30), atol=3)


def test_alpha_is_reduced_with_the_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "_MOST_SIDE_PX", 300)
    rgba = np.dstack([gradient(400, 600), np.full((400, 600), 100, np.uint8)])
    rgba[:200, :, 3] = 255
    loaded = load_image(saved(tmp_path / "a.png", Image.fromarray(rgba)))
    assert loaded.alpha is not None and loaded.alpha.shape == (200, 300)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is a letter, not a picture")


def truncated_png(path: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "png")
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])


def truncated_jpeg(path: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "jpeg")
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])


def header_only(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n")


def bomb(path: Path) -> None:
    path.write_bytes(png_with_declared_size(50_000, 50_000))


def large_header(path: Path) -> None:
    path.write_bytes(png_with_declared_size(12_000, 12_000))


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def ribbon(path: Path) -> None:
    Image.new("RGB", (100, 10_000)).save(path)


def invisible(path: Path) -> None:
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "the file is empty"),
        (text, "not a picture in a known format"),
        (truncated_png, "damaged or cut off"),
        (truncated_jpeg, "damaged or cut off"),
        (header_only, "not a picture|damaged or cut off"),
        (bomb, "more than 100 megapixels"),
        (large_header, "12000 x 12000 pixels, more than the 100 megapixels"),
        (one_pixel, "1 x 1 pixels, too small"),
        (ribbon, "too narrow"),
        (invisible, "fully transparent"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "face.png"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    assert "face.png" in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)


def test_oversized_file_is_refused_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "_MOST_MEGABYTES", 0.01)
    path = saved(tmp_path / "a.bmp", Image.fromarray(gradient()))
    with pytest.raises(InputError, match="MB accepted"):
        load_image(path)


def test_formats_that_call_outside_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(gradient()).save(path, "eps")
    with pytest.raises(InputError, match="not a picture in a known format"):
        load_image(path)


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABegABAAAAAAAAAFAAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlw"
    "cnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCiBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA"
    "AABQAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAFhtZGF0AAAATCgBrxmA94Z/94Nl0H+2cnVQStwka6UX"
    "QynbrFDs1xD/zex5YNL6S1F5EKn8xoCnQBeA3I71obgcmXygWB6GdDVo5wYD2/6s40AQD1A="
)
"""A picture of 80 x 64 pixels with a ramp of red across and of green down, as libheif writes it."""


def test_heic_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    rgb = load_image(tmp_path / "a.heic").rgb.astype(int)
    y, x = np.mgrid[:64, :80]
    ramps = np.stack([x * 3, y * 3, np.full_like(x, 90)], axis=-1)
    assert rgb.shape == (64, 80, 3)
    assert np.abs(rgb[::9, ::9] - ramps[::9, ::9]).max() < 12


def test_heic_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC[:60])
    with pytest.raises(InputError, match="HEIC picture is damaged"):
        load_image(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(InputError, match="HEIC picture, as phones take them, needs the package pi-heif"):
        load_image(tmp_path / "a.heic")


@pytest.mark.parametrize(("name", "lost"), [("a.jpg", 200), ("a.png", 30)])
def test_pictures_without_their_last_bytes_are_read(tmp_path: Path, name: str, lost: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / name)
    whole = load_image(tmp_path / name).rgb
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-lost])
    cut = load_image(tmp_path / name)
    assert any("lacks its last bytes" in n for n in cut.notices)
    np.testing.assert_array_equal(cut.rgb[:180], whole[:180])


def test_grey_with_a_colour_profile_needs_no_notice(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = np.tile(np.arange(128, dtype=np.uint8), (100, 1))
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=profile)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.notices == () and np.abs(loaded.rgb.astype(int) - grey[..., None]).max() <= 1


def test_a_picture_that_is_translucent_all_over(tmp_path: Path) -> None:
    rgba = np.full((80, 80, 4), 120, np.uint8)
    rgba[:20, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha is not None and set(np.unique(loaded.alpha)) == {0, 255}
    assert any("translucent all over" in n for n in loaded.notices)
