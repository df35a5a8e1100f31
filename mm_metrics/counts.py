"""Labels to counts: `add` scatters a batch into the one buffer that a `Layout` describes.

What is not to be counted lands in a spare cell: a boolean index would stall an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_metrics.labels import Labels
from mm_metrics.layout import Layout
from mm_metrics.uncertainty import poisson_weights

_DENSE_UP_TO = 4096  # rows of the one-hot matrix; beyond, weights are added row by row
_REPLICATE_BLOCK = 4096  # samples: bounds the memory, and float32 holds the sums of a block exactly


def add(
    counts: Tensor,
    layout: Layout,
    labels: Labels,
    presence: Tensor | None = None,
    *,
    index: Tensor | None = None,
    key: int = 0,
    rows: Sequence[int] | None = None,
    counted: Tensor | None = None,
    eager: bool = True,
) -> None:
    """Count one batch into the buffer `counts`, in place.

    `presence` ``(N, M)`` is where samples count; `index` ``(N,)`` int64 their numbers,
    from which with `key` their bootstrap weights follow; `rows` the coalitions that ``labels.predicted`` holds, all by
    default; `counted` ``(K, N)`` which coalitions answered which samples.
    With `eager` a presence other than 0 and 1 raises ValueError before anything is added; otherwise it is refused.
    """
    predicted, target = labels.predicted, labels.target
    N = predicted.shape[1]
    if N == 0:
        return
    bad_presence = _check_presence(presence, eager)
    refused = _any(labels.bad_prediction, labels.bad_target, bad_presence)
    out = _any(labels.ignored, None if refused is None else refused.unsqueeze(-1))  # (N, L) not to be counted
    present = None if presence is None else presence != 0
    group, absent = _groups(layout, present, N, predicted.device)  # (W, N) each
    skipped = None if counted is None else ~counted
    right = predicted == target  # (K, N, L)
    cells = [cell.flatten() for cell in _confusion_cells(layout, labels, group, absent, out, skipped, rows)]
    complete = rows is None or len(rows) == layout.K
    if complete:
        exact = (right if labels.ignored is None else right | labels.ignored).all(-1)  # (K, N)
        unpaired = _any(refused, None if labels.ignored is None else labels.ignored.all(-1))
        unpaired = _any(unpaired, None if skipped is None else skipped.any(0))  # (N,)
        if layout.hit_patterns:
            cells.append(_hit_cells(layout, exact, group, _any(unpaired, absent)).flatten())
        else:
            _add_joint_hits(layout.view(counts, "hits"), exact, present, unpaired)
    cell = torch.cat(cells)
    counts.scatter_add_(0, cell, counts.new_ones(()).expand(cell.shape))
    layout.view(counts, "samples").add_(N)
    if not eager:
        marks = (labels.bad_prediction, labels.bad_target, bad_presence)
        totals = [counts.new_zeros(()) if mark is None else mark.sum() for mark in marks]
        layout.view(counts, "refused").add_(torch.stack(totals))
    if layout.R and index is not None:
        drop = _any(out, None if skipped is None else skipped.unsqueeze(-1))
        _add_replicates(counts, layout, labels, drop, present, rows, index, key)


def _groups(layout: Layout, present: Tensor | None, N: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """``(W, N)`` group of each sample, and where it belongs to none."""
    M = len(layout.modalities)
    if layout.patterns:
        if present is None:
            return torch.full((1, N), 2**M - 1, device=device), None
        return sum(present[:, m].long() << m for m in range(M)).unsqueeze(0), None  # type: ignore[union-attr]
    group = torch.arange(layout.S, device=device).unsqueeze(1).expand(-1, N)
    if present is None:
        return group, None
    return group, torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1).T


def _confusion_cells(
    layout: Layout,
    labels: Labels,
    group: Tensor,
    absent: Tensor | None,
    out: Tensor | None,
    skipped: Tensor | None,
    rows: Sequence[int] | None,
) -> Iterator[Tensor]:
    """The cells ``(K, W, N, L)`` of the confusion, and of the sums where only the last coalition has a confusion."""
    predicted, target = labels.predicted.unsqueeze(1), labels.target
    L, C, G, spare = layout.L, layout.C, layout.G, layout.fields["spare"][0]
    at = group.unsqueeze(-1) * L + torch.arange(L, device=group.device)  # (W, N, L)
    drop = _any(None if absent is None else absent.unsqueeze(-1), out)  # broadcasts to (K, W, N, L)
    drop = _any(drop, None if skipped is None else skipped[:, None, :, None])

    def kept(cell: Tensor, drop: Tensor | None) -> Tensor:
        return cell if drop is None else torch.where(drop, spare, cell)

    def per_coalition(stride: int) -> Tensor:
        ks = range(layout.K) if rows is None else rows
        if len(ks) == layout.K:
            return torch.arange(0, layout.K * stride, stride, device=group.device).view(-1, 1, 1, 1)
        return torch.stack([group.new_full((1, 1, 1), k * stride) for k in ks])

    base = (at * C + target) * C
    if layout.full:
        yield kept(base + predicted + per_coalition(G * L * C * C), drop)
        return
    if rows is None or layout.K - 1 in rows:
        last = -1 if rows is None else list(rows).index(layout.K - 1)
        yield kept(base + predicted[last], drop if skipped is None or drop is None else drop[last])
    start = layout.fields["sums"][0] + at * (3 * C) + per_coalition(G * L * 3 * C)
    yield kept(start + predicted, _any(drop, predicted != target))
    yield kept(start + C + predicted, drop)
    yield kept(start + 2 * C + target, drop)


def _hit_cells(layout: Layout, exact: Tensor, group: Tensor, unpaired: Tensor | None) -> Tensor:
    """``(W, N)`` cells of the histogram over which coalitions are right."""
    pattern = sum(exact[k].long() << k for k in range(layout.K))
    cell = layout.fields["hits"][0] + group * 2**layout.K + pattern
    return cell if unpaired is None else torch.where(unpaired, layout.fields["spare"][0], cell)


def _add_joint_hits(joint: Tensor, exact: Tensor, present: Tensor | None, unpaired: Tensor | None) -> None:
    """Add to ``(S, K, K)``: samples right by i and wrong by j; the number of hits on the diagonal."""
    N = exact.shape[1]
    members = torch.ones(N, 1, device=exact.device)
    if present is not None:
        members = torch.cat([members, present.float()], dim=1)
    if unpaired is not None:
        members = members * ~unpaired.unsqueeze(1)
    with torch.autocast(exact.device.type, enabled=False):
        right = exact.float()  # 0 and 1: products are exact in float32 up to 2**24 samples a batch
        wrong = 1 - right
        for s in range(joint.shape[0]):
            weighted = right * members[:, min(s, members.shape[1] - 1)]
            batch = weighted @ wrong.T
            batch.diagonal().copy_(weighted.sum(1))
            joint[s] += batch.long()


def _add_replicates(
    counts: Tensor,
    layout: Layout,
    labels: Labels,
    drop: Tensor | None,
    present: Tensor | None,
    rows: Sequence[int] | None,
    index: Tensor,
    key: int,
) -> None:
    """Add each sample's bootstrap weights to the per-class sums of its class, in every slice it belongs to.

    `drop` broadcasts to ``(K, N, L)``.
    """
    K, N, L = labels.predicted.shape
    C = layout.C
    view = layout.view(counts, "replicates").flatten(4)  # (K, L, 3, C, S * R)
    for start in range(0, N, _REPLICATE_BLOCK):
        block = slice(start, start + _REPLICATE_BLOCK)
        weights = poisson_weights(index[block], layout.R, key).float()
        slices = weights.new_ones(len(weights), layout.S if layout.replicate_slices else 1)
        if present is not None and layout.replicate_slices:
            slices[:, 1:] = present[block].to(slices.dtype)
        spread = (slices.unsqueeze(2) * weights.unsqueeze(1)).flatten(1)  # (n, S * R)
        predicted, target = labels.predicted[:, block], labels.target[block].expand(K, -1, -1)
        keep = torch.ones_like(predicted, dtype=torch.bool)
        keep = keep if drop is None else keep & ~drop.expand(K, N, L)[:, block]
        # The class that each of the three sums counts a sample in, C for none: (K, L, 3, n).
        hit = torch.where(keep & (predicted == target), target, C)
        classes = torch.stack([hit, torch.where(keep, predicted, C), torch.where(keep, target, C)]).permute(1, 3, 0, 2)
        if K * L * 3 * C <= _DENSE_UP_TO:
            one_hot = (classes.unsqueeze(3) == torch.arange(C, device=classes.device).unsqueeze(1)).float()
            with torch.autocast(classes.device.type, enabled=False):  # half precision would round the sums
                sums = (one_hot.flatten(0, 3) @ spread).long().view(K, L, 3, C, -1)
        for k in range(K):
            row = view[k if rows is None else rows[k]]
            if K * L * 3 * C <= _DENSE_UP_TO:
                row += sums[k]
                continue
            cell = torch.arange(L * 3, device=classes.device).view(L, 3, 1) * C + classes[k].clamp(max=C - 1)
            kept = (classes[k] < C).unsqueeze(-1) * spread.long()  # (L, 3, n, S * R)
            row.flatten(0, 2).index_add_(0, cell.flatten(), kept.flatten(0, 2))


def _check_presence(presence: Tensor | None, eager: bool) -> Tensor | None:
    if presence is None or presence.dtype == torch.bool:
        return None
    bad = (presence < 0) | (presence > 1)
    if not eager:
        return bad.any(1)
    if bool(bad.any()):
        value = presence.flatten()[bad.flatten().long().argmax()].item()
        raise ValueError(f"presence holds {value}, expected 0 or 1: one column a modality, is it the right tensor?")
    return None


def _any(*masks: Tensor | None) -> Tensor | None:
    """The masks or-ed, None where there is none."""
    result = None
    for mask in masks:
        result = mask if result is None else result if mask is None else result | mask
    return result
