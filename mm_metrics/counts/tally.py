"""Every question that a tally answers: scores, intervals, contributions, paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from mm_metrics import contributions, scores, uncertainty
from mm_metrics.counts import ends, weak
from mm_metrics.counts.counted import Slice
from mm_metrics.counts.other import opened
from mm_metrics.counts.overlap import share_numbers, share_samples
from mm_metrics.counts.scored import Scored
from mm_metrics.counts.weak import Disparity, WeakSlice
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Contribution, Estimate


class Applied(NamedTuple):
    """A function of the coalitions' scores: its value ``(...)``, and what its interval is made of."""

    value: Tensor
    replicates: Tensor  # (R, ...)
    total: Tensor  # samples, as `uncertainty.least_size` counts them
    unit: Tensor  # how far one may move it
    sampling: Tensor  # the standard error of having sampled coalitions, and of what binning hides
    least: Tensor  # what it can be
    most: Tensor
    apart: Tensor  # bool: of coalitions that did not answer the same samples, and NaN

    def where(self, wanted: Tensor, other: Applied) -> Applied:
        """The other's entries where wanted ``(...)``."""
        names = ("value", "replicates", "total", "unit", "sampling")
        parts = {name: torch.where(wanted, getattr(other, name), getattr(self, name)) for name in names}
        return self._replace(apart=self.apart & ~wanted, **parts)


