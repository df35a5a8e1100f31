"""Scores of what was counted, of every coalition on every slice, with their intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_metrics import moments, ranking, scores, uncertainty
from mm_metrics.counts import beyond
from mm_metrics.counts.counted import Counted, Slice
from mm_metrics.ranking import Point
from mm_metrics.scores import ClassSums
from mm_metrics.uncertainty import Estimate

_OF_POSITIVES = ("precision", "recall", "f1", "jaccard")


class Scored(Counted):
    """Counts that answer with scores; a score that they do not tell, as of answers that a judge marked, is NaN.

    Names are those of `mm_metrics.scores`, and beyond them those that ``scores=`` of the metric, or an ordinal task,
    has counts for: `further`. A name may carry its average: ``f1_weighted``, ``auroc_micro``.
    """

    @property
    def further(self) -> tuple[str, ...]:
        """The scores beyond those of the confusion that the counts tell."""
        return beyond.told(self)

    @property
    def headline(self) -> str:
        """The score that drops, tables and pictures are about: F1, of numbers MAE, or what `info` names.

        Accuracy where that is all.
        """
        default = "mae" if "mae" in self.further else "f1"
        try:
            asked, average = self.named(str(self.info.get("headline", default)))
        except ValueError:
            return "f1"
        return "accuracy" if self.judged else "f1" if average == "none" else str(self.info.get("headline", asked))

    def score(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> float:
        """A score of what a coalition gets right on a slice; NaN without samples. ValueError for an unknown name."""
        value = self.values(score, slice, average)[self.row(coalition)]
        if value.ndim:
            raise ValueError("average='none' gives one score a class: use card.class_scores")
        return float(value)

    def bound(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> float:
        """The half-width that binning can hide of a score, 0 for exact ones."""
        name, average = self.named(score, average)
        return float(self.bounds(name, slice, average)[self.row(coalition)])

    def bounds(self, name: str, slice: Slice = "all", average: str | None = "default") -> Tensor:
        """The same of every coalition ``(K,)``, with ``average="none"`` of every class ``(K, C)``, or label."""
        if name not in self.further:
            return torch.zeros(self.layout.K, dtype=torch.float64)
        return beyond.score(self, name, slice, average).bound

    def threshold(
        self,
        score: str,
        at_least: float,
        slice: Slice = "all",
        label: str | int | None = None,
        coalition: str | None = None,
    ) -> Point | dict[str, Point | None] | None:
        """The threshold of probabilities at which a score reaches `at_least`, and what it then scores; None for none.

        `score` is "recall", "precision", "specificity" or "f1"; of several classes, or labels, `label` is one's name
        or number, and without it all are given by name. Needs the histograms of ``scores=("auroc",)``, else raises
        ValueError.
        """
        if not self.layout.curves:
            raise ValueError(
                f"threshold({score!r}) needs histograms, which were not kept: scores=('auroc',) keeps them"
            )
        curves = self.field("curves", slice)[self.row(coalition)]  # (H, 2, B)
        if len(curves) == 1:
            return ranking.threshold(curves[0], score, at_least)
        if isinstance(label, int) and 0 <= label < len(self.names):
            label = self.names[label]
        if label is not None and label not in self.names:
            raise ValueError(f"label={label!r} is none of {', '.join(map(repr, self.names[:20]))}")
        points = {
            name: ranking.threshold(curve, score, at_least)
            for name, curve in zip(self.names, curves, strict=True)
            if label in (None, name)
        }
        return points if label is None else points[label]

    def best_thresholds(self, score: str = "f1") -> tuple[str, list[float | None]]:
        """The name of a score, and where it is best for each label by itself; None for a label without both answers.

        A score that needs no threshold, or that the least or the highest would be best for, gives way to F1. Needs
        histograms, as `threshold`, of a binary or multilabel task; else raises ValueError.
        """
        if not self.layout.curves or not (self.kind.positive or self.kind.by_label):
            raise ValueError("thresholds need the histograms of scores=('auroc',), and task='binary' or 'multilabel'")
        name, average = self.named(score)
        if name not in scores.SCORES or name in ("precision", "recall", "specificity"):
            score = name = "f1"
            average = "default"
        average = "default" if self.kind.by_label else average
        return score, [ranking.best(curve, name, average) for curve in self.field("curves")[self.row(None)]]

    def class_scores(self, score: str, coalition: str | None = None, slice: Slice = "all") -> dict[str, float]:
        """A score of each class, or label, by its name; raises ValueError for one of the whole, such as matthews."""
        if not self.knows(score):
            return dict.fromkeys(self.names, math.nan)
        values = self.values(score, slice, "none")[self.row(coalition)]
        if score in scores.WHOLE or tuple(values.shape) != (len(self.names),):
            raise ValueError(f"score={score!r} is one number for all classes: use card.score({score!r})")
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
        name, average = self.named(score, average)
        sums, groups = self.sums(coalition, slice), self.clusters(slice, coalition)
        plain = self.kind.proportion(name, sums, average) if self.knows(name) and groups is None else None
        if plain is not None:
            low, high = uncertainty.wilson(*plain, confidence)
            return float(low), float(high)
        spread = self.replicate_scores(name, coalition, slice, average)
        if spread is None:
            return math.nan, math.nan
        value = self.values(name, slice, average)[self.row(coalition)]
        low, high = self._bounds(name, value, sums, spread, average, confidence, groups)
        hidden = self.bound(name, coalition, slice, average)
        least, most = scores.extent(name)
        return max(float(low) - hidden, least), min(float(high) + hidden, most)

    def estimate(
        self,
        score: str,
        coalition: str | None = None,
        slice: Slice = "all",
        average: str | None = "default",
        confidence: float = 0.95,
    ) -> Estimate:
        """A score with its interval."""
        bounds = self.interval(score, coalition, slice, average, confidence)
        return Estimate(self.score(score, coalition, slice, average), *bounds)

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
            low, high = self._bounds(score, values, sums, spread, "none", confidence, groups)
            hidden, (least, most) = self.bounds(score, slice, "none")[self.row(coalition)], scores.extent(score)
            low, high = (low - hidden).clamp(min=least), (high + hidden).clamp(max=most)
        seen = (sums.predicted + sums.actual)[:, 1] if self.kind.by_label else (sums.predicted + sums.actual)[0]
        rows = torch.where((seen > 0).unsqueeze(1), torch.stack([values, low, high], dim=1), torch.nan).tolist()
        return {name: Estimate(*row) for name, row in zip(self.names, rows, strict=True)}

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> Tensor | None:
        """``(R,)`` the score of every bootstrap replicate; None where none were kept."""
        spread = self.spread(score, slice, average)
        return None if spread is None else spread[:, self.row(coalition)]

    def coalition_scores(
        self, score: str, slice: Slice = "all", average: str | None = "default"
    ) -> tuple[Tensor, Tensor | None]:
        """``(K,)`` scores of every coalition, and ``(K, R)`` of their bootstrap replicates, paired."""
        K = len(self.masks)
        spread = self.spread(score, slice, average)
        return self.values(score, slice, average)[:K], None if spread is None else spread[:, :K].T

    def majority(self, score: str = "accuracy", slice: Slice = "all") -> float:
        """What always guessing the most frequent class of the slice would score; NaN where that is not known."""
        if self.judged or self.named(score)[0] in self.further:
            return math.nan
        return float(scores.score(*self._of_confusion(score, majority_of(self.sums(None, slice)))))

    def replicate_majority(self, score: str, slice: Slice = "all") -> Tensor:
        """``(R,)`` the same of every replicate; NaN where it is not known."""
        sums = self.replicate_sums(slice)
        assert sums is not None
        if self.judged or self.named(score)[0] in self.further:
            return torch.full((self.layout.R,), torch.nan, dtype=torch.float64)
        guess = majority_of(ClassSums(*(part[:, -1] for part in sums)))
        return scores.score(*self._of_confusion(score, guess))

    def named(self, score: str, average: str | None = "default") -> tuple[str, str | None]:
        """A score's name and average from a name that may carry it; ValueError for an unknown one."""
        known = (*scores.SCORES, *self.further)
        name, _, suffix = score.rpartition("_")
        if score not in known and average == "default" and name in known and suffix in scores.AVERAGES:
            return name, suffix
        if score in known:
            return score, average
        if beyond.known(score):
            raise ValueError(f"score {score!r} has no counts here: scores=({score!r},) of the metric keeps them")
        raise ValueError(f"score {score!r} is not known: one of {', '.join(known)}")

    def values(self, score: str, slice: Slice = "all", average: str | None = "default") -> Tensor:
        """``(K,)`` a score of every coalition, the model's own predictions last; ``(K, C)`` with ``average="none"``."""
        name, average = self.named(score, average)
        if name in self.further:
            return beyond.score(self, name, slice, average).value
        sums = ClassSums(*(self.weighted(part, slice, 1) for part in self.cell_class_sums))
        value = scores.score(name, sums, self.kind, average)
        return value if self.knows(name) else torch.full_like(value, torch.nan)

    def spread(self, score: str, slice: Slice = "all", average: str | None = "default") -> Tensor | None:
        """``(R, K)`` the same of every bootstrap replicate; None where none were kept."""
        name, average = self.named(score, average)
        if average in ("none", None):
            return self._spread(name, slice, average)
        key = "spread", name, slice if isinstance(slice, str) else tuple(slice), average
        if key not in self.memo:
            self.memo[key] = self._spread(name, slice, average)
        return self.memo[key]

    def _spread(self, name: str, slice: Slice, average: str | None) -> Tensor | None:
        if name in self.further:
            return beyond.replicates(self, name, slice, average)
        sums = self.replicate_sums(slice)
        if sums is None:
            return None
        value = scores.score(name, sums, self.kind, average)
        return value if self.knows(name) else torch.full_like(value, torch.nan)

    def behind(self, score: str, sums: ClassSums, average: str | None = "default") -> scores.Behind:
        """The classes that a score stands on, with their sizes: of rankings those of recall, else all samples."""
        name, average = self.named(score, average)
        if name in self.further:
            name, average = ("recall", average) if name in ranking.RANKINGS else ("accuracy", "default")
        return scores.behind(name, sums, self.kind, average)

    def clusters(self, slice: Slice = "all", coalition: str | None = None) -> int | None:
        """How many groups the samples of a slice come in; None where every sample is one of its own."""
        groups = self.groups(slice, coalition) if self.grouped else 0
        return groups if self.grouped and groups < self.support(slice, coalition) else None

    def _of_confusion(self, score: str, sums: ClassSums) -> tuple:
        name, average = self.named(score)
        return name, sums, self.kind, average

    def _bounds(
        self, score: str, value: Tensor, sums: ClassSums, spread: Tensor, average: str | None, confidence: float,
        groups: int | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Low and high of a score from its replicates ``(R, ...)``."""
        behind = self.behind(score, sums, average)
        lowest, highest = scores.extent(score)
        total = uncertainty.least_size(behind.weights, behind.sizes)
        if score in ("mae", "rmse", "log_loss") and value > 0:
            return moments.scaled_interval(value, spread, total, confidence, groups, torch.log, torch.exp)
        if score in ("pearson", "ccc") and value.abs() < 1 - 1e-6:
            most = (1 + value.abs().clamp(min=0.99)) / 2  # of replicates that drew two samples alone
            spread = spread.clamp(-most, most)
            return moments.scaled_interval(value, spread, total, confidence, groups, torch.atanh, torch.tanh)
        if highest > 1:
            low, high = uncertainty.difference_interval(value, spread, total, confidence, groups)
            return low.clamp(min=lowest), high.clamp(max=highest)
        total, least = uncertainty.effective_size(behind.weights, behind.sizes), uncertainty.mean_variance(*behind)
        if self.named(score)[0] in self.further:  # what is behind them tells their size, not their variance
            total, least = total * (2 if score in ranking.RANKINGS else 1), torch.zeros_like(least)
        low, high = uncertainty.score_interval(value, spread, total, confidence, lowest, groups, least)
        seen = sums.actual + sums.predicted * (score == "precision")  # (L, C)
        unseen = (seen[:, 1] if self.kind.by_label else seen[0]) == 0
        if score in _OF_POSITIVES and behind.weights.shape == unseen.shape:
            high = (high + (behind.weights * unseen).sum()).clamp(max=1)  # such a class counts 0, and could be any
        return low, high


def majority_of(sums: ClassSums) -> ClassSums:
    """The sums, each ``(..., L, C)``, of always guessing the most frequent class."""
    actual = sums.actual
    guess = torch.zeros_like(actual).scatter_(-1, actual.argmax(-1, keepdim=True), 1)
    return ClassSums(actual * guess, actual.sum(-1, keepdim=True) * guess, actual)
