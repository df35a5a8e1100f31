"""The same few samples of a loader's data set, epoch after epoch and on any number of ranks, read without a trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler
from torch.utils.data import SequentialSampler as Sequential

from mm_metrics.ablation.batch import copied, rebuilt
from mm_metrics.ablation.untouched import untouched

BATCH_SIZE = 32  # where a loader does not say


class FixedSubset:
    """Up to `samples` samples of a loader: drawn from its data set by `seed`, else its first batches.

    The data set is read by index and through the loader's ``collate_fn`` in a process of its own, so that neither
    samplers, streams nor the data set itself notice. Where that can't be done, `keep` is given the first batches.
    """

    def __init__(self, samples: int, seed: int, say: Callable[[str], None]) -> None:
        self.samples, self.seed, self.say = samples, seed, say
        self.kept = 0  # samples of `keep`
        self.readable: bool | None = None  # None: not looked at yet
        self._host: list[Any] = []  # as collated
        self._seen: list[Any] = []  # as a step got them

    def read(self, loader: Any, within: int | None = None) -> bool:
        """Read the samples, from the data set's first `within` where given; False where it can't be indexed."""
        if self.readable is None:
            why = _unreadable(loader)
            if not why:
                try:
                    self._host = self._collated(loader, within)
                except Exception as error:  # of the data set in another process, or of getting it there
                    first = str(error).strip().splitlines()[-1:] or [""]
                    why = f"its data set can't be read by number ({type(error).__name__}: {first[0]})"
            if why:
                self.say(
                    f"{why}: the first {self.samples} samples that come are the ones that dynamics are measured on"
                )
            self.readable = not why
        return self.readable

    @property
    def wanting(self) -> bool:
        """Whether batches are to be kept."""
        return self.readable is False and self.kept < self.samples

    def keep(self, batch: Any, N: int) -> None:
        """Take a batch of N samples, as it was given to a step; no stall."""
        self._seen.append(copied(batch))
        self.kept += N

    def batches(self, trainer: Any, pl_module: Any) -> Iterator[Any]:
        """The samples in batches, on the module's device, as a step would get them."""
        self._seen = [_moved(batch, "cpu") for batch in self._seen]
        for batch in self._seen:
            yield _moved(batch, pl_module.device)
        for batch in self._host:
            with untouched(pl_module, None), torch.no_grad():
                torch.default_generator.manual_seed(self.seed)  # the transfer's hooks may draw
                batch = trainer.precision_plugin.convert_input(copied(batch))
                batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            yield batch

    def _collated(self, loader: DataLoader, within: int | None) -> list[Any]:
        length = len(loader.dataset)  # type: ignore[arg-type]
        length = length if within is None else min(length, within)
        n = min(self.samples, length)
        numbers = np.sort(np.random.default_rng(self.seed).choice(length, n, replace=False)).tolist()
        # Batches of nearly equal size: a last one of a single sample would be another form of input.
        parts = np.array_split(np.array(numbers, dtype=int), max(1, -(-n // (loader.batch_size or BATCH_SIZE))))
        # A worker's streams are seeded by the generator, so random transforms give every rank the same.
        reader = DataLoader(
            loader.dataset,
            batch_sampler=[part.tolist() for part in parts if len(part)],
            num_workers=1,
            collate_fn=loader.collate_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator().manual_seed(self.seed),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking, which is the user's loaders' way too
            return [copied(batch) for batch in reader]  # out of the memory that is shared with the worker


def _moved(batch: Any, device: Any) -> Any:
    return rebuilt(batch, lambda path, leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)


def _unreadable(loader: Any) -> str:
    """Why a loader's samples can't be read by number, empty where they can."""
    if not isinstance(loader, DataLoader):
        return f"{type(loader).__name__} is no DataLoader"
    dataset, sampler = loader.dataset, loader.sampler
    batch_sampler: Any = loader.batch_sampler
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        return f"{type(dataset).__name__} is read in order alone"
    while hasattr(batch_sampler, "batch_sampler"):  # Lightning's wrapper
        batch_sampler = batch_sampler.batch_sampler
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        return f"{type(batch_sampler).__name__} may leave samples of the data set out"
    source = getattr(sampler, "dataset" if isinstance(sampler, DistributedSampler) else "data_source", None)
    if not isinstance(sampler, Sequential | RandomSampler | DistributedSampler) or source is not dataset:
        return f"{type(sampler).__name__} may leave samples of the data set out"
    return ""
