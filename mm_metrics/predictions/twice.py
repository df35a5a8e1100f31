"""Ids that come twice: a sample that counts twice is a wrong number, so they are remembered and refused at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mm_metrics.predictions.strays import place
from mm_metrics.tables.source import Source


@dataclass
class Ids:
    """The ids of all rows by their hashes, 16 bytes a row."""

    column: str | None
    parts: list[tuple[Source | None, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, source: Source | None, rows: np.ndarray, ids: np.ndarray | None) -> None:
        """Remember rows ``(N,)`` of a file, or among rows in memory, with their ids ``(N, 2)``, if any."""
        if ids is not None and len(ids):
            self.parts.append((source, rows, ids[:, 0].copy()))
            if len(np.unique(ids[:, 0])) < len(ids):
                self.refuse_twice()

    def refuse_twice(self) -> None:
        """Raise ValueError for the first row whose id came before, naming both."""
        if not self.parts:
            return
        numbers = np.concatenate([part[2] for part in self.parts])
        order = np.argsort(numbers, kind="stable")  # of equal ones the first comes first
        again = order[1:][numbers[order[1:]] == numbers[order[:-1]]]
        if len(again):
            second = int(again.min())
            first = int(np.flatnonzero(numbers == numbers[second])[0])
            raise ValueError(
                f"{self._place(second)}, column {self.column!r}: its id came before, in {self._place(first)}: every id "
                f"once, so that no sample counts twice; what rows have in common is --group {self.column}"
            )

    def _place(self, at: int) -> str:
        for source, rows, numbers in self.parts:
            if at < len(numbers):
                return place(source, int(rows[at]))
            at -= len(numbers)
        raise IndexError(at)
