"""Scores from sums over samples: calibration, Brier, log loss, top-k, and errors and correlations of ordinal targets.

Sums are integers in fixed point, `SCALE` a unit, so that neither ranks nor the order of samples changes a digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.uncertainty import difference_interval

SCALE = 2**20
LARGEST = 1024.0  # of an ordinal target or prediction: beyond, sums of squares could overflow
LEVELS = 16  # bins of confidence: fifteen of equal width, and exactly 1
ORDINAL = ("error", "absolute_error", "squared_error", "target", "prediction", "product", "target_2", "prediction_2")
MOSI = (*(f"{name}_{cell}" for name in ("acc2", "nonzero") for cell in ("00", "01", "10", "11")), "hits5", "hits7")


def calibration_error(levels: Tensor) -> Tensor:
    """The mean distance of confidence and accuracy over bins, weighted by their samples (Guo et al. 2017, l1).

    ``(..., LEVELS, 3)`` sums of samples, hits and confidence, the latter in fixed point, to ``(...)``; NaN of none.

    >>> levels = torch.zeros(16, 3, dtype=torch.int64)
    >>> levels[12] = torch.tensor([10, 6, int(8 * SCALE)])
    >>> calibration_error(levels)
    tensor(0.2000, dtype=torch.float64)
    """
    count, hits, confidence = levels.double().unbind(-1)
    return (hits - confidence / SCALE).abs().sum(-1) / count.sum(-1)


def calibration_excess(levels: Tensor, replicates: Tensor) -> Tensor:
    """By how much chance raises the `calibration_error` of ``(..., LEVELS, 3)`` on average, ``(...)``.

    A bin's distance is that of its mean, a normal number g + σZ, folded: E|g + σZ| - g, with σ of `replicates`
    ``(R, ..., LEVELS, 3)`` and g² what the square seen has beyond σ² (Roelofs et al. 2022 measure this bias).

    >>> calibration_excess(torch.zeros(16, 3), torch.zeros(9, 16, 3)).isnan()
    tensor(True)
    """
    gaps = [part[..., 1].double() - part[..., 2].double() / SCALE for part in (levels, replicates)]
    spread = gaps[1].std(0)
    far = (gaps[0].square() - spread.square()).clamp(min=0).sqrt() / spread.clamp(min=1e-12)
    beyond = math.sqrt(2 / math.pi) * torch.exp(-far.square() / 2) - 2 * far * torch.special.ndtr(-far)
    return (spread * beyond).sum(-1) / levels[..., 0].sum(-1)


def ordinal_scores(sums: dict[str, Tensor], count: Tensor) -> dict[str, Tensor]:
    """MAE, RMSE, Pearson's correlation and Lin's concordance (1989) from `ORDINAL` sums, each ``(...)``.

    >>> one = {name: torch.tensor(float(v)) for name, v in zip(ORDINAL, (0, 0, 0, 3, 3, 5, 5, 5))}
    >>> ordinal_scores(one, torch.tensor(2.0))["pearson"]
    tensor(1., dtype=torch.float64)
    """
    mean = {name: total.double() / count for name, total in sums.items()}
    spread_y, spread_p, together = spreads(mean)
    apart = spread_y + spread_p + (mean["target"] - mean["prediction"]) ** 2
    scale = (spread_y * spread_p).sqrt()
    return {
        "mae": mean["absolute_error"],
        "rmse": mean["squared_error"].clamp(min=0).sqrt(),
        "pearson": torch.where(scale > 0, together / scale, torch.nan).clamp(-1, 1),
        "ccc": torch.where(apart > 0, 2 * together / apart, torch.nan).clamp(-1, 1),
    }


def spreads(mean: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Variances of targets and predictions, and their covariance, from means of `ORDINAL` numbers, each ``(...)``.

    A variance that rounding to fixed point, and to single precision, can give to equal numbers is 0.
    """
    found = []
    for name in ("target", "prediction"):
        square, middle = mean[f"{name}_2"], mean[name]
        spread = square - middle**2
        found.append(spread.where(spread > (1 + middle.abs()) / SCALE + square * 2**-23, 0.0))
    together = mean["product"] - mean["target"] * mean["prediction"]
    return found[0], found[1], together.where(found[0] * found[1] > 0, 0.0)


