"""A board of a batch that remembers what it was shown."""

from dp360.configs.jobs.progress import Progress
from dp360.configs.jobs.results import PortraitResult


class Shown:
    """Shows nothing and keeps everything."""

    def __init__(self) -> None:
        self.said, self.progress, self.ends, self.left_s = list[str](), list[Progress](), list[PortraitResult](), []

    def whole(self, done: int, total: int, left_s: float | None) -> None:
        self.left_s.append(left_s)

    def portrait(self, name: str, progress: Progress | None) -> None:
        if progress is not None:
            self.progress.append(progress)

    def ended(self, result: PortraitResult) -> None:
        self.ends.append(result)
