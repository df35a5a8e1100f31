"""The console's table: the verdict first, everything in 80 columns, whatever the names."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, QualityGate, Scorecard, words
from mm_metrics.render import console, phrases, tables
from mm_metrics.scorecard import Contribution, Estimate
from mm_metrics.verdict import Finding, Verdict
from tests.render_cards import HOSTILE, card, paradox

ROOT = Path(__file__).resolve().parents[1]
LONG = ("m" * 40, "image", "a" * 81)


def widths(text: str) -> list[int]:
    return [words.width(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda: card(),
        lambda: card(LONG, 3),
        lambda: card(("a",), task="binary"),
        lambda: card(("a", "b", "c", "d", "e", "f"), 3, 200),
        lambda: card(classes=1000, samples=300, bootstrap=0),
        lambda: card(task="multilabel", classes=3),
        lambda: card(absent=("audio",)),
        lambda: card(bootstrap=0),
        lambda: card(coalitions=["text", "image", "audio"]),
        lambda: card(coalitions="leave_one_out"),
        lambda: card(class_names=["音声" * 30, HOSTILE * 5, "c\nd", "\x1b[2J"]),
    ],
    ids=[
        "plain",
        "long",
        "one",
        "six",
        "thousand",
        "multilabel",
        "nan",
        "nobootstrap",
        "heads",
        "leaveoneout",
        "hostile",
    ],
)
@pytest.mark.parametrize("color", [False, True])
def test_fits_eighty_columns(drawn, color):
    said = console.text(drawn(), color=color)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert max(widths(bare)) <= 80
    assert "\x1b[2J" not in said, "a name must not move the cursor"
    assert "Scores by slice" in bare


def test_two_long_names_stay_apart():
    names = tuple(f"a_modality_whose_name_is_{which}_in_its_middle_only" for which in ("one", "two"))
    said = console.text(card(names, 3))
    assert all(name in said.splitlines() for name in names)


def test_wide_letters_fit_too():
    said = console.text(card(class_names=["音声認識" * 30, "b", "c", "d"], skill=0.2))
    assert max(widths(said)) <= 80
    assert "音" in said


def test_first_screen_is_headline_worth_next():
    verdict = paradox().verdict()
    samples = [{"kind": "missed", "modality": "audio", "samples": list(range(4850, 4890)), "message": ""}]
    said = " ".join(console.text(paradox(), samples=samples).split())
    assert said.startswith("BAD: audio recall 0.11 [.07, .17] on 150 audio events.")
    assert said.startswith(verdict.headline)
    rest = said.removeprefix(verdict.headline).strip()
    assert rest.startswith("Without text −62 points of F1 · image −8 · audio −2 Next: look at these 10 missed samples")
    assert "4850, 4851" in rest
    assert "4860" not in rest


def test_next_takes_the_weak_slice_first():
    samples = [
        {"kind": "missed", "modality": "all", "samples": [1], "message": ""},
        {"kind": "missed", "modality": "audio", "samples": [4850], "message": ""},
        {"kind": "right_only_with", "modality": "text", "samples": [7], "message": ""},
    ]
    assert tables.of(paradox()).weak == "audio"
    told = tables.of(paradox(), samples=samples)
    assert phrases.next_step(told) == "Next: look at this missed sample of audio: 4850"
    told = tables.of(paradox(), samples=samples[2:])
    assert phrases.next_step(told) == "Next: look at this sample right only with text: 7"


def test_next_names_the_largest_confusion_where_no_samples_were_kept():
    assert "look at “event” taken for “no event” on audio: 134 of 150 samples." in " ".join(
        console.text(paradox()).split()
    )


def test_numbers_are_the_cards():
    drawn = card()
    rows = {line.split()[0]: line for line in console.text(drawn).splitlines() if line}
    low, high = drawn.interval("recall", slice="audio")
    wanted = f"{drawn.score('recall', slice='audio'):.2f} [{low:.2f}, {high:.2f}]".replace("0.", ".").replace(
        ".", "0.", 1
    )
    said = console.text(drawn)
    row = next(line for line in said.splitlines() if line.startswith("audio") and f"{drawn.support('audio')}" in line)
    assert wanted in row
    drop = drawn.contributions("f1")["text"].drop
    assert f"+{100 * drop.value:.1f} [{100 * drop.low:.1f}, {100 * drop.high:.1f}]" in said
    assert "none" in rows


def test_empty_slice_shows_no_number():
    row = next(line for line in console.text(card(absent=("audio",))).splitlines() if line.startswith("audio"))
    assert row.split() == ["audio", "0", *["–"] * 4]


def test_without_bootstrap_no_interval_is_claimed():
    said = console.text(card(bootstrap=0))
    row = next(line for line in said.splitlines() if line.startswith("text-image-audio"))
    assert len(row.split()) == 6  # name, F1, accuracy, Wilson's interval's two ends, bar
    assert "nan" not in said


def given(**drops: Estimate) -> dict[str, Contribution]:
    """Contributions of which the drops are known."""
    nothing = Estimate(math.nan, math.nan, math.nan)
    return {name: Contribution(drop, nothing, nothing) for name, drop in drops.items()}


def test_worth_line_as_designed():
    line = phrases.worth(
        given(audio=Estimate(0.002, -0.01, 0.014), image=Estimate(0.031, 0.02, 0.04), text=Estimate(0.41, 0.38, 0.44))
    )
    assert line == "Without text −41 points of F1 · image −3 · audio −0.2 (not distinguishable from 0)"


def test_worth_line_of_a_modality_that_harms():
    assert phrases.worth(given(a=Estimate(-0.05, -0.07, -0.03))) == "Without a +5 points of F1"


def test_an_error_rises_without_what_helps():
    gains = {"text": Contribution(Estimate(0.41, 0.3, 0.5), *[Estimate(math.nan, math.nan, math.nan)] * 2)}
    assert phrases.worth(gains, "mae") == "Without text +0.41 MAE"


def test_worth_of_heads_is_what_each_gains_alone():
    assert phrases.worth(tables.of(card(coalitions=["text", "image", "audio"])).gains).startswith("Alone text +")


def test_worth_is_silent_where_only_all_was_counted():
    assert phrases.worth(tables.of(card(coalitions=["all"])).gains) == ""


@pytest.mark.parametrize("columns", range(1, 20))
def test_shortened_keeps_both_ends(columns):
    name = words.shortened("beginning_and_end", columns)
    assert words.width(name) == min(columns, 17)
    if columns > 2:
        assert name[0] == "b"
        assert name[-1] == "d"


def test_print_survives_a_terminal_without_the_letters():
    class Ascii(io.StringIO):
        encoding = "ascii"

    out = Ascii()
    console.print_card(card(), file=out)
    assert "points of F1 | " in out.getvalue()
    assert out.getvalue().isascii()


def test_colors_only_where_asked():
    assert "\x1b[" not in console.text(card())
    assert "\x1b[1;32m" in console.text(card(samples=4000, skill=1.9), color=True)
    plain = re.sub(r" *(\x1b\[[\d;]*m)+$", "", console.text(card(), color=True), flags=re.MULTILINE)
    assert re.sub(r"\x1b\[[\d;]*m", "", plain) == console.text(card())


def test_card_table_is_this():
    assert card().table(width=60) == console.text(card(), width=60)


def test_telling_coalitions_of_many():
    drawn = card(("a", "b", "c", "d", "e", "f"), 2, 50)
    shown = tables.of(drawn).telling
    assert len(shown) == 14
    assert shown[0] == "a-b-c-d-e-f"
    assert shown[-1] == "none"


def test_no_value_reads_as_the_bar_that_it_missed():
    metric = ModalityConfusionMatrix(("text",), task="binary")
    metric.update(torch.tensor([1] * 1249 + [0] * 1251), torch.ones(2500, dtype=torch.int64))
    verdict = metric.scorecard().verdict(QualityGate(recall=(0.5, 0.7)))
    low = next(f for f in verdict.findings if f.kind == "low_recall" and f.modality == "all")
    assert low.value < low.threshold
    assert f"{low.threshold:.2f} [" not in low.message
    assert "0.4996 [" in low.message


def test_the_bar_line_shows_the_bars_that_were_given():
    verdict = paradox().verdict(QualityGate(recall={"audio": (0.7, 0.9)}, f1=0.6))
    assert "given: audio recall good above 0.90 and bad below 0.70; F1 good above 0.60 and" in verdict.notes[0]
    assert "0.85 and recall 0.80" in paradox().verdict().notes[0]


def test_one_more_finding_is_one():
    many = card(classes=3, skill=0.3)
    verdict = many.verdict()
    found = verdict.findings[0]
    for count, wanted in ((6, "1 more finding"), (7, "2 more findings")):
        apart = [found._replace(kind=f"low_{i}", message=f"finding {i}") for i in range(count)]
        said = console.text(many, verdict=replace(verdict, findings=tuple(apart)))
        assert said.count(f"- and {wanted}\n") == 1


def test_findings_that_are_alike_are_one_line_with_a_list():
    many = card(classes=20, samples=2000, skill=0.5)
    told = tables.of(many)
    lines = [phrases.group(told, found) for found in told.findings]
    assert sum(map(len, told.findings)) == len(many.verdict().findings) > 3 * len(lines)
    grouped = [(found, listed) for found, (_, listed) in zip(told.findings, lines, strict=True) if len(found) > 1]
    assert grouped
    for found, listed in grouped:
        assert len({(f.kind, f.level, f.score, f.threshold) for f in found}) == 1
        worst = (max if found[0].score == "unbalanced" else min)(found, key=lambda f: f.value)
        assert listed.startswith(worst.class_name or worst.modality)


def test_slices_that_are_the_whole_are_a_sentence():
    metric = ModalityConfusionMatrix(("text", "audio"), num_classes=2)
    target = torch.arange(60) % 2
    metric.update(target, target, torch.stack([torch.ones(60), target], dim=1).bool())
    told = tables.of(metric.scorecard())
    assert told.folded == ("text",)
    assert told.distinct == ("all", "audio")
    said = console.text(told)
    assert "text counts every sample: what is said of all is said of it." in said
    rows = [line for line in said.splitlines() if line.startswith(("all ", "text ", "audio "))]
    assert [line.split()[:2] for line in rows] == [["all", "60"], ["audio", "30"], ["text", "counts"]]


def test_a_table_of_several_names_its_loader():
    told = tables.of(card(), name="val_1")
    assert console.text(told, named=True).startswith("val_1, 400 samples\n")
    assert "val_1" not in console.text(told)


def test_the_headline_score_is_what_table_page_and_findings_speak_of(tmp_path):
    shown = card(info={"headline": "f1_weighted"}, skill=1.6)
    told = tables.of(shown)
    assert told.score == shown.headline == "f1_weighted"
    assert told.gains["text"].drop == shown.contributions("f1_weighted")["text"].drop
    said = console.text(told)
    assert "points of weighted F1" in said
    assert "points of F1\n" not in said
    dominant = card(coalitions="all", info={"headline": "accuracy"}, skill=1.9).verdict()
    about = [f for f in dominant.findings if f.kind in ("dominant_modality", "unused_modality")]
    assert {f.score for f in about} <= {"accuracy"}
    for wrong in ("no_such_score", "auroc", "f1_none", 7):
        assert card(info={"headline": wrong}).headline == "f1"


def test_the_readme_quotes_what_the_paradox_story_prints():
    """Its card is kept as the story wrote it; the numbers of samples to look at are in another file."""
    told = tables.of(Scorecard.from_json(ROOT / "tests" / "golden" / "paradox.json"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"> **{told.verdict.headline}**" in readme
    assert f"> {phrases.worth(told.gains, told.score)}\n" in readme
    assert told.estimate("accuracy").text == "0.98"
    assert told.estimate("recall", slice="audio").text == "0.12"


def test_the_slices_of_an_ordinal_card_show_errors_and_correlations():
    metric = ModalityConfusionMatrix(("text",), task="ordinal", edges="mosi", bootstrap=20)
    y = torch.linspace(-3, 3, 40)
    metric.update(y.flip(0) * 0.1 + y * 0.9, y)
    told = tables.Tables(metric.scorecard())
    assert told.scores.columns[2:] == ("MAE ↓", "Pearson correlation", "Acc-2", "F1 of Acc-2")
    assert "MAE ↓" in console.text(metric.scorecard())


@pytest.mark.parametrize("scale", [0.001, 1.0, 150.0])
def test_large_and_small_numbers_keep_to_the_columns(scale):
    random = torch.Generator().manual_seed(0)
    metric = CoalitionConfusionMatrix(("text", "audio"), task="ordinal", edges="mosi", bootstrap=20)
    target = scale * torch.randn(200, generator=random)
    metric.update(scale * torch.randn(4, 200, generator=random), target, index=torch.arange(200))
    made = metric.scorecard()
    for width in (60, 80, 100):
        said = console.text(made, width=width)
        assert max(map(words.width, said.splitlines())) <= width
        assert f"\ntext-audio {words.score(made.score('mae'))}" in said.replace("  ", " ")


def test_next_looks_at_the_class_of_the_first_finding():
    def finding(name: str | None) -> Finding:
        return Finding("low_recall", "all", "recall", 0.3, 0.2, 0.4, 0.5, "a message", "bad", name)

    samples = [
        {"kind": "missed", "modality": "all", "class": None, "samples": [1, 2]},
        {"kind": "taken_for", "modality": "all", "class": "b", "samples": [5]},
        {"kind": "missed_class", "modality": "all", "class": "a", "samples": [9, 3]},
    ]
    for name, said in (
        (None, "these 2 missed samples: 1, 2"),
        ("a", "these 2 missed samples of a: 9, 3"),
        ("b", "this sample taken for b: 5"),
    ):
        told = tables.of(card(), Verdict("bad", True, (finding(name),), "BAD", ()), samples)
        assert phrases.next_step(told) == f"Next: look at {said}"


def test_next_looks_at_the_lower_one_of_precision_and_recall():
    made, seen = card(), set()
    for name in made.names:
        samples = [
            {"kind": kind, "modality": "all", "class": name, "samples": [7]} for kind in ("missed_class", "taken_for")
        ]
        imprecise = made.class_scores("precision")[name] < made.class_scores("recall")[name]
        for score, taken in (("unbalanced", imprecise), ("f1", imprecise), ("precision", True), ("recall", False)):
            finding = Finding("low", "all", score, 0.3, 0.2, 0.4, 0.5, "a message", "bad", name)
            told = tables.of(made, Verdict("bad", True, (finding,), "BAD", ()), samples)
            said = f"this sample taken for {name}" if taken else f"this missed sample of {name}"
            assert phrases.next_step(told) == f"Next: look at {said}: 7"
        seen.add(imprecise)
    assert seen == {True, False}


def test_next_looks_at_false_alarms_where_precision_is_low():
    target = torch.arange(200) % 10 == 0
    for said, wanted in ((target | (torch.arange(200) % 2 == 0), "false alarm"), (target & False, "missed sample")):
        metric = ModalityConfusionMatrix(("text",), task="binary")
        metric.update(said.long(), target.long())
        found = [{"kind": kind, "modality": "all", "class": None, "samples": [7]} for kind in ("missed", "false_alarm")]
        assert phrases.next_step(tables.of(metric.scorecard(), None, found)) == f"Next: look at this {wanted}: 7"


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_only_what_is_cut_has_a_threshold(task):
    """A model that nearly always says one class, in words that fit what can be turned."""
    target = torch.arange(200) % 2
    said = torch.where(torch.arange(200) < 20, target, 1 if task != "multiclass" else 0)
    sizes = {"multiclass": {"num_classes": 2}, "binary": {}, "multilabel": {"num_labels": 1}}[task]
    metric = ModalityConfusionMatrix(("text",), task=task, **sizes)
    column = (slice(None), None) if task == "multilabel" else slice(None)
    metric.update(said[column], target[column])
    told = [f.message for f in metric.scorecard().verdict().findings if f.score == "unbalanced"]
    assert told
    assert all(("decision threshold" in message) == (task != "multiclass") for message in told)
