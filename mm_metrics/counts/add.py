"""Labels to counts: `add` scatters a batch into the one buffer that a `Layout` describes.

What is not to be counted lands in a spare cell: a boolean index would stall an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_metrics.counts.labels import Labels
from mm_metrics.counts.layout import Layout
from mm_metrics.uncertainty import poisson_weights

_CELLS_AT_ONCE = 2**24  # bounds the memory that a batch of any size takes
_REPLICATES_AT_ONCE = 4096  # samples, likewise; float32 holds the sums of that many weights exactly


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

    `presence` ``(N, M)`` is where samples count; `index` ``(N,)`` int64 their numbers, from which with `key` their
    bootstrap weights follow; `rows` the coalitions that ``labels.predicted`` holds, all by default; `counted`
    ``(K, N)`` which coalitions answered which samples.
    With `eager` a presence other than 0 and 1 raises ValueError before anything is added; otherwise it is refused.
    """
    K, N, L = labels.predicted.shape
    bad_presence = _check_presence(presence, eager)
    if not eager:
        marks = (labels.bad_prediction, labels.bad_target, bad_presence)
        totals = [counts.new_zeros(()) if mark is None else mark.sum() for mark in marks]
        layout.view(counts, "refused").add_(torch.stack(totals))
    refused = _any(labels.bad_prediction, labels.bad_target, bad_presence)
    present = presence if presence is None or presence.dtype == torch.bool else presence != 0
    step = max(1, _CELLS_AT_ONCE // (K * L * (1 if layout.patterns else layout.S)))
    skipped = None if counted is None else ~counted
    whole = _Batch(labels.predicted, labels.target, present, labels.ignored, refused, skipped)
    for start in range(0, N, step):
        part = slice(start, start + step)
        batch = whole if N <= step else whole.part(part)
        _add_batch(counts, layout, batch, rows)
        if layout.R and index is not None:
            _add_replicates(counts, layout, batch, rows, index[part], key)


@dataclass
class _Batch:
    """Labels and where they count; masks are None where they hold nothing."""

    predicted: Tensor  # (K, N, L)
    target: Tensor  # (N, L)
    present: Tensor | None  # (N, M)
    ignored: Tensor | None  # (N, L)
    refused: Tensor | None  # (N,)
    skipped: Tensor | None  # (K, N), not answered

    def part(self, samples: slice) -> _Batch:
        """The same of some of the samples."""
        return _Batch(
            self.predicted[:, samples],
            self.target[samples],
            None if self.present is None else self.present[samples],
            None if self.ignored is None else self.ignored[samples],
            None if self.refused is None else self.refused[samples],
            None if self.skipped is None else self.skipped[:, samples],
        )

    @property
    def out(self) -> Tensor | None:
        """``(N, L)`` not to be counted for any coalition."""
        return _any(self.ignored, None if self.refused is None else self.refused.unsqueeze(-1))

    def groups(self, layout: Layout) -> tuple[Tensor, Tensor | None]:
        """``(W, N)`` group of each sample, and where it belongs to none."""
        N, present = self.predicted.shape[1], self.present
        if layout.patterns:
            M = len(layout.modalities)
            if present is None:
                return torch.full((1, N), 2**M - 1, device=self.predicted.device), None
            return (present * _powers(M, present.device)).sum(1).unsqueeze(0), None
        group = torch.arange(layout.S, device=self.predicted.device).unsqueeze(1).expand(-1, N)
        return group, None if present is None else torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1).T


def _add_batch(counts: Tensor, layout: Layout, batch: _Batch, rows: Sequence[int] | None) -> None:
    """Add to everything but the replicates, by one scatter."""
    group, absent = batch.groups(layout)
    cells = [cell.flatten() for cell in _confusion_cells(layout, batch, group, absent, rows)]
    if rows is None or len(rows) == layout.K:
        exact, unpaired = _hits(batch)
        if layout.hit_patterns:
            cells.append(_hit_cells(layout, exact, group, _any(unpaired, absent)).flatten())
        else:
            _add_joint_hits(layout.view(counts, "hits"), exact, batch.present, unpaired)
    cell = torch.cat(cells)
    counts.scatter_add_(0, cell, torch.ones_like(cell))
    if rows is None or layout.K - 1 in rows:  # so that coalitions which come one by one count a sample once
        layout.view(counts, "samples").add_(batch.predicted.shape[1])


