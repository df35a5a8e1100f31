"""Scores of a ranking, from histograms: pure functions over ``(..., 2, B)`` counts, negatives first, bins rising.

What lies within one bin is not known to be ordered, so each score is the middle of what its bins allow, and has a
half-width: the exact score of the values behind the histogram, ties of whole bins among them, lies in value ± bound.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics import scores
from mm_metrics.scores import ClassSums

LIMIT = 16.0  # histograms hold logits in -16…16, beyond which float32 probabilities are 0 or 1
_HAIR = 2.0**-21  # of a logit: half of what float32 tells apart at the histograms' upper end


class Bounded(NamedTuple):
    """A score and the half-width that binning can hide, each ``(...)``."""

    value: Tensor
    bound: Tensor


def bin_of(logits: Tensor, bins: int) -> Tensor:
    """Logits of any shape to the numbers of their bins, 0…bins-1, int64; equal steps over -16…16, clipped.

    >>> bin_of(torch.tensor([-20.0, 0.0, 3.9, 20.0]), 8)
    tensor([0, 4, 4, 7])
    """
    return ((logits.float() + LIMIT) * (bins / (2 * LIMIT))).nan_to_num().clamp(0, bins - 1).long()


def edges(bins: int) -> Tensor:
    """``(bins + 1,)`` probabilities at the edges of the bins, from 0 to 1.

    >>> edges(2)
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    inner = torch.linspace(-LIMIT, LIMIT, bins + 1, dtype=torch.float64)[1:-1].sigmoid()
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner, torch.ones(1, dtype=torch.float64)])


def auroc(counts: Tensor) -> Bounded:
    """The share of pairs of a positive and a negative that the score orders rightly, ties half (Hanley, McNeil 1982).

    ``(..., 2, B)`` to ``(...)``; NaN without positives or without negatives.

    >>> auroc(torch.tensor([[2, 1, 0], [0, 1, 2]]))
    Bounded(value=tensor(0.9444, dtype=torch.float64), bound=tensor(0.0556, dtype=torch.float64))
    """
    negative, positive = counts.double().unbind(-2)
    pairs = negative.sum(-1) * positive.sum(-1)
    below = negative.cumsum(-1) - negative
    tied = (negative * positive).sum(-1) / 2
    value, bound = ((positive * below).sum(-1) + tied) / pairs, tied / pairs
    return Bounded(value, bound)


def average_precision(counts: Tensor) -> Bounded:
    """The mean over positives of the precision at their score, thresholds not interpolated (as scikit-learn has it).

    A positive of a bin has at best all positives of the bin at its score or above and no negative of it, and at worst
    all its negatives and the positives one by one: ties included, no order of a bin's samples gives more or less.
    ``(..., 2, B)`` to ``(...)``; NaN without positives.

    >>> average_precision(torch.tensor([[4, 0], [0, 4]])).value
    tensor(1., dtype=torch.float64)
    """
    negative, positive = counts.double().flip(-1).unbind(-2)  # highest scores first
    above, wrong = positive.cumsum(-1) - positive, negative.cumsum(-1) - negative
    best = positive * (above + positive) / (above + positive + wrong).clamp(min=1)
    worst_wrong = wrong + negative
    harmonic = torch.digamma(above + positive + worst_wrong + 1) - torch.digamma(above + worst_wrong + 1)
    worst = positive - worst_wrong * harmonic  # the sum over i = 1…positive of (above + i) / (above + i + worst_wrong)
    total = positive.sum(-1)
    high, low = best.sum(-1) / total, torch.where(positive > 0, worst, 0.0).sum(-1) / total
    return Bounded((high + low) / 2, (high - low) / 2)


def prevalence(counts: Tensor) -> Tensor:
    """The share of positives ``(..., 2, B)`` to ``(...)``: average precision where all samples have one score.

    >>> prevalence(torch.tensor([[3, 0], [1, 0]]))
    tensor(0.2500, dtype=torch.float64)
    """
    negative, positive = counts.double().sum(-1).unbind(-1)
    return torch.where(positive > 0, positive / (negative + positive), torch.nan)


def eer(counts: Tensor) -> Bounded:
    """The error rate at the threshold where misses and false alarms are equally frequent.

    ``(..., 2, B)`` to ``(...)``; NaN without positives or without negatives.

    >>> eer(torch.tensor([[3, 1, 0], [0, 1, 3]])).value
    tensor(0.1250, dtype=torch.float64)
    """
    alarms, misses = _rates(counts)
    gap = misses - alarms  # rises from -1 at the lowest threshold to 1 at the highest
    upper = (gap >= 0).long().argmax(-1, keepdim=True).clamp(min=1)
    high = torch.minimum(alarms.gather(-1, upper - 1), misses.gather(-1, upper)).squeeze(-1)
    low = torch.maximum(alarms.gather(-1, upper), misses.gather(-1, upper - 1)).squeeze(-1)
    nothing = gap[..., 0].isnan()
    value, bound = (high + low) / 2, (high - low).clamp(min=0) / 2
    return Bounded(torch.where(nothing, torch.nan, value), torch.where(nothing, torch.nan, bound))


