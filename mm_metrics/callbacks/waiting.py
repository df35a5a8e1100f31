"""Batches that wait to be counted: many small ones are counted as one, for a fraction of the price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from torch import Tensor

from mm_metrics.callbacks.truth import Rows

ROWS, BYTES = 1024, 2**23  # of answers, that wait at most


class Run(NamedTuple):
    """Batches of one form as one: their rows in order, and of whom they are, ``(batch, rows)`` each."""

    masks: tuple[int, ...]
    rows: Rows
    whose: tuple[tuple[int, int], ...]

    def parts(self) -> Iterator[Run]:
        """Each batch by itself, as a view."""
        start = 0
        for batch, n in self.whose:
            yield Run(self.masks, self.rows.cut(start, n), ((batch, n),))
            start += n


class Waiting:
    """What of a loader waits, in bounded memory: batches, and the values that cut points of slices come from."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}
        self.batches: list[Run] = []
        self.rows = self.bytes = 0
        self.full = False  # the epoch was too large to wait for the cut points

    def note(self, found: Mapping[str, Tensor], n: int) -> None:
        """Remember the values of a batch's first n samples."""
        for column, value in found.items():
            self.values.setdefault(column, []).append(value[:n])

    def takes(self, rows: Rows) -> bool:
        """Whether so many rows more may wait."""
        return self.rows + rows.preds.shape[1] < ROWS and self.bytes + rows.preds.nbytes < BYTES

    def add(self, masks: tuple[int, ...], rows: Rows, batch: int) -> None:
        """Remember a batch that is not counted yet; what may change until then is the caller's to copy."""
        self.batches.append(Run(masks, rows, ((batch, rows.preds.shape[1]),)))
        self.rows, self.bytes = self.rows + rows.preds.shape[1], self.bytes + rows.preds.nbytes

    def taken(self) -> list[Run]:
        """All that waited, neighbours of one form as one."""
        batches, self.batches, self.rows, self.bytes = self.batches, [], 0, 0
        return [_together(list(run)) for _, run in groupby(batches, _form)]


def _together(runs: list[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    whose = tuple(one for run in runs for one in run.whose)
    return Run(runs[0].masks, Rows.joined([run.rows for run in runs]), whose)


def _form(run: Run) -> Any:
    """Equal for batches that can be one; an entry of another length than the answers keeps its batch alone."""
    forms: list[Any] = []

    def note(value: Tensor, axis: int) -> None:
        fits = value.ndim > axis and value.shape[axis] == run.rows.preds.shape[1]
        form = value.dtype, value.device, value.shape[:axis], value.shape[axis + 1 :]
        forms.append(form if fits else object())

    run.rows.mapped(note)
    there = [None if value is None else name for name, value in zip(Rows._fields, run.rows, strict=True)]
    return run.masks, run.rows.each, there, sorted(run.rows.by or ()), forms
