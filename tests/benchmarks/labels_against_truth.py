"""Portrait labels against composed heads that the segmenter has never seen: learned beside the rules.

The first table counts the segmenter's own classes, background included. The second one takes portraits in which a face
is found, fits the head as the portrait preparation does, gives both methods the true matte, and counts skin, hair
(with hats) and cloth within it. Needs the head assets; run by hand:

    python tests/benchmarks/labels_against_truth.py --data ../shared/data/heads --output outputs/labels_against_truth
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Float32, UInt8
from pymatting import estimate_foreground_ml

from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, fit_landmarks, load_head_model
from dp360.generation.portrait import DetectionConfig, FaceNetworks, Portrait, find_faces
from dp360.generation.prior.labels.portrait_labels import LabelConfig, PortraitLabels, label_portrait
from dp360.generation.prior.labels.segmenter import CLASS_NAMES, LoadedSegmenter, load_segmenter, read_segmenter
from dp360.generation.progress import Track, silent
from dp360.generation.synthetic.assets import Split
from dp360.generation.synthetic.parts import Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.portraits.portrait_shots import PortraitLook, PortraitSample, finish_shot
from dp360.generation.training.segmenter_training import PLAIN_PORTRAITS, ClassCounts, count_classes, evaluate_segmenter
from dp360.generation.training.shots import PORTRAIT_SHOTS, Shots, portrait_shots

MATERIALS = ("skin", "hair and hats", "cloth")
NOTHING = 255
_MATERIAL = {
    Label.FACE: 0, Label.NECK: 0, Label.BEARD: 0, Label.ACCESSORY: 0, Label.HAIR: 1, Label.HEADGEAR: 1, Label.CLOTH: 2,
}  # fmt: skip
_RGB = np.array([(232, 178, 140), (60, 80, 200), (60, 150, 70)], np.uint8)


@dataclass(frozen=True)
class LabelBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/labels_against_truth")
    """Folder for tables, pictures and rendered heads."""
    heads: int = 60
    """Heads, one portrait each."""
    split: Split = "held_out"
    """Whose."""
    weights: Path | None = None
    """Weights of the segmenter; the installed ones if not given."""
    seed: int = 0
    """Seed of backgrounds and cameras' faults."""


def material_of(sample: PortraitSample) -> UInt8[np.ndarray, "s s"]:
    """Index into `MATERIALS` where the head covers at least half of a pixel."""
    table = np.full(max(Label) + 1, NOTHING, np.uint8)
    for label, material in _MATERIAL.items():
        table[label] = material
    return np.where(sample.alpha_unit > 0.5, table[sample.labels], np.uint8(NOTHING))


def material_map(labels: PortraitLabels) -> UInt8[np.ndarray, "s s"]:
    """The same of predicted labels."""
    return np.select([labels.skin, labels.hair, labels.cloth], [0, 1, 2], NOTHING).astype(np.uint8)


def portrait_of(
    sample: PortraitSample, foreground_unit: Float32[np.ndarray, "s s 3"], networks: FaceNetworks, model: HeadModel
) -> Portrait | None:
    """The sample as a portrait with its true matte; None where no face is found."""
    faces = find_faces(sample.rgb, networks)
    if not faces:
        return None
    size = len(sample.rgb)
    head = fit_landmarks(model, faces[0].landmarks_px, size, size)
    name, digest = "sample", hashlib.sha256(sample.rgb.tobytes()).hexdigest()
    return Portrait(
        sample.rgb, sample.alpha_unit, foreground_unit, sample.inside, faces[0].landmarks_px, head, "standard", name,
        digest, (),
    )  # fmt: skip


def main(config: LabelBenchmarkConfig, track: Track = silent) -> None:
    """Measure, write `tables.md` and `sheet.png`, and print the tables."""
    segmenter = load_segmenter() if config.weights is None else read_segmenter(config.weights)
    assert segmenter is not None, "no weights are installed: give --weights"
    heads = replace(PORTRAIT_SHOTS, heads=config.heads, samples_per_head=1)
    shots = portrait_shots(config.data, config.split, config.output, heads, track=track)
    backgrounds = Backgrounds.of_split(config.data, config.split)
    looks = {"photographs": PLAIN_PORTRAITS, "all looks": PortraitLook()}
    rows = {
        name: evaluate_segmenter(segmenter, shots, backgrounds, look, seed=config.seed).iou
        for name, look in looks.items()
    }
    text = _table("segmenter, IoU", CLASS_NAMES, rows)
    counts, found, sheet = _both_methods(shots, backgrounds, config, segmenter)
    text += "\n" + _table(f"label_portrait on {found} portraits, IoU", MATERIALS, {n: c.iou for n, c in counts.items()})
    write_bytes_atomically(config.output / "tables.md", text.encode())
    write_bytes_atomically(config.output / "sheet.png", cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    print(text)


def _both_methods(
    shots: Shots, backgrounds: Backgrounds, config: LabelBenchmarkConfig, segmenter: LoadedSegmenter
) -> tuple[dict[str, ClassCounts], int, np.ndarray]:
    model = load_head_model()
    zero = ClassCounts(np.zeros(3, np.int64), np.zeros(3, np.int64))
    counts, found, rows = {"learned": zero, "rules": zero}, 0, []
    with FaceNetworks(DetectionConfig()) as networks:
        for index in range(len(shots)):
            look = replace(PLAIN_PORTRAITS, cut=0.0)
            sample = finish_shot(*shots[index], backgrounds, np.random.default_rng((config.seed, index)), 512, look)
            colour = estimate_foreground_ml(sample.rgb.astype(np.float32) / 255, sample.alpha_unit)
            portrait = portrait_of(sample, np.clip(colour, 0, 1).astype(np.float32), networks, model)
            if portrait is None:
                continue
            found += 1
            truth = material_of(sample)
            maps = [truth]
            for method in counts:
                labels = label_portrait(portrait, model, LabelConfig(method=method), segmenter=segmenter)
                maps.append(material_map(labels))
                counts[method] += count_classes(maps[-1], truth, len(MATERIALS))
            rows.append(np.concatenate([sample.rgb, *(_picture(m) for m in maps)], 1)[::3, ::3])
    half = (len(rows) + 1) // 2
    rows += [np.full_like(rows[0], 255)] * (2 * half - len(rows))
    sheet = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    return counts, found, sheet


def _picture(material: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "s s 3"]:
    return np.where((material == NOTHING)[..., None], np.uint8(255), _RGB[np.minimum(material, 2)])


def _table(title: str, names: tuple[str, ...], rows: dict[str, np.ndarray]) -> str:
    lines = [f"| {title} | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    lines += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(LabelBenchmarkConfig))
