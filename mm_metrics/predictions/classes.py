"""The classes that targets hold, found in a pass over them where the user names none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from mm_metrics.cells import UnreadableError, as_text
from mm_metrics.predictions.answers import MAX_CLASSES, as_target_labels, check_label, found_classes, is_number
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.reading import Source
from mm_metrics.predictions.rows import distinct
from mm_metrics.predictions.strays import BadRows, Problem, place

T = TypeVar("T", bound=Options)


Seen = dict[str, tuple[str, Source | None, int]]  # a label as compared → its text, and the row where it came first


@dataclass
class Labels:
    """The labels seen in targets, and where each came first."""

    how: Options
    seen: Seen = field(default_factory=dict)
    bad: BadRows = field(init=False)
    rows: int = 0

    def __post_init__(self) -> None:
        """Bad targets are refused here already, so that the first of them is named and not what it led to."""
        self.bad = BadRows(self.how.skip_bad)

    def file(self, source: Source, column: str) -> None:
        """Look at a column of a file."""
        end = 0
        for block in source.blocks([column], self.bad.unreadable(source), self.how.block_rows):
            self.cells(block.columns[column], column, source, block.rows)
            end = block.end
        self.rows = end

    def cells(self, cells: Any, column: str, source: Source | None, rows: np.ndarray) -> None:
        """Look at ``(N,)`` cells, whose rows in the file have numbers."""
        where, different = distinct(cells)
        new: list[tuple[int, str]] = []
        reasons: dict[int, UnreadableError] = {}
        for i, cell in enumerate(different):
            try:
                new += [(i, text) for text in self._labels(cell) if self._folded(text) not in self.seen]
            except UnicodeError:
                reasons[i] = UnreadableError("no letters", "it is not UTF-8; --encoding says what else it is")
            except UnreadableError as error:
                reasons[i] = error
        if reasons:
            at = np.flatnonzero(np.isin(where, list(reasons)))
            self.bad.add(source, [Problem(int(rows[n]), column, reasons[int(where[n])]) for n in at])
        if new:
            used, first = np.unique(where, return_index=True)
            came = dict(zip(used.tolist(), rows[first].tolist(), strict=True))
            for i, text in new:
                if i in came:
                    check_label(text)
                    self.seen.setdefault(self._folded(text), (text, source, came[i]))
        if len(self.seen) > MAX_CLASSES:
            raise ValueError(
                f"{source.name if source else 'the rows'}: {column!r} holds more than {MAX_CLASSES:,} different "
                "values: is it the right column? Free text is marked by a judge: --correct COLUMN"
            )

    def update(self, seen: Seen, bad: BadRows) -> None:
        """Take over what was seen in further files."""
        self.seen = {**seen, **self.seen}
        self.bad.update(bad)

    def options(self, how: T, notes: list[str]) -> T:
        """The options with these classes. Raises ValueError where they make none."""
        why = "; ".join(["", *self.bad.notes()])
        if not self.seen:
            raise ValueError(f"no class was found, as no row has a target{why}")
        texts = [text for text, _, _ in self.seen.values()]
        words = [seen for seen in self.seen.values() if not is_number(seen[0])]
        if words and len(words) < len(texts):
            text, source, row = words[0]
            number = next(name for name in texts if is_number(name))
            raise ValueError(
                f"{place(source, row)}, column {how.target!r}: {text[:60]!r} is no class number and {number!r} is: "
                "--classes lists the classes where both are"
            )
        classes = found_classes(texts, how.task, how.positive)
        listed = ", ".join(repr(name)[:60] for name in classes[:10]) + (", …" if len(classes) > 10 else "")
        notes.append(f"{len(classes)} classes were found in the targets: {listed}. --classes names them for good.")
        how = replace(how, classes=classes)
        try:
            assert how.answers
        except ValueError as error:
            raise ValueError(f"{error}{why}") from None
        return how

    def _labels(self, cell: Any) -> list[str]:
        labels = as_target_labels(cell) if self.how.kind.by_label else [as_text(cell) or ""]
        if labels == [""]:
            raise UnreadableError("no target", "there is no target")
        return labels

    def _folded(self, text: str) -> str:
        return text.casefold() if self.how.ignore_case else text


def with_classes(how: T, sources: Iterable[tuple[Source, str | None]], notes: list[str]) -> T:
    """The same with the classes that columns of files hold, where none are named."""
    if how.classes is not None:
        return how
    labels = Labels(how)
    for source, column in sources:
        if column is not None:
            labels.file(source, column)
    return labels.options(how, notes)
