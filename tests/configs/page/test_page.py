"""The page in a real browser: from a dropped picture to a file, on a laptop and a phone, by keyboard, in the dark.

Every request to another machine is counted. Needs Chromium, and draws without a GPU.
"""

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dp360.exporters import splat_spz

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.slow,  # minutes, where other tests run beside
]
LAPTOP, PHONE = {"width": 1366, "height": 850}, {"width": 390, "height": 844}
PATIENCE_MS = 90_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        without_gpu = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        expect.set_options(timeout=PATIENCE_MS)  # a machine may be busy
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *without_gpu])
        yield opened
        opened.close()


class Visit:
    """A visitor's browser: its pages, what they asked other machines for, and what went wrong in them."""

    def __init__(self, browser: Browser, server: Any, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": LAPTOP, "accept_downloads": True, **settings})
        self.context.set_default_timeout(PATIENCE_MS)
        self.server, self.foreign, self.faults = server, list[str](), list[str]()
        self.context.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "blob:", "data:")):
            self.foreign.append(request.url)

    def page(self, place: str = "") -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.goto(self.server.url + place)
        return page


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    for job in server.ask("GET", "/api/jobs").json:
        server.ask("DELETE", f"/api/jobs/{job['id']}")
    visitor = Visit(browser, server)
    yield visitor
    visitor.context.close()
    assert visitor.foreign == [] and visitor.faults == []


def picture_file(folder: Path, name: str, rgb: tuple[int, int, int] = (200, 150, 120)) -> Path:
    path = folder / name
    Image.new("RGB", (240, 320), rgb).save(path)
    return path


def begin(page: Page, path: Path, seed: int, quality: str = "Fast") -> None:
    """Choose a picture, the second face, quality and seed, and ask for the head."""
    page.set_input_files("#file", path)
    expect(page.locator("#settings")).to_be_visible()
    page.get_by_label("Face 2 of 2").check(force=True)
    page.get_by_label(quality).check(force=True)
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_role("button", name="Make the head").click()


def serious_faults(page: Page) -> list[str]:
    """What the accessibility checker calls serious."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")]


def shown(page: Page) -> np.ndarray:
    """What the page shows, 8 bits."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def blob_place(page: Page, channel: int) -> tuple[float, float] | None:
    """Middle (x, y) of what is strongly of one colour inside the viewer, pixels of its frame; None where nothing is."""
    box = page.locator("#panel-turn iframe").bounding_box()
    assert box is not None
    left, top = int(box["x"]), int(box["y"])
    view = shown(page)[max(top, 0) : int(top + box["height"]), left : int(left + box["width"])]
    others = np.delete(view, channel, axis=2).max(axis=2)
    ys, xs = np.nonzero((view[..., channel] > 120) & (view[..., channel] - others > 90))
    return (float(xs.mean()), float(ys.mean())) if len(xs) > 20 else None


def test_from_a_dropped_picture_to_a_file(visit, tmp_path):
    page = visit.page()
    assert serious_faults(page) == []
    (visit.server.work / "go").unlink(missing_ok=True)
    begin(page, picture_file(tmp_path, "Ada.png"), seed=4)
    expect(page.locator("#step")).to_have_text("Fit the splats")
    expect(page.locator("#left")).to_have_text("about 25 s left")
    assert page.locator("#bar").evaluate("bar => bar.value") == pytest.approx(0.6)
    assert serious_faults(page) == []
    page.reload()
    expect(page.locator("#step")).to_have_text("Fit the splats")
    (visit.server.work / "go").touch()
    viewer = page.locator("#panel-turn iframe")
    expect(viewer).to_be_visible()
    job = visit.server.ask("GET", "/api/jobs").json[0]
    assert job["settings"]["face_index"] == 1 and job["settings"]["quality"] == "fast"
    expect(page.locator("#notes")).to_have_text("The head is small.")
    assert serious_faults(page) == []

    end_s = time.monotonic() + 90
    while blob_place(page, 1) is None:
        assert time.monotonic() < end_s
        time.sleep(1)
    before = blob_place(page, 0)
    box = viewer.bounding_box()
    assert before is not None and box is not None and before[0] > box["width"] / 2  # its left is on our right
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 250, box["y"] + box["height"] / 2, steps=10)
    page.mouse.up()
    while (after := blob_place(page, 0)) is not None and abs(after[0] - before[0]) < 15:
        assert time.monotonic() < end_s
        time.sleep(1)

    page.get_by_role("tab", name="Turn it").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#compare")).to_be_visible()
    middle = page.locator("#compare").bounding_box()
    assert middle is not None
    page.get_by_label("How much of the 3D head is shown").fill("100")
    x, y = int(middle["x"] + middle["width"] / 4), int(middle["y"] + middle["height"] / 2)
    assert shown(page)[y, x] == pytest.approx([90, 150, 120], abs=3)  # the head
    page.get_by_label("How much of the 3D head is shown").fill("0")
    assert shown(page)[y, x] == pytest.approx([200, 150, 120], abs=3)  # the portrait
    page.keyboard.press("Tab")

    with page.expect_download() as download:
        page.get_by_role("button", name=".spz").click()
    assert download.value.suggested_filename == "Ada.spz"
    splats, origin = splat_spz.decode(Path(download.value.path()).read_bytes())
    assert len(splats) == 600 and origin is not None and origin.seed == 4


