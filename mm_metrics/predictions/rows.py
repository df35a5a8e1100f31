"""A block of rows to counts: the one path from cells to a scorecard, whatever file or engine they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from mm_metrics.cells import UnreadableError, as_bit, as_hash, as_text
from mm_metrics.counts.other import closed
from mm_metrics.counts.truth import hashed
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.predictions.answers import parsed
from mm_metrics.predictions.columns import Columns
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.strays import Outside, Problem
from mm_metrics.scorecard import Scorecard
from mm_metrics.tables.source import Block
from mm_metrics.tasks import JUDGED


@dataclass
class Coded:
    """The readable rows of a block as numbers."""

    rows: np.ndarray  # (N,) int64: numbers in the file
    numbers: np.ndarray  # (N,) int64: numbers of the samples, from their ids where there are some
    ids: np.ndarray | None  # (N, 2) int64
    target: np.ndarray | None  # (N,), multilabel (N, L + 1)
    predictions: np.ndarray  # (K, N), multilabel (K, N, L + 1); K as the columns name them
    presence: np.ndarray | None  # (N, M) bool
    group: np.ndarray | None  # (N,) int64
    by: np.ndarray  # (B, N) int64: codes of the values of B columns
    counted: np.ndarray  # (K, N) bool: which answers could be read

    def take(self, at: np.ndarray | slice) -> Coded:
        """Some of the rows."""
        parts = [None if value is None else value[(slice(None),) * axis + (at,)] for axis, value in self._axes()]
        return Coded(*parts)  # type: ignore[arg-type]

    def small(self, dtype: type) -> Coded:
        """The same in less memory."""
        target: np.ndarray | None = None if self.target is None else self.target.astype(dtype)
        return replace(self, target=target, predictions=self.predictions.astype(dtype))

    def _axes(self) -> list[tuple[int, Any]]:
        """Each array with its axis of samples."""
        return [
            (int(field.name in ("predictions", "by", "counted")), getattr(self, field.name)) for field in fields(self)
        ]


def concatenated(parts: Sequence[Coded]) -> Coded:
    """The rows of several blocks, in order."""
    arrays: list[Any] = []
    for column in zip(*(part._axes() for part in parts), strict=True):
        axis, values = column[0][0], [value for _, value in column]
        arrays.append(None if values[0] is None else np.concatenate(values, axis))
    return Coded(*arrays)


def coded(
    block: Block, columns: Columns, how: Options, first: int = 0, outside: Outside | None = None
) -> tuple[Coded, list[Problem]]:
    """A block's cells as numbers, and the cells that can't be read, whose rows are left out.

    A cell of a coalition other than the whole costs that coalition's answer alone. `first` is the number of the file's
    first row among all the files.
    """
    answers, modalities, N = how.answers, how.modalities, len(block.rows)
    problems: list[Problem] = []
    ok = np.ones(N, dtype=bool)
    counted = np.ones((len(columns.predictions), N), dtype=bool)

    def read(column: str, parse: Callable[[Any], Any], shape: tuple[int, ...] = (), coalition: str = "") -> np.ndarray:
        where, cells = distinct(block.columns[column])
        codes, reasons = parsed(cells, parse)
        empty = np.zeros(shape, np.int64).tolist()
        table: np.ndarray = np.array([empty if code is None else code for code in codes], None if cells else np.int64)
        table = table.reshape(len(cells), *shape)
        if reasons:
            broken = np.zeros(len(cells), dtype=bool)
            broken[list(reasons)] = True
            at = np.flatnonzero(broken[where])
            problems.extend(Problem(int(block.rows[i]), column, reasons[int(where[i])], coalition) for i in at)
            (counted[list(columns.predictions.values()).index(column)] if coalition else ok)[at] = False
        if outside is not None and parse == answers.prediction and answers.names != JUDGED and len(cells):
            stray = answers.stray(table)
            if stray.any():
                times = np.bincount(where, minlength=len(cells))[stray]
                outside.note([cells[i] for i in np.flatnonzero(stray)], times.tolist())
        return table[where]

    ids = None if columns.id is None else read(columns.id, as_hash, (2,))
    width = (answers.width,) if answers.width else ()
    target = None if columns.target is None else read(columns.target, answers.target, width)
    presence = None
    if columns.presence:
        presence = np.ones((N, len(modalities)), dtype=bool)
        for name, column in columns.presence.items():
            presence[:, modalities.names.index(name)] = read(column, as_bit) != 0
    group = None if columns.group is None else read(columns.group, as_group)
    by = np.zeros((len(columns.by), N), dtype=np.int64)
    for row, column in enumerate(columns.by):
        by[row] = read(column, partial(as_code, values=how.values[column]))
    predictions: np.ndarray = np.zeros((len(columns.predictions), N, *answers.shape), answers.dtype)
    whole = max(columns.predictions, default=0)
    for k, (mask, column) in enumerate(columns.predictions.items()):
        coalition = "" if mask == whole else modalities.name(mask)
        predictions[k] = read(column, answers.prediction, answers.shape, coalition)
    if columns.target is None and answers.names == JUDGED:
        target = np.zeros(N, dtype=np.int64)
    index = block.rows + first if ids is None else ids[:, 0]
    found = Coded(block.rows, index, ids, target, predictions, presence, group, by, counted)
    return found.take(ok), sorted(problems, key=lambda problem: (problem.row, problem.column))


def as_group(cell: object) -> int:
    """The number of a group as a metric has it: an integer for itself, a word by its hash."""
    text = as_text(cell)
    if not text:
        raise UnreadableError("no group", "there is no group")
    number = text.removeprefix("-")
    return int(text) if number.isdecimal() and len(number) < 19 and number == str(int(number)) else hashed(text)


def as_code(cell: object, values: tuple[str, ...]) -> int:
    """The number of a column's value; after the last for any other."""
    text = as_text(cell)
    return values.index(text) if text in values else len(values)


