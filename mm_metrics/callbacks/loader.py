"""One loader during one epoch: its batches are counted, several as one, and what can't be scored is set apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm_metrics.callbacks.auto import Auto
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.contents import Contents
from mm_metrics.callbacks.prober import Prober
from mm_metrics.callbacks.refused import Refused
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.truth import Rows
from mm_metrics.callbacks.units import Units
from mm_metrics.callbacks.waiting import Run, Waiting
from mm_metrics.counts.labels import Labels
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.sampler import GlobalIndex

_PENDING = 2**26  # bytes of answers that wait, on an accelerator, for the word whether all could be scored


@dataclass(eq=False)
class Loader:
    """What is kept of one loader during one epoch."""

    metric: CoalitionConfusionMatrix
    index: GlobalIndex
    contents: Contents
    prober: Prober
    auto: Auto
    tolerant: bool
    max_bytes: int
    refused: Refused = field(default_factory=Refused)
    units: Units = field(default_factory=Units)
    waiting: Waiting = field(default_factory=Waiting)
    pending: list[tuple[Tensor, Run, Labels]] = field(default_factory=list)  # until it is known what could be scored
    book: Book | None = None
    batches: int = 0
    seen: int = 0  # samples
    range: Tensor | None = None  # of the scores, where they may be probabilities taken for logits

    def __post_init__(self) -> None:
        self.samples = SampleTracker(self.metric)

    def take_in(self, masks: tuple[int, ...], rows: Rows, batch_idx: int) -> None:
        """Count a batch, or let it wait for others: for the cut points of slices, or since it is small."""
        waiting = self.waiting
        if self.auto.waits:
            self.metric.reader.read(rows.preds, rows.target, eager=False)  # what is wrong in form is refused here
            waiting.full |= waiting.bytes + rows.preds.nbytes > self.max_bytes
            waits = not waiting.full
        else:  # the first is counted at once, as it shows whether the monitor was set up well
            waits = self.tolerant and self.batches > 0 and not self.contents.show and waiting.takes(rows)
        waiting.add(masks, rows.copied() if waits else rows, batch_idx)
        if not waits:
            self.count_waiting(known=not self.auto.waits)

    def count_waiting(self, known: bool) -> None:
        """Count what waits; in none of the slices by cut points where those are not `known`."""
        for run in self.waiting.taken():
            self.add(run._replace(rows=self.auto.coded(run.rows, known)))

    def add(self, run: Run) -> None:
        """Count batches as one, or each by itself where one of them is at fault; refuse one that is all wrong."""
        if len(run.whose) > 1:
            try:
                labels = self._labels(run.masks, run.rows)
            except (LookupError, TypeError, ValueError):
                for part in run.parts():
                    self.add(part)
            else:
                self._keep(run, labels)
            return
        try:
            self._add_one(run)
        except (LookupError, TypeError, ValueError) as error:
            if not (self.tolerant and self.prober.begun):
                raise
            (batch_idx, n), each = run.whose[0], run.rows.each
            self.refused.note(batch_idx, f"{type(error).__name__}: {error}", n // each, n // each)

    def _add_one(self, run: Run) -> None:
        (masks, rows, whose), refused = run, Refused()
        try:
            labels = self._labels(masks, rows)
        except ValueError as error:
            good = self._take(refused, run)
            if good is None or not (self.tolerant or refused == Refused()) or self._hopeless(rows):
                raise self._explained(error, masks, rows.preds) from error
            self.refused += refused
            rows = rows.some(good)
            labels = self._labels(masks, rows)
        self._keep(Run(masks, rows, ((whose[0][0], len(rows.target)),)), labels)

    def _keep(self, run: Run, labels: Labels) -> None:
        """What else is known of rows that were counted."""
        (masks, rows, _), kind = run, self.metric.task
        if labels.bad_prediction is not None and labels.bad_target is not None and self.tolerant:
            odd = labels.bad_prediction | labels.bad_target  # (N,)
            self.pending.append((odd.any(), run, labels))
            labels = labels._replace(ignored=odd.unsqueeze(1) | (False if labels.ignored is None else labels.ignored))
            if sum(one.rows.preds.nbytes for _, one, _ in self.pending) > _PENDING or len(self.pending) >= 64:
                self.settle()
        else:
            self.write(masks, rows, labels)
        if not (kind.by_class or kind.ordinal) and self.prober.watched.from_logits:
            self.widen(rows.preds)
        if self.prober.own in masks and len(rows.target) and rows.each:
            self.samples.update(labels, masks, self.prober.own, rows)

    def _hopeless(self, rows: Rows) -> bool:
        """Whether the first batch of all has a coalition without one answer: that is no accident."""
        if self.prober.begun or not rows.preds.dtype.is_floating_point:
            return False
        return bool(rows.answers.isnan().reshape(*rows.preds.shape[:2], -1).any(-1).all(1).any())

    def _labels(self, masks: tuple[int, ...], rows: Rows) -> Labels:
        """Count the rows."""
        metric = self.metric
        at = [(metric.layout.masks or ()).index(mask) for mask in masks]
        return metric.count(
            rows.answers, rows.target, rows.slices, rows.numbers, rows.group, rows.by, rows=at, counted=rows.counted
        )

    def _take(self, refused: Refused, run: Run) -> Tensor | None:
        """Count what of a batch can't be scored as what it is; which rows can be, None where it is all of them."""
        layout, metric, (masks, rows, whose) = self.metric.layout, self.metric, run
        scored = bool(layout.curves or layout.levels or layout.sums)
        good, missed = refused.take(whose[0][0], masks, self.prober.own, rows, metric.reader, scored)
        if bool(good.all()):
            return None
        if len(missed.target) and self.tolerant:
            self.write(masks, missed, self._labels(masks, missed))
        return good

    def settle(self) -> None:
        """On an accelerator nothing was looked at yet: take what the metric had to refuse, by one look for many."""
        flags, view = [flag for flag, *_ in self.pending], self.metric.layout.view
        odd = torch.stack(flags).tolist() if flags else []
        for (_, run, labels), some in zip(self.pending, odd, strict=True):
            rows = run.rows
            if some:
                taken = [(self._take(self.refused, part), part.whose[0][1]) for part in run.parts()]
                whole = rows.preds.new_ones(rows.preds.shape[1], dtype=torch.bool)
                good = torch.cat([whole[:n] if which is None else which for which, n in taken])
                view(self.metric.counts, "samples").sub_((~good).sum())
                rows = rows.some(good)
                labels = self.metric.reader.read(rows.preds, rows.target, eager=False)
            self.write(run.masks, rows, labels)
        if any(odd):
            view(self.metric.counts, "refused").zero_()
        self.pending = []

    def _explained(self, error: ValueError, masks: tuple[int, ...], preds: Tensor) -> ValueError:
        """The same error, unless it is the hiding that makes the model answer NaN."""
        broken = preds.isnan().flatten(1).any(1).tolist() if preds.dtype.is_floating_point else []
        own = self.prober.own
        if not any(broken) or self.prober.heads is not None or own not in masks or broken[masks.index(own)]:
            return error
        return ValueError(self.hint(masks[broken.index(True)]))

    def hint(self, mask: int) -> str:
        """What to do where hiding all but one coalition breaks the model."""
        watched = self.prober.watched
        return (
            f"the model answers NaN when it is shown only {watched.modalities.name(mask)}, and does not when it "
            f"is shown all: what stands in for the others, baseline={watched.baseline!r}, is none that it can "
            "take, so give another"
        )

    def write(self, masks: tuple[int, ...], rows: Rows, labels: Labels) -> None:
        """Rows that were counted as these labels into the book."""
        if self.book is not None and len(rows.target):
            self.book.add(masks, rows, labels)

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
