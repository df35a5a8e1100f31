"""Which sample of the data set is which row of a batch: global numbers, and the copies a distributed sampler adds.

``DistributedSampler`` gives rank r of R the positions r, r + R, r + 2R, …; accelerate gives it every R-th batch, or the
r-th part of each batch. Unless they drop the last, both fill up with copies of the first samples, so that all ranks get
equally many: a global position beyond the data set is a copy.

for batch, index in numbered(val_loader):
    metric.update(ablation(batch), batch["label"], index=index)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import BatchSampler, DistributedSampler, IterableDataset, RandomSampler

from mm_metrics.streams import kept_streams


def numbered(loader: Any, device: Any = "cpu") -> Iterator[tuple[Any, Tensor]]:
    """Each batch of a loader with its samples' numbers ``(N,)`` in the whole data set, −1 for a sampler's copies.

    A metric counts no sample of number −1, so that all ranks together count each sample once, and its intervals are
    equal on any number of ranks. Understands ``DistributedSampler`` and what accelerate makes of a loader.

    Raises ValueError for a loader whose order on several ranks is not known.

    >>> from torch.utils.data import DataLoader, DistributedSampler
    >>> ranks = [DistributedSampler(range(3), num_replicas=2, rank=rank, shuffle=False) for rank in (0, 1)]
    >>> [index.tolist() for rank in ranks for _, index in numbered(DataLoader(range(3), 2, sampler=rank))]
    [[0, 2], [1, -1]]
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    if batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            "loader has no batch sampler, so its samples have no numbers: use one over a map-style data set"
        )
    sampler = getattr(batch_sampler, "sampler", None)
    ready = dist.is_available() and dist.is_initialized()
    alone = getattr(sampler, "rank", 0), getattr(sampler, "num_replicas", 1)
    ranks = (dist.get_rank(), dist.get_world_size()) if ready else alone
    said: list[str] = []
    index = GlobalIndex(loader, *ranks, said.append)
    if not index.known:
        raise ValueError(said[0])
    for message in said:
        warnings.warn(message, stacklevel=2)
    with kept_streams():  # a sampler may draw
        sizes = [len(batch) for batch in batch_sampler]
    for batch, N in zip(loader, sizes, strict=True):
        numbers, n = index(N, torch.device(device))
        assert numbers is not None
        yield batch, pad(numbers, (0, N - n), value=-1)  # (N,)


class GlobalIndex:
    """Numbers the rows of one loader's batches, in the order they come, on any number of ranks.

    The number is the position in the sampler's order, which for an unshuffled loader is the position in the data set.
    """

    def __init__(self, loader: Any, rank: int, world_size: int, say: Callable[[str], None]) -> None:
        self.seen = self.batches = 0
        self.length: int | None = None  # samples, where the sampler may have added copies
        self.first, self.step, self.stride = 0, 1, 0  # the first number, from row to row, and from batch to batch
        self.known = True
        batch_sampler: Any = getattr(loader, "batch_sampler", None)
        shard = type(batch_sampler).__name__ == "BatchSamplerShard"  # of accelerate, which need not be installed
        inner = batch_sampler.batch_sampler if shard else batch_sampler
        sampler: Any = getattr(inner, "sampler", None) or getattr(loader, "sampler", None)
        shuffled = isinstance(sampler, RandomSampler)
        if shard and inner.batch_size and _keeps_order(inner, sampler):
            R, r, B = batch_sampler.num_processes, batch_sampler.process_index, inner.batch_size
            self.first, self.stride = (r * B // R, B) if batch_sampler.split_batches else (r * B, R * B)
            self.length = len(sampler)
        elif not shard and _is_known(sampler, rank, world_size) and _keeps_order(batch_sampler, sampler):
            self.first, self.step = sampler.rank, sampler.num_replicas
            self.length = len(sampler.dataset)
            shuffled = sampler.shuffle
        elif world_size > 1:
            self.known = False
            say(
                f"the loader's {type(sampler).__name__} is not one whose order is known on {world_size} ranks, or is "
                "not made for them: samples that it repeats are counted twice, and intervals depend on the number of "
                "ranks; use DistributedSampler"
            )
        if shuffled:
            say("the validation loader shuffles: sample numbers are positions in its order; use shuffle=False")

    def __call__(self, N: int, device: torch.device) -> tuple[Tensor | None, int]:
        """The numbers of the next N rows, None where unknown, less the copies; and how many that leaves, first n."""
        if not self.known:
            return None, N
        start = self.first + (self.batches * self.stride if self.stride else self.seen * self.step)
        self.seen, self.batches = self.seen + N, self.batches + 1
        if self.length is not None:
            N = max(0, min(N, -(-(self.length - start) // self.step)))  # what lies beyond is a copy
        return torch.arange(start, start + N * self.step, self.step, device=device), N


def _is_known(sampler: Any, rank: int, world_size: int) -> bool:
    """Whether positions follow from a sampler's class, and it is made for these ranks; not one that sorts, say."""
    if not isinstance(sampler, DistributedSampler) or (sampler.rank, sampler.num_replicas) != (rank, world_size):
        return False
    home = type(sampler).__iter__.__module__.split(".")[0]
    return home in ("torch", "lightning", "pytorch_lightning", "lightning_fabric")


def _keeps_order(batch_sampler: Any, sampler: Any) -> bool:
    """Whether batches hold the sampler's samples in its order; one that sorts by length, say, does not."""
    if batch_sampler is None or type(batch_sampler) is BatchSampler:
        return True
    with kept_streams():  # a batch sampler of the user's may draw
        batched = [i for batch in batch_sampler for i in batch]
        return batched == list(sampler)[: len(batched)]