def test_wrong_files_and_refusals_are_said(visit, tmp_path):
    page = visit.page()
    wrong = tmp_path / "notes.png"
    wrong.write_text("my notes")
    page.set_input_files("#file", wrong)
    expect(page.locator("#new-error")).to_contain_text("notes.png: not a picture in a known format")
    page.set_input_files("#file", picture_file(tmp_path, "back.png", (255, 0, 0)))
    expect(page.locator("#faces-hint")).to_contain_text("No face was found")
    expect(page.locator("#new-error")).to_be_empty()
    page.get_by_role("button", name="Another picture").click()
    visit.faults.clear()  # the browser itself notes that the wrong file was refused
    begin(page, picture_file(tmp_path, "cat.png"), seed=1)
    expect(page.locator("#job-error")).to_contain_text("cat.png: nothing in it looks like a head")
    expect(page.get_by_role("button", name="Make it again")).to_be_visible()


def test_two_tabs_a_closed_one_cancel_and_delete(visit, tmp_path):
    (visit.server.work / "go").unlink(missing_ok=True)
    first = visit.page()
    begin(first, picture_file(tmp_path, "one.png"), seed=4)
    expect(first.locator("#step")).to_have_text("Fit the splats")
    second = visit.page()
    expect(second.get_by_role("link", name="one.png")).to_contain_text("60 %")
    begin(second, picture_file(tmp_path, "two.png"), seed=7)
    expect(second.locator("#left")).to_have_text("one head is before it")
    expect(first.get_by_role("link", name="two.png")).to_contain_text("2. in line")
    first.get_by_role("button", name="Cancel").click()
    expect(first.locator("#job-error")).to_have_text("It was cancelled.")
    first.close()
    expect(second.locator("#panel-turn iframe")).to_be_visible()
    second.get_by_role("button", name="Delete").click()
    second.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    expect(second.locator("#panel-turn iframe")).to_be_visible()
    second.get_by_role("button", name="Delete").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(second.locator("#drop")).to_be_visible()
    expect(second.get_by_role("link", name="two.png")).to_have_count(0)
    assert [job["name"] for job in visit.server.ask("GET", "/api/jobs").json] == ["one.png"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser, server, scheme):
    for job in server.ask("GET", "/api/jobs").json:
        server.ask("DELETE", f"/api/jobs/{job['id']}")
    visitor = Visit(browser, server, viewport=PHONE, color_scheme=scheme, has_touch=True)
    page = visitor.page()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    page.get_by_role("button", name="Try the example").tap()
    expect(page.get_by_role("button", name="Make the head")).to_be_focused()
    for state in ("settings", "done"):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], state
        assert serious_faults(page) == [], state
        if state == "settings":
            page.get_by_role("button", name="Make the head").tap()
            expect(page.locator("#panel-turn iframe")).to_be_visible()
    assert visitor.foreign == [] and visitor.faults == []
    visitor.context.close()
