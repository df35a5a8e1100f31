"""Cells to codes: what a target or an answer may look like. Each distinct cell is read once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mm_metrics.cells import NO, YES, UnreadableError, as_bit, as_labels, as_missing, as_text, extracted, quoted
from mm_metrics.tasks import JUDGED, OTHER, Task, task_of

MAX_CLASSES = 10_000
_SUM_WITHIN = 1e-2  # of 1, as probabilities are rounded in files
_LONGEST_NAME = 200  # characters; a longer "label" is a text from the wrong column


@dataclass(frozen=True)
class Answers:
    """Targets and answers to class numbers: ``(D,)`` for D distinct cells, multilabel ``(D, L + 1)`` of 0 and 1.

    The number after the last class is for answers that are no class, in multilabel the label after the last.
    `extract` is a regular expression for the part of an answer that counts: its first group that took
    part, or all that it matches where it has none.

    >>> answers = Answers("multiclass", ("A", "B"), extract=r"answer is ([A-D])")
    >>> answers.prediction("The answer is B."), answers.prediction("I am not sure")
    (1, 2)
    """

    task: str
    classes: tuple[str, ...]
    threshold: float | None = None
    ignore_case: bool = False
    extract: str | None = None
    probabilities: bool = False  # of the positive class, of each class, or of each label, are the answers

    def __post_init__(self) -> None:
        """Raise ValueError for classes that do not fit the task or can't be told apart."""
        if len(self.classes) < (2 if self.kind.by_class and self.names != JUDGED else 1):
            raise ValueError(f"classes {list(self.classes)}: at least two are needed to be told apart")
        if self.kind.positive and len(self.classes) != 2:
            raise ValueError(f"classes {quoted(list(self.classes))}: task=binary has two, the positive one last")
        if "" in self.classes or OTHER in self.classes:
            raise ValueError(f"classes {quoted(list(self.classes))}: no empty name, and not {OTHER!r}")
        if len({self.folded(name) for name in self.classes}) < len(self.classes):
            raise ValueError(f"classes {quoted(list(self.classes))} holds one twice: every one once")

    @property
    def kind(self) -> Task:
        """What the task is, as a value."""
        return task_of(self.task)

    @property
    def dtype(self) -> type:
        """Of answers; the cells of an ordinal task are numbers themselves."""
        return np.float64 if self.kind.ordinal or self.probabilities else np.int64

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what an answer's cell becomes: nothing for one number."""
        if self.probabilities:
            return () if self.kind.positive else (len(self.classes),)
        return (self.width,) if self.width else ()

    @property
    def width(self) -> int:
        """Numbers a cell becomes: one for each label and one for what is none, or 0 for a plain class number."""
        return len(self.names) if self.kind.by_label else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes counted, the last for what is none."""
        return self.classes if self.probabilities else (*self.classes, OTHER)

    def folded(self, text: str) -> str:
        """A label as it is compared."""
        return text.casefold() if self.ignore_case else text

    def target(self, cell: object) -> Any:
        """Raises ValueError with the reason where the cell names no class: a sample needs one to be missed."""
        if self.names == JUDGED:
            return 0
        if self.kind.ordinal:
            return _number(cell, "target")
        if self.kind.by_label:
            return self._row(as_target_labels(cell), strict=True)
        text = as_text(cell)
        if not text:
            raise UnreadableError("no target", "there is no target")
        code = self._codes.get(self.folded(text))
        if code is None:
            raise UnreadableError("unknown target", f"{quoted(cell)} is none of {self._listed()}")
        return code

    def prediction(self, cell: object) -> Any:
        """What is no class, or missing, gets a number of its own; ValueError only for what is no answer at all."""
        if self.names == JUDGED:
            return 0 if as_bit(cell) else 1
        if self.kind.ordinal:
            return _number(cell, "answer")
        if self.probabilities:
            return self._probabilities(cell)
        if self.kind.by_label:
            labels = as_labels(cell) if self.extract is None else extracted(cell, self.extract)
            return self._row(labels, strict=False)
        text = as_text(cell) or ""
        if self.threshold is not None:
            return int(_probability(text) > self.threshold) if text else len(self.classes)
        if self.extract is not None:
            text = next(iter(extracted(text, self.extract)), text)
        code = self._codes.get(self.folded(text), len(self.classes))
        if code == len(self.classes) and self.kind.positive and 0 < _float(text) < 1:
            sentence = f"{quoted(cell)} is none of {self._listed()}; a probability needs threshold=0.5"
            raise UnreadableError("unknown answer", sentence)
        return code

    def stray(self, table: np.ndarray) -> np.ndarray:
        """``(D,)`` bool: which of the answers in a table of codes are no class."""
        if self.dtype is np.float64:
            return np.zeros(len(table), dtype=bool)
        return table[:, -1] == 1 if self.width else table == len(self.classes)

    @cached_property
    def _codes(self) -> dict[str, int]:
        codes = {self.folded(name): code for code, name in enumerate(self.classes)}
        if self.classes == ("0", "1"):
            codes |= {word: code for code, words in enumerate((NO, YES)) for word in (*words, words[1].title())}
        return codes

    def _probabilities(self, cell: object) -> float | list[float]:
        """The one of the positive class; or one a class, or label, in their order: a list, or 0.1|0.7|0.2."""
        values = [
            _probability(text)
            for text in as_labels(cell.strip("[] ").replace(",", "|") if isinstance(cell, str) else cell)
        ]
        due = self.shape[0] if self.shape else 1
        if len(values) != due:
            which = "the positive class" if self.kind.positive else f"each of {self._listed()}"
            raise UnreadableError(
                "no probability", f"{quoted(cell)} holds {len(values)} numbers, one of {which} is due"
            )
        if self.kind.by_class and abs(sum(values) - 1) > _SUM_WITHIN:
            raise UnreadableError("no probability", f"{quoted(cell)} sums to {sum(values):.4g}, probabilities to 1")
        return values if self.shape else values[0]

    def _row(self, labels: list[str], strict: bool) -> list[int]:
        row = [0] * self.width
        for label in labels:
            code = self._codes.get(self.folded(label), len(self.classes))
            if strict and code == len(self.classes):
                raise UnreadableError("unknown target", f"{quoted(label)} is none of {self._listed()}")
            row[code] = 1
        return row

    def _listed(self) -> str:
        return ", ".join(map(quoted, self.classes[:5])) + (", …" if len(self.classes) > 5 else "")


def as_target_labels(cell: object) -> list[str]:
    """The labels of a multilabel target; ValueError where it is null."""
    if as_missing(cell):
        raise UnreadableError("no target", "there is no target; an empty list says that no label is on")
    return as_labels(cell)


def found_classes(labels: Iterable[str], task: str, positive: str | None = None) -> tuple[str, ...]:
    """The classes in order from the labels seen in the targets: 0 to the largest where they are class numbers.

    A class number below the largest is a class, seen or not: a prediction of it is a wrong class, no stray answer.

    >>> found_classes({"2", "0"}, "multiclass"), found_classes({"no", "yes"}, "binary", positive="no")
    (('0', '1', '2'), ('yes', 'no'))
    """
    names = sorted(labels)
    if names and all(map(is_number, names)):
        names = sorted(names, key=int)
        if task_of(task).by_class and int(names[-1]) < 2 * len(names) + 10:
            names = [str(code) for code in range(int(names[-1]) + 1)]
    if positive is not None:
        if positive not in names:
            raise ValueError(f"positive={positive!r} is none of the targets {quoted(names)}")
        names = [name for name in names if name != positive] + [positive]
    return tuple(names)


def is_number(name: str) -> bool:
    """Whether a label is a class number.

    >>> is_number("12"), is_number("-1"), is_number("n/a")
    (True, False, False)
    """
    return name.isdecimal() and len(name) < 10 and str(int(name)) == name


def check_label(text: str) -> None:
    """Raise ValueError for what is too long to be a label."""
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a text of {len(text):,} characters is no label: is it the right column?")


def parsed(cells: list[Any], parse: Callable[[Any], Any]) -> tuple[list[Any], dict[int, UnreadableError]]:
    """`parse` of each of D cells, None where it raised `UnreadableError`; and the reasons by position."""
    results: list[Any] = []
    reasons: dict[int, UnreadableError] = {}
    for i, cell in enumerate(cells):
        try:
            results.append(parse(cell))
            continue
        except UnicodeError:
            reasons[i] = UnreadableError("no letters", "it is not UTF-8; --encoding says what else it is")
        except UnreadableError as error:
            reasons[i] = error
        results.append(None)
    return results, reasons


def _probability(text: str) -> float:
    value = _float(text)
    if not 0 <= value <= 1:
        raise UnreadableError("no probability", f"{quoted(text)} is no probability in 0…1")
    return value


def _number(cell: object, what: str) -> float:
    value = _float(as_text(cell) or "")
    if not math.isfinite(value):
        raise UnreadableError(f"no {what}", f"{quoted(cell)} is no number")
    return value


def _float(text: str) -> float:
    """A number, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan
