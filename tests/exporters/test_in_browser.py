"""Viewers in a real browser: the marked head stands upright, its face towards us, its left ear on our right.

The page is opened with the network off. Needs Chromium and draws without a GPU: slow.
"""

import base64
import io
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from dp360.configs.commands import ViewCommand
from dp360.configs.view import serve
from dp360.exporters import mesh_glb, splat_ply, viewer_html
from dp360.generation.mesh import TexturedMesh

WIDTH, HEIGHT = 900, 600
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


class Browser:
    """Chromium without a window, steered through a pipe (which works with the network off as well).

    Protocol: https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, profile: str, *, offline: bool) -> None:
        from_us, to_chromium = os.pipe()
        to_us, from_chromium = os.pipe()
        words = [
            *(["unshare", "--map-root-user", "--net"] if offline else []),
            str(CHROMIUM),
            *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "about:blank"),
        ]
        shell = f'exec "$@" 3<&{from_us} 4>&{from_chromium}'  # Chromium's pipe has these numbers
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *words],
            pass_fds=(from_us, from_chromium),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us), os.close(from_chromium)
        self._send, self._receive = os.fdopen(to_chromium, "wb"), os.fdopen(to_us, "rb")
        self._answers: queue.Queue[dict] = queue.Queue()
        self.requests: list[str] = []
        self._count, self._session = 0, None
        threading.Thread(target=self._listen, daemon=True).start()
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        self.call("Network.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)

    def _listen(self) -> None:
        waiting = b""
        while part := self._receive.read1(1 << 16):
            *messages, waiting = (waiting + part).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                elif message["method"] == "Network.requestWillBeSent":
                    self.requests.append(message["params"]["request"]["url"])

    def call(self, method: str, **params: object) -> dict:
        """Send one command and wait for its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        answer = self._answers.get(timeout=60)
        assert answer["id"] == self._count and "error" not in answer, answer
        return answer["result"]

    def picture(self) -> np.ndarray:
        """What the page shows, 8 bits."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def drag(self, right_px: int) -> None:
        """Drag from the picture's middle to the right."""
        for step in range(12):
            kind = "mousePressed" if step == 0 else "mouseReleased" if step == 11 else "mouseMoved"
            x = WIDTH / 2 + right_px * min(step, 10) / 10
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=HEIGHT / 2, button="left", buttons=1, clickCount=1)

    def close(self) -> None:
        """End Chromium."""
        self.process.terminate()
        self.process.wait(timeout=20)
        self._send.close()


@pytest.fixture
def open_browser(tmp_path) -> Iterator[Callable[..., Browser]]:
    browsers = []

    def open_one(*, offline: bool) -> Browser:
        if offline and subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode:
            pytest.skip("this machine does not let us switch the network off")
        browsers.append(Browser(str(tmp_path / f"profile{len(browsers)}"), offline=offline))
        return browsers[-1]

    yield open_one
    for browser in browsers:
        browser.close()


def marks(picture: np.ndarray) -> dict[str, tuple[float, float]]:
    """Middle (x, y) in pixels of each strongly coloured mark that is seen."""
    picture = picture.copy()
    picture[HEIGHT - 90 :, :90] = picture[:, WIDTH - 260 :] = 0  # viser's axes and panel
    strongest, found = picture.max(axis=2), {}
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(picture, channel, axis=2).max(axis=2)
        ys, xs = np.nonzero((strongest == picture[..., channel]) & (strongest > 130) & (strongest - others > 80))
        if len(xs) > 20:
            found[name] = (float(xs.mean()), float(ys.mean()))
    return found


def wait_for_marks(browser: Browser, names: set[str]) -> dict[str, tuple[float, float]]:
    """Marks of the first picture that shows all of them."""
    found, end = {}, time.monotonic() + 90
    while not names <= set(found):
        assert time.monotonic() < end, f"the page shows only {found}"
        time.sleep(0.5)
        found = marks(browser.picture())
    return found


def assert_upright_from_the_front(found: dict[str, tuple[float, float]], middle_x: float) -> None:
    (ear_x, ear_y), (crown_x, crown_y), (nose_x, nose_y) = found["red"], found["green"], found["blue"]
    assert ear_x > middle_x + 60  # the head's left is our right
    assert abs(nose_x - middle_x) < 25 and abs(crown_x - middle_x) < 25
    assert crown_y < ear_y - 60 and crown_y < nose_y - 60
    assert 0.05 * HEIGHT < crown_y < 0.45 * HEIGHT  # wholly seen, and not small


def test_page_without_network(marked_head, provenance, tmp_path, open_browser):
    path = tmp_path / "head.html"
    path.write_bytes(viewer_html.encode(marked_head, provenance, title="</title><script>document.title=1</script>"))
    browser = open_browser(offline=True)
    browser.call("Page.navigate", url=path.as_uri())
    found = wait_for_marks(browser, {"red", "green", "blue"})
    assert_upright_from_the_front(found, WIDTH / 2)
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "blob", "data"}

    browser.drag(150)
    time.sleep(3)  # the camera glides
    turned = marks(browser.picture())
    assert turned["blue"][0] > found["blue"][0] + 40  # the nose follows the pointer
    assert abs(turned["green"][1] - found["green"][1]) < 15


def test_view_of_splats(marked_head, provenance, tmp_path, open_browser):
    path = tmp_path / "head.ply"
    path.write_bytes(splat_ply.encode(marked_head, provenance))
    with serve(ViewCommand(path, port=0)) as url:
        browser = open_browser(offline=False)
        browser.call("Page.navigate", url=url)
        found = wait_for_marks(browser, {"red", "green", "blue"})
        assert_upright_from_the_front(found, found["blue"][0])  # there is a panel on the right


def test_view_of_a_mesh(provenance, tmp_path, open_browser):
    """Three marks as squares that look to the front: their colours are the texture's."""
    centres = np.array([[0.16, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.1]])
    corners = 0.03 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    mesh = TexturedMesh(
        (centres[:, None] + corners).reshape(-1, 3),
        np.tile([0.0, 0.0, 1.0], (12, 1)),
        np.repeat((np.arange(3)[:, None] + 0.5) / 3, 4, axis=0) * [1, 0] + [0, 0.5],
        np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(3)]),
        np.repeat(np.eye(3, dtype=np.uint8)[None] * 230, 3, axis=0).repeat(16, axis=0).repeat(16, axis=1),
    )
    path = tmp_path / "head.glb"
    path.write_bytes(mesh_glb.encode(mesh, provenance))
    with serve(ViewCommand(path, port=0)) as url:
        browser = open_browser(offline=False)
        browser.call("Page.navigate", url=url)
        found = wait_for_marks(browser, {"red", "green", "blue"})
        assert_upright_from_the_front(found, found["blue"][0])  # there is a panel on the right
