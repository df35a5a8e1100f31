"""The value in the middle: what was counted, with names. It adds up, goes to JSON and back, and answers questions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm_metrics import contributions, scores, uncertainty
from mm_metrics.estimates import Contribution, Estimate, proportion
from mm_metrics.layout import Layout
from mm_metrics.scores import ClassSums

if TYPE_CHECKING:
    from mm_metrics.verdict import QualityGate, Verdict


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Counts per coalition, slice and class, and every question that they answer.

    Made by a metric's ``scorecard()``, ``Scorecard.from_json`` or ``mm-metrics score``. ``card + other`` adds counts.

    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2, bootstrap=100)
    >>> shown = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])  # none, text, audio, both
    >>> metric.update(shown, torch.tensor([1, 1]))
    >>> card = metric.scorecard()
    >>> card.score("accuracy", coalition="text"), card.score("accuracy")
    (0.5, 1.0)
    >>> card.contributions("accuracy")["text"].drop.value
    1.0
    """

    layout: Layout
    task: str
    counts: Tensor
    seed: int = 0
    class_names: tuple[str, ...] | None = None
    shards: tuple[int, ...] = ()  # whose samples were numbered by a counter of their own
    info: dict[str, Any] = field(default_factory=dict)  # what was run: model, data, baseline, versions
    parts: frozenset[str] = frozenset()  # what was added up, so that nothing is added twice

    def __post_init__(self) -> None:
        """Name this card's content, so that adding it twice is noticed; a card of nothing adds nothing."""
        if not self.parts and self.counts[:-1].any():
            content = repr((self.layout, self.task, self.seed, self.shards)).encode() + self.counts.numpy().tobytes()
            object.__setattr__(self, "parts", frozenset({hashlib.sha256(content).hexdigest()[:16]}))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names on the axis M."""
        return self.layout.modalities.names

    @property
    def slices(self) -> tuple[str, ...]:
        """The names on the axis S."""
        return self.layout.modalities.slices

    @property
    def coalitions(self) -> tuple[str, ...]:
        """The names on the axis K."""
        return tuple(self.layout.modalities.name(mask) for mask in self._masks)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, or labels; their numbers where none were given."""
        return self.class_names or tuple(map(str, range(self.layout.L if self.task == "multilabel" else self.layout.C)))

    @property
    def whole(self) -> str:
        """What ``coalition=None`` reads: the model's own predictions; else those of all; else of the last coalition."""
        masks, modalities = self.layout.masks or (), self.layout.modalities
        own = next((mask for mask in (modalities.full + 1, modalities.full) if mask in masks), masks[-1])
        return modalities.name(own)

    @property
    def samples(self) -> int:
        """Samples seen."""
        return int(self.layout.view(self.counts, "samples"))

    def support(self, slice: str = "all", coalition: str | None = None) -> int:
        """Samples that count in a slice."""
        actual = self._sums(coalition, slice).actual
        return int(actual.sum(-1).max())

    def confusion(self, coalition: str | None = None, slice: str = "all") -> Tensor:
        """``(C, C)`` int64, targets by predictions; multilabel ``(L, 2, 2)``. ValueError where it was not kept."""
        row = self._row(coalition)
        if not self.layout.full and row != self.layout.K - 1:
            raise ValueError(f"the full matrix of {coalition!r} was not kept under max_bytes; its scores were")
        confusion = self._weighted(self.layout.confusion(self.counts)[row if self.layout.full else 0], slice, 0)
        return confusion if self.task == "multilabel" else confusion[0]

    def score(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> float:
        """A score of what a coalition gets right on a slice; NaN without samples. Names as in `mm_metrics.scores`."""
        value = scores.score(score, self._sums(coalition, slice), self.task, average)
        if value.ndim:
            raise ValueError("average='none' gives one score a class: use card.class_scores")
        return float(value)

    def class_scores(self, score: str, coalition: str | None = None, slice: str = "all") -> dict[str, float]:
        """A score of each class, or label, by its name; raises ValueError for one of the whole, such as matthews."""
        if score in scores.WHOLE:
            raise ValueError(f"score={score!r} is one number for all classes: use card.score({score!r})")
        values = scores.score(score, self._sums(coalition, slice), self.task, "none")
        return dict(zip(self.names, values.tolist(), strict=True))

    def interval(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default",
        confidence: float = 0.95,
    ) -> tuple[float, float]:  # fmt: skip
        """``(low, high)`` of a score: Wilson's for plain proportions, else from the bootstrap, NaN without one."""
        sums = self._sums(coalition, slice)
        plain = proportion(score, sums, self.task, average)
        if plain is not None:
            low, high = uncertainty.wilson(*plain, confidence)
            return float(low), float(high)
        spread = self.replicate_scores(score, coalition, slice, average)
        if spread is None:
            return math.nan, math.nan
        value = scores.score(score, sums, self.task, average)
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
        values = scores.score(score, self._coalition_sums(slice), self.task)
        replicates = self._replicates(slice)
        spread = None if replicates is None else scores.score(score, replicates, self.task)[:, : len(values)].T
        return values, spread

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
        table = self._table()
        keywords: dict[str, Any] = {}
        if function in (contributions.unimodal_gain, contributions.cooperation):
            keywords["empty"] = self.majority(score, slice)
        value = function(values, table, **keywords)
        if replicates is None:
            nan = torch.full_like(value, torch.nan)
            return value, nan, nan
        if keywords:
            keywords["empty"] = scores.score(score, self._majority(self._replicates(slice)), self.task)[:, -1]
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
        """What always guessing the most frequent class of the slice would score."""
        return float(scores.score(score, self._majority(self._sums(None, slice)), self.task))

    def discordant(self, first: str, second: str, slice: str = "all") -> tuple[int, int]:
        """Samples that only the first, and that only the second coalition gets right, of those both answered."""
        hits = self._weighted(self.layout.hits(self.counts), slice, 0)
        i, j = self._row(first), self._row(second)
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
        hits = self._weighted(self.layout.hits(self.counts), slice, 0).unflatten(0, (-1, 2 ** len(self._masks))).sum(0)
        values = contributions.modality_confusion(hits, self._table())
        return dict(zip(self.slices, values.tolist(), strict=True))

    def verdict(self, gate: QualityGate | None = None, **context: Any) -> Verdict:
        """Good, mixed, bad or undecided, and why; by the default gate unless another is given."""
        from mm_metrics.verdict import QualityGate

        return (gate or QualityGate()).judge(self, **context)

    def table(self, **options: Any) -> str:
        """The scorecard as text of 80 columns."""
        from mm_metrics.render import table

        return table.text(self, **options)

    def __add__(self, other: Scorecard) -> Scorecard:
        """The counts of both; ValueError where they do not belong together."""
        if not isinstance(other, Scorecard):
            return NotImplemented
        mine, theirs = self._identity(), other._identity()
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
        return replace(
            self, counts=self.counts + other.counts, shards=tuple(sorted({*self.shards, *other.shards})),
            parts=self.parts | other.parts, info=info,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        """Whether both count the same; `info` does not matter."""
        if not isinstance(other, Scorecard):
            return NotImplemented
        return self._identity() == other._identity() and torch.equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.layout, self.task, self.seed))

    def __sub__(self, other: Scorecard) -> Any:
        """This card against another of the same data: `mm_metrics.comparison.Comparison`."""
        from mm_metrics.comparison import Comparison

        return Comparison(self, other)

    def to_json(self, path: Any = None) -> str:
        """The card as JSON; written to `path`, whole or not at all, where one is given."""
        from mm_metrics import scorecard_json

        return scorecard_json.write(self, path)

    @staticmethod
    def from_json(source: Any) -> Scorecard:
        """A card from a file's path, or from JSON text; ValueError for what is not one."""
        from mm_metrics import scorecard_json

        return scorecard_json.read(source)

    def _identity(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "modalities": self.modalities, "task": self.task, "classes": (layout.C, layout.L), "seed": self.seed,
            "class names": self.class_names, "coalitions": self.coalitions, "bootstrap replicates": layout.R,
            "layouts": layout,
        }  # fmt: skip

    @property
    def _masks(self) -> tuple[int, ...]:
        """Of the coalitions, the model's own predictions apart."""
        return tuple(mask for mask in self.layout.masks or () if mask <= self.layout.modalities.full)

    def _table(self) -> Any:
        return self.layout.modalities.table(self._masks)

    def _row(self, coalition: str | None) -> int:
        mask, masks = self.layout.modalities.mask(coalition or self.whole), self.layout.masks or ()
        if mask not in masks:
            raise ValueError(f"coalition {coalition!r} was not counted: {', '.join(self.coalitions)} were")
        return masks.index(mask)

    def _weighted(self, counts: Tensor, slice: str, dim: int) -> Tensor:
        weights = torch.as_tensor(self.layout.modalities.slice_weights(slice))
        return torch.tensordot(counts.movedim(dim, -1), weights, dims=1)

    def _sums(self, coalition: str | None, slice: str) -> ClassSums:
        """Each ``(L, C)``."""
        row = self._row(coalition)
        return ClassSums(*(self._weighted(part[row], slice, 0) for part in self._class_sums))

    def _coalition_sums(self, slice: str) -> ClassSums:
        """Each ``(K, L, C)``."""
        K = len(self._masks)
        return ClassSums(*(self._weighted(part[:K], slice, 1) for part in self._class_sums))

    @cached_property
    def _class_sums(self) -> ClassSums:
        return self.layout.class_sums(self.counts)

    @cached_property
    def _replicate_sums(self) -> ClassSums:
        return self.layout.replicate_sums(self.counts)

    def _replicates(self, slice: str) -> ClassSums | None:
        """Each ``(R, K, L, C)``, the model's own predictions included; None where none were kept."""
        if not self.layout.R or (slice != "all" and not self.layout.replicate_slices):
            return None
        sums = self._replicate_sums
        return ClassSums(*(part[:, :, 0] if slice == "all" else self._weighted(part, slice, 2) for part in sums))

    def replicate_scores(
        self, score: str, coalition: str | None = None, slice: str = "all", average: str | None = "default"
    ) -> Tensor | None:
        """``(R,)`` the score of every bootstrap replicate; None where none were kept."""
        sums = self._replicates(slice)
        if sums is None:
            return None
        return scores.score(score, ClassSums(*(part[:, self._row(coalition)] for part in sums)), self.task, average)

    @staticmethod
    def _majority(sums: ClassSums | None) -> ClassSums:
        assert sums is not None
        actual = sums.actual
        guess = torch.zeros_like(actual).scatter_(-1, actual.argmax(-1, keepdim=True), 1)
        return ClassSums(actual * guess, actual.sum(-1, keepdim=True) * guess, actual)
