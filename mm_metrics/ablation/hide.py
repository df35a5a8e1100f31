"""Tensors in which some samples are exchanged for what stands in for them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


@lru_cache(maxsize=256)
def on_device(flags: tuple, device: torch.device) -> Tensor:
    """A table of flags as a tensor, moved to its device once."""
    return torch.tensor(flags, device=device)


def choose(shown: Tensor, x: Tensor, hidden: Tensor, axis: int = 0) -> Tensor:
    """``x`` for the samples that are ``shown`` ``(N,)``, else ``hidden``, which has N samples or one.

    The samples' ``axis`` may hold several rows a sample (N·T, as for frames).

    >>> import torch
    >>> choose(torch.tensor([True, False]), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 9]))
    tensor([1, 2, 0, 9])
    """
    N, T = len(shown), x.shape[axis] // len(shown)
    if T == 1:
        return torch.where(shown.reshape(*[1] * axis, N, *[1] * (x.ndim - axis - 1)), x, hidden)
    mask = shown.reshape(*[1] * axis, N, *[1] * (x.ndim - axis))
    there = hidden.unflatten(axis, (hidden.shape[axis] // T, T))
    return torch.where(mask, x.unflatten(axis, (N, T)), there).flatten(axis, axis + 1)


def choose_packed(packed: PackedSequence, shown: Tensor, hidden: Tensor) -> Tensor:
    """The data of a packed sequence, ``hidden``'s steps for samples that are not ``shown`` ``(N,)``."""
    order = packed.sorted_indices
    owner = torch.cat([torch.arange(int(n), device=shown.device) for n in packed.batch_sizes])
    owner = owner if order is None else order[owner]
    return torch.where(shown[owner].reshape(-1, *[1] * (packed.data.ndim - 1)), packed.data, hidden)


def spread(x: Tensor, N: int, axis: int = 0) -> Tensor:
    """One sample's rows for each of N samples, without memory where it has one row."""
    return x.unsqueeze(axis).expand(*x.shape[:axis], N, *x.shape[axis:]).flatten(axis, axis + 1)
