"""Labels to counts: `add` scatters a batch into the one buffer that a `Layout` describes.

What is not to be counted lands in a spare cell: a boolean index would stall an accelerator.

    predicted (K, N, L), target (N, L) ─▶ cells (K, W, N, L) of the confusion ┐
    which coalitions are right (K, N)  ─▶ cells (W, N) of the hits            ├─▶ one scatter_add_
    bins, levels, totals (K, N, H)     ─▶ cells (K, W, N, H) and their values ┘
    weights (N, R) of numbers (N,)     ─▶ `replicates`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_metrics.counts.batch import Batch, Cells, any_of, powers_of_two
from mm_metrics.counts.labels import Labels
from mm_metrics.counts.layout import Layout
from mm_metrics.counts.measure import Measures
from mm_metrics.counts.replicates import add_replicates
from mm_metrics.counts.truth import COPY, Truth
from mm_metrics.moments import LEVELS
from mm_metrics.uncertainty import mixed_numbers

_CELLS_AT_ONCE = 2**24  # bounds the memory that a batch of any size takes
Scattered = tuple[Tensor, Tensor | None]  # cells of any shape, and what is added to each; None: 1


def add(
    counts: Tensor,
    layout: Layout,
    labels: Labels,
    truth: Truth,
    *,
    key: int = 0,
    rows: Sequence[int] | None = None,
    counted: Tensor | None = None,
    measures: Measures | None = None,
    eager: bool = True,
) -> None:
    """Count one batch into the buffer `counts`, in place.

    Bootstrap weights follow from `key` and the numbers of the groups, or else of the samples; without either there are
    none. `rows` are the coalitions that ``labels.predicted`` ``(K, N, L)`` holds, all by default; `counted` ``(K, N)``
    which coalitions answered which samples. With `eager` a presence other than 0 and 1 raises ValueError before
    anything is added; otherwise it is refused.
    """
    K, N, L = labels.predicted.shape
    presence = truth.presence
    bad_presence = _check_presence(presence, eager)
    if not eager:
        marks = (labels.bad_prediction, labels.bad_target, bad_presence)
        totals = [counts.new_zeros(()) if mark is None else mark.sum() for mark in marks]
        layout.view(counts, "refused").add_(torch.stack(totals))
    refused = any_of(labels.bad_prediction, labels.bad_target, bad_presence)
    present = presence if presence is None or presence.dtype == torch.bool else presence != 0
    step = max(1, _CELLS_AT_ONCE // (K * max(L, layout.curves) * (1 if layout.patterns else layout.base)))
    whole = Batch(
        labels.predicted,
        labels.target,
        present,
        labels.ignored,
        refused,
        None if counted is None else ~counted,
        truth.columns,
        truth.index if truth.group is None else truth.group,
        truth.group,
        truth.index,
        measures,
    )
    for start in range(0, N, step):
        batch = whole if N <= step else whole.part(slice(start, start + step))
        _add_batch(counts, layout, batch, rows)
        if layout.R and batch.numbers is not None:
            add_replicates(counts, layout, batch, rows, key)


def _add_batch(counts: Tensor, layout: Layout, batch: Batch, rows: Sequence[int] | None) -> None:
    """Add to everything but the replicates, by one scatter."""
    where = batch.cells(layout)
    parts: list[Scattered] = [(cell, None) for cell in _confusion_cells(layout, batch, where, rows)]
    everything = rows is None or len(rows) == layout.K
    if everything:
        exact, unpaired = _hits(batch)
        if layout.hit_patterns:
            parts.append((_hit_cells(layout, "hits", exact, where, unpaired), None))
            if layout.found:
                any_label = (batch.predicted == 1) & (batch.target == 1)
                any_label = any_label if batch.ignored is None else any_label & ~batch.ignored
                parts.append((_hit_cells(layout, "found", any_label.any(-1), where, unpaired), None))
        else:
            _add_joint_hits(layout.view(counts, "hits"), exact, batch.present, unpaired)
    if batch.measures is not None:
        parts += _measure_cells(layout, batch, batch.measures, where, rows)
    if rows is None or layout.K - 1 in rows:  # so that coalitions which come one by one count a sample once
        layout.view(counts, "samples").add_(batch.predicted.shape[1])
        if layout.group_cells and batch.group is not None:
            parts += _group_cells(layout, batch, where)
            if layout.marks and batch.index is not None:
                layout.view(counts, "marks").add_(_marks(batch.index, layout.marks))
    cell = torch.cat([cell.flatten() for cell, _ in parts])
    if all(value is None for _, value in parts):
        counts.scatter_add_(0, cell, torch.ones_like(cell))
        return
    values = [torch.ones_like(cell) if value is None else value.expand_as(cell) for cell, value in parts]
    counts.scatter_add_(0, cell, torch.cat([value.flatten() for value in values]))


def _confusion_cells(layout: Layout, batch: Batch, where: Cells, rows: Sequence[int] | None) -> Iterator[Tensor]:
    """The cells ``(K, W, N, L)`` of the confusion, and of the sums where only the last coalition has a confusion."""
    predicted, target, skipped = batch.predicted.unsqueeze(1), batch.target, batch.skipped
    L, C, G, spare = layout.L, layout.C, layout.G, layout.fields["spare"][0]
    at = where.cell.unsqueeze(-1)  # (W, N, L)
    if L > 1:
        at = at * L + torch.arange(L, device=at.device)
    drop = any_of(None if where.absent is None else where.absent.unsqueeze(-1), batch.out)  # to (K, W, N, L)
    drop = any_of(drop, None if skipped is None else skipped[:, None, :, None])
    coalition = batch.coalitions(layout, rows).view(-1, 1, 1, 1)

    def kept(cell: Tensor, drop: Tensor | None) -> Tensor:
        return cell if drop is None else torch.where(drop, spare, cell)

    row = torch.add(target, at, alpha=C)
    if layout.full:
        cell = torch.add(predicted, row, alpha=C).add_(coalition * (G * L * C * C))
        if layout.answers:
            none = layout.fields["unanswered"][0] + coalition * (G * C) + row
            cell = torch.where(predicted < 0, none, cell)
        yield kept(cell, drop)
        return
    if layout.last and (rows is None or layout.K - 1 in rows):
        last = -1 if rows is None else list(rows).index(layout.K - 1)
        out = drop if skipped is None or drop is None else drop[last]
        yield kept(torch.add(predicted[last], row, alpha=C), any_of(out, predicted[last] < 0))
    start = layout.fields["sums"][0] + at * (3 * C) + coalition * (G * L * 3 * C)
    yield kept(start + predicted, any_of(drop, predicted != target))
    yield kept(start + C + predicted, any_of(drop, predicted < 0))
    yield kept(start + 2 * C + target, drop)


def _measure_cells(
    layout: Layout, batch: Batch, measures: Measures, where: Cells, rows: Sequence[int] | None
) -> Iterator[Scattered]:
    """The cells ``(K, W, N, H)`` of histograms, tables of confidence and sums, with what is added to each."""
    spare, G = layout.fields["spare"][0], layout.G
    cell = batch.coalitions(layout, rows).view(-1, 1, 1, 1) * G + where.cell.unsqueeze(-1)  # (K, W, N, 1)
    absent = None if where.absent is None else where.absent.unsqueeze(-1)

    def kept(name: str, offset: Tensor, H: int, value: Tensor | None = None) -> Scattered:
        offset = offset.unsqueeze(1) if offset.ndim == 3 else offset
        at = layout.fields[name][0] + offset
        dropped = batch.dropped(H)
        drop = any_of(None if dropped is None else dropped.unsqueeze(1), absent)
        at = at if drop is None else torch.where(drop, spare, at)
        return at, None if value is None else value.unsqueeze(1)

    def numbered(H: int) -> Tensor:
        return cell * H + torch.arange(H, device=cell.device)  # (K, W, N, H)

    if measures.bins is not None and measures.actual is not None:
        H, B = layout.curves, layout.bins
        yield kept("curves", (numbered(H) * 2 + measures.actual) * B + measures.bins.unsqueeze(1), H)
    if measures.tie is not None:
        pair = numbered(layout.curves) * 2
        yield kept("ties", pair, layout.curves, measures.tie)
        yield kept("ties", pair + 1, layout.curves, measures.tie * measures.tie)
    if measures.level is not None and measures.hit is not None and measures.confidence is not None:
        H = layout.levels
        at = (numbered(H) * LEVELS + measures.level.unsqueeze(1)) * 3
        for i, value in enumerate((None, measures.hit, measures.confidence)):
            yield kept("levels", at + i, H, value)
    if measures.totals is not None:
        yield kept("totals", numbered(len(layout.sums)), 1, measures.totals)


def _group_cells(layout: Layout, batch: Batch, where: Cells) -> Iterator[Scattered]:
    """The cells ``(W, N)`` of the table that counts groups: samples, their hashes and the hashes' squares, modulo 2^64.

    A place of the table that one group has to itself holds n·h and n·h²; two groups in one place do not.
    """
    assert batch.group is not None
    T, start, spare = layout.group_cells, layout.fields["groups"][0], layout.fields["spare"][0]
    hashed = mixed_numbers(batch.group)
    at = start + (where.cell * T + batch.group.remainder(T)) * 3
    drop = any_of(where.absent, batch.refused)
    for i, value in enumerate((torch.ones_like(hashed), hashed, hashed * hashed)):
        yield at + i if drop is None else torch.where(drop, spare, at + i), value


def _marks(index: Tensor, marks: int) -> Tensor:
    """``(N,)`` numbers of samples to ``(marks,)``: how many of them have each bit of their mixed number set."""
    bits = mixed_numbers(index).unsqueeze(1) >> torch.arange(marks, device=index.device) & 1
    return (bits * (index != COPY).unsqueeze(1)).sum(0)


def _hits(batch: Batch) -> tuple[Tensor, Tensor | None]:
    """``(K, N)`` which coalitions get all labels of a sample right; ``(N,)`` samples that can't be compared."""
    right = batch.predicted == batch.target
    right = right if batch.ignored is None else right | batch.ignored
    unpaired = any_of(batch.refused, None if batch.ignored is None else batch.ignored.all(-1))
    unpaired = any_of(unpaired, None if batch.skipped is None else batch.skipped.any(0))
    return right.squeeze(-1) if right.shape[-1] == 1 else right.all(-1), unpaired


