"""Room for answers that are no class at all: a last class, or label, named ``(other)``.

A generative model asked for one of five events may answer with a sixth. That answer is a miss of its actual class, so
it has to stay in the confusion. But ``(other)`` is no class that could be found: it has predictions and never a sample,
so in a macro mean it would count as a class that is always missed, and one stray answer among thousands would turn
five classes at 0.90 into a mean of 0.75. Scores therefore read the class sums without it: recall and accuracy count
the miss, precision is over the answers that name a class, and the mean is over the real classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from mm_metrics.counts.counted import Counted
from mm_metrics.counts.layout import Layout
from mm_metrics.tasks import OTHER, Task

T = TypeVar("T", bound=Counted)


def opened(card: T) -> T:
    """The same counts with room for answers that are no class."""
    if card.other:
        return card
    layout, fresh = card.layout, _resized(card.layout, card.kind, +1)
    counts = _copied(card.counts, layout, fresh)
    if card.kind.by_label:  # the label (other) is on in no target and in no prediction so far
        confusion = fresh.view(counts, "confusion")
        confusion[:, :, -1, 0, 0] = layout.view(card.counts, "confusion")[:, :, 0].sum((-2, -1))
        if "sums" in fresh.fields:
            actual = layout.view(card.counts, "sums")[:, :, 0, 2].sum(-1)
            fresh.view(counts, "sums")[:, :, -1, :, 0] = actual.unsqueeze(-1)
        if "replicates" in fresh.fields:
            actual = layout.view(card.counts, "replicates")[:, 0, 2].sum(1)  # (K, S, R)
            fresh.view(counts, "replicates")[:, -1, :, 0] = actual.unsqueeze(1)
    return replace(card, layout=fresh, counts=counts, class_names=(*card.names, OTHER), added=card.parts)


def closed(card: T) -> T:
    """The same counts without ``(other)`` where no answer fell there: as if the classes had been closed all along."""
    if not card.other or card.judged or any(map(card.outside, card.coalitions)):
        return card
    layout = _resized(card.layout, card.kind, -1)
    numbered = card.names == tuple(map(str, range(len(card.names))))
    counts = _copied(card.counts, card.layout, layout)
    return replace(card, layout=layout, counts=counts, class_names=None if numbered else card.names, added=card.parts)


def _resized(layout: Layout, task: Task, by: int) -> Layout:
    return replace(layout, L=layout.L + by) if task.by_label else replace(layout, C=layout.C + by)


def _copied(counts: Tensor, layout: Layout, fresh: Layout) -> Tensor:
    """The counts of the cells that both layouts have."""
    result = counts.new_zeros(fresh.size)
    for name in fresh.fields:
        old, new = layout.view(counts, name), fresh.view(result, name)
        common = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
        new[common] = old[common]
    return result
