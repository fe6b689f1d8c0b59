"""The heads of a page on disk: each in a folder named by a number that nobody guesses, with all that belongs to it."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from dp360.generation import InputError
from dp360.generation.files import write_bytes_atomically

from ..options import GeneratorName, HeadOptions, LightLook, Quality

JobStatus = Literal["draft", "queued", "running", "done", "failed", "cancelled"]
"""`draft`: the picture is there and looked at, nothing was asked for yet."""
_ID = re.compile(r"[0-9a-f]{32}")
_RECORD_NAME = "job.json"
_MOST_NAME = 80


@dataclass(frozen=True)
class PageSettings:
    """What a visitor may choose."""

    quality: Quality = "standard"
    """The dial."""
    generator: GeneratorName = "auto"
    """Who makes the views; diffportrait360 is not to be had here."""
    seed: int = 0
    """Seed of everything random, 0 to 2^32 - 1."""
    face_index: int | None = None
    """Which face of several, 0 being the largest."""
    no_face: bool = False
    """Align by the outline alone."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """How much of the picture is used."""
    light: LightLook = "portrait"
    """The head in the portrait's light, in even light or in a studio's."""
    no_glasses: bool = False
    """Take off the glasses."""

    def options(self, portrait: Path) -> HeadOptions:
        """The options of `dp360 run` for them."""
        return HeadOptions(image=(portrait,), **asdict(self))


@dataclass(frozen=True)
class PageJob:
    """One portrait of a visitor, and its head."""

    id: str
    """32 hexadecimal digits, random."""
    number: int
    """Counts up: later ones are larger."""
    name: str
    """Name of the picture, as the visitor knows it."""
    portrait_name: str
    """Name of the picture's file in the folder of the job."""
    status: JobStatus = "draft"
    """What is happening to it."""
    settings: PageSettings = field(default_factory=PageSettings)
    """What was chosen."""
    faces: list[list[float]] = field(default_factory=list)
    """Left, top, width, height of each face in shares of the preview's width and height, the largest first."""
    has_face: bool = True
    """Whether a head can be placed by a face."""
    wanted: list[str] = field(default_factory=list)
    """Endings of formats that were asked for."""
    error: str | None = None
    """Why there is no head."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the visitor."""
    seconds: float | None = None
    """Wall seconds that the head took."""
    deaths: int = 0
    """How often it ended its worker's process."""


class JobStore:
    """All jobs below one folder. Used by one thread at a time."""

    def __init__(self, work: Path) -> None:
        self._folder = work / "jobs"

    def folder(self, job_id: str) -> Path:
        """Where a job's files lie.

        Raises:
            KeyError: no number of a job.
        """
        if not _ID.fullmatch(job_id):
            raise KeyError(job_id)
        return self._folder / job_id

    def head_folder(self, job_id: str) -> Path:
        """Where its head stands."""
        return self.folder(job_id) / "head"

    def portrait(self, job: PageJob) -> Path:
        """Its picture."""
        return self.folder(job.id) / job.portrait_name

    def create(self, name: str, picture: bytes, number: int) -> PageJob:
        """A draft with its picture.

        Args:
            name: of the picture, any text; only its ending has a say in the name of the file.
            picture: the file.
            number: larger than those of all others.

        Raises:
            InputError: the folder cannot be written.
        """
        suffix = re.sub(r"[^a-z0-9.]", "", Path(name).suffix.lower())[:8]
        shown = " ".join("".join(c if c.isprintable() else " " for c in Path(name).name).split())[:_MOST_NAME]
        job = PageJob(secrets.token_hex(16), number, shown or "portrait", f"portrait{suffix}")
        write_bytes_atomically(self.portrait(job), picture)
        self.save(job)
        return job

    def save(self, job: PageJob) -> None:
        """Write down what is known of a job.

        Raises:
            InputError: the folder cannot be written.
        """
        content = json.dumps(asdict(job), ensure_ascii=False, indent=1) + "\n"
        write_bytes_atomically(self.folder(job.id) / _RECORD_NAME, content.encode())

    def delete(self, job_id: str) -> None:
        """Remove a job and all its files."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def read_all(self) -> list[PageJob]:
        """All jobs in their order; those that were running wait again. Folders that hold no job are left alone."""
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                job = _read(path) if _ID.fullmatch(path.name) else None
                if job is not None and job.id == path.name:
                    found.append(replace(job, status="queued") if job.status == "running" else job)
        return sorted(found, key=lambda job: job.number)


def settings_from(given: Mapping[str, Any]) -> PageSettings:
    """Settings out of plain data.

    Raises:
        InputError: an unknown name or a value that is none of its choices.
    """
    known = {f.name for f in fields(PageSettings)}
    strange = sorted(set(given) - known)
    if strange:
        raise InputError(f"Expected settings out of {', '.join(sorted(known))}, got {', '.join(strange)}")
    choices = {"quality": get_args(Quality), "generator": ("auto", "prior", "field", "compact")}
    choices |= {"crop": ("auto", "standard", "wide"), "light": get_args(LightLook)}
    for name, allowed in choices.items():
        if name in given and given[name] not in allowed:
            raise InputError(f"Expected {name} to be one of {', '.join(allowed)}, got {str(given[name])[:40]}")
    for name in ("no_face", "no_glasses"):
        if not isinstance(given.get(name, False), bool):
            raise InputError(f"Expected {name} to be true or false")
    for name, most in (("seed", 2**32 - 1), ("face_index", 1000)):
        value = given.get(name)
        is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        if not is_number and not (value is None and (name == "face_index" or name not in given)):
            raise InputError(f"Expected {name} to be a whole number from 0 to {most}")
    return PageSettings(**given)


def _read(folder: Path) -> PageJob | None:
    try:
        given = json.loads((folder / _RECORD_NAME).read_text("utf-8"))
        given["settings"] = settings_from(given["settings"])
        known = {f.name for f in fields(PageJob)}
        job = PageJob(**{name: value for name, value in given.items() if name in known})
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
    is_plain = re.fullmatch(r"portrait[a-z0-9.]*", str(job.portrait_name)) is not None
    return job if job.status in get_args(JobStatus) and is_plain else None
