"""Busts of the VALID avatar library (MIT, (c) 2022 Tiffany Do) in the package's world frame.

Source: Do et al., "VALID: A perceptually validated Virtual Avatar Library for Inclusion and Diversity",
Frontiers in Virtual Reality 2023; glTF conversion https://github.com/c-frame/valid-avatars-glb.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..parts import Part, SyntheticHead, read_texture, world_from_asset

UNITS_PER_METRE = 1.0
ARM_DROP_RAD = math.radians(68.0)
"""The avatars stand with their arms held out; the arms are turned down by this angle."""
_SHOULDER_X = (0.13, 0.23)
"""The turn grows from nothing to all between these distances from the middle, metres."""
_KINDS = {"HighRes": "skin", "eye": "eyes", "gland": "eyes", "Teeth": "teeth", "wig": "hair"}


def valid_names(data: Path) -> list[str]:
    """Names of all busts in the folder of the head assets, sorted."""
    return sorted(path.stem for path in (data / "valid").glob("*.npz"))


def arms_lowered(
    vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"]]:
    """The body with its arms hanging: points turn about the shoulders by an angle that grows outwards."""
    distance = np.abs(vertices[:, 0])
    arm_y = vertices[(distance > 0.35) & (distance < 0.5), 1].mean()
    begin, end = _SHOULDER_X
    t = np.clip((distance - begin) / (end - begin), 0, 1)
    side = np.where(vertices[:, 0] < 0, -1.0, 1.0)
    angle = -side * ARM_DROP_RAD * t * t * (3 - 2 * t)
    pivot = np.stack([side * (begin + end) / 2, np.full(len(side), arm_y)], axis=1)

    def turned(xy: Float[np.ndarray, "v 2"]) -> Float[np.ndarray, "v 2"]:
        c, s = np.cos(angle), np.sin(angle)
        return np.stack([c * xy[:, 0] - s * xy[:, 1], s * xy[:, 0] + c * xy[:, 1]], axis=1)

    return (
        np.concatenate([turned(vertices[:, :2] - pivot) + pivot, vertices[:, 2:]], axis=1),
        np.concatenate([turned(normals[:, :2]), normals[:, 2:]], axis=1),
    )


def compose_valid(data: Path, name: str, *, largest_side: int | None = None) -> SyntheticHead:
    """One bust.

    Args:
        data: folder of the head assets, with `valid` inside.
        name: one of `valid_names`.
        largest_side: larger textures are made smaller.
    """
    mesh = np.load(data / "valid" / f"{name}.npz")
    labels = [str(label).split(":") for label in mesh["parts"]]
    middles = [
        (mesh[f"v{k}"].min(0) + mesh[f"v{k}"].max(0)) / 2 for k, (part, _) in enumerate(labels) if "_eye" in part
    ]
    eyes_middle = np.mean(middles, axis=0).astype(np.float64)
    scale, shift = world_from_asset(mesh["v0"].astype(np.float64), eyes_middle, UNITS_PER_METRE)
    textures = {
        texture: read_texture(data / "valid" / f"{name}_{texture}.webp", largest_side=largest_side)
        for _, texture in labels
    }
    parts = []
    for k, (part, texture) in enumerate(labels):
        faces = mesh[f"f{k}"].astype(np.int64)
        kind = next((kind for piece, kind in _KINDS.items() if piece in part), "other")
        vertices, normals = mesh[f"v{k}"].astype(np.float64), mesh[f"n{k}"].astype(np.float64) / 127
        if kind == "skin":
            vertices, normals = arms_lowered(vertices, normals)
        parts.append(
            Part(
                kind,
                vertices * scale + shift,
                normals,
                faces,
                mesh[f"uv{k}"].astype(np.float64),
                faces,
                textures[texture],
                alpha_tested=bool((textures[texture][..., 3] < 0.5).any()),
                specular=0.3 if kind == "eyes" else 0.08,
            )
        )
    return SyntheticHead(name, tuple(parts), (f"valid/{name}",))
