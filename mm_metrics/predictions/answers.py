"""Cells to codes: what a label, an answer, a presence or a judge's mark may look like. Each distinct cell once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mm_metrics.cells import NO, YES, as_bit, as_labels, as_missing, as_text, quoted
from mm_metrics.tasks import JUDGED, OTHER

MAX_CLASSES = 10_000
_LONGEST_NAME = 200  # characters; a longer "label" is a text from the wrong column


@dataclass(frozen=True)
class Answers:
    """Targets and answers to class numbers: ``(D,)`` for D distinct cells, multilabel ``(D, L + 1)`` of 0 and 1.

    The number after the last class is for answers that are no class, in multilabel the label after the last.

    >>> answers = Answers("multiclass", ("flood", "siren"))
    >>> answers.prediction("siren"), answers.prediction("I am not sure")
    (1, 2)
    """

    task: str
    classes: tuple[str, ...]
    threshold: float | None = None
    ignore_case: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for classes that do not fit the task or can't be told apart."""
        if len(self.classes) < (2 if self.task == "multiclass" and self.names != JUDGED else 1):
            raise ValueError(f"classes {list(self.classes)}: at least two are needed to be told apart")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"classes {quoted(list(self.classes))}: task=binary has two, the positive one last")
        if self.threshold is not None and (self.task != "binary" or not 0 <= self.threshold <= 1):
            raise ValueError(f"threshold={self.threshold}: a fraction in 0…1, of probabilities with --task binary")
        if "" in self.classes or OTHER in self.classes:
            raise ValueError(f"classes {quoted(list(self.classes))}: no empty name, and not {OTHER!r}")
        if len({self._folded(name) for name in self.classes}) < len(self.classes):
            raise ValueError(f"classes {quoted(list(self.classes))} holds one twice: every one once")

    @cached_property
    def _codes(self) -> dict[str, int]:
        codes = {self._folded(name): code for code, name in enumerate(self.classes)}
        if self.classes == ("0", "1"):
            codes |= {word: code for code, words in enumerate((NO, YES)) for word in (*words, words[1].title())}
        return codes

    def _folded(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes counted, the last for what is none."""
        return (*self.classes, OTHER)

    def target(self, cell: object) -> Any:
        """Raises ValueError with the reason where the cell names no class: a sample needs one to be missed."""
        if self.names == JUDGED:
            return 0
        if self.task == "multilabel":
            return self._row(cell, strict=True)
        text = as_text(cell)
        if text is None or self._folded(text) not in self._codes:
            raise ValueError(f"{quoted(cell)} is none of {self._listed()}" if text else "there is no target")
        return self._codes[self._folded(text)]

    def prediction(self, cell: object) -> Any:
        """What is no class gets a number of its own; ValueError only for what is no answer at all."""
        if self.names == JUDGED:
            return 0 if as_bit(cell) else 1
        if self.task == "multilabel":
            return self._row(cell, strict=False)
        text = as_text(cell) or ""
        if self.threshold is not None:
            return int(_probability(text) > self.threshold)
        code = self._codes.get(self._folded(text), len(self.classes))
        if code == len(self.classes) and self.task == "binary" and _is_fraction(text):
            raise ValueError(f"{quoted(cell)} is none of {self._listed()}; a probability needs threshold=0.5")
        return code

    def _row(self, cell: object, strict: bool) -> list[int]:
        if strict and as_missing(cell):
            raise ValueError("there is no target; an empty list says that no label is on")
        row = [0] * len(self.names)
        for label in as_labels(cell):
            code = self._codes.get(self._folded(label), len(self.classes))
            if strict and code == len(self.classes):
                raise ValueError(f"{quoted(label)} is none of {self._listed()}")
            row[code] = 1
        return row

    def _listed(self) -> str:
        return ", ".join(map(quoted, self.classes[:5])) + (", …" if len(self.classes) > 5 else "")


def found_classes(labels: Iterable[str], task: str, positive: str | None = None) -> tuple[str, ...]:
    """The classes in order from the labels seen in the targets: 0 to the largest where they are class numbers.

    A class number below the largest is a class, seen or not: a prediction of it is a wrong class, no stray answer.

    >>> found_classes({"2", "0"}, "multiclass"), found_classes({"no", "yes"}, "binary", positive="no")
    (('0', '1', '2'), ('yes', 'no'))
    """
    names = sorted(labels)
    if all(name.isdecimal() and len(name) < 10 and str(int(name)) == name for name in names):
        names = sorted(names, key=int)
        if task == "multiclass" and names and int(names[-1]) < 2 * len(names) + 10:
            names = [str(code) for code in range(int(names[-1]) + 1)]
    if positive is not None:
        if positive not in names:
            raise ValueError(f"positive={positive!r} is none of the targets {quoted(names)}")
        names = [name for name in names if name != positive] + [positive]
    return tuple(names)


def check_label(text: str) -> None:
    """Raise ValueError for what is too long to be a label."""
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a text of {len(text):,} characters is no label: is it the right column?")


def parsed(cells: list[Any], parse: Callable[[Any], Any], width: int = 0) -> tuple[np.ndarray, dict[int, str]]:
    """`parse` of every cell, ``(D,)`` or ``(D, width)``, 0 where it raised ValueError; and the reasons by position."""
    results: list[Any] = []
    reasons: dict[int, str] = {}
    for i, cell in enumerate(cells):
        try:
            results.append(parse(cell))
            continue
        except UnicodeError:
            reasons[i] = "it is not UTF-8"
        except ValueError as error:
            reasons[i] = str(error)
        results.append([0] * width if width else 0)
    return np.array(results, dtype=np.int64).reshape((len(cells), width) if width else len(cells)), reasons


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{quoted(text)} is no probability in 0…1")
    return value


def _is_fraction(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False
