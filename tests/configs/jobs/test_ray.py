"""`dp360 batch --ray`: what processes make, Ray makes; killed workers are replaced; files travel where asked."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from played_board import Shown

from dp360.configs import cli
from dp360.configs.cluster import ClusterConfig
from dp360.configs.example import write_example_portrait
from dp360.configs.jobs.batch_run import Batch
from dp360.configs.jobs.head_task import HeadTask, make_head
from dp360.configs.jobs.manifest import plan_batch
from dp360.configs.jobs.ray_parts import PARTS, KeptGenerator, PartTask, arrived, files_of, run_part, write_files
from dp360.configs.jobs.ray_pool import RayPool
from dp360.configs.jobs.workers import Reporter, WorkerPool
from dp360.configs.options import FitOptions, HeadOptions
from dp360.generation import InputError

ray = pytest.importorskip("ray", reason="dp360[cluster] is not installed")
OPTIONS = HeadOptions(generator="prior", device="cpu")
NAMES = ("ada.png", "bo.png", "crashes.png", "kills.png", "kills_once.png", "refused.png", "waits.png")


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A Ray with two cores for all tests that need one; it finds the played heads."""
    folder = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()


@pytest.fixture
def ray_pool(one_ray: None, played_heads: ModuleType) -> Iterator[Callable[..., RayPool]]:
    """Makes pools of played heads; they are closed at the end."""
    pools: list[RayPool] = []

    def make(**changes: Any) -> RayPool:
        pools.append(RayPool("local", ClusterConfig(**changes), 4, played_heads.play_part))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def listener(told: list[Any]) -> Reporter:
    return Reporter(told.append, told.append, lambda: False)


@pytest.mark.slow
def test_every_end_is_written_down_and_a_killed_worker_is_replaced(tmp_path, make_pictures, ray_pool):
    items = plan_batch((str(make_pictures(*NAMES)),), None, OPTIONS)
    folder, shown = tmp_path / "heads", Shown()
    folder.mkdir()
    (folder / "go").touch()  # `waits` need not
    results = Batch(items, folder).run(ray_pool(), shown, shown.said.append)
    assert {name: result.status for name, result in results.items()} == {
        "ada": "done",
        "bo": "done",
        "crashes": "crashed",
        "kills": "set aside",
        "kills_once": "done",
        "refused": "refused",
        "waits": "done",
    }
    assert "its process ended" in str(results["kills"].error) and any("tried once more" in s for s in shown.said)
    assert results["ada"].seconds == pytest.approx(0.5 * len(PARTS)), "the seconds of all parts"
    ran = (folder / "parts.log").read_text().splitlines()
    assert [line.split()[0] for line in ran if line.endswith(" ada")] == list(PARTS)
    assert all((folder / "bo" / f"{part}.txt").is_file() for part in PARTS)


def test_files_travel_where_folders_are_not_shared(tmp_path, make_pictures, ray_pool):
    items = plan_batch((str(make_pictures("ada.png", "bo.png")),), None, OPTIONS)
    shown = Shown()
    shared, returned = tmp_path / "shared", tmp_path / "returned"
    Batch(items, shared).run(ray_pool(), shown, shown.said.append)
    Batch(items, returned).run(ray_pool(files="returned"), shown, shown.said.append)
    assert not (returned / "parts.log").exists(), "nothing was done in the folder itself"
    for name in ("ada", "bo"):
        assert files_of(shared / name) == files_of(returned / name), (
            "the record too names the portrait that was asked for"
        )
        assert (returned / name / "dp360.json").is_file() and (returned / name / "prepare.txt").is_file()


def test_a_head_is_cancelled(tmp_path, make_pictures, ray_pool):
    portrait = make_pictures("waits.png") / "waits.png"
    pool, ended, last_s = ray_pool(), [], time.monotonic() + 60
    pool.start("waits", HeadTask(replace(OPTIONS, image=(portrait,)), tmp_path / "waits"))
    pool.cancel("waits")
    while pool.running and time.monotonic() < last_s:
        ended += [event for event in pool.events(0.2) if event.is_end]
    assert [event.kind for event in ended] == ["cancelled"]


