"""A block of rows to counts: the one path from cells to a scorecard, whatever file or engine they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mm_metrics.cells import as_bit, as_hash
from mm_metrics.counts.other import closed
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.predictions.answers import parsed
from mm_metrics.predictions.columns import Columns
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.reading import Block
from mm_metrics.predictions.strays import Outside, Problem
from mm_metrics.scorecard import Scorecard
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
    counted: np.ndarray  # (K, N) bool: which answers could be read


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

    def read(column: str, parse: Callable[[Any], Any], width: int = 0, coalition: str = "") -> np.ndarray:
        where, cells = distinct(block.columns[column])
        table, reasons = parsed(cells, parse, width)
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

    ids = None if columns.id is None else read(columns.id, as_hash, 2)
    target = None if columns.target is None else read(columns.target, answers.target, answers.width)
    presence = None
    if columns.presence:
        presence = np.ones((N, len(modalities)), dtype=bool)
        for name, column in columns.presence.items():
            presence[:, modalities.names.index(name)] = read(column, as_bit) != 0
    predictions = np.zeros((len(columns.predictions), N, *[answers.width] * bool(answers.width)), dtype=np.int64)
    whole = max(columns.predictions, default=0)
    for k, (mask, column) in enumerate(columns.predictions.items()):
        coalition = "" if mask == whole else modalities.name(mask)
        predictions[k] = read(column, answers.prediction, answers.width, coalition)
    if columns.target is None and answers.names == JUDGED:
        target = np.zeros(N, dtype=np.int64)
    index = block.rows + first if ids is None else ids[:, 0]
    return Coded(
        block.rows[ok], index[ok], None if ids is None else ids[ok], None if target is None else target[ok],
        predictions[:, ok], None if presence is None else presence[ok], counted[:, ok],
    ), sorted(problems, key=lambda problem: (problem.row, problem.column))  # fmt: skip


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
    names, by_label = JUDGED if how.judged else how.answers.names, how.kind.by_label
    return CoalitionConfusionMatrix(
        how.modalities, None if by_label else len(names), "multilabel" if by_label else "multiclass",
        len(names) if by_label else None, coalitions=[how.modalities.name(mask) for mask in masks],
        bootstrap=how.bootstrap, seed=how.seed, shard=how.shard, class_names=names,
    )  # fmt: skip


def count(metric: CoalitionConfusionMatrix, coded: Coded, how: Options) -> None:
    """Add coded rows to the counts."""
    if not len(coded.rows):
        return
    assert coded.target is not None
    target, predictions = coded.target, coded.predictions
    if how.multiple_choice:  # right, or wrong: which letter it was means nothing over the samples
        target, predictions = np.zeros_like(target), (predictions != target).astype(np.int64)
    metric.update(
        torch.from_numpy(np.ascontiguousarray(predictions)), torch.from_numpy(target),
        None if coded.presence is None else torch.from_numpy(coded.presence), torch.from_numpy(coded.numbers),
        counted=None if coded.counted.all() else torch.from_numpy(np.ascontiguousarray(coded.counted)),
    )  # fmt: skip


def card_of(
    metric: CoalitionConfusionMatrix, how: Options, by_id: bool, info: dict[str, Any], part: str = ""
) -> Scorecard:
    """What was counted as a card, without a class for stray answers where there were none.

    Samples without ids are numbered from zero; their shard is kept, as it tells them from another file's. `part` tells
    blocks of equal counts apart.
    """
    shards = () if by_id and metric.layout.R else (metric.shard,)
    card = Scorecard(metric.layout, how.task, metric.counts, how.seed, metric.class_names, shards, info)
    if card.judged and how.multiple_choice:
        info["multiple_choice"] = True
    strays = {} if card.judged else {name: card.outside(name) for name in card.coalitions}
    if any(strays.values()):
        info["answers_outside_the_classes"] = strays
    return closed(replace(card, added=frozenset(f"{part}:{name}" for name in card.parts)) if part else card)
