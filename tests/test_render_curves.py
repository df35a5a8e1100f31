"""Curves against scikit-learn's, and their bands against what resampling gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics.moments import SCALE
from mm_metrics.ranking import bin_of
from mm_metrics.render import curves, page, tables

BINS = 512


def drawn(n: int = 600, bins: int = BINS):
    random = torch.Generator().manual_seed(0)
    target = torch.randint(2, (n,), generator=random)
    logits = (2 * target - 1) * 0.8 + torch.randn(n, generator=random)
    places = bin_of(logits, bins)
    counts = torch.zeros(2, bins, dtype=torch.int64).index_put_((target, places), torch.ones(n).long(), accumulate=True)
    return target.numpy(), places.numpy(), counts


def test_roc_is_that_of_the_values_behind_the_histogram():
    target, places, counts = drawn()
    x, y, _ = roc_curve(target, places)
    curve = curves.roc(counts)
    assert len(curve.x) <= 81
    assert auc(curve.x, curve.y) == pytest.approx(auc(x, y), abs=0.002)
    assert set(zip(np.round(curve.x, 9), np.round(curve.y, 9), strict=True)) <= set(
        zip(*_all(roc_curve(target, places, drop_intermediate=False)[:2]), strict=True)
    )


def _all(parts):
    return [np.round(part, 9) for part in parts]


def test_precision_over_recall_is_scikit_learns():
    target, places, counts = drawn()
    precision, recall, _ = precision_recall_curve(target, places)
    curve = curves.precision_recall(counts)
    points = set(zip(*_all((recall, precision)), strict=True))
    inner = [(x, y) for x, y in zip(*_all((curve.x, curve.y)), strict=True) if x > 0]
    assert inner
    assert set(inner) <= points
    assert curve.x[-1] == 1


def test_bands_are_the_middle_of_the_replicates():
    *_, counts = drawn()
    random = torch.Generator().manual_seed(1)
    replicates = torch.poisson(counts.double().expand(200, 2, BINS), generator=random)
    for make in (curves.roc, curves.precision_recall):
        curve, plain = make(counts, replicates), make(counts)
        assert (curve.x, curve.y) == (plain.x, plain.y)
        inside = [low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True)]
        assert all(inside)
        widths = np.subtract(curve.high, curve.low)
        assert 0.005 < widths[5:-5].mean() < 0.2


def test_reliability_is_scikit_learns():
    random = np.random.default_rng(0)
    sure = random.random(4000)
    right = random.random(4000) < sure**1.3
    levels = torch.zeros(16, 3, dtype=torch.int64)
    level = np.minimum((sure * 16).astype(int), 15)
    for part, value in enumerate((np.ones(4000), right, sure * SCALE)):
        levels[:, part] = torch.from_numpy(np.bincount(level, value, 16)).long()
    curve = curves.reliability(levels)
    y, x = calibration_curve(right, sure, n_bins=16)
    assert curve.x == pytest.approx(x.tolist(), abs=1e-4)
    assert curve.y == pytest.approx(y.tolist())
    assert all(low < y < high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_nothing_is_drawn_of_one_class_alone():
    counts = torch.zeros(2, 8, dtype=torch.int64)
    assert curves.roc(counts).x == []
    counts[0, 3] = 5
    assert curves.roc(counts).x == []
    assert curves.precision_recall(counts).x == []
    assert curves.reliability(torch.zeros(16, 3, dtype=torch.int64)).x == []


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_page_draws_the_curves_that_the_card_holds(task, tmp_path):
    random = torch.Generator().manual_seed(0)
    size = {"multiclass": {"num_classes": 3}, "multilabel": {"num_labels": 3}}.get(task, {})
    asked = ("auroc", "calibration_error")
    metric = CoalitionConfusionMatrix(("text", "audio"), task=task, bootstrap=20, scores=asked, **size)
    target = torch.randint(
        3 if task == "multiclass" else 2, (80, 3) if task == "multilabel" else (80,), generator=random
    )
    shape = (4, 80) if task == "binary" else (4, 80, 3)
    metric.update(
        torch.rand(shape, generator=random).softmax(-1) if size else torch.rand(shape, generator=random), target
    )
    card = metric.scorecard()
    told = tables.of(card)
    curve = told.curves("curves", curves.roc)["all"]
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert len(curve.low) == len(curve.x)
    html = page.write(tmp_path / "page.html", told).read_text()
    for title in ("ROC", "Precision and recall", "Reliability"):
        assert f"{title}</h2>" in html
    assert "AUROC" in html
    assert "how sure" not in page.write(tmp_path / "page.html", _without()).read_text()


def _without():
    plain = CoalitionConfusionMatrix(("text", "audio"), num_classes=2, bootstrap=20)
    plain.update(torch.ones(4, 8, dtype=torch.int64), torch.ones(8, dtype=torch.int64))
    return plain.scorecard()
