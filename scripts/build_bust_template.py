"""Build the statistical bust that ships with the package out of openly licensed data.

Run by hand; the package itself never needs the data:

    python scripts/build_bust_template.py --data PACK --output generation/weights/bust_template.safetensors

Random adults of MakeHuman's body, arms lowered, are cut into level sections about a leaning axis, made symmetric and
described by their mean and principal components. The result depends on nothing but the data and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float, Int

from dp360.generation.head_model import anatomy
from dp360.generation.prior.bust.sections import COLUMNS, filled_sections, section_points, section_radius, smooth_grid
from dp360.generation.prior.bust.template import save_template
from dp360.generation.synthetic.bodies.parametric_body import RACES, BaseBody, base_body

TOP_CM, BOTTOM_CM = -9.5, -26.5
"""Heights of the first and the last section before their rows are spread by length, in the head's frame."""
SECTIONS = 180
VALID_ABOVE_DM = 4.26
"""The morph targets end below this height of the unmorphed body."""
CHEST_CM = -20.0
"""The axis leans from the neck's middle to the chest's middle at this height."""
ARMS_DOWN_RAD = np.radians(30.0)
_ARM_BEGINS, _ARM_EASE = 0.075, 0.13
"""Arms turn about the shoulder joint, gently from this far inside it over that width; world units."""
_MOST_MISSING = 0.1
_SMOOTH_MEAN, _SMOOTH_MODES = (0.6, 0.7), (1.2, 1.0)
"""Over rows and columns."""


@dataclass(frozen=True)
class BustTemplateConfig:
    """Where the data is, where the template goes, and how people are drawn."""

    data: Path
    """Folder of the head assets, with `makehuman` inside."""
    output: Path = Path("generation/weights/bust_template.safetensors")
    """File to write."""
    people: int = 160
    """Random adults; those whose mesh ends too high are left out."""
    rows: int = 48
    """Rows of the template."""
    modes: int = 5
    """Principal components that are kept."""
    seed: int = 0
    """Seed of the people."""


@dataclass(frozen=True)
class Skeleton:
    """What the asset's file says beside the body's surface."""

    trunk_faces: Int[np.ndarray, "f 3"]
    """Triangles of the body where morph targets are complete."""
    shoulders: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
    """Vertices of the shoulder joints' helpers, left (+x) first."""

    @staticmethod
    def read(data: Path, body: BaseBody) -> Skeleton:
        """The skeleton of MakeHuman's base mesh."""
        with np.load(data / "makehuman" / "base.npz") as base:
            groups = [str(name) for name in base["group_names"]]
            face_group = base["face_group"]
        left, right = (
            np.unique(body.faces[face_group == groups.index(f"joint-{side}-shoulder")]) for side in ("l", "r")
        )
        faces = body.faces[body.is_body]
        return Skeleton(faces[(body.vertices_dm[faces, 1] > VALID_ABOVE_DM).all(1)], (left, right))


def random_adult(body: BaseBody, rng: np.random.Generator) -> Float[np.ndarray, "v 3"]:
    """Vertices of somebody, decimetres: any gender, age, origin, weight and neck."""
    race = rng.dirichlet((0.7, 0.7, 1.2))
    male = float(rng.random() < 0.55) if rng.random() < 0.7 else rng.random()
    old, weight = float(rng.beta(1, 1.6)), float(rng.beta(2, 2))
    thin, heavy = max(0.0, 1 - 2 * weight), max(0.0, 2 * weight - 1)
    wanted: dict[str, float] = {}
    for gender, gender_share in (("female", 1 - male), ("male", male)):
        for age, age_share in (("young", 1 - old), ("old", old)):
            for name, share in zip(RACES, race):
                wanted[f"macrodetails/{name}-{gender}-{age}"] = gender_share * age_share * float(share)
            for build, share in (("minweight", thin), ("maxweight", heavy)):
                name = f"macrodetails/universal-{gender}-{age}-averagemuscle-{build}"
                wanted[name] = gender_share * age_share * share
    for name, spread in (("scale-depth", 0.5), ("scale-horiz", 0.5), ("scale-vert", 0.4)):
        amount = rng.normal(0, spread)
        wanted[f"neck/neck-{name}-{'incr' if amount > 0 else 'decr'}"] = min(1.0, abs(amount))
    amount = rng.normal(0, 0.3)
    wanted[f"neck/neck-trans-{'forward' if amount > 0 else 'backward'}"] = min(1.0, abs(amount))
    vertices = body.vertices_dm.copy()
    for name, amount in wanted.items():
        if amount > 0:
            moved, displacement = body.targets[name]
            vertices[moved] += displacement * amount
    return vertices


