"""The page: what was counted is what it says, names stay text, and nothing of it lies elsewhere."""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, words
from mm_metrics.counts.tally import Tally
from mm_metrics.extras import install
from mm_metrics.render import console, loggers, page, sections, tables
from tests.render_cards import HOSTILE, card, paradox

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "circle", "use", "rect", "image"}


class Read(HTMLParser):
    """Elements, attributes and visible text of a page; fails where tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def written(tmp_path):
    def write(cards, **options) -> Read:
        path = page.write(tmp_path / "report.html", cards, **options)
        html = path.read_text(encoding="utf-8")
        assert len(html.encode()) < 2 * 2**20
        read = Read(html)
        read.html = html
        return read

    return write


@pytest.mark.parametrize(
    "drawn",
    [
        card,
        lambda: card(("a",), task="binary"),
        lambda: card(("a", "b", "c", "d", "e", "f"), 31, 200, bootstrap=20),
        lambda: card(classes=1000, samples=300, bootstrap=10, coalitions=["all", "text"]),
        lambda: card(task="multilabel", classes=40, coalitions="leave_one_out"),
        lambda: card(absent=("audio",)),
        lambda: card(samples=0),
        lambda: card(bootstrap=0),
        lambda: card(coalitions=["text", "image", "audio"]),
        lambda: card(coalitions=["all"]),
    ],
    ids=["plain", "one", "six", "thousand", "labels", "nan", "empty", "nobootstrap", "heads", "counts"],
)
def test_page_of_every_card_is_whole_and_alone(drawn, written):
    shown = drawn()
    read = written(shown)
    assert "http" not in read.html
    assert "//" not in re.sub(r"data:image/png;base64,[^\"]*", "", read.html)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in read.elements}
    assert set(re.findall(r"url\((.)", read.html)) <= {"#"}
    ids = re.findall(r'\sid="([^"]+)"', read.html)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', read.html):
        assert target in ids
    assert not re.search(r"\bnan\b", read.said.replace(" ".join(shown.verdict().notes), ""), re.IGNORECASE)
    assert len(read.all("h1")) == 1


def test_first_screen_comes_first(written):
    shown = paradox()
    samples = [{"kind": "missed", "modality": "audio", "samples": list(range(4850, 4890)), "message": "Missed"}]
    said = written({"val": shown}, samples=samples).said
    first = said[said.index("5,000 samples") :]
    assert first.startswith(
        "5,000 samples BAD: audio recall 0.11 [.07, .17] on 150 audio events. Overall accuracy 0.96 hides it. "
        "Without text −62 points of F1 · image −8 · audio −2 "
        "Next: look at these 10 missed samples of audio: 4850,"
    )
    assert said.index("Next:") < said.index("By modality") < said.index("Confusion") < said.index("What was run")
    assert "4889" in said


def test_numbers_are_the_cards(written):
    shown = card()
    said = written(shown).said
    for score in ("accuracy", "precision", "recall", "f1"):
        low, high = shown.interval(score, slice="image")
        value = f"{shown.score(score, slice='image'):.2f} [{low:.2f}, {high:.2f}]"
        assert (
            value.replace("[0.", "[.").replace(" 0.", " .", 1) in said
            or value.replace("[0.", "[.").replace(", 0.", ", .") in said
        )
    drop = shown.contributions("f1")["audio"].drop
    assert f"+{100 * drop.value:.1f} [{100 * drop.low:.1f}, {100 * drop.high:.1f}]" in said
    for count in shown.confusion(slice="audio").flatten().tolist():
        assert str(count) in said


def test_the_worst_classes_have_a_table_with_intervals():
    shown = card(classes=30, samples=3000)
    table = sections.section(tables.of(shown)).worst
    recall, f1 = shown.class_estimates("recall"), shown.class_estimates("f1")
    assert [row[0] for row in table.rows] == sorted(recall, key=lambda name: recall[name].value)[:10]
    for name, _, *cells in table.rows:
        assert cells[0][:3] == tuple(recall[name])
        assert cells[2][:3] == tuple(f1[name])
    assert sections.section(tables.of(paradox())).worst is None


def test_every_picture_is_described_and_has_its_numbers(written):
    read = written(paradox())
    pictures = [svg for svg in read.all("svg") if svg.get("role") == "img"]
    assert len(pictures) == 4 + 3
    assert all(len(svg["aria-label"]) > 40 for svg in pictures)
    assert any("F1 by the modalities shown: text-image-audio 0.86 [.83, .88]" in svg["aria-label"] for svg in pictures)
    assert len(read.all("figure")) == len(read.all("details")) == len(pictures)
    assert len(read.all("table")) >= len(pictures)


def test_hostile_names_stay_text(written):
    evil = HOSTILE + "\x1b[31m\u202e"
    shown = card(class_names=[evil, "</svg>", "$x^2$", "{% raw %}"], info={"model": evil, evil: {evil: evil}})
    other = card(class_names=[evil, "</svg>", "$x^2$", "{% raw %}"], seed=1)
    read = written(
        {evil: shown, "<b>": other},
        samples=[{"kind": evil, "modality": evil, "samples": [evil], "message": evil}],
        history=[{"epoch": evil, f"{evil}/all/f1": 0.5, f"{evil}/text/f1": 0.4}],
        leakage=[{"kind": evil, "modality": evil, "splits": [evil, evil], "count": 3, "share": 0.5}],
        dynamics=[{"epoch": 0, f"{evil}/text": 0.5}],
    )
    assert not {"script", "b"} & ({tag for tag, _ in read.elements} - {"b"})
    assert len(read.all("b")) == 2, "the level of each verdict is bold, and nothing else"
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert "\x1b" not in read.html
    assert "\u202e" not in read.html
    assert "49" not in re.findall(r"\{\{.*?\}\}", read.said)
    assert "{{7*7}}" in read.said
    assert "<script>alert(1)</script>" in read.said
    inside = re.findall(r"<text[^>]*>([^<]*)</text>", read.html)
    assert any(part.startswith("&lt;script") for part in inside), "names in pictures are text too"
    assert "$x^2$" in inside, "and no formulas"


def test_two_cards_of_one_stage_are_compared(written):
    old, new = card(), card(skill=1.1)
    read = written({"old": old, "new": new})
    difference = new - old
    assert difference.paired
    value, low, high = difference.estimate("recall", slice="audio")
    assert f"+{100 * value:.1f} [{words.points(low).lstrip('+')}, {words.points(high).lstrip('+')}]" in read.said
    assert "Paired: both saw the same samples" in read.said
    assert "new less old" in read.said


def test_a_list_of_cards_is_numbered(written):
    assert "card 2 less card 1" in written([card(), card(skill=1.1)]).said
    assert "card 1" not in written([card()]).said


def test_stages_are_not_compared(written):
    assert "Compared" not in written({"val": card(), "test": card(seed=1)}).said
    same = {"a": card(info={"stage": "val"}), "b": card(info={"stage": "test"})}
    assert "Compared" not in written(same).said


def test_cards_that_do_not_compare_say_why(written):
    said = written({"a": card(), "b": card(classes=5)}).said
    assert "scorecards with different classes do not compare" in said


def test_samples_go_to_the_stage_they_name(written):
    samples = [
        {"kind": "missed", "modality": "audio", "samples": [11], "message": "Missed in validation", "stage": "val"},
        {"kind": "missed", "modality": "audio", "samples": [22], "message": "Missed in test", "stage": "test"},
    ]
    said = written({"val": card(), "test": card()}, samples=samples).said
    assert said.count("Missed in validation") == said.count("Missed in test") == 1
    assert said.index("Missed in validation") < said.index("Missed in test")


def test_history_leakage_and_dynamics(written):
    history = [
        {
            "epoch": e,
            "val/all/f1": 0.5 + e / 10,
            "val/audio/f1": float("nan"),
            "val/drop/text/f1": 0.1,
            "val/verdict": 0,
        }
        for e in range(3)
    ]
    read = written(
        {"val": card()},
        history=history,
        leakage=[{"kind": "exact", "modality": "audio", "splits": ("train", "test"), "count": 31, "share": 0.124}],
        dynamics=[{"epoch": 0, "dynamics/text/learning_speed": 0.5, "dynamics/audio/learning_speed": 0.25}],
    )
    assert "val: F1 by slice" in read.said
    assert "val: drop without a modality" in read.said
    assert "recall by slice" not in read.said
    assert "0 0.50" in read.said
    assert "2 0.70" in read.said
    assert "exact audio train → test 31 samples 12.4%" in read.said
    assert re.search(r"\blearning speed\b.*0 0\.50 0\.25", read.said)
    assert "No two splits share" in written(card(), leakage=[]).said
    assert "Leakage" not in written(card()).said


def test_the_page_needs_no_matplotlib(tmp_path, monkeypatch):
    with_it = page.write(tmp_path / "a.html", paradox()).read_bytes()
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert page.write(tmp_path / "b.html", paradox()).read_bytes() == with_it


def test_the_page_asks_each_interval_once(tmp_path, monkeypatch):
    asked = Counter()

    def counted(name):
        ask = getattr(Tally, name)

        def asking(self, score, coalition=None, slice="all", *args, **kwargs):
            asked[id(self), name, score, coalition or self.whole, slice] += 1
            return ask(self, score, coalition, slice, *args, **kwargs)

        monkeypatch.setattr(Tally, name, asking)

    old, new = card(), card(skill=1.1)
    verdicts = {"old": old.verdict(), "new": new.verdict()}
    for name in ("interval", "estimate"):
        counted(name)
    told = {name: tables.of(one, verdicts[name], name=name) for name, one in (("old", old), ("new", new))}
    for one in told.values():
        console.text(one)
        loggers.send([], one, "val", 0, tmp_path, "summary.png")
    page.write(tmp_path / "report.html", told)
    assert len(asked) > 50
    assert set(asked.values()) == {1}


def test_without_jinja_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=re.escape(install("jinja2"))):
        page.write(tmp_path / "report.html", card())


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = page.write(tmp_path / "deep" / "report.html", card())
    before = path.read_bytes()
    assert path == tmp_path / "deep" / "report.html"

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        page.write(path, card(seed=2))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_same_card_same_page(tmp_path):
    first = page.write(tmp_path / "a.html", paradox()).read_bytes()
    assert page.write(tmp_path / "b.html", paradox()).read_bytes() == first


def test_no_cards_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="cards is empty"):
        page.write(tmp_path / "report.html", {})


def test_cards_of_numbers_are_compared_in_their_own_unit_which_no_correlation_shares(tmp_path):
    random = torch.Generator().manual_seed(0)
    y = torch.randn(100, generator=random).clamp(-3, 3)

    def card(noise):
        metric = CoalitionConfusionMatrix(("text", "audio"), task="ordinal", edges="mosi", bootstrap=20)
        metric.update(y + noise * torch.randn(4, 100, generator=random), y, index=torch.arange(100))
        return metric.scorecard()

    new, old = card(0.2), card(0.4)
    page.write(tmp_path / "report.html", {"old": old, "new": new})
    written = (tmp_path / "report.html").read_text()
    assert "undredth" not in written
    told = sections.compared([tables.of(old), tables.of(new)], "val")
    models, (errors, scores, gains, _) = told.models, told.pictures
    assert models.columns[2:5] == ("MAE ↓", "Pearson correlation", "Acc-2")
    assert models.rows[0][2].value == pytest.approx(new.score("mae"))
    assert errors.tables[0][1].columns == ("slice", "MAE ↓")
    assert scores.tables[0][1].columns == ("slice", "Pearson correlation", "Acc-2", "F1 of Acc-2")
    fall = new.score("mae") - old.score("mae")
    assert all(words.points(fall, 1) in said for said in (errors.alt, errors.svg, written, (new - old).table()))
    assert words.points(new.score("pearson") - old.score("pearson")) in scores.alt
    assert words.points((new - old).contributions("mae")["text"].drop.value, 1) in gains.alt
    for picture, unit in ((errors, "MAE"), (scores, "points"), (gains, "MAE")):
        assert (f", differences in {unit}: " in picture.alt, f">{unit}</text>" in picture.svg) == (True, True)
    assert ", in MAE\n" in new.table()
    assert "oints of MAE" not in new.table() + (new - old).table() + written
