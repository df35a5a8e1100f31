"""Ablations that were separate runs, joined by the samples' ids. In memory are ids, codes and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mm_metrics.predictions.classes import with_classes
from mm_metrics.predictions.columns import Columns, presence_columns, shown
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.reading import FilePath, Source
from mm_metrics.predictions.rows import Coded, coded
from mm_metrics.predictions.strays import BadRows, Outside
from mm_metrics.tasks import JUDGED


@dataclass
class _Run:
    """A file and what was read from it."""

    source: Source
    columns: Columns
    rows: np.ndarray  # (N,)
    ids: np.ndarray  # (N, 2)
    target: np.ndarray | None
    predictions: np.ndarray  # (K, N), K as the columns name them
    presence: np.ndarray | None


@dataclass
class Joined:
    """U samples of several runs."""

    how: Options
    names: list[str]  # of the files
    notes: list[str]
    bad: BadRows
    outside: Outside
    ids: np.ndarray  # (U, 2)
    target: np.ndarray  # (U,), multilabel (U, L + 1)
    presence: np.ndarray | None  # (U, M)
    predictions: np.ndarray  # (K, U), multilabel (K, U, L + 1)
    counted: np.ndarray  # (K, U) bool
    whole: np.ndarray  # (U,) bool: target and presence are known
    columns: Columns

    @property
    def rows(self) -> int:
        """U, those that are left out included."""
        return len(self.ids)

    def parts(self, block_rows: int) -> Iterator[Coded]:
        """The samples that can be counted, a block at a time."""
        for start in range(0, self.rows, block_rows):
            at = np.arange(start, min(start + block_rows, self.rows))[self.whole[start : start + block_rows]]
            yield Coded(
                at, self.ids[at, 0], None, self.target[at].astype(np.int64), self.predictions[:, at].astype(np.int64),
                None if self.presence is None else self.presence[at] != 0, self.counted[:, at],
            )  # fmt: skip


def join(how: Options, files_of: Iterable[tuple[str, FilePath]], files: Sequence[FilePath] = ()) -> Joined:
    """As `Predictions.score_runs`."""
    plan = list(_plan(how, files_of, files))
    notes: list[str] = []
    if how.correct is None and not any(columns.target for _, columns in plan):
        raise ValueError(f"no file has a column {how.target!r}: --target NAME says which, or add the file that has it")
    known = {name for _, columns in plan for name in columns.presence}
    if missing := [name for name in how.modalities if name not in known]:
        notes.append(f"No presence column for {', '.join(missing)}: taken as present in every sample.")
    how = with_classes(how, [(source, columns.target) for source, columns in plan], notes)
    bad, outside = BadRows(how.skip_bad), Outside()
    runs = [_read(how, source, columns, bad, outside) for source, columns in plan]
    at, ids = _joined(runs)
    U = len(ids)
    target = _agreed([(run, at[i], run.target) for i, run in enumerate(runs)], U, "target")
    presence = _agreed([(run, at[i], run.presence) for i, run in enumerate(runs)], U, "presence")
    if how.answers.names == JUDGED:
        target = np.zeros(U, dtype=np.int32)
    assert target is not None
    masks = sorted(mask for _, columns in plan for mask in columns.predictions)
    predictions = np.zeros((len(masks), *target.shape), dtype=np.int32)
    counted = np.zeros((len(masks), U), dtype=bool)
    for i, run in enumerate(runs):
        for row, mask in enumerate(run.columns.predictions):
            k = masks.index(mask)
            predictions[k, at[i]], counted[k, at[i]] = run.predictions[row], True
            if lost := U - len(at[i]):
                notes.append(
                    f"{how.modalities.name(mask)}: {lost:,} of {U:,} ids have no answer in {run.source.name}; "
                    "its scores are over the others."
                )
    whole = target.reshape(U, -1)[:, 0] >= 0
    if presence is not None:
        whole &= presence[:, 0] >= 0
    if lost := U - int(whole.sum()):
        notes.append(f"{lost:,} of {U:,} ids are left out, as no file gives their target, or their presence.")
    columns = Columns(None, {}, dict.fromkeys(masks, how.prediction), how.id)
    names = [run.source.name for run in runs]
    return Joined(how, names, notes, bad, outside, ids, target, presence, predictions, counted, whole, columns)


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
        yield source, Columns(target, presence, predictions, how.id)


def _read(how: Options, source: Source, columns: Columns, bad: BadRows, outside: Outside) -> _Run:
    parts = []
    for block in source.blocks(columns.wanted, bad.unreadable(source), how.block_rows):
        part, problems = coded(block, columns, how, 0, outside)
        bad.add(source, problems)
        parts.append(part)
    small = np.int8 if how.kind.by_label else np.int32
    target = [part.target.astype(small) for part in parts if part.target is not None]
    presence = [part.presence.astype(np.int8) for part in parts if part.presence is not None]
    return _Run(
        source, columns, np.concatenate([part.rows for part in parts]),
        np.concatenate([part.ids for part in parts if part.ids is not None]),
        np.concatenate(target) if columns.target else None,
        np.concatenate([part.predictions.astype(small) for part in parts], axis=1),
        np.concatenate(presence) if presence else None,
    )  # fmt: skip


def _joined(runs: list[_Run]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where each source's rows are among the ``(U, 2)`` different ids, which come out sorted."""
    ids = np.concatenate([run.ids for run in runs])
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    new = np.ones(len(ids), dtype=bool)
    new[1:] = (ids[order[1:]] != ids[order[:-1]]).any(1)
    at = np.empty(len(ids), dtype=np.int64)
    at[order] = np.cumsum(new) - 1
    splits = np.split(at, np.cumsum([len(run.ids) for run in runs])[:-1])
    for run, part in zip(runs, splits, strict=True):
        _, first = np.unique(part, return_index=True)
        if len(first) < len(part):
            again = int(np.setdiff1d(np.arange(len(part)), first)[0])
            before = int(np.flatnonzero(part == part[again])[0])
            raise ValueError(
                f"{run.source.name}, {run.source.place(int(run.rows[again]))}: its id came before, in "
                f"{run.source.place(int(run.rows[before]))}: every id once"
            )
    return splits, ids[order[new]]


def _agreed(parts: list[tuple[_Run, np.ndarray, np.ndarray | None]], U: int, what: str) -> np.ndarray | None:
    """One value a sample from the files that give it, -1 where none does; ValueError where two differ."""
    result = None
    for run, at, values in parts:
        if values is None:
            continue
        if result is None:
            result = np.full((U, *values.shape[1:]), -1, dtype=values.dtype)
        known, fresh = result[at].reshape(len(at), -1), values.reshape(len(at), -1)
        differ = ((known >= 0) & (known != fresh)).any(1)
        if differ.any():
            place = run.source.place(int(run.rows[differ.argmax()]))
            raise ValueError(f"{run.source.name}, {place}: its {what} is another than in a file before")
        result[at] = values
    return result
