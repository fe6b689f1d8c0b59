"""What the workers of the page do: look at a picture, and make a head with the pictures that the page shows of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dp360.exporters import splat_ply
from dp360.exporters.head_files import SPLATS_NAME
from dp360.generation.dataset.view_dataset import png_bytes, read_dataset
from dp360.generation.files import write_bytes_atomically
from dp360.generation.portrait.seen_faces import seen_faces
from dp360.reconstruction.splats import splat_pictures

from ..jobs.head_task import HeadMade, HeadTask, make_head
from ..jobs.thumbnails import thumbnail
from ..jobs.workers import Reporter
from ..run_folder import DATASET_NAME

PREVIEW_NAME, FRONT_NAME, THUMBNAIL_NAME = "preview.jpg", "front.png", "thumbnail.jpg"
"""In a job's folder: the upright picture, the head from the portrait's own camera, the small picture of lists."""
_PREVIEW_PX = 1200
_FRONT_PX = 512


@dataclass(frozen=True)
class LookTask:
    """A picture to look at before anything is made."""

    portrait: Path
    """The file."""
    preview: Path
    """Where an upright JPEG of it goes."""


@dataclass(frozen=True)
class Look:
    """What the picture shows."""

    faces: list[list[float]]
    """Left, top, width, height of each face, in shares of the preview's sides, the largest first."""
    has_face: bool
    """Whether a head can be placed by a face."""
    notices: list[str]
    """Sentences for people."""


def look_at_portrait(task: LookTask, reporter: Reporter) -> Look:
    """Read a picture, find its faces and write a preview.

    Raises:
        InputError: the file cannot be used.
    """
    del reporter
    seen = seen_faces(task.portrait)
    height, width = seen.rgb.shape[:2]
    preview, buffer = Image.fromarray(seen.rgb), io.BytesIO()
    preview.thumbnail((_PREVIEW_PX, _PREVIEW_PX), Image.Resampling.LANCZOS)
    preview.save(buffer, "JPEG", quality=88)
    write_bytes_atomically(task.preview, buffer.getvalue())
    faces = [[x / width, y / height, w / width, h / height] for x, y, w, h in seen.boxes_px]
    return Look(faces, seen.has_face, list(seen.notices))


def make_shown_head(task: HeadTask, reporter: Reporter) -> HeadMade | None:
    """`make_head`, and beside its folder the pictures that the page shows.

    Raises:
        InputError: the picture or a setting cannot be used, or the folder cannot be written.
        JobCancelled: the reporter says so.
    """
    made, beside = make_head(task, reporter), task.folder.parent
    if made is None:
        return None
    small = thumbnail(task.folder)
    if small is not None:
        write_bytes_atomically(beside / THUMBNAIL_NAME, small)
    if not (beside / FRONT_NAME).is_file():
        splats, _ = splat_ply.decode((task.folder / SPLATS_NAME).read_bytes())
        camera = read_dataset(task.folder / DATASET_NAME).cameras[[0]].resized(_FRONT_PX, _FRONT_PX)
        write_bytes_atomically(beside / FRONT_NAME, png_bytes(splat_pictures(splats, camera)[0].numpy()))
    return made
