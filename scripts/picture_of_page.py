"""Draw docs/page.png: the page of `dp360 serve` with the example's head, on a laptop and, in the dark, on a phone.

    python scripts/picture_of_page.py [docs/page.png]

Makes the example's head through the page itself, in a real browser (chromium), without any request to another machine.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

LAPTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 860}
GAP_PX, GROUND = 28, (238, 240, 242)
LONGEST_MS = 600_000
MOST_LOOKS, EVERY_MS = 150, 2_000
LEAST_COLOURS = 4_000
"""A head has more in the viewer's frame than the viewer itself before it has loaded one."""


def opened(browser: Browser, address: str, **settings: object) -> Page:
    """A page of its own context that follows no address elsewhere."""
    page = browser.new_context(**settings).new_page()
    page.route("**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
    page.goto(address)
    return page


def shot(page: Page) -> Image.Image:
    """What is on the screen once the head is seen; without a GPU the viewer takes a while."""
    for _ in range(MOST_LOOKS):
        page.wait_for_timeout(EVERY_MS)
        seen = Image.open(io.BytesIO(page.locator("#panel-turn iframe").screenshot())).convert("RGB")
        if seen.getcolors(LEAST_COLOURS) is None:  # there are more
            return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    sys.exit("picture_of_page.py: the viewer showed no head")


def main(path: Path) -> None:
    """Serve, make a head, and put both pictures side by side."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("picture_of_page.py: needs chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        command = [sys.executable, "-m", "dp360.configs.cli", "serve", "--work", work, "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        )
        try:
            page = opened(browser, address, viewport=LAPTOP)
            page.get_by_role("button", name="Try the example").click()
            page.get_by_role("button", name="Make the head").click(timeout=LONGEST_MS)
            page.locator("#panel-turn iframe").wait_for(timeout=LONGEST_MS)
            laptop, head = shot(page), page.url
            phone = shot(opened(browser, head, viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True))
        finally:
            browser.close()
            server.terminate()
            server.wait()
    height = max(laptop.height, phone.height)
    whole = Image.new("RGB", (laptop.width + phone.width + 3 * GAP_PX, height + 2 * GAP_PX), GROUND)
    whole.paste(laptop, (GAP_PX, GAP_PX))
    whole.paste(phone, (laptop.width + 2 * GAP_PX, GAP_PX))
    whole.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/page.png"))
