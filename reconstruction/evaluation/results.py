"""Results as files: JSON for programs, a Markdown table, a plot over azimuth, a sheet of pictures.

Every result says what it was made from: weights, seed, version, hash of the data.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from dp360.generation import ViewSet
from dp360.generation.dataset.view_dataset import png_bytes
from dp360.generation.files import write_bytes_atomically

from .compare import ALL, LOWER_IS_BETTER, Estimate, Summary, picture_over_white

RESULTS, TABLE, PLOT, SHEET = "results.json", "table.md", "plot.png", "sheet.png"
TITLES = {
    "psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "perceptual", "iou": "silhouette IoU",
    "psnr_head": "PSNR above the chin, dB", "iou_head": "IoU above the chin",
    "psnr_full": "PSNR of the whole picture, dB", "ssim_full": "SSIM of the whole picture",
    "perceptual_full": "perceptual, whole picture",
}  # fmt: skip
"""What people call the metrics of `compare`."""
_MIDDLE_DEG = {"front": 0, "30": 30, "60": 60, "90": 90, "120": 120, "150": 150, "back": 180}
_STRIP_COLUMNS = 8
_LEVEL_DEG = 12.0
TILE_PX = 144
_ERROR_GAIN = 2.5
_LABEL_PX, _TITLE_PX = 22, 34


@dataclass(frozen=True)
class ResultTable:
    """Rows of text under a heading."""

    title: str
    """One line."""
    columns: tuple[str, ...]
    """Heads of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """As many cells each as there are columns."""

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"**{self.title}**", "", _row(self.columns), _row(["---"] * len(self.columns))]
        return "\n".join([*lines, *(_row(row) for row in self.rows)]) + "\n"


Curve = tuple[Sequence[float], Sequence[float], Sequence[float] | None]
"""Places along the axis, values (NaN leaves a gap), and half the height of a band about them, if there is one."""


@dataclass(frozen=True)
class Panel:
    """One diagram of a plot."""

    title: str
    """Over it."""
    x_title: str
    """Under it."""
    curves: Mapping[str, Curve]
    """Its lines by their names."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation gives, ready to be written."""

    facts: Mapping[str, Any]
    """Origin of the figures, plain JSON data."""
    data: Mapping[str, Any]
    """All figures, plain JSON data; NaN becomes null."""
    tables: tuple[ResultTable, ...]
    """For people."""
    panels: tuple[Panel, ...] = ()
    """Diagrams."""
    sheet: UInt8[np.ndarray, "h w 3"] | None = None
    """Pictures to look at."""
    notices: tuple[str, ...] = ()
    """Sentences that belong to the figures."""

    def markdown(self) -> str:
        """All tables, then notices, then the facts."""
        parts = [table.markdown() for table in self.tables]
        parts += [f"{notice}.\n" for notice in self.notices]
        parts.append("; ".join(f"{name}: {_short(value)}" for name, value in self.facts.items()) + "\n")
        return "\n".join(parts)


def write_result(folder: Path, result: EvaluationResult) -> list[Path]:
    """Write results.json, table.md, and plot.png and sheet.png where there is something to show.

    Raises:
        InputError: the folder cannot be written.
    """
    text = json.dumps(json_ready({"facts": result.facts, **result.data}), indent=1, allow_nan=False)
    files = {RESULTS: (text + "\n").encode(), TABLE: result.markdown().encode()}
    if result.panels:
        files[PLOT] = _plot_png(result.panels)
    if result.sheet is not None:
        files[SHEET] = png_bytes(result.sheet)
    for name, data in files.items():
        write_bytes_atomically(folder / name, data)
    return [folder / name for name in files]


def summary_table(title: str, summaries: Mapping[str, Summary], metrics: Sequence[str]) -> ResultTable:
    """One row per source and bin: means, with their intervals where several heads went in."""
    rows = []
    for source, summary in summaries.items():
        for name, estimates in summary.items():
            rows.append((source, bin_title(name), *(_estimate_cell(estimates[metric], metric) for metric in metrics)))
    return ResultTable(title, ("", "azimuth", *(TITLES[metric] for metric in metrics)), tuple(rows))


def summary_panels(summaries: Mapping[str, Summary], metrics: Sequence[str]) -> tuple[Panel, ...]:
    """One diagram per metric over |azimuth|, one line per source."""
    panels = []
    for metric in metrics:
        curves: dict[str, Curve] = {}
        for source, summary in summaries.items():
            names = [name for name in summary if name != ALL]
            found = [summary[name][metric] for name in names]
            if all(math.isnan(e.mean) for e in found):
                continue
            interval = [e.interval or 0.0 for e in found]
            x = [float(_MIDDLE_DEG[name]) for name in names]
            curves[source] = (x, [e.mean for e in found], interval)
        arrow = "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
        if curves:
            panels.append(Panel(f"{TITLES[metric]} ({arrow})", "azimuth from the front, degrees", curves))
    return tuple(panels)


def summary_data(summary: Summary) -> dict[str, Any]:
    """A summary as plain data."""
    return {name: {metric: asdict(e) for metric, e in estimates.items()} for name, estimates in summary.items()}


def _estimate_cell(estimate: Estimate, metric: str) -> str:
    """A mean with its interval as people read it."""
    digits = 2 if metric.startswith("psnr") else 3
    text = number_cell(estimate.mean, digits)
    return text if estimate.interval is None or text == "-" else f"{text} ± {estimate.interval:.{digits}f}"