def _hit_cells(layout: Layout, name: str, exact: Tensor, where: Cells, unpaired: Tensor | None) -> Tensor:
    """``(W, N)`` cells of the histogram over which coalitions are right."""
    pattern = (exact * powers_of_two(layout.K, exact.device).unsqueeze(1)).sum(0)
    cell = torch.add(pattern, where.cell, alpha=2**layout.K).add_(layout.fields[name][0])
    drop = any_of(unpaired, where.absent)
    return cell if drop is None else torch.where(drop, layout.fields["spare"][0], cell)


def _add_joint_hits(joint: Tensor, exact: Tensor, present: Tensor | None, unpaired: Tensor | None) -> None:
    """Add to ``(1 + M, K, K)``: samples right by i and wrong by j; the number of hits on the diagonal."""
    N = exact.shape[1]
    members = torch.ones(N, 1, device=exact.device)
    if present is not None:
        members = torch.cat([members, present.float()], dim=1)
    if unpaired is not None:
        members = members * ~unpaired.unsqueeze(1)
    with torch.autocast(exact.device.type, enabled=False):
        right = exact.float()  # 0 and 1: products are exact in any precision, sums in float32 up to 2**24 samples
        wrong = 1 - right
        for s in range(joint.shape[0]):
            weighted = right * members[:, min(s, members.shape[1] - 1)]
            batch = weighted @ wrong.T
            batch.diagonal().copy_(weighted.sum(1))
            joint[s] += batch.long()


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
