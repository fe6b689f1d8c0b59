"""The page of an avatar in a real browser with the network off. Needs Chromium, and draws without a GPU."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from dp360.exporters import avatar_html
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
SIZE = 480


@pytest.fixture(scope="module")
def page(rig, tmp_path_factory) -> Iterator[Page]:
    from dp360.generation import Provenance

    path = tmp_path_factory.mktemp("page") / "avatar.html"
    path.write_bytes(avatar_html.encode(rig, Provenance.unknown("a test's head")))
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        opened = browser.new_page(viewport={"width": SIZE + 330, "height": SIZE})
        opened.context.set_offline(True)
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(path.as_uri())
        opened.wait_for_selector("body[data-ready]", timeout=120_000)
        opened.evaluate("document.getElementById('message').hidden = true")  # it lies over the head
        yield opened
        assert errors == []
        browser.close()


def shown(page: Page, pose: dict[str, float] | None = None) -> np.ndarray:
    """The head in a pose, 8 bits."""
    page.evaluate("pose => { avatar.setPose(pose); avatar.render(); }", pose or {})
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": SIZE, "height": SIZE})
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of pixels that differ, from the head's middle on: right and up, in heights of the picture."""
    rows, columns = np.nonzero(np.abs(after - before).max(2) > 12)
    return (columns - SIZE / 2) / SIZE, (SIZE / 2 - rows) / SIZE


def test_zero_is_the_still_head(page):
    still = shown(page)
    shown(page, dict.fromkeys(ARKIT_NAMES, 0.7))
    assert (shown(page, dict.fromkeys(ARKIT_NAMES, 0.0)) == still).all()


def test_the_jaw_changes_mouth_and_chin_alone(page):
    still = shown(page)
    x, y = changed(still, shown(page, {"jawOpen": 1.0}))
    _, lids = changed(still, shown(page, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}))
    assert len(x) > 500
    assert np.quantile(y, 0.995) < np.median(lids)  # nothing above the eyes
    assert np.abs(np.quantile(x, [0.005, 0.995])).max() < 0.25


def test_a_left_blink_closes_the_persons_left_eye(page):
    x, y = changed(shown(page), shown(page, {"eyeBlinkLeft": 1.0}))
    assert len(x) > 40
    assert (x > 0).mean() > 0.98  # the person's left is on our right
    assert np.ptp(np.quantile(y, [0.01, 0.99])) < 0.12


def test_sliders_and_takes_move_the_head(page):
    still = shown(page)
    page.locator("summary", has_text="Jaw and tongue").click()
    page.locator("#slider-jawOpen").fill("1")
    page.evaluate("avatar.render()")
    assert page.locator("output[for='slider-jawOpen']").inner_text() == "1.00"
    take = "Timecode,BlendShapeCount,JawOpen,EyeBlinkLeft,EyeBlinkRight,TongueOut,JawLeft,HeadYaw\n" + "".join(
        f"00:00:00:{k:02d}.0,61,{k / 10},0,0,0,0,0.1\n" for k in range(10)
    )
    frames = page.evaluate("text => avatar.readTake(text).map(f => [f.at, f.head[0]])", take)
    assert frames[6][0] == pytest.approx(0.1) and frames[6][1] == pytest.approx(np.degrees(0.1))
    with pytest.raises(Exception, match="line 3 has no number for JawOpen"):
        page.evaluate("text => avatar.readTake(text)", take.replace("61,0.1,", "61,x,"))
    assert (shown(page) == still).all()


def test_the_camera_turns_by_keys(page):
    front = shown(page)
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    page.evaluate("avatar.render()")
    assert len(changed(front, shown(page))[0]) > 1000
    page.click("#front")
    assert np.abs(shown(page) - front).mean() < 0.2  # back, but for the last bit of a sine
