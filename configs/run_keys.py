"""Keys of what a run makes: the same key, the same bytes. What was made earlier is found again by them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from dp360.generation import InputError
from dp360.generation.light.named_lights import panorama_file
from dp360.generation.portrait.rembg_network import rembg_file, rembg_model

from .code_hash import update_with_generation, update_with_rooms
from .doctor import version_of
from .options import RENDERED, HeadOptions
from .recipe import HeadRecipe


def head_key(options: HeadOptions, recipe: HeadRecipe, device: str) -> str:
    """SHA-256 over everything that a head depends on: what its views depend on, the fit, the device and our code.

    Args:
        options: the portrait and how it is treated; the generator's name is settled already.
        device: where the fit runs.

    Raises:
        InputError: as `views_key`.
    """
    digest = hashlib.sha256(views_key(options, recipe).encode())
    digest.update(json.dumps([asdict(recipe.fit), device, version_of("torch"), version_of("numba")]).encode())
    update_with_rooms(digest, "dp360.reconstruction", "dp360.exporters")
    return digest.hexdigest()


def views_key(options: HeadOptions, recipe: HeadRecipe) -> str:
    """SHA-256 over everything that the views depend on: the portrait's bytes, the settings, our weights and code,
    and the files that options name (by size and time of change).

    Args:
        options: the portrait and how it is treated; the generator's name is settled already.

    Raises:
        InputError: the portrait cannot be read, or the matte is none.
    """
    try:
        picture = options.portrait.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read the portrait {options.portrait}: {error.strerror}; check the path") from error
    elsewhere = ["image", "quality", "views", "size_px", "rings", "fit", "verbose"]
    if options.generator in RENDERED:
        elsewhere.append("device")  # they render on the CPU; what diffusion draws differs in its last bits by device
    settings = {name: value for name, value in asdict(options).items() if name not in elsewhere}
    settings.update(orbit=asdict(recipe.orbit), size_px=recipe.size_px)
    if rembg_model(options.matte) is not None:
        settings.update(rembg=version_of("rembg"), onnxruntime=version_of("onnxruntime"))
    digest = hashlib.sha256(hashlib.sha256(picture).digest())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in _given_files(options):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    update_with_generation(digest)
    return digest.hexdigest()


def _given_files(options: HeadOptions) -> list[Path]:
    """Files that the options name, those of folders included, where they exist: weights, pictures, labels."""
    diffusion = options.diffusion
    places = [diffusion.condition_views, diffusion.start_views, diffusion.back_image, diffusion.camera_labels]
    if options.weights is not None:
        places.append(Path(options.weights).expanduser())
    places.append(rembg_file(options.matte))
    places.append(panorama_file(options.light))
    files = [file for place in places if place is not None for file in (place, *place.rglob("*"))]
    return sorted(file for file in files if file.is_file())
