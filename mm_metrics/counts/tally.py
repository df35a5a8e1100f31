"""Every question that a tally answers: scores, intervals, contributions, paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from mm_metrics import contributions, scores, uncertainty
from mm_metrics.counts.counted import Counted
from mm_metrics.counts.other import opened
from mm_metrics.scores import ClassSums
from mm_metrics.uncertainty import Contribution, Estimate


class Tally(Counted):
    """A tally that answers: each score of every coalition on every slice, its interval, and what a modality gives.

    A score that the counts do not tell, as of answers that a judge marked, is NaN.
    """

    def score(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> float:
        """A score of what a coalition gets right on a slice; NaN without samples. Names as in `mm_metrics.scores`."""
        value = self._score(score, self.sums(coalition, slice), average)
        if value.ndim:
            raise ValueError("average='none' gives one score a class: use card.class_scores")
        return float(value)

    def class_scores(self, score: str, coalition: str | None = None, slice: str = "all") -> dict[str, float]:
        """A score of each class, or label, by its name; raises ValueError for one of the whole, such as matthews."""
        if not self.knows(score):
            return dict.fromkeys(self.names, math.nan)
        if score in scores.WHOLE:
            raise ValueError(f"score={score!r} is one number for all classes: use card.score({score!r})")
        values = self._score(score, self.sums(coalition, slice), "none")
        return dict(zip(self.names, values.tolist(), strict=True))

    def interval(
        self,
        score: str,
        coalition: str | None = None,
        slice: str = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """``(low, high)`` of a score: Wilson's for plain proportions, else from the bootstrap, NaN without one."""
        sums = self.sums(coalition, slice)
        plain = self.kind.proportion(score, sums, average) if self.knows(score) else None
        if plain is not None:
            low, high = uncertainty.wilson(*plain, confidence)
            return float(low), float(high)
        spread = self.replicate_scores(score, coalition, slice, average)
        if spread is None:
            return math.nan, math.nan
        value = self._score(score, sums, average)
        floor = -1.0 if score in ("matthews", "cohen_kappa") else 0.0
        low, high = uncertainty.score_interval(value, spread, self.support(slice, coalition), confidence, floor)
        return float(low), float(high)

    def estimate(
        self, score: str, coalition: str | None = None, slice: str = "all", confidence: float = 0.95
    ) -> Estimate:
        """A score with its interval."""
        bounds = self.interval(score, coalition, slice, confidence=confidence)
        return Estimate(self.score(score, coalition, slice), *bounds)

    def coalition_scores(self, score: str, slice: str = "all") -> tuple[Tensor, Tensor | None]:
        """``(K,)`` scores of every coalition, and ``(K, R)`` of their bootstrap replicates, paired."""
        values = self._score(score, self.coalition_sums(slice))
        replicates = self.replicate_sums(slice)
        spread = None if replicates is None else self._score(score, replicates)[:, : len(values)].T
        return values, spread

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> Tensor | None:
        """``(R,)`` the score of every bootstrap replicate; None where none were kept."""
        sums = self.replicate_sums(slice)
        if sums is None:
            return None
        return self._score(score, ClassSums(*(part[:, self.row(coalition)] for part in sums)), average)

    def apply(
        self, function: Callable[..., Tensor], score: str, slice: str = "all", confidence: float = 0.95
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value, low and high of a function of `mm_metrics.contributions` over the coalitions' scores.

        >>> from mm_metrics import CoalitionConfusionMatrix, contributions
        >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2)
        >>> metric.update(torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]]), torch.tensor([1, 1]))
        >>> metric.scorecard().apply(contributions.cooperation, "accuracy")[0]
        tensor(0.5000, dtype=torch.float64)
        """
        values, replicates = self.coalition_scores(score, slice)
        table = self.layout.modalities.table(self.masks)
        keywords: dict[str, Any] = {}
        if function in (contributions.unimodal_gain, contributions.cooperation):
            keywords["empty"] = self.majority(score, slice)
        value = function(values, table, **keywords)
        if replicates is None:
            nan = torch.full_like(value, torch.nan)
            return value, nan, nan
        if keywords:
            keywords["empty"] = self._score(score, _majority(self.replicate_sums(slice)))[:, -1]
        spread = function(replicates, table, **keywords).movedim(-1, 0)
        low, high = uncertainty.difference_interval(value, spread, self.support(slice), confidence)
        if function is contributions.shapley_values and len(table) < 2 ** len(self.modalities):
            z = uncertainty.normal_quantile(confidence)
            sampling = z * contributions.shapley_error(values, table)
            half = (((high - low) / 2) ** 2 + sampling**2).sqrt()
            low, high = value - half, value + half
        return value, low, high

    def contributions(self, score: str = "f1", slice: str = "all", confidence: float = 0.95) -> dict[str, Contribution]:
        """What each modality gives: its drop, its gain alone and its Shapley value, each with an interval.

        In points of the score, as fractions. Where no coalition of none was counted, guessing the majority stands in.
        """
        columns = []
        for function in (contributions.leave_one_out, contributions.unimodal_gain, contributions.shapley_values):
            parts = torch.stack(self.apply(function, score, slice, confidence), dim=-1)  # (M, 3)
            columns.append([Estimate(*row) for row in parts.tolist()])
        return {name: Contribution(*(column[m] for column in columns)) for m, name in enumerate(self.modalities)}

    def majority(self, score: str = "accuracy", slice: str = "all") -> float:
        """What always guessing the most frequent class of the slice would score; NaN where classes are not known."""
        return math.nan if self.judged else float(self._score(score, _majority(self.sums(None, slice))))

    def discordant(self, first: str, second: str, slice: str = "all") -> tuple[int, int]:
        """Samples that only the first, and that only the second coalition gets right, of those both answered."""
        hits = self.weighted(self.layout.hits(self.counts), slice, 0)
        i, j = self.row(first), self.row(second)
        if not self.layout.hit_patterns:
            return (int(hits[i, j]), int(hits[j, i])) if i != j else (0, 0)
        patterns = torch.arange(len(hits))
        right_i, right_j = (patterns >> i & 1).bool(), (patterns >> j & 1).bool()
        return int(hits[right_i & ~right_j].sum()), int(hits[right_j & ~right_i].sum())

    def mcnemar(self, first: str, second: str = "all", slice: str = "all") -> float:
        """The exact p-value that two coalitions are right equally often on a slice."""
        return uncertainty.mcnemar(*self.discordant(first, second, slice))

    def modality_confusion(self, slice: str = "all") -> dict[str, float]:
        """The share of samples right with a modality alone and wrong with all (VGGSounder's μ); "all": with each alone.

        Raises ValueError where hit patterns were not kept: beyond nine coalitions.
        """
        if not self.layout.hit_patterns:
            raise ValueError(f"modality_confusion needs at most 9 coalitions, {self.layout.K} were counted")
        hits = self.weighted(self.layout.hits(self.counts), slice, 0).unflatten(0, (-1, 2 ** len(self.masks))).sum(0)
        values = contributions.modality_confusion(hits, self.layout.modalities.table(self.masks))
        return dict(zip(self.slices, values.tolist(), strict=True))

    def __add__(self, other: Tally) -> Self:
        """The counts of both; ValueError where they do not belong together."""
        if not isinstance(other, Tally):
            return NotImplemented
        if self.other != other.other:
            return opened(self) + opened(other)
        mine, theirs = self.identity(), other.identity()
        for what, value in mine.items():
            if theirs[what] != value:
                raise ValueError(f"scorecards with different {what} do not add up: {value} and {theirs[what]}")
        if self.parts & other.parts:
            raise ValueError(
                "the same scorecard would be counted twice: each shard once; of metrics made with different shard= "
                "equal counts add up"
            )
        twice = sorted(set(self.shards) & set(other.shards))
        if self.layout.R and twice:
            raise ValueError(
                f"both scorecards number their samples from zero in shard {twice[0]}, so they would share bootstrap "
                "weights: make the metrics with shard=0, shard=1, … or give update(index=…)"
            )
        info = {key: value for key, value in self.info.items() if other.info.get(key) == value}
        shards = tuple(sorted({*self.shards, *other.shards}))
        return replace(
            self, counts=self.counts + other.counts, shards=shards, added=self.parts | other.parts, info=info
        )

    def _score(self, score: str, sums: ClassSums, average: str | None = "default") -> Tensor:
        """``(..., L, C)`` to ``(...)``."""
        value = scores.score(score, sums, self.kind, average)
        return value if self.knows(score) else torch.full_like(value, torch.nan)


def _majority(sums: ClassSums | None) -> ClassSums:
    assert sums is not None
    actual = sums.actual
    guess = torch.zeros_like(actual).scatter_(-1, actual.argmax(-1, keepdim=True), 1)
    return ClassSums(actual * guess, actual.sum(-1, keepdim=True) * guess, actual)
