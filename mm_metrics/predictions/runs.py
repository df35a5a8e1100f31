"""Ablations that were separate runs, joined by the samples' ids. In memory are ids, codes and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mm_metrics.predictions.classes import completed
from mm_metrics.predictions.columns import Columns, no_column, presence_columns
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.rows import Coded, coded, concatenated
from mm_metrics.predictions.strays import BadRows, Ids, Outside
from mm_metrics.tables.source import FilePath, Source


@dataclass
class _Run:
    """A file and what was read from it."""

    source: Source
    columns: Columns
    coded: Coded


@dataclass
class Joined:
    """U samples of several runs, of which those are coded that can be counted."""

    how: Options
    columns: Columns
    sources: list[Source]
    notes: list[str]
    bad: BadRows
    outside: Outside
    rows: int  # U
    coded: Coded


def join(how: Options, runs_of: Iterable[tuple[str, FilePath]], files: Sequence[FilePath] = ()) -> Joined:
    """As `Predictions.score_runs`."""
    plan = list(_plan(how, runs_of, files))
    notes: list[str] = []
    held = {column for _, columns in plan for column in columns.wanted}
    needed = [("target", None if how.correct else how.target), ("group", how.group), *(("by", c) for c in how.values)]
    for option, name in needed:
        if name is not None and name not in held:
            raise ValueError(f"no file has a column {name!r}: --{option} NAME says which, or add the file that has it")
    known = {name for _, columns in plan for name in columns.presence}
    if not known:
        how.check_presence("the files", [name for source, _ in plan for name in source.columns()])
    if missing := [name for name in how.modalities if name not in known]:
        notes.append(f"No presence column for {', '.join(missing)}: taken as present in every sample.")
    how = completed(how, plan, notes)
    bad, outside = BadRows(how.skip_bad), Outside()
    runs = [_read(how, source, columns, bad, outside) for source, columns in plan]
    at, ids = _joined(runs)
    U = len(ids)
    whole = np.ones(U, dtype=bool)

    def agreed(what: str, values: Iterable[np.ndarray | None]) -> np.ndarray | None:
        """One value a sample from the files that give it; ValueError where two differ."""
        result, given = None, np.zeros(U, dtype=bool)
        for run, place, part in zip(runs, at, values, strict=True):
            if part is None:
                continue
            result = np.zeros((U, *part.shape[1:]), dtype=part.dtype) if result is None else result
            differ = given[place] & (result[place] != part).reshape(len(place), -1).any(1)
            if differ.any():
                where = run.source.where(int(run.coded.rows[differ.argmax()]))
                raise ValueError(f"{where}: its {what} is another than in a file before")
            result[place], given[place] = part, True
        whole[:] &= given | (result is None)
        return result

    given = ([getattr(run.coded, what) for run in runs] for what in ("target", "presence", "group"))
    target, presence, group = map(agreed, ("target", "presence", "group"), given)
    by = np.zeros((len(how.values), U), dtype=np.int64)
    for row, column in enumerate(how.values):
        by[row] = agreed(  # type: ignore[assignment]
            column, [dict(zip(run.columns.by, run.coded.by, strict=True)).get(column) for run in runs]
        )
    assert target is not None
    masks = sorted(mask for _, columns in plan for mask in columns.predictions)
    predictions = np.zeros((len(masks), U, *how.answers.shape), dtype=runs[0].coded.predictions.dtype)
    counted = np.zeros((len(masks), U), dtype=bool)
    for run, place in zip(runs, at, strict=True):
        for row, mask in enumerate(run.columns.predictions):
            k = masks.index(mask)
            predictions[k, place], counted[k, place] = run.coded.predictions[row], True
            if lost := U - len(place):
                notes.append(
                    f"{how.modalities.name(mask)}: {lost:,} of {U:,} ids have no answer in {run.source.name}; "
                    "its scores are over the others."
                )
    if lost := U - int(whole.sum()):
        notes.append(f"{lost:,} of {U:,} ids are left out, as no file gives their target, presence, group or by.")
    numbers = np.arange(U)
    samples = Coded(numbers, ids[:, 0], ids, target, predictions, presence, group, by, counted).take(whole)
    columns = Columns(None, {}, dict.fromkeys(masks, how.prediction), how.id)
    return Joined(how, columns, [run.source for run in runs], notes, bad, outside, U, samples)


def _plan(
    how: Options, runs: Iterable[tuple[str, FilePath]], files: Sequence[FilePath]
) -> Iterator[tuple[Source, Columns]]:
    if how.id is None:
        raise ValueError("runs are joined by the samples' ids: --id NAME says which column holds them")
    always = sum(how.modalities.mask(name) for name in how.always)
    shown_only: list[tuple[int | None, FilePath]] = [(how.modalities.mask(name) | always, path) for name, path in runs]
    seen: dict[int, FilePath] = {}
    held: dict[str, str] = {}
    for mask, path in [*shown_only, *((None, path) for path in files)]:
        source = how.source(path)
        header = source.columns()
        if how.id not in header:
            raise no_column(path, how.id, header, "id")
        if mask is not None and how.prediction not in header:
            raise no_column(path, how.prediction, header, "prediction")
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
        group = how.group if how.group in header else None
        by = tuple(column for column in how.values if column in header)
        yield source, Columns(target, presence, predictions, how.id, group, by)


def _read(how: Options, source: Source, columns: Columns, bad: BadRows, outside: Outside) -> _Run:
    parts = []
    small = how.answers.dtype if how.answers.dtype is np.float64 else np.int8 if how.kind.by_label else np.int32
    for block in source.blocks(columns.wanted, bad.unreadable(source), how.block_rows):
        part, problems = coded(block, columns, how, 0, outside)
        bad.add(source, problems)
        parts.append(part.small(small))
    found, came = concatenated(parts), Ids(how.id)
    came.add(source, found.rows, found.ids)
    came.refuse_twice()
    return _Run(source, columns, found)


def _joined(runs: list[_Run]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where each source's rows are among the ``(U, 2)`` different ids, which come out sorted."""
    each = [run.coded.ids for run in runs if run.coded.ids is not None]
    ids, at = np.unique(np.concatenate(each), axis=0, return_inverse=True)
    return np.split(at.reshape(-1), np.cumsum(list(map(len, each)))[:-1]), ids
