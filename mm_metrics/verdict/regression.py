"""Has retraining cost a modality anything: what a new scorecard lost against the last one, as findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mm_metrics import words
from mm_metrics.counts.compare import Comparison
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Estimate, holm, t_share
from mm_metrics.verdict.gate import SCORES
from mm_metrics.verdict.rules import LEVELS, Finding, Verdict


class Change(NamedTuple):
    """A score of a slice, new less old, and whether it surely got worse by more than the tolerance.

    `p` is adjusted by Holm for all that was asked; NaN where a card holds no replicates.
    """

    score: str
    slice: str
    value: float
    low: float
    high: float
    p: float
    fell: bool


def changes(
    comparison: Comparison, confidence: float = 0.95, only: Sequence[str] = (), tolerance: float = 0.0
) -> list[Change]:
    """Every question: each score of the whole and of every slice, or `only` some, as ``recall.audio`` or ``f1``.

    All falls together are false alarms in at most ``1 - confidence`` of comparisons of equal models (Holm 1979). Raises
    ValueError for an unknown score or slice.

    >>> import torch
    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> def card(wrong):
    ...     metric = CoalitionConfusionMatrix(("text",), num_classes=2, coalitions=["all"], bootstrap=100)
    ...     target = torch.arange(200) % 2
    ...     metric.update(torch.where(torch.arange(200) < wrong, 1 - target, target)[None], target)
    ...     return metric.scorecard()
    >>> fall = changes(card(40) - card(10), only=["accuracy.all"])[0]
    >>> round(fall.value, 2), fall.fell
    (-0.15, True)
    """
    asked = _asked(comparison, only)
    estimates = [comparison.estimate(score, slice=slice, confidence=confidence) for score, slice in asked]
    p_values = []
    for (score, slice), estimate in zip(asked, estimates, strict=True):
        _, error, freedom, hidden = comparison.difference(score, slice=slice)
        beyond = _gain(comparison, score, estimate.value) + tolerance + hidden
        p_values.append(math.nan if math.isnan(error) else 1 - t_share(beyond / error, freedom) if beyond < 0 else 1.0)
    adjusted = iter(holm([p for p in p_values if not math.isnan(p)]))
    p_values = [p if math.isnan(p) else next(adjusted) for p in p_values]
    return [
        Change(score, slice, *estimate, p, p < 1 - confidence)
        for (score, slice), estimate, p in zip(asked, estimates, p_values, strict=True)
    ]


def losses(comparison: Comparison, found: Sequence[Change], tolerance: float = 0.0) -> list[Finding]:
    """A finding for every change that surely fell; undecided where a card holds no replicates to be sure by."""
    findings = []
    for change in found:
        unknown = math.isnan(change.p) and _gain(comparison, change.score, change.value) < -tolerance
        if not (change.fell or unknown):
            continue
        per, estimate = words.per(change.score), Estimate(change.value, change.low, change.high)
        interval = words.points_interval(*estimate[1:], per) or "(no interval: score both with bootstrap=200)"
        was = [
            sum(card.score(change.score, slice=change.slice) for card in side) / len(side)
            for side in (comparison.news, comparison.olds)
        ]
        message = (
            f"{'overall' if change.slice == 'all' else change.slice} {words.label(change.score)} "
            f"{words.points(change.value, per)}{' points' * (per == 100)} {interval} against last: "
            f"{words.score(was[0])}, was {words.score(was[1])}"
        )
        level = "undecided" if unknown else "bad"
        findings.append(Finding("regression", change.slice, change.score, *estimate, -tolerance, message, level))
    return findings


def notes(comparison: Comparison, found: Sequence[Change]) -> list[str]:
    """What the comparison rests on, a sentence each."""
    said = []
    if not any(change.fell or math.isnan(change.p) for change in found):
        what = "no score of any modality has" if len(found) > 1 else f"{found[0].slice} {found[0].score} has not"
        said.append(f"Against last: {what} surely fallen.")
    if not comparison.paired:
        said.append("Not the same samples as last (or other numbers, seed or bootstrap): compared unpaired.")
    if len(comparison.news) + len(comparison.olds) == 2:
        said.append("One card a side: what another seed of the same training would change is not in the interval.")
    return said


def verdict(found: Sequence[Finding], said: Sequence[str]) -> Verdict:
    """The verdict on falls alone: the worst of them, good where there are none."""
    level = min((part.level for part in found), key=LEVELS.index, default="good")
    worst = next((part.message for part in found if part.level == level), "nothing that was asked has surely fallen")
    return Verdict(level, level != "undecided", tuple(found), f"{level.upper()}: {worst}.", tuple(said))


def _gain(comparison: Comparison, score: str, change: float) -> float:
    """A change as a gain: of an error, the less the better."""
    return -change if comparison.new.named(score)[0] in LOWER_IS_BETTER else change


def _asked(comparison: Comparison, only: Sequence[str]) -> list[tuple[str, str]]:
    """Score and slice of every question, once: a slice of the same samples as one before asks nothing new."""
    slices = comparison.new.slices
    pairs = []
    for text in only:
        score, dot, slice = text.partition(".")
        comparison.new.named(score)  # which refuses an unknown one
        if dot and slice not in slices:
            raise ValueError(f"only={text!r}: {slice!r} is none of the slices {', '.join(slices)}")
        pairs += [(score, name) for name in ([slice] if dot else slices)]
    if only:
        return list(dict.fromkeys(pairs))
    seen: list[object] = []
    for name in slices:
        samples = [part.tolist() for card in (*comparison.news, *comparison.olds) for part in card.sums(None, name)]
        if samples not in seen:
            seen.append(samples)
            pairs += [(score, name) for score in SCORES if comparison.new.knows(score)]
    return pairs
