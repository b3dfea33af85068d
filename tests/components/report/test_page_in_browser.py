"""The page as a browser sees it: headless Chromium opens the very file, as wide as a phone and as a desk."""

from __future__ import annotations

import functools
import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import fabricated_run
import pytest

from components.job import Job
from components.report.stage import NEEDS, Params, run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip

# The page stands unchanged, its own policy in force, in a frame of a stated width; the script is not its own.
HARNESS = """<!doctype html><title>harness</title><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre id="seen"></pre>
<script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const inside = frame.contentDocument, root = inside.documentElement;
  const style = (query, what) => inside.defaultView.getComputedStyle(inside.querySelector(query))[what];
  document.getElementById("seen").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth,
    requests: inside.defaultView.performance.getEntriesByType("resource").map(e => e.name)
      .filter(n => !n.startsWith("data:")),
    sections: [...inside.querySelectorAll("main > section")].map(s => s.id),
    empty: [...inside.querySelectorAll("main > section")].filter(s => s.offsetHeight < 40).map(s => s.id),
    verdict: inside.querySelector("#verdict h2").innerText.trim(),
    charts: [...inside.querySelectorAll("svg.chart")].map(s => Math.round(s.getBoundingClientRect().width)),
    strips: inside.querySelectorAll("svg.strip").length,
    picture: inside.querySelector("img").naturalWidth,
    scripts: inside.scripts.length, paper: style("body", "backgroundColor"), ink: style("body", "color"),
    text: Math.min(...[...inside.querySelectorAll("p, td, th, li, dd")]
      .map(e => parseFloat(inside.defaultView.getComputedStyle(e).fontSize))),
  }});
}};
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    """A Chromium, or the test is skipped."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser to be had: none of {', '.join(BROWSERS)} is on PATH (apt-get install chromium)")


@functools.cache
def _page(labels: int, passed: bool, hostile: bool) -> str:
    with tempfile.TemporaryDirectory() as folder:
        root = fabricated_run.make(Path(folder), labels, passed, hostile)
        job = Job.at(root, "report", NEEDS, name="shapes")
        job.clear()
        run(Params(num_classes_shown=30), job)
        return (job.building / "index.html").read_text("utf-8")


def look(
    browser: str,
    folder: Path,
    width: int,
    labels: int = 3,
    passed: bool = True,
    hostile: bool = False,
    dark: bool = False,
) -> dict[str, Any]:
    """What the browser saw."""
    frame = folder / "harness.html"
    frame.write_text(HARNESS.format(width=width, page=html.escape(_page(labels, passed, hostile))), "utf-8")
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [
        browser,
        *QUIET,
        *scheme,
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,1000",
        "--dump-dom",
    ]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    assert found.group(1), done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.parametrize(("width", "labels"), [(390, 3), (390, 30), (320, 3), (1200, 30)])
def test_nothing_overflows_to_the_side(browser: str, tmp_path: Path, width: int, labels: int) -> None:
    seen = look(browser, tmp_path, width, labels)
    assert seen["width"] == width
    assert seen["scroll"] <= width


def test_long_hostile_labels_do_not_break_the_phone(browser: str, tmp_path: Path) -> None:
    seen = look(browser, tmp_path, 390, labels=6, passed=False, hostile=True)
    assert seen["scroll"] <= 390
    assert seen["scripts"] == 0


def test_sections_verdict_and_charts_are_seen(browser: str, tmp_path: Path) -> None:
    seen = look(browser, tmp_path, 390, passed=False)
    assert len(seen["sections"]) == 17
    assert seen["empty"] == []
    assert seen["verdict"].endswith("Refused")
    assert len(seen["charts"]) == 4
    assert all(300 <= width <= 390 for width in seen["charts"])
    assert seen["strips"] > 10
    assert seen["picture"] == 384
    assert seen["text"] >= 11


def test_nothing_is_requested(browser: str, tmp_path: Path) -> None:
    assert look(browser, tmp_path, 1200)["requests"] == []


def test_light_and_dark_differ_and_can_be_read(browser: str, tmp_path: Path) -> None:
    light, dark = (look(browser, tmp_path, 1200, dark=dark) for dark in (False, True))
    assert light["paper"] == "rgb(255, 255, 255)"
    for seen in (light, dark):
        assert contrast(seen["paper"], seen["ink"]) >= 7
    assert luminance(dark["paper"]) < 0.02


def test_the_harness_sees_an_overflow(browser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = _page(3, True, False).replace("<main>", '<main><div style="width:900px">wide</div>')
    monkeypatch.setitem(globals(), "_page", lambda *_: wide)
    assert look(browser, tmp_path, 390)["scroll"] > 390


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_colour_can_be_read_on_its_ground(repository: Path, dark: bool) -> None:
    """WCAG 2 AA: 4.5 to 1. Needs no browser."""
    style = (repository / "components/report/page.css").read_text("utf-8")
    light, night = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", light + (night if dark else "")))
    grounds = {
        "paper": ("ink", "muted", "accent", "good", "bad", "warn"),
        "sheet": ("ink", "muted", "good", "bad", "warn"),
    }
    grounds |= {f"{tone}-soft": ("ink", "accent", tone) for tone in ("good", "bad", "warn")}
    grounds |= {f"{side}{heat}": ("ink",) for side in "rw" for heat in (1, 2)}
    grounds |= {f"{side}{heat}": ("strong",) for side in "rw" for heat in (4, 5)}
    pairs = [(ground, text, colours[text]) for ground, texts in grounds.items() for text in texts]
    pairs += [(f"{side}3", "dark ink", "#0c1016") for side in "rw" if not dark]
    poor = [(g, t, round(c, 2)) for g, t, text in pairs if (c := contrast(colours[g], text)) < 4.5]
    assert not poor


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" or "#rrggbb" (WCAG 2)."""
    written = re.findall(r"\d+", colour)[:3] if colour.startswith("rgb") else [colour[i : i + 2] for i in (1, 3, 5)]
    parts = [int(v, 10 if colour.startswith("rgb") else 16) / 255 for v in written]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
