"""The hair shell against composed heads that its network has never seen.

Held-out heads are photographed from random cameras (yaw within 36 degrees), and the pictures go through the whole of
the portrait preparation, the labels and the shell. The true head is laid over the fitted one by the landmarks of the
inner face; the hair, the back and the sides take no part in that. Then both are seen from the front, the sides and
the back. Needs the head assets; run by hand (about 15 s a head on one core):

    python tests/benchmarks/hair_against_truth.py --data ../shared/data/heads --output outputs/hair_against_truth
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, UInt8
from PIL import Image

from dp360.generation import InputError
from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.portrait import FaceNetworks, Portrait, find_faces, prepare_portrait
from dp360.generation.prior.bust.torso import Torso, fit_torso
from dp360.generation.prior.hair.hair_shell import HairShell, fit_hair_shell
from dp360.generation.prior.hair.thickness_network import HAIR_THICKNESS
from dp360.generation.prior.labels.portrait_labels import LabelConfig, PortraitLabels, label_portrait
from dp360.generation.prior.texture.atlas import MATERIAL_CLOTH, build_atlas_mesh
from dp360.generation.synthetic.assets import Split, asset_index, field_rng
from dp360.generation.synthetic.compose import SyntheticHead, compose
from dp360.generation.synthetic.hair.hair_truth import HairTruth, Similarity, hair_truth, map_to_fit
from dp360.generation.synthetic.parts import UNITS_PER_CM, Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.portraits.portrait_shots import PortraitLook, finish_shot, take_shot
from dp360.generation.synthetic.recipe import sample_recipe
from dp360.generation.synthetic.rendering.renderer import HeadScene
from dp360.generation.training.thickness_samples import UnshadowedScene
from dp360.generation.training.thickness_training import region_masks

AZIMUTHS_DEG = (0, 90, 180, -90)
HEAD_ROWS = slice(0, 190)
"""Rows of a 256 px picture that show head and hair rather than shoulders."""
PHOTOGRAPH = PortraitLook(mirrored=0, painted=0, drawn=0, random_convolution=0, cut=0)
MOST_YAW_DEG = 36.0


@dataclass(frozen=True)
class HairBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/hair_against_truth")
    """Folder for the table, the portraits and the pictures."""
    heads: int = 60
    """Heads, one portrait each; those in which no face is found, and characters without skin, are left out."""
    split: Split = "held_out"
    """Whose."""
    weights: Path | None = None
    """Weights of the network; the installed ones if not given."""
    labels: LabelConfig = dataclasses.field(default_factory=LabelConfig)
    """How portraits are labelled."""


@dataclass(frozen=True)
class Case:
    """One portrait and its truth in the fitted frame."""

    portrait: Portrait
    truth: HairTruth
    rgb: UInt8[np.ndarray, "n h w 3"]
    covered: Bool[np.ndarray, "n h w"]
    cloth: Bool[np.ndarray, "n h w"]


def make_case(
    number: int, config: HairBenchmarkConfig, backgrounds: Backgrounds, networks: FaceNetworks, model: HeadModel
) -> Case | None:
    """Portrait number `number`, None where there is no face or no skin."""
    recipe = sample_recipe(number, asset_index(), config.split)
    head = compose(recipe, config.data)
    if all(part.name != "skin" for part in head.parts):
        return None
    rng, scene = field_rng(number, "hair_benchmark"), HeadScene(head)
    yaw = math.inf
    while yaw > math.radians(MOST_YAW_DEG):
        shot, camera = take_shot(scene, head.style, backgrounds, rng, 704)
        yaw = abs(float(camera.azimuth_rad[0]))
    sample = finish_shot(shot, camera, backgrounds, rng, 640, PHOTOGRAPH)
    path = config.output / f"{config.split}_{number:03d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sample.rgb).save(path)
    try:
        portrait = prepare_portrait(path)
    except InputError:
        return None
    faces = find_faces(sample.rgb, networks)
    to_fit = map_to_fit(head, sample.camera, faces[0].landmarks_px, portrait.head, model) if faces else None
    if to_fit is None:
        return None
    views = UnshadowedScene(_moved(head, to_fit)).render(_cameras())
    covered = views.alpha_unit > 0.5
    rgb = np.round(255 * views.over(0.9)).astype(np.uint8)
    return Case(portrait, hair_truth(head, to_fit), rgb, covered, covered & (views.labels == Label.CLOTH))


def _moved(head: SyntheticHead, to_fit: Similarity) -> SyntheticHead:
    return dataclasses.replace(
        head,
        parts=tuple(
            dataclasses.replace(
                part,
                vertices_world=to_fit(part.vertices_world),
                normals_world=part.normals_world @ to_fit.R.T,
                tangents_world=None,
            )
            for part in head.parts
        ),
    )


def _cameras() -> Cameras:
    return look_at_origin([math.radians(a) for a in AZIMUTHS_DEG], [0.0] * len(AZIMUTHS_DEG), size_px=256)


def outlines(
    portrait: Portrait, labels: PortraitLabels, shell: HairShell, torso: Torso, model: HeadModel
) -> tuple[Bool[np.ndarray, "n h w"], Bool[np.ndarray, "n h w"]]:
    """What the prior covers from the four sides, and where its clothes are in front."""
    mesh = build_atlas_mesh(model, portrait.head.vertices_world, shell, torso, bald=labels.bald)
    covered, cloth = [], []
    for camera in _cameras():
        fragments = rasterize_mesh(mesh.vertices_world, mesh.faces, camera)
        covered.append(fragments.hit)
        cloth.append(fragments.hit & (mesh.material[np.maximum(fragments.triangle_index, 0)] == MATERIAL_CLOTH))
    return np.stack(covered), np.stack(cloth)


def figures_of(
    case: Case, labels: PortraitLabels, shell: HairShell, torso: Torso, model: HeadModel
) -> tuple[dict[str, float], Bool[np.ndarray, "n h w"]]:
    """Overlaps and thickness errors of one shell, and its outlines."""
    covered, cloth = outlines(case.portrait, labels, shell, torso, model)

    def overlap(k: int, counted: Bool[np.ndarray, "h w"]) -> float:
        a, b = (mask[k][HEAD_ROWS] & counted[HEAD_ROWS] for mask in (covered, case.covered))
        return float((a & b).sum() / max(1, (a | b).sum()))

    everywhere, not_cloth = np.ones_like(covered), ~(cloth | case.cloth)
    row = {}
    for name, counted in (("head", not_cloth), ("rows 0-190", everywhere)):
        row[f"{name}, 0"] = overlap(0, counted[0])
        row[f"{name}, +-90"] = (overlap(1, counted[1]) + overlap(3, counted[3])) / 2
        row[f"{name}, 180"] = overlap(2, counted[2])
    ours = np.maximum(shell.thickness, 0) * (not labels.bald)
    true = np.where(case.truth.presence > 0.5, np.maximum(case.truth.radius - shell.skull_radius, 0), 0)
    for name, mask in region_masks().items():
        counted = mask & (case.truth.cloth < 0.5)
        if counted.any():
            row[f"{name}, mm"] = float(np.abs(ours - true)[counted].mean()) / UNITS_PER_CM * 10
    return row, covered


def _tinted(
    rgb: UInt8[np.ndarray, "h w 3"], ours: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The true head; red where only ours is, blue where only the truth is."""
    picture = rgb.astype(np.float32)
    picture[ours & ~true] = 0.5 * picture[ours & ~true] + [127, 0, 0]
    picture[true & ~ours] = 0.5 * picture[true & ~ours] + [0, 0, 127]
    return cv2.resize(picture.astype(np.uint8), (160, 160), interpolation=cv2.INTER_AREA)


