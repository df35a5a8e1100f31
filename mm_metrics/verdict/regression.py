"""Has retraining cost a modality anything: what a new scorecard lost against the last one, as findings."""

from __future__ import annotations

import math

from mm_metrics import words
from mm_metrics.counts.compare import Comparison
from mm_metrics.counts.tally import Tally
from mm_metrics.verdict.gate import SCORES
from mm_metrics.verdict.rules import Finding


def losses(card: Tally, last: Tally, confidence: float = 0.95) -> list[Finding]:
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
    'overall accuracy −15.0 points [−20.0, −10.0] against last: 0.80, was 0.95'
    """
    comparison = Comparison(card, last)
    findings: list[Finding] = []
    seen: list[object] = []
    for slice in card.slices:
        samples = [part.tolist() for side in (card, last) for part in side.sums(None, slice)]
        if samples in seen:  # the same samples under another name
            continue
        seen.append(samples)
        for score in SCORES:
            change = comparison.estimate(score, slice=slice, confidence=confidence)
            known = not math.isnan(change.high)
            if not change.value < 0 or (known and change.high >= 0):
                continue
            interval = words.points_interval(change.low, change.high) or "(no interval: score both with bootstrap=200)"
            message = (
                f"{'overall' if slice == 'all' else slice} {words.label(score)} {words.points(change.value)} points "
                f"{interval} against last: {words.score(card.score(score, slice=slice))}, was "
                f"{words.score(last.score(score, slice=slice))}"
            )
            level = "bad" if known else "undecided"
            findings.append(
                Finding("regression", slice, score, change.value, change.low, change.high, 0.0, message, level)
            )
    return findings
