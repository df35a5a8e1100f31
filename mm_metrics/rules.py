"""One question of a verdict: a score of the whole, of a modality's slice or of a class, against two bars."""

from __future__ import annotations

import math
from typing import NamedTuple

from mm_metrics.estimates import Estimate

LEVELS = ("bad", "undecided", "mixed", "good")
Bars = tuple[float, float]


class Rule(NamedTuple):
    """A score against its two bars."""

    score: str
    slice: str
    class_name: str | None
    estimate: Estimate
    bars: Bars
    support: int
    thin: str  # why too few samples stand behind it; empty where enough do

    def answer(self, value: float) -> str:
        bad, good = self.bars
        if self.score == "unbalanced":
            return "bad" if value > bad else "good"
        if value < bad:
            return "bad"
        above = value >= good if self.score == "f1" else value > good
        return "good" if above else "mixed"

    @property
    def level(self) -> str:
        if self.thin or math.isnan(self.estimate.value) or {self.worst, self.best} == {"bad", "good"}:
            return "undecided"
        return self.answer(self.estimate.value)

    @property
    def worst(self) -> str:
        low = self.estimate.low
        return self.answer(self.estimate.value if math.isnan(low) else low)

    @property
    def best(self) -> str:
        high = self.estimate.high
        return self.answer(self.estimate.value if math.isnan(high) else high)
