"""Any picture file to 8-bit sRGB and an optional matte, with one clear sentence for files that cannot be used."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import InputError

_REFUSED_FORMATS = frozenset({"EPS", "WMF", "FITS", "GRIB", "HDF5", "BUFR", "MPEG", "PALM", "PDF"})
"""Formats that Pillow opens through outside programs or without a decoder of its own."""
_MOST_MEGABYTES = 256.0
"""Largest file, in 10^6 bytes."""
_MOST_MEGAPIXELS = 100.0
"""Largest picture as declared by its header, in 10^6 pixels; checked before anything is decoded."""
_MOST_SIDE_PX = 4096
"""Larger pictures are reduced so that the longer side has this many pixels."""
_MOST_ASPECT = 6.0
"""Largest accepted ratio of longer to shorter side."""
_TRANSPARENT_BELOW = 250
"""An alpha channel that never falls below this is no matte."""
_MOST_MISSING = 0.25
"""Share of rows that a picture may lack at its lower end and still be read."""
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
"""Kinds of ISO media files that hold pictures as phones take them; `avif` is Pillow's own."""
_CONTAINER_MAXIMA = (255, 1023, 4095, 16383, 65535)
"""White points of 8, 10, 12, 14 and 16 bits: integer pictures are scaled by the smallest one that holds them."""
_TRUNCATED_LOCK = threading.Lock()
"""Pillow's leave to decode what is cut off holds for all threads: one at a time takes it."""


@dataclass(frozen=True)
class LoadedImage:
    """A decoded picture, upright, in sRGB."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour, 8 bits, not premultiplied."""
    alpha: UInt8[np.ndarray, "h w"] | None
    """The file's own matte; None where the file is opaque."""
    source_name: str
    """File name without folders."""
    sha256: str
    """SHA-256 of the file's bytes, hexadecimal."""
    notices: tuple[str, ...]
    """Sentences that people should see: what had to be changed or left out."""


def load_image(path: Path, *, min_side_px: int = 64) -> LoadedImage:
    """Read a picture file: first frame, turned upright by EXIF, converted to 8-bit sRGB, reduced if very large.

    Args:
        path: any still or animated picture that Pillow decodes by itself (PNG, JPEG, WebP, AVIF, TIFF, GIF, ...), or
            HEIC, which the package pi-heif decodes.
        min_side_px: smallest accepted shorter side, pixels.

    Returns:
        The picture; `alpha` is given where the file has a transparency that is not the same everywhere.

    Raises:
        InputError: no such file, not a picture, damaged, too large, too small, too narrow, or fully transparent.
    """
    data = _read_bytes(path)
    notices: list[str] = []
    image = _decode(path, data, min_side_px, notices)
    colour, alpha = _split_alpha(image)
    if alpha is not None and int(alpha.max()) == 0:
        raise InputError(f"{path}: the picture is fully transparent; give one in which the head is visible")
    if alpha is not None and int(alpha.max()) < _TRANSPARENT_BELOW:
        notices.append("The picture is translucent all over; its most opaque parts are taken for opaque.")
        alpha = np.rint(alpha * (255 / int(alpha.max()))).astype(np.uint8)
    if alpha is not None and int(alpha.min()) >= _TRANSPARENT_BELOW:
        alpha = None
    rgb = _to_srgb(colour, image.info.get("icc_profile"), notices)
    height, width = rgb.shape[:2]
    scale = _MOST_SIDE_PX / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = _reduced(rgb, size)
        alpha = None if alpha is None else _reduced(alpha, size)
    return LoadedImage(rgb, alpha, path.name, hashlib.sha256(data).hexdigest(), tuple(notices))


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, or a sentence saying why there are none."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected a picture file such as face.png")
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path of the picture")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; expected a picture file such as face.png")
        megabytes = path.stat().st_size / 1e6
        if megabytes > _MOST_MEGABYTES:
            raise InputError(
                f"{path}: the file has {megabytes:.0f} MB, more than the {_MOST_MEGABYTES:.0f} MB accepted; "
                "save it smaller, for example as JPEG"
            )
        data = path.read_bytes()
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the picture readable") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); copy it to a local disk") from error
    if not data:
        raise InputError(f"{path}: the file is empty; expected a picture")
    return data


def _check_size(path: Path, width: int, height: int, min_side_px: int) -> None:
    """Refuse sizes outside the limits; called with the header's numbers, before decoding."""
    if width * height > _MOST_MEGAPIXELS * 1e6:
        raise InputError(
            f"{path}: the picture is {width} x {height} pixels, more than the {_MOST_MEGAPIXELS:.0f} megapixels "
            "accepted; reduce it first"
        )
    short, long = sorted((width, height))
    if short < 1 or long / short > _MOST_ASPECT:
        raise InputError(
            f"{path}: the picture is {width} x {height} pixels, too narrow for a portrait (sides may differ by a "
            f"factor of {_MOST_ASPECT:g} at most); crop it to the head"
        )
    if short < min_side_px:
        raise InputError(
            f"{path}: the picture is {width} x {height} pixels, too small for a portrait; expected at least "
            f"{min_side_px} pixels on the shorter side"
        )


