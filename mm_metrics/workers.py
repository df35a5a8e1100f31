"""Pieces of work on several processes or machines, by Ray Data; a worker that dies costs its piece another try."""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from mm_metrics.extras import needed

TRIES = 4  # of a piece whose workers die, which Ray would begin again without end


def results(
    data: Any, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], names: Sequence[str]
) -> Iterator[tuple[int, Any]]:
    """Each piece's number with ``function(*piece)``, in any order; `data` is what `cluster` gives.

    Raises the ValueError of the first piece that has one, once all are done; one that gives its name where the piece
    ended every worker that began it.
    """
    import ray

    items = data.from_items([{"piece": i} for i in range(len(work))], override_num_blocks=len(work))
    failed, begun = {}, ray.remote(num_cpus=0)(_Begun).remote()
    for row in items.map(partial(_run, function, work, names, begun)).iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, ValueError):
            failed[row["piece"]] = result
        else:
            yield row["piece"], result
    if failed:
        raise failed[min(failed)]


class _Begun:
    """How often each piece was begun, known to a process that none of them ends."""

    def __init__(self) -> None:
        self.times: Counter[int] = Counter()

    def again(self, piece: int) -> int:
        self.times[piece] += 1
        return self.times[piece]


def _run(
    function: Callable[..., Any], work: Sequence[tuple[Any, ...]], names: Sequence[str], begun: Any, row: dict[str, int]
) -> dict[str, Any]:
    import ray

    try:
        if ray.get(begun.again.remote(row["piece"])) > TRIES:
            how = "in a row, by the memory it takes or by what reads it: leave it out, or look without the engine"
            raise ValueError(f"{names[row['piece']]}: it ended {TRIES} workers {how}")
        result = function(*work[row["piece"]])
    except ValueError as error:  # a file's fault is no worker's, which would be tried again
        result = ValueError(str(error))
    return {"piece": row["piece"], "result": pickle.dumps(result)}


@contextmanager
def cluster(workers: int | None = None) -> Iterator[Any]:
    """`ray.data`, on a cluster that is already there, or on one of this machine's that goes when it is done."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needed("ray", "--engine ray needs Ray"):
        import ray
        from ray import data
    began = not ray.is_initialized()
    if began:
        there = "RAY_ADDRESS" in os.environ
        ray.init(num_cpus=None if there else workers, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    try:
        yield data
    finally:
        if began:
            ray.shutdown()
