"""The classes that targets hold, and the values of columns, found in a pass where the user names none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from mm_metrics.cells import UnreadableError, as_text
from mm_metrics.predictions.answers import MAX_CLASSES, as_target_labels, check_label, found_classes, is_number, parsed
from mm_metrics.predictions.columns import Columns
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.rows import distinct
from mm_metrics.predictions.strays import BadRows, Problem, place
from mm_metrics.tables.source import Source

T = TypeVar("T", bound=Options)
MAX_VALUES = 100  # of a column that slices are asked by


Seen = dict[str, tuple[str, Source | None, int]]  # a label as compared → its text, and the row where it came first


@dataclass
class Found:
    """The classes that targets hold and the values of columns that slices are asked by, each where it came first."""

    how: Options
    labels: Seen = field(default_factory=dict)
    values: dict[str, Seen] = field(default_factory=dict)  # column → its values
    bad: BadRows = field(init=False)
    rows: int = 0

    def __post_init__(self) -> None:
        """Bad targets are refused here already, so that the first of them is named and not what it led to."""
        self.bad = BadRows(self.how.skip_bad)

    def file(self, source: Source, columns: Columns) -> None:
        """Look at a file."""
        wanted = self._wanted(columns)
        end = 0
        for block in source.blocks(wanted or columns.wanted[:1], self.bad.unreadable(source), self.how.block_rows):
            self.block({column: block.columns[column] for column in wanted}, columns, source, block.rows)
            end = block.end
        self.rows = end

    def block(self, cells: Mapping[str, Any], columns: Columns, source: Source | None, rows: np.ndarray) -> None:
        """Look at some rows, whose numbers in the file are ``(N,)``."""
        for column in self._wanted(columns):
            self._look(cells[column], column, column == columns.target and self.how.classes is None, source, rows)

    def update(self, other: tuple[Seen, dict[str, Seen], BadRows]) -> None:
        """Take over what was found in further files."""
        labels, values, bad = other
        self.labels = {**labels, **self.labels}
        for column, seen in values.items():
            self.values[column] = {**seen, **self.values.get(column, {})}
        self.bad.update(bad)

    def options(self, how: T, notes: list[str]) -> T:
        """The options with what was found. Raises ValueError where targets make no classes."""
        by = {column: values or tuple(sorted(self.values[column])) for column, values in how.values.items()}
        if how.classes is not None:
            return replace(how, by=by)
        why = "; ".join(["", *self.bad.notes()])
        if not self.labels:
            raise ValueError(f"no class was found, as no row has a target{why}")
        texts = [text for text, _, _ in self.labels.values()]
        words = [seen for seen in self.labels.values() if not is_number(seen[0])]
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
        how = replace(how, classes=classes, by=by)
        try:
            assert how.answers
        except ValueError as error:
            raise ValueError(f"{error}{why}") from None
        return how

    def _wanted(self, columns: Columns) -> list[str]:
        target = [columns.target] if self.how.classes is None and columns.target else []
        return target + [column for column in columns.by if not self.how.values[column]]

    def _look(self, cells: Any, column: str, target: bool, source: Source | None, rows: np.ndarray) -> None:
        seen = self.labels if target else self.values.setdefault(column, {})
        most = MAX_CLASSES if target else MAX_VALUES
        where, different = distinct(cells)
        texts, reasons = parsed(different, self._labels if target else _value)
        if reasons:
            at = np.flatnonzero(np.isin(where, list(reasons)))
            self.bad.add(source, [Problem(int(rows[n]), column, reasons[int(where[n])]) for n in at])
        new = [(i, text) for i, part in enumerate(texts) for text in part or () if self._folded(text) not in seen]
        if new:
            used, first = np.unique(where, return_index=True)
            came = dict(zip(used.tolist(), rows[first].tolist(), strict=True))
            for i, text in new:
                if i in came:
                    check_label(text)
                    seen.setdefault(self._folded(text), (text, source, came[i]))
        if len(seen) > most:
            raise ValueError(
                f"{source.name if source else 'the rows'}: {column!r} holds more than {most:,} different values: "
                "is it the right column? Free text is marked by a judge: --correct COLUMN"
            )

    def _labels(self, cell: Any) -> list[str]:
        labels = as_target_labels(cell) if self.how.kind.by_label else [as_text(cell) or ""]
        if labels == [""]:
            raise UnreadableError("no target", "there is no target")
        return labels

    def _folded(self, text: str) -> str:
        return text.casefold() if self.how.ignore_case else text


def completed(how: T, sources: Iterable[tuple[Source, Columns]], notes: list[str]) -> T:
    """The same with the classes, and the values of columns, that files hold, where they are not named."""
    if how.complete:
        return how
    found = Found(how)
    for source, columns in sources:
        found.file(source, columns)
    return found.options(how, notes)


def _value(cell: Any) -> list[str]:
    text = as_text(cell)
    return [text] if text and text != "other" else []
