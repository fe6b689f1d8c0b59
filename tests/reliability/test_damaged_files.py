"""A few thousand files of the campaign: damaged ones are read or refused with one sentence, whatever the damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dp360.exporters import splat_usd
from dp360.generation import InputError
from reliability.files import campaign, damaged, tried
from reliability.readers import Reader, all_readers, others_of, outcome_of, prepared

READERS = all_readers()
OTHERS = others_of(READERS)
PER_SHARE = 60


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_damaged_files_are_read_or_refused(reader: Reader, tmp_path: Path) -> None:
    path = prepared(reader, tmp_path)
    for data in reader.files:
        assert outcome_of(reader, path, data) == "read"
    found = list(tried(reader, range(round(PER_SHARE * reader.share)), 0, tmp_path, READERS))
    assert [finding for _, _, finding in found if finding is not None] == []
    assert "refused" in {outcome for _, outcome, _ in found}


def test_a_reader_that_lets_something_through_is_found(tmp_path: Path) -> None:
    def careless(path: Path, data: bytes) -> None:
        if len(data) % 3 == 0:
            raise KeyError("frames")
        if len(data) % 3 == 1:
            raise InputError("first line\nsecond line")

    reader = dataclasses.replace(READERS[0], read=careless)
    found = [finding for _, _, finding in tried(reader, range(60), 0, tmp_path, READERS) if finding is not None]
    assert {finding.what.split(":")[0] for finding in found} == {"KeyError", "AssertionError"}
    assert all(finding.where for finding in found)


def test_the_same_seed_damages_alike_and_another_differently() -> None:
    for reader in READERS:
        one, again, other = ([damaged(reader, k, seed, OTHERS) for k in range(8)] for seed in (0, 0, 1))
        assert one == again != other
        assert sum(data in reader.files for data in one) <= 2


def test_a_campaign_counts_every_file_in_processes_of_its_own() -> None:
    told: list[str] = []
    tally = campaign(90, 3, jobs=1, only="splats .splat", report=told.append)
    assert tally.files == sum(tally.outcomes.values()) == 90 and not tally.findings
    assert 0 < tally.outcomes["refused"] < 90 and 0 < tally.slowest_s < 60
    assert len(told) == 1 and told[0].startswith("splats .splat: 90 files")


def test_openusd_gets_no_more_memory_than_a_file_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole, *_) = next(reader for reader in READERS if reader.name == "splats .usdc").files
    assert len(splat_usd.decode(whole)[0]) == 12
    monkeypatch.setattr(splat_usd, "_SPARE_MEGABYTES", 1)
    with pytest.raises(InputError, match="cut off or damaged"):
        splat_usd.decode(whole)
