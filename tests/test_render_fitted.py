"""Predicted against true numbers: the line is numpy's of the same rows, and where there is none, none is drawn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix
from mm_metrics.render import charts, draw, fitted, page, sections, tables
from tests.render_cards import card


def numbers(samples: int = 400, edges: object = "mosi", scale: float = 1.0, seed: int = 0):
    """A card of numbers with a modality of 60% and one of none, and the rows that it was made of."""
    random = np.random.default_rng(seed)
    y = (scale * random.normal(0.3, 1.6, samples)).astype(np.float32)
    p = (0.7 * y + scale * random.normal(-0.2, 0.8, samples)).astype(np.float32)
    presence = np.stack([random.random(samples) < 0.6, np.zeros(samples, bool)], 1)
    metric = ModalityConfusionMatrix(("text", "audio"), task="ordinal", edges=edges, bootstrap=20)
    metric.update(torch.from_numpy(p), torch.from_numpy(y), torch.from_numpy(presence))
    return metric.scorecard(), y.astype(float), p.astype(float), presence


@pytest.mark.parametrize("edges", ["mosi", (-1.0, 0.0, 2.5), (0.0,), tuple(np.linspace(-3, 3, 70))])
def test_the_line_is_that_of_least_squares(edges):
    made, y, p, presence = numbers(edges=edges)
    told = tables.of(made)
    for slice, rows in (("all", np.ones(len(y), bool)), ("text", presence[:, 0])):
        line = fitted.fit(told, slice)
        reference = scipy.stats.linregress(y[rows], p[rows])
        assert (line.slope, line.intercept) == pytest.approx((reference.slope, reference.intercept), abs=2e-6)
        assert line[2:] == pytest.approx((y[rows].mean(), p[rows].mean(), y[rows].std(), p[rows].std()), abs=2e-6)
        sheet = fitted.panel(told, slice, line, slice)
        dashes, drawn = [mark for mark in sheet.marks if mark.kind == "line" and mark.size >= 1.0]
        (x0, y0), (x1, y1) = dashes.points  # from the least corner of the square to the largest
        (a, b), (c, d) = drawn.points
        assert (d - b) / (c - a) == pytest.approx(-reference.slope * (y0 - y1) / (x1 - x0), rel=1e-5)
        assert all(x0 - 1e-6 <= x <= x1 + 1e-6 for x in (a, c))
        assert all(y1 - 1e-6 <= y <= y0 + 1e-6 for y in (b, d))
    assert fitted.fit(told, "audio") is None


def test_cells_are_shares_of_what_was_true_at_their_places():
    made, y, p, _ = numbers(edges=(-1.0, 1.0))
    told = tables.of(made)
    sheet = fitted.panel(told, "all", fitted.fit(told, "all"))
    cells = [mark for mark in sheet.marks if mark.kind == "rect"]
    reference = np.histogram2d(np.digitize(y, (-1, 1)), np.digitize(p, (-1, 1)), bins=[np.arange(4) - 0.5] * 2)[0]
    shares = (reference / reference.sum(1, keepdims=True)).flatten()
    assert [mark.alpha / 0.6 for mark in cells] == pytest.approx(shares[shares > 0].tolist())
    columns = sorted({mark.points[0][0] for mark in cells})
    assert len(columns) == 3
    assert columns[0] == 34.0  # the left end of the square


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1.7, 100.3])
def test_of_equal_numbers_there_is_no_line_and_no_correlation(value):
    random = torch.Generator().manual_seed(0)
    metric = ModalityConfusionMatrix(("text",), task="ordinal", edges="mosi", bootstrap=20)
    metric.update(value + torch.randn(50, generator=random), torch.full((50,), value))
    told = tables.of(metric.scorecard())
    line = fitted.fit(told, "all")
    assert (math.isnan(line.slope), line.true_spread) == (True, 0.0)
    assert math.isnan(told.card.score("pearson"))
    assert told.card.score("ccc") == 0.0
    sheet = fitted.panel(told, "all", line)
    assert sum(mark.kind == "line" and mark.size >= 1.0 for mark in sheet.marks) == 1
    assert all(math.isfinite(end) for mark in sheet.marks for point in mark.points for end in point)


def test_equal_predictions_give_a_level_line():
    metric = ModalityConfusionMatrix(("text",), task="ordinal", edges="mosi")
    metric.update(torch.full((30,), 0.3), torch.linspace(-3, 3, 30))
    line = fitted.fit(tables.of(metric.scorecard()), "all")
    assert (line.slope, line.predicted_spread) == (0.0, 0.0)
    assert line.intercept == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("true", [[0.5], [3.0], [-0.0]])
def test_one_sample_and_predictions_far_out_are_drawn_within_the_sheet(true):
    metric = ModalityConfusionMatrix(("text",), task="ordinal", edges="mosi", bootstrap=20)
    metric.update(torch.tensor([900.0]), torch.tensor(true))
    told = tables.of(metric.scorecard())
    sheet = fitted.panel(told, "all", fitted.fit(told, "all"))
    ends = [point for mark in sheet.marks for point in mark.points]
    assert all(0 <= x <= sheet.width and 0 <= y <= sheet.height for x, y in ends)


def test_page_loggers_and_summary_show_it_and_other_tasks_do_not(tmp_path):
    made, y, p, _ = numbers()
    shown = sections.section(tables.of(made))
    assert [picture.title for picture in shown.fits] == ["all", "text"]
    slope = scipy.stats.linregress(y, p).slope
    assert f"Predicted against true on all, 400 samples: slope {slope:.2f}" in shown.fits[0].alt
    assert {row[0]: row[1].value for row in shown.fits[0].tables[0][1].rows}["slope"] == pytest.approx(slope)
    written = page.write(tmp_path / "page.html", made).read_text()
    assert written.count('aria-label="Predicted against true on ') == 2
    assert f">slope {slope:.2f}</text>" in written
    drawn = charts.drawn(tables.of(made))
    assert list(drawn) == ["confusions", "predicted"]
    assert f"slope {slope:.2f}" in [mark.said for mark in drawn["predicted"].marks]
    assert f"slope {slope:.2f}" in [mark.said for mark in charts.summary(tables.of(made)).marks]
    assert sections.section(tables.of(card())).fits == []
    assert "predicted" not in charts.drawn(tables.of(card()))


@pytest.mark.parametrize("said", [None, "mosi2", [1.0], [3.0, 1.0] * 3, ["<b>"] * 6, [math.nan] * 6, {"a": 1}, 7])
def test_a_card_that_does_not_say_its_cuts_has_the_line_alone(said):
    made, *_ = numbers()
    made = dataclasses.replace(made, info={"edges": said})
    told = tables.of(made)
    sheet = fitted.panel(told, "all", fitted.fit(told, "all"))
    assert not any(mark.kind == "rect" for mark in sheet.marks)
    assert any(mark.color == draw.WRONG for mark in sheet.marks)


def test_coalitions_of_a_card_that_keeps_no_matrix_still_have_a_line():
    with pytest.warns(UserWarning, match="instead of full matrices"):
        metric = CoalitionConfusionMatrix(("text",), task="ordinal", edges=tuple(range(100)), max_bytes=90_000)
    y = torch.linspace(0, 99, 200)
    metric.update(torch.stack([y * 0, 0.5 * y]), y)
    told = tables.of(metric.scorecard())
    assert fitted.fit(told, "all").slope == pytest.approx(0.5, abs=1e-5)
