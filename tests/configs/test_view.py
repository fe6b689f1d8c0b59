"""`dp360 view` without a browser: what it serves, where, and how it ends."""

import functools
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
import trimesh

from dp360.configs.view import ViewCommand
from dp360.configs.viewer import _covariances, serve
from dp360.exporters import formats, splat_ply
from dp360.generation import InputError

SPLAT_EXTENSIONS = sorted({f.extension for f in formats.FORMATS if f.kind == "splats" and f.decode is not None})


@pytest.fixture
def head(make_splats, provenance, tmp_path) -> Path:
    path = tmp_path / "head.ply"
    path.write_bytes(splat_ply.encode(make_splats(50, 1), provenance))
    return path


def test_serves_a_page_and_stops(head):
    with serve(ViewCommand(head, port=0)) as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read()
    end = time.monotonic() + 10
    with pytest.raises(OSError):  # refused, perhaps after a moment
        while time.monotonic() < end:
            urllib.request.urlopen(url, timeout=5).close()


@pytest.mark.parametrize("extension", SPLAT_EXTENSIONS)
def test_every_splat_format(extension, make_splats, provenance, tmp_path):
    path = tmp_path / f"head{extension}"
    path.write_bytes(formats.format_of(path, "splats").encode(make_splats(50, 1), provenance))
    with serve(ViewCommand(path, port=0)) as url, urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("extension", [".glb", ".obj", ".ply", ".stl"])
def test_any_mesh(extension, tmp_path):
    path = tmp_path / f"head{extension}"
    trimesh.creation.icosphere(radius=0.1).export(path)
    with serve(ViewCommand(path, port=0)) as url, urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.status == 200


def test_taken_port_gives_way_to_the_next(head):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serve(ViewCommand(head, port=port)) as url:
            assert port < int(url.rsplit(":", 1)[1]) <= port + 20


def test_only_this_machine_may_look(head):
    with serve(ViewCommand(head, port=0)) as url:
        port = int(url.rsplit(":", 1)[1])
        with socket.socket() as outside:
            outside.settimeout(5)
            with pytest.raises(OSError):
                outside.connect(("127.0.0.2", port))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 70000}, "expected a number from 0 to 65535"),
        ({"host": "192.0.2.1"}, "Cannot serve at host 192.0.2.1"),
        ({"host": "no such host"}, "Cannot serve at host no such host"),
    ],
)
def test_addresses_that_do_not_work(head, changes, message):
    with pytest.raises(InputError, match=message), serve(ViewCommand(head, **changes)):
        pass


def test_files_that_cannot_be_shown(tmp_path, make_splats, provenance):
    (tmp_path / "broken.glb").write_bytes(b"glTF\2\0\0\0\xff\xff\xff\xff")
    (tmp_path / "broken.stl").write_bytes(b"solid" + b"\xff" * 90)
    (tmp_path / "text.ply").write_text("hello")
    (tmp_path / "head.xyz").write_text("hello")
    (tmp_path / "empty.ply").write_bytes(splat_ply.encode(make_splats(0, 0), provenance))
    for name, message in (
        ("none.ply", "Cannot read .*none.ply"),
        ("none.glb", "Cannot read .*none.glb"),
        ("none.yml", "Cannot read .*none.yml"),
        ("broken.glb", "expected a .glb|cut off or damaged"),
        ("broken.stl", "damaged or no mesh|expected triangles"),
        ("text.ply", r"text.ply"),
        ("empty.ply", "at least one|got none|no Gaussians"),
        ("head.xyz", "expected a name that ends in one of"),
    ):
        with pytest.raises(InputError, match=message), serve(ViewCommand(tmp_path / name, port=0)):
            pass


def test_covariances_keep_axes_and_never_degenerate(make_splats):
    splats = make_splats(200, 0)
    moments = _covariances(splats, 10.0)
    lengths = torch.linalg.eigvalsh(moments).sqrt()
    torch.testing.assert_close(lengths, (10 * splats.scales.double()).sort(dim=1).values, rtol=1e-6, atol=1e-9)
    flat = type(splats)(
        splats.means_world,
        torch.tensor([8.0, -40.0, -90.0]).expand(200, 3),
        splats.quats_wxyz,
        splats.opacity_logits,
        splats.sh0,
        splats.sh_rest,
    )
    assert torch.linalg.cholesky(_covariances(flat, 10.0)).isfinite().all()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_with_130(head):
    words = [sys.executable, "-m", "dp360.configs.cli", "view", str(head), "--port", "0", "--no-open"]
    # tests that run in the background of a shell ignore the signal, and what they start would inherit that
    heed_signal = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signal,  # noqa: PLW1509 - no other thread runs while it is started
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(f"showing {head} at http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
