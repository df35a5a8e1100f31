"""The page in a real browser: three widths, light and dark, nothing cut off, nothing fetched."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from mm_metrics.render import page
from tests.render_cards import HOSTILE, card, paradox

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
WIDTHS = (390, 820, 1440)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]
DARK = "--blink-settings=preferredColorScheme=0"

# The window can't be as narrow as a phone, a frame can; what is measured comes back in the page's own text.
MEASURE = """
<script>
function measure(frame) {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const name = e => (e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.trim()).slice(0, 60);
  const inside = e => e.closest('.scroll') === null && e.closest('svg') === null;
  const all = [...page.body.querySelectorAll('*')];
  const style = e => frame.contentWindow.getComputedStyle(e);
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const card = light(style(page.querySelector('.card')).backgroundColor);
  const contrast = e => { const a = light(style(e).color);
    return (Math.max(a, card) + 0.05) / (Math.min(a, card) + 0.05); };
  return {
    width, page: page.documentElement.scrollWidth,
    wide: all.filter(e => inside(e) && e.getBoundingClientRect().right > width + 1).map(name),
    scrolled: [...page.querySelectorAll('.slices')].map(e => e.parentNode.scrollWidth - e.parentNode.clientWidth),
    cut: [...page.querySelectorAll('svg[role=img] text')].filter(e => {
      const a = e.getBoundingClientRect(), b = e.ownerSVGElement.getBoundingClientRect();
      return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2;
    }).map(name),
    squeezed: [...page.querySelectorAll('figcaption > :first-child')].filter(e =>
      e.getBoundingClientRect().width < 100 && e.getBoundingClientRect().height > 60).map(name),
    small: [...page.querySelectorAll('svg[role=img] text')].map(e =>
      parseFloat(style(e).fontSize) * e.ownerSVGElement.getBoundingClientRect().width
        / e.ownerSVGElement.viewBox.baseVal.width).reduce((a, b) => Math.min(a, b), 99),
    pale: all.filter(e => inside(e) && e.children.length === 0 && e.textContent.trim() && e.closest('.card, .tiles'))
      .filter(e => contrast(e) < 4.5).map(e => name(e) + contrast(e)),
    fetched: frame.contentWindow.performance.getEntriesByType('resource').map(e => e.name),
    dark: card < 0.2, scripts: page.scripts.length, title: page.title, height: page.documentElement.scrollHeight,
  };
}
addEventListener('load', () => {
  document.getElementById('out').textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(measure));
});
</script><pre id="out"></pre>
"""


def chromium(tmp_path, url: str, *flags: str) -> str:
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(tmp_path, report, *flags: str) -> list[dict]:
    source = html.escape(report.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe srcdoc="{source}" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS)
    outer = tmp_path / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8">{MEASURE}{frames}', encoding="utf-8")
    dom = chromium(tmp_path, outer.as_uri(), "--dump-dom", "--window-size=1600,1000", *flags)
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)
    return json.loads(html.unescape(found[1]))


def history() -> list[dict]:
    return [
        {"epoch": e, **{f"val/{name}/f1": 0.1 * i + e / 20 for i, name in enumerate(("all", "text", "image", "audio"))}}
        for e in range(8)
    ]


def reports() -> dict:
    hostile = [HOSTILE * 3, "</svg><h1>", "音声認識" * 10, "w" * 300]
    samples = [{"kind": "missed", "modality": "audio", "samples": list(range(10**9, 10**9 + 50)), "message": "m" * 200}]
    leakage = [{"kind": "exact", "modality": "audio", "splits": ["train", "test"], "count": 31, "share": 0.12}]
    return {
        "paradox": lambda: ({"val": paradox()}, {"samples": samples, "history": history(), "leakage": leakage}),
        "hostile": lambda: ({HOSTILE: card(class_names=hostile, info={"path": "x" * 400})}, {}),
        "six": lambda: (card(("text", "image", "audio", "video", "depth_camera", "g" * 40), 12, 200, bootstrap=20), {}),
        "thousand": lambda: (card(classes=1000, samples=400, bootstrap=0, coalitions=["all", "text"]), {}),
        "labels": lambda: (card(task="multilabel", classes=6, absent=("audio",)), {}),
        "scores": lambda: (card(task="multilabel", classes=3, scores=("auroc", "calibration_error")), {}),
        "compared": lambda: ({"old": card(), "new": card(skill=1.1)}, {}),
        "one": lambda: (card(("a",), task="binary"), {}),
    }


@pytest.mark.parametrize("name", reports())
def test_nothing_is_cut_off_or_fetched(name, tmp_path):
    cards, options = reports()[name]()
    report = page.write(tmp_path / "report.html", cards, **options)
    for dark, flags in ((False, ()), (True, (DARK,))):
        found = measured(tmp_path, report, *flags)
        assert [frame["width"] for frame in found] == list(WIDTHS)
        for frame in found:
            assert frame["dark"] is dark
            assert frame["page"] <= frame["width"]
            assert frame["wide"] == []
            assert frame["cut"] == []
            assert frame["squeezed"] == [], "a heading beside its note"
            assert frame["pale"] == []
            assert frame["fetched"] == []
            assert frame["scripts"] == 0
            assert frame["small"] > (5 if name == "thousand" else 6), "letters in pictures, in pixels"
        if name not in ("six",):
            assert max(max(frame["scrolled"]) for frame in found) <= 0, "the table by modality fits a phone"


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot_in_light_and_dark(dark, tmp_path):
    from PIL import Image

    report = page.write(tmp_path / "report.html", {"val": paradox()})
    shot = tmp_path / "shot.png"
    chromium(tmp_path, report.as_uri(), f"--screenshot={shot}", "--window-size=1440,1000", *([DARK] if dark else []))
    with Image.open(shot) as opened:
        image = opened.convert("L")
    assert image.size == (1440, 1000)
    pixels = sorted(image.tobytes())
    middle = pixels[len(pixels) // 2]
    assert middle < 60 if dark else middle > 230
    assert pixels[0] < 60
    assert pixels[-1] > 200
