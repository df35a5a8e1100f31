"""Which sample of the data set is which row of a batch: global numbers, and the copies a distributed sampler adds.

``DistributedSampler`` gives rank r of R the positions r, r + R, r + 2R, … and, unless it drops the last, fills up with
copies of the first samples, so that all ranks get equally many: a global position beyond the data set is a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler

from mm_metrics.streams import kept_streams


class GlobalIndex:
    """Numbers the rows of one loader's batches, in the order they come, on any number of ranks.

    The number is the position in the sampler's order, which for an unshuffled loader is the position in the data set.
    """

    def __init__(self, loader: Any, rank: int, world_size: int, say: Callable[[str], None]) -> None:
        self.seen = 0
        self.rank, self.world_size = 0, 1
        self.length: int | None = None
        self.known = world_size == 1
        batch_sampler = getattr(loader, "batch_sampler", None)
        sampler = getattr(batch_sampler, "sampler", None) or getattr(loader, "sampler", None)
        shuffled = isinstance(sampler, RandomSampler)
        if world_size > 1 and isinstance(sampler, DistributedSampler) and _keeps_order(batch_sampler, sampler):
            self.rank, self.world_size = sampler.rank, sampler.num_replicas
            self.length = len(sampler.dataset)  # type: ignore[arg-type]
            self.known = True
            shuffled = sampler.shuffle
        elif world_size > 1:
            say(
                f"the loader's {type(sampler).__name__} is not one whose order is known on {world_size} ranks: samples "
                "that it repeats are counted twice, and intervals depend on the number of ranks; use DistributedSampler"
            )
        if shuffled:
            say("the validation loader shuffles: sample numbers are positions in its order; use shuffle=False")

    def __call__(self, N: int, device: torch.device) -> tuple[Tensor | None, int]:
        """The numbers of the next N rows, None where unknown, less the copies; and how many that leaves, first n."""
        start, self.seen = self.seen, self.seen + N
        if not self.known:
            return None, N
        if self.length is not None:
            beyond = -(-(self.length - self.rank) // self.world_size)  # the first position on this rank that is a copy
            N = max(0, min(N, beyond - start))
        return torch.arange(start, start + N, device=device) * self.world_size + self.rank, N


def _keeps_order(batch_sampler: Any, sampler: DistributedSampler) -> bool:
    """Whether batches hold the sampler's samples in its order; one that sorts by length, say, does not."""
    if batch_sampler is None or type(batch_sampler) is BatchSampler:
        return True
    with kept_streams():  # a batch sampler of the user's may draw
        batched = [i for batch in batch_sampler for i in batch]
        return batched == list(sampler)[: len(batched)]