def _decode(path: Path, data: bytes, min_side_px: int, notices: list[str]) -> Image.Image:
    """First frame of the picture, decoded and turned upright. Appends to `notices`."""
    Image.init()
    if _is_heif(data):
        _open_the_way_to_heif(path)
    formats = [name for name in Image.ID if name not in _REFUSED_FORMATS]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=formats)
            _check_size(path, image.width, image.height, min_side_px)
            if getattr(image, "is_animated", False) and image.format != "MPO":
                notices.append("The file holds several frames or pages; the first one is used.")
            image.draft(None, (_MOST_SIDE_PX, _MOST_SIDE_PX))  # JPEG decodes at 1/2, 1/4 or 1/8 of its size
            try:
                image.load()
            except OSError:
                image = _what_is_there(data, formats)
                notices.append("The file lacks its last bytes; what is there is used, as a browser would show it.")
            return ImageOps.exif_transpose(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: its header declares more than {_MOST_MEGAPIXELS:.0f} megapixels; reduce it first"
        ) from error
    except UnidentifiedImageError as error:
        if _is_heif(data):
            raise InputError(
                f"{path}: the HEIC picture is damaged or cut off; export it again, or save it as JPEG"
            ) from error
        raise InputError(
            f"{path}: not a picture in a known format, whatever its name says; save it as PNG or JPEG"
        ) from error
    except MemoryError as error:
        raise InputError(f"{path}: not enough memory to decode the picture; reduce it first") from error
    except Exception as error:  # decoders fail in their own ways on damaged files: struct, zlib, index, syntax errors
        raise InputError(f"{path}: the picture is damaged or cut off ({error}); export or download it again") from error


def _is_heif(data: bytes) -> bool:
    """Whether a file says that it is HEIC, as phones take pictures."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:64]


def _open_the_way_to_heif(path: Path) -> None:
    """Let Pillow read HEIC.

    Raises:
        InputError: the package that decodes it is missing.
    """
    try:
        import pi_heif
    except ImportError as error:
        raise InputError(
            f"{path}: a HEIC picture, as phones take them, needs the package pi-heif; run `pip install pi-heif`, or "
            "save the picture as JPEG"
        ) from error
    pi_heif.register_heif_opener()


def _what_is_there(data: bytes, formats: list[str]) -> Image.Image:
    """The decoded part of a picture that lacks its last bytes.

    Raises:
        OSError: more than `_MOST_MISSING` of it is missing, or nothing can be decoded.
    """
    with _TRUNCATED_LOCK:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
            image.draft(None, (_MOST_SIDE_PX, _MOST_SIDE_PX))
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    rows = np.asarray(image.convert("RGB")).reshape(image.height, -1)
    empty = (rows == np.tile(rows[-1, :3], image.width)).all(axis=1)  # decoders leave one colour
    missing = len(empty) - 1 - int(np.flatnonzero(~empty)[-1]) if (~empty).any() else len(empty)
    if missing > _MOST_MISSING * image.height:
        raise OSError(f"{missing} of its {image.height} rows are missing")
    return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, UInt8[np.ndarray, "h w"] | None]:
    """Colour without transparency, and the transparency where the file has one (channel, palette or key colour)."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.replace("a", "A"))
    if not image.has_transparency_data or image.mode.startswith(("I", "F")):
        return (image.convert("RGB") if image.mode in ("P", "1") else image), None
    if image.mode == "LA":
        return image.getchannel("L"), np.asarray(image.getchannel("A"))
    rgba = image.convert("RGBA")
    return rgba.convert("RGB"), np.asarray(rgba.getchannel("A"))


def _space_of(profile: ImageCms.ImageCmsProfile) -> str:
    """The colour space that a profile describes."""
    described: Any = profile.profile
    return described.xcolor_space.strip()


def _to_srgb(image: Image.Image, icc_profile: bytes | None, notices: list[str]) -> UInt8[np.ndarray, "h w 3"]:
    """8-bit sRGB out of any mode without transparency. Appends to `notices`."""
    if image.mode.startswith(("I", "F")):
        grey = _scaled_to_8_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if icc_profile and image.mode in ("RGB", "L", "CMYK", "LAB"):
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            if image.mode == "L" and _space_of(profile) == "RGB":  # grey saved by a colour program
                image = image.convert("RGB")
            if "srgb" not in ImageCms.getProfileDescription(profile).lower() or image.mode != "RGB":
                converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
                assert converted is not None  # only the in-place form returns None
                image = converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            notices.append("The colour profile in the file cannot be used; colours are taken as sRGB.")
    return np.array(image.convert("RGB"))


def _scaled_to_8_bits(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Grey values of more than 8 bits, or floating point, scaled to 0..255.

    Integers are divided by the white point of the smallest usual depth that holds them; floats are taken as [0, 1]
    or [0, 255] where they fit and are stretched from their minimum to their maximum otherwise.
    """
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    if np.issubdtype(values.dtype, np.floating):
        maxima: tuple[float, ...] = (1.0, 255.0)
    else:
        maxima = _CONTAINER_MAXIMA
    white = next((maximum for maximum in maxima if high <= maximum), None)
    if low < 0 or white is None:
        numbers, white = numbers - low, max(high - low, 1e-12)
    return np.round(numbers * (255.0 / white)).astype(np.uint8)


def _reduced(picture: UInt8[np.ndarray, "h w *c"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """The picture reduced to `size` (width, height), antialiased."""
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
