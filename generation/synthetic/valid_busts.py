"""Busts of the VALID avatar library (MIT, (c) 2022 Tiffany Do) in the package's world frame.

Source: Do et al., "VALID: A perceptually validated Virtual Avatar Library for Inclusion and Diversity",
Frontiers in Virtual Reality 2023; glTF conversion https://github.com/c-frame/valid-avatars-glb.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .compose import Part, SyntheticHead, read_texture, world_from_asset

UNITS_PER_METRE = 1.0
_KINDS = {"HighRes": "skin", "eye": "eyes", "gland": "eyes", "Teeth": "teeth", "wig": "hair"}


def valid_names(data: Path) -> list[str]:
    """Names of all busts in the folder of the head assets, sorted."""
    return sorted(path.stem for path in (data / "valid").glob("*.npz"))


def compose_valid(data: Path, name: str) -> SyntheticHead:
    """One bust.

    Args:
        data: folder of the head assets, with `valid` inside.
        name: one of `valid_names`.
    """
    mesh = np.load(data / "valid" / f"{name}.npz")
    labels = [str(label).split(":") for label in mesh["parts"]]
    middles = [
        (mesh[f"v{k}"].min(0) + mesh[f"v{k}"].max(0)) / 2 for k, (part, _) in enumerate(labels) if "_eye" in part
    ]
    eyes_middle = np.mean(middles, axis=0).astype(np.float64)
    scale, shift = world_from_asset(mesh["v0"].astype(np.float64), eyes_middle, UNITS_PER_METRE)
    textures = {texture: read_texture(data / "valid" / f"{name}_{texture}.webp") for _, texture in labels}
    parts = []
    for k, (part, texture) in enumerate(labels):
        faces = mesh[f"f{k}"].astype(np.int64)
        kind = next((kind for piece, kind in _KINDS.items() if piece in part), "other")
        parts.append(
            Part(
                kind,
                mesh[f"v{k}"].astype(np.float64) * scale + shift,
                mesh[f"n{k}"].astype(np.float64) / 127,
                faces,
                mesh[f"uv{k}"].astype(np.float64),
                faces,
                textures[texture],
                alpha_tested=bool((textures[texture][..., 3] < 0.5).any()),
                specular=0.3 if kind == "eyes" else 0.08,
            )
        )
    return SyntheticHead(name, tuple(parts), (f"valid/{name}",))