def table(rows: list[dict[str, float]]) -> str:
    """Means with 95 % confidence intervals."""
    lines = ["| | |", "| --- | --- |"]
    for name in rows[0]:
        values = np.array([row[name] for row in rows if name in row])
        digits = 1 if name.endswith("mm") else 3
        interval = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
        lines.append(f"| {name} | {values.mean():.{digits}f} +- {interval:.{digits}f} |")
    return "\n".join(lines) + "\n"


def main(config: HairBenchmarkConfig) -> None:
    """Measure, write `table.md` and `sheet_*.png`, and print the table."""
    network = HAIR_THICKNESS.load() if config.weights is None else HAIR_THICKNESS.read(config.weights)
    model, backgrounds = load_head_model(), Backgrounds.of_split(config.data, config.split)
    rows: list[dict[str, float]] = []
    tiles = []
    with FaceNetworks() as networks:
        for number in range(config.heads):
            case = make_case(number, config, backgrounds, networks, model)
            if case is None:
                continue
            labels = label_portrait(case.portrait, model, config.labels)
            torso = fit_torso(case.portrait, labels, model)
            tile = [cv2.resize(case.portrait.rgb, (160, 160), interpolation=cv2.INTER_AREA)]
            shell = fit_hair_shell(case.portrait, labels, model, thickness_network=network)
            row, covered = figures_of(case, labels, shell, torso, model)
            rows.append(row)
            tile += [_tinted(case.rgb[k], covered[k], case.covered[k]) for k in (1, 2, 3)]
            tiles.append(np.concatenate(tile, axis=1))
    text = f"{len(tiles)} {config.split} heads; intersection over union by azimuth, thickness errors by region\n\n"
    text += table(rows)
    write_bytes_atomically(config.output / "table.md", text.encode())
    for first in range(0, len(tiles), 12):
        sheet = np.concatenate(tiles[first : first + 12])
        Image.fromarray(sheet).save(config.output / f"sheet_{first // 12}.png")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(HairBenchmarkConfig, description=__doc__))
