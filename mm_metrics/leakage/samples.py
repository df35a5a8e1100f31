"""Splits, whatever they are, as one stream of samples in a fixed order, without moving an RNG."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import data
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mm_metrics.leakage.files import PLACE, rows

WHOLE = (data.SequentialSampler, data.RandomSampler, data.WeightedRandomSampler, data.DistributedSampler)
Sample = dict[Hashable, Any]
MISSING = object()


def read(element: object, key: Hashable) -> Any:
    """The entry of a sample or batch: a key of a mapping, a position in a tuple, or an attribute; MISSING if none."""
    if isinstance(element, Mapping):
        return element.get(key, MISSING)
    if isinstance(key, int):
        return element[key] if isinstance(element, Sequence) and -len(element) <= key < len(element) else MISSING
    return getattr(element, str(key), MISSING)


def keys_of(element: object) -> str:
    """What a sample offers, for an error message."""
    if isinstance(element, Mapping):
        return f"keys {sorted(str(key) for key in element if key is not PLACE)}"
    if isinstance(element, Sequence):
        return f"positions 0…{len(element) - 1}"
    return f"attributes of {type(element).__name__}"


Stream = tuple[Iterator[Any], int | None, bool | None]


def streams(source: Any, keys: Collection[Hashable] = ()) -> list[Stream]:
    """The elements of a split, how many samples (None: unknown), and whether elements are batches (None: look).

    A list or mapping of loaders, or a list of manifests, is one split, a stream each. A loader over a map-style data
    set is read in the data set's order, whatever its shuffling, so that sample numbers are the data set's; with a
    sampler of its own, a batch sampler or an iterable data set they are the positions delivered.
    """
    if type(source).__name__ == "CombinedLoader":  # Lightning's; this package does not import it
        source = source.flattened
    parts = list(source.values()) if isinstance(source, Mapping) else source
    if isinstance(parts, list | tuple) and parts and all(isinstance(p, DataLoader | str | os.PathLike) for p in parts):
        return [_stream(part, keys) for part in parts]
    return [_stream(source, keys)]


def _stream(source: Any, keys: Collection[Hashable]) -> Stream:
    if isinstance(source, str | os.PathLike):
        return rows(source, keys), None, False
    if isinstance(source, Mapping):
        return iter([source]), None, True
    if hasattr(source, "to_pylist") or hasattr(source, "iloc"):  # a table of pyarrow's or pandas'
        records = source.to_pylist() if hasattr(source, "to_pylist") else source.to_dict("records")
        return iter(records), len(source), False
    if isinstance(source, DataLoader):
        return _loader(source)
    by_number = isinstance(source, Dataset) and not isinstance(source, IterableDataset)
    by_number = by_number or (hasattr(source, "__getitem__") and not isinstance(source, Iterable))
    if by_number and hasattr(source, "__len__"):
        return (source[i] for i in range(len(source))), len(source), False
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise TypeError(
            "a split is a data set, a DataLoader, a table, a manifest's path or an iterable of samples or batches, "
            f"got {type(source).__name__}"
        )
    return iter(source), None, None


def _loader(loader: DataLoader) -> Stream:
    dataset, sampler = loader.dataset, loader.sampler
    plain = not isinstance(dataset, IterableDataset) and type(loader.batch_sampler) in (data.BatchSampler, type(None))
    if plain and isinstance(sampler, data.SubsetRandomSampler):
        dataset = data.Subset(dataset, list(sampler.indices))
    elif not plain or not isinstance(sampler, WHOLE):
        return iter(loader), None, None if loader.batch_size is None and loader.batch_sampler is None else True
    batched = loader.batch_sampler is not None and loader.collate_fn is not data.default_collate
    in_order: DataLoader = DataLoader(
        dataset,
        batch_size=loader.batch_size or 64,
        # default collation is left out: it would only stack what is taken apart again
        collate_fn=loader.collate_fn if batched else list,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),
    )
    if batched:
        return iter(in_order), len(dataset), True  # type: ignore[arg-type]
    return (sample for samples in in_order for sample in samples), len(dataset), False  # type: ignore[arg-type]


def depth(value: Any) -> int:
    """How many dimensions an entry has; a string counts as one, a picture as three."""
    if isinstance(value, str | bytes):
        return 1
    if isinstance(value, list | tuple):
        return 1 + depth(value[0]) if value else 1
    return 3 if hasattr(value, "getbands") else getattr(value, "ndim", 0)


def is_batch(element: Any, inputs: Iterable[Hashable], target: Hashable | None) -> bool:
    """Whether an element of an iterable is a batch: every entry leads with one and the same number of samples.

    A batch's inputs have at least two dimensions (a list of strings too), and its target one; without a target only
    shapes that no single input has are taken as a batch: two dimensions of integers, or four.

    >>> is_batch({"x": torch.zeros(8, 100), "label": torch.zeros(8)}, ["x"], "label")
    True
    >>> is_batch({"x": torch.zeros(8, 100), "label": 3}, ["x"], "label")
    False
    """
    values = [value for key in inputs if (value := read(element, key)) is not MISSING and value is not None]
    if not values or any(depth(value) < 2 for value in values):
        return False
    label = read(element, target) if target is not None else MISSING
    if label is MISSING and len(values) == 1:
        lone = values[0]
        floats = torch.is_floating_point(lone) if isinstance(lone, torch.Tensor) else np.asarray(lone).dtype.kind == "f"
        return depth(lone) >= 4 or (depth(lone) == 2 and not floats)
    if label is not MISSING:
        values.append(label)
    return all(depth(value) >= 1 and len(value) == len(values[0]) for value in values)


def each_sample(
    elements: Iterator[Any],
    keys: Sequence[Hashable],
    batched: bool | None,
    inputs: Sequence[Hashable],
    target: Hashable,
) -> Iterator[Sample]:
    """Every sample as a dict of the keys that are read, a batch taken apart."""
    for element in elements:
        if batched is None:
            batched = is_batch(element, inputs, target)
        found = {key: value for key in keys if (value := read(element, key)) is not MISSING}
        if not batched:
            yield found
            continue
        # one conversion a batch instead of one a sample
        found = {
            key: value.detach().cpu() if isinstance(value, torch.Tensor) else value for key, value in found.items()
        }
        sizes = {key: len(found[key]) for key in inputs if key in found}
        if len(set(sizes.values())) != 1:
            raise ValueError(
                f"a batch's inputs have the lengths {sizes}, expected one number of samples; where elements are single "
                "samples, say batched=False"
            )
        for i in range(next(iter(sizes.values()))):
            yield {key: _row(value, i) for key, value in found.items()}


def _row(value: Any, i: int) -> Any:
    return {name: column[i] for name, column in value.items()} if isinstance(value, Mapping) else value[i]
