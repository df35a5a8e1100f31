"""What was counted, with names: sums by coalition and slice, and how tallies add up. The value in the middle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mm_metrics.counts.layout import Layout
from mm_metrics.scores import SCORES, ClassSums
from mm_metrics.tasks import JUDGED, OTHER, Task, task_of


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
        content = repr((self.layout, self.task, self.seed, self.shards)).encode() + self.counts.numpy().tobytes()
        return frozenset({hashlib.sha256(content).hexdigest()[:16]})

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
        return self.layout.modalities.slices

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
        return int(self.sums(coalition, slice).actual.sum(-1).max())

    def positives(self, slice: str = "all", coalition: str | None = None) -> int:
        """Actual samples of class 1 on a slice: the events of a binary task."""
        return int(self.sums(coalition, slice).actual[0, 1])

    def outside(self, coalition: str | None = None) -> int:
        """How many answers were no class (in multilabel: named a label that is none); wrong ones where judged."""
        if not self.other:
            return 0
        return int(self.layout.class_sums(self.counts).predicted[self.row(coalition), 0, -1, -1])

    def confusion(self, coalition: str | None = None, slice: str = "all", other: bool = False) -> Tensor:
        """``(C, C)`` int64, targets by predictions; multilabel ``(L, 2, 2)``; with `other` what is no class too.

        Raises ValueError where it was not kept.
        """
        row = self.row(coalition)
        if not self.layout.full and row != self.layout.K - 1:
            raise ValueError(f"the full matrix of {coalition!r} was not kept under max_bytes; its scores were")
        confusion = self.weighted(self.layout.confusion(self.counts)[row if self.layout.full else 0], slice, 0)
        confusion = confusion if self.kind.by_label else confusion[0]
        if not self.other or other:
            return confusion
        return confusion[:-1] if self.kind.by_label else confusion[:-1, :-1]

    def sums(self, coalition: str | None = None, slice: str = "all") -> ClassSums:
        """Hits, predictions and actual samples of the real classes, each ``(L, C)``."""
        row = self.row(coalition)
        return ClassSums(*(self.weighted(part[row], slice, 0) for part in self._class_sums))

    def coalition_sums(self, slice: str = "all") -> ClassSums:
        """The same of every coalition, each ``(K, L, C)``."""
        K = len(self.masks)
        return ClassSums(*(self.weighted(part[:K], slice, 1) for part in self._class_sums))

    def replicate_sums(self, slice: str = "all") -> ClassSums | None:
        """The same of every replicate, the model's own predictions included, each ``(R, K, L, C)``; None without."""
        if not self.layout.R or (slice != "all" and not self.layout.replicate_slices):
            return None
        sums = self._replicate_sums
        return ClassSums(*(part[:, :, 0] if slice == "all" else self.weighted(part, slice, 2) for part in sums))

    def row(self, coalition: str | None) -> int:
        """A coalition's number on the axis K of the counts; ValueError where it was not counted."""
        mask, masks = self.layout.modalities.mask(coalition or self.whole), self.layout.masks or ()
        if mask not in masks:
            raise ValueError(f"coalition {coalition!r} was not counted: {', '.join(self.coalitions)} were")
        return masks.index(mask)

    def weighted(self, counts: Tensor, slice: str, dim: int) -> Tensor:
        """Counts with the axis S at `dim` to those of one slice, ``-audio`` among them."""
        weights = torch.as_tensor(self.layout.modalities.slice_weights(slice))
        return torch.tensordot(counts.movedim(dim, -1), weights, dims=1)

    def __eq__(self, other: object) -> bool:
        """Whether both count the same; `info` does not matter."""
        if not isinstance(other, Counted):
            return NotImplemented
        return self.identity() == other.identity() and torch.equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.layout, self.task, self.seed))

    def identity(self) -> dict[str, Any]:
        """What two tallies have to share to add up, by its name."""
        layout = self.layout
        return {
            "modalities": self.modalities, "task": self.task, "classes": (layout.C, layout.L), "seed": self.seed,
            "class names": self.class_names, "coalitions": self.coalitions, "bootstrap replicates": layout.R,
            "layouts": layout,
        }  # fmt: skip

    @cached_property
    def _class_sums(self) -> ClassSums:
        return self._real(self.layout.class_sums(self.counts))

    @cached_property
    def _replicate_sums(self) -> ClassSums:
        return self._real(self.layout.replicate_sums(self.counts))

    def _real(self, sums: ClassSums) -> ClassSums:
        """Each ``(…, L, C)`` without the last class, or label, where that is none."""
        if not self.other:
            return sums
        return ClassSums(*(part[..., :-1, :] if self.kind.by_label else part[..., :-1] for part in sums))
