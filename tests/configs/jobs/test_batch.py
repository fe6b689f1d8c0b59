"""`dp360 batch`: one road with `dp360 run`, only what is missing, failures with their sentence, shards like one run."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from played_board import Shown

from dp360.configs import cli
from dp360.configs.example import write_example_portrait
from dp360.configs.jobs import batch_run
from dp360.configs.jobs.batch_run import Batch
from dp360.configs.jobs.manifest import part_of, plan_batch
from dp360.configs.jobs.results import RESULTS_NAME, PortraitResult, ResultsFile
from dp360.configs.jobs.workers import Reporter, WorkerPool, WorkEvent
from dp360.configs.options import HeadOptions
from dp360.generation import InputError

OPTIONS = HeadOptions(generator="prior", device="cpu")
TINY = ["--views", "4", "--size-px", "64", "--fit.iterations", "10", "--fit.start-count", "2000", "--device", "cpu"]


class InThisProcess(WorkerPool):
    """A pool without processes: a task is done when it is started."""

    _events: tuple[WorkEvent, ...] = ()
    _task: str | None = None

    @property
    def free(self) -> int:
        return int(self._task is None)

    @property
    def running(self) -> tuple[str, ...]:
        return () if self._task is None else (self._task,)

    def start(self, task: str, payload: Any) -> None:
        def tell(kind: Literal["progress", "note"]) -> Callable[[Any], None]:
            return lambda value: found.append(WorkEvent(task, kind, value))

        found: list[WorkEvent] = []
        self._task = task
        try:
            made = self.runner(payload, Reporter(tell("progress"), tell("note"), lambda: False))
            found.append(WorkEvent(task, "done", made))
        except InputError as error:
            found.append(WorkEvent(task, "refused", " ".join(str(error).split())))
        except ArithmeticError as error:
            found.append(WorkEvent(task, "crashed", str(error)))
        self._events = tuple(found)

    def events(self, timeout_s: float) -> list[WorkEvent]:
        found, self._events = self._events, ()
        self._task = None
        return list(found)


@pytest.fixture
def run(played_heads: ModuleType, tmp_path: Path) -> Callable[..., tuple[dict[str, PortraitResult], Shown]]:
    """A function: run a batch with played heads into `tmp_path / "heads"`."""

    def run_batch(
        pictures: Path,
        *,
        jobs: int = 1,
        shard: str | None = None,
        output: str = "heads",
        workers=False,
        lanes=1,
        **more,
    ):
        manifest, options, lanes = more.pop("manifest", None), more.pop("options", OPTIONS), more.pop("lanes", 1)
        items = part_of(plan_batch([str(pictures)], manifest, options), shard)
        pool, shown = (WorkerPool if workers else InThisProcess)(played_heads.play, jobs, lanes=lanes), Shown()
        try:
            results = Batch(items, tmp_path / output, **more).run(pool, shown, shown.said.append)
        finally:
            pool.close()
        return results, shown

    return run_batch


def hashes(folder: Path) -> dict[str, str]:
    """Of all files but those that tell times and orders."""
    told = ("dp360.json", RESULTS_NAME, "table.html", "played.log")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in told and path.name[0] != "."]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("jobs", "lanes"), [(2, 1), (1, 2)])
def test_each_ends_in_its_own_way_and_stops_no_other(run, make_pictures, played_heads, tmp_path, jobs, lanes):
    pictures = make_pictures("ada.png", "crashes.png", "kills.png", "kills_once.png", "refused.png", "zoe.png")
    results, shown = run(pictures, jobs=jobs, lanes=lanes, workers=True)
    statuses = {name: result.status for name, result in results.items()}
    assert statuses == {
        "ada": "done",
        "crashes": "crashed",
        "kills": "set aside",
        "kills_once": "done",
        "refused": "refused",
        "zoe": "done",
    }
    assert results["refused"].error == "refused.png: no face was found; give another picture"
    assert "SIGKILL" in (results["kills"].error or "") and "twice" in (results["kills"].error or "")
    assert (results["crashes"].error or "").endswith("ZeroDivisionError: a division by nothing")
    assert results["ada"].stages_s == {"fit": 1.5} and results["ada"].warnings == ["The head is small."]
    ply = (tmp_path / "heads" / "ada" / "head.ply").read_bytes()
    assert results["ada"].files == {"head.ply": hashlib.sha256(ply).hexdigest()}
    assert shown.progress and shown.left_s[0] is None and shown.left_s[-1] == 0
    assert {result.name for result in shown.ends} == set(results)
    page = (tmp_path / "heads" / "table.html").read_text()
    assert all(name in page for name in results) and "3 done, 1 refused, 1 error, 1 set aside" in page


@pytest.mark.parametrize(("cores", "jobs", "lanes"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (3, 2, 1), (16, 4, 2)])
def test_a_worker_works_ahead_where_it_has_a_second_core(monkeypatch, cores, jobs, lanes):
    monkeypatch.setattr(batch_run, "usable_cores", lambda: cores)
    assert batch_run.lanes_of_each(jobs) == lanes


def test_what_dies_with_another_in_its_process_is_tried_alone(played_heads, tmp_path):
    """Nobody knows which of the two was it; the second time it is known."""

    def there(*names: str) -> bool:
        end_s = time.monotonic() + 100
        while time.monotonic() < end_s and not all((tmp_path / name).exists() for name in names):
            time.sleep(0.02)
        return all((tmp_path / name).exists() for name in names)

    def ends(count: int) -> list[tuple[str, str]]:
        found, end_s = list[tuple[str, str]](), time.monotonic() + 100
        while len(found) < count and time.monotonic() < end_s:
            found += [(event.task, event.kind) for event in pool.events(0.05) if event.is_end]
        return found

    pool = WorkerPool(played_heads.play_halves, 1, lanes=2)
    try:
        for name in ("stays", "kills"):
            pool.start(name, (name, tmp_path))
        assert there("stays.second", "kills.first") and pool.free == 0
        (tmp_path / "kill").touch()
        assert ends(2) == [("stays", "died"), ("kills", "died")] and pool.free == 2
        for path in tmp_path.iterdir():
            path.unlink()
        for name in ("kills", "stays"):
            pool.start(name, (name, tmp_path))
        assert pool.running == ("kills", "stays") and pool.free == 0
        assert there("kills.first")
        assert not pool.events(0.5) and not (tmp_path / "stays.first").exists()
        (tmp_path / "kill").touch()
        assert ends(1) == [("kills", "died")]
        assert there("stays.second")
        (tmp_path / "go").touch()
        assert ends(1) == [("stays", "done")] and pool.running == ()
    finally:
        pool.close()


def test_again_does_what_is_missing_and_nothing_else(run, make_pictures, played_heads, tmp_path):
    pictures, heads = make_pictures("ada.png", "bob.png", "refused.png", "crashes.png"), tmp_path / "heads"
    run(pictures)
    lines = (heads / RESULTS_NAME).read_bytes()
    before = hashes(heads)
    (heads / "bob" / "head.ply").unlink()
    results, shown = run(pictures)
    assert played_heads.made_in(heads) == ["ada", "bob", "bob"] and hashes(heads) == before
    assert {result.name for result in shown.ends} == {"bob", "crashes"}  # an error of ours may be mended by now
    assert (heads / RESULTS_NAME).read_bytes().startswith(lines) and len(results) == 4
    assert "1 failed before" in shown.said[0]

    (heads / RESULTS_NAME).unlink()  # the heads themselves say that they are there
    results, shown = run(pictures)
    assert played_heads.made_in(heads) == ["ada", "bob", "bob"] and results["ada"].status == "done"

    _, shown = run(pictures, again=True)
    assert {result.name for result in shown.ends} == {"crashes", "refused"}


def test_other_options_another_picture_or_more_formats_make_it_anew(run, make_pictures, played_heads, tmp_path):
    pictures, heads = make_pictures("ada.png", "bob.png"), tmp_path / "heads"
    run(pictures)
    Image.new("RGB", (64, 80), (1, 2, 3)).save(pictures / "bob.png")
    run(pictures)
    assert played_heads.made_in(heads) == ["ada", "bob", "bob"]
    results, _ = run(pictures, formats=("spz",))
    assert played_heads.made_in(heads) == ["ada", "bob", "bob"]  # formats alone
    assert (heads / "ada" / "head.spz").read_bytes() == b"spz" and results["ada"].exported == ["head.spz"]
    run(pictures, options=HeadOptions(generator="prior", device="cpu", seed=4))
    assert played_heads.made_in(heads)[3:] == ["ada", "bob"]


def test_shards_together_are_one_run(run, make_pictures, tmp_path):
    pictures = make_pictures("a.png", "b.png", "c.png", "d.png", "e.png")
    whole, _ = run(pictures)
    first, _ = run(pictures, shard="1/2", output="parts")
    second, _ = run(pictures, shard="2/2", output="parts")
    assert sorted(first) == ["a", "c", "e"] and sorted(second) == ["b", "d"]
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "heads")
    read = ResultsFile(tmp_path / "parts" / RESULTS_NAME).read()
    assert {name: result.files for name, result in read.items()} == {n: r.files for n, r in whole.items()}
    strip = str(tmp_path)
    table = (tmp_path / "parts" / "table.html").read_text().replace(strip, "")
    assert table == (tmp_path / "heads" / "table.html").read_text().replace(strip, "")


def test_a_head_that_another_process_makes_is_left_to_it(run, make_pictures, tmp_path, monkeypatch):
    from dp360.configs.jobs.head_task import HeadTask, make_head
    from dp360.configs.jobs.workers import Reporter
    from dp360.configs.run_folder import exclusive_run

    write_example_portrait(tmp_path / "face.png")
    options = HeadOptions(image=(tmp_path / "face.png",), generator="prior", device="cpu")
    reporter = Reporter(lambda progress: None, lambda sentence: None, lambda: False)
    with exclusive_run(tmp_path / "out"):
        assert make_head(HeadTask(options, tmp_path / "out"), reporter) is None


def test_killed_in_the_middle(played_heads, make_pictures, tmp_path):
    """SIGKILL to the batch: its workers end with it, and the next run does the rest."""
    pictures = make_pictures("a.png", "b.png", "waits.png", "z.png")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import played_heads\n"
        "from dp360.configs import batch\n"
        "import dp360.configs.jobs.head_task as head_task\n"
        "head_task.make_head = played_heads.play\n"
        "if __name__ == '__main__':\n"
        "    from dp360.configs import cli\n"
        "    cli.main(['batch', sys.argv[2], '--output', sys.argv[3], '--generator', 'prior', '--device', 'cpu'])\n"
    )
    (tmp_path / "main.py").write_text(script)
    modules, heads = str(Path(str(played_heads.__file__)).parent), tmp_path / "heads"
    words = [sys.executable, str(tmp_path / "main.py"), modules, str(pictures), str(heads)]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
    end_s = time.monotonic() + 100
    while played_heads.made_in(heads) != ["a", "b"] and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert played_heads.made_in(heads) == ["a", "b"], (tmp_path / "said.txt").read_text()
    with (heads / RESULTS_NAME).open("ab") as file:
        file.write(b'{"name": "waits", "sta')  # as a kill in the middle of a line leaves it
    (heads / "go").touch()
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert played_heads.made_in(heads) == ["a", "b", "waits", "z"]
    assert set(ResultsFile(heads / RESULTS_NAME).read()) == {"a", "b", "waits", "z"}
    assert f"wrote {heads / 'table.html'}" in done.stdout and "4 heads in" in done.stdout


def test_a_real_batch_makes_what_run_makes(tmp_path, capsys):
    """One portrait, an empty file and one without a face, with the real stages; the head is that of `dp360 run`."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    write_example_portrait(pictures / "ada.png")
    (pictures / "empty.jpg").touch()
    Image.fromarray(np.full((96, 96, 3), (90, 120, 200), np.uint8)).save(pictures / "sky.png")
    huge = b"BM" + (54 + 3).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    huge += (50_000).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(27)
    (pictures / "huge.bmp").write_bytes(huge)
    heads = tmp_path / "heads"
    assert cli.main(["batch", str(pictures), "--output", str(heads), "--export", "spz", *TINY]) == 0
    read = ResultsFile(heads / RESULTS_NAME).read()
    assert {name: result.status for name, result in read.items()} == {
        "ada": "done",
        "empty": "refused",
        "huge": "refused",
        "sky": "refused",
    }
    assert "empty" in str(read["empty"].error) and "100 megapixels" in str(read["huge"].error)
    assert "no face" in str(read["sky"].error)
    assert "1 heads in" in capsys.readouterr().out
    assert read["ada"].peak_memory_bytes and read["ada"].exported == ["head.spz"]

    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # as workers have them: sums depend on it
    try:
        cli.main(["run", str(pictures / "ada.png"), "--output", str(tmp_path / "single"), *TINY])
    finally:
        torch.set_num_threads(threads)
    single, of_batch = hashes(tmp_path / "single"), hashes(heads / "ada")
    assert of_batch.pop("head.spz") and of_batch == single and len(single) > 15
    assert json.loads((heads / "ada" / "dp360.json").read_text())["files"] == read["ada"].files
    assert (heads / "table" / "ada.jpg").is_file()
