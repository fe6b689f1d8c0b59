"""A film of one full turn around the head: .mp4 (H.264), .gif or animated .webp.

The last frame is one step short of the first, so that a player that repeats shows no doubled frame. Frames are taken
one by one from whatever renders them: an .mp4 needs the memory of a few of them, a .gif one byte and a .webp three per
pixel of the film.

FFmpeg (through PyAV, which nerfstudio brings) writes .mp4; Pillow writes .webp and .gif, since FFmpeg's writers have no
place for the origin in them, and one palette for a whole .gif, where each frame may have its own.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from typing_extensions import assert_never

from dp360.generation import Provenance

from .provenance import provenance_to_json

if TYPE_CHECKING:
    from av import VideoStream

Extension = Literal[".mp4", ".gif", ".webp"]
_MAX_FPS = 120.0


def encode(
    frames_rgba: Iterable[UInt8[Tensor, "h w 4"]],
    provenance: Provenance,
    *,
    extension: Extension,
    fps: float = 24.0,
    background_rgb: tuple[int, int, int] = (255, 255, 255),
) -> bytes:
    """A complete film that repeats where the format can say so.

    Args:
        frames_rgba: pictures of one size, straight colour and alpha, 8 bits; taken one by one.
        provenance: origin, written to the film's comment (.mp4, .gif) or XMP (.webp).
        extension: the format. An .mp4 has even sides: an odd one loses its last row or column.
        fps: frames per second, up to 120; .gif counts hundredths of a second and takes the nearest, at least two.
        background_rgb: colour behind the head, 8 bits.

    Raises:
        ValueError: no frames, frames of different sizes, or fps out of range.
    """
    if not 0 < fps <= _MAX_FPS:
        raise ValueError(f"turntable.encode: expected fps from 0 to {_MAX_FPS:g}, got {fps}")
    frames = _over_background(frames_rgba, background_rgb)
    first = next(frames, None)
    if first is None:
        raise ValueError("turntable.encode: expected at least one frame, got none")
    frames, size_px = itertools.chain([first], frames), (first.shape[0], first.shape[1])
    match extension:
        case ".mp4":
            return _mp4(frames, size_px, provenance, fps)
        case ".gif":
            return _gif(frames, provenance, fps)
        case ".webp":
            return _webp(frames, provenance, fps)
        case _:
            assert_never(extension)


def _over_background(
    frames_rgba: Iterable[UInt8[Tensor, "h w 4"]], background_rgb: tuple[int, int, int]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Opaque frames, all of the first one's size."""
    background, shape = np.array(background_rgb, dtype=np.float32), None
    for frame in frames_rgba:
        rgba = frame.cpu().numpy().astype(np.float32)
        shape = shape or rgba.shape
        if rgba.shape != shape:
            raise ValueError(
                f"turntable.encode: expected frames of {shape[1]}x{shape[0]} pixels like the first, "
                f"got {rgba.shape[1]}x{rgba.shape[0]}"
            )
        alpha = rgba[..., 3:] / 255
        yield np.rint(rgba[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


def _mp4(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], size_px: tuple[int, int], provenance: Provenance, fps: float
) -> bytes:
    """H.264 with 4:2:0 colour, which every player knows, and its index in front."""
    import av
    from av.video.reformatter import Colorspace

    height, width = (side - side % 2 for side in size_px)
    if not height or not width:
        raise ValueError(
            f"turntable.encode: expected .mp4 frames of at least 2x2 pixels, got {size_px[1]}x{size_px[0]}"
        )
    with tempfile.TemporaryDirectory() as folder:  # moving the index to the front takes a real file
        path = Path(folder) / "turntable.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(path), "w", format="mp4", options=options) as container:
            container.metadata["title"] = provenance.statement
            container.metadata["comment"] = provenance_to_json(provenance)
            container.metadata["encoder"] = f"dp360 {provenance.version}"
            rate, quality = Fraction(fps).limit_denominator(1001), {"crf": "17", "preset": "medium"}
            stream = cast("VideoStream", container.add_stream("libx264", rate=rate, options=quality))
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
            context.color_range = 1  # limited, as every player expects
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
            container.mux(stream.encode())
        return path.read_bytes()


def _webp(frames: Iterable[UInt8[np.ndarray, "h w 3"]], provenance: Provenance, fps: float) -> bytes:
    """Lossy frames that repeat for ever, with an XMP packet."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dp360="urn:dp360:"'
        f" xmp:CreatorTool={quoteattr(f'dp360 {provenance.version}')}"
        f" dp360:statement={quoteattr(provenance.statement)}"
        f" dp360:provenance={quoteattr(provenance_to_json(provenance))}/></rdf:RDF></x:xmpmeta>"
    ).encode("ascii", errors="xmlcharrefreplace")
    pictures = [Image.fromarray(frame) for frame in frames]
    durations_ms = np.diff(np.rint(np.arange(len(pictures) + 1) * 1000 / fps)).astype(int).tolist()
    settings = {"duration": durations_ms, "loop": 0, "quality": 85, "method": 4, "xmp": packet}
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], **settings)
    return buffer.getvalue()


def _gif(frames: Iterable[UInt8[np.ndarray, "h w 3"]], provenance: Provenance, fps: float) -> bytes:
    """256 colours of its own for each frame; a head over a plain ground needs no dithering, which would flicker."""
    pictures = (
        Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for frame in frames
    )
    buffer = io.BytesIO()
    next(pictures).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures,
        duration=10 * max(2, round(100 / fps)),  # browsers slow down what is shorter
        loop=0,
        comment=f"{provenance.statement}\n{provenance_to_json(provenance)}".encode("ascii", errors="backslashreplace"),
    )
    return buffer.getvalue()
