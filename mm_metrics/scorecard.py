"""The face of what was counted: a `Tally` with its verdict, its table, its JSON, and differences between two."""

from __future__ import annotations

from typing import Any

from mm_metrics import words
from mm_metrics.counts import tally_json
from mm_metrics.counts.compare import Comparison
from mm_metrics.counts.tally import Tally
from mm_metrics.render import console
from mm_metrics.uncertainty import Contribution, Estimate
from mm_metrics.verdict import QualityGate, Verdict
from mm_metrics.verdict.judge import judge

__all__ = ["Contribution", "Estimate", "Scorecard"]


class Difference(Comparison):
    """``new - old`` with its table; every question is that of `mm_metrics.counts.compare.Comparison`."""

    def __repr__(self) -> str:
        score, of = self.new.headline, f" of {self.new.sampled}" * self.new.partial
        said = words.points_estimate(self.estimate(score, self.new.sampled), words.per(score))
        how = "the same samples" if self.paired else "unpaired"
        return f"Difference({words.unit(score)}{of} {said}, {how}; .table() shows all)"

    def table(self, **options: Any) -> str:
        """The differences as text of 80 columns."""
        return console.difference(self, **options)


class Scorecard(Tally):
    """Counts per coalition, slice and class, and every question that they answer.

    Made by a metric's ``scorecard()``, ``Scorecard.from_json`` or ``mm-metrics score``. ``card + other`` adds counts.

    >>> import torch
    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2, bootstrap=100)
    >>> shown = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])  # none, text, audio, both
    >>> metric.update(shown, torch.tensor([1, 1]))
    >>> card = metric.scorecard()
    >>> card.score("accuracy", coalition="text"), card.score("accuracy")
    (0.5, 1.0)
    >>> card
    Scorecard(multiclass, 2 samples: F1 1.00 [.26, 1.0]; .table() shows all)
    >>> card.contributions("accuracy")["text"].drop.value
    1.0
    """

    def __repr__(self) -> str:
        score, of = self.headline, f" of {self.sampled}" * self.partial
        said = f"{words.label(score)}{of} {words.estimate(self.estimate(score, self.sampled))}"
        return f"Scorecard({self.task}, {words.count(self.samples, 'sample')}: {said}; .table() shows all)"

    def verdict(self, gate: QualityGate | None = None, **context: Any) -> Verdict:
        """Good, mixed, bad or undecided, and why; by the default gate unless another is given."""
        return judge(self, gate or QualityGate(), **context)

    def table(self, **options: Any) -> str:
        """The scorecard as text of 80 columns."""
        return console.text(self, **options)

    def __sub__(self, other: Scorecard) -> Difference:
        """This card against another of the same data: `mm_metrics.counts.compare.Comparison`."""
        return Difference(self, other)

    def to_json(self, path: Any = None) -> str:
        """The card as JSON; written to `path`, whole or not at all, where one is given."""
        return tally_json.write(self, path)

    @staticmethod
    def from_json(source: Any) -> Scorecard:
        """A card from a file's path, or from JSON text; ValueError for what is not one."""
        return tally_json.read(source, Scorecard)
