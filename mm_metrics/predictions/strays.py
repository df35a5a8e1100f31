"""What did not go as the columns promise, kept to be said: rows that can't be read, answers that are no class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mm_metrics.cells import as_text
from mm_metrics.predictions.reading import FilePath, Refuse, place
from mm_metrics.scorecard import Scorecard

_BAD_SHOWN = 3
_MOST_REMEMBERED = 1000  # different answers that are no class


class Problem(NamedTuple):
    """A cell that can't be read."""

    row: int
    column: str
    reason: str


@dataclass
class BadRows:
    """Rows that can't be read: the first raises, or they are counted."""

    skip: bool
    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def unreadable(self, path: FilePath) -> Refuse:
        """What `blocks` calls with a row and a reason."""
        return lambda row, reason: self._add(path, row, "", reason)

    def add(self, path: FilePath, problems: list[Problem]) -> None:
        """Take a block's problems, several in a row as one row."""
        for i, (row, column, reason) in enumerate(problems):
            if i == 0 or problems[i - 1].row != row:
                self._add(path, row, f", column {column!r}", reason)

    def said(self) -> str:
        """How many there were, and the first of them."""
        return f"{self.rows:,} rows can't be read and are left out: {'; '.join(self.examples)}."

    def _add(self, path: FilePath, row: int, column: str, reason: str) -> None:
        if not self.skip or len(self.examples) < _BAD_SHOWN:
            sentence = f"{path}, {place(path, row)}{column}: {reason}"
            if not self.skip:
                raise ValueError(f"{sentence}; --skip-bad counts such rows and leaves them out")
            self.examples.append(sentence)
        self.rows += 1


@dataclass
class Outside:
    """Answers that are no class, the first thousand different ones with their numbers."""

    examples: Counter[str] = field(default_factory=Counter)

    def note(self, cells: Iterable[Any], times: Iterable[int]) -> None:
        """Remember cells and how often they came."""
        for cell, count in zip(cells, times, strict=True):
            try:
                text = "|".join(map(str, cell)) if isinstance(cell, list) else as_text(cell) or ""
            except ValueError:
                text = repr(cell)
            if text[:60] in self.examples or len(self.examples) < _MOST_REMEMBERED:
                self.examples[text[:60]] += count

    def said(self, card: Scorecard) -> str:
        """Their share in every coalition, and the most frequent."""
        shares = []
        for name in card.coalitions:
            if (number := card.outside(name)) and (answered := card.support(coalition=name)):
                shares.append(f"{number / answered:.1%} of {name} ({number:,} of {answered:,})")
        common = ", ".join(f"{text!r} {times:,}×" for text, times in self.examples.most_common(5))
        what = "name a label that is none" if card.task == "multilabel" else "are no class and count as a miss"
        return f"Answers that {what}: {', '.join(shares)}; such as {common}."
