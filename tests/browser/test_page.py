"""The smoke test's page as a browser shows it, of a made-up result with hostile text in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from provision.smoke.result import harmless
from runtime.smoke.formats.page import page
from tests.conftest import RecordRefusal

RESULT = Path(__file__).parents[1] / "cases/smoke/page.json"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
WIDTH, HEIGHT = 1200, 1600
# Appended for the test only: what the browser made of the page, written into its title.
PROBE = """<script>
const box = (element) => element.getBoundingClientRect();
const colour = (element) => getComputedStyle(element).backgroundColor;
document.title = JSON.stringify({
  wide: document.documentElement.scrollWidth,
  first: box(document.querySelector("table")).top,
  drawn: [...document.querySelectorAll("svg")].map((svg) => [box(svg).width, box(svg).height]),
  colours: [...new Set([...document.querySelectorAll("td[style]")].map(colour))].length,
  loaded: performance.getEntriesByType("resource").map((one) => one.name),
});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    """A Chromium; without one the tests are skipped, or fail with REQUIRE_BROWSER=1."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but there is none of {', '.join(BROWSERS)}")
    if found is None:
        pytest.skip(f"there is none of {', '.join(BROWSERS)}")
    return found


def visit(browser: str, folder: Path, *options: str) -> str:
    """What the browser prints when it opens the page that is in the folder."""
    opened = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"),
            *options,
            f"file://{folder / 'page.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return opened.stdout


def pixels(png: bytes) -> tuple[int, int, int]:
    """Width, height and how many different rows of pixels an image has."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    at, packed = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    row = 1 + width * {2: 3, 6: 4}[kind]
    raw = zlib.decompress(packed)
    return width, height, len({raw[start : start + row] for start in range(0, len(raw), row)})


def test_the_page_is_drawn_whole_and_loads_nothing(browser: str, tmp_path: Path) -> None:
    text = page(json.loads(RESULT.read_text()))
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{PROBE}</body>"))

    dom = visit(browser, tmp_path, "--dump-dom")

    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    seen: dict[str, Any] = json.loads(found[1])
    assert seen["loaded"] == []
    assert seen["wide"] <= WIDTH
    assert seen["first"] < HEIGHT / 4
    assert seen["drawn"]
    assert all(width > 300 and height > 100 for width, height in seen["drawn"])
    assert seen["colours"] >= 3


def test_a_screenshot_shows_it(browser: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page(json.loads(RESULT.read_text())))
    image = tmp_path / "page.png"

    visit(browser, tmp_path, f"--screenshot={image}")

    width, height, rows = pixels(image.read_bytes())
    assert (width, height) == (WIDTH, HEIGHT)
    assert rows > HEIGHT / 4


# Each would write into the title of the page around it, or load something, if it could.
HOSTILE = """<!doctype html><title>a node's page</title><p id="text">shown</p>
<script>parent.document.title = "script ran"; top.document.title = "script ran";</script>
<img src="file:///etc/hostname" onerror="parent.document.title = 'handler ran'">
<svg onload="parent.document.title = 'handler ran'"></svg>
<link rel="stylesheet" href="file:///etc/hostname">
<meta http-equiv="refresh" content="0; url=file:///etc/hostname">
<a id="away" href="javascript:parent.document.title = 'link ran'">away</a>
<form action="file:///etc/hostname"><input name="x"></form>
</iframe><script>document.title = "left its frame"</script>"""
WATCH = """<script nonce="watch">
addEventListener("load", () => setTimeout(() => {
  document.title = JSON.stringify({
    title: document.title,
    loaded: performance.getEntriesByType("resource").map((one) => one.name),
    reached: document.querySelector("iframe").contentDocument !== null,
    wide: document.documentElement.scrollWidth,
    high: document.querySelector("iframe").getBoundingClientRect().height,
  });
}, 500));
</script>"""


@pytest.mark.attack("node")
def test_a_page_that_a_node_made_is_shown_and_can_do_nothing(
    browser: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    around = harmless(HOSTILE, title="Smoke test <of te1>").replace(
        "default-src 'none';", "default-src 'none'; script-src 'nonce-watch';"
    )
    (tmp_path / "page.html").write_text(around.replace("</body>", f"{WATCH}</body>"))

    dom = visit(browser, tmp_path, "--dump-dom", "--virtual-time-budget=2000")

    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    seen: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">"))
    record_refusal(f"the browser: loaded {seen['loaded']}, reached its parent: {seen['reached']}")
    assert seen["title"] == "Smoke test <of te1>"
    assert seen["loaded"] == []
    assert not seen["reached"]
    assert seen["wide"] <= WIDTH
    assert seen["high"] > HEIGHT / 2


def test_a_frame_around_the_page_shows_what_the_page_shows(browser: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(harmless(page(json.loads(RESULT.read_text())), title="Smoke test"))
    image = tmp_path / "page.png"

    visit(browser, tmp_path, f"--screenshot={image}")

    _, _, rows = pixels(image.read_bytes())
    assert rows > HEIGHT / 4
