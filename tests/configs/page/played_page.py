"""Plays what the workers of a page do: a head of a few hundred splats, or what the portrait's name says."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from dp360.configs.jobs.head_task import HeadMade, HeadTask, export_formats, missing_formats
from dp360.configs.jobs.progress import JobCancelled, Progress, expected_stage_s
from dp360.configs.jobs.workers import Reporter
from dp360.configs.page.tasks import FRONT_NAME, THUMBNAIL_NAME, Look, LookTask
from dp360.exporters import splat_ply
from dp360.exporters.head_files import PORTRAIT_NAME, SHEET_NAME
from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

ORIGIN = Provenance("prior", "none", 7, "ab" * 32, "0.1.0")


def ball() -> Splats:
    """Red, green and blue blobs to the right, above and in front, on a grey ball."""
    generator = torch.Generator().manual_seed(0)
    means = 0.2 * torch.nn.functional.normalize(torch.randn(600, 3, generator=generator), dim=-1)
    colours = torch.zeros(600, 3)
    means[0], means[1], means[2] = torch.tensor([0.3, 0, 0]), torch.tensor([0, 0.3, 0]), torch.tensor([0, 0, 0.3])
    colours[:3] = 4 * torch.eye(3) - 1.7
    scales = torch.full((600, 3), -3.6)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(600, 4).clone()
    return Splats(means, scales, quats, torch.full((600,), 4.0), colours, torch.zeros(600, 0, 3))


def look(task: LookTask, reporter: Reporter) -> Look:
    """Two faces, if the picture opens; a red one has none, a black one ends the process."""
    try:
        picture = Image.open(task.portrait).convert("RGB")
    except OSError:
        raise InputError(f"{task.portrait}: not a picture in a known format, whatever its name says") from None
    if picture.getpixel((0, 0)) == (0, 0, 0):
        os.kill(os.getpid(), signal.SIGSEGV)
    picture.save(task.preview)
    if picture.getpixel((0, 0)) == (255, 0, 0):
        return Look([], False, ["No face is seen."])
    return Look([[0.1, 0.2, 0.3, 0.4], [0.6, 0.3, 0.2, 0.25]], True, [])


def make(task: HeadTask, reporter: Reporter) -> HeadMade | None:
    """A head; seed 1 is refused, seed 2 crashes, seed 3 ends the process, seed 4 waits for the file `go` beside it."""
    folder, seed = task.folder, task.options.seed
    if seed == 1:
        raise InputError(f"{task.options.portrait}: nothing in it looks like a head; give another picture")
    if seed == 2:
        raise ZeroDivisionError("a division by nothing")
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    reporter.hear(Progress("fit", "Fitting splats", 0.5, 0.6, 30.0, 25.0))
    go = folder.parents[2] / "go"
    while seed == 4 and not go.exists():
        if reporter.is_cancelled():
            raise JobCancelled
        time.sleep(0.02)
    if not (folder / "head.ply").is_file():
        (folder / "dataset").mkdir(parents=True)
        (folder / "dataset" / "transforms.json").write_text("{}")
        (folder / "head.ply").write_bytes(splat_ply.encode(ball(), replace(ORIGIN, seed=seed)))
        (folder / "head.glb").write_bytes(b"glTF")
        Image.new("RGBA", (64, 64), (200, 150, 120, 255)).save(folder / PORTRAIT_NAME)
        Image.new("RGB", (256, 64), (200, 150, 120)).save(folder / SHEET_NAME)
        Image.new("RGBA", (64, 64), (90, 150, 120, 255)).save(folder.parent / FRONT_NAME)
        Image.new("RGB", (96, 32), (90, 150, 120)).save(folder.parent / THUMBNAIL_NAME)
    missing = missing_formats(folder, task.formats)
    (folder / "dataset").rename(folder / "views")  # an export would read the views
    try:
        from dp360.configs.recipe import head_recipe

        expected_s = {**expected_stage_s(task.options, head_recipe(task.options)), "formats": 1.0}
        export_formats(folder, missing, reporter, expected_s)
    finally:
        (folder / "views").rename(folder / "dataset")
    return HeadMade(1.5, 0, {"timings_s": {"fit": 1.5}, "warnings": ["The head is small."]}, ())


def main() -> None:
    """`python played_page.py WORK`: serve with these runners, and say the address."""
    import sys

    from dp360.configs.page.server import serve
    from dp360.configs.serve import ServeCommand

    sys.path.insert(0, str(Path(__file__).parent))
    import played_page

    command = ServeCommand(Path(sys.argv[1]), port=0)
    serve(command, say=lambda line: print(line, flush=True), head_runner=played_page.make, look_runner=played_page.look)


if __name__ == "__main__":
    main()
