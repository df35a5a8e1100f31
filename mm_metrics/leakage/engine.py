"""Splits read by many processes, on Ray Data: parts of samples to fingerprints, then one comparison, as on one machine.

splits ─┬ train  0…2047     ┐
├ train  2048…4095  ├ map_batches: fingerprint, one task a part, run again where a worker dies
└ test   0…2047     ┘  → Fingerprints, a few numbers a sample → added up in the order of the samples
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Subset

from mm_metrics.extras import install
from mm_metrics.leakage.files import rows
from mm_metrics.leakage.fingerprints import Fingerprints, Plan, fingerprint

PART = 2048  # samples a task: what bounds a worker's memory


class Part(NamedTuple):
    """Samples ``start`` to ``stop`` of a source, itself one of a split's."""

    split: str
    source: int  # its position among all sources
    before: int  # samples of the split that come before this source
    start: int
    stop: int


def on_ray(splits: Mapping[str, Any], plan: Plan) -> dict[str, Fingerprints]:
    """The fingerprints of every split; raises what a part raises, the first one's.

    A split is a manifest, a list of manifests, or a data set by number; all else has no parts, and is refused.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"engine='ray' needs Ray: {install('ray')}") from error
    sources = {name: _sources(name, split) for name, split in splits.items()}
    parts = list(_parts(sources, plan))
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    lent = [ray.put(source) for several in sources.values() for source in several]
    found: dict[int, tuple[Any, dict[str, str]]] = {}
    again = list(range(len(parts)))
    while again:  # once; and again for parts whose first sample is of another kind than the split's
        read: Any = ray.data.from_items([{"part": number} for number in again], override_num_blocks=len(again))
        read = read.map_batches(_read, batch_size=1, fn_kwargs={"parts": parts, "plan": plan, "lent": lent})
        found |= {row["part"]: pickle.loads(row["found"]) for row in read.iter_rows()}
        for _, kinds in (found[number] for number in range(len(parts))):
            plan.kinds.update({modality: kind for modality, kind in kinds.items() if modality not in plan.kinds})
        again = [number for number in again if not found[number][1].items() <= plan.kinds.items()]
    for number in range(len(parts)):
        if isinstance(found[number][0], Exception):
            raise found[number][0]
    prints = {name: [found[n][0] for n, part in enumerate(parts) if part.split == name] for name in splits}
    return {name: reduce(add, several or [_of(name, [], plan, 0)]) for name, several in prints.items()}


def _sources(name: str, split: Any) -> list[Any]:
    several = split if isinstance(split, list | tuple) else [split]
    if all(isinstance(source, str | os.PathLike) for source in several):
        return [os.path.abspath(source) for source in several]  # workers may run elsewhere
    if hasattr(split, "__getitem__") and hasattr(split, "__len__") and not isinstance(split, Mapping | str):
        return [split]
    raise TypeError(f"split {name!r} is a {type(split).__name__}: engine='ray' takes manifests and data sets by number")


def _parts(sources: Mapping[str, list[Any]], plan: Plan) -> Iterator[Part]:
    number = 0
    for name, several in sources.items():
        before = 0
        for source in several:
            by_row = isinstance(source, str | os.PathLike)
            length = sum(1 for _ in rows(source, plan.keys)) if by_row else len(source)
            for start in range(0, length, PART):
                yield Part(name, number, before, start, min(start + PART, length))
            before += length
            number += 1


def _read(batch: dict[str, np.ndarray], parts: list[Part], plan: Plan, lent: list[Any]) -> dict[str, Any]:
    """Parts to their fingerprints and the kinds seen; or to the error that they make."""
    import ray

    found: list[Any] = []
    for part in (parts[number] for number in batch["part"]):
        source = ray.get(lent[part.source])
        if isinstance(source, str | os.PathLike):
            samples: Any = islice(rows(source, plan.keys), part.start, part.stop)
        else:
            samples = Subset(source, range(part.start, part.stop))
        own = replace(plan, kinds=dict(plan.kinds), batched=False)
        try:
            found.append((_of(part.split, samples, own, part.before + part.start), own.kinds))
        except (TypeError, ValueError, ImportError) as error:
            found.append((error, own.kinds))
    return {"part": batch["part"], "found": [pickle.dumps(what) for what in found]}


def _of(name: str, samples: Any, plan: Plan, start: int) -> Fingerprints:
    return fingerprint(name, samples, plan, lambda elements, total: elements, start)
