"""`dp360 batch`: heads of many portraits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from .cluster import ClusterConfig
from .console import Display, Outcome, batch_board
from .options import HeadOptions


@dataclass(frozen=True)
class BatchCommand(HeadOptions):
    """Make heads of many portraits: dp360 batch 'in/*.jpg' --output heads.

    Each portrait gets a folder with what dp360 run makes. The output folder also gets results.jsonl (a line for each
    portrait that ended) and table.html (a table of all with pictures and links, which works offline). The same command
    again makes what is missing and nothing else.
    """

    portraits: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PORTRAITS")] = ()
    """Pictures, folders of pictures, or patterns in quotes such as 'in/*.jpg'."""
    output: Path = Path("heads")
    """Folder for the heads."""
    manifest: Path | None = None
    """A table (.csv) of portraits with options for each: the column portrait, and any of name, seed, face, crop,
    quality, generator, light, matte, no_face, no_glasses. It is checked as a whole before the first head."""
    export: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Further formats for every head, by their endings: --export spz html."""
    jobs: int = 1
    """Worker processes, of 2 to 3 GB of memory each. A worker with two or more cores begins the next head while it
    finishes one."""
    shard: str | None = None
    """Only every n-th portrait, from the k-th on: 3/16. All shards together, also on several machines with one shared
    output folder, make what one run makes."""
    again: bool = False
    """Also try those that failed before."""
    ray: str | None = None
    """Give the work to Ray (extra dp360[cluster]): local starts it on this machine, auto or an address joins a running
    cluster. --jobs then is how many heads are on their way at once."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """With --ray: cores and GPUs that each part of a head takes."""


def run(command: BatchCommand, display: Display) -> Outcome:
    """Make what is missing; a portrait that fails stands in the table and stops nothing.

    Raises:
        InputError: no portraits, something in the manifest is wrong, or the folder cannot be written.
    """
    from dp360.generation import InputError

    from .jobs.batch_run import Batch, lanes_of_each, threads_of_each
    from .jobs.head_task import make_head
    from .jobs.manifest import part_of, plan_batch
    from .jobs.ray_pool import RayPool
    from .jobs.table import TABLE_NAME
    from .jobs.workers import WorkerPool
    from .view_generators import settled

    if not 1 <= command.jobs <= 4096:
        raise InputError(f"Cannot start: expected --jobs from 1 to 4096, got {command.jobs}")
    if command.ray is None and command.cluster != ClusterConfig():
        raise InputError("Cannot start: --cluster options are for --ray; add --ray local, --ray auto or its address")
    command.cluster.check()
    options = HeadOptions(**{f.name: getattr(command, f.name) for f in fields(HeadOptions)})
    items = part_of(plan_batch(command.portraits, command.manifest, options), command.shard)
    folder = command.output.expanduser()
    formats = tuple(ending.lstrip(".").lower() for given in command.export for ending in given)
    batch = Batch(items, folder, formats, command.again)
    pool = (
        WorkerPool(make_head, command.jobs, threads_of_each(command.jobs), lanes_of_each(command.jobs))
        if command.ray is None
        else RayPool(command.ray, command.cluster, command.jobs)
    )
    try:
        with batch_board() as board:
            settled(options, board.note)  # said once, not for each portrait
            results = batch.run(pool, board, board.note)
    finally:
        pool.close()
    failed = [result for result in results.values() if result.status != "done"]
    there = f"{len(results) - len(failed)} heads in {folder}"
    without = f", {len(failed)} portraits without one: see the table" if failed else ""
    return folder / TABLE_NAME, there + without
