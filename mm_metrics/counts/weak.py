"""Slices that are really weak, and how far the values of a column lie apart.

Of many slices some look weak by chance. Candidates are therefore proposed on one half of the data and judged on the
other, which knew nothing of them: the chance that any of those reported is no weaker than the whole is at most 5%.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import torch

from mm_metrics import uncertainty
from mm_metrics.counts.layout import HALF
from mm_metrics.counts.scored import Scored
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Estimate

PROPOSED = 8  # candidates that go before the other half; of more, each would need more evidence
_LEAST = 20  # samples of a candidate, in each half


class WeakSlice(NamedTuple):
    """A slice that scores less than the whole, by the half of the data that did not propose it."""

    slice: tuple[str, ...]  # names that it lies in together: ("language/sw", "audio")
    estimate: Estimate
    difference: Estimate  # to the whole of that half
    support: int  # in that half
    p_value: float  # adjusted for how many were proposed

    @property
    def name(self) -> str:
        """The slice in a word: ``language/sw × audio``."""
        return " × ".join(self.slice)


class Disparity(NamedTuple):
    """The largest difference and the smallest ratio of a score between two values of a column (fairlearn's words)."""

    difference: Estimate
    ratio: Estimate
    best: str
    worst: str


def weak_slices(card: Scored, score: str, k: int = 3, confidence: float = 0.95) -> list[WeakSlice]:
    """At most `k` slices whose weakness holds, the weakest first; see `Tally.weak_slices`."""
    if not card.layout.by or not card.layout.R or not card.layout.replicate_slices:
        raise ValueError("weak_slices needs columns and replicates of them: by={...} and bootstrap=200 of the metric")
    proposed = []
    for slice in _candidates(card):
        weakness = _weakness(card, score, slice, "0")
        if weakness is not None and weakness[0] < 0:
            proposed.append((weakness[0] / weakness[1], slice))
    chosen = [slice for _, slice in sorted(proposed)[: max(k, PROPOSED)]]
    judged = [(slice, found) for slice in chosen if (found := _weakness(card, score, slice, "1")) is not None]
    held = []
    for (slice, found), p in zip(judged, uncertainty.holm([_tail(*found) for _, found in judged]), strict=True):
        if p <= 1 - confidence:
            half, (value, error, freedom) = (*slice, f"{HALF}/1"), found
            reach = uncertainty.t_quantile(confidence, freedom) * error
            value = -value if score in LOWER_IS_BETTER else value
            difference = Estimate(value, value - reach, value + reach)
            estimate = card.estimate(score, slice=half, confidence=confidence)
            held.append(WeakSlice(slice, estimate, difference, card.support(half), p))
    return sorted(held, key=lambda weak: weak.p_value)[:k]


def disparity(card: Scored, score: str, column: str, confidence: float = 0.95) -> Disparity:
    """How far a score lies apart between the values of a column, both intervals adjusted for the pairs of values.

    Raises ValueError for a column that is not there.
    """
    values = [f"{column}/{value}" for name, values in card.layout.by if name == column != HALF for value in values]
    if not values:
        there = [name for name, _ in card.layout.by if name != HALF]
        raise ValueError(f"column {column!r} is none of {there}: by={{...}} of the metric names them")
    scores = {name: card.score(score, slice=name) for name in values if card.support(name)}
    scores = {name: value for name, value in scores.items() if not math.isnan(value)}
    if not scores:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return Disparity(nothing, nothing, "", "")
    worst, best = (f(scores, key=scores.__getitem__) for f in ((max, min) if score in LOWER_IS_BETTER else (min, max)))
    low, high = sorted((worst, best), key=scores.__getitem__)
    difference, ratio = scores[high] - scores[low], scores[low] / scores[high] if scores[high] else math.nan
    value = torch.tensor([difference, ratio], dtype=torch.float64)
    first, second = (uncertainty.known(card.replicate_scores(score, slice=name), value[0]) for name in (low, high))
    spread = torch.stack([second - first, torch.where(second > 0, first / second, torch.nan)], dim=1)  # (R, 2)
    total, adjusted = min(map(card.support, (low, high))), 1 - (1 - confidence) / max(1, math.comb(len(scores), 2))
    ends = uncertainty.difference_interval(value, spread, total, adjusted, card.clusters(worst))
    below, above = (part.tolist() for part in (ends[0].clamp(min=0), ends[1]))
    return Disparity(
        Estimate(difference, below[0], above[0]), Estimate(ratio, below[1], min(above[1], 1.0)), best, worst
    )


def _candidates(card: Scored) -> Iterator[tuple[str, ...]]:
    """Single values, pairs of values of two columns, and each with a modality's presence."""
    columns = [[f"{name}/{value}" for value in values] for name, values in card.layout.by if name != HALF]
    single = [(value,) for column in columns for value in column]
    pairs = [pair for first, second in combinations(columns, 2) for pair in product(first, second)]
    for slice in (*single, *pairs):
        yield slice
        for modality in card.modalities:
            if card.support((*slice, modality)) not in (0, card.support(slice)):
                yield (*slice, modality)


def _weakness(card: Scored, score: str, slice: tuple[str, ...], half: str) -> tuple[float, float, float] | None:
    """How much better a slice is than the whole of a half, below 0 worse, its standard error and degrees of freedom.

    None of too few samples.
    """
    inside, whole = (*slice, f"{HALF}/{half}"), (f"{HALF}/{half}",)
    support, groups = card.support(inside), card.clusters(inside)
    if support < _LEAST or support == card.support(whole) or groups == 1:
        return None
    value = card.score(score, slice=inside) - card.score(score, slice=whole)
    ours, theirs = card.replicate_scores(score, slice=inside), card.replicate_scores(score, slice=whole)
    if ours is None or theirs is None or math.isnan(value):
        return None
    error = float(uncertainty.difference_error(ours - theirs, support, groups))
    return -value if score in LOWER_IS_BETTER else value, error, math.inf if groups is None else groups - 1


def _tail(value: float, error: float, freedom: float) -> float:
    """The one-sided p-value of a weakness."""
    inside = uncertainty.t_share(value / error, freedom)
    return (1 - inside) / 2 if value < 0 else (1 + inside) / 2
