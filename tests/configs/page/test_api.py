"""The interface of the page: what it makes, whom it refuses, what outlives it."""

import json
import random
import re
import socket
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp360.configs.jobs.head_task import export_name
from dp360.configs.page import server as page_server
from dp360.configs.page.guard import Access
from dp360.configs.serve import ServeCommand
from dp360.exporters import splat_spz
from dp360.exporters.formats import FORMATS
from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import png_bytes

DOCS = Path(__file__).resolve().parents[3] / "docs" / "serve.md"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_from_upload_to_files(server):
    draft = server.upload("Ada%20Lovelace.png")
    assert draft["name"] == "Ada Lovelace.png" and draft["status"] == "draft" and len(draft["faces"]) == 2
    assert server.ask("GET", "/api/jobs").json == []  # nothing was asked for yet
    job_id = draft["id"]
    assert server.ask("GET", f"/api/jobs/{job_id}/pictures/preview").headers["content-type"] == "image/jpeg"
    begun = server.ask("POST", f"/api/jobs/{job_id}/start", {"quality": "fast", "seed": 9, "face_index": 1}).json
    assert begun["status"] in ("queued", "running") and begun["settings"]["face_index"] == 1
    job = server.wait_for(job_id, "done")
    assert job["warnings"] == ["The head is small."] and job["seconds"] == 1.5 and job["made"] == ["html"]
    viewer = server.ask("GET", f"/api/jobs/{job_id}/viewer")
    assert b"SupersplatViewer" in viewer.body and viewer.headers["content-security-policy"].startswith("sandbox")

    assert server.ask("GET", f"/api/jobs/{job_id}/files/spz").status == 404
    assert server.ask("POST", f"/api/jobs/{job_id}/formats/spz").json["making"] == ["spz"]
    server.wait_for_format(job_id, "spz")
    answer = server.ask("GET", f"/api/jobs/{job_id}/files/spz")
    assert 'filename="Ada_Lovelace.spz"' in answer.headers["content-disposition"]
    splats, origin = splat_spz.decode(answer.body)
    assert len(splats) == 600 and origin is not None and origin.seed == 9
    assert server.ask("GET", f"/api/jobs/{job_id}/files/ply").body[:3] == b"ply"
    assert server.ask("GET", f"/api/jobs/{job_id}/dataset").body[:2] == b"PK"

    assert [each["id"] for each in server.ask("GET", "/api/jobs").json] == [job_id]
    assert server.ask("DELETE", f"/api/jobs/{job_id}").status == 204
    assert server.ask("GET", f"/api/jobs/{job_id}").status == 404
    for _ in range(600):  # what still runs is stopped first
        if not (server.work / "jobs" / job_id).exists():
            break
        time.sleep(0.1)
    assert not (server.work / "jobs" / job_id).exists()


def test_every_format_that_is_offered_can_be_asked_for(server):
    offered = server.ask("GET", "/api/formats").json
    assert {each["ending"]: each["kind"] for each in offered} == {f.ending: f.kind for f in reversed(FORMATS)}
    names = [export_name(each["ending"]) for each in offered]
    assert len(set(names)) == len(names) and {"head.spz", "avatar.glb", "avatar.html"} <= set(names)


def test_pictures_are_looked_at_before_anything_runs(server):
    before = files_of(server.work)
    for body, part in ((b"", "empty"), (b"no picture", "ada.png: not a picture")):
        answer = server.ask("POST", "/api/portraits?name=ada.png", body)
        assert answer.status == 422 and part in answer.json["detail"] and "/jobs/" not in answer.json["detail"]
    fatal = server.ask("POST", "/api/portraits?name=ada.png", _black())
    assert fatal.status == 422 and "cannot be read" in fatal.json["detail"]  # its process died, the server did not
    assert files_of(server.work) == before
    assert server.upload(rgb=(255, 0, 0))["has_face"] is False
    assert server.ask("POST", "/api/example").json["name"] == "astronaut.png"


def _black() -> bytes:
    return png_bytes(np.zeros((80, 80, 3), np.uint8))


def test_one_jobs_end_is_one_jobs(server):
    ids = {seed: server.make(seed=seed) for seed in (1, 2, 3, 5)}
    assert (
        server.wait_for(ids[1], "failed")["error"] == "ada.png: nothing in it looks like a head; give another picture"
    )
    assert "a division by nothing" in server.wait_for(ids[2], "failed")["error"]
    assert "SIGKILL" in server.wait_for(ids[3], "failed")["error"]
    assert server.wait_for(ids[5], "done")["error"] is None
    again = server.ask("POST", f"/api/jobs/{ids[1]}/start", {"seed": 6}).json  # with other settings
    assert again["error"] is None and server.wait_for(ids[1], "done")
    assert server.ask("POST", f"/api/jobs/{ids[5]}/start", {}).status == 422
    for job_id in ids.values():
        server.ask("DELETE", f"/api/jobs/{job_id}")


