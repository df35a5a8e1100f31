"""Running means of the float inputs over the training batches, for the baseline ``"mean"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.baselines import total


class RunningMeans:
    """The sum and the number of samples of each input, one sample's shape, in double precision.

    >>> import torch
    >>> means = RunningMeans()
    >>> means.add("pixels", torch.tensor([[1.0], [3.0]]), torch.tensor([True, True]))
    >>> means.means()
    {'pixels': tensor([2.], dtype=torch.float64)}
    """

    def __init__(self) -> None:
        self.sums: dict[Any, Tensor] = {}
        self.counts: dict[Any, Tensor] = {}
        self.uneven: set[Any] = set()

    def add(self, key: Any, x: Tensor, there: Tensor) -> None:
        """Add a batch ``(N, ...)``; an input whose samples change their shape has no mean from then on."""
        x = x.detach()
        if key not in self.sums:
            self.sums[key] = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
            self.counts[key] = torch.zeros((), dtype=torch.float64, device=x.device)
        if self.sums[key].shape != x.shape[1:]:
            self.uneven.add(key)
        elif key not in self.uneven:
            self.sums[key] = self.sums[key] + total(x, there)
            self.counts[key] = self.counts[key] + there.sum()

    def means(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> dict[Any, Tensor]:
        """One sample's mean by key; ``all_reduce`` gives a tensor's sum over the ranks, which all call this."""
        reduce = all_reduce or (lambda tensor: tensor)
        keys = sorted(self.sums, key=str)
        if not keys:
            return {}
        uneven = reduce(torch.tensor([float(key in self.uneven) for key in keys], device=self.sums[keys[0]].device))
        found = {}
        for key, broken in zip(keys, uneven.tolist(), strict=True):
            if broken:
                continue
            both = reduce(torch.cat([self.sums[key].reshape(-1), self.counts[key].reshape(1)]))
            found[key] = both[:-1].reshape(self.sums[key].shape) / both[-1].clamp(min=1)
        return found