def test_few_heads_wait_before_each_part():
    pool = RayPool("local", ClusterConfig(waiting=3), jobs=100)
    assert pool.free == 3
    assert RayPool("local", ClusterConfig(waiting=3), jobs=2).free == 2


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--ray", "local", "--cluster.fit-gpus", "3"], "--cluster.fit-gpus asks for 3, and the cluster has 0"),
        (["--cluster.fit-cpus", "2"], "--cluster options are for --ray"),
        (["--ray", "local", "--cluster.waiting", "0"], "--cluster.waiting: expected 1 to 4096, got 0"),
    ],
)
def test_what_no_cluster_can_do_is_said_at_once(one_ray, tmp_path, make_pictures, capsys, options, sentence):
    folder = make_pictures("ada.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", str(folder), "--output", str(tmp_path / "heads"), *options])
    assert ended.value.code not in (0, None)
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "heads" / "ada").exists()


def test_no_cluster_there(monkeypatch):
    def nobody(address: str, **_: object) -> None:
        raise ConnectionError(f"Could not find any running Ray instance at\n {address}.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(InputError, match=r"no Ray at --ray 10.0.0.9:6379 \(Could not find .* start a cluster with"):
        RayPool("10.0.0.9:6379").start("ada", HeadTask(OPTIONS, Path("heads/ada")))


def test_what_a_part_runs_into_is_told_and_not_raised(tmp_path):
    (tmp_path / "ada.png").write_bytes(b"no picture")
    head = HeadTask(replace(OPTIONS, image=(tmp_path / "ada.png",)), tmp_path / "head")
    done = run_part("prepare", PartTask("ada", head, 1), listener([]), None, KeptGenerator())
    assert done.is_whole and done.event.kind == "refused" and "ada.png" in done.event.value
    travelling = PartTask("ada", head, 1, b"no picture", {"earlier.txt": b"kept"})
    done = run_part("prepare", travelling, listener([]), None, KeptGenerator())
    assert done.event.kind == "refused" and done.files == {"earlier.txt": b"kept"}


def test_files_that_travel_stay_in_their_folder(tmp_path):
    write_files({"dp360.json": b"{}", "dataset/images/a.png": b"a"}, tmp_path / "head")
    assert files_of(tmp_path / "head") == {"dp360.json": b"{}", "dataset/images/a.png": b"a"}
    with pytest.raises(InputError, match="leads out"):
        write_files({"../elsewhere": b"x"}, tmp_path / "head")
    assert not (tmp_path / "elsewhere").exists()
    task = HeadTask(replace(OPTIONS, image=(Path("mine.png"),)), tmp_path / "head")
    files = {"dp360.json": b'{"command": {"image": ["/copy.png"]}}', ".dp360.job/job.json": b"{}", "head.ply": b"ply"}
    kept = arrived(files, task)
    assert sorted(kept) == ["dp360.json", "head.ply"] and b"mine.png" in kept["dp360.json"]


@pytest.mark.slow
@pytest.mark.parametrize("files", ["shared", "returned"])
def test_the_bytes_are_those_of_processes(tmp_path, files):
    """A painted portrait twice, small views, a short fit: portrait and prior are the real ones."""
    for name in ("ada.png", "bo.png"):
        write_example_portrait(tmp_path / name)
    fit = FitOptions(iterations=20, start_count=2000)
    options = replace(OPTIONS, views=4, size_px=64, fit=fit)
    items = plan_batch((str(tmp_path),), None, options)
    shown, plain, on_ray = Shown(), tmp_path / "plain", tmp_path / "ray"
    for folder, pool in (
        (plain, WorkerPool(make_head, 1)),
        (on_ray, RayPool("local", ClusterConfig(files=files), 2)),
    ):
        try:
            results = Batch(items, folder).run(pool, shown, shown.said.append)
        finally:
            pool.close()
        assert {result.status for result in results.values()} == {"done"}
    for item in items:
        first, second = (
            {k: hashlib.sha256(v).hexdigest() for k, v in files_of(f / item.name).items()} for f in (plain, on_ray)
        )
        assert first.keys() == second.keys() and len(first) > 10
        assert {k for k in first if first[k] != second[k]} <= {"dp360.json"}, "it holds seconds"
    assert not any("earlier run" in sentence for sentence in shown.said)
