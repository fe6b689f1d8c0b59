"""Viewers in a real browser: the marked head stands upright, its face towards us, its left ear on our right.

The page is opened with the network off. Needs Chromium, and draws without a GPU.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from dp360.configs.view import ViewCommand
from dp360.configs.viewer import serve
from dp360.exporters import mesh_glb, splat_ply, viewer_html
from dp360.generation.mesh import TexturedMesh

WIDTH, HEIGHT = 900, 600
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        without_gpu = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *without_gpu])
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    yield opened
    opened.close()


def picture(page: Page) -> np.ndarray:
    """What the page shows, 8 bits."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def marks(page: Page) -> dict[str, tuple[float, float]]:
    """Middle (x, y) in pixels of each strongly coloured mark that is seen."""
    shown = picture(page)
    shown[HEIGHT - 90 :, :90] = shown[:, WIDTH - 260 :] = 0  # viser's axes and panel
    strongest, found = shown.max(axis=2), {}
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(shown, channel, axis=2).max(axis=2)
        ys, xs = np.nonzero((strongest == shown[..., channel]) & (strongest > 130) & (strongest - others > 80))
        if len(xs) > 20:
            found[name] = (float(xs.mean()), float(ys.mean()))
    return found


def wait_for_marks(page: Page, names: set[str]) -> dict[str, tuple[float, float]]:
    """Marks of the first picture that shows all of them and stays as it is for four seconds.

    viser draws a first picture from a camera of its own before the visitor is put where he shall stand.
    """
    found: dict[str, tuple[float, float]] = {}
    still, end = 0, time.monotonic() + 90
    while still < 8:
        assert time.monotonic() < end, f"the page shows only {found}, or never rests"
        time.sleep(0.5)
        before, found = found, marks(page)
        rests = names <= set(found) and set(found) == set(before) and _moved_px(before, found) < 2
        still = still + 1 if rests else 0
    return found


def _moved_px(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> float:
    return max(float(np.hypot(*np.subtract(after[name], before[name]))) for name in after)


def assert_upright_from_the_front(found: dict[str, tuple[float, float]], middle_x: float) -> None:
    (ear_x, ear_y), (crown_x, crown_y), (nose_x, nose_y) = found["red"], found["green"], found["blue"]
    assert ear_x > middle_x + 60  # the head's left is our right
    assert abs(nose_x - middle_x) < 25 and abs(crown_x - middle_x) < 25
    assert crown_y < ear_y - 60 and crown_y < nose_y - 60
    assert 0.05 * HEIGHT < crown_y < 0.45 * HEIGHT  # wholly seen, and not small


def test_page_without_network(marked_head, provenance, tmp_path, page):
    path = tmp_path / "head.html"
    path.write_bytes(viewer_html.encode(marked_head, provenance, title="</title><script>document.title=1</script>"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(path.as_uri())
    found = wait_for_marks(page, {"red", "green", "blue"})
    assert_upright_from_the_front(found, WIDTH / 2)
    assert {url.split(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert page.title() == "</title><script>document.title=1</script>"

    page.mouse.move(WIDTH / 2, HEIGHT / 2)
    page.mouse.down()
    page.mouse.move(WIDTH / 2 + 150, HEIGHT / 2, steps=10)
    page.mouse.up()
    time.sleep(3)  # the camera glides
    turned = marks(page)
    assert turned["blue"][0] > found["blue"][0] + 40  # the nose follows the pointer
    assert abs(turned["green"][1] - found["green"][1]) < 15


def test_view_of_splats(marked_head, provenance, tmp_path, page):
    path = tmp_path / "head.ply"
    path.write_bytes(splat_ply.encode(marked_head, provenance))
    with serve(ViewCommand(path, port=0)) as url:
        page.goto(url)
        found = wait_for_marks(page, {"red", "green", "blue"})
        assert_upright_from_the_front(found, found["blue"][0])  # there is a panel on the right


def test_view_of_a_mesh(provenance, tmp_path, page):
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
        page.goto(url)
        found = wait_for_marks(page, {"red", "green", "blue"})
        assert_upright_from_the_front(found, found["blue"][0])  # there is a panel on the right