def dprime(counts: Tensor) -> Bounded:
    """The distance of two normal distributions of equal spread that give this AUROC, √2 Φ⁻¹(AUROC).

    Infinite where all pairs are in order. ``(..., 2, B)`` to ``(...)``.

    >>> round(float(dprime(torch.tensor([[2, 1, 0], [0, 1, 2]])).value), 2)
    2.25
    """
    area, bound = auroc(counts)
    low, value, high = (
        math.sqrt(2) * torch.special.ndtri(end.clamp(0, 1)) for end in (area - bound, area, area + bound)
    )
    return Bounded(value, torch.where(bound == 0, 0.0, torch.maximum(high - value, value - low)))


class Point(NamedTuple):
    """A threshold of probabilities and what it scores; a score at the threshold counts as positive."""

    threshold: float
    precision: float
    recall: float
    f1: float
    specificity: float


def points(counts: Tensor) -> Tensor:
    """``(2, B)`` to ``(B + 1, 4)``: precision, recall, F1 and specificity at every edge, exactly; 0/0 is 0.

    >>> points(torch.tensor([[3, 1], [1, 3]]))[1]
    tensor([0.7500, 0.7500, 0.7500, 0.7500], dtype=torch.float64)
    """
    negative, positive = (_from_edge(part) for part in counts.double().unbind(-2))
    found, all_positive, all_negative = positive, positive[..., 0], negative[..., 0]
    parts = (
        (found, found + negative),
        (found, all_positive),
        (2 * found, found + negative + all_positive),
        (all_negative - negative, all_negative),
    )
    return torch.stack([torch.where(of == 0, 0.0, part / of) for part, of in parts], dim=-1)


def threshold(counts: Tensor, score: str, at_least: float) -> Point | None:
    """The edge at which `score` reaches `at_least` and the score that it is paid with is best; None where none does.

    Recall is paid with precision, specificity with recall, precision with recall; F1 with nothing: its best edge.
    ``(2, B)`` counts. Raises ValueError for another score.

    >>> threshold(torch.tensor([[3, 1], [1, 3]]), "recall", 0.9).threshold
    0.0
    """
    columns = ("precision", "recall", "f1", "specificity")
    paid = {"recall": "precision", "precision": "recall", "specificity": "recall", "f1": "f1"}
    if score not in paid:
        raise ValueError(f"score={score!r} has no threshold: one of {', '.join(map(repr, paid))}")
    table = points(counts)
    enough = table[:, columns.index(score)] >= at_least
    enough[-1] = False  # above all scores: nothing is positive there
    if not bool(enough.any()) or bool(table.isnan().any()):
        return None
    worth = torch.where(enough, table[:, columns.index(paid[score])], -1.0)
    best = len(worth) - 1 - int(worth.flip(0).argmax())  # of equal ones the highest
    return Point(float(edges(counts.shape[-1])[best]), *table[best].tolist())


def best(counts: Tensor, score: str = "f1", average: str | None = "default") -> float | None:
    """The edge at which a score of two classes is best, of equal ones that nearest .5; None where a class is missing.

    ``(2, B)`` counts. What is at the edge or above is positive, see `just_below`.

    >>> best(torch.tensor([[3, 1], [1, 3]]))
    0.5
    """
    negative, positive = (_from_edge(part)[:-1] for part in counts.double().unbind(-2))  # (B,) at an edge or above
    total = torch.stack([negative[0], positive[0]])
    if not bool((total > 0).all()):
        return None
    hits, predicted = torch.stack([total[0] - negative, positive], dim=-1), negative + positive
    sums = ClassSums(hits, torch.stack([total.sum() - predicted, predicted], dim=-1), total.expand(len(hits), 2))
    values = scores.score(score, ClassSums(*(part.unsqueeze(-2) for part in sums)), "binary", average)
    at = edges(counts.shape[-1])[:-1]
    at = at[values >= values.max() - 1e-12]
    return float(at[(at - 0.5).abs().argmin()])


def just_below(threshold: float) -> float:
    """A threshold above which lies what a histogram counts at an edge, as half precision often does exactly.

    >>> 0.499999 < just_below(0.5) < 0.5
    True
    """
    if not 0 < threshold < 1:
        return threshold
    return 1 / (1 + (1 / threshold - 1) * math.exp(_HAIR))


def _rates(counts: Tensor) -> tuple[Tensor, Tensor]:
    """``(..., B + 1)`` false alarms and misses at every edge, as fractions."""
    negative, positive = (_from_edge(part) for part in counts.double().unbind(-2))
    return negative / negative[..., :1], 1 - positive / positive[..., :1]


def _from_edge(counts: Tensor) -> Tensor:
    """``(..., B)`` counts to ``(..., B + 1)`` of how many lie at each edge or above."""
    above = counts.flip(-1).cumsum(-1).flip(-1)
    return torch.cat([above, torch.zeros_like(above[..., :1])], dim=-1)


RANKINGS = {function.__name__: function for function in (auroc, average_precision, eer, dprime)}
