"""Each sample's bootstrap weights, added to the sums of what it counts in: by class, bin, level and total.

    weights (N, R) of the numbers (N,); for each coalition and each of X numbers a sample
    rows (K, N, X) ─ and cells (W, N) ─▶ sums (rows · cells + 1, R) ─ cells to slices ─▶ view (K, rows, A, R)

Sums of weights are exact in float32, and of weighted fixed-point numbers in int64; no matrix product rounds them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from mm_metrics.counts.batch import Batch, Cells, any_of
from mm_metrics.counts.layout import Layout
from mm_metrics.moments import LEVELS
from mm_metrics.uncertainty import poisson_weights

_AT_ONCE = 4096  # samples; float32 holds the sums of that many weights exactly
_SUMS_AT_ONCE = 2**21  # numbers that stay near the processor


def add_replicates(counts: Tensor, layout: Layout, batch: Batch, rows: Sequence[int] | None, key: int) -> None:
    """Add a batch's weights, from the hash of its numbers and `key`, to every field of replicates."""
    N = batch.predicted.shape[1]
    for start in range(0, N, _AT_ONCE):
        part = batch if N <= _AT_ONCE else batch.part(slice(start, start + _AT_ONCE))
        assert part.numbers is not None
        weights = poisson_weights(part.numbers, layout.R, key)
        where = part.cells(layout)
        if not layout.replicate_slices:
            where = Cells(torch.zeros_like(part.numbers).unsqueeze(0), None)
        ks = range(layout.K) if rows is None else rows
        _add_class_sums(counts, layout, part, where, weights.float(), ks)
        if part.measures is not None:
            _add_measures(counts, layout, part, where, weights, ks)


def _add_class_sums(
    counts: Tensor, layout: Layout, batch: Batch, where: Cells, weights: Tensor, ks: Sequence[int]
) -> None:
    """Hits, predictions and actual samples of each class."""
    L, C = layout.L, layout.C
    predicted, target = batch.predicted, batch.target  # (K, N, L), (N, L)
    label = torch.arange(L, device=target.device) * (3 * C)
    drop = batch.dropped(L)
    wrong = predicted != target
    rows = (label + target, label + C + predicted, label + 2 * C + target)
    kept = torch.zeros_like(wrong) if drop is None else drop
    drops = (wrong | kept, (predicted < 0) | kept, kept)
    row = torch.cat([row.expand_as(predicted) for row in rows], dim=-1)  # (K, N, 3 * L): one launch for all three
    out = torch.cat([drop.expand_as(predicted) for drop in drops], dim=-1)
    _add(layout.view(counts, "replicates"), layout, row, out, where, weights, ks)


def _add_measures(
    counts: Tensor, layout: Layout, batch: Batch, where: Cells, weights: Tensor, ks: Sequence[int]
) -> None:
    """Histograms of the score, tables of confidence and totals."""
    measures = batch.measures
    assert measures is not None
    device = weights.device
    if measures.bins is not None and measures.actual is not None:
        H, B = layout.curves, layout.replicate_bins
        coarse = measures.bins * B // layout.bins
        row = (torch.arange(H, device=device) * 2 + measures.actual) * B + coarse
        view = layout.view(counts, "replicate_curves")
        _add(view, layout, row, batch.dropped(H), where, weights.float(), ks)
    whole = weights.long()
    if measures.level is not None and measures.hit is not None and measures.confidence is not None:
        H, view = layout.levels, layout.view(counts, "replicate_levels")
        row = (torch.arange(H, device=device) * LEVELS + measures.level) * 3
        for i, value in enumerate((None, measures.hit, measures.confidence)):
            _add(view, layout, row + i, batch.dropped(H), where, whole, ks, value)
    if measures.totals is not None:
        row = torch.arange(len(layout.sums), device=device).expand_as(measures.totals)
        view = layout.view(counts, "replicate_totals")
        _add(view, layout, row, batch.dropped(1), where, whole, ks, measures.totals)


def _add(
    view: Tensor,
    layout: Layout,
    rows: Tensor,
    drop: Tensor | None,
    where: Cells,
    weights: Tensor,
    ks: Sequence[int],
    values: Tensor | None = None,
) -> None:
    """Add `weights` ``(N, R)``, times `values` ``(K, N, X)``, to `view` ``(K, …, A, R)`` at `rows` ``(K, N, X)``.

    On a CPU one number at a time, whose weights then need no copies; on an accelerator in one launch.
    """
    (K, N, _), R, on_cpu = rows.shape, weights.shape[1], weights.device.type == "cpu"
    n = math.prod(view.shape[1:-2])
    cells = 1 if not layout.replicate_slices else layout.G
    gone = any_of(
        None if drop is None else drop.unsqueeze(1), None if where.absent is None else where.absent[None, :, :, None]
    )
    step = min(K, max(1, _SUMS_AT_ONCE // (n * cells * R))) if on_cpu else K
    for start in range(0, K, step):
        part = slice(start, start + step)
        k = torch.arange(len(rows[part]), device=rows.device).view(-1, 1, 1, 1)
        spare = len(k) * n * cells  # the last row, of what is not to be counted
        at = (rows[part].unsqueeze(1) + k * n) * cells + where.cell.unsqueeze(-1)  # (K, W, N, X)
        if gone is not None:
            at = torch.where(gone if len(gone) == 1 else gone[part], spare, at)
        sums = weights.new_zeros(spare + 1, R)
        if on_cpu:
            order = at.permute(0, 1, 3, 2).contiguous()  # (K, W, X, N)
            for i, w, x in product(*map(range, order.shape[:3])):
                weighted = weights if values is None else weights * values[start + i, :, x, None]
                sums.index_add_(0, order[i, w, x], weighted)
        else:
            weighted = weights.view(1, 1, N, 1, R).expand(*at.shape, R)
            if values is not None:
                weighted = weighted * values.unsqueeze(1).unsqueeze(-1)
            sums.index_add_(0, at.flatten(), weighted.reshape(-1, R))
        added = _sliced(layout, sums[:-1].view(len(k) * n, cells, R)).view(len(k), *view.shape[1:])
        if list(ks[part]) == list(range(ks[start], ks[start] + len(k))):
            view[ks[start] : ks[start] + len(k)] += added
        else:
            for row, one in zip(ks[part], added, strict=True):
                view[row] += one


def _sliced(layout: Layout, sums: Tensor) -> Tensor:
    """``(n, cells, R)`` to ``(n, A, R)`` int64: cells to slices, unless slices are asked by columns too."""
    return (sums if layout.by or not layout.replicate_slices else layout.by_slice(sums)).long()