def test_cancel_waiting_running_and_deleted(server):
    running, waiting, deleted = server.make(seed=4), server.make(seed=5), server.make(seed=4)
    server.wait_for(running, "running")
    assert server.ask("GET", f"/api/jobs/{deleted}").json["ahead"] == 2
    assert server.ask("GET", f"/api/jobs/{waiting}").json["ahead"] == 1
    assert server.ask("POST", f"/api/jobs/{waiting}/cancel").json["status"] == "cancelled"
    server.ask("POST", f"/api/jobs/{running}/cancel")
    server.wait_for(running, "cancelled")
    server.wait_for(deleted, "running")
    server.ask("DELETE", f"/api/jobs/{deleted}")
    end_s = time.monotonic() + 30
    while (server.work / "jobs" / deleted).exists():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_changes_are_told(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        heard = b""
        while b"event: jobs" not in heard:
            heard += connection.recv(4096)
        assert b"text/event-stream" in heard
        job_id = server.make(seed=8)
        while not re.search(rb'event: job\ndata: \{"id": "' + job_id.encode() + rb'".*"status": "done"', heard):
            heard += connection.recv(65536)
        assert b'"status": "queued"' in heard or b'"status": "running"' in heard  # which steps depends on the load
        server.ask("DELETE", f"/api/jobs/{job_id}")
        while f'event: deleted\ndata: "{job_id}"'.encode() not in heard:
            heard += connection.recv(4096)


def test_a_killed_server_resumes_its_queue(start_server):
    first = start_server()
    running, waiting, draft = first.make("a.png", seed=4), first.make("b.png", seed=7), first.upload("c.png")
    first.wait_for(running, "running")
    first.kill()
    (first.work / "go").touch()
    (first.work / "jobs" / ("0" * 32)).mkdir()  # no job: left alone
    second = start_server()
    assert second.wait_for(running, "done")["number"] < second.wait_for(waiting, "done")["number"]
    assert second.ask("POST", f"/api/jobs/{draft['id']}/start", {}).status == 200
    assert [job["name"] for job in second.ask("GET", "/api/jobs").json] == ["c.png", "b.png", "a.png"]


def test_two_hundred_hostile_requests(server):
    """Path tricks, foreign sites, unknown ids, odd settings, odd names: refused, and nothing is written."""
    job_id = server.make(seed=5)
    server.wait_for(job_id, "done")
    secret = server.work.parent / "secret.txt"
    secret.write_text("not for you")
    before, outside = files_of(server.work), files_of(server.work.parent)
    random_, refused = random.Random(0), 0
    tricks = [
        "..",
        "%2e%2e",
        "..%2f",
        "%2e%2e%2f",
        "....//",
        "..\\",
        "%00",
        "%252e%252e",
        "/etc/passwd",
        "secret.txt",
        "%c3%a9",
    ]
    origins = ["https://evil.example", "null", "http://127.0.0.1:1", f"http://evil.example:{server.port}", "file://"]
    hosts = ["evil.example", f"evil.example:{server.port}", "", "127.0.0.1.evil.example", "a b", "[::1", "2130706433"]
    for _ in range(40):
        trick = "/".join(random_.choices(tricks, k=random_.randint(1, 4)))
        path = random_.choice(
            [f"/api/jobs/{trick}", f"/api/jobs/{job_id}/files/{trick}", f"/api/jobs/{job_id}/pictures/{trick}",
             f"/api/jobs/{trick}/viewer", f"/{trick}", f"/api/jobs/{job_id}/../{trick}"]
        )  # fmt: skip
        other = "".join(random_.choices("0123456789abcdef", k=32))
        odd = random_.choice(
            [{"quality": "best"}, {"seed": -1}, {"seed": 1e99}, {"weights": "/etc"}, {"seed": "x"}, [], 7]
        )
        answers = [
            server.ask("GET", path),
            server.ask(random_.choice(["GET", "POST", "DELETE"]), f"/api/jobs/{other}"),
            server.ask("POST", f"/api/jobs/{job_id}/cancel", b"", Origin=random_.choice(origins)),
            server.ask("GET", "/api/jobs", Host=random_.choice(hosts)),
            server.ask("POST", f"/api/jobs/{job_id}/start", odd),
        ]
        for answer in answers:
            assert 400 <= answer.status < 500, (path, answer.status, answer.body)
            assert b"not for you" not in answer.body and b"Traceback" not in answer.body
            assert answer.headers["x-content-type-options"] == "nosniff"
        refused += len(answers)
    assert refused == 200
    assert files_of(server.work) == before and files_of(server.work.parent) == outside
    assert server.ask("GET", f"/api/jobs/{job_id}", Sec_Fetch_Site="cross-site").status == 403
    assert server.ask("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert server.ask("GET", f"/api/jobs/{job_id}").json["status"] == "done"
    server.ask("DELETE", f"/api/jobs/{job_id}")


def test_names_of_pictures_stay_names(server):
    for name in ("..%2F..%2Fx.png", "%00.png", "a%0d%0aSet-Cookie:x.png", "%3Cscript%3E.png", "x." + "y" * 250, "CON"):
        job = server.upload(name)
        (folder,) = (server.work / "jobs").glob(job["id"])
        assert {path.name.split(".")[0] for path in folder.iterdir()} == {"portrait", "preview", "job"}
        assert "/" not in job["name"] and job["name"].isprintable() and len(job["name"]) <= 80
        server.ask("DELETE", f"/api/jobs/{job['id']}")


def test_oversized_and_slow_uploads(server):
    before = files_of(server.work)
    assert server.ask("POST", "/api/portraits", b"x", Content_Length="99999999999").status == 413
    assert server.ask("POST", "/api/portraits", b"x", Content_Length="abc").status in (400, 413)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /api/portraits HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(64):
                connection.sendall(piece)
            answer = connection.recv(4096)
        except ConnectionError:  # it did not listen to the end
            answer = answer or b" 413 "
        assert b" 413 " in answer
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /api/portraits HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000\r\n\r\nx"
        connection.sendall(head.encode())
        try:
            answer = connection.recv(4096)  # after the longest wait for a piece
        except ConnectionResetError:  # it hung up at once
            answer = b" 408 "
        assert b" 408 " in answer
    assert files_of(server.work) == before


@pytest.mark.parametrize(
    ("listening", "given", "known"),
    [
        ("127.0.0.1", "127.0.0.1:7360", True),
        ("127.0.0.1", "localhost:7360", True),
        ("127.0.0.1", "[::1]:7360", True),
        ("127.0.0.1", "192.168.1.5:7360", False),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "tower:7360", False),
        ("0.0.0.0", "192.168.1.5:7360", True),
        ("0.0.0.0", "tower:7360", True),
        ("0.0.0.0", "evil.example", False),
        ("127.0.0.1", "heads.example", True),
    ],
)
def test_hosts(listening, given, known):
    access = Access(listening, "t" * 20, ("heads.example",), own_names=("tower",))
    assert access.knows_host(given) is known


def test_beyond_this_machine_the_token_is_demanded(tmp_path, ask_at):
    command = ServeCommand(tmp_path / "work", host="0.0.0.0", port=0)
    with page_server.opened(command, len, len) as (running, listening, line):  # type: ignore[arg-type]
        token = line.split("#token=")[1].split(" ")[0]
        thread = threading.Thread(target=lambda: running.run(sockets=[listening]), daemon=True)
        thread.start()
        asked = ask_at(listening.getsockname()[1])
        while not running.started:
            time.sleep(0.05)
        assert asked.ask("GET", "/").status == 200 and asked.ask("GET", "/api/jobs").status == 401
        assert asked.ask("GET", "/api/jobs", Authorization=f"Bearer {token}x").status == 401
        assert asked.ask("GET", "/api/jobs", Authorization=f"Bearer {token}").status == 200
        assert asked.ask("POST", "/api/session", {"token": "guessed"}).status == 401
        session = asked.ask("POST", "/api/session", {"token": token})
        cookie = session.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and token not in cookie
        assert asked.ask("GET", "/api/jobs", Cookie=cookie.split(";")[0]).status == 200
        running.should_exit = True
        thread.join(timeout=30)
    for wrong in (
        ServeCommand(tmp_path, token="short"),
        ServeCommand(tmp_path, port=99999),
        ServeCommand(tmp_path, jobs=0),
    ):
        with pytest.raises(InputError, match="Cannot serve"), page_server.opened(wrong, len, len):  # type: ignore[arg-type]
            pass


def test_the_client_of_the_documentation_makes_a_head(server):
    page = DOCS.read_text("utf-8")
    (client,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(client.replace("http://127.0.0.1:7360", server.url.rstrip("/")), names)
    spz = names["make_head"](png_bytes(np.full((160, 120, 3), 150, np.uint8)), quality="fast")
    assert len(splat_spz.decode(spz)[0]) == 600
    with pytest.raises(urllib.error.HTTPError):
        names["make_head"](b"no picture")


def test_the_interface_is_described(server):
    described = server.ask("GET", "/api/openapi.json").json
    text = DOCS.read_text("utf-8")
    for path, methods in described["paths"].items():
        assert all(method["summary"] for method in methods.values())
        assert f"`{path}`" in text, f"docs/serve.md lacks {path}"
    assert "http" not in json.dumps(described.get("servers", []))
    assert server.ask("GET", "/docs").status == 404  # it would load scripts from elsewhere