def bin_title(name: str) -> str:
    """How tables name a bin of azimuth."""
    return f"±{name}°" if name.isdigit() else name


def json_ready(value: Any) -> Any:
    """Nested data for JSON, which knows no NaN: null in its place."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: json_ready(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(entry) for entry in value]
    return value


def number_cell(value: float | int, digits: int) -> str:
    """A number as tables show it, a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def unique_names(paths: Sequence[Path]) -> list[str]:
    """What results call files and folders: as little of the end of each path as tells all of them apart.

    One of `a/face.png b/other.jpg` is called `face`; `a/dataset b/dataset` keep their parents, `x.png x.jpg` their
    endings. Only paths to the same place share a name.
    """
    places = [path.resolve() for path in paths]
    longest = max((len(place.parts) for place in places), default=0)
    for depth in range(longest + 1):
        short = [place.stem if place.is_file() else place.name for place in places]
        names = ["/".join(place.parts[-depth:]) for place in places] if depth else short
        if len(set(names)) == len(set(places)):
            return names
    return [str(place) for place in places]


def _plot_png(panels: Sequence[Panel]) -> bytes:
    """Diagrams in rows of three."""
    import matplotlib

    matplotlib.use("agg", force=False)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.7 * rows), layout="constrained")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for name, curve in panel.curves.items():
            x, y, band = (np.zeros(1) if values is None else np.asarray(values, float) for values in curve)
            (line,) = axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.6, label=name)
            if np.any(band > 0):
                axes.fill_between(x, y - band, y + band, color=line.get_color(), alpha=0.15, linewidth=0)
        if "azimuth" in panel.x_title:
            axes.xaxis.set_major_locator(MultipleLocator(30))
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.x_title, fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": "dp360"})
    return buffer.getvalue()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _short(value: object) -> str:
    """A fact on one line; hashes are cut to what tells them apart."""
    text = str(value)
    return text[:12] if len(text) == 64 and all(c in "0123456789abcdef" for c in text) else text


def comparison_strip(prediction: ViewSet, truth: ViewSet) -> UInt8[np.ndarray, "h w 3"]:
    """Three rows of the `strip_views`: the truth, the prediction nearest to it, and their difference."""
    columns = []
    for index in strip_views(truth):
        true = _tile(truth, index)
        distance = (prediction.cameras.position_world - truth.cameras.position_world[index]).norm(dim=-1)
        ours = _tile(prediction, int(distance.argmin()))
        columns.append(np.concatenate([true, ours, _error_picture(ours, true)]))
    return np.concatenate(columns, axis=1)


def strip_views(truth: ViewSet) -> list[int]:
    """Up to eight level views, spread round the head, beginning in front; views of any height where none is level."""
    azimuth = torch.rad2deg(truth.cameras.azimuth_rad) % 360
    level = torch.rad2deg(truth.cameras.elevation_rad).abs() < _LEVEL_DEG
    found = [i for i in range(len(truth)) if bool(level[i]) or not bool(level.any())]
    found.sort(key=lambda i: (round(float(azimuth[i]), 3) % 360, truth.names[i]))
    count = min(_STRIP_COLUMNS, len(found))
    return [found[k * len(found) // count] for k in range(count)]


def column_titles(truth: ViewSet) -> tuple[str, ...]:
    """Azimuths of the `strip_views`, degrees in (-180, 180]."""
    degrees = (math.degrees(float(truth.cameras.azimuth_rad[i])) for i in strip_views(truth))
    return tuple(f"{180 if round(a) == -180 else round(a)}°" for a in degrees)


def _error_picture(ours: UInt8[np.ndarray, "h w 3"], true: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Where two pictures differ: white is equal, dark red a difference of 0.4 in colour and more."""
    difference: Float32[np.ndarray, "h w"] = np.abs(ours.astype(np.float32) - true).mean(-1) / 255
    strength = np.clip(_ERROR_GAIN * difference, 0, 1)
    red, others = 1 - 0.6 * np.clip(2 * strength - 1, 0, 1), 1 - np.clip(2 * strength, 0, 1)
    return np.round(255 * np.stack([red, others, others], axis=-1)).astype(np.uint8)


def labelled_sheet(
    title: str, blocks: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], columns: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Strips under each other with a title, a name over each, and names of the columns."""
    width = max(block.shape[1] for _, block in blocks)
    height = _TITLE_PX + sum(_LABEL_PX + block.shape[0] for _, block in blocks) + _LABEL_PX
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    draw.text((6, _TITLE_PX / 2), title, (32, 33, 36), font, anchor="lm")
    top = _TITLE_PX
    for name, block in blocks:
        draw.text((6, top + _LABEL_PX / 2), name, (90, 94, 100), small, anchor="lm")
        sheet.paste(Image.fromarray(np.ascontiguousarray(block)), (0, top + _LABEL_PX))
        top += _LABEL_PX + block.shape[0]
    for number, name in enumerate(columns):
        x = (number + 0.5) * width / len(columns)
        draw.text((x, top + _LABEL_PX / 2), name, (90, 94, 100), small, anchor="mm")
    return np.asarray(sheet)


def _tile(views: ViewSet, index: int) -> UInt8[np.ndarray, "s s 3"]:
    """A view over white, resized to a square."""
    return cv2.resize(picture_over_white(views, index), (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
