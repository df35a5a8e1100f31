"""Scores of what was counted, of every coalition on every slice, with their intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_metrics import ranking, scores, uncertainty
from mm_metrics.counts import beyond, ends
from mm_metrics.counts.counted import Counted, Slice
from mm_metrics.ranking import Point
from mm_metrics.scores import ClassSums
from mm_metrics.uncertainty import Estimate


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
        return float(self.hidden(*self.named(score, average), slice)[1][self.row(coalition)])

    def hidden(self, name: str, average: str | None = "default", slice: Slice = "all") -> tuple[Tensor, Tensor]:
        """How far below and above its value a score may lie but for sampling, each ``(K,)``, of classes ``(K, C)``.

        Binning hides as much either way, 0 of exact scores; chance raises the calibration error.
        """
        if name not in self.further:
            nothing = torch.zeros(self.layout.K, dtype=torch.float64)
            return nothing, nothing
        bound = beyond.score(self, name, slice, average).bound
        return bound + beyond.excess(self, name, slice, average), bound

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
        low, high = self._ends(*self.named(score, average), coalition, slice, confidence)
        return float(low), float(high)

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
        low, high = self._ends(score, "none", coalition, slice, confidence)
        sums = self.sums(coalition, slice)
        seen = ends.of_positive(sums.predicted + sums.actual, self.kind)
        rows = torch.where((seen > 0).unsqueeze(1), torch.stack([values, low, high], dim=1), torch.nan).tolist()
        return {name: Estimate(*row) for name, row in zip(self.names, rows, strict=True)}

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: Slice = "all", average: str | None = "default"
    ) -> Tensor | None:
        """``(R,)`` the score of every bootstrap replicate; None where none were kept."""
        name, average = self.named(score, average)
        if average in ("none", None):  # many numbers, and asked of one coalition
            return self._spread(name, slice, average, self.row(coalition))
        spread = self.spread(name, slice, average)
        return None if spread is None else spread[:, self.row(coalition)]

    def coalition_scores(
        self, score: str, slice: Slice = "all", average: str | None = "default"
    ) -> tuple[Tensor, Tensor]:
        """``(K,)`` scores of every coalition, and ``(K, R)`` of their bootstrap replicates, paired."""
        values = self.values(score, slice, average)
        spread = uncertainty.known(self.spread(score, slice, average), values)
        return values[: len(self.masks)], spread[:, : len(self.masks)].T

    def majority(self, score: str = "accuracy", slice: Slice = "all") -> float:
        """What always guessing the most frequent class of the slice would score; NaN where that is not known."""
        return float(self._majority(score, self.sums(self.sampled, slice)))

    def replicate_majority(self, score: str, slice: Slice = "all") -> Tensor:
        """``(R,)`` the same of every replicate; NaN where it is not known."""
        sums = self.replicate_sums(slice)
        if sums is None:
            return torch.full((1,), torch.nan, dtype=torch.float64)
        return self._majority(score, ClassSums(*(part[:, -1] for part in sums)))

    def _majority(self, score: str, sums: ClassSums) -> Tensor:
        """``(..., L, C)`` each to ``(...)``."""
        (name, average), actual = self.named(score), sums.actual
        if self.judged or name in self.further:
            return torch.full(actual.shape[:-2], torch.nan, dtype=torch.float64)
        guess = torch.zeros_like(actual).scatter_(-1, actual.argmax(-1, keepdim=True), 1)
        guessed = ClassSums(actual * guess, actual.sum(-1, keepdim=True) * guess, actual)
        return scores.score(name, guessed, self.kind, average)

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
        key = "spread", name, slice if isinstance(slice, str) else tuple(slice), average
        if key not in self.memo:
            self.memo[key] = self._spread(name, slice, average)
        return self.memo[key]

    def _spread(self, name: str, slice: Slice, average: str | None, row: int | None = None) -> Tensor | None:
        """``(R, K)`` of every coalition, or ``(R,)`` of one."""
        if name in self.further:
            spread = beyond.replicates(self, name, slice, average)
            return spread if spread is None or row is None else spread[:, row]
        sums = self.replicate_sums(slice)
        if sums is None:
            return None
        sums = sums if row is None else ClassSums(*(part[:, row] for part in sums))
        value = scores.score(name, sums, self.kind, average)
        return value if self.knows(name) else torch.full_like(value, torch.nan)

    def behind(self, score: str, sums: ClassSums, average: str | None = "default") -> scores.Behind:
        """The classes that a score stands on, with their sizes: of rankings those that have samples, else all."""
        name, average = self.named(score, average)
        if name in ranking.RANKINGS:
            part = scores.behind("recall", sums, self.kind, average)
            there = ends.of_positive(sums.actual, self.kind) > 0
            if there.shape != part.weights.shape:
                return part
            weights = part.weights * there
            return part._replace(weights=weights / weights.sum(-1, keepdim=True).clamp(min=1e-9))
        name, average = ("accuracy", "default") if name in self.further else (name, average)
        return scores.behind(name, sums, self.kind, average)

    def clusters(self, slice: Slice = "all", coalition: str | None = None) -> int | None:
        """How many groups the samples of a slice come in; None where every sample is one of its own."""
        groups = self.groups(slice, coalition) if self.grouped else 0
        return groups if self.grouped and groups < self.support(slice, coalition) else None

    def _ends(
        self, name: str, average: str | None, coalition: str | None, slice: Slice, confidence: float
    ) -> tuple[Tensor, Tensor]:
        """Low and high of a score, or with ``average="none"`` of each class."""
        row, sums, groups = self.row(coalition), self.sums(coalition, slice), self.clusters(slice, coalition)
        value = self.values(name, slice, average)[row]
        spread = uncertainty.known(self.replicate_scores(name, coalition, slice, average), value)
        if groups is None and self.knows(name):
            if average == "none" and name in scores.PROPORTIONS:
                total = scores.behind(name, sums, self.kind, "none").sizes.squeeze(-1)  # (C,), of labels (L,)
                return uncertainty.wilson(value * total, total, confidence)
            if (plain := self.kind.proportion(name, sums, average)) is not None:
                return uncertainty.wilson(*plain, confidence)
        behind = self.behind(name, sums, average)
        low, high = ends.ends(name, value, spread, behind, sums, self.kind, average, confidence, groups)
        (below, above), (least, most) = self.hidden(name, average, slice), scores.extent(name)
        return (low - below[row]).clamp(min=least), (high + above[row]).clamp(max=most)
