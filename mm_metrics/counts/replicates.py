"""Each sample's bootstrap weights, added to the sums of what it counts in: by class, bin, level and total.

    weights (N, R) of the numbers (N,), in each slice that holds the sample (N, A, R), or else by cell (W, N)
    rows (K, N, X) of n, by coalition ─▶ sums (K, n, A, R) ─▶ the views (K, …, A, R)

Sums of weights are exact in float32, and of weighted fixed-point numbers in int64; no matrix product rounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.counts.batch import Batch, Cells, any_of
from mm_metrics.counts.layout import Layout
from mm_metrics.moments import LEVELS
from mm_metrics.uncertainty import poisson_weights

_AT_ONCE = 4096  # samples; float32 holds the sums of that many weights exactly
_SUMS_AT_ONCE = 2**21  # numbers that stay near the processor; an accelerator takes many at a time
_SUMS_AT_ONCE_THERE = 2**27


class _Weights(NamedTuple):
    """A batch's weights ``(N, A, R)``, and where its samples lie: in G cells ``(W, N)``; A or G is 1."""

    each: Tensor
    where: Cells | None
    G: int


def add_replicates(counts: Tensor, layout: Layout, batch: Batch, rows: Sequence[int] | None, key: int) -> None:
    """Add a batch's weights, from the hash of its numbers and `key`, to every field of replicates."""
    N = batch.predicted.shape[1]
    for start in range(0, N, _AT_ONCE):
        part = batch if N <= _AT_ONCE else batch.part(slice(start, start + _AT_ONCE))
        weights = _weights(layout, part, key)
        ks = range(layout.K) if rows is None else rows
        _add_class_sums(
            layout.view(counts, "replicates"), layout, part, weights._replace(each=weights.each.float()), ks
        )
        if part.measures is not None:
            _add_measures(counts, layout, part, weights, ks)


def _weights(layout: Layout, batch: Batch, key: int) -> _Weights:
    assert batch.numbers is not None
    each = poisson_weights(batch.numbers, layout.R, key).unsqueeze(1)  # (N, 1, R)
    if layout.replicate_slices and layout.by:
        return _Weights(each, batch.cells(layout), layout.G)
    if layout.replicate_slices and batch.present is not None:
        inside = torch.cat([torch.ones_like(batch.present[:, :1]), batch.present], dim=1)
        each = each * inside.unsqueeze(-1)
    return _Weights(each, None, 1)


def _add_class_sums(view: Tensor, layout: Layout, batch: Batch, weights: _Weights, ks: Sequence[int]) -> None:
    """Hits, predictions and actual samples of each class."""
    L, C = layout.L, layout.C
    predicted, target = batch.predicted, batch.target  # (K, N, L), (N, L)
    drop, device = batch.dropped(L), target.device
    # Wrong answers and then right ones, with a row before each for answers of -1: what is added once counts for both.
    row = (predicted + 1).add_(predicted == target, alpha=C + 1)
    actual = target.unsqueeze(0)
    if L > 1:
        row = row + torch.arange(L, device=device) * (2 * (C + 1))
        actual = actual + torch.arange(L, device=device) * C
    held = torch.cat([sums for _, sums in _sums(actual, L * C, drop, weights)]).unflatten(1, (L, C))
    for part, sums in _sums(row, L * 2 * (C + 1), drop, weights):
        wrong, right = sums.unflatten(1, (L, 2, C + 1))[:, :, :, 1:].unbind(2)  # (k, L, C, A, R)
        third = (held if len(held) == 1 else held[part]).expand_as(right)
        for i, one in enumerate((right, wrong + right, third)):
            _add(view[:, :, i], one, ks[part])


