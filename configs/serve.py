"""`dp360 serve`: a page in the browser on which portraits become heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .console import Display, Outcome


@dataclass(frozen=True)
class ServeCommand:
    """Show a page in the browser on which portraits become heads; it needs dp360[serve].

    Nothing is sent to any other machine. All that it keeps lies in --work: pictures, heads, and the queue, with which
    it goes on when it is started again. Ctrl-C ends it.
    """

    work: Path = Path("dp360-page")
    """Folder of all that it keeps."""
    host: str = "127.0.0.1"
    """Address to listen at; with any but this machine's own, whoever asks must know the token."""
    port: int = 7360
    """Port to listen at; 0 takes a free one."""
    token: str | None = None
    """The token, at least 16 letters; made up, and shown once, where one is needed and none is given."""
    name: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A further name of this machine that may stand in the address; others are refused."""
    jobs: int = 1
    """Heads at once, each in a process of its own that takes 2 to 3 GB of memory."""
    most_megabytes: Annotated[int, tyro.conf.arg(name="upload-mb")] = 32
    """Largest picture that is taken, in 10^6 bytes."""


def run(command: ServeCommand, display: Display) -> Outcome:
    """Serve until Ctrl-C.

    Raises:
        InputError: dp360[serve] is not installed, a setting that makes no sense, the folder is in use, or nothing can
            be served at this address.
    """
    from dp360.generation import InputError

    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise InputError(
            f"Cannot serve: the package {error.name} is missing; run pip install 'dp360[serve]'"
        ) from error
    del fastapi, uvicorn
    from .page.server import serve

    serve(command, say=lambda line: print(line, flush=True))
    return ()
