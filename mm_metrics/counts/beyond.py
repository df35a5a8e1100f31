"""Scores that a confusion does not tell, from histograms, tables of confidence and totals.

Every function gives all coalitions at once, the model's own predictions included: ``(K,)``, with ``average="none"``
``(K, H)``; and of replicates ``(R, K)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mm_metrics import moments
from mm_metrics.counts.counted import Counted, Slice
from mm_metrics.counts.measure import TOP, score_names
from mm_metrics.ranking import RANKINGS, Bounded, prevalence
from mm_metrics.scores import AVERAGES


def known(name: str) -> bool:
    """Whether there is such a score, whatever counts it needs."""
    exact = ("calibration_error", "brier", "log_loss", *moments.ORDINAL_SCORES, *moments.MOSI_SCORES)
    return name in RANKINGS or name in exact or TOP.fullmatch(name) is not None


def told(card: Counted) -> tuple[str, ...]:
    """The names of these scores that a card's counts tell."""
    return score_names(card.layout)


def score(card: Counted, name: str, slice: Slice = "all", average: str | None = "default") -> Bounded:
    """A score with the half-width that binning can hide, 0 for exact ones; ValueError for an unknown average."""
    if average not in (*AVERAGES, "default"):
        raise ValueError(f"average={average!r} is not known: 'macro', 'micro', 'weighted', 'binary' or 'none'")
    if name in RANKINGS:
        return _ranked(name, card.field("curves", slice), _ties(card, slice), average)
    value = _exact(card, name, slice, average)
    return Bounded(value, torch.zeros_like(value))


def replicates(card: Counted, name: str, slice: Slice = "all", average: str | None = "default") -> Tensor | None:
    """The same of every bootstrap replicate, from fewer bins; None where none were kept."""
    if name in RANKINGS:
        curves = card.replicate_field("replicate_curves", slice)
        return None if curves is None else _ranked(name, curves, _ties(card, slice), average).value
    sums = card.replicate_sums(slice)
    if sums is None:
        return None
    if name == "calibration_error":
        levels = card.replicate_field("replicate_levels", slice)
        return None if levels is None else _over_labels(moments.calibration_error(levels), average)
    totals = card.replicate_field("replicate_totals", slice)
    return None if totals is None else _total(card, name, totals, sums.actual)


def excess(card: Counted, name: str, slice: Slice = "all", average: str | None = "default") -> Tensor:
    """By how much chance raises a score on average, as far as replicates tell: that of calibration, else 0."""
    replicates = card.replicate_field("replicate_levels", slice) if name == "calibration_error" else None
    if replicates is None:
        return torch.zeros((), dtype=torch.float64)
    return _over_labels(moments.calibration_excess(card.field("levels", slice), replicates), average)


def _exact(card: Counted, name: str, slice: Slice, average: str | None) -> Tensor:
    if name == "calibration_error":
        return _over_labels(moments.calibration_error(card.field("levels", slice)), average)
    actual = card.weighted(card.cell_class_sums.actual, slice, 1)  # (K, L, C)
    return _total(card, name, card.field("totals", slice), actual)


def _total(card: Counted, name: str, totals: Tensor, actual: Tensor) -> Tensor:
    """A score from sums ``(..., F)`` over the samples whose classes ``(..., L, C)`` counts."""
    count = actual.sum(-1).amax(-1).double()
    sums = {key: totals[..., f].double() / moments.SCALE for f, key in enumerate(card.layout.sums)}
    count = torch.where(count > 0, count, torch.nan)
    if name in moments.ORDINAL_SCORES:
        return moments.ordinal_scores({key: sums[key] for key in moments.ORDINAL}, count)[name]
    if name in moments.MOSI_SCORES:
        return moments.mosi_scores({key: sums[key] for key in moments.MOSI}, count)[name]
    return sums[name] / count


def _ties(card: Counted, slice: Slice) -> Tensor | None:
    """``(K, H, 3)``: samples, and the sums of their scores' hashes and squares; None where those were not kept."""
    if not card.layout.ties:
        return None
    return torch.cat([card.field("curves", slice).sum((-2, -1)).unsqueeze(-1), card.field("ties", slice)], dim=-1)


def _ranked(name: str, curves: Tensor, ties: Tensor | None, average: str | None) -> Bounded:
    """``(..., H, 2, B)`` to ``(...)``: a mean over the classes, or labels, that have positives and negatives."""
    if average == "micro":
        curves, ties = curves.sum(-3, keepdim=True), None if ties is None else ties.sum(-2, keepdim=True)
    found = RANKINGS[name](curves)  # (..., H)
    if ties is not None:
        n, hashed, squared = ties.unbind(-1)
        equal = n * squared == hashed * hashed  # modulo 2^64: all samples have one score, and are not ordered at all
        value = found.value  # the middle of all orders, which is exact where there is none; but for one:
        if name == "average_precision":
            value = torch.where(equal, prevalence(curves), value)
        found = Bounded(value, torch.where(equal & ~value.isnan(), 0.0, found.bound))
    if average in ("none", None):
        return found
    weight = curves[..., 1, :].sum(-1).double() if average == "weighted" else torch.ones_like(found.value)
    weight = torch.where(found.value.isnan(), 0.0, weight)
    weight = weight / weight.sum(-1, keepdim=True)
    return Bounded(*((torch.where(weight > 0, part, 0.0) * weight).sum(-1) for part in found))


def _over_labels(values: Tensor, average: str | None) -> Tensor:
    """``(..., H)`` to the mean of those that are a number; as they are with ``average="none"``."""
    return values if average in ("none", None) else values.nanmean(-1)
