"""What a batch tells of its samples beside the inputs: read once, before the user's step can change it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm_metrics.ablation.batch import read_key
from mm_metrics.callbacks.prober import Shown
from mm_metrics.callbacks.watched import Watched
from mm_metrics.counts.truth import read_truth
from mm_metrics.metrics.base import answered
from mm_metrics.tasks import task_of


@dataclass(frozen=True)
class Truth:
    """A batch's entries as they came; None where the user named none."""

    target: Any  # (N, ...)
    slices: Any = None  # (N, M), where a sample counts
    unit: Any = None  # (N,), rows of equal value are one sample
    group: Any = None  # (N,), what samples that are not independent have in common
    by: dict[str, Any] | None = None  # (N,) each, the columns that slices are asked by


def truth_of(watched: Watched, batch: Any) -> Truth:
    """Read a batch's truth; raises KeyError for an entry that it lacks."""

    def read(argument: str) -> Any:
        key = getattr(watched, argument)
        return None if key is None else key(batch) if callable(key) else read_key(batch, key, f"{argument}=")

    by = {column: read_key(batch, column, "by=") for column in watched.by} if watched.by else None
    return Truth(read("target"), read("slices"), read("unit"), read("group"), by)


class Rows(NamedTuple):
    """What of a batch is counted: K coalitions and N rows, less a sampler's copies; each position of a sequence is one.

    ``numbers`` and ``slices`` are the samples', so each stands ``each`` times where a sample has so many positions; 0
    says that not all of a sample's are there.
    """

    preds: Tensor  # (K, N, ...)
    target: Tensor  # (N, ...)
    slices: Tensor | None = None  # (N, M)
    counted: Tensor | None = None  # (K, N)
    numbers: Tensor | None = None  # (N,), those of the samples
    group: Tensor | None = None  # (N,)
    by: dict[str, Tensor] | None = None  # (N,) each, codes of the columns' values
    each: int = 1
    place: Tensor | None = None  # (N,), where the sample stood, on which rank

    @property
    def answers(self) -> Tensor:
        """The predictions, 0 where a coalition did not answer and may hold NaN."""
        return self.preds if self.counted is None else answered(self.preds, self.counted)

    def mapped(self, change: Callable[[Any, int], Any]) -> Rows:
        """Every entry that is there as ``change(entry, its axis of N)``."""

        def one(name: str, value: Any) -> Any:
            if value is None or name == "each":
                return value
            if name == "by":
                return {column: change(entry, 0) for column, entry in value.items()}
            return change(value, 1 if name in ("preds", "counted") else 0)

        return Rows(*(one(name, value) for name, value in zip(self._fields, self, strict=True)))

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """The rows of several batches of one form, in order."""
        entries = iter(zip(*(part.entries() for part in parts), strict=True))
        return parts[0].mapped(lambda _, axis: torch.cat(next(entries), axis))

    def entries(self) -> list[Tensor]:
        """Every entry that is there, in the order of `mapped`."""
        found: list[Tensor] = []
        self.mapped(lambda value, axis: found.append(value))
        return found

    def to(self, device: Any) -> Rows:
        """The same on a device."""
        return self.mapped(lambda value, axis: value.to(device))

    def copied(self) -> Rows:
        """Copies that outlive the batch."""
        return self.mapped(lambda value, axis: value.clone())

    def cut(self, start: int, n: int) -> Rows:
        """N rows in a row, as views."""
        part = slice(start, start + n)
        return self.mapped(lambda value, axis: value[:, part] if axis else value[part])

    def some(self, which: Tensor) -> Rows:
        """The rows that ``which`` ``(N,)`` bool or numbers names; of samples with several, no more whole ones."""
        rows = self.mapped(lambda value, axis: value[:, which] if axis else value[which])
        return rows if self.each == 1 else rows._replace(each=0)


def rows_of(watched: Watched, shown: Shown, truth: Truth, numbers: Tensor | None, n: int, first: int = 0) -> Rows:
    """Put answers and truth side by side, the first n samples of them, a row a position.

    `first` is the place of the first sample, and its number where `numbers` are not known.
    """
    (preds, counted, slices), target = shown[1:], truth.target
    N, device = preds.shape[1], preds.device
    if not isinstance(target, Tensor):
        raise TypeError(f"target is a tensor, got {type(target).__name__}: use torch.as_tensor(target)")
    read = partial(read_truth, watched.modalities, N=N, device=device, target=target)
    known = read((), presence=truth.slices, group=truth.group)
    slices = slices if truth.slices is None else known.presence
    by = {**(truth.by or {})}
    by |= {column[0]: read((column,), values={column[0]: by[column[0]]}).columns for column in watched.columns}
    rows = Rows(preds, target, slices, counted, group=known.group, by=by or None)
    if n < N:
        rows = rows.cut(0, n)
    preds, target, group = rows.preds, rows.target, rows.group
    place = torch.arange(first, first + n, device=device)
    rows = rows._replace(numbers=numbers, place=place)
    flat = _flat(watched.task, preds, target)
    if flat is None:
        return rows
    each = flat[1].shape[0] // max(n, 1)
    if group is None:
        group = place if numbers is None else numbers
    order = torch.arange(n, device=device).repeat_interleave(each)
    return rows._replace(group=group).some(order)._replace(preds=flat[0], target=flat[1], each=each)


def _flat(task: str, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
    """``(K, N, T, C)`` and ``(N, T)`` to ``(K, N·T, C)`` and ``(N·T,)``, maps ``(K, N, C, H, W)`` alike; else None.

    >>> [part.shape for part in _flat("multiclass", torch.zeros(8, 2, 3, 4, 5), torch.zeros(2, 4, 5))]
    [torch.Size([8, 40, 3]), torch.Size([40])]
    """
    kind = task_of(task)
    axes = target.ndim - kind.by_label  # of samples and positions
    if axes < 2 or preds.shape[1] != target.shape[0] or (not kind.by_class and target.shape[1:] == (1,)):
        return None
    places = tuple(target.shape[1:axes])
    if preds.ndim == axes + 2 and preds.shape[3:] == places and (axes > 2 or preds.shape[2:-1] != places):
        preds = preds.movedim(2, -1)  # a map of classes: their axis comes second
    scores = kind.by_class and preds.dtype.is_floating_point  # have an axis of classes: else targets are one-hot
    if tuple(preds.shape[2 : axes + 1]) != places or (scores and preds.ndim != axes + 2):
        return None
    N = target.shape[0] * math.prod(places)
    return preds.reshape(preds.shape[0], N, *preds.shape[axes + 1 :]), target.reshape(N, *target.shape[axes:])
