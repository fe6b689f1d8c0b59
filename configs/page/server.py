"""Opens the port, starts the engine behind it, and closes both in order."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator

import uvicorn

from dp360.generation import InputError

from ..jobs.workers import Runner
from ..run_folder import exclusive_run
from ..serve import ServeCommand
from .app import UploadLimits, make_app
from .engine import Engine, EngineConfig
from .guard import Access, is_loopback
from .tasks import look_at_portrait, make_shown_head

_LEAST_TOKEN = 16
_CLOSE_S = 2


def serve(
    command: ServeCommand,
    *,
    say: Callable[[str], None],
    head_runner: Runner = make_shown_head,
    look_runner: Runner = look_at_portrait,
) -> None:
    """Serve until somebody presses Ctrl-C.

    Args:
        command: where and how.
        say: is told the address.
        head_runner: makes heads.
        look_runner: looks at pictures.

    Raises:
        InputError: a setting that makes no sense, the folder is in use, or nothing can be served at this address.
    """
    with opened(command, head_runner, look_runner) as (server, listening, address):
        say(address)
        server.run(sockets=[listening])


@contextlib.contextmanager
def opened(
    command: ServeCommand, head_runner: Runner, look_runner: Runner
) -> Iterator[tuple[uvicorn.Server, socket.socket, str]]:
    """A server that is ready to run, its socket, and a line with its address; the engine works inside the block.

    Raises:
        InputError: as `serve`.
    """
    token = _token_of(command)
    if not 1 <= command.jobs <= 64:
        raise InputError(f"Cannot serve: expected --jobs from 1 to 64, got {command.jobs}")
    if not 1 <= command.most_megabytes <= 256:
        raise InputError(f"Cannot serve: expected --upload-mb from 1 to 256, got {command.most_megabytes}")
    work = command.work.expanduser()
    with exclusive_run(work), _listening(command.host, command.port) as listening:
        engine = Engine(EngineConfig(work, command.jobs), head_runner, look_runner)
        access = Access(command.host, token, command.name)
        app = make_app(engine, access, UploadLimits(most_bytes=command.most_megabytes * 1_000_000))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_S,
            timeout_keep_alive=20,
            limit_concurrency=200,
            h11_max_incomplete_event_size=32_000,
            ws="none",
        )
        engine.start()
        try:
            yield uvicorn.Server(config), listening, _address(command.host, listening.getsockname()[1], token)
        finally:
            engine.close()


def _token_of(command: ServeCommand) -> str | None:
    """The token that has to be known, if any."""
    if command.token is not None:
        if len(command.token) < _LEAST_TOKEN or not command.token.isascii() or not command.token.isprintable():
            raise InputError(f"Cannot serve: expected a --token of at least {_LEAST_TOKEN} plain letters and digits")
        return command.token
    return None if is_loopback(command.host) else secrets.token_urlsafe(24)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: that cannot be done.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"Cannot serve at port {port}: expected a number from 0 to 65535")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"Cannot serve at {host}, port {port}: {error.strerror}; choose another --port") from error


def _address(host: str, port: int, token: str | None) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    base = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    secret = "" if token is None else f"#token={token}"
    return f"open {base}{secret} (Ctrl-C ends it)"
