"""Scorecards of the same data, a model and its retrained self say: paired differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics import contributions, scores, uncertainty
from mm_metrics.counts import ends
from mm_metrics.counts.counted import Slice
from mm_metrics.counts.other import opened
from mm_metrics.counts.overlap import SAME, overlap
from mm_metrics.counts.tally import Tally
from mm_metrics.uncertainty import Contribution, Estimate


class Difference(NamedTuple):
    """A difference of scores with its standard error and the degrees of freedom of that."""

    value: float
    error: float
    freedom: float
    hidden: float = 0.0  # what binning can hide of the value, either way


class _Read(NamedTuple):
    """What one card says: a number ``(...)``, its replicates ``(R, ...)``, and what `ends.steps` says of it."""

    value: Tensor
    replicates: Tensor
    total: Tensor
    unit: Tensor
    hidden: Tensor  # what binning can hide


@dataclass(frozen=True)
class Comparison:
    """What ``new - old`` answers: the difference of any score, new less old, with its interval.

    Where both cards saw the same samples under the same numbers and seed, their bootstrap weights are the same and the
    difference is paired, whatever rows one side skipped; otherwise it is that of two independent samples, and wider.
    Further cards of the same data, of models trained with other seeds, make it a difference of means, and what they
    differ by widens it. Raises ValueError for cards of other modalities or classes.

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
    more_new: tuple[Tally, ...] = ()
    more_old: tuple[Tally, ...] = ()

    def __post_init__(self) -> None:
        """Refuse cards that measure different things."""
        cards = [self.new, self.old, *self.more_new, *self.more_old]
        if len({card.other for card in cards}) > 1:
            cards = [opened(card) for card in cards]
            last = 2 + len(self.more_new)
            sides = {"more_new": tuple(cards[2:last]), "more_old": tuple(cards[last:])}
            vars(self).update(new=cards[0], old=cards[1], **sides)  # past frozen=True
        for card in cards[1:]:
            for what in ("modalities", "task", "classes", "class names", "cuts of slices"):
                new, old = self.new.identity()[what], card.identity()[what]
                if new != old:
                    raise ValueError(f"scorecards with different {what} do not compare: {new} and {old}")

    @property
    def news(self) -> tuple[Tally, ...]:
        """The new side's cards."""
        return (self.new, *self.more_new)

    @property
    def olds(self) -> tuple[Tally, ...]:
        """The old side's cards."""
        return (self.old, *self.more_old)

    @cached_property
    def paired(self) -> bool:
        """Whether all saw the same samples with the same weights, but for rows that some skipped."""
        return all(overlap(self.new, card) > SAME for card in (*self.more_new, *self.olds))

    def score(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> float:
        """The new side's score less the old one's."""
        new, old = ([card.score(score, coalition, slice, average) for card in side] for side in (self.news, self.olds))
        return sum(new) / len(new) - sum(old) / len(old)

    def interval(
        self,
        score: str,
        coalition: str | None = None,
        slice: Slice = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """``(low, high)`` of the difference; NaN where a card has no bootstrap replicates."""
        _, low, high = self.estimate(score, coalition, slice, average, confidence)
        return low, high

    def estimate(
        self,
        score: str,
        coalition: str | None = None,
        slice: Slice = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> Estimate:
        """A difference with its interval."""
        name = self.new.named(score, average)[0]
        lowest, highest = scores.extent(name)
        return _estimate(self.difference(score, coalition, slice, average), confidence, highest - lowest)

    def difference(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> Difference:
        """A difference with its standard error, which is NaN where a card has no bootstrap replicates."""
        name, average = self.new.named(score, average)
        return self._of_scores(name, coalition, slice, average)[0]

    def class_estimates(
        self, score: str, coalition: str | None = None, slice: Slice = "all", confidence: float = 0.95
    ) -> dict[str, Estimate]:
        """The difference of each class, or label, with its interval, by name."""
        lowest, highest = scores.extent(self.new.named(score)[0])
        differences = self._of_scores(score, coalition, slice, "none")
        found = (_estimate(part, confidence, highest - lowest) for part in differences)
        return dict(zip(self.new.names, found, strict=True))

    def _of_scores(self, name: str, coalition: str | None, slice: Slice, average: str | None) -> list[Difference]:
        """Of a score, or with ``average="none"`` of each class."""

        def read(card: Tally) -> _Read:
            if average == "none":
                values = [part.value for part in card.class_estimates(name, coalition, slice).values()]
            else:
                values = [card.score(name, coalition, slice, average)]
            value = torch.tensor(values, dtype=torch.float64)
            spread = uncertainty.known(card.replicate_scores(name, coalition, slice, average), value)
            steps = ends.steps(name, card.behind(name, card.sums(coalition, slice), average), value)
            return _Read(value, spread, *steps, card.hidden(name, average, slice)[0][card.row(coalition)])

        return self._differences(read, slice)

    def contributions(
        self, score: str = "f1", slice: Slice = "all", confidence: float = 0.95, average: str | None = "default"
    ) -> dict[str, Contribution]:
        """How each modality's drop, gain alone and Shapley value differ, each with an interval."""
        columns = []
        for function in (contributions.leave_one_out, contributions.unimodal_gain, contributions.shapley_values):

            def read(card: Tally, function: Callable[..., Tensor] = function) -> _Read:
                part = card.applied(function, score, slice, average)
                return _Read(*part[:4], math.sqrt(3) * part.sampling)

            part = self.new.applied(function, score, slice, average)
            ranges = (part.most - part.least).expand(part.value.shape).tolist()
            differences = zip(self._differences(read, slice), ranges, strict=True)
            columns.append([_estimate(difference, confidence, most) for difference, most in differences])
        names = self.new.modalities
        return {name: Contribution(*(column[m] for column in columns)) for m, name in enumerate(names)}

    def _differences(self, read: Callable[[Tally], _Read], slice: Slice) -> list[Difference]:
        """What `read` says of the new side's cards less the old side's, an entry a number of its value."""
        sides = [[read(card) for card in cards] for cards in (self.news, self.olds)]
        parts = sides[0] + sides[1]

        def every(name: str, parts: Sequence[_Read]) -> Tensor:
            return torch.stack([getattr(part, name).expand_as(part.value).flatten() for part in parts])  # (cards, P)

        new, old = (every("value", side) for side in sides)
        values = new.mean(0) - old.mean(0)
        hidden = every("hidden", sides[0]).mean(0) + every("hidden", sides[1]).mean(0)
        size = min(len(part.replicates) for part in parts)
        first, second = (
            torch.stack([part.replicates[:size].reshape(size, -1) for part in side]).mean(0) for side in sides
        )  # (R, P) each
        if not self.paired:  # the variances add up, which shifting one of two independent columns gives too
            second = second.roll(1, 0)
        total, unit = every("total", parts).amin(0), every("unit", parts).amax(0)
        clusters = [groups for card in (*self.news, *self.olds) if (groups := card.clusters(slice)) is not None]
        groups = min(clusters, default=None)
        variances, blind = uncertainty.difference_variance(first - second, total, groups, unit)
        spare = len(new) + len(old) - 2  # degrees of freedom of what seeds differ by
        seeds = torch.zeros_like(values)
        if spare:
            seeds = ((new - new.mean(0)) ** 2).sum(0) + ((old - old.mean(0)) ** 2).sum(0)
            seeds = seeds / spare * (1 / len(new) + 1 / len(old))
        errors, estimated = (variances + blind + seeds).sqrt(), ((variances, groups and groups - 1), (seeds, spare))
        lost = sum((part**2 / freedom for part, freedom in estimated if freedom), torch.zeros_like(values))
        freedom = (errors**4 / lost).nan_to_num(nan=math.inf, posinf=math.inf)  # Satterthwaite (1946)
        rows = zip(*(part.tolist() for part in (values, errors, freedom, hidden)), strict=True)
        return [Difference(*row) for row in rows]


def _estimate(difference: Difference, confidence: float, most: float) -> Estimate:
    if math.isinf(difference.value):  # as of d′ where nothing overlaps: how far it lies from the other is not known
        return Estimate(difference.value, -most, most)
    half = uncertainty.t_quantile(confidence, difference.freedom) * difference.error + difference.hidden
    return Estimate(difference.value, max(difference.value - half, -most), min(difference.value + half, most))  # or NaN
