"""Every question that a tally answers: scores, intervals, contributions, paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from mm_metrics import contributions, scores, uncertainty
from mm_metrics.counts.counted import Counted, Slice
from mm_metrics.counts.other import opened
from mm_metrics.counts.overlap import SAME, overlap
from mm_metrics.scores import ClassSums
from mm_metrics.uncertainty import Contribution, Estimate


class Applied(NamedTuple):
    """A function of the coalitions' scores: its value ``(...)``, and what its interval is made of."""

    value: Tensor
    replicates: Tensor | None  # (R, ...)
    total: Tensor  # samples, as `uncertainty.least_size` counts them
    sampling: Tensor  # the standard error of having sampled coalitions
    least: Tensor  # what it can be
    most: Tensor


class Tally(Counted):
    """A tally that answers: each score of every coalition on every slice, its interval, and what a modality gives.

    A score that the counts do not tell, as of answers that a judge marked, is NaN.
    """

    def score(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> float:
        """A score of what a coalition gets right on a slice; NaN without samples. Names as in `mm_metrics.scores`."""
        value = self._score(score, self.sums(coalition, slice), average)
        if value.ndim:
            raise ValueError("average='none' gives one score a class: use card.class_scores")
        return float(value)

    def class_scores(self, score: str, coalition: str | None = None, slice: Slice = "all") -> dict[str, float]:
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
        slice: Slice = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """``(low, high)`` of a score: Wilson's for plain proportions, else from the bootstrap, NaN without one.

        Samples that come in groups are resampled by group, proportions too.
        """
        sums, groups = self.sums(coalition, slice), self.clusters(slice, coalition)
        plain = self.kind.proportion(score, sums, average) if self.knows(score) and groups is None else None
        if plain is not None:
            low, high = uncertainty.wilson(*plain, confidence)
            return float(low), float(high)
        spread = self.replicate_scores(score, coalition, slice, average)
        if spread is None:
            return math.nan, math.nan
        low, high = self._bounds(score, sums, spread, average, confidence, groups)
        return float(low), float(high)

    def estimate(
        self, score: str, coalition: str | None = None, slice: Slice = "all", confidence: float = 0.95
    ) -> Estimate:
        """A score with its interval."""
        bounds = self.interval(score, coalition, slice, confidence=confidence)
        return Estimate(self.score(score, coalition, slice), *bounds)

    def class_estimates(
        self, score: str, coalition: str | None = None, slice: Slice = "all", confidence: float = 0.95
    ) -> dict[str, Estimate]:
        """A score of each class, or label, with its interval, by name; NaN for one neither in target nor predicted.

        Raises ValueError as `class_scores`.
        """
        values = torch.tensor(list(self.class_scores(score, coalition, slice).values()), dtype=torch.float64)
        sums, groups = self.sums(coalition, slice), self.clusters(slice, coalition)
        spread = self.replicate_scores(score, coalition, slice, "none")
        low = high = torch.full_like(values, torch.nan)
        if groups is None and score in scores.PROPORTIONS:
            total = scores.behind(score, sums, self.kind, "none").sizes.squeeze(-1)  # (C,), of labels (L,)
            low, high = uncertainty.wilson(values * total, total, confidence)
        elif spread is not None:
            low, high = self._bounds(score, sums, spread, "none", confidence, groups)
        seen = (sums.predicted + sums.actual)[:, 1] if self.kind.by_label else (sums.predicted + sums.actual)[0]
        rows = torch.where((seen > 0).unsqueeze(1), torch.stack([values, low, high], dim=1), torch.nan).tolist()
        return {name: Estimate(*row) for name, row in zip(self.names, rows, strict=True)}

    def coalition_scores(self, score: str, slice: Slice = "all") -> tuple[Tensor, Tensor | None]:
        """``(K,)`` scores of every coalition, and ``(K, R)`` of their bootstrap replicates, paired."""
        values = self._score(score, self.coalition_sums(slice))
        replicates = self.replicate_sums(slice)
        spread = None if replicates is None else self._score(score, replicates)[:, : len(values)].T
        return values, spread

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> Tensor | None:
        """``(R,)`` the score of every bootstrap replicate; None where none were kept."""
        sums = self.replicate_sums(slice)
        if sums is None:
            return None
        return self._score(score, ClassSums(*(part[:, self.row(coalition)] for part in sums)), average)

    def apply(
        self, function: Callable[..., Tensor], score: str, slice: Slice = "all", confidence: float = 0.95
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value, low and high of a function of `mm_metrics.contributions` over the coalitions' scores.

        NaN where the coalitions that it compares did not answer the same samples.

        >>> from mm_metrics import CoalitionConfusionMatrix, contributions
        >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2)
        >>> metric.update(torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]]), torch.tensor([1, 1]))
        >>> metric.scorecard().apply(contributions.cooperation, "accuracy")[0]
        tensor(0.5000, dtype=torch.float64)
        """
        value, spread, total, sampling, least, most = self.applied(function, score, slice)
        if spread is None:
            nan = torch.full_like(value, torch.nan)
            return value, nan, nan
        low, high = uncertainty.difference_interval(value, spread, total, confidence, self.clusters(slice))
        half = torch.hypot((high - low) / 2, sampling * uncertainty.normal_quantile(confidence))
        return value, torch.maximum(value - half, least), torch.minimum(value + half, most)

    def applied(self, function: Callable[..., Tensor], score: str, slice: Slice = "all") -> Applied:
        """The same with what an interval is made of."""
        values, replicates = self.coalition_scores(score, slice)
        table, floor = self.layout.modalities.table(self.masks), scores.floor(score)
        keywords: dict[str, Any] = {}
        if function in (contributions.unimodal_gain, contributions.cooperation):
            keywords["empty"] = self.majority(score, slice)
        value = function(values, table, **keywords)
        weights = contributions.weights(function, table)  # (..., K + 1)
        concerned = torch.ones(*value.shape, len(table) + 1, dtype=torch.bool) if weights is None else weights != 0
        answered = self.answered(slice)
        answered = torch.cat([answered[: len(table)], answered[self.row(None)].unsqueeze(0)])
        first = torch.where(concerned, answered, len(answered)).amin(-1)
        several = torch.where(concerned, answered, -1).amax(-1) > first
        value = torch.where(several, torch.nan, value)  # not of the coalitions alone, but of the samples too
        behind = scores.behind(score, self.coalition_sums(slice), self.kind)
        sizes = uncertainty.least_size(behind.weights, behind.sizes)  # (K,)
        sizes = torch.cat([sizes, sizes.new_tensor([torch.inf])])  # guessing the majority is no class's doing
        total = torch.where(concerned, sizes, torch.inf).amin(-1)
        sampling, least, most = torch.zeros_like(value), value.new_tensor(-torch.inf), value.new_tensor(torch.inf)
        if function is contributions.shapley_values and len(table) < 2 ** len(self.modalities):
            sampling = contributions.shapley_error(values, table)
        if weights is not None:  # what scores of `floor` … 1 can differ by
            gains, losses = weights.clamp(min=0).sum(-1), weights.clamp(max=0).sum(-1)
            least, most = gains * floor + losses, gains + losses * floor
        elif function is contributions.interaction_share:
            least, most = value.new_tensor(0.0), value.new_tensor(1.0)
        if replicates is None:
            return Applied(value, None, total, sampling, least, most)
        if keywords:
            keywords["empty"] = self._score(score, _majority(self.replicate_sums(slice)))[:, -1]
        spread = function(replicates, table, **keywords).movedim(-1, 0)
        return Applied(value, spread, total, sampling, least, most)

    def contributions(
        self, score: str = "f1", slice: Slice = "all", confidence: float = 0.95
    ) -> dict[str, Contribution]:
        """What each modality gives: its drop, its gain alone and its Shapley value, each with an interval.

        In points of the score, as fractions. Where no coalition of none was counted, guessing the majority stands in.
        """
        columns = []
        for function in (contributions.leave_one_out, contributions.unimodal_gain, contributions.shapley_values):
            parts = torch.stack(self.apply(function, score, slice, confidence), dim=-1)  # (M, 3)
            columns.append([Estimate(*row) for row in parts.tolist()])
        return {name: Contribution(*(column[m] for column in columns)) for m, name in enumerate(self.modalities)}

    def answered(self, slice: Slice = "all") -> Tensor:
        """``(K,)`` int64, the model's own predictions last: coalitions of one number answered the same samples.

        Equal class sizes, whole and in every replicate, tell; without replicates, that every coalition answered them.
        """
        parts = [self.weighted(self.cell_class_sums.actual, slice, 1).flatten(1)]
        if self.layout.R:
            resampled = self.replicate_sums(slice) or self.replicate_sums()
            assert resampled is not None
            parts.append(resampled.actual.movedim(1, 0).flatten(1))  # (K, R * L * C)
        elif shared := self.shared(slice):
            support = self.weighted(self.cell_class_sums.actual, slice, 1).sum(-1).amax(-1)  # (K,)
            parts.append(torch.where(support > shared, torch.arange(1, 1 + len(support)), 0).unsqueeze(1))
        return torch.cat(parts, dim=1).unique(dim=0, return_inverse=True)[1]

    def shared(self, slice: Slice = "all") -> int | None:
        """Samples that every coalition answered, of those counted together; None where that was not kept."""
        return int(self.hits(slice).sum()) if self.layout.hit_patterns else None

    def clusters(self, slice: Slice = "all", coalition: str | None = None) -> int | None:
        """How many groups the samples of a slice come in; None where every sample is one of its own."""
        groups = self.groups(slice, coalition) if self.grouped else 0
        return groups if self.grouped and groups < self.support(slice, coalition) else None

    def majority(self, score: str = "accuracy", slice: Slice = "all") -> float:
        """What always guessing the most frequent class of the slice would score; NaN where classes are not known."""
        return math.nan if self.judged else float(self._score(score, _majority(self.sums(None, slice))))

    def discordant(self, first: str, second: str, slice: Slice = "all") -> tuple[int, int]:
        """Samples that only the first, and that only the second coalition gets right, of those both answered."""
        hits = self.hits(slice)
        i, j = self.row(first), self.row(second)
        if not self.layout.hit_patterns:
            return (int(hits[i, j]), int(hits[j, i])) if i != j else (0, 0)
        patterns = torch.arange(len(hits))
        right_i, right_j = (patterns >> i & 1).bool(), (patterns >> j & 1).bool()
        return int(hits[right_i & ~right_j].sum()), int(hits[right_j & ~right_i].sum())

    def mcnemar(self, first: str, second: str = "all", slice: Slice = "all") -> float:
        """The p-value that two coalitions are right equally often on a slice: exact; in groups, of their difference.

        NaN where no sample was answered by all, or samples come in groups and no replicates were kept.
        """
        groups = self.clusters(slice)
        if groups is None:
            if self.shared(slice) == 0:
                return math.nan
            return uncertainty.mcnemar(*self.discordant(first, second, slice))
        replicates = [self.replicate_scores("accuracy", name, slice) for name in (first, second)]
        if replicates[0] is None or replicates[1] is None or groups < 2:
            return math.nan
        difference = self.score("accuracy", first, slice) - self.score("accuracy", second, slice)
        error = float(uncertainty.difference_error(replicates[0] - replicates[1], self.support(slice), groups))
        return 1 - uncertainty.t_share(difference / error, groups - 1)

    def modality_confusion(self, slice: Slice = "all") -> dict[str, float]:
        """The share of samples right with a modality alone and wrong with all (VGGSounder's μ); "all": with each alone.

        Raises ValueError where hit patterns were not kept: beyond nine coalitions.
        """
        if not self.layout.hit_patterns:
            raise ValueError(f"modality_confusion needs at most 9 coalitions, {self.layout.K} were counted")
        hits = self.hits(slice).unflatten(0, (-1, 2 ** len(self.masks))).sum(0)
        values = contributions.modality_confusion(hits, self.layout.modalities.table(self.masks))
        return dict(zip(("all", *self.modalities), values.tolist(), strict=True))

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
        if overlap(self, other) > SAME:
            raise ValueError(
                "both scorecards count the same samples, so they would be counted twice: compare models by new - old, "
                "give the gate several cards of one data set, and add up shards, which share no sample"
            )
        info = {key: value for key, value in self.info.items() if other.info.get(key) == value}
        shards = tuple(sorted({*self.shards, *other.shards}))
        return replace(
            self, counts=self.counts + other.counts, shards=shards, added=self.parts | other.parts, info=info
        )

    def _bounds(
        self, score: str, sums: ClassSums, spread: Tensor, average: str | None, confidence: float, groups: int | None
    ) -> tuple[Tensor, Tensor]:
        """Low and high of a score from its replicates ``(R, ...)``."""
        behind = scores.behind(score, sums, self.kind, average)
        total, least = uncertainty.effective_size(behind.weights, behind.sizes), uncertainty.mean_variance(*behind)
        value, floor = self._score(score, sums, average), scores.floor(score)
        return uncertainty.score_interval(value, spread, total, confidence, floor, groups, least)

    def _score(self, score: str, sums: ClassSums, average: str | None = "default") -> Tensor:
        """``(..., L, C)`` to ``(...)``."""
        value = scores.score(score, sums, self.kind, average)
        return value if self.knows(score) else torch.full_like(value, torch.nan)


def _majority(sums: ClassSums | None) -> ClassSums:
    assert sums is not None
    actual = sums.actual
    guess = torch.zeros_like(actual).scatter_(-1, actual.argmax(-1, keepdim=True), 1)
    return ClassSums(actual * guess, actual.sum(-1, keepdim=True) * guess, actual)
