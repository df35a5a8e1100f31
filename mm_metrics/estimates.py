"""Numbers with their intervals, and which scores are plain proportions."""

from __future__ import annotations

from typing import NamedTuple

from mm_metrics.scores import ClassSums


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float


class Contribution(NamedTuple):
    """What one modality gives: lost without it, gained with it alone, its fair share."""

    drop: Estimate
    unimodal_gain: Estimate
    shapley: Estimate


def proportion(score: str, sums: ClassSums, task: str, average: str | None) -> tuple[float, float] | None:
    """Hits and total where a score is a plain proportion of independent samples, else None."""
    if task == "multilabel":  # a sample's labels go together
        return None
    hits, predicted, actual = (part[..., 0, :] for part in sums)
    if score == "accuracy" and average in ("default", "micro", "weighted", "binary"):
        return float(hits.sum()), float(actual.sum())
    if task != "binary" or average not in ("default", "binary"):
        return None
    if score == "recall":
        return float(hits[1]), float(actual[1])
    if score == "precision":
        return float(hits[1]), float(predicted[1])
    if score == "specificity":
        return float(hits[0]), float(actual[0])
    return None
