"""Scorecards of systems that may answer anything: one more class, ``(other)``, holds what is no class at all.

A generative model asked for one of five events may answer with a sixth. That answer is a miss of its actual class, so
it has to stay in the confusion. But ``(other)`` is no class that could be found: it has predictions and never a sample,
so in a macro mean it would count as a class that is always missed, and one stray answer among thousands would turn
five classes at 0.90 into a mean of 0.75. Scores therefore read the class sums without it: recall and accuracy count
the miss, precision is over the answers that name a class, and the mean is over the real classes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm_metrics.layout import Layout
from mm_metrics.scorecard import Scorecard
from mm_metrics.scores import SCORES, ClassSums
from mm_metrics.uncertainty import wilson

if TYPE_CHECKING:
    from mm_metrics.verdict import QualityGate, Verdict

OTHER = "(other)"
JUDGED = ("correct", OTHER)  # the only class of answers that a judge marked


class OpenScorecard(Scorecard):
    """A scorecard whose last class (in multilabel: label) is ``(other)``; it adds up and compares with closed ones.

    Where the only other class is ``correct``, a judge has marked the answers: accuracy is known, every other score is
    NaN.

    >>> from mm_metrics import ModalityConfusionMatrix
    >>> metric = ModalityConfusionMatrix(("text",), num_classes=3)
    >>> metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    >>> card = metric.scorecard()
    >>> card = OpenScorecard(card.layout, card.task, card.counts, class_names=("no", "yes", "(other)"))
    >>> card.score("recall"), card.score("precision"), card.names
    (0.75, 1.0, ('no', 'yes'))
    """

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the real classes, or labels."""
        return (self.class_names or ())[:-1]

    @property
    def judged(self) -> bool:
        """Whether only right and wrong are known."""
        return self.class_names == JUDGED

    def outside(self, coalition: str | None = None) -> int:
        """How many answers were no class (in multilabel: named a label that is none); wrong ones where judged."""
        predicted = self.layout.class_sums(self.counts).predicted[self._row(coalition), 0]  # (L, C)
        return int(predicted[-1, -1])

    def confusion(self, coalition: str | None = None, slice: str = "all", other: bool = False) -> Tensor:
        """``(C, C)`` of the real classes as `names` has them; ``(C + 1, C + 1)`` with `other`. Multilabel alike."""
        confusion = super().confusion(coalition, slice)
        if other:
            return confusion
        return confusion[:-1] if self.task == "multilabel" else confusion[:-1, :-1]

    def score(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> float:
        """A score as `Scorecard.score` gives it; NaN for what a judge's marks do not tell."""
        return super().score(score, coalition, slice, average) if self._told(score) else math.nan

    def class_scores(self, score: str, coalition: str | None = None, slice: str = "all") -> dict[str, float]:
        """A score of each class as `Scorecard.class_scores` gives it; NaN for what a judge's marks do not tell."""
        if not self._told(score):
            return dict.fromkeys(self.names, math.nan)
        return super().class_scores(score, coalition, slice)

    def interval(
        self,
        score: str,
        coalition: str | None = None,
        slice: str = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """An interval as `Scorecard.interval` gives it; NaN for what a judge's marks do not tell."""
        if not self._told(score):
            return math.nan, math.nan
        if score == "specificity" and self.task == "binary" and average in ("default", "binary"):
            # Not called positive is not yet called negative, where there are other answers.
            negatives = float(self._sums(coalition, slice).actual[0, 0])
            low, high = wilson(self.score(score, coalition, slice) * negatives, negatives, confidence)
            return float(low), float(high)
        return super().interval(score, coalition, slice, average, confidence)

    def coalition_scores(self, score: str, slice: str = "all") -> tuple[Tensor, Tensor | None]:
        """Scores as `Scorecard.coalition_scores` gives them; NaN for what a judge's marks do not tell."""
        values, replicates = super().coalition_scores(score, slice)
        if self._told(score):
            return values, replicates
        nan = torch.full_like(values, torch.nan)
        return nan, None if replicates is None else torch.full_like(replicates, torch.nan)

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> Tensor | None:
        """Scores as `Scorecard.replicate_scores` gives them; NaN for what a judge's marks do not tell."""
        values = super().replicate_scores(score, coalition, slice, average)
        return values if values is None or self._told(score) else torch.full_like(values, torch.nan)

    def majority(self, score: str = "accuracy", slice: str = "all") -> float:
        """What guessing would score; NaN where the classes are not known."""
        return math.nan if self.judged else super().majority(score, slice)

    def verdict(self, gate: QualityGate | None = None, **context: Any) -> Verdict:
        """The verdict as `Scorecard.verdict` gives it; by accuracy alone where only right and wrong are known."""
        if not self.judged:
            return super().verdict(gate, **context)
        from mm_metrics import judged
        from mm_metrics.verdict import QualityGate

        return judged.judge(self, gate or QualityGate(), **context)

    def __add__(self, other: Scorecard) -> Scorecard:
        return super().__add__(opened(other) if isinstance(other, Scorecard) else other)

    def __radd__(self, other: Scorecard) -> Scorecard:
        return opened(other) + self if isinstance(other, Scorecard) else NotImplemented

    def __sub__(self, other: Scorecard) -> Any:
        return super().__sub__(opened(other))

    def __rsub__(self, other: Scorecard) -> Any:
        return opened(other) - self

    def _told(self, score: str) -> bool:
        return score == "accuracy" or score not in SCORES or not self.judged

    @cached_property
    def _class_sums(self) -> ClassSums:
        return self._real(self.layout.class_sums(self.counts))

    @cached_property
    def _replicate_sums(self) -> ClassSums:
        return self._real(self.layout.replicate_sums(self.counts))

    def _real(self, sums: ClassSums) -> ClassSums:
        """Each ``(…, L, C)`` without the last class, or label."""
        return ClassSums(*(part[..., :-1, :] if self.task == "multilabel" else part[..., :-1] for part in sums))


def opened(card: Scorecard) -> OpenScorecard:
    """The same counts with room for answers that are no class."""
    if isinstance(card, OpenScorecard):
        return card
    layout, fresh = card.layout, _resized(card.layout, card.task, +1)
    counts = _copied(card.counts, layout, fresh)
    if card.task == "multilabel":  # the label (other) is on in no target and in no prediction so far
        confusion = fresh.view(counts, "confusion")
        confusion[:, :, -1, 0, 0] = layout.view(card.counts, "confusion")[:, :, 0].sum((-2, -1))
        if "sums" in fresh.fields:
            actual = layout.view(card.counts, "sums")[:, :, 0, 2].sum(-1)
            fresh.view(counts, "sums")[:, :, -1, :, 0] = actual.unsqueeze(-1)
        if "replicates" in fresh.fields:
            actual = layout.view(card.counts, "replicates")[:, 0, 2].sum(1)  # (K, S, R)
            fresh.view(counts, "replicates")[:, -1, :, 0] = actual.unsqueeze(1)
    return OpenScorecard(
        fresh, card.task, counts, card.seed, (*card.names, OTHER), card.shards, card.info, card.parts
    )  # fmt: skip


def closed(card: Scorecard) -> Scorecard:
    """The same counts without ``(other)`` where no answer fell there: as if the classes had been closed all along."""
    if not isinstance(card, OpenScorecard) or card.judged or any(map(card.outside, card.coalitions)):
        return card
    layout = _resized(card.layout, card.task, -1)
    numbered = card.names == tuple(map(str, range(len(card.names))))
    return Scorecard(
        layout, card.task, _copied(card.counts, card.layout, layout), card.seed, None if numbered else card.names,
        card.shards, card.info, card.parts,
    )  # fmt: skip


def recognised(card: Scorecard) -> Scorecard:
    """`card`, as an `OpenScorecard` if its last class says that it is one. Raises ValueError if its counts say no."""
    if not card.class_names or card.class_names[-1] != OTHER:
        return card
    opened = OpenScorecard(**{name: getattr(card, name) for name in card.__dataclass_fields__})
    actual = card.layout.class_sums(card.counts).actual[..., -1, -1]
    if bool((actual != 0).any()):
        raise ValueError(f"class {OTHER!r} has samples, and it stands for answers that are no class")
    return opened


def _resized(layout: Layout, task: str, by: int) -> Layout:
    return replace(layout, L=layout.L + by) if task == "multilabel" else replace(layout, C=layout.C + by)


def _copied(counts: Tensor, layout: Layout, fresh: Layout) -> Tensor:
    """The counts of the cells that both layouts have."""
    result = counts.new_zeros(fresh.size)
    for name in fresh.fields:
        old, new = layout.view(counts, name), fresh.view(result, name)
        common = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
        new[common] = old[common]
    return result
