"""Who reads the page by keyboard, by ear or with weak eyes: what a checker of accessibility asks, without a browser."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mm_metrics.render import draw, page
from tests.render_cards import card, paradox

VOID = {"meta", "img", "br", "link", "input"}
CSS = (Path(page.__file__).parent / "page.css").read_text()


class Tree(HTMLParser):
    """Elements with their attributes, text and the elements around them, in the order of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "inside": [one["tag"] for one in self.open], "parts": [], **dict(attributes)}
        for one in self.open:
            one["parts"].append(element)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        while self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for one in self.open:
            one["text"] += data

    def all(self, *tags: str) -> list[dict]:
        return [one for one in self.elements if one["tag"] in tags]


def reports() -> dict:
    tone = (np.sin(np.arange(8000) / 9), 8000)
    content = {"text": "words", "image": np.zeros((9, 9, 3), np.uint8), "audio": tone}
    row = {"number": 7, "target": "a", "prediction": "b", "coalitions": {"audio": "a"}, "content": content}
    found = [{"message": name, "of": 30, "rows": [row | {"number": i} for i in range(3)]} for name in ("x", "y")]
    rows = [{"epoch": e, "val/all/f1": e / 9, "val/text/f1": e / 8, "val/drop/text/f1": 0.1} for e in range(4)]
    leaks = [{"kind": "exact", "modality": "audio", "splits": ["train", "val"], "count": 3, "share": 0.1}]
    listed = [{"kind": "missed", "modality": "audio", "samples": [1, 2], "message": "missed"}]
    more = {"shown": found, "history": rows, "leakage": leaks, "samples": listed}
    return {
        "one": ({"val": paradox()}, more),
        "two": ({"val": card(), "test": card(seed=1)}, more),
        "compared": ({"old": card(), "new": card(skill=1.1)}, {}),
        "labels": (card(task="multilabel", classes=6), {}),
        "plain": (card(("a",), task="binary", bootstrap=0), {}),
    }


@pytest.mark.parametrize("name", reports())
def test_what_a_checker_of_accessibility_asks(name, tmp_path):
    cards, options = reports()[name]
    tree = Tree(page.write(tmp_path / "page.html", cards, **options).read_text())
    (root,) = tree.all("html")
    assert root["lang"] == "en"
    assert tree.all("title")[0]["text"].strip()
    levels = [int(one["tag"][1]) for one in tree.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(new - old <= 1 for old, new in itertools.pairwise(levels)), levels
    assert all(one["text"].strip() for one in tree.all("h1", "h2", "h3", "h4", "summary", "a", "th"))
    names = [one["id"] for one in tree.elements if "id" in one]
    assert len(names) == len(set(names))
    for one in tree.elements:
        assert one.get("aria-labelledby", names[0] if names else "") in [*names, ""]
        assert not one.get("href", "#").startswith("#") or one.get("href", "#")[1:] in [*names, ""]
    for figure in tree.all("figure"):
        drawings = [one for one in figure["parts"] if one["tag"] == "svg"]
        assert all(one["role"] == "img" and len(one["aria-label"]) > 20 for one in drawings)
        assert [one for one in figure["parts"] if one["tag"] == "table"], "a figure has its numbers"
    for one in tree.all("svg"):
        assert one.get("aria-hidden") == "true" or one.get("aria-label")
    assert all(one["alt"] for one in tree.all("img"))
    assert all(one["aria-label"] for one in tree.all("audio", "nav"))
    assert all(one["scope"] in ("col", "row") for one in tree.all("th"))
    landmarks = [one.get("aria-label") for one in tree.elements if one.get("role") == "region"]
    assert len(landmarks) == len(set(landmarks))
    for one in tree.elements:
        if "tabindex" in one:
            assert one["tabindex"] == "0"
            assert one["aria-label"]
    assert len(tree.all("main")) == 1


def colors(css: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([a-z0-9]+): #([0-9a-f]{3,6})\b", css)
    return {name: rgb(code if len(code) == 6 else "".join(2 * c for c in code)) for name, code in found}


def rgb(code: str) -> tuple[float, ...]:
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2, success criterion 1.4.3."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color] for color in (one, other)]
    light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light[1] + 0.05) / (light[0] + 0.05)


SCHEMES = {
    "light": colors(CSS[: CSS.index("@media")]),
    "dark": colors(CSS[: CSS.index("@media")]) | colors(CSS[CSS.index("@media screen") : CSS.index("* {")]),
    "print": colors(CSS[: CSS.index("@media")]) | colors(CSS[CSS.index("@media print") :]),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_contrast_is_that_of_aa(scheme):
    of = SCHEMES[scheme]
    assert round(contrast((0, 0, 0), (1, 1, 1)), 6) == 21
    for behind in ("page", "card"):
        for name in ("ink", "muted", "accent", "good", "mixed", "bad", "undecided"):
            if behind == "page" and name not in ("ink", "muted", "accent"):
                continue  # a level stands on its card
            if scheme == "print" and name in ("accent",):
                continue  # links and summaries are not printed
            assert contrast(of[name], of[behind]) >= 4.5, (name, behind)
    for name in ("c0", "c1", "c2", "c3", "c5"):  # marks, success criterion 1.4.11
        assert contrast(of[name], of["card"]) >= 3, name
    for name in ("c0", "c5"):  # numbers in the strongest cell
        cell = tuple(draw._FULL * c + (1 - draw._FULL) * b for c, b in zip(of[name], of["card"], strict=True))
        assert contrast(of["ink"], cell) >= 4.5, name