class Fit(NamedTuple):
    """How predictions follow true numbers: the least-squares line, and the numbers' means and standard deviations."""

    slope: float  # NaN where all true numbers are equal
    intercept: float
    true: float
    predicted: float
    true_spread: float
    predicted_spread: float


def least_squares(mean: dict[str, Tensor]) -> Fit:
    """Predicted against true numbers, from means of `ORDINAL` numbers, each ``()``.

    >>> one = {name: torch.tensor(float(v)) for name, v in zip(ORDINAL, (0, 0, 0, 1, 2, 4, 2, 8))}
    >>> least_squares(one)[:2]
    (2.0, 0.0)
    """
    true_spread, predicted_spread, together = map(float, spreads(mean))
    true, predicted = float(mean["target"]), float(mean["prediction"])
    slope = together / true_spread if true_spread else math.nan
    return Fit(slope, predicted - slope * true, true, predicted, math.sqrt(true_spread), math.sqrt(predicted_spread))


def scaled_interval(
    value: Tensor,
    replicates: Tensor,
    total: Tensor,
    confidence: float,
    groups: int | None,
    scale: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The interval of a number where it is nearly normal: of an error's logarithm, of a correlation's z (Fisher 1921).

    From replicates ``(R, ...)``, with Student's t of `groups`, or else of all samples; `back` undoes `scale`.

    >>> spread = torch.tensor([1.0, 2.0, 4.0])
    >>> ends = scaled_interval(torch.tensor(2.0), spread, torch.tensor(50), 0.95, None, torch.log, torch.exp)
    >>> [round(float(end), 1) for end in ends]
    [0.5, 8.2]
    """
    z = scale(replicates.double())
    z = torch.where(z.isfinite(), z, torch.nan)
    low, high = difference_interval(scale(value.double()), z, total, confidence, groups or round(float(total)))
    return back(low), back(high)


def mosi_scores(sums: dict[str, Tensor], count: Tensor) -> dict[str, Tensor]:
    """Accuracy of 2, 5 and 7 classes and weighted F1 of sentiment in -3…3, from `MOSI` sums, each ``(...)``.

    ``acc2`` and ``f1_acc2`` tell negative from non-negative over all samples, as MISA's evaluation does (MulT's own,
    without leaving out zeros, tells positive from not positive); ``…_nonzero`` negative from positive over samples
    whose target is not 0, as both do. ``acc7`` and ``acc5`` clip to ±3 and ±2 and round halves to even, as both do:
    `eval_mosei_senti` in MulT's ``src/eval_metrics.py``, `calc_metrics` in MISA's ``solver.py``.
    """
    scores = {}
    for name, f1_name, prefix in (("acc2", "f1_acc2", "acc2"), ("acc2_nonzero", "f1_nonzero", "nonzero")):
        cells = torch.stack([sums[f"{prefix}_{cell}"].double() for cell in ("00", "01", "10", "11")], dim=-1)
        confusion = cells.unflatten(-1, (2, 2))  # targets by predictions
        hits, predicted, actual = confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-2), confusion.sum(-1)
        total = actual.sum(-1)
        f1 = torch.where(predicted + actual > 0, 2 * hits / (predicted + actual).clamp(min=1), 0.0)
        scores[name] = hits.sum(-1) / total
        scores[f1_name] = (f1 * actual).sum(-1) / total
    return scores | {"acc5": sums["hits5"].double() / count, "acc7": sums["hits7"].double() / count}


ORDINAL_SCORES = ("mae", "rmse", "pearson", "ccc")
MOSI_SCORES = ("acc2", "f1_acc2", "acc2_nonzero", "f1_nonzero", "acc5", "acc7")
