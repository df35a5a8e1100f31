"""Rows that are one sample, such as the clips of a video: their logits are summed, wherever the rows lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mm_metrics.callbacks.truth import Rows

_AT_ONCE = 1024  # units that are counted as one batch


@dataclass
class _Unit:
    """One unit: its rows so far, its truth, and per coalition its summed logits, rows, and rows that were answered."""

    target: Tensor  # () or (L,)
    slices: Tensor | None  # (M,)
    group: Tensor | None  # ()
    by: dict[str, Tensor]  # () each
    rows: int = 1
    sums: dict[int, Tensor] = field(default_factory=dict)  # (...) float64
    shown: dict[int, int] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)


class Units:
    """Units of one loader and one epoch on one rank, on the CPU; ``one + other`` are those of both.

    >>> units = Units()
    >>> rows = Rows(torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]), torch.tensor([1, 1]), None, None, None)
    >>> units.take((1,), rows, ["a", "a"])
    >>> next(units.batches((1,), 0, 1)).preds
    tensor([[[2., 3.]]], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.units: dict[Any, _Unit] = {}

    def take(self, masks: tuple[int, ...], rows: Rows, unit: Any) -> None:
        """Add a batch whose N rows belong to the units in the tensor or list `unit`; ValueError for a misfit."""
        names = unit.tolist() if isinstance(unit, Tensor) else list(unit)
        if not rows.preds.dtype.is_floating_point or rows.each != 1 or len(names) < rows.preds.shape[1]:
            raise ValueError(
                f"unit= sums logits (N, C) over rows: got preds of shape {tuple(rows.preds.shape[1:])} and "
                f"{rows.preds.dtype} with {len(names)} units"
            )
        rows = rows.to("cpu")
        rows = rows._replace(preds=rows.preds.detach().double())
        for n, name in enumerate(names[: rows.preds.shape[1]]):
            row = rows.cut(n, 1).copied()  # in memory of its own, as it is sent to other ranks
            slices = None if row.slices is None else row.slices[0] != 0
            group = None if row.group is None else row.group[0]
            one = _Unit(row.target[0], slices, group, {column: value[0] for column, value in (row.by or {}).items()})
            for k, mask in enumerate(masks):
                one.shown[mask], one.answered[mask] = 1, int(row.counted is None or row.counted[k, 0])
                one.sums[mask] = row.answers[k, 0].clone()
            self._add(name, one)

    def __add__(self, other: Units) -> Units:
        result = Units()
        for name, unit in (*self.units.items(), *other.units.items()):
            result._add(name, unit)
        return result

    def _add(self, name: Any, unit: _Unit) -> None:
        old = self.units.get(name)
        if old is None:
            self.units[name] = unit
            return
        if not torch.equal(old.target, unit.target):
            raise ValueError(
                f"unit {name!r} has rows of different targets, {old.target.tolist()} and {unit.target.tolist()}"
            )
        slices = old.slices if unit.slices is None else unit.slices | old.slices  # type: ignore[operator]
        new = _Unit(old.target, slices, old.group, old.by, old.rows + unit.rows)
        for mask in {**old.sums, **unit.sums}:
            new.sums[mask] = sum(part.sums[mask] for part in (old, unit) if mask in part.sums)  # type: ignore[assignment]
            new.shown[mask] = old.shown.get(mask, 0) + unit.shown.get(mask, 0)
            new.answered[mask] = old.answered.get(mask, 0) + unit.answered.get(mask, 0)
        self.units[name] = new

    def batches(self, masks: Iterable[int], rank: int, world_size: int) -> Iterator[Rows]:
        """The share of one rank, in the order of the units' names, which is that of their numbers on any rank.

        A coalition answers a unit where it was shown all of its rows.
        """
        names, masks = sorted(self.units, key=lambda name: (str(type(name)), name)), tuple(masks)
        mine = list(enumerate(names))[rank::world_size]
        for start in range(0, len(mine), _AT_ONCE):
            part = [self.units[name] for _, name in mine[start : start + _AT_ONCE]]
            blank = torch.zeros_like(next(iter(part[0].sums.values())))
            preds = torch.stack([torch.stack([unit.sums.get(mask, blank) for unit in part]) for mask in masks])
            whole = [[unit.shown.get(mask) == unit.rows and unit.answered[mask] > 0 for unit in part] for mask in masks]
            slices = None if part[0].slices is None else torch.stack([unit.slices for unit in part])  # type: ignore[misc]
            numbers = torch.tensor([number for number, _ in mine[start : start + _AT_ONCE]])
            target, by = torch.stack([unit.target for unit in part]), {}
            for column in part[0].by:
                by[column] = torch.stack([unit.by[column] for unit in part])
            group = None if part[0].group is None else torch.stack([unit.group for unit in part])  # type: ignore[misc]
            yield Rows(preds, target, slices, torch.tensor(whole), numbers, group, by or None)
