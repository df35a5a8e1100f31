"""What was counted, with names: sums by coalition and slice, and how tallies add up. The value in the middle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm_metrics.counts.layout import Layout
from mm_metrics.scores import SCORES, ClassSums
from mm_metrics.tasks import JUDGED, OTHER, Task, task_of

Slice = str | tuple[str, ...]  # a slice's name, or several: what lies in each of them

UNCOUNTED = "groups_not_counted"  # in a card's info: samples came in groups, and without replicates


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts per coalition, slice and class, with the names of their axes.

    Where the last class name is ``(other)``, that class (in multilabel: label) is none: see `mm_metrics.counts.other`.
    """

    layout: Layout
    task: str
    counts: Tensor
    seed: int = 0
    class_names: tuple[str, ...] | None = None
    shards: tuple[int, ...] = ()  # whose samples were numbered by a counter of their own
    info: dict[str, Any] = field(default_factory=dict)  # what was run: model, data, baseline, versions
    added: frozenset[str] = frozenset()  # what was added up, where this is a sum

    @cached_property
    def parts(self) -> frozenset[str]:
        """Names of the contents that were added up, so that nothing is added twice; a card of nothing adds nothing."""
        if self.added or not self.counts[:-1].any():
            return self.added
        content = hashlib.sha256(repr((self.layout, self.task, self.seed, self.shards)).encode())
        content.update(self.counts.contiguous().numpy().data)
        return frozenset({content.hexdigest()[:16]})

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What was worked out of the counts and is asked for again: a few numbers a question."""
        return {}

    @property
    def kind(self) -> Task:
        """What the task is, as a value."""
        return task_of(self.task)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names on the axis M."""
        return self.layout.modalities.names

    @property
    def slices(self) -> tuple[str, ...]:
        """The names on the axis S."""
        return self.layout.slices

    @property
    def coalitions(self) -> tuple[str, ...]:
        """The names on the axis K."""
        return tuple(self.layout.modalities.name(mask) for mask in self.masks)

    @property
    def masks(self) -> tuple[int, ...]:
        """Of the coalitions, the model's own predictions apart."""
        return tuple(mask for mask in self.layout.masks or () if mask <= self.layout.modalities.full)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the real classes, or labels; their numbers where none were given."""
        if self.class_names is not None:
            return self.class_names[:-1] if self.other else self.class_names
        return tuple(map(str, range(self.layout.L if self.kind.by_label else self.layout.C)))

    @property
    def other(self) -> bool:
        """Whether the last class, or label, holds answers that are none."""
        return bool(self.class_names) and self.class_names[-1] == OTHER  # type: ignore[index]

    @property
    def judged(self) -> bool:
        """Whether a judge marked the answers, so that only right and wrong are known."""
        return self.class_names == JUDGED

    def knows(self, score: str) -> bool:
        """Whether the counts tell a score: a judge's marks tell accuracy alone."""
        return not self.judged or score == "accuracy" or score not in SCORES

    @property
    def whole(self) -> str:
        """What ``coalition=None`` reads: the model's own predictions; else those of all."""
        full = self.layout.modalities.full
        return self.layout.modalities.name(full + int(full + 1 in (self.layout.masks or ())))

    @property
    def partial(self) -> bool:
        """Whether some coalitions alone were counted, and `whole` was not: nothing is known of the model as it is."""
        return self.layout.modalities.mask(self.whole) not in (self.layout.masks or ())

    @property
    def sampled(self) -> str:
        """The coalition that tells which samples there are: the whole, where that was not counted the last."""
        return self.coalitions[-1] if self.partial else self.whole

    @property
    def samples(self) -> int:
        """Samples seen."""
        return int(self.layout.view(self.counts, "samples"))

    def support(self, slice: Slice = "all", coalition: str | None = None) -> int:
        """Samples that count in a slice."""
        return int(self.sums(coalition or self.sampled, slice).actual.sum(-1).max())

    def outside(self, coalition: str | None = None) -> int:
        """How many answers were no class (in multilabel: named a label that is none); wrong ones where judged."""
        row = self.row(coalition)
        if self.other:
            return int(self.weighted(self.layout.cell_sums(self.counts).predicted[row], "all", 0)[-1, -1])
        sums = self.sums(coalition)
        return 0 if self.kind.by_label else int(sums.actual.sum() - sums.predicted.sum())

    def confusion(self, coalition: str | None = None, slice: Slice = "all", other: bool = False) -> Tensor:
        """``(C, C)`` int64, targets by predictions; multilabel ``(L, 2, 2)``; with `other` what is no class too.

        Raises ValueError where it was not kept.
        """
        row = self.row(coalition)
        if not self.layout.full and (row != self.layout.K - 1 or not self.layout.last):
            raise ValueError(f"the full matrix of {coalition!r} was not kept under max_bytes; its scores were")
        confusion = self.weighted(self.layout.view(self.counts, "confusion")[row if self.layout.full else 0], slice, 0)
        confusion = confusion if self.kind.by_label else confusion[0]
        if not self.other or other:
            return confusion
        return confusion[:-1] if self.kind.by_label else confusion[:-1, :-1]

    def sums(self, coalition: str | None = None, slice: Slice = "all") -> ClassSums:
        """Hits, predictions and actual samples of the real classes, each ``(L, C)``."""
        row = self.row(coalition)
        return ClassSums(*(self.weighted(part[row], slice, 0) for part in self.cell_class_sums))

    def coalition_sums(self, slice: Slice = "all") -> ClassSums:
        """The same of every coalition, each ``(K, L, C)``."""
        K = len(self.masks)
        return ClassSums(*(self.weighted(part[:K], slice, 1) for part in self.cell_class_sums))

    def replicate_sums(self, slice: Slice = "all") -> ClassSums | None:
        """The same of every replicate, the model's own predictions included, each ``(R, K, L, C)``; None without."""
        replicates = self.replicate_field("replicates", slice)  # (R, K, L, 3, C)
        return None if replicates is None else self._real(ClassSums(*replicates.unbind(3)))

    def field(self, name: str, slice: Slice = "all") -> Tensor:
        """A field of the layout on a slice, ``(K, …)``, the model's own predictions included."""
        return self.weighted(self.layout.view(self.counts, name), slice, 1)

    def replicate_field(self, name: str, slice: Slice = "all") -> Tensor | None:
        """A field of replicates on a slice, ``(R, K, …)``; None where none were kept."""
        weights = self.layout.replicate_weights(slice) if self.layout.R else None
        if weights is None:
            return None
        return _combined(self.layout.view(self.counts, name), weights, -2).movedim(-1, 0)

    def hits(self, slice: Slice = "all") -> Tensor:
        """``(2**K,)`` samples by which coalitions get them right; ``(K, K)`` right by i, wrong by j, where K > 9."""
        if self.layout.hit_patterns:
            return self.weighted(self.layout.hits(self.counts), slice, 0)
        names = (slice,) if isinstance(slice, str) else slice
        return _combined(self.layout.hits(self.counts), self.layout.modalities.slice_weights(names[0]), 0)

    @cached_property
    def grouped(self) -> bool:
        """Whether samples came in groups, as clips of a speaker do."""
        counted = bool(self.layout.group_cells) and bool(self.layout.view(self.counts, "groups").any())
        return counted or self.info.get(UNCOUNTED) is True

    def groups(self, slice: Slice = "all", coalition: str | None = None) -> int:
        """Different groups that the samples of a slice came in; the number of samples where none were given.

        0 where they came in groups and there are no replicates, without which those are not counted.

        From a table of counts that adds up over shards: exact for integers below its length, and for others unless
        three fall into one of its places (8,192 of them, unless max_bytes is small).
        """
        if not self.grouped:
            return self.support(slice, coalition)
        if not self.layout.group_cells:
            return 0
        n, hashed, squared = self.weighted(self.layout.view(self.counts, "groups"), slice, 0).unbind(-1)
        several = n * squared != hashed * hashed  # modulo 2^64: true of one group, however many samples it has
        return int((n > 0).sum() + several.sum())

    def row(self, coalition: str | None) -> int:
        """A coalition's number on the axis K of the counts; ValueError where it was not counted."""
        coalition = coalition or self.whole
        mask, masks = self.layout.modalities.mask(coalition), self.layout.masks or ()
        if mask not in masks:
            there = ", ".join(self.coalitions)
            raise ValueError(f"coalition {coalition!r} was not counted, {there} were: coalition= says which")
        return masks.index(mask)

    def weighted(self, counts: Tensor, slice: Slice, dim: int) -> Tensor:
        """Counts with the axis of cells at `dim` to those of one slice, ``-audio`` and crossings among them."""
        return _combined(counts, self.layout.cell_weights(slice), dim)

    def __eq__(self, other: object) -> bool:
        """Whether both count the same; `info` and the spare cell, which holds what counts nowhere, do not matter."""
        if not isinstance(other, Counted):
            return NotImplemented
        return self.identity() == other.identity() and torch.equal(self.counts[:-1], other.counts[:-1])

    def __hash__(self) -> int:
        return hash((self.layout, self.task, self.seed))

    def identity(self) -> dict[str, Any]:
        """What two tallies have to share to add up, by its name."""
        layout = self.layout
        return {
            "modalities": self.modalities,
            "task": self.task,
            "classes": (layout.C, layout.L),
            "seed": self.seed,
            "class names": self.class_names,
            "coalitions": self.coalitions,
            "bootstrap replicates": layout.R,
            "layouts": layout,
            "cuts of slices": self.info.get("cuts"),
        }

    @cached_property
    def cell_class_sums(self) -> ClassSums:
        """Of every cell, each ``(K, G, L, C)``."""
        return self._real(self.layout.cell_sums(self.counts))

    def _real(self, sums: ClassSums) -> ClassSums:
        """Each ``(…, L, C)`` without the last class, or label, where that is none."""
        if not self.other:
            return sums
        return ClassSums(*(part[..., :-1, :] if self.kind.by_label else part[..., :-1] for part in sums))


def _combined(counts: Tensor, weights: np.ndarray, dim: int) -> Tensor:
    """The weighted sum over one axis; of a single part that part itself."""
    parts = [
        counts.select(dim, i) if weight == 1 else counts.select(dim, i) * int(weight)
        for i, weight in enumerate(weights.tolist())
        if weight
    ]
    if len(parts) > 2 and (weights == 1).all():
        return counts.sum(dim)
    total = parts[0] if parts else torch.zeros_like(counts.select(dim, 0))
    for part in parts[1:]:
        total = total + part
    return total
