"""The landmark networks against composed heads that they have never seen, beside mediapipe on the same pictures.

Held-out heads from all sides become photographs and flat cartoons of 512 px; whole pictures are searched, as in the
portrait preparation. Errors are mean distances of the face's 59 points over the side of the face's box; angles are
those between the true direction to the camera and the fitted head's. Needs the head assets; run by hand:

    python tests/benchmarks/landmarks_against_truth.py --data PACK --output outputs/landmarks
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image

from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadFit, fit_landmarks, fit_sparse_points, load_head_model
from dp360.generation.head_model.sparse_points import _POINTS, FACE_POINTS, POINT_COUNT
from dp360.generation.portrait import FaceNetworks, find_faces
from dp360.generation.portrait.landmark_network import FACE_LANDMARKS, find_face
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.training.landmark_scenes import (
    PLAIN_SCENES,
    LabelledShots,
    SceneLook,
    empty_scene,
    labelled_shots,
)
from dp360.generation.training.landmark_training import YAW_EDGES_DEG, face_error, measured_scene
from dp360.generation.training.shots import SURROUND_SHOTS, surround_shots

LOOKS = {
    "photograph": PLAIN_SCENES,
    "mixed": SceneLook(cartoon=0.0, warped=0.0, painted=0.4, drawn=0.3),
    "cartoon": SceneLook(cartoon=1.0),
}


@dataclass(frozen=True)
class LandmarkBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/landmarks_against_truth")
    """Folder for the table, the shots and the sheet."""
    heads: int = 40
    """Held-out heads, six views each."""
    empty: int = 200
    """Pictures without anybody."""
    weights: Path | None = None
    """Weights of the networks; the installed ones if not given."""
    size_px: int = 512
    """Side of the pictures."""


def direction_error_deg(fit: HeadFit, toward_camera: Float[np.ndarray, " 3"]) -> float:
    """Angle between the fitted direction from the head to the camera and the true one."""
    position = fit.camera.T_world_camera[0, :3, 3].numpy()
    cosine = position @ toward_camera / np.linalg.norm(position)
    return math.degrees(math.acos(float(np.clip(cosine, -1, 1))))


def by_mediapipe(
    rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks
) -> tuple[Float[np.ndarray, "69 2"] | None, Float[np.ndarray, "478 3"] | None]:
    """The points that mediapipe knows of its largest face, and all its landmarks."""
    faces = find_faces(rgb, networks)
    if not faces:
        return None, None
    points = np.full((POINT_COUNT, 2), np.nan)
    points[list(FACE_POINTS)] = faces[0].landmarks_px[[_POINTS[k][2] for k in FACE_POINTS], :2]
    return points, faces[0].landmarks_px


def table_of(rows: list[tuple[str, float, float, float, float, float]], look: str) -> list[str]:
    """Lines of the table for one look: errors, shares found and angles by |yaw|, both finders."""
    lines = []
    array = np.array([row[1:] for row in rows])
    for low, high in itertools.pairwise(YAW_EDGES_DEG):
        inside = (array[:, 0] >= low) & (array[:, 0] < high)
        cells = []
        for column in (1, 3):
            error, angle = array[inside, column], array[inside, column + 1]
            hit = ~np.isnan(error)
            mean = f"{100 * error[hit].mean():.1f} %, {np.median(angle[hit]):.1f} deg" if hit.any() else "-"
            cells.append(f"{mean}, found {100 * hit.mean():.0f} %")
        lines.append(f"| {look}, {low}-{high} | {inside.sum()} | {cells[0]} | {cells[1]} |")
    return lines


def drawn_points(
    rgb: UInt8[np.ndarray, "s s 3"], points: Float[np.ndarray, "69 2"] | None
) -> UInt8[np.ndarray, "s s 3"]:
    """The picture with its points."""
    rgb = rgb.copy()
    for k, (x, y) in enumerate(points if points is not None else ()):
        colour = (255, 0, 0) if k in FACE_POINTS else (0, 0, 255)
        cv2.circle(rgb, (int(x), int(y)), max(1, len(rgb) // 170), colour, -1, cv2.LINE_AA)
    return rgb


def measure(labelled: LabelledShots, backgrounds: Backgrounds, config: LandmarkBenchmarkConfig) -> None:
    """Write table and sheet."""
    loaded = FACE_LANDMARKS.load() if config.weights is None else FACE_LANDMARKS.read(config.weights)
    if loaded is None:
        raise SystemExit("no weights: give --weights")
    model, size = load_head_model(), config.size_px
    yaw = np.degrees(np.abs(labelled.yaw_rad))
    lines = ["| look, yaw | pictures | networks | mediapipe |", "| --- | --- | --- | --- |"]
    tiles, seconds = [], 0.0
    networks = FaceNetworks()
    for look_name, look in LOOKS.items():
        rows = []
        for index in np.flatnonzero(yaw <= YAW_EDGES_DEG[-1]):
            scene = measured_scene(labelled, int(index), backgrounds, look, size_px=size)
            started = time.process_time()
            found = find_face(scene.rgb, loaded)
            seconds += time.process_time() - started
            error, angle = face_error(None if found is None else found.points_px, scene.points_px), math.nan
            if found is not None:
                fit = fit_sparse_points(model, found.points_px, found.scales_px, size, size)
                angle = direction_error_deg(fit, scene.toward_camera)
            points, landmarks = by_mediapipe(scene.rgb, networks)
            other, other_angle = face_error(points, scene.points_px), math.nan
            if landmarks is not None:
                other_angle = direction_error_deg(fit_landmarks(model, landmarks, size, size), scene.toward_camera)
            rows.append((look_name, yaw[index], error, angle, other, other_angle))
            if len(rows) % 4 == 1 and len(rows) < 48:
                picture = drawn_points(scene.rgb, None if found is None else found.points_px)
                tiles.append(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA))
        lines += table_of(rows, look_name)
    wrong, wrong_other = 0, 0
    for k in range(config.empty):
        picture = empty_scene(backgrounds, np.random.default_rng((9, k)), size)
        wrong += find_face(picture, loaded) is not None
        wrong_other += bool(find_faces(picture, networks))
    backs = np.flatnonzero(yaw > 125)
    seen = sum(
        find_face(measured_scene(labelled, int(k), backgrounds, PLAIN_SCENES, size_px=size).rgb, loaded) is not None
        for k in backs
    )
    lines.append(
        f"\nfalse faces: {wrong} of {config.empty} (mediapipe {wrong_other}); on backs of heads {seen} of {len(backs)}"
    )
    lines.append(f"{1000 * seconds / max(1, 3 * int((yaw <= 90).sum())):.0f} ms of one core a picture")
    write_bytes_atomically(config.output / "table.md", "\n".join(lines).encode())
    tiles = tiles[: 6 * (len(tiles) // 6)]
    sheet = np.concatenate([np.concatenate(tiles[k : k + 6], 1) for k in range(0, len(tiles), 6)])
    Image.fromarray(sheet).save(config.output / "sheet.png")


def main(config: LandmarkBenchmarkConfig) -> None:
    """Render the heads if need be, and measure."""
    torch.set_num_threads(1)
    shots = surround_shots(
        config.data, "held_out", config.output / "shots", replace(SURROUND_SHOTS, heads=config.heads, first_head=0)
    )
    measure(labelled_shots(shots, "held_out", config.data), Backgrounds.of_split(config.data, "held_out"), config)


if __name__ == "__main__":
    main(tyro.cli(LandmarkBenchmarkConfig))
