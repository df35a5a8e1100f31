"""Has retraining cost a modality anything: what a new scorecard lost against the last one, as findings."""

from __future__ import annotations

import math

from mm_metrics import wording
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import Finding

SCORES = ("accuracy", "precision", "recall", "f1")


def losses(card: Scorecard, last: Scorecard, confidence: float = 0.95) -> list[Finding]:
    """A finding for every score, of the whole and of every slice, that fell surely: its interval lies below 0.

    Where a card holds no bootstrap replicates nothing is sure of a fall, and the finding is undecided. Raises
    ValueError for cards of other modalities or classes.

    >>> import torch
    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> def card(wrong):
    ...     metric = CoalitionConfusionMatrix(("text",), num_classes=2, coalitions=["all"], bootstrap=100)
    ...     target = torch.arange(200) % 2
    ...     metric.update(torch.where(torch.arange(200) < wrong, 1 - target, target)[None], target)
    ...     return metric.scorecard()
    >>> losses(card(40), card(10))[0].message
    'overall accuracy -15.0 points [-20.0, -10.0] against last: 0.80, was 0.95'
    """
    comparison = card - last
    findings: list[Finding] = []
    seen: list[object] = []
    for slice in card.slices:
        samples = [part.tolist() for side in (card, last) for part in side._sums(None, slice)]
        if samples in seen:  # the same samples under another name
            continue
        seen.append(samples)
        for score in SCORES:
            change = comparison.estimate(score, slice=slice, confidence=confidence)
            known = not math.isnan(change.high)
            if not change.value < 0 or (known and change.high >= 0):
                continue
            points, _, interval = wording.points(change).partition(" ")
            message = (
                f"{'overall' if slice == 'all' else slice} {'F1' if score == 'f1' else score} {points} points "
                f"{interval if known else '(no interval: score both with bootstrap=200)'} against last: "
                f"{card.score(score, slice=slice):.2f}, was {last.score(score, slice=slice):.2f}"
            )
            level = "bad" if known else "undecided"
            findings.append(
                Finding("regression", slice, score, change.value, change.low, change.high, 0.0, message, level)
            )
    return findings
