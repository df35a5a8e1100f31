"""Batches with modalities hidden, and forward passes in which encoders give kept outputs instead of running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.baselines import StandIn
from mm_metrics.ablation.batch import Path, copied, flatten, rebuilt
from mm_metrics.ablation.encoders import Site


class DivergedError(RuntimeError):
    """A forward pass called other encoders than the one that was traced."""


def choose(shown: Tensor, x: Tensor, hidden: Tensor, axis: int = 0) -> Tensor:
    """``x`` where ``shown`` ``(k, N)``, else ``hidden``; the samples' ``axis`` grows from N to k·N.

    The axis may hold several rows a sample (N·T, as for frames); ``hidden`` has N samples there, or one.

    >>> import torch
    >>> choose(torch.tensor([[True, False], [False, True]]), torch.tensor([1, 2]), torch.tensor([0]))
    tensor([1, 0, 0, 2])
    """
    k, N = shown.shape
    T = x.shape[axis] // N
    here = x.unflatten(axis, (1, N, T))
    there = hidden.unflatten(axis, (1, hidden.shape[axis] // T, T))
    mask = shown.reshape(*[1] * axis, k, N, 1, *[1] * (x.ndim - axis - 1))
    return torch.where(mask, here, there).flatten(axis, axis + 2)


def spread(x: Tensor, N: int, samples: int, axis: int = 0) -> Tensor:
    """The first sample's rows for all of ``samples``, without memory where each sample has one row."""
    T = x.shape[axis] // N
    first = x.narrow(axis, 0, T).unflatten(axis, (1, T))
    return first.expand(*x.shape[:axis], samples, T, *x.shape[axis + 1 :]).flatten(axis, axis + 1)


def hide(
    batch: Any,
    N: int,
    shown: Tensor,
    modality: Mapping[Path, int],
    stand_ins: Mapping[Path, StandIn],
    presence: Mapping[Path, int | None],
    needed: set[Path] | None = None,
) -> Any:
    """A copy of the batch with k·N samples in which what is not in ``shown`` ``(k, N, M)`` is hidden.

    ``presence`` maps the presence entry's tensors to a modality, None for one ``(N, M)`` table. Of tensors not in
    ``needed`` only the shape is right.
    """
    k = len(shown)

    def change(path: Path, leaf: Any) -> Any:
        if isinstance(leaf, list) and len(leaf) == N:
            return leaf * k
        if not isinstance(leaf, Tensor):
            return leaf
        if path in presence:
            m = presence[path]
            told = shown if m is None else shown[..., m]
            return told.flatten(0, 1).to(leaf.dtype)
        if not leaf.ndim or leaf.shape[0] != N:
            return leaf.clone()
        if needed is not None and path not in needed:
            return leaf if k == 1 else spread(leaf, N, k * N)
        if path in modality:
            return choose(shown[..., modality[path]], leaf, stand_ins[path].of(leaf))
        return leaf.repeat(k, *[1] * (leaf.ndim - 1))

    return rebuilt(batch, change)


def both(site: Site, output: Any, hidden: Any, there: Tensor | None, N: int) -> tuple[Any, Any]:
    """An encoder's output when its modality is shown, and when it is hidden: N samples each, all tensors fresh.

    They are no inference tensors, so that their versions tell of a fusion that writes into them. ``there`` ``(N,)``
    says which samples have the modality, None that all do; ``hidden`` has N samples, or one.
    """
    other = flatten(hidden)

    def shown(path: Path, leaf: Any) -> Any:
        axis = sample_axis(site, path, leaf, N)
        if axis is None or there is None:
            return leaf.clone() if isinstance(leaf, Tensor) else leaf
        return choose(there.unsqueeze(0), leaf, other[path], axis)

    def absent(path: Path, leaf: Any) -> Any:
        axis = sample_axis(site, path, leaf, N)
        if axis is None:
            return leaf.clone() if isinstance(leaf, Tensor) else leaf
        alone = other[path]
        return (alone if alone.shape == leaf.shape else spread(alone, 1, N, axis)).clone()

    with torch.inference_mode(False), torch.no_grad():
        return rebuilt(output, shown), rebuilt(output, absent)


def joined(site: Site, shown: Any, hidden: Any, coalitions: Sequence[bool], N: int) -> Any:
    """What an encoder gives for the k·N samples of k ``coalitions``, which show its modality or do not."""
    if len(coalitions) == 1:
        one = shown if coalitions[0] else hidden
        return copied(one) if site.written else one
    other = flatten(hidden)

    def change(path: Path, leaf: Any) -> Any:
        axis = sample_axis(site, path, leaf, N)
        if axis is None:
            return leaf.clone() if isinstance(leaf, Tensor) else leaf
        if not site.reaches:
            dummy = spread(leaf, N, len(coalitions) * N, axis)
            return dummy.contiguous() if site.written else dummy
        return torch.cat([leaf if is_shown else other[path] for is_shown in coalitions], axis)

    return rebuilt(shown, change)


def sample_axis(site: Site, path: Path, leaf: Any, N: int) -> int | None:
    """The axis of an output's tensor that holds the samples, None where none does."""
    axis = site.axes.get(path) if isinstance(leaf, Tensor) else None
    if axis is None and N == 1 and isinstance(leaf, Tensor) and leaf.ndim:
        return 0  # traced on one row, where its axes could not be told apart
    return axis


def shifted(site: Site, output: Any, shift: int, N: int) -> Any:
    """An encoder's output for the batch moved on by ``shift`` samples."""

    def change(path: Path, leaf: Any) -> Any:
        axis = site.axes.get(path)
        return leaf if axis is None else leaf.unflatten(axis, (N, -1)).roll(shift, axis).flatten(axis, axis + 1)

    return rebuilt(output, change)


def first_sample(site: Site, output: Any, N: int) -> Any:
    """An encoder's output for the batch's first sample alone."""

    def change(path: Path, leaf: Any) -> Any:
        axis = site.axes.get(path)
        return leaf if axis is None else leaf.narrow(axis, 0, leaf.shape[axis] // N)

    return rebuilt(output, change)


@contextmanager
def given(outputs: Sequence[tuple[Site, Any]], calls: Mapping[int, int] | None = None) -> Iterator[None]:
    """Inside, the sites' calls give these outputs and run nothing, no hooks either; afterwards all is as before.

    Raises DivergedError where a module is called more or less often than in ``calls`` (by its id), the traced pass.
    """
    by_order: dict[Module, dict[int, Any]] = {}
    for site, output in outputs:
        by_order.setdefault(site.module, {})[site.order] = output
    counts = dict.fromkeys(by_order, 0)

    def stand_in(module: Module) -> Callable[..., Any]:
        run = module._call_impl

        def replayed(*args: Any, **kwargs: Any) -> Any:
            n = counts[module]
            counts[module] += 1
            return by_order[module][n] if n in by_order[module] else run(*args, **kwargs)

        return replayed

    try:
        for module in by_order:
            vars(module)["_call_impl"] = stand_in(module)
        yield
        if calls is not None and any(count != calls[id(module)] for module, count in counts.items()):
            raise DivergedError("the model called its encoders otherwise than when it was followed")
    finally:
        for module in by_order:
            vars(module).pop("_call_impl", None)
