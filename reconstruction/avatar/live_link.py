"""Reader of Live Link Face's CSV files: Epic's free app films a face with an iPhone and counts ARKit's 52 shapes.

The first row names the columns: `Timecode` (hours:minutes:seconds:frames, with thousandths of a frame),
`BlendShapeCount`, the 52 shapes with a capital first letter, and nine angles: `HeadYaw`, `HeadPitch`, `HeadRoll` and
the same of either eye, radians. Other orders and missing shapes are taken as they come; gaze is read from the `EyeLook`
shapes, not from the eyes' angles, which say the same.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError
from dp360.generation.errors import quoted

from .arkit import ARKIT_NAMES
from .poses import MOST_HEAD_DEG, Pose

_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
_HEAD = ("HeadYaw", "HeadPitch", "HeadRoll")
_RATES = (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 120.0)
_MOST_ROWS = 500_000
_LEAST_SHAPES = 5


@dataclass(frozen=True)
class Take:
    """A recorded performance."""

    times_s: Float[np.ndarray, " n"]
    """Seconds from the first frame on, rising."""
    weights: Float[np.ndarray, "n 52"]
    """Of the shapes in `ARKIT_NAMES`, 0 to 1."""
    head_rad: Float[np.ndarray, "n 3"]
    """Yaw, pitch and roll."""
    missing: tuple[str, ...]
    """Shapes that the file lacks; they stay zero."""

    def poses(self, fps: float) -> list[Pose]:
        """The take at an even rate; between recorded frames the mean of both neighbours, by time.

        Args:
            fps: frames per second, positive.
        """
        count = max(1, int(np.floor(self.times_s[-1] * fps + 1e-6)) + 1)
        at = np.arange(count) / fps
        columns = np.concatenate([self.weights, self.head_rad], axis=1).T
        values = np.stack([np.interp(at, self.times_s, column) for column in columns], axis=1)
        return [Pose(row[: len(ARKIT_NAMES)], row[len(ARKIT_NAMES) :]) for row in values]


def read_live_link(text: str, name: str) -> Take:
    """A take out of the text of a CSV file.

    Args:
        text: the file's content.
        name: of the file, for messages.

    Raises:
        InputError: no such file of Live Link Face, or a row that cannot be read; the message says which.
    """
    rows = list(csv.reader(io.StringIO(text.lstrip("\ufeff"))))
    if not rows:
        raise InputError(f"Cannot read {name}: expected a CSV file of Live Link Face, got an empty file")
    header = [cell.strip() for cell in rows[0]]
    of_name = {cell[:1].lower() + cell[1:]: column for column, cell in enumerate(header)}
    found = [shape for shape in ARKIT_NAMES if shape in of_name]
    if len(found) < _LEAST_SHAPES:
        raise InputError(
            f"Cannot read {name}: expected the columns of Live Link Face (Timecode, BlendShapeCount, EyeBlinkLeft, "
            f"...), got {quoted(', '.join(header), 60)}"
        )
    body = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    if not body:
        raise InputError(f"Cannot read {name}: it has columns and no frames; record a take first")
    if len(body) > _MOST_ROWS:
        raise InputError(f"Cannot read {name}: expected at most {_MOST_ROWS} frames, got {len(body)}; cut it")
    weights, head = np.zeros((len(body), len(ARKIT_NAMES))), np.zeros((len(body), 3))
    columns = [(k, of_name[shape]) for k, shape in enumerate(ARKIT_NAMES) if shape in of_name]
    turns = [(k, header.index(cell)) for k, cell in enumerate(_HEAD) if cell in header]
    for place, (number, row) in enumerate(body):
        for target, chosen in ((weights, columns), (head, turns)):
            for k, column in chosen:
                target[place, k] = _number(row, column, header, number, name)
    most = np.radians(MOST_HEAD_DEG)
    missing = tuple(shape for shape in ARKIT_NAMES if shape not in of_name)
    times = _times_s(body, header, name)
    return Take(times, np.clip(weights, 0, 1), np.clip(head, -most, most), missing)


def _number(row: list[str], column: int, header: list[str], number: int, name: str) -> float:
    cell = row[column].strip() if column < len(row) else ""
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(
            f"Cannot read {name}: expected a number for {header[column]} in line {number}, got {quoted(cell, 30)}; the "
            "file is cut off or damaged"
        )
    return value


def _times_s(body: list[tuple[int, list[str]]], header: list[str], name: str) -> Float[np.ndarray, " n"]:
    """Seconds of all frames out of their time codes, or by sixty a second where there are none."""
    count = len(body)
    if "Timecode" not in header:
        return np.arange(count) / 60.0
    column = header.index("Timecode")
    found = [_TIMECODE.fullmatch(row[column].strip()) if column < len(row) else None for _, row in body]
    bad = next((number for (number, _), match in zip(body, found) if match is None), None)
    if bad is not None:
        raise InputError(
            f"Cannot read {name}: expected a Timecode such as 10:25:03:17.250 in line {bad}; the file is damaged"
        )
    parts = np.array([[float(part) for part in match.groups()] for match in found if match is not None])
    highest = np.floor(parts[:, 3].max()) + 1
    rate = next((rate for rate in _RATES if rate >= highest), highest)
    if count < rate:  # less than a second: the app's own rate
        rate = max(rate, 60.0)
    times = parts[:, :3] @ [3600.0, 60.0, 1.0] + parts[:, 3] / rate
    times = times - times[0] + 86400.0 * np.cumsum(np.diff(times, prepend=times[0]) < -43200.0)
    rising = np.maximum.accumulate(times)
    return rising + np.arange(count) * 1e-9
