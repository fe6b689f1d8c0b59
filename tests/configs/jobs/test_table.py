"""table.html in a real browser with the network off: pictures, filter, order, links that lead somewhere."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from dp360.configs.jobs.results import PortraitResult
from dp360.configs.jobs.table import table_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_table_without_network(tmp_path):
    odd = "<b>zoé & #1?"
    for name in ("ada", odd):
        (tmp_path / name).mkdir()
        (tmp_path / "table").mkdir(exist_ok=True)
        Image.new("RGB", (432, 144), (200, 150, 120)).save(tmp_path / "table" / f"{name}.jpg")
        for file in ("contact_sheet.png", "head.ply", "head.spz"):
            (tmp_path / name / file).write_bytes(b"x")
    results = [
        PortraitResult(odd, "in/zoé.png", "done", "k", seconds=7.0, peak_memory_bytes=2_000_000_000),
        PortraitResult("ada", "in/ada.png", "done", "k", seconds=30.0, warnings=["Small."], exported=["head.spz"]),
        PortraitResult("sky", "in/sky.png", "refused", "k", error="sky.png: no face was found"),
        PortraitResult("bug", "in/bug.png", "crashed", "k", error="Traceback\n  <script>\nZeroDivisionError: nothing"),
    ]
    (tmp_path / "table.html").write_bytes(table_page(results, tmp_path))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked, faults = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.context.set_offline(True)
        page.goto((tmp_path / "table.html").as_uri())
        names = page.locator("tbody tr:visible th")
        assert names.first.inner_text().startswith(odd)
        expect(page.locator("#summary")).to_have_text("4 portraits: 2 done, 1 refused, 1 error")
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 432)")
        for link in page.locator("tbody a").all():
            page_path = link.evaluate("a => decodeURIComponent(new URL(a.href).pathname)")
            assert Path(page_path).is_file(), page_path
        expect(page.locator("tbody a", has_text="head.spz")).to_have_count(1)

        page.get_by_label("Find").fill("face SKY")
        expect(names).to_have_count(1)
        expect(page.locator("#count")).to_have_text("1 of 4")
        page.get_by_label("Find").fill("")
        page.get_by_label("Show").select_option("done")
        expect(names).to_have_count(2)
        page.get_by_label("with notes").check()
        expect(names).to_have_count(1)
        page.get_by_label("with notes").uncheck()
        page.get_by_role("button", name="Time").click()
        assert "ada" in names.all_inner_texts()[1]
        page.get_by_role("button", name="Time").click()
        assert "ada" in names.all_inner_texts()[0]
        assert {url.split(":")[0] for url in asked} <= {"file", "data"} and faults == []
        browser.close()
