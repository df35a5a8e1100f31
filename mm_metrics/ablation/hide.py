"""Batches in which what a coalition does not show is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from mm_metrics.ablation.baselines import StandIn
from mm_metrics.ablation.batch import Path, rebuilt


@lru_cache(maxsize=256)
def on_device(flags: tuple, device: torch.device) -> Tensor:
    """A table of flags as a tensor, moved to its device once."""
    return torch.tensor(flags, device=device)


def choose(shown: Tensor, x: Tensor, hidden: Tensor, axis: int = 0) -> Tensor:
    """``x`` where ``shown`` ``(k, N)``, else ``hidden``; the samples' ``axis`` grows from N to k·N.

    The axis may hold several rows a sample (N·T, as for frames); ``hidden`` has N samples there, or one.

    >>> import torch
    >>> choose(torch.tensor([[True, False], [False, True]]), torch.tensor([1, 2]), torch.tensor([0]))
    tensor([1, 0, 0, 2])
    """
    k, N = shown.shape
    T = x.shape[axis] // N
    if axis == 0 and T == 1:
        return torch.where(shown.reshape(k, N, *[1] * (x.ndim - 1)), x, hidden).flatten(0, 1)
    here = x.unflatten(axis, (1, N, T))
    there = hidden.unflatten(axis, (1, hidden.shape[axis] // T, T))
    mask = shown.reshape(*[1] * axis, k, N, 1, *[1] * (x.ndim - axis - 1))
    return torch.where(mask, here, there).flatten(axis, axis + 2)


def choose_packed(packed: PackedSequence, shown: Tensor, hidden: Tensor) -> Tensor:
    """The data of a packed sequence, ``hidden``'s steps for samples that are not ``shown`` ``(N,)``."""
    order = packed.sorted_indices
    owner = torch.cat([torch.arange(int(n), device=shown.device) for n in packed.batch_sizes])
    owner = owner if order is None else order[owner]
    return torch.where(shown[owner].reshape(-1, *[1] * (packed.data.ndim - 1)), packed.data, hidden)


def spread(x: Tensor, N: int, samples: int, axis: int = 0) -> Tensor:
    """The first sample's rows for all of ``samples``, without memory where each sample has one row."""
    T = x.shape[axis] // N
    first = x.narrow(axis, 0, T).unflatten(axis, (1, T))
    return first.expand(*x.shape[:axis], samples, T, *x.shape[axis + 1 :]).flatten(axis, axis + 1)


def hide(
    batch: Any,
    N: int,
    coalitions: tuple[tuple[bool, ...], ...],
    there: Tensor | None,
    modality: Mapping[Path, int],
    stand_ins: Mapping[Path, StandIn],
    presence: Mapping[Path, int | None],
    write: bool = True,
) -> Any:
    """A copy of the batch with k·N samples in which what is not shown is hidden.

    Of the k ``coalitions`` each is M flags; ``there`` ``(N, M)`` says which modalities a sample has, None all.
    ``presence`` maps the presence entry's tensors to a modality, None for one ``(N, M)`` table. Tensors that nobody is
    to ``write`` to may be the batch's own.
    """
    k, M = len(coalitions), len(coalitions[0])

    @cache
    def shown(device: torch.device) -> tuple[Tensor, ...]:
        """``(k, N)`` bool of each modality, where it is shown, and ``(k, N, M)`` of all."""
        flags = on_device(coalitions, device).unsqueeze(1)
        table = flags.expand(k, N, M) if there is None else flags & there
        return *table.unbind(2), table

    def change(path: Path, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf * k if isinstance(leaf, list) and len(leaf) == N else leaf
        if path in presence:
            m = presence[path]
            return shown(leaf.device)[-1 if m is None else m].flatten(0, 1).to(leaf.dtype)
        if not leaf.ndim or leaf.shape[0] != N:
            return leaf.clone() if write else leaf
        m = modality.get(path)
        if m is None:
            return leaf.repeat(k, *[1] * (leaf.ndim - 1)) if write or k > 1 else leaf
        if there is not None:
            return choose(shown(leaf.device)[m], leaf, stand_ins[path].of(leaf))
        if k == 1 and coalitions[0][m]:
            return leaf.clone() if write else leaf
        hidden = stand_ins[path].of(leaf).expand_as(leaf)
        return torch.cat([leaf if flags[m] else hidden for flags in coalitions])

    return rebuilt(batch, change)
