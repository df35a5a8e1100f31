"""Many files on several processes or machines by Ray Data: the same functions, and the same integers, as on one.

A file, or a million rows' worth of row groups of Parquet, is one piece of work. A worker that dies costs that piece
another try and nothing else, as a piece's counts are added when it is done, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from mm_metrics.predictions.classes import Found, Seen
from mm_metrics.predictions.columns import Columns
from mm_metrics.predictions.options import Options
from mm_metrics.predictions.score import Counting, Scored, prepared
from mm_metrics.predictions.strays import BadRows, Ids, Outside
from mm_metrics.tables.source import FilePath, Source
from mm_metrics.workers import cluster, results

ROWS_AT_ONCE = 1_000_000  # of a Parquet file, at least


def score_files(how: Options, files: Sequence[FilePath], workers: int | None = None) -> Scored:
    """As `Predictions.score_files`, by Ray: on the cluster that it is connected to, else on `workers` local processes.

    Every worker must see the files under the same paths. Raises ValueError as on one machine, ImportError without Ray.
    """
    sources, columns, notes = prepared(how, files)
    pieces = [(number, part) for number, source in enumerate(sources) for part in source.split(ROWS_AT_ONCE)]
    names = [part.name for _, part in pieces]
    ends, firsts = [0] * len(sources), [0] * len(sources)
    with cluster(workers) as data:
        if not how.complete or (how.bootstrap and how.id is None):  # a row's weights follow from its number
            found = Found(how)
            looks = results(data, partial(_look, how, columns), [(part,) for _, part in pieces], names)
            for i, (end, *seen) in sorted(looks, key=lambda look: look[0]):
                found.update(seen)
                ends[pieces[i][0]] = end
            firsts = [sum(ends[:number]) for number in range(len(sources))]
            how = how if how.complete else found.options(how, notes)
        counting = Counting(how, columns)
        work = [(part, firsts[number]) for number, part in pieces]
        others = {}
        for i, (counts, *seen, end) in results(data, partial(_count, how, columns), work, names):
            counting.counter.counts.add_(counts)
            others[i] = seen
            ends[pieces[i][0]] = max(ends[pieces[i][0]], end)
    for i in sorted(others):
        bad, outside, ids = others[i]
        counting.bad.update(bad)
        counting.outside.update(outside)
        counting.ids.parts += ids.parts
    counting.rows = sum(ends)
    return counting.scored(sources, notes)


def _look(how: Options, columns: Columns, source: Source) -> tuple[int, Seen, dict[str, Seen], BadRows]:
    found = Found(how)
    found.file(source, columns)
    return found.rows, found.labels, found.values, found.bad


def _count(how: Options, columns: Columns, source: Source, first: int) -> tuple[Tensor, BadRows, Outside, Ids, int]:
    counting = Counting(how, columns)
    counting.file(source, first)
    return counting.counter.counts, counting.bad, counting.outside, counting.ids, counting.rows - first
