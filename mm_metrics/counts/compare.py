"""Two scorecards of the same data, a model and its retrained self say: paired differences with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mm_metrics import uncertainty
from mm_metrics.counts.other import opened
from mm_metrics.counts.tally import Tally
from mm_metrics.uncertainty import Estimate


@dataclass(frozen=True)
class Comparison:
    """What ``new - old`` answers: the difference of any score, new less old, with its interval.

    Where both cards saw the same samples under the same numbers and seed, their bootstrap weights are the same and the
    difference is paired; otherwise it is that of two independent samples, and wider. Raises ValueError for cards of
    other modalities or classes.

    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> def card(prediction):
    ...     metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2, coalitions=["all"], bootstrap=100)
    ...     metric.update(torch.tensor([prediction]), torch.tensor([1, 1, 0, 0]), index=torch.arange(4))
    ...     return metric.scorecard()
    >>> difference = card([1, 1, 0, 0]) - card([1, 0, 0, 0])
    >>> difference.score("accuracy"), difference.paired
    (0.25, True)
    """

    new: Tally
    old: Tally

    def __post_init__(self) -> None:
        """Refuse cards that measure different things."""
        if self.new.other != self.old.other:
            object.__setattr__(self, "new", opened(self.new))
            object.__setattr__(self, "old", opened(self.old))
        for what in ("modalities", "task", "classes", "class names"):
            new, old = self.new.identity()[what], self.old.identity()[what]
            if new != old:
                raise ValueError(f"scorecards with different {what} do not compare: {new} and {old}")

    @property
    def paired(self) -> bool:
        """Whether both saw the same samples with the same weights: their resampled class sizes are equal."""
        new, old = (card.replicate_sums("all") for card in (self.new, self.old))
        if new is None or old is None:
            return False
        size = min(len(new.actual), len(old.actual))  # a replicate's weights do not depend on how many there are
        return torch.equal(new.actual[:size, -1], old.actual[:size, -1])

    def score(self, score: str, coalition: str | None = None, slice: str = "all") -> float:
        """The new card's score less the old one's."""
        return self.new.score(score, coalition, slice) - self.old.score(score, coalition, slice)

    def interval(
        self, score: str, coalition: str | None = None, slice: str = "all", confidence: float = 0.95
    ) -> tuple[float, float]:
        """``(low, high)`` of the difference; NaN where a card has no bootstrap replicates."""
        spreads = []
        for card in (self.new, self.old):
            spread = card.replicate_scores(score, coalition, slice)
            if spread is None:
                return math.nan, math.nan
            spreads.append(spread)
        size = min(map(len, spreads))
        new, old = (spread[:size] for spread in spreads)
        if not self.paired:  # the variances add up, which shifting one of two independent columns gives too
            old = old.roll(1)
        support = min(card.support(slice, coalition) for card in (self.new, self.old))
        value = torch.tensor(self.score(score, coalition, slice), dtype=torch.float64)
        low, high = uncertainty.difference_interval(value, new - old, support, confidence)
        return float(low), float(high)

    def estimate(
        self, score: str, coalition: str | None = None, slice: str = "all", confidence: float = 0.95
    ) -> Estimate:
        """A difference with its interval."""
        return Estimate(
            self.score(score, coalition, slice), *self.interval(score, coalition, slice, confidence=confidence)
        )
