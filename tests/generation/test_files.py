"""Writing whole or not at all: what was there before survives every failure, and failures are one sentence."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dp360.generation import InputError, files
from dp360.generation.files import directory_written_atomically, write_bytes_atomically


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_bytes_arrive_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "head.ply"
    write_bytes_atomically(path, b"\x00ply")
    assert path.read_bytes() == b"\x00ply"
    write_bytes_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["new", "new/folder", "new/folder/head.ply"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_faces_are_as_private_as_the_umask_asks(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes_atomically(tmp_path / "head.ply", b"1")
        with directory_written_atomically(tmp_path / "dataset") as folder:
            assert mode(folder) == 0o700
        (tmp_path / "plain").touch()
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert mode(tmp_path / "head.ply") == mode(tmp_path / "plain") == 0o666 & ~umask
    assert mode(tmp_path / "dataset") == 0o777 & ~umask


def test_a_new_version_keeps_the_mode_of_the_earlier_one(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / "head.ply", b"1")
    write_folder(tmp_path / "dataset")
    (tmp_path / "head.ply").chmod(0o640)
    (tmp_path / "dataset").chmod(0o500)
    write_bytes_atomically(tmp_path / "head.ply", b"2")
    write_folder(tmp_path / "dataset")
    assert mode(tmp_path / "head.ply") == 0o640 and mode(tmp_path / "dataset") == 0o500


def mode(path: Path) -> int:
    """The permissions of a file or folder."""
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "the disk is broken"), KeyboardInterrupt()], ids=["io", "ctrl-c"])
def test_the_earlier_file_survives_an_error(tmp_path: Path, monkeypatch, step: str, error: BaseException) -> None:
    path = tmp_path / "head.ply"
    path.write_bytes(b"earlier")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        write_bytes_atomically(path, b"later")
    assert path.read_bytes() == b"earlier" and names(tmp_path) == ["head.ply"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk is full; free some space"),
        (errno.EROFS, "the file system is read-only; choose another output folder"),
        (errno.EACCES, "permission denied; choose another output folder, one you may"),
        (errno.EPERM, "permission denied; choose another output folder, one you may"),
    ],
)
def test_refusals_of_the_system_become_a_sentence(tmp_path: Path, monkeypatch, number: int, message: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    for write in (lambda path: write_bytes_atomically(path, b"1"), write_folder):
        with pytest.raises(InputError, match=f"Cannot write {tmp_path / 'out'}: {message}"):
            write(tmp_path / "out")
    assert names(tmp_path) == []


def write_folder(path: Path) -> None:
    """A folder with one file of half a megabyte, then one more."""
    with directory_written_atomically(path) as folder:
        (folder / "a.bin").write_bytes(b"a" * 500_000)
        (folder / "b.bin").write_bytes(b"b" * 700_000)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_one_may_not_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match="permission denied"):
            write_bytes_atomically(tmp_path / "head.ply", b"1")
    finally:
        tmp_path.chmod(0o755)


def test_a_real_full_disk(make_disk: Callable[[str], Path]) -> None:
    full_disk = make_disk("size=1m")
    (full_disk / "head.ply").write_bytes(b"earlier")
    with pytest.raises(InputError, match="the disk is full"):
        write_bytes_atomically(full_disk / "head.ply", b"x" * 2_000_000)
    with pytest.raises(InputError, match="the disk is full"):
        write_folder(full_disk / "dataset")
    assert (full_disk / "head.ply").read_bytes() == b"earlier" and names(full_disk) == ["head.ply"]


def test_a_real_read_only_file_system(make_disk: Callable[[str], Path]) -> None:
    read_only = make_disk("ro")
    for path in (read_only / "head.ply", read_only / "new" / "head.ply"):
        with pytest.raises(InputError, match="the file system is read-only"):
            write_bytes_atomically(path, b"1")
        with pytest.raises(InputError, match="the file system is read-only"):
            write_folder(path)


@pytest.mark.parametrize("below", ["out", "deep/out"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    for write in (lambda path: write_bytes_atomically(path, b"1"), write_folder):
        with pytest.raises(InputError, match="a file stands where a folder is needed; move it away"):
            write(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == ["file"]


def test_a_folder_where_a_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / "head.ply").mkdir()
    (tmp_path / "head.ply" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"head\.ply: a folder stands where a file is needed; move it away"):
        write_bytes_atomically(tmp_path / "head.ply", b"1")
    assert names(tmp_path) == ["head.ply", "head.ply/mine.txt"]


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "dataset").write_text("mine")
    with pytest.raises(InputError, match="dataset: a file stands where a folder is needed"):
        write_folder(tmp_path / "dataset")
    assert (tmp_path / "dataset").read_text() == "mine" and names(tmp_path) == ["dataset"]


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with directory_written_atomically(tmp_path / "new" / "dataset") as folder:
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_bytes(b"1")
        assert not (tmp_path / "new" / "dataset").exists()
    assert names(tmp_path / "new") == ["dataset", "dataset/images", "dataset/images/a.png"]


def test_a_folder_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "dataset")
    with directory_written_atomically(tmp_path / "dataset") as folder:
        (folder / "c.bin").write_bytes(b"c")
        assert names(tmp_path / "dataset") == ["a.bin", "b.bin"]
    assert names(tmp_path) == ["dataset", "dataset/c.bin"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_earlier_folder_survives_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    write_folder(tmp_path / "dataset")
    with pytest.raises(error), directory_written_atomically(tmp_path / "dataset") as folder:
        (folder / "half.bin").write_bytes(b"half")
        raise error
    assert names(tmp_path) == ["dataset", "dataset/a.bin", "dataset/b.bin"]


@pytest.fixture
def in_two_steps(monkeypatch) -> None:
    """A system on which two names cannot change places at once."""
    monkeypatch.setattr(files, "exchanged_in_one_step", lambda *_: False)


def test_folders_change_places_in_one_step_where_the_system_can(tmp_path: Path, monkeypatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has renameat2")
    write_folder(tmp_path / "dataset")
    refusing("replace", errno.EIO, monkeypatch)
    with directory_written_atomically(tmp_path / "dataset") as folder:
        (folder / "c.bin").write_bytes(b"c")
    assert names(tmp_path) == ["dataset", "dataset/c.bin"]


def test_what_killed_processes_have_left_goes_and_the_earlier_folder_comes_back(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive, machine = int(gone.stdout), os.getpid(), files._MACHINE
    (tmp_path / f".dp360-{dead}-{machine}-ab_1.tmp").write_bytes(b"half a file")
    write_folder(tmp_path / f".dp360-{dead}-{machine}-cd_2.tmp")
    write_folder(tmp_path / f".dp360-{dead}-{machine}-ef_3.old.tmp" / "dataset")
    kept = [f".dp360-{alive}-{machine}-gh_4.tmp", f".dp360-{dead}-0000-ij_5.tmp", ".dp360-mine.tmp"]
    for name in kept:
        (tmp_path / name).touch()
    assert files.remove_left_over(tmp_path) == 3
    assert names(tmp_path) == sorted([*kept, "dataset", "dataset/a.bin", "dataset/b.bin"])
    assert files.remove_left_over(tmp_path / "missing") == 0


def test_the_earlier_folder_survives_an_error_in_the_exchange(tmp_path: Path, monkeypatch, in_two_steps) -> None:
    write_folder(tmp_path / "dataset")
    replace = os.replace

    def fail_on_the_new_one(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.EIO, "the disk is broken")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_the_new_one)
    with pytest.raises(OSError, match="the disk is broken"), directory_written_atomically(tmp_path / "dataset"):
        pass
    assert names(tmp_path) == ["dataset", "dataset/a.bin", "dataset/b.bin"]


def refusing(call: str, number: int, monkeypatch) -> None:
    """Let a call of the operating system fail, as where the file system does not offer it."""

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("fsync", errno.EINVAL),
        ("fsync", errno.ENOTSUP),
        ("fsync", errno.ENOSYS),
        ("chmod", errno.EPERM),
        ("chmod", errno.ENOTSUP),
        ("chmod", errno.EACCES),
    ],
)
def test_what_a_file_system_does_not_offer_is_done_without(tmp_path: Path, monkeypatch, call: str, number: int) -> None:
    refusing(call, number, monkeypatch)
    write_bytes_atomically(tmp_path / "head.ply", b"1")
    write_folder(tmp_path / "dataset")
    assert (tmp_path / "head.ply").read_bytes() == b"1"
    assert names(tmp_path) == ["dataset", "dataset/a.bin", "dataset/b.bin", "head.ply"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY, errno.EPERM, errno.ETXTBSY])
def test_files_that_cannot_be_renamed_over_are_overwritten(
    tmp_path: Path, monkeypatch, in_two_steps, number: int
) -> None:
    """As on network shares, while somebody has the earlier file open."""
    (tmp_path / "head.ply").write_bytes(b"earlier and longer")
    write_folder(tmp_path / "dataset")
    (tmp_path / "dataset" / "old").mkdir()
    (tmp_path / "dataset" / "old" / "c.bin").touch()
    refusing("replace", number, monkeypatch)
    write_bytes_atomically(tmp_path / "head.ply", b"later")
    with directory_written_atomically(tmp_path / "dataset") as folder:
        (folder / "b.bin").write_bytes(b"new")
    assert (tmp_path / "head.ply").read_bytes() == b"later"
    assert names(tmp_path) == ["dataset", "dataset/b.bin", "head.ply"]
    assert (tmp_path / "dataset" / "b.bin").read_bytes() == b"new"


def test_links_are_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    (tmp_path / "head.ply").symlink_to(elsewhere / "real.ply")
    (tmp_path / "dataset").symlink_to(elsewhere / "data")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for content in (b"1", b"2"):
        write_bytes_atomically(tmp_path / "head.ply", content)
        write_folder(tmp_path / "dataset")
    assert (tmp_path / "head.ply").is_symlink() and (tmp_path / "dataset").is_symlink()
    assert names(elsewhere) == ["data", "data/a.bin", "data/b.bin", "real.ply"]
    assert (elsewhere / "real.ply").read_bytes() == b"2"
    for write in (lambda path: write_bytes_atomically(path, b"1"), write_folder):
        with pytest.raises(InputError, match="round in a circle"):
            write(tmp_path / "round")


def test_names_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / f"{'é' * 125}a.ply", b"1")
    write_folder(tmp_path / ("d" * 255))
    assert len(list(tmp_path.iterdir())) == 2
    for write in (lambda path: write_bytes_atomically(path, b"1"), write_folder):
        with pytest.raises(InputError, match="longer than the file system takes"):
            write(tmp_path / ("d" * 256))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_vanishes(tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "share"
    with pytest.raises(InputError, match="went away while it was written to"):
        with directory_written_atomically(place / "dataset") as folder:
            (folder / "a.bin").write_bytes(b"a")
            shutil.rmtree(place)
    real = os.fsync

    def unplugged(handle: int) -> None:
        real(handle)
        shutil.rmtree(place)

    monkeypatch.setattr(os, "fsync", unplugged)
    with pytest.raises(InputError, match="went away while it was written to"):
        write_bytes_atomically(place / "head.ply", b"1")


def test_pipes_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_bytes_atomically(tmp_path / "pipe", b"ply")
        assert os.read(reader, 10) == b"ply"
    finally:
        os.close(reader)


def test_used_up_inodes_are_no_full_disk(make_disk: Callable[[str], Path]) -> None:
    disk = make_disk("size=1m,nr_inodes=4")
    with pytest.raises(InputError, match="inodes are used up"):
        for number in range(9):
            write_bytes_atomically(disk / f"{number}.ply", b"1")
