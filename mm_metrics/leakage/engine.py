"""Splits read by many processes, on Ray Data: parts of samples to fingerprints, then one comparison, as on one machine.

splits ─┬ train  0…2047     ┐
├ train  2048…4095  ├ one task a part, tried again where a worker dies
└ test   0…2047     ┘ → Fingerprints, a few numbers a sample → added up in the order of the samples
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial, reduce
from itertools import islice
from operator import add
from typing import Any, NamedTuple

from torch.utils.data import Subset

from mm_metrics.leakage.files import rows
from mm_metrics.leakage.fingerprints import Fingerprints, Plan, fingerprint
from mm_metrics.workers import cluster, results

SAMPLES = 2048  # of a task, at least: what bounds a worker's memory
MOST = 128  # tasks of a manifest or data set: before each one's rows all that stand before them are read


class Part(NamedTuple):
    """Samples ``start`` to ``stop`` of a manifest or a data set, before which ``before`` of the split's have come."""

    split: str
    source: Any
    before: int
    start: int
    stop: int
    name: str  # for a message


def on_ray(splits: Mapping[str, Any], plan: Plan, workers: int | None) -> dict[str, Fingerprints]:
    """The fingerprints of every split; raises what the first part raises.

    A split is a manifest, a list of manifests, or a data set by number; all else has no parts, and is refused.
    """
    parts = [part for name, split in splits.items() for part in _parts(name, split, plan)]
    found: dict[int, tuple[Any, dict[str, str]]] = {}
    again = list(range(len(parts)))
    with cluster(workers) as data:
        while again:  # once; and again for parts whose first sample is of another kind than the split's
            work = [(parts[number],) for number in again]
            done = results(data, partial(_read, plan), work, [part.name for (part,) in work])
            found |= {again[piece]: result for piece, result in done}
            for number in range(len(parts)):
                plan.kinds.update({name: kind for name, kind in found[number][1].items() if name not in plan.kinds})
            again = [number for number in again if not found[number][1].items() <= plan.kinds.items()]
    for number in range(len(parts)):
        if isinstance(found[number][0], Exception):
            raise found[number][0]
    prints = {name: [found[n][0] for n, part in enumerate(parts) if part.split == name] for name in splits}
    return {name: reduce(add, several or [fingerprint(name, [], plan)]) for name, several in prints.items()}


def _parts(name: str, split: Any, plan: Plan) -> Iterator[Part]:
    several = split if isinstance(split, list | tuple) else [split]
    before = 0
    if not all(isinstance(source, str | os.PathLike) for source in several):
        if isinstance(split, Mapping) or not (hasattr(split, "__getitem__") and hasattr(split, "__len__")):
            got = f"split {name!r} is a {type(split).__name__}"
            raise TypeError(f"{got}: engine='ray' takes manifests and data sets by number")
        several = [split]
    for source in several:
        if isinstance(source, str | os.PathLike):
            source = os.path.abspath(source)  # workers may run elsewhere
            length, what = sum(1 for _ in rows(source, plan.keys)), source
        else:
            length, what = len(source), f"split {name!r}"
        each = max(SAMPLES, -(-length // MOST))
        for start in range(0, length, each):
            stop = min(start + each, length)
            yield Part(name, source, before, start, stop, f"{what}, samples {start} to {stop - 1}")
        before += length


def _read(plan: Plan, part: Part) -> tuple[Fingerprints | Exception, dict[str, str]]:
    """A part's fingerprints, or the error that it makes; and the kinds seen."""
    own = replace(plan, kinds=dict(plan.kinds), batched=False)
    if isinstance(part.source, str):
        samples: Any = islice(rows(part.source, plan.keys, part.start), part.stop - part.start)
    else:
        samples = Subset(part.source, range(part.start, part.stop))
    try:
        return fingerprint(part.split, samples, own, start=part.before + part.start), own.kinds
    except (TypeError, ValueError, ImportError) as error:
        return error, own.kinds