class Tally(Scored):
    """A tally that answers: each score of every coalition on every slice, its interval, and what a modality gives.

    A score that the counts do not tell, as of answers that a judge marked, is NaN.
    """

    def apply(
        self,
        function: Callable[..., Tensor],
        score: str,
        slice: Slice = "all",
        confidence: float = 0.95,
        average: str | None = "default",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value, low and high of a function of `mm_metrics.contributions` over the coalitions' scores.

        Where the coalitions that it compares did not answer the same samples, over those that all of them answered, as
        presence tells, and NaN where nothing does.

        >>> from mm_metrics import CoalitionConfusionMatrix, contributions
        >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2)
        >>> metric.update(torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]]), torch.tensor([1, 1]))
        >>> metric.scorecard().apply(contributions.cooperation, "accuracy")[0]
        tensor(0.5000, dtype=torch.float64)
        """
        part = self.applied(function, score, slice, average)
        low, high = uncertainty.difference_interval(*part[:3], confidence, self.clusters(slice), part.unit)
        half = torch.hypot((high - low) / 2, part.sampling * uncertainty.normal_quantile(confidence))
        return part.value, torch.maximum(part.value - half, part.least), torch.minimum(part.value + half, part.most)

    def applied(
        self, function: Callable[..., Tensor], score: str, slice: Slice = "all", average: str | None = "default"
    ) -> Applied:
        """The same with what an interval is made of."""
        part = self._applied(function, score, slice, average)
        if part.apart.any():
            names = (slice,) if isinstance(slice, str) else tuple(slice)
            sizes = range(1, 1 + (len(self.modalities) if self.layout.patterns else int(names == ("all",))))
            fewer = [(*names, *more) for size in sizes for more in combinations(self.modalities, size)]
            for narrow in sorted(fewer, key=self.support, reverse=True):
                if part.apart.any() and self.support(narrow):
                    narrow = narrow[1:] if narrow[0] == "all" else narrow
                    other = self._applied(function, score, narrow[0] if len(narrow) == 1 else narrow, average)
                    part = part.where(part.apart & ~other.apart, other)
        return part

    def _applied(self, function: Callable[..., Tensor], score: str, slice: Slice, average: str | None) -> Applied:
        """`applied` to the samples of one slice alone."""
        name, _ = self.named(score, average)
        sign = -1 if name in LOWER_IS_BETTER else 1  # what is gained is better, what is lost is worse
        values, replicates = (sign * part for part in self.coalition_scores(score, slice, average))
        table = self.layout.modalities.table(self.masks)
        keywords: dict[str, Any] = {}
        if function in (contributions.unimodal_gain, contributions.cooperation):
            keywords["empty"] = self.majority(score, slice)
        value = function(values, table, **keywords)
        weights = contributions.weights(function, table)  # (..., K + 1)
        concerned = torch.ones(*value.shape, len(table) + 1, dtype=torch.bool) if weights is None else weights != 0
        answered = self.answered(slice)
        answered = torch.cat([answered[: len(table)], answered[self.row(self.sampled)].unsqueeze(0)])
        first = torch.where(concerned, answered, len(answered)).amin(-1)
        several = torch.where(concerned, answered, -1).amax(-1) > first
        value = torch.where(several, torch.nan, value)  # not of the coalitions alone, but of the samples too
        behind = self.behind(score, self.coalition_sums(slice), average)
        sizes, units = ends.steps(name, behind, values)  # (K,) each
        inside = concerned[..., : len(table)]  # guessing the majority is no class's doing
        total, unit = torch.where(inside, sizes, torch.inf).amin(-1), torch.where(inside, units, 0.0).amax(-1)
        sampling, least, most = torch.zeros_like(value), value.new_tensor(-torch.inf), value.new_tensor(torch.inf)
        if function is contributions.shapley_values and len(table) < 2 ** len(self.modalities):
            sampling = contributions.shapley_error(values, table)
        low, top = (sign * bound for bound in scores.extent(name)[::sign])
        if weights is not None and math.isfinite(top - low):  # what scores within their extent can differ by
            gains, losses = weights.clamp(min=0).sum(-1), weights.clamp(max=0).sum(-1)
            least, most = gains * low + losses * top, gains * top + losses * low
        elif function is contributions.interaction_share:
            least, most = value.new_tensor(0.0), value.new_tensor(1.0)
        if weights is not None:  # within its bound a score may lie anywhere
            raised, bound = (part[: len(table)].nan_to_num() for part in self.hidden(name, average, slice))
            hidden = raised - bound + bound / math.sqrt(3)  # what chance adds on average, and what binning may
            sampling = torch.hypot(sampling, (weights[..., :-1].square() @ hidden.square()).sqrt())
        if keywords:
            keywords["empty"] = self.replicate_majority(score, slice)
        spread = function(replicates, table, **keywords).movedim(-1, 0)
        return Applied(value, spread, total, unit, sampling, least, most, several)

    def contributions(
        self,
        score: str = "f1",
        slice: Slice = "all",
        confidence: float = 0.95,
        average: str | None = "default",
    ) -> dict[str, Contribution]:
        """What each modality gives: its drop, its gain alone and its Shapley value, each with an interval.

        In points of the score, as fractions. Where no coalition of none was counted, guessing the majority stands in.
        """
        columns = []
        for function in (contributions.leave_one_out, contributions.unimodal_gain, contributions.shapley_values):
            parts = torch.stack(self.apply(function, score, slice, confidence, average), dim=-1)  # (M, 3)
            columns.append([Estimate(*row) for row in parts.tolist()])
        return {name: Contribution(*(column[m] for column in columns)) for m, name in enumerate(self.modalities)}

    def weak_slices(self, score: str = "accuracy", k: int = 3, confidence: float = 0.95) -> list[WeakSlice]:
        """At most `k` slices whose weakness holds on the half of the data that did not propose them.

        Candidates are the values of the columns ``by``, pairs of them, and each with a modality's presence. The chance
        that any one reported is no weaker than the whole is at most ``1 - confidence`` (Holm over those proposed).
        Raises ValueError where no columns, or no replicates of them, were counted.
        """
        return weak.weak_slices(self, score, k, confidence)

    def disparity(self, score: str, column: str, confidence: float = 0.95) -> Disparity:
        """The largest difference, and the smallest ratio, of a score between two values of a column, with intervals."""
        return weak.disparity(self, score, column, confidence)

    def answered(self, slice: Slice = "all") -> Tensor:
        """``(K,)`` int64, the model's own predictions last: coalitions of one number answered the same samples.

        Equal class sizes in every cell, and in every replicate, tell; without replicates, that a coalition answered
        what all did, or in each cell none or as many as any.
        """
        key = "answered", slice if isinstance(slice, str) else tuple(slice)
        if key not in self.memo:
            self.memo[key] = self._answered(slice)
        return self.memo[key]

    def _answered(self, slice: Slice) -> Tensor:
        inside = torch.as_tensor(self.layout.cell_weights(slice)) != 0
        cells = self.cell_class_sums.actual[:, inside].flatten(1)  # (K, cells * L * C)
        parts = [cells]
        if self.layout.R:
            resampled = self.replicate_sums(slice) or self.replicate_sums()
            assert resampled is not None
            parts.append(resampled.actual.movedim(1, 0))  # (K, R, L, C)
        elif shared := self.shared(slice):
            support = self.weighted(self.cell_class_sums.actual, slice, 1).sum(-1).amax(-1)  # (K,)
            some = ((cells > 0) & (cells < cells.amax(0))).any(1) & (support > shared)
            parts.append(torch.where(some, torch.arange(1, 1 + len(support)), 0).unsqueeze(1))
        kinds: dict[tuple[bytes, ...], int] = {}
        sizes = [tuple(part[k].numpy().tobytes() for part in parts) for k in range(len(cells))]
        return torch.tensor([kinds.setdefault(kind, len(kinds)) for kind in sizes])

    def shared(self, slice: Slice = "all") -> int | None:
        """Samples that every coalition answered, of those counted together; None where that was not kept."""
        return int(self.hits(slice).sum()) if self.layout.hit_patterns else None

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
        i, j, values = self.row(first), self.row(second), self.values("accuracy", slice)
        spread = uncertainty.known(self.spread("accuracy", slice), values)  # (R, K)
        error = float(uncertainty.difference_error(spread[:, i] - spread[:, j], self.support(slice), groups))
        return 1 - uncertainty.t_share(float(values[i] - values[j]) / error, groups - 1)

    def modality_confusion(self, slice: Slice = "all") -> dict[str, float]:
        """The share of samples right with a modality alone and wrong with all (VGGSounder's μ); "all": with each alone.

        Of several labels a sample is right where any that it has is found. Raises ValueError where that was not kept:
        beyond nine coalitions.
        """
        if not self.layout.hit_patterns:
            raise ValueError(f"modality_confusion needs at most 9 coalitions, {self.layout.K} were counted")
        if self.kind.by_label and not self.layout.found:
            raise ValueError("modality_confusion of several labels was not kept in cards of version 1: score them anew")
        hits = self.hits(slice)
        if self.kind.by_label:
            hits = self.weighted(self.layout.view(self.counts, "found"), slice, 0)
        hits = hits.unflatten(0, (-1, 2 ** len(self.masks))).sum(0)
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
        if share_samples(self, other):
            raise ValueError(
                "both scorecards count the same samples, so they would be counted twice: compare models by new - old, "
                "give the gate several cards of one data set, and add up shards, which share no sample"
            )
        if share_numbers(self, other):
            raise ValueError(
                "both scorecards count samples of the same numbers, or ids, with other targets: if they are the same "
                "samples compare them by new - old, else give samples ids of their own"
            )
        info = {key: value for key, value in self.info.items() if other.info.get(key) == value}
        shards = tuple(sorted({*self.shards, *other.shards}))
        return replace(
            self, counts=self.counts + other.counts, shards=shards, added=self.parts | other.parts, info=info
        )
