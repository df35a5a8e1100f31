"""What is kept of one loader during one epoch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.contents import Contents
from mm_metrics.callbacks.refused import Refused
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.truth import Rows
from mm_metrics.callbacks.units import Units
from mm_metrics.callbacks.waiting import Run, Waiting
from mm_metrics.counts.labels import Labels
from mm_metrics.counts.truth import read_truth
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.metrics.base import answered
from mm_metrics.sampler import GlobalIndex


class Loader:
    """What is kept of one loader during one epoch."""

    def __init__(self, metric: CoalitionConfusionMatrix, index: GlobalIndex, contents: Contents) -> None:
        self.metric, self.index, self.contents = metric, index, contents
        self.samples = SampleTracker(metric.modalities, metric.reader, metric.layout.masks or ())
        self.refused, self.units, self.waiting = Refused(), Units(), Waiting()
        self.book: Book | None = None
        self.pending: list[tuple[Tensor, Run, Labels]] = []  # on an accelerator, until it is known what could be scored
        self.batches = self.seen = 0
        self.range: Tensor | None = None  # of the scores, where they may be probabilities taken for logits

    def write(self, masks: tuple[int, ...], rows: Rows, labels: Labels) -> None:
        """Rows that were counted as these labels into the book."""
        if self.book is not None and len(rows.target):
            preds = rows.preds if rows.counted is None else answered(rows.preds, rows.counted)
            N, device = preds.shape[1], preds.device
            group = read_truth(self.metric.modalities, (), N, device, rows.target, group=rows.group).group
            self.book.add(masks, preds, labels, rows.slices, rows.numbers, group, rows.counted, rows.target, rows.by)

    def widen(self, preds: Tensor) -> None:
        """Remember the lowest and the highest score, without a stall."""
        if preds.dtype.is_floating_point and preds.numel():
            low, high = preds.float().aminmax()
            old = (low, high) if self.range is None else self.range.unbind()
            self.range = torch.stack([torch.minimum(low, old[0]), torch.maximum(high, old[1])])

    def warn_of_probabilities(self, say: Callable[[str], None]) -> None:
        """Say so where a whole epoch's scores, read as logits, look like probabilities."""
        low, high = (-1.0, 0.0) if self.range is None else self.range.tolist()
        if low >= 0 and high <= 1:
            say(
                f"all scores of this epoch lie in {low:.2f}…{high:.2f} and were read as logits: if they are "
                "probabilities, say ModalityMonitor(from_logits=False)"
            )
