"""Files or blocks of predictions to a scorecard: which columns and classes there are, then one pass that counts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm_metrics.cells import unused_group
from mm_metrics.predictions.classes import Found, completed
from mm_metrics.predictions.columns import Columns, shown
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.rows import card_of, coded, count, metric
from mm_metrics.predictions.runs import Joined, join
from mm_metrics.predictions.strays import BadRows, Ids, Outside
from mm_metrics.scorecard import Scorecard
from mm_metrics.tables.source import Block, FilePath, Source


class Scored(NamedTuple):
    """A scorecard, and what a reader of it has to know, one sentence each."""

    card: Scorecard
    notes: list[str]


class Predictions(Options):
    """Files of predictions to scorecards; the arguments are those of `mm_metrics.predictions.options.Options`.

    >>> how = Predictions(("text", "audio"), classes=("flood", "siren"), bootstrap=0)
    >>> rows = {"target": ["flood", "siren"], "prediction": ["flood", "don't know"], "presence_audio": [0, 1]}
    >>> card = how.score_rows(rows)
    >>> card.score("accuracy"), card.score("accuracy", slice="audio"), card.score("recall")
    (0.5, 0.0, 0.5)
    """

    def score_rows(self, rows: Any, first: int = 0) -> Scorecard:
        """A block of rows to a scorecard; cards of several blocks add up, so that any engine can map this.

        `rows` is a mapping from column to list, array or pyarrow array, or a pyarrow batch or table; `first` the
        number of its first row among all rows, so that blocks do not share bootstrap weights. Raises ValueError for
        cells that can't be read, `skip_bad` or not.
        """
        counting = Counting(replace(self, skip_bad=False), self.columns(_names(rows)))
        counting.block(rows, first)
        counting.ids.refuse_twice()
        # Blocks may well hold equal counts: what tells them apart is where they begin.
        return card_of(counting.counter, self, {}, part=f"{first}:{counting.rows}")

    def score_files(self, files: Sequence[FilePath]) -> Scored:
        """Files to one scorecard, in one pass, or two where the classes have to be found; rows are numbered through.

        Raises ValueError for what can't be read, naming file, line and column.
        """
        sources, columns, notes = prepared(self, files)
        how = completed(self, [(source, columns) for source in sources], notes)
        counting = Counting(how, columns)
        for source in sources:
            counting.file(source, counting.rows)
        return counting.scored(sources, notes)

    def score_runs(self, runs: Iterable[tuple[str, FilePath]], files: Sequence[FilePath] = ()) -> Scored:
        """Runs that were each shown one coalition, ``(coalition, file)``, joined by `id` to one scorecard.

        Targets and presence come from the runs or from further `files`. Raises ValueError for what can't be read, an
        id twice in a file, and files that do not agree on a sample.
        """
        joined = join(self, runs, files)
        counting = Counting(joined.how, joined.columns)
        counting.joined(joined)
        return counting.scored(joined.sources, joined.notes)


def score_blocks(blocks: Iterable[Any], options: Options) -> Scorecard:
    """Blocks of rows, in order, to the one scorecard of them all: what any engine or database can hand over.

    `blocks` are pyarrow tables or batches, or mappings from column to ``(N,)`` cells; one is in memory at a time. Where
    `options` name no classes, blocks that can be walked twice are. Raises ValueError for cells that can't be read.

    >>> options = Options(("text", "audio"), classes=("flood", "siren"), bootstrap=0)
    >>> blocks = ({"target": [name], "prediction": ["siren"]} for name in ("flood", "siren", "siren"))
    >>> score_blocks(blocks, options).confusion()
    tensor([[0, 1],
            [0, 2]])
    """
    if not options.complete and not isinstance(blocks, Iterator):
        found = Found(options)
        for block in blocks:
            columns = options.columns(_names(block))
            N = len(block[columns.wanted[0]])
            found.block(block, columns, None, np.arange(found.rows, found.rows + N))
            found.rows += N
        options = found.options(options, []) if found.rows else options
    counting = None
    for block in blocks:
        columns = options.columns(_names(block))
        if counting is None:
            counting = Counting(options, columns)
        elif columns != counting.columns:
            raise ValueError(
                f"block at row {counting.rows}: its columns are {shown(columns.wanted)}, the first "
                f"block's {shown(counting.columns.wanted)}"
            )
        counting.block(block, counting.rows)
    if counting is None:
        raise ValueError("blocks is empty: at least one is due")
    return counting.scored([], []).card


class Counting:
    """Counts of rows, file by file or block by block, with what could not be read."""

    def __init__(self, how: Options, columns: Columns) -> None:
        self.how, self.columns, self.rows = how, columns, 0
        self.counter = metric(how, tuple(columns.predictions))
        self.bad, self.outside, self.ids = BadRows(how.skip_bad), Outside(), Ids(how.id)

    def file(self, source: Source, first: int) -> None:
        """Count a file whose first row has a number among all rows."""
        end = 0
        for block in source.blocks(self.columns.wanted, self.bad.unreadable(source), self.how.block_rows):
            self._add(block, source, first)
            end = block.end
        self.rows = first + end

    def block(self, rows: Any, first: int) -> None:
        """Count a block in memory."""
        table = {name: rows[name] for name in self.columns.wanted}
        sizes = {len(cells) for cells in table.values()}
        if len(sizes) > 1:
            raise ValueError(f"rows: columns of {sorted(sizes)} cells each")
        N = sizes.pop()
        for start in range(0, N, self.how.block_rows):
            end = min(start + self.how.block_rows, N)
            part = {name: cells[start:end] for name, cells in table.items()}
            self._add(Block(np.arange(first + start, first + end), part, first + end), None, 0)
        self.rows = first + N

    def _add(self, block: Block, source: Source | None, first: int) -> None:
        found, problems = coded(block, self.columns, self.how, first, self.outside)
        self.bad.add(source, problems)
        self.ids.add(source, found.rows, found.ids)
        count(self.counter, found, self.how)

    def joined(self, joined: Joined) -> None:
        """Count runs that were joined."""
        self.bad, self.outside, self.rows = joined.bad, joined.outside, joined.rows
        for start in range(0, len(joined.coded.rows), self.how.block_rows):
            count(self.counter, joined.coded.take(slice(start, start + self.how.block_rows)), self.how)

    def scored(self, files: Sequence[Source], notes: list[str]) -> Scored:
        """The card with its notes; ValueError where nothing was counted."""
        self.ids.refuse_twice()
        bad = self.bad.notes()
        if not int(self.counter.layout.view(self.counter.counts, "samples")):
            raise ValueError(f"no row was counted: {bad[0] if bad else 'there is none'}")
        info: dict[str, Any] = {"files": [Path(source.name).name for source in files], "rows": self.rows}
        if self.bad.kinds:
            info["skipped_rows"] = dict(self.bad.kinds)
        if self.bad.answers:
            info["skipped_answers"] = dict(self.bad.answers)
        rest = [name for name in files[0].columns() if name not in self.columns.wanted] if files else []
        if self.how.group is None and (unused := unused_group(rest)):
            info["unused_group"] = unused
        if self.how.headline != "f1":
            info["headline"] = self.how.headline
        card = card_of(self.counter, self.how, info)
        card.named(self.how.headline)  # which refuses one that the counts do not tell
        strays = []
        if self.outside.examples:
            self.outside.check(card)
            strays = [self.outside.said(card)]
        return Scored(card, [*strays, *bad, *notes])


def prepared(how: Options, files: Sequence[FilePath]) -> tuple[list[Source], Columns, list[str]]:
    """The files, the columns that all of them have, and what is to be said."""
    if not files:
        raise ValueError("files is empty: at least one is due")
    notes: list[str] = []
    same = [os.path.realpath(path) for path in files]
    if twice := [path for i, path in enumerate(files) if same[i] in same[:i]]:
        raise ValueError(f"{twice[0]} is named twice, and its rows would count twice: each file once")
    sources = [how.source(path) for path in files]
    columns = how.columns(sources[0].columns(), sources[0].name)
    for source in sources[1:]:
        other = how.columns(source.columns(), source.name)
        if set(other.wanted) != set(columns.wanted):
            different = sorted(set(other.wanted) ^ set(columns.wanted))
            raise ValueError(
                f"{source.name} and {sources[0].name} have different columns: {shown(different)} in one of them only"
            )
    missing = [name for name in how.modalities if name not in columns.presence]
    if missing:
        notes.append(f"No presence column for {', '.join(missing)}: taken as present in every sample.")
    if columns.unread:
        notes.append(f"Not read, as they name no coalition of {how.modalities.names}: {shown(columns.unread)}.")
    return sources, columns, notes


def _names(rows: Any) -> list[str]:
    return list(rows) if isinstance(rows, Mapping) else rows.schema.names
