"""Pieces of work on several processes or machines, by Ray Data; a worker that dies costs its piece a second try."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from mm_metrics.extras import install


def results(data: Any, function: Callable[..., Any], work: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Each piece's number with ``function(*piece)``, in any order; `data` is what `cluster` gives.

    Raises the ValueError of the first piece that has one, once all are done.
    """
    items = data.from_items([{"piece": i} for i in range(len(work))], override_num_blocks=len(work))
    failed = {}
    for row in items.map(partial(_run, function, work)).iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, ValueError):
            failed[row["piece"]] = result
        else:
            yield row["piece"], result
    if failed:
        raise failed[min(failed)]


def _run(function: Callable[..., Any], work: Sequence[tuple[Any, ...]], row: dict[str, int]) -> dict[str, Any]:
    try:
        result = function(*work[row["piece"]])
    except ValueError as error:  # a file's fault is no worker's, which would be tried again
        result = ValueError(str(error))
    return {"piece": row["piece"], "result": pickle.dumps(result)}


@contextmanager
def cluster(workers: int | None = None) -> Iterator[Any]:
    """`ray.data`, on a cluster that is already there, or on one of this machine's that goes when it is done."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import data
    except ImportError:
        raise ImportError(f"--engine ray needs Ray: {install('ray')}") from None
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