def with_lowered_arms(vertices_world: Float[np.ndarray, "v 3"], skeleton: Skeleton) -> Float[np.ndarray, "v 3"]:
    """The body with its arms turned down about the shoulders: it stands with them half-way to the side."""
    lowered = vertices_world
    for side, joint_vertices in zip((1.0, -1.0), skeleton.shoulders):
        joint = vertices_world[joint_vertices].mean(0)
        outward = side * (lowered[:, 0] - joint[0])
        share = np.clip((outward + _ARM_BEGINS) / _ARM_EASE, 0, 1)
        angle = -side * ARMS_DOWN_RAD * share * share * (3 - 2 * share)
        x, y = lowered[:, 0] - joint[0], lowered[:, 1] - joint[1]
        turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1)
        on_side = side * lowered[:, 0] > 0
        lowered = np.where(on_side[:, None], np.concatenate([turned + joint[:2], lowered[:, 2:]], axis=1), lowered)
    return lowered


def bust_of(
    vertices_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], rows: int
) -> Float[np.ndarray, "rows columns 3"] | None:
    """Grid of one person's bust; None where the mesh ends too high.

    Heights are counted from where the head model is cut off, depths from the middle of the neck there.
    """
    cut = anatomy.world_height(anatomy.NECK_CUT_Y_CM)
    top, bottom, chest = (anatomy.world_height(y) - cut for y in (TOP_CM, BOTTOM_CM, CHEST_CM))
    heights = np.linspace(top, bottom, SECTIONS)
    points = vertices_world - [0.0, cut, 0.0]
    both = section_radius(points, faces, heights, np.zeros(SECTIONS))
    middle = (both[:, 0] - both[:, COLUMNS // 2]) / 2
    at_neck, at_chest = (int(np.argmin(np.abs(heights - y))) for y in (0.0, chest))
    slope = (middle[at_chest] - middle[at_neck]) / (heights[at_chest] - heights[at_neck])
    axis_z = slope * heights
    points[:, 2] -= middle[at_neck]
    radius = section_radius(points, faces, heights, axis_z)
    if (~np.isfinite(radius)).mean() > _MOST_MISSING or (~np.isfinite(radius)).all(0).any():
        return None
    radius = filled_sections(radius)
    radius = (radius + radius[:, (-np.arange(COLUMNS)) % COLUMNS]) / 2
    return even_rows(section_points(heights, axis_z, radius), rows)


def even_rows(points: Float[np.ndarray, "n columns 3"], rows: int) -> Float[np.ndarray, "rows columns 3"]:
    """The same columns in even steps of their length."""
    step = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    length = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(step, axis=0)])
    wanted = np.linspace(0, 1, rows)
    columns = [
        np.stack([np.interp(wanted, s / s[-1], p) for p in column.T], axis=1)
        for s, column in zip(length.T, points.transpose(1, 0, 2))
    ]
    return np.stack(columns, axis=1)


def main(config: BustTemplateConfig) -> None:
    """Draw people, describe them and write the template."""
    body = base_body(config.data)
    skeleton = Skeleton.read(config.data, body)
    rng = np.random.default_rng(config.seed)
    busts = []
    for _ in range(config.people):
        vertices_dm = random_adult(body, rng)
        scale, shift = body.transform(vertices_dm)
        vertices = with_lowered_arms(vertices_dm * scale + shift, skeleton)
        bust = bust_of(vertices, skeleton.trunk_faces, config.rows)
        if bust is not None:
            busts.append(bust)
    samples = np.stack(busts)
    mean = samples.mean(0)
    _, sizes, components = np.linalg.svd((samples - mean).reshape(len(samples), -1), full_matrices=False)
    modes = components[: config.modes] * (sizes[: config.modes, None] / np.sqrt(len(samples)))
    modes = modes.reshape(config.modes, *mean.shape)
    modes *= np.where(modes[:, -1, COLUMNS // 4, 0] < 0, -1.0, 1.0)[:, None, None, None]  # the sign is not defined
    mean, modes = smooth_grid(mean, *_SMOOTH_MEAN), smooth_grid(modes, *_SMOOTH_MODES)
    explained = float((sizes[: config.modes] ** 2).sum() / (sizes**2).sum())
    notes = {
        "people": str(len(samples)),
        "seed": str(config.seed),
        "explained": f"{explained:.3f}",
        "licence": "CC0-1.0",
    }
    save_template(config.output, mean, modes, notes)
    print(f"{len(samples)} of {config.people} people, {explained:.1%} explained, {config.output.stat().st_size} bytes")


if __name__ == "__main__":
    main(tyro.cli(BustTemplateConfig))
