"""From a name to a pipeline folder, with the hub replaced by a folder and conversions by a note of what was asked."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import LocalEntryNotFoundError

from dp360.generation import InputError
from dp360.generation.diffusion.release import download
from dp360.generation.diffusion.release.conversion import CONVERSION_RECORD
from dp360.generation.diffusion.release.download import OFFICIAL_FILES, OFFICIAL_REPOSITORY, resolve_weights


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Every conversion asked for; each leaves a folder that holds the names of its sources."""
    asked: list[dict] = []

    def convert(output: Path, **options) -> None:
        asked.append(options)
        output.mkdir(parents=True)
        (output / "model_index.json").write_text("{}")
        (output / CONVERSION_RECORD).write_text("{}")

    monkeypatch.setattr(download, "convert_release", convert)
    return asked


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that plays the hub: files of a repository lie under its name."""
    root = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **_: str(root / repository))
    return root


def put(folder: Path, *names: str) -> None:
    """Small files in the place of weights."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_a_pipeline_folder_is_used_as_it_is(conversions: list, tmp_path: Path) -> None:
    put(tmp_path / "mine", "model_index.json", *OFFICIAL_FILES.values())
    assert resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache") == tmp_path / "mine"
    assert not conversions and not (tmp_path / "cache").exists()


def test_a_folder_with_the_official_files_is_converted_once(conversions: list, tmp_path: Path) -> None:
    put(tmp_path / "mine", *OFFICIAL_FILES.values())
    first = resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache")
    assert resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache") == first
    assert first.parent == tmp_path / "cache" and (first / "model_index.json").is_file()
    assert len(conversions) == 1
    assert conversions[0]["views_model"] == tmp_path / "mine" / "model_state-340000.th"
    assert conversions[0]["back_model"] == tmp_path / "mine" / "back_head-230000.th"

    other_type = resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache", dtype=torch.float16)
    (tmp_path / "mine" / "back_head-230000.th").write_bytes(b"trained on")
    other_file = resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache")
    assert len(conversions) == 3 and len({first, other_type, other_file}) == 3


def test_one_official_file_is_enough(conversions: list, tmp_path: Path) -> None:
    put(tmp_path / "mine", OFFICIAL_FILES["back"])
    resolve_weights(str(tmp_path / "mine"), cache=tmp_path / "cache")
    assert conversions[0]["views_model"] is None and conversions[0]["back_model"] is not None


def test_what_is_downloaded_is_converted_and_its_hashes_are_kept(conversions: list, hub: Path, tmp_path: Path) -> None:
    put(hub / OFFICIAL_REPOSITORY, *OFFICIAL_FILES.values())
    cache = tmp_path / "cache"
    folder = resolve_weights(OFFICIAL_REPOSITORY, cache=cache)
    assert resolve_weights(OFFICIAL_REPOSITORY, cache=cache) == folder and len(conversions) == 1
    recorded = json.loads((cache / "hashes.json").read_text())["hub"][OFFICIAL_REPOSITORY]
    assert recorded.keys() == set(OFFICIAL_FILES.values()) and all(len(digest) == 64 for digest in recorded.values())
    assert set(conversions[0]["known_sha256"].values()) == set(recorded.values())

    changed = hub / OFFICIAL_REPOSITORY / OFFICIAL_FILES["views"]
    changed.write_bytes(b"something else")
    expected = recorded[changed.name]
    with pytest.raises(
        InputError, match=f"{changed.name} of {OFFICIAL_REPOSITORY} .*sha256 {expected}, got [0-9a-f]+;"
    ):
        resolve_weights(OFFICIAL_REPOSITORY, cache=cache)
    assert len(conversions) == 1


def test_a_pipeline_on_the_hub_needs_no_conversion(conversions: list, hub: Path, tmp_path: Path) -> None:
    files = ("model_index.json", "unet/diffusion_pytorch_model.safetensors")
    put(hub / "someone" / "heads", *files)
    assert resolve_weights("someone/heads", cache=tmp_path / "cache") == hub / "someone" / "heads"
    (hub / "someone" / "heads" / files[1]).write_bytes(b"trained on")
    with pytest.raises(InputError, match=r"unet/diffusion_pytorch_model\.safetensors of someone/heads is not the file"):
        resolve_weights("someone/heads", cache=tmp_path / "cache")
    assert not conversions


def test_a_repository_of_something_else_is_named(hub: Path, tmp_path: Path) -> None:
    put(hub / "someone" / "poems", "README.md")
    with pytest.raises(InputError, match=r"someone/poems holds no weights of this model: expected a pipeline folder"):
        resolve_weights("someone/poems", cache=tmp_path / "cache")


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no network"), ConnectionError("no network")])
def test_without_a_network_one_sentence_says_what_to_do(error: Exception, monkeypatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError) as caught:
        resolve_weights(OFFICIAL_REPOSITORY, cache=tmp_path)
    message = str(caught.value)
    for part in (
        "https://huggingface.co/gym890/diffportrait360",
        "model_state-340000.th and back_head-230000.th",
        "(no network)",
        "dp360 convert --official FOLDER/model_state-340000.th --back-head FOLDER/back_head-230000.th --output DIR",
    ):
        assert part in message
    assert "\n" not in message


def test_what_is_neither_a_folder_nor_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.th").touch()
    with pytest.raises(InputError, match="empty holds no weights"):
        resolve_weights(str(tmp_path / "empty"), cache=tmp_path)
    with pytest.raises(InputError, match="this is a file"):
        resolve_weights(str(tmp_path / "weights.th"), cache=tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        resolve_weights(str(tmp_path / "absent"), cache=tmp_path)


def test_a_record_that_was_damaged_is_said(conversions: list, tmp_path: Path) -> None:
    put(tmp_path / "mine", OFFICIAL_FILES["back"])
    (tmp_path / "hashes.json").write_text("{")
    with pytest.raises(InputError, match=r"hashes\.json is not JSON any more; delete it"):
        resolve_weights(str(tmp_path / "mine"), cache=tmp_path)


def test_progress_bars_of_the_hub_stay_silent_unless_asked_for(hub: Path, monkeypatch, conversions, tmp_path) -> None:
    put(hub / OFFICIAL_REPOSITORY, OFFICIAL_FILES["back"])
    seen = []
    whole = huggingface_hub.snapshot_download

    def watched(repository: str, **options) -> str:
        seen.append(huggingface_hub.utils.are_progress_bars_disabled())
        return whole(repository, **options)

    def shown(sequence, *, total, description):
        return sequence

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    resolve_weights(OFFICIAL_REPOSITORY, cache=tmp_path / "cache")
    resolve_weights(OFFICIAL_REPOSITORY, cache=tmp_path / "cache", track=shown)
    assert seen == [True, False]
