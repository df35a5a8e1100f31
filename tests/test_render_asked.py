"""What was asked is shown, what holds nothing is not, and what is shown can be read."""

import re

import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, words
from mm_metrics.render import console, curves, draw, phrases, tables
from mm_metrics.render.tables import Number, Table

SCORES = ("auroc", "average_precision", "dprime", "brier", "log_loss", "calibration_error")


def card(seed=0, *, coalitions=("text", "audio", "text-audio"), values=("de", "en"), N=200, **more):
    draw_ = torch.Generator().manual_seed(seed)
    target = torch.arange(N) % 3
    logits = torch.randn(len(coalitions), N, 3, generator=draw_) + 2 * torch.nn.functional.one_hot(target, 3)
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), num_classes=3, coalitions=list(coalitions), bootstrap=100, by={"lang": ["de", "en"]}, **more
    )
    presence = torch.stack([torch.ones(N), (torch.arange(N) % 2)], dim=1).bool()
    lang = [values[i % len(values)] for i in range(N)]
    metric.update(logits.softmax(-1), target, presence, index=torch.arange(N), by={"lang": lang})
    return metric.scorecard()


def numbers(told: Table) -> list[Number]:
    return [cell for row in told.rows for cell in row if isinstance(cell, Number)]


def test_the_console_shows_every_score_that_was_asked_for():
    made = card(scores=SCORES)
    made.info["scores"] = ["auroc", "f1_weighted", "specificity", "f1", "nonsense", 3]  # as a monitor's scores=
    said = console.text(made)
    for name in (*SCORES, "f1_weighted", "specificity"):
        assert words.heading(name) in said, name
        value = made.estimate(name, slice="audio")
        assert f"{words.score(value.value)} {words.interval(*value[1:])}" in said, name
    assert "Beyond these" not in console.text(card())
    made.info["scores"] = 3
    assert "f1_weighted" not in console.text(made)


@pytest.mark.parametrize("width", [60, 80])
def test_no_interval_is_left_out_for_want_of_room(width):
    difference = card(1) - card(2)
    said = re.sub(r"\s+", " ", difference.table(width=width))
    estimates = [
        difference.estimate(score, slice=slice)
        for score in ("accuracy", "precision", "recall", "f1")
        for slice in ("all", "audio", "lang/de", "lang/en")
    ]
    for value in estimates:
        assert words.points_estimate(value) in said
    assert max(map(words.width, difference.table(width=width).splitlines())) <= width
    told = tables.of(card(scores=SCORES))
    assert all(number.interval in console.text(told, width=width) for number in numbers(told.further))


def test_a_value_that_was_named_is_no_other():
    named, strays = (tables.of(card(values=values)) for values in (("de", "en"), ("de", "fr")))
    assert "lang/other" not in named.supports
    assert strays.supports["lang/other"] == 100
    assert strays.supports["lang/en"] == 0  # which was asked for
    assert "other" not in console.text(named) + phrases.folded(named)


def test_columns_that_hold_nothing_are_left_out():
    nothing, something = Number(float("nan")), Number(0.5)
    told = Table(("slice", "n", "a", "b"), [("all", 3, nothing, something), ("x", 0, nothing, nothing)])
    assert told.filled == Table(("slice", "n", "b"), [("all", 3, something), ("x", 0, nothing)])
    assert Table(("slice", "a"), []).filled.columns == ("slice", "a")
    bare = Table(("slice", "a"), [("all", nothing)])
    assert bare.filled == bare
    assert "text" in console.text(card(N=0))  # with bars of nothing
    shown = console.text(card(coalitions=["text-audio", "text"]))
    assert "drop without it" in shown
    assert "Shapley value" not in shown


def test_a_guess_that_stands_in_for_nothing_shown_is_said():
    coalitions = ("text", "audio", "text-audio")
    assert "guessing the majority class" in phrases.guessed(tables.of(card(coalitions=coalitions)))
    assert phrases.guessed(tables.of(card(coalitions=("none", *coalitions)))) == ""
    assert phrases.guessed(tables.of(card(coalitions=("text-audio",)))) == ""


def test_facts_are_words():
    made = card()
    made.info.update(files=["a.csv", "b.csv"], unused_group="speaker", threshold={"values": [0.5]}, verified=True)
    facts = dict(tables.of(made).facts)
    assert facts["files"] == "a.csv, b.csv"
    assert facts["unused group"] == "speaker"
    assert facts["threshold"] == "values 0.5"
    assert facts["verified"] == "yes"
    assert not re.search(r"[\[\]'{}_]", "".join(facts) + "".join(facts.values()))


def test_every_line_of_a_picture_is_named_inside_it():
    line = curves.Curve([0.0, 1.0], [0.0, 1.0])
    for count in (1, 5, 9):
        for ends in (1.0, 0.0):
            drawn = {f"slice {i}": line._replace(y=[0.5, ends]) for i in range(count)}
            sheet = draw.lines(drawn, "false alarms", "hits", square=True)
            places = [mark.points[0][1] for mark in sheet.marks if mark.said in drawn]
            assert len(places) == count
            assert 6 <= min(places)
            assert max(places) <= sheet.height - 6


def test_a_card_and_a_difference_print_as_a_line():
    made, difference = card(1), card(1) - card(2)
    for said in (str(made), repr(made), str(difference)):
        assert len(said) < 200
        assert "tensor" not in said
        assert ".table()" in said
    part = card(coalitions=("text", "audio"))  # nothing is known of the whole
    assert f"F1 of audio {words.estimate(part.estimate('f1', 'audio'))}" in str(part)
    assert "F1 of audio" in str(part - part)
    assert words.estimate(made.estimate("f1")) in str(made)
    assert words.points_estimate(difference.estimate("f1")) in str(difference)


def test_slices_without_intervals_say_so():
    with pytest.warns(UserWarning, match="intervals are kept for the whole only"):
        small = card(max_bytes=150_000)
    assert not small.layout.replicate_slices
    assert any("max_bytes" in note for note in small.verdict().notes)
    assert not any("max_bytes" in note for note in card().verdict().notes)
