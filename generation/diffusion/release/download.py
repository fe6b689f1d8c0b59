"""From what a person calls the weights to a pipeline folder: a folder, the official files, or a hub id.

What is downloaded is hashed when it is first seen, and has to be the same ever after. Conversions are kept in a cache
folder under the hashes of their sources.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch

from ...errors import InputError
from ...files import cache_folder, write_bytes_atomically
from ...progress import Track, silent
from .checkpoint import sha256_of_file
from .conversion import CONVERSION_RECORD, DTYPE_NAMES, convert_release
from .conversion_report import Role

OFFICIAL_REPOSITORY = "gym890/diffportrait360"
"""Where the authors publish their weights: https://huggingface.co/gym890/diffportrait360."""
OFFICIAL_FILES: dict[Role, str] = {"views": "model_state-340000.th", "back": "back_head-230000.th"}
"""The 360 model and the back-head model F."""

_PIPELINE_FILES = ["model_index.json", "*/*.json", "*/*.safetensors"]
_CONVERSION_FORMAT = 1  # raised when a conversion of the same files writes something else
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_weights(
    name_or_folder: str, *, cache: Path | None = None, dtype: torch.dtype = torch.float32, track: Track = silent
) -> Path:
    """The pipeline folder that belongs to a name; made and kept where it does not exist yet.

    Args:
        name_or_folder: a pipeline folder, used as it is; a folder with the official files, converted once; or a hub id
            such as `gym890/diffportrait360`, downloaded once (a pipeline folder on the hub is used as it is too).
        cache: folder for conversions and the record of hashes; None takes `$XDG_CACHE_HOME/dp360/weights`, by default
            `~/.cache/dp360/weights`. Downloads themselves lie in the hub's own cache.
        dtype: float32, float16 or bfloat16: how a conversion stores the weights.

    Returns:
        A folder with `model_index.json`.

    Raises:
        InputError: neither a usable folder nor a hub id; no network; a file that is not what it was when it was first
            downloaded; or what `convert_release` raises.
    """
    folder = Path(name_or_folder).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    book = _HashBook(cache_folder() / "weights" if cache is None else cache)
    from_hub = not folder.is_dir()
    if from_hub:
        if not _HUB_ID.fullmatch(name_or_folder) or folder.is_file():
            what = "is a file" if folder.is_file() else "is neither a folder nor a hub id"
            raise InputError(
                f"The weights {name_or_folder} cannot be used: this {what}; give a pipeline folder, a folder with "
                f"{' and '.join(OFFICIAL_FILES.values())}, or a hub id such as {OFFICIAL_REPOSITORY}"
            )
        folder = _downloaded(name_or_folder, track)
    found: dict[Role, Path] = {
        role: folder / name for role, name in OFFICIAL_FILES.items() if (folder / name).is_file()
    }
    is_pipeline = (folder / "model_index.json").is_file()
    if not found and not is_pipeline:
        raise InputError(
            f"{name_or_folder} holds no weights of this model: expected a pipeline folder (with model_index.json) or "
            f"the files {' and '.join(OFFICIAL_FILES.values())}; download those from {_address(OFFICIAL_REPOSITORY)}"
        )
    if from_hub:
        files = folder.rglob("*.safetensors") if is_pipeline else found.values()
        book.require_same(name_or_folder, {str(p.relative_to(folder)): p for p in sorted(files)}, track)
    return folder if is_pipeline else _converted(found, book, dtype, track)


def _downloaded(repository: str, track: Track) -> Path:
    """The folder of a repository's weights in the hub's cache."""
    wanted = [*OFFICIAL_FILES.values(), *_PIPELINE_FILES]
    with _quiet_hub(track):
        try:
            return Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted))
        except Exception as error:  # the errors of network libraries have no base in common
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            views, back = OFFICIAL_FILES.values()
            raise InputError(
                f"The weights {repository} cannot be downloaded ({reason}); download {views} and {back} from "
                f"{_address(repository)} on a machine with a network, put both into one folder and give that folder in "
                f"place of the name, or convert them once: dp360 convert --official FOLDER/{views} "
                f"--back-head FOLDER/{back} --output DIR"
            ) from error


def _address(repository: str) -> str:
    return f"https://huggingface.co/{repository}"


def _converted(found: dict[Role, Path], book: _HashBook, dtype: torch.dtype, track: Track) -> Path:
    """The cached conversion of official files, made where there is none."""
    hashes = {role: book.sha256_of(path, track) for role, path in found.items()}
    name = "-".join([*(f"{role}-{sha256[:16]}" for role, sha256 in hashes.items()), DTYPE_NAMES[dtype]])
    name += f"-v{_CONVERSION_FORMAT}"
    output = book.cache / name
    if not (output / CONVERSION_RECORD).is_file():
        known = {path: hashes[role] for role, path in found.items()}
        views, back = found.get("views"), found.get("back")
        convert_release(output, views_model=views, back_model=back, dtype=dtype, known_sha256=known, track=track)
    return output


@dataclass(frozen=True)
class _HashBook:
    """A JSON file in the cache with hashes: of the hub's files for good, of other files while they are unchanged."""

    cache: Path

    @property
    def path(self) -> Path:
        return self.cache / "hashes.json"

    def _read(self) -> dict[str, dict]:
        try:
            kept = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
            return {"hub": {}, "files": {}, **kept}
        except ValueError as error:
            raise InputError(
                f"{self.path} is not JSON any more; delete it, the files are then hashed as on first use"
            ) from error

    def _write(self, content: dict[str, dict]) -> None:
        write_bytes_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def sha256_of(self, path: Path, track: Track) -> str:
        """Hash of a file; remembered as long as its size and time of change stay the same."""
        place, status = str(path.resolve()), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._read()["files"].get(place)
        if known is None or known["stamp"] != stamp:
            known = {"stamp": stamp, "sha256": sha256_of_file(path, track)}
            content = self._read()
            content["files"][place] = known
            self._write(content)
        return known["sha256"]

    def require_same(self, repository: str, files: dict[str, Path], track: Track) -> None:
        """Record the hashes of a repository's files on first use, and insist on them afterwards.

        Raises:
            InputError: a file is another one than on first use.
        """
        for name, path in files.items():
            sha256 = self.sha256_of(path, track)
            content = self._read()
            recorded = content["hub"].setdefault(repository, {}).setdefault(name, sha256)
            if recorded != sha256:
                raise InputError(
                    f"{name} of {repository} is not the file that was used first: expected sha256 {recorded}, "
                    f"got {sha256}; find out why it changed, and where it should, delete its entry in {self.path}"
                )
            self._write(content)


@contextlib.contextmanager
def _quiet_hub(track: Track) -> Iterator[None]:
    """Keep the hub's own progress bars to callers who asked for progress."""
    utils = huggingface_hub.utils
    if track is not silent or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