def _confusion_cells(
    layout: Layout, batch: _Batch, group: Tensor, absent: Tensor | None, rows: Sequence[int] | None
) -> Iterator[Tensor]:
    """The cells ``(K, W, N, L)`` of the confusion, and of the sums where only the last coalition has a confusion."""
    predicted, target, out, skipped = batch.predicted.unsqueeze(1), batch.target, batch.out, batch.skipped
    L, C, G, spare = layout.L, layout.C, layout.G, layout.fields["spare"][0]
    at = group.unsqueeze(-1)  # (W, N, L)
    if L > 1:
        at = at * L + torch.arange(L, device=group.device)
    drop = _any(None if absent is None else absent.unsqueeze(-1), out)  # broadcasts to (K, W, N, L)
    drop = _any(drop, None if skipped is None else skipped[:, None, :, None])

    def kept(cell: Tensor, drop: Tensor | None) -> Tensor:
        return cell if drop is None else torch.where(drop, spare, cell)

    def per_coalition(stride: int) -> Tensor:
        ks = range(layout.K) if rows is None else rows
        if len(ks) == layout.K:
            return torch.arange(0, layout.K * stride, stride, device=group.device).view(-1, 1, 1, 1)
        return torch.stack([group.new_full((1, 1, 1), k * stride) for k in ks])

    row = torch.add(target, at, alpha=C)
    if layout.full:
        yield kept(torch.add(predicted, row, alpha=C).add_(per_coalition(G * L * C * C)), drop)
        return
    if rows is None or layout.K - 1 in rows:
        last = -1 if rows is None else list(rows).index(layout.K - 1)
        yield kept(torch.add(predicted[last], row, alpha=C), drop if skipped is None or drop is None else drop[last])
    start = layout.fields["sums"][0] + at * (3 * C) + per_coalition(G * L * 3 * C)
    yield kept(start + predicted, _any(drop, predicted != target))
    yield kept(start + C + predicted, drop)
    yield kept(start + 2 * C + target, drop)


def _hits(batch: _Batch) -> tuple[Tensor, Tensor | None]:
    """``(K, N)`` which coalitions get all labels of a sample right; ``(N,)`` samples that can't be compared."""
    right = batch.predicted == batch.target
    right = right if batch.ignored is None else right | batch.ignored
    unpaired = _any(batch.refused, None if batch.ignored is None else batch.ignored.all(-1))
    unpaired = _any(unpaired, None if batch.skipped is None else batch.skipped.any(0))
    return right.squeeze(-1) if right.shape[-1] == 1 else right.all(-1), unpaired


def _hit_cells(layout: Layout, exact: Tensor, group: Tensor, unpaired: Tensor | None) -> Tensor:
    """``(W, N)`` cells of the histogram over which coalitions are right."""
    pattern = (exact * _powers(layout.K, exact.device).unsqueeze(1)).sum(0)
    cell = torch.add(pattern, group, alpha=2**layout.K).add_(layout.fields["hits"][0])
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
        right = exact.float()  # 0 and 1: products are exact in float32 up to 2**24 samples at once
        wrong = 1 - right
        for s in range(joint.shape[0]):
            weighted = right * members[:, min(s, members.shape[1] - 1)]
            batch = weighted @ wrong.T
            batch.diagonal().copy_(weighted.sum(1))
            joint[s] += batch.long()


def _add_replicates(
    counts: Tensor, layout: Layout, batch: _Batch, rows: Sequence[int] | None, index: Tensor, key: int
) -> None:
    """Add each sample's bootstrap weights to the per-class sums of its class, in every slice it belongs to."""
    K, N, L = batch.predicted.shape
    C, R, view = layout.C, layout.R, layout.view(counts, "replicates")  # (K, L, 3, C, S, R)
    G = layout.G if layout.replicate_slices else 1
    group, absent = batch.groups(layout) if layout.replicate_slices else (torch.zeros_like(index).unsqueeze(0), None)
    members = None  # (S, G): which groups make up a slice
    if layout.replicate_slices and layout.patterns:
        bits = torch.arange(G, device=index.device) & _powers(layout.S - 1, index.device).unsqueeze(1)
        members = torch.cat([torch.ones_like(bits[:1]), bits.clamp(max=1)]).float()
    drop = _any(batch.out, None if batch.skipped is None else batch.skipped.unsqueeze(-1))  # broadcasts to (K, N, L)
    gone = _any(None if drop is None else drop.unsqueeze(-3), None if absent is None else absent.unsqueeze(-1))
    # The row (label, kind, class, group) that each of three sums counts a sample in, the last one for none.
    spare = L * 3 * C * G
    at = group.unsqueeze(-1) + torch.arange(L, device=index.device) * (3 * C * G)  # (W, N, L)
    predicted, target = batch.predicted.unsqueeze(1), batch.target  # (K, 1, N, L), (N, L)
    hit = torch.where(predicted == target, at + target * G, spare)
    rows_of = [hit, at + (C + predicted) * G, (at + (2 * C + target) * G).expand_as(hit)]
    cells = torch.stack([row if gone is None else torch.where(gone, spare, row) for row in rows_of], dim=1)
    cells = cells.transpose(-1, -2).flatten(1, 3)  # (K, 3 * W * L, N)
    for start in range(0, N, _REPLICATES_AT_ONCE):
        part = slice(start, start + _REPLICATES_AT_ONCE)
        weights = poisson_weights(index[part], R, key).float()
        for k in range(K):
            sums = weights.new_zeros(spare + 1, R)
            for cell in cells[k, :, part]:
                sums.index_add_(0, cell, weights)
            by_group = sums[:-1].view(L, 3, C, G, R)
            with torch.autocast(index.device.type, enabled=False):  # half precision would round the sums
                by_slice = by_group if members is None else members @ by_group
            view[k if rows is None else rows[k]] += by_slice.long()


def _powers(n: int, device: torch.device) -> Tensor:
    """1, 2, 4, …: what the bits of a pattern are worth."""
    return torch.pow(2, torch.arange(n, device=device))


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