def _add_measures(counts: Tensor, layout: Layout, batch: Batch, weights: _Weights, ks: Sequence[int]) -> None:
    """Histograms of the score, tables of confidence and totals."""
    measures, device = batch.measures, weights.each.device
    assert measures is not None

    def add(name: str, row: Tensor, drop: Tensor | None, weights: _Weights, values: Tensor | None = None) -> None:
        view = layout.view(counts, name).flatten(1, -3)  # (K, n, A, R)
        for part, sums in _sums(row, view.shape[1], drop, weights, values):
            _add(view, sums, ks[part])

    if measures.bins is not None and measures.actual is not None:
        H, B = layout.curves, layout.replicate_bins
        coarse = measures.bins * B // layout.bins
        row = (torch.arange(H, device=device) * 2 + measures.actual) * B + coarse
        add("replicate_curves", row, batch.dropped(H), weights._replace(each=weights.each.float()))
    whole = weights._replace(each=weights.each.long())
    if measures.level is not None and measures.hit is not None and measures.confidence is not None:
        row = (torch.arange(layout.levels, device=device) * LEVELS + measures.level) * 3
        for i, value in enumerate((None, measures.hit, measures.confidence)):
            add("replicate_levels", row + i, batch.dropped(layout.levels), whole, value)
    if measures.totals is not None:
        row = torch.arange(len(layout.sums), device=device).expand_as(measures.totals)
        add("replicate_totals", row, batch.dropped(1), whole, measures.totals)


def _sums(
    rows: Tensor, n: int, drop: Tensor | None, weights: _Weights, values: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Some coalitions at a time, the sums ``(k, n, A, R)`` of the weights, times `values` ``(K, N, X)``.

    `rows` ``(K, N, X)``, or ``(1, N, X)`` where all have the same, are numbers below n; what is to `drop` has none.
    """
    each, where, G = weights
    N, A, R = each.shape
    gone = None if drop is None else drop.unsqueeze(1)
    at = rows.unsqueeze(1)  # (K, W, N, X)
    if where is not None:
        at = at * G + where.cell.unsqueeze(-1)
        gone = any_of(gone, None if where.absent is None else where.absent[None, :, :, None])
    K = max(len(at), 1 if gone is None else len(gone))
    at, on_host = at.expand(K, -1, -1, -1), at.device.type == "cpu"
    most = _SUMS_AT_ONCE if on_host else _SUMS_AT_ONCE_THERE
    step = max(1, most // (A * R * max(n * G, at[0].numel())))
    for start in range(0, K, step):
        part = at[start : start + step]
        k, spare = len(part), len(part) * n * G  # the last row, of what is not to be counted
        if k > 1:
            part = part + torch.arange(k, device=at.device).view(-1, 1, 1, 1) * (n * G)
        if gone is not None:
            part = torch.where(gone if len(gone) == 1 else gone[start : start + k], spare, part)
        if on_host and each.dtype.is_floating_point and values is None:
            sums = _rows_by_cell(part, each.view(N, A * R), spare + 1)
        else:
            weighted = each.view(1, 1, N, 1, A * R)
            weighted = weighted if values is None else weighted * values[start : start + k].unsqueeze(1).unsqueeze(-1)
            sums = weighted.new_zeros(spare + 1, A * R)
            sums.index_add_(0, part.flatten(), weighted.expand(*part.shape, -1).reshape(-1, A * R))
        yield slice(start, start + k), sums[:-1].view(k, n, G * A, R)


def _rows_by_cell(cells: Tensor, rows: Tensor, n: int) -> Tensor:
    """The sum ``(n, V)`` of the float `rows` ``(N, V)`` that lie in each of n cells, by ``(k, W, N, X)`` their cells.

    `index_add_` would need a copy of the rows for every coalition; bags take them where they are. On the host alone:
    not every accelerator has bags.
    """
    N, X = cells.shape[2:]
    ordered = cells.flatten().sort()
    which = ordered.indices.div(X, rounding_mode="floor").remainder(N)
    starts = torch.searchsorted(ordered.values, torch.arange(n, device=cells.device))
    return torch.nn.functional.embedding_bag(which, rows, starts, mode="sum")


def _add(view: Tensor, sums: Tensor, ks: Sequence[int]) -> None:
    """Add sums of some coalitions ``(k, …)`` to the coalitions `ks` of the view; A may be 1 for all slices."""
    if list(ks) == list(range(ks[0], ks[0] + len(ks))):
        view[ks[0] : ks[0] + len(ks)] += sums.long()
    else:
        for row, one in zip(ks, sums, strict=True):
            view[row] += one.long()
