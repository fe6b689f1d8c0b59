"""`dp360 view`: a head in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .console import Display, Outcome


@dataclass(frozen=True)
class ViewCommand:
    """Show a head in the browser, seen from the front; Ctrl-C ends it."""

    file: tyro.conf.Positional[Path]
    """Splats in any format of dp360 export, a mesh (.glb .obj .ply .stl), or the config.yml of an ns-train run with
    dp360-splat."""
    input_up_axis: Literal["y", "-y", "z", "-z", "auto"] | None = None
    """Which way is up in another program's file, as in dp360 export."""
    port: int = 7007
    """Port to serve at; if it is taken, the next free one."""
    host: str = "127.0.0.1"
    """Address to serve at: by default only this machine may look; 0.0.0.0 lets the whole network in."""
    open: bool = True
    """The browser opens by itself where there is a screen, unless --no-open is given."""


def run(command: ViewCommand, display: Display) -> Outcome:
    """Show it until Ctrl-C."""
    from .viewer import view

    view(command, notify=display.notify)
    return ()
