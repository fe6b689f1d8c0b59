"""Run a campaign by hand: `PYTHONPATH=tests python -m reliability files --count 100000`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

_SHARES = {"fit": 2, "export": 7, "views": 1}
"""Weights of commands in a campaign: the quick ones more often."""
CASES = Path(__file__).parents[3] / "shared" / "cases"


def main() -> int:
    """Read the command line, run, say what came of it; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="reliability", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    files = commands.add_parser("files", help="damaged files for every reader")
    files.add_argument("--count", type=int, default=100_000)
    files.add_argument("--only", default="", help="readers whose name has this in it")
    files.add_argument("--jobs", type=int, default=2)
    files.add_argument("--seed", type=int, default=0)
    for name, what, count in (("kills", "commands that are killed", 200), ("disks", "disks that are full", 50)):
        command = commands.add_parser(name, help=what)
        command.add_argument("--count", type=int, default=count)
        command.add_argument("--only", default="", help="commands whose name has this in it")
        command.add_argument("--seed", type=int, default=0)
    lives = commands.add_parser("lives", help="many portraits in one process")
    lives.add_argument("--images", type=Path, required=True, help="a folder of portraits")
    lives.add_argument("--count", type=int, default=50)
    lives.add_argument("--threads", type=int, default=8)
    lives.add_argument("--in-threads", type=int, default=16, help="portraits that are made in threads as well")
    given = parser.parse_args()
    if given.command == "lives":
        from .endurance import one_after_another, side_by_side

        paths = sorted(p for p in given.images.iterdir() if p.suffix.lower() in (".jpg", ".png"))[: given.count]
        heads, broken = one_after_another(paths, say)
        broken += side_by_side(paths[: given.in_threads], given.threads, heads, say)
        for sentence in broken:
            say(f"BROKEN {sentence}")
        return 1 if broken else 0
    if given.command in ("kills", "disks"):
        return interrupt(given.command, given.count, given.seed, given.only)
    if given.command == "files":
        from .files import campaign

        cases = CASES if CASES.is_dir() else None
        tally = campaign(given.count, given.seed, jobs=given.jobs, cases=cases, only=given.only, report=say)
        say(str(tally))
        return 1 if tally.findings else 0
    return 2


def interrupt(campaign: str, count: int, seed: int, only: str) -> int:
    """Kill commands, or let them run where the disk is full."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has no threads of its parent's
    from .interruptions import commands, killed_often, on_full_disks, small_disk, undisturbed

    rng, broken = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        chosen = [command for command in commands(scratch) if only in command.name]
        shares = np.array([_SHARES[command.name] for command in chosen])
        for command, of_this in zip(chosen, np.rint(count * shares / shares.sum()).astype(int)):
            whole = undisturbed(command, scratch / f"{command.name}_whole")
            if campaign == "kills":
                result = killed_often(command, whole, scratch, int(of_this), rng)
            else:
                with small_disk(scratch / f"disk_{command.name}") as disk:
                    result = on_full_disks(command, whole, disk, int(of_this), rng)
            for finding in result.findings:
                say(f"BROKEN {finding}")
            say(f"{command.name} ({whole.seconds:.1f} s, {whole.operations} file operations): {result}")
            broken += len(result.findings)
    return 1 if broken else 0


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
