"""Portraits without truth: what one picture's head looks like from all sides, in figures with limits.

`evaluate_photo` prepares a portrait, makes its prior, looks at it from `photo_cameras` and measures; a portrait that is
refused or crashes gives a result as well. `write_photo_result` keeps each result in files of its own, with a key of all
that decides it, so that a long run goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from dp360.generation import Cameras, InputError, look_at_origin
from dp360.generation.dataset.view_dataset import png_bytes
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.head_model.anatomy import CHIN_LANDMARK, HAIR_END_Y_CM
from dp360.generation.portrait import Portrait, prepare_portrait
from dp360.generation.prior import HeadPrior, build_head_prior
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, project_px
from dp360.generation.prior.texture.atlas import MATERIAL_HAIR
from dp360.generation.system import peak_memory_bytes

from .head_shapes import head_shape
from .identity import SAME_PERSON_DISTANCE, FaceEmbedder, identity_distance
from .photo_measures import (
    OUTER_EYE_LANDMARKS,
    SeenView,
    ShellOnSkull,
    accessory_areas,
    bare_shares,
    dark_share,
    detail_ratio,
    ear_skin,
    hair_colour,
    hair_coloured_share,
    hair_hangs,
    islands,
    lightness_behind,
    lowest_hair_cm,
    proportions,
    side_difference,
    stretched_share,
    uneven_ears,
)
from .photo_sheets import laid_over, photo_strip
from .results import json_ready

MEASURED_PX = 256
"""Side of the renders that are measured and shown; the limits hold for it."""
VIEWS_DEG = ((0.0, 0.0), (60.0, 0.0), (90.0, 0.0), (180.0, 0.0), (-90.0, 0.0), (0.0, 60.0))
"""Azimuth and elevation of the renders; the last looks down on the crown."""
_LEFT, _BACK, _RIGHT = 2, 3, 4
_IDENTITY_DEG = (0.0, 30.0, 60.0)
_IDENTITY_PX, _WHITE = 512, (255, 255, 255)


@dataclass(frozen=True)
class Measure:
    """How one figure is read."""

    title: str
    """What tables call it, with its unit."""
    digits: int
    """Decimals in tables."""
    limit: float | None = None
    """A portrait beyond it is worth a look; None: the figure has no good and bad."""
    bad: Literal["above", "below"] = "above"
    """On which side of the limit a figure is beyond it."""

    def beyond(self, value: float) -> bool:
        """Whether a figure is beyond the limit; not-a-number never is."""
        if self.limit is None:
            return False
        return value > self.limit if self.bad == "above" else value < self.limit


MEASURES: dict[str, Measure] = {
    "dark_share": Measure("dark side skin", 2, 0.05),
    "hair_coloured_share": Measure("hair-coloured skin", 2, 0.1),
    "lightness_behind": Measure("hair behind, L", 1, -8.0, "below"),
    "side_difference": Measure("sides differ, dE", 1, 12.0),
    "detail_ratio": Measure("detail", 2, 0.5, "below"),
    "eye_accessories": Measure("at the eyes", 3, 0.025),
    "other_accessories": Measure("accessories", 3, 0.025),
    "uneven_ears": Measure("uneven ears", 0, 0.5),
    "lowest_hair_cm": Measure("nape, cm", 1, HAIR_END_Y_CM, "below"),
    "islands": Measure("islands", 0, 0.5),
    "stretched_share": Measure("stretched", 2, 0.1),
    "crown_bare": Measure("bare crown", 2, 0.25),
    "back_bare": Measure("bare back", 2, 0.25),
    "bald": Measure("bald", 0, 0.5),
    "identity_0": Measure("identity 0°", 2, SAME_PERSON_DISTANCE),
    "identity_30": Measure("30°", 2, SAME_PERSON_DISTANCE),
    "identity_60": Measure("60°", 2, SAME_PERSON_DISTANCE),
    "cpu_s": Measure("CPU s", 1),
    "peak_mb": Measure("MB", 0),
}
"""All figures of a portrait, in the order of tables."""


@dataclass(frozen=True)
class PhotoResult:
    """What one picture gave."""

    name: str
    """Its file name."""
    key: str
    """Hash of all that decides the result."""
    refusal: str | None = None
    """Why there is no head; None where there is one."""
    crashed: bool = False
    """The reason is an error of ours and not of the picture."""
    figures: Mapping[str, float] | None = None
    """The `MEASURES`, NaN where there is nothing to measure; None without a head."""
    observed: Mapping[str, float] | None = None
    """Proportions of the landmarks that were found; None where there are none."""
    fitted: Mapping[str, float] | None = None
    """Those of the fitted head, where the detector would see them."""
    shape: Mapping[str, float] | None = None
    """The `head_shapes.SHAPES` of the fitted head; None without a head."""
    weights: str = ""
    """Names and hashes of the networks that had a say."""
    strip: UInt8[np.ndarray, "h w 3"] | None = None
    """Pictures to look at, see `photo_strip`; None without a head."""


def photo_cameras(size_px: int = MEASURED_PX) -> Cameras:
    """The cameras of `VIEWS_DEG`."""
    azimuth_rad, elevation_rad = np.radians(VIEWS_DEG).T
    return look_at_origin(azimuth_rad.tolist(), elevation_rad.tolist(), size_px=size_px)


def evaluate_photo(path: Path, key: str, embedder: FaceEmbedder | None = None) -> PhotoResult:
    """Make the head of one portrait and measure it; what goes wrong becomes part of the result.

    Args:
        path: a picture.
        key: hash of all that decides the result.
        embedder: for the identity; None leaves it out.
    """
    try:
        return _measured(path, key, embedder)
    except InputError as error:
        return PhotoResult(path.name, key, _reason(path, str(error)))
    except Exception as error:  # one portrait must not end the run over all: its row says what happened
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {error}"
        return PhotoResult(path.name, key, _reason(path, reason), crashed=True)


def _reason(path: Path, text: str) -> str:
    """A message on one line that names the picture without its folders."""
    return " ".join(text.replace(str(path), path.name).split())


def _measured(path: Path, key: str, embedder: FaceEmbedder | None) -> PhotoResult:
    """The result of a portrait that is not refused."""
    start_s, model = time.process_time(), load_head_model()
    portrait = prepare_portrait(path)
    prior = build_head_prior(portrait, model=model)
    cpu_s, cameras = time.process_time() - start_s, photo_cameras()
    rendered = prior.render(cameras)
    shell = ShellOnSkull.of(prior.mesh, portrait, model)
    figures = {
        **view_figures(portrait, prior.portrait_labels, model, SeenView.of(rendered, cameras), shell),
        **head_figures(portrait, prior, model, shell),
        **_identity_figures(portrait, prior, embedder),
        "cpu_s": cpu_s,
        "peak_mb": peak_memory_bytes() / 1e6 or math.nan,
    }
    seen, fitted = portrait.landmarks_px, portrait.head.detected_landmarks_world(model)
    return PhotoResult(
        path.name,
        key,
        figures={name: figures[name] for name in MEASURES},
        observed=None if seen is None else proportions(seen),
        fitted=None if seen is None else proportions(project_px(portrait.head.camera, fitted)),
        shape=head_shape(model, portrait.head.identity),
        weights=prior.weights_name,
        strip=photo_strip(portrait, prior.portrait_labels, rendered),
    )


def view_figures(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, views: tuple[SeenView, ...], shell: ShellOnSkull
) -> dict[str, float]:
    """What the renders show; of the two sides the worse one counts.

    Args:
        portrait: the portrait.
        labels: its classes.
        model: the head model of the fit.
        views: from `photo_cameras`.
        shell: of the prior.
    """
    left, right, back = views[_LEFT], views[_RIGHT], views[_BACK]
    hair_lab = hair_colour(portrait, labels)
    chin_px = project_px(portrait.head.camera, model.landmarks(portrait.head.vertices_world)[CHIN_LANDMARK])
    return {
        "dark_share": float(np.fmax(dark_share(left), dark_share(right))),
        "hair_coloured_share": hair_coloured_share((left, right, back), hair_lab, shell),
        "lightness_behind": lightness_behind(back, hair_lab),
        "side_difference": side_difference(left, right),
        "detail_ratio": float(np.fmin(detail_ratio(left), detail_ratio(right))),
        "lowest_hair_cm": math.nan if hair_hangs(portrait, labels.hair, chin_px) else lowest_hair_cm(back),
    }


def head_figures(portrait: Portrait, prior: HeadPrior, model: HeadModel, shell: ShellOnSkull) -> dict[str, float]:
    """What labels, shell and texture say without renders.

    Args:
        portrait: the portrait.
        prior: its head.
        model: the head model of the fit.
        shell: of the prior.
    """
    labels, camera, seen = prior.portrait_labels, portrait.head.camera, portrait.landmarks_px
    landmarks_px = project_px(camera, model.landmarks(portrait.head.vertices_world)) if seen is None else seen[:, :2]
    at_eyes, elsewhere = accessory_areas(labels.classes, landmarks_px[list(OUTER_EYE_LANDMARKS)])
    crown_bare, back_bare = bare_shares(shell)
    return {
        "eye_accessories": at_eyes,
        "other_accessories": elsewhere,
        "uneven_ears": uneven_ears(*ear_skin(portrait, labels.skin, model)),
        "islands": float(islands(shell)),
        "stretched_share": stretched_share(prior.mesh, prior.texture.confidence, camera),
        "crown_bare": crown_bare,
        "back_bare": back_bare,
        "bald": float(MATERIAL_HAIR not in prior.mesh.material),
    }


def _identity_figures(portrait: Portrait, prior: HeadPrior, embedder: FaceEmbedder | None) -> dict[str, float]:
    """Distances of face embeddings between the portrait and the head over white."""
    found = {f"identity_{azimuth:g}": math.nan for azimuth in _IDENTITY_DEG}
    face = None if embedder is None else embedder.embed(portrait.rgb)
    if embedder is None or face is None:
        return found
    cameras = look_at_origin(np.radians(_IDENTITY_DEG).tolist(), [0.0] * len(_IDENTITY_DEG), size_px=_IDENTITY_PX)
    rendered = prior.render(cameras)
    for k, name in enumerate(found):
        view = embedder.embed(laid_over(rendered.rgb[k], rendered.alpha[k], _WHITE))
        if view is not None:
            found[name] = identity_distance(face, view)
    return found


def write_photo_result(folder: Path, result: PhotoResult) -> None:
    """NAME.json and, with a head, NAME.png in `folder`; the first is written last and means that all are there."""
    if result.strip is not None:
        write_bytes_atomically(folder / f"{result.name}.png", png_bytes(result.strip))
    content = {name: value for name, value in vars(result).items() if name != "strip"}
    text = json.dumps(json_ready(content), indent=1, allow_nan=False)
    write_bytes_atomically(folder / f"{result.name}.json", (text + "\n").encode())


def read_photo_result(folder: Path, name: str) -> PhotoResult | None:
    """What `write_photo_result` wrote, without the strip; None where nothing is there that can be read."""
    try:
        found = json.loads((folder / f"{name}.json").read_text("utf-8"))
        for part in ("figures", "observed", "fitted", "shape"):
            if found[part] is not None:
                found[part] = {figure: math.nan if v is None else float(v) for figure, v in found[part].items()}
        result = PhotoResult(**found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    complete = result.figures is None or (set(result.figures) == set(MEASURES) and strip_path(folder, name).is_file())
    return result if complete else None


def strip_path(folder: Path, name: str) -> Path:
    """Where the pictures of a result are."""
    return folder / f"{name}.png"
