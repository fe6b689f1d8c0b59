"""What `dp360 batch --ray` takes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ClusterConfig:
    """What each part of a head takes of the cluster, and how its files travel."""

    files: Literal["shared", "returned"] = "shared"
    """shared: all machines see the portraits and --output under the same paths; returned: bytes travel with Ray, and
    only the machine that was asked needs the folders."""
    prepare_cpus: float = 1.0
    """Cores for the portrait and its prior."""
    views_cpus: float = 1.0
    """Cores for making the views."""
    views_gpus: float = 0.0
    """GPUs for a diffusion model, held as long as it stays open; 0.5 lets two share one."""
    views_actors: int = 1
    """Processes that keep a diffusion model open."""
    fit_cpus: float = 1.0
    """Cores for the splat fit."""
    fit_gpus: float = 0.0
    """GPUs for the splat fit; 0.25 lets four share one."""
    finish_cpus: float = 1.0
    """Cores for mesh and files."""
    waiting: int = 2
    """Heads that may wait before each part; more are not begun."""

    def check(self) -> None:
        """Refuse numbers out of range.

        Raises:
            InputError: one of them is.
        """
        from dp360.generation import InputError  # seconds of imports

        for name in ("prepare_cpus", "views_cpus", "views_gpus", "fit_cpus", "fit_gpus", "finish_cpus"):
            value = getattr(self, name)
            if not 0 <= value <= 1024:
                raise InputError(f"--cluster.{name.replace('_', '-')}: expected 0 to 1024, got {value}")
        for name in ("views_actors", "waiting"):
            if not 1 <= getattr(self, name) <= 4096:
                raise InputError(f"--cluster.{name.replace('_', '-')}: expected 1 to 4096, got {getattr(self, name)}")