def distinct(column: Any) -> tuple[np.ndarray, list[Any]]:
    """``(N,)`` positions into the list of different cells of a column, so that each is read once."""
    if hasattr(column, "dictionary_encode"):
        import pyarrow as pa

        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        kind = column.type
        if pa.types.is_dictionary(kind) or not (pa.types.is_nested(kind) or pa.types.is_null(kind)):
            encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
            words = encoded.dictionary
            if pa.types.is_string(words.type) or pa.types.is_large_string(words.type):
                words = words.cast(pa.large_binary())  # decoded cell by cell, so that a bad one is found
            cells = words.to_pylist()
            where = encoded.indices.fill_null(len(cells)).to_numpy(zero_copy_only=False).astype(np.int64)
            return where, [*cells, None]
        column = column.to_pylist()
    elif isinstance(column, np.ndarray):
        column = column.tolist()
    kinds = set(map(type, column)) - {type(None)}
    if len(kinds) <= 1 and kinds <= {str, int, float, bool}:  # of one kind what is equal is the same label
        cells = list(dict.fromkeys(column))
        at = {cell: i for i, cell in enumerate(cells)}
        return np.fromiter(map(at.__getitem__, column), np.int64, len(column)), cells
    cells = {}
    where = np.empty(len(column), dtype=np.int64)
    for i, cell in enumerate(column):
        # 1, 1.0 and True are equal and not the same label.
        key = cell if type(cell) is str else (type(cell), cell if type(cell) in (int, float) else repr(cell))
        where[i], _ = cells.setdefault(key, (len(cells), cell))
    return where, [cell for _, cell in cells.values()]


def metric(how: Options, masks: tuple[int, ...]) -> CoalitionConfusionMatrix:
    """The counter of coded rows. Binary tasks are counted as any other classes: `card_of` names them again."""
    if unknown := [column for column, values in how.values.items() if not values]:
        raise ValueError(
            f"by={unknown[0]!r}: its values are found in files only, name them: by={{{unknown[0]!r}: […]}}"
        )
    names, kind = JUDGED if how.judged else how.answers.names, how.kind
    sizes: dict[str, Any] = {"num_classes": len(names), "class_names": names}
    if kind.by_label:
        sizes = {"num_labels": len(names), "class_names": names, "task": kind.name}
    elif kind.ordinal:
        sizes = {"edges": how.edges, "task": kind.name}
    if how.scores:
        sizes |= {"scores": how.scores, "threshold": how.cut}
        if kind.positive:
            sizes = {name: value for name, value in sizes.items() if name != "num_classes"} | {"task": kind.name}
    return CoalitionConfusionMatrix(
        how.modalities,
        coalitions=[how.modalities.name(mask) for mask in masks],
        bootstrap=how.bootstrap,
        seed=how.seed,
        shard=how.shard,
        by=how.values,
        max_bytes=how.max_bytes,
        **sizes,
    )


def count(metric: CoalitionConfusionMatrix, coded: Coded, how: Options) -> None:
    """Add coded rows to the counts."""
    if not len(coded.rows):
        return
    assert coded.target is not None
    target, predictions = coded.target, coded.predictions
    if how.multiple_choice:  # right, or wrong: which letter it was means nothing over the samples
        target, predictions = np.zeros_like(target), (predictions != target).astype(np.int64)
    # Rows of groups that have no ids would be numbered alike in every file, and taken for the same samples.
    index = None if coded.ids is None and coded.group is not None else torch.from_numpy(coded.numbers)
    dtype = how.answers.dtype
    target = target.astype(dtype if how.kind.ordinal else np.int64)
    metric.update(
        torch.from_numpy(np.ascontiguousarray(predictions, dtype)),
        torch.from_numpy(target),
        None if coded.presence is None else torch.from_numpy(coded.presence),
        index,
        None if coded.group is None else torch.from_numpy(coded.group),
        {column: torch.from_numpy(codes) for column, codes in zip(how.values, coded.by, strict=True)},
        None if coded.counted.all() else torch.from_numpy(np.ascontiguousarray(coded.counted)),
    )


def card_of(metric: CoalitionConfusionMatrix, how: Options, info: dict[str, Any], part: str = "") -> Scorecard:
    """What was counted as a card, without a class for stray answers where there were none.

    Samples without ids are numbered from zero; their shard is kept, as it tells them from another file's. `part` tells
    blocks of equal counts apart.
    """
    numbered = bool(part) or how.id is not None or how.group is not None
    shards = () if numbered and metric.layout.R else (metric.shard,)
    card = Scorecard(metric.layout, how.task, metric.counts, how.seed, metric.class_names, shards, info)
    if card.judged and how.multiple_choice:
        info["multiple_choice"] = True
    strays = {} if card.judged else {name: card.outside(name) for name in card.coalitions}
    if any(strays.values()):
        info["answers_outside_the_classes"] = strays
    return closed(replace(card, added=frozenset(f"{part}:{name}" for name in card.parts)) if part else card)
