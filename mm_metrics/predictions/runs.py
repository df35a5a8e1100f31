"""Ablations that were separate runs, joined by the samples' ids. In memory are ids, codes and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mm_metrics.predictions.columns import Columns, presence_columns, shown
from mm_metrics.predictions.reading import FilePath, blocks, columns_of, place
from mm_metrics.predictions.rows import Coded, card_of, coded, count, metric
from mm_metrics.predictions.strays import BadRows, Outside
from mm_metrics.tasks import JUDGED

if TYPE_CHECKING:
    from mm_metrics.predictions.scoring import Predictions, Scored


@dataclass
class _Source:
    """A file and what was read from it."""

    path: FilePath
    columns: Columns
    rows: np.ndarray  # (N,)
    ids: np.ndarray  # (N, 2)
    target: np.ndarray | None
    predictions: np.ndarray  # (K, N), K as the columns name them
    presence: np.ndarray | None


def score_runs(how: Predictions, runs: Iterable[tuple[str, FilePath]], files: Sequence[FilePath] = ()) -> Scored:
    """As `Predictions.score_runs`."""
    plan = list(_plan(how, runs, files))
    notes: list[str] = []
    if how.correct is None and not any(columns.target for _, columns in plan):
        raise ValueError(f"no file has a column {how.target!r}: --target NAME says which, or add the file that has it")
    known = {name for _, columns in plan for name in columns.presence}
    if missing := [name for name in how.modalities if name not in known]:
        notes.append(f"No presence column for {', '.join(missing)}: taken as present in every sample.")
    how = how.with_classes(plan, notes)
    bad, outside = BadRows(how.skip_bad), Outside()
    sources = [_read(how, path, columns, bad, outside) for path, columns in plan]
    at, ids = _joined(sources)
    U = len(ids)
    target = _agreed([(source, at[i], source.target) for i, source in enumerate(sources)], U, "target")
    presence = _agreed([(source, at[i], source.presence) for i, source in enumerate(sources)], U, "presence")
    if how.answers.names == JUDGED:
        target = np.zeros(U, dtype=np.int32)
    assert target is not None
    masks = tuple(sorted(mask for _, columns in plan for mask in columns.predictions))
    predictions = np.zeros((len(masks), *target.shape), dtype=np.int32)
    counted = np.zeros((len(masks), U), dtype=bool)
    for i, source in enumerate(sources):
        for row, mask in enumerate(source.columns.predictions):
            k = masks.index(mask)
            predictions[k, at[i]], counted[k, at[i]] = source.predictions[row], True
            if lost := U - len(at[i]):
                notes.append(
                    f"{how.modalities.name(mask)}: {lost:,} of {U:,} ids have no answer in {source.path}; "
                    "its scores are over the others."
                )
    whole = target.reshape(U, -1)[:, 0] >= 0
    if presence is not None:
        whole &= presence[:, 0] >= 0
    if lost := U - int(whole.sum()):
        notes.append(f"{lost:,} of {U:,} ids are left out, as no file gives their target, or their presence.")
    counter = metric(how, masks)
    for start in range(0, U, how.block_rows):
        block = np.arange(start, min(start + how.block_rows, U))[whole[start : start + how.block_rows]]
        part = Coded(
            block, ids[block, 0], None, target[block].astype(np.int64), predictions[:, block].astype(np.int64),
            None if presence is None else presence[block] != 0,
        )  # fmt: skip
        count(counter, part, counted[:, block])
    names = {"files": [Path(path).name for path, _ in plan], "rows": U}
    return how.told(card_of(counter, how.task, by_id=True, **names), notes, bad, outside)


def _plan(
    how: Predictions, runs: Iterable[tuple[str, FilePath]], files: Sequence[FilePath]
) -> Iterable[tuple[FilePath, Columns]]:
    if how.id is None:
        raise ValueError("runs are joined by the samples' ids: --id NAME says which column holds them")
    always = sum(how.modalities.mask(name) for name in how.always)
    shown_only: list[tuple[int | None, FilePath]] = [(how.modalities.mask(name) | always, path) for name, path in runs]
    seen: dict[int, FilePath] = {}
    held: dict[str, str] = {}
    for mask, path in [*shown_only, *((None, path) for path in files)]:
        header = columns_of(path)
        if how.id not in header:
            raise ValueError(f"{path}: no column {how.id!r}, there are {shown(header)}: --id NAME says which")
        if mask is not None and how.prediction not in header:
            raise ValueError(f"{path}: no column {how.prediction!r}, there are {shown(header)}: --prediction NAME")
        target = how.target if how.correct is None and how.target in header else None
        presence = presence_columns(header, how.modalities, how.presence)
        if presence and held and presence != held:
            raise ValueError(f"{path}: presence of {', '.join(presence)}, another file's of {', '.join(held)}")
        held = presence or held
        predictions = {how.modalities.full if mask is None else mask: how.prediction}
        if mask is None and how.prediction not in header:
            predictions = {}
        for one in predictions:
            if one in seen:
                raise ValueError(f"{path} and {seen[one]} are both runs of {how.modalities.name(one)}: one is due")
            seen[one] = path
        yield path, Columns(target, presence, predictions, how.id)


def _read(how: Predictions, path: FilePath, columns: Columns, bad: BadRows, outside: Outside) -> _Source:
    parts = []
    for block in blocks(path, columns.wanted, bad.unreadable(path), how.block_rows):
        part, problems = coded(block, columns, how.answers, how.modalities, 0, outside)
        bad.add(path, problems)
        parts.append(part)
    small = np.int8 if how.task == "multilabel" else np.int32
    target = [part.target.astype(small) for part in parts if part.target is not None]
    presence = [part.presence.astype(np.int8) for part in parts if part.presence is not None]
    return _Source(
        path, columns, np.concatenate([part.rows for part in parts]),
        np.concatenate([part.ids for part in parts if part.ids is not None]),
        np.concatenate(target) if columns.target else None,
        np.concatenate([part.predictions.astype(small) for part in parts], axis=1),
        np.concatenate(presence) if presence else None,
    )  # fmt: skip


def _joined(sources: list[_Source]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where each source's rows are among the ``(U, 2)`` different ids, which come out sorted."""
    ids = np.concatenate([source.ids for source in sources])
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    new = np.ones(len(ids), dtype=bool)
    new[1:] = (ids[order[1:]] != ids[order[:-1]]).any(1)
    at = np.empty(len(ids), dtype=np.int64)
    at[order] = np.cumsum(new) - 1
    splits = np.split(at, np.cumsum([len(source.ids) for source in sources])[:-1])
    for source, part in zip(sources, splits, strict=True):
        _, first = np.unique(part, return_index=True)
        if len(first) < len(part):
            again = int(np.setdiff1d(np.arange(len(part)), first)[0])
            before = int(np.flatnonzero(part == part[again])[0])
            raise ValueError(
                f"{source.path}, {place(source.path, int(source.rows[again]))}: its id came before, in "
                f"{place(source.path, int(source.rows[before]))}: every id once"
            )
    return splits, ids[order[new]]


def _agreed(parts: list[tuple[_Source, np.ndarray, np.ndarray | None]], U: int, what: str) -> np.ndarray | None:
    """One value a sample from the files that give it, -1 where none does; ValueError where two differ."""
    result = None
    for source, at, values in parts:
        if values is None:
            continue
        if result is None:
            result = np.full((U, *values.shape[1:]), -1, dtype=values.dtype)
        known, fresh = result[at].reshape(len(at), -1), values.reshape(len(at), -1)
        differ = ((known >= 0) & (known != fresh)).any(1)
        if differ.any():
            row = int(source.rows[differ.argmax()])
            raise ValueError(f"{source.path}, {place(source.path, row)}: its {what} is another than in a file before")
        result[at] = values
    return result
