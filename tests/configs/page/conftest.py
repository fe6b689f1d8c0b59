"""Servers with played heads, in processes of their own, and a client for them."""

import http.client
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

PLAYED = Path(__file__).with_name("played_page.py")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server that runs, and how to ask it."""

    work: Path
    process: subprocess.Popen[str] | None
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        """One request; a header of None is left out, underscores in names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        sent: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}", **self.headers}
        if data is not None:
            sent |= {"Content-Length": str(len(data))}
            sent |= {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def upload(self, name: str = "ada.png", rgb: tuple[int, int, int] = (200, 150, 120)) -> dict[str, Any]:
        answer = self.ask("POST", f"/api/portraits?name={name}", png(rgb))
        assert answer.status == 201, answer.body
        return answer.json

    def make(self, name: str = "ada.png", **settings: Any) -> str:
        """Ask for a head; its id."""
        job_id = self.upload(name)["id"]
        answer = self.ask("POST", f"/api/jobs/{job_id}/start", settings)
        assert answer.status == 200, answer.body
        return job_id

    def wait_for(self, job_id: str, *statuses: str) -> dict[str, Any]:
        end_s = time.monotonic() + 90
        while True:
            job = self.ask("GET", f"/api/jobs/{job_id}").json
            if job.get("status") in statuses:
                return job
            assert job.get("status") in ("queued", "running"), job
            assert time.monotonic() < end_s, job
            time.sleep(0.1)

    def wait_for_format(self, job_id: str, ending: str) -> None:
        end_s = time.monotonic() + 60
        while ending not in (job := self.wait_for(job_id, "done"))["made"]:
            assert job["error"] is None and time.monotonic() < end_s, job
            time.sleep(0.1)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def png(rgb: tuple[int, int, int] = (200, 150, 120)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 160), rgb).save(buffer, "PNG")
    return buffer.getvalue()


def started(work: Path) -> Server:
    words = [sys.executable, str(PLAYED), str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("open http://127.0.0.1:"), line
    return Server(work, process, int(line.split(":")[2].split("/")[0]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a file."""
    running = started(tmp_path_factory.mktemp("page") / "work")
    yield running
    assert running.process is not None
    running.process.terminate()
    running.process.wait(timeout=60)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """A function: a server in one folder; what runs at the end is killed."""
    running: list[Server] = []

    def start() -> Server:
        running.append(started(tmp_path / "work"))
        return running[-1]

    yield start
    for each in running:
        each.kill()


@pytest.fixture
def ask_at(tmp_path: Path) -> Callable[[int], Server]:
    """A function: a client of a server of this process at some port."""
    return lambda port: Server(tmp_path, None, port)
