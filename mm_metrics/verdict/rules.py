"""What a verdict is made of: rules, each a score against two bars, and the findings that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mm_metrics.uncertainty import Estimate
from mm_metrics.verdict.gate import Bars

LEVELS = ("bad", "undecided", "mixed", "good")


class Need(NamedTuple):
    """How many samples, or events, stand behind a rule, of how many that have to."""

    have: int
    need: int
    unit: str = "samples"

    @property
    def thin(self) -> bool:
        return self.have < self.need


class Rule(NamedTuple):
    """A score of the whole, of a modality's slice or of a class, against its two bars."""

    score: str
    slice: str
    class_name: str | None
    estimate: Estimate
    bars: Bars
    support: int
    behind: Need

    def answer(self, value: float) -> str:
        """The level that a value of the score would give."""
        bad, good = self.bars
        if self.score == "unbalanced":
            return "bad" if value > bad else "good"
        if value < bad:
            return "bad"
        above = value >= good if self.score == "f1" else value > good
        return "good" if above else "mixed"

    @property
    def level(self) -> str:
        """The rule's answer: undecided where too little stands behind it, or its interval reaches from good to bad."""
        if self.behind.thin or math.isnan(self.estimate.value) or {self.worst, self.best} == {"bad", "good"}:
            return "undecided"
        return self.answer(self.estimate.value)

    @property
    def worst(self) -> str:
        """The level at the interval's low end."""
        low = self.estimate.low
        return self.answer(self.estimate.value if math.isnan(low) else low)

    @property
    def best(self) -> str:
        """The level at the interval's high end."""
        high = self.estimate.high
        return self.answer(self.estimate.value if math.isnan(high) else high)


class Finding(NamedTuple):
    """One thing that the verdict found; `modality` is a slice's name, "all" for the whole."""

    kind: str
    modality: str
    score: str
    value: float
    low: float
    high: float
    threshold: float
    message: str
    level: str = "mixed"
    class_name: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a scorecard.

    `level` is good, mixed, bad or undecided; `firm` is False where an interval reaches the next level; `findings` come
    worst first; `headline` is one sentence and `notes` say whose bar it is and what guessing would score.
    """

    level: str
    firm: bool
    findings: tuple[Finding, ...]
    headline: str
    notes: tuple[str, ...]

    @property
    def number(self) -> int:
        """2 good, 1 mixed, 0 bad, -1 undecided, as ``{stage}/verdict`` logs it."""
        return {"good": 2, "mixed": 1, "bad": 0, "undecided": -1}[self.level]

    def as_dict(self, code: int, changes: Sequence[Any] = ()) -> dict[str, Any]:
        """What a machine reads: the fields, the exit code, and what changed against other cards."""
        return {
            "format": "mm_metrics/gate",
            "version": 1,
            "level": self.level,
            "firm": self.firm,
            "code": code,
            "headline": self.headline,
            "findings": [finding._asdict() for finding in self.findings],
            "changes": [change._asdict() for change in changes],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [self.headline, *(f"- {finding.message}" for finding in self.findings), *self.notes]
        return "\n".join(lines)
