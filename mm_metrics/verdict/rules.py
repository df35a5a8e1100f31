"""What a verdict is made of: rules, each a score against two bars, and the findings that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mm_metrics.counts.tally import Tally
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Estimate
from mm_metrics.verdict.gate import Bars

_ROUNDING = 1e-9  # 1.0 - 0.7 is above 0.3
LEVELS = ("bad", "undecided", "mixed", "good")


class Need(NamedTuple):
    """How many samples, events, answers or groups stand behind a rule, of how many that have to."""

    have: int
    need: int
    unit: str = "samples"

    @property
    def thin(self) -> bool:
        return self.have < self.need


class Rule(NamedTuple):
    """A score of the whole, of a modality's slice or of a class, against its two bars.

    `support` counts what there would have to be more of to know it better: samples, events, or `groups` where those are
    what is independent.
    """

    score: str
    slice: str
    class_name: str | None
    estimate: Estimate
    bars: Bars
    support: int
    behind: Need
    groups: int | None = None

    @property
    def lower(self) -> bool:
        """Whether less is better, as of an error."""
        return self.score in LOWER_IS_BETTER

    def answer(self, value: float) -> str:
        """The level that a value of the score would give."""
        bad, good = self.bars
        if self.score == "unbalanced":
            return "bad" if value > bad + _ROUNDING else "good"
        if self.lower:
            value, bad, good = -value, -bad, -good
        if value < bad:
            return "bad"
        above = value >= good if self.score == "f1" else value > good
        return "good" if above else "mixed"

    @property
    def known(self) -> bool:
        """Whether the score has an interval."""
        return not math.isnan(self.estimate.low + self.estimate.high)

    @property
    def ends(self) -> set[str]:
        """The levels at both ends of the interval, and of the value alone where there is none."""
        value, low, high = self.estimate
        return {self.answer(low), self.answer(high)} if self.known else {self.answer(value)}

    @property
    def level(self) -> str:
        """The rule's answer: undecided where too little stands behind it, or its interval reaches from good to bad.

        Between precision and recall there is one bar and no room about it: a gap below it stays good.
        """
        if self.behind.thin or math.isnan(self.estimate.value):
            return "undecided"
        answer = self.answer(self.estimate.value)
        if self.ends == {"bad", "good"} and not (self.score == "unbalanced" and answer == "good"):
            return "undecided"
        return answer

    def surely(self, level: str) -> bool:
        """Whether the whole interval gives that level."""
        return self.known and not self.behind.thin and self.ends == {level}


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


def imprecise(card: Tally, slice: str = "all", name: str | None = None) -> bool:
    """Whether precision is below recall: what is taken for a class is at fault, and not what is missed of it."""
    parts = ("precision", "recall")
    if name is None:
        precision, recall = (card.score(score, slice=slice) for score in parts)
    else:
        precision, recall = (card.class_scores(score, slice=slice).get(name, math.nan) for score in parts)
    return precision < recall


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
        rows = {"findings": [part._asdict() for part in self.findings], "changes": [part._asdict() for part in changes]}
        said = vars(self) | rows | {"notes": list(self.notes)}
        return {"format": "mm_metrics/gate", "version": 1, "code": code, **said}

    def __str__(self) -> str:
        lines = [self.headline, *(f"- {finding.message}" for finding in self.findings), *self.notes]
        return "\n".join(lines)
