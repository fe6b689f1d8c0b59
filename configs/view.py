"""`dp360 view`: a head in the browser."""

from __future__ import annotations

from .commands import ViewCommand


def view(command: ViewCommand) -> None:
    """Serve the head until Ctrl-C."""
    raise NotImplementedError(command)
