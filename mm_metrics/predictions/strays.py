"""What did not go as the columns promise, kept to be said: rows that can't be read, answers of no class, ids twice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mm_metrics.cells import UnreadableError, as_text, quoted
from mm_metrics.scorecard import Scorecard
from mm_metrics.tables.source import Refuse, Source

_BAD_SHOWN = 3
_MOST_REMEMBERED = 1000  # different answers that are no class
_NEARLY_ALL = 0.99  # of answers that are no class: no model's doing
_WAYS = {  # what to do about a reason, before anything is left out
    "unknown target": "--classes names the classes, and --positive that of --task binary; else ",
    "unknown answer": "--classes names the classes, and --positive that of --task binary; else ",
    "no probability": "answers that are names of classes need no --scores or --threshold; else ",
}


class Problem(NamedTuple):
    """A cell that can't be read; `coalition` where it costs that coalition's answer and not the row."""

    row: int
    column: str
    reason: UnreadableError
    coalition: str = ""


def place(source: Source | None, row: int) -> str:
    """Where a person finds a row: in a file, or among rows in memory."""
    return f"row {row}" if source is None else source.where(row)


@dataclass
class BadRows:
    """Rows that can't be read: the first raises, or they are counted by reason."""

    skip: bool
    kinds: Counter[str] = field(default_factory=Counter)  # of rows that are left out
    answers: Counter[str] = field(default_factory=Counter)  # of coalitions, where the row counts in others
    examples: list[str] = field(default_factory=list)

    def unreadable(self, source: Source) -> Refuse:
        """What `Source.blocks` calls with a row and a reason."""
        return lambda row, reason: self._add(source, Problem(row, "", reason))

    def add(self, source: Source | None, problems: list[Problem]) -> None:
        """Take a block's problems in the order of its rows; of several that cost one row the first."""
        last = -1
        for problem in problems:
            if problem.coalition or problem.row != last:
                self._add(source, problem)
                last = last if problem.coalition else problem.row

    def update(self, other: BadRows) -> None:
        """Take over what was found in further files."""
        self.kinds.update(other.kinds)
        self.answers.update(other.answers)
        self.examples = (self.examples + other.examples)[:_BAD_SHOWN]

    def notes(self) -> list[str]:
        """How many there were, why, and the first of them."""
        notes = []
        if self.kinds:
            kinds = ", ".join(f"{kind} {count:,}×" for kind, count in self.kinds.most_common())
            rows = f"{self.kinds.total():,} rows can't be read and are left out: {kinds}"
            notes.append(f"{rows}; {'; '.join(self.examples)}.")
        if self.answers:
            listed = ", ".join(f"{count:,} of {name}" for name, count in self.answers.items())
            notes.append(f"Answers that can't be read, and are left out of their coalition's scores: {listed}.")
        return notes

    def _add(self, source: Source | None, problem: Problem) -> None:
        if not self.skip or len(self.examples) < _BAD_SHOWN:
            column = f", column {problem.column!r}" if problem.column else ""
            sentence = f"{place(source, problem.row)}{column}: {problem.reason}"
            if not self.skip:
                way = _WAYS.get(problem.reason.kind, "")
                raise ValueError(f"{sentence}; {way}--skip-bad counts such rows and leaves them out")
            self.examples.append(sentence)
        if problem.coalition:
            self.answers[problem.coalition] += 1
        else:
            self.kinds[problem.reason.kind] += 1


@dataclass
class Outside:
    """Answers that are no class, the first thousand different ones with their numbers."""

    examples: Counter[str] = field(default_factory=Counter)

    def note(self, cells: Iterable[Any], times: Iterable[int]) -> None:
        """Remember cells and how often they came."""
        for cell, count in zip(cells, times, strict=True):
            if not count:
                continue
            try:
                text = "|".join(map(str, cell)) if isinstance(cell, list) else as_text(cell) or ""
            except ValueError:
                text = repr(cell)
            if text[:60] in self.examples or len(self.examples) < _MOST_REMEMBERED:
                self.examples[text[:60]] += count

    def update(self, other: Outside) -> None:
        """Take over what was found in further files."""
        self.note(other.examples, other.examples.values())

    def check(self, card: Scorecard) -> None:
        """Raise ValueError where (nearly) no answer is a class: it is how they are read that is wrong."""
        number, of = card.outside(card.sampled), card.support(coalition=card.sampled)
        if card.judged:
            number, of = self.examples.total(), of * len(card.coalitions)
        if not of or number < _NEARLY_ALL * of:
            return
        came, folded = [text for text, _ in self.examples.most_common(5)], {name.casefold() for name in card.names}
        way = "--classes names the classes, --extract REGEX takes one out of a text"
        if any(text.casefold() in folded for text in came):
            way = "--ignore-case takes upper case for lower"
        elif any(len(cells := text.split("|")) == len(card.names) > 1 and all(map(_is_float, cells)) for text in came):
            way = "--scores auroc reads a probability of each class"
        elif not card.judged and any(name in text.casefold() for text in came for name in folded):
            way = "--extract REGEX takes the class out of a text"
        known = "" if card.judged else f", which are {', '.join(map(quoted, card.names[:5]))}"
        raise ValueError(
            f"{number:,} of {of:,} answers are none of the classes{known}{', …' * (len(card.names) > 5)}, such as "
            f"{', '.join(map(quoted, came[:3]))}: {way}"
        )

    def said(self, card: Scorecard) -> str:
        """Their share in every coalition, and the most frequent."""
        common = ", ".join(f"{text!r} {times:,}×" for text, times in self.examples.most_common(5))
        if card.judged:
            return f"Answers that name none of the choices, and count as wrong: such as {common}."
        shares = []
        for name in card.coalitions:
            if (number := card.outside(name)) and (answered := card.support(coalition=name)):
                shares.append(f"{number / answered:.1%} of {name} ({number:,} of {answered:,})")
        what = "name a label that is none" if card.kind.by_label else "are no class and count as a miss"
        return f"Answers that {what}: {', '.join(shares)}; such as {common}."


@dataclass
class Ids:
    """The ids of all rows by their hashes, 16 bytes a row: a sample that counts twice is a wrong number."""

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


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
