"""What counts must be to one another, whoever wrote them: parts of a card that contradict each other are found."""

from __future__ import annotations

from torch import Tensor

from mm_metrics.counts.layout import Layout
from mm_metrics.scores import ClassSums


def contradiction(layout: Layout, counts: Tensor) -> str | None:
    """The first of a buffer's contradictions in words, None where there is none.

    >>> import torch
    >>> from mm_metrics.modalities import Modalities
    >>> layout = Layout(Modalities(("text",)), C=2)
    >>> contradiction(layout, torch.ones(layout.size, dtype=torch.int64))
    'the last coalition answered 8 samples of 1 that were seen'
    """
    sums, samples = layout.cell_sums(counts), int(layout.view(counts, "samples"))  # (K, G, L, C) each
    if problem := _of_sums(sums):
        return problem
    actual = sums.actual.sum(-1).unflatten(1, (layout.base, layout.V))  # (K, base, V, L)
    if not layout.patterns and bool((actual[:, 1:] > actual[:, :1]).any()):
        return "a slice holds more samples than the whole"
    seen = int((actual.sum(1) if layout.patterns else actual[:, 0])[-1].sum(0).max())
    if seen > samples:
        return f"the last coalition answered {seen} samples of {samples} that were seen"
    if layout.hit_patterns and int(layout.hits(counts).sum()) > samples * (1 if layout.patterns else layout.base):
        return f"more than {samples} samples were compared, and no more were seen"
    if int(layout.view(counts, "refused").sum()):
        return "samples were refused, and of such counts no card is made"
    return _of_sums(ClassSums(*layout.view(counts, "replicates").unbind(2)), 2) if layout.R else None


def _of_sums(sums: ClassSums, classes: int = -1) -> str | None:
    """`classes` is the axis C."""
    if bool((sums.hits > sums.predicted).any()) or bool((sums.hits > sums.actual).any()):
        return "a class has more hits than predictions, or than samples"
    if bool((sums.predicted.sum(classes) > sums.actual.sum(classes)).any()):
        return "there are more predictions than samples"
    return None
