"""One stage's batches to counts: answers under every coalition, numbered, less copies, into a metric a loader."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mm_metrics.ablation.batch import tensors
from mm_metrics.callbacks.auto import Auto
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.contents import Contents
from mm_metrics.callbacks.loader import Loader
from mm_metrics.callbacks.prober import Prober, Watched, own_mask
from mm_metrics.callbacks.ranks import agreed, gathered, place
from mm_metrics.callbacks.refused import Refused
from mm_metrics.callbacks.samples import RANK
from mm_metrics.callbacks.thresholds import Thresholds
from mm_metrics.callbacks.truth import Rows, Truth, rows_of, truth_of
from mm_metrics.callbacks.units import Units
from mm_metrics.callbacks.waiting import Run
from mm_metrics.cells import unused_group
from mm_metrics.counts.labels import Labels
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.metrics.base import answered
from mm_metrics.sampler import GlobalIndex
from mm_metrics.scorecard import Scorecard
from mm_metrics.tasks import task_of

_PENDING = 2**26  # bytes of answers that wait, on an accelerator, for the word whether all could be scored


class Counter:
    """Counts batches: `begin` an epoch, `watch` and `count` each batch, read the `cards`, `end`.

    ``metric`` holds the arguments of the metric that are not of `Watched`; the rest is named as in `ModalityMonitor`.
    """

    def __init__(
        self,
        watched: Watched,
        metric: dict[str, Any],
        every_n_epochs: int,
        max_batches: int | None,
        on_bad_values: str,
        thresholds: Thresholds,
        auto: Auto,
        show: Mapping[str, Callable[[Any], Any]],
        say: Callable[[str], None],
    ) -> None:
        self.watched, self.arguments, self.thresholds = watched, metric, thresholds
        self.auto, self.show, self.say = auto, show, say
        self.every_n_epochs, self.max_batches, self.tolerant = every_n_epochs, max_batches, on_bad_values == "count"
        self.prober = Prober(watched, say, own_mask(watched, max_batches is not None))
        self.books: Path | None = None  # where the books of all samples lie, None for none
        self.detach()

    def detach(self) -> None:
        """Let go of the model, the batches and the metrics: another run may bring others."""
        self.prober.forget()
        self.loaders: dict[int, Loader] = {}
        self.unused_group: str | None = None  # a key of the batch that says whose a sample is
        self._before: tuple[Any, Truth | None] = (None, None)
        self._means = self.prober.wants_means
        self._begun = False  # whether a batch was answered: what fails before is how the monitor was set up
        self._place, self._counts = (0, 1), True

    def begin(self, trainer: Trainer) -> None:
        """A new epoch; all ranks call it together."""
        self.loaders = {}
        self._place = place(trainer.strategy, trainer.global_rank, trainer.world_size)
        self._counts = True
        self.thresholds.begin(trainer)
        if self._place[1] != trainer.world_size:  # ranks that share their data: the first of them counts it
            self._counts = gathered(self._place[0]).index(self._place[0]) == trainer.global_rank
        if self.prober.ablation is not None:
            self.prober.ablation.begin()
        if self._means:
            self.prober.use_means()

    def end(self) -> None:
        """Let go of the epoch's last batch and of its counts: training needs the room."""
        self.loaders = {}
        if self.prober.ablation is not None:
            self.prober.ablation.forget()

    def train_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Keep the running means of the inputs, where they are the baseline."""
        if not self._means or self.prober.unlike:
            return
        try:
            self.prober.start(trainer, pl_module).add_to_means(batch)
        except (LookupError, TypeError, ValueError) as error:
            self.prober.unlike = True
            self.say(f"training batches have other inputs ({error}): the baseline is each validation batch's own mean")

    def watch(self, batch: Any, batch_idx: int, loader: int) -> None:
        """Before the user's own step: read the truth, and keep what the encoders give from here on."""
        truth = None
        with suppress(LookupError, TypeError, AttributeError):  # `count` reads it again, and raises
            truth = truth_of(self.watched, batch)
        self._before = (dict(batch) if type(batch) is dict else None), truth
        if self.prober.ablation is not None:
            self.prober.ablation.watch(batch_idx, loader)

    def unwatch(self) -> None:
        """Leave nothing behind on the module."""
        if self.prober.ablation is not None:
            self.prober.ablation.unwatch()

    def count(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, loader: int) -> None:
        """After the user's own step: the batch's answers under every coalition into the counts."""
        (before, truth), self._before = self._before, (None, None)
        if before is not None and len(batch) < len(before) and isinstance(batch, dict):
            batch = {**before, **batch}  # the step has popped entries
        self.prober.start(trainer, pl_module)
        empty = truth is not None and isinstance(truth.target, Tensor) and truth.target.ndim and not len(truth.target)
        if empty and not self.prober.meets(batch):
            return
        try:
            self._count(trainer, pl_module, batch, truth, batch_idx, loader)
        except (LookupError, TypeError, ValueError) as error:
            if not (self.tolerant and self._begun and loader in self.loaders):
                raise
            N = next((len(leaf) for leaf in tensors(batch).values() if leaf.ndim), 0)
            self.loaders[loader].index(N, torch.device("cpu"))
            self.loaders[loader].seen += N
            self.loaders[loader].refused.note(batch_idx, f"{type(error).__name__}: {error}", N, N)

    def _count(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, truth: Truth | None, batch_idx: int, i: int
    ) -> None:
        prober, loader = self.prober, self.loaders.get(i)
        truth = truth_of(self.watched, batch) if truth is None else truth
        batches = 0 if loader is None else loader.batches
        shown = prober(batch, self.due(trainer) and (self.max_batches is None or batches < self.max_batches))
        N, device, found = shown.preds.shape[1], shown.preds.device, self.auto.values(batch, shown)
        truth = replace(truth, by={**(truth.by or {}), **found}) if found else truth
        if loader is None:
            keys = batch if isinstance(batch, Mapping) and self.watched.group is None and truth.unit is None else ()
            self.unused_group = unused_group(keys)
            loader = self.loader(trainer, pl_module, i, rows_of(self.watched, shown, truth, None, N).preds)
        at = loader.index.seen, loader.index.batches
        numbers, n = loader.index(N, device)
        first = trainer.global_rank * RANK + loader.seen
        try:
            rows = rows_of(self.watched, shown, truth, numbers, n, first)
            if n and self._counts and truth.unit is not None:
                loader.units.take(shown.rows, rows, truth.unit)
        except (LookupError, TypeError, ValueError):
            loader.index.seen, loader.index.batches = at  # `count` refuses the batch whole
            raise
        if n and self._counts:
            if self.auto.waits:
                loader.waiting.note(found, n)
            if truth.unit is None:
                self._take_in(loader, shown.rows, rows, batch_idx)
                loader.contents.take(batch, N, first, n, loader.samples.places, shown.presence)
        loader.batches, loader.seen, self._begun = loader.batches + 1, loader.seen + n, True

    def _take_in(self, loader: Loader, masks: tuple[int, ...], rows: Rows, batch_idx: int) -> None:
        """Count a batch, or let it wait for others: for the cut points of slices, or since it is small."""
        waiting = loader.waiting
        if self.auto.waits:
            loader.metric.reader.read(rows.preds, rows.target, eager=False)  # what is wrong in form is refused here
            waiting.full |= waiting.bytes + rows.preds.nbytes > self.arguments["max_bytes"]
            waits = not waiting.full
        else:  # the first is counted at once, as it shows whether the monitor was set up well
            waits = self.tolerant and loader.batches > 0 and not self.show and waiting.takes(rows)
        waiting.add(masks, rows.copied() if waits else rows, batch_idx)
        if not waits:
            self._count_waiting(loader, known=not self.auto.waits)

    def _count_waiting(self, loader: Loader, known: bool) -> None:
        """Count what waits; in none of the slices by cut points where those are not `known`."""
        for run in loader.waiting.taken():
            self._add(loader, run._replace(rows=self.auto.coded(run.rows, known)))

    def _add(self, loader: Loader, run: Run) -> None:
        """Count batches as one, or each by itself where one of them is at fault; refuse one that is all wrong."""
        if len(run.whose) > 1:
            try:
                labels = self._labels(loader, run.masks, run.rows)
            except (LookupError, TypeError, ValueError):
                for part in run.parts():
                    self._add(loader, part)
            else:
                self._keep(loader, run, labels)
            return
        try:
            self._add_one(loader, run)
        except (LookupError, TypeError, ValueError) as error:
            if not (self.tolerant and self._begun):
                raise
            (batch_idx, n), each = run.whose[0], run.rows.each
            loader.refused.note(batch_idx, f"{type(error).__name__}: {error}", n // each, n // each)

    def _add_one(self, loader: Loader, run: Run) -> None:
        (masks, rows, whose), refused = run, Refused()
        try:
            labels = self._labels(loader, masks, rows)
        except ValueError as error:
            good = self._take(refused, run, loader)
            if good is None or not (self.tolerant or refused == Refused()) or self._hopeless(rows):
                raise self._explained(error, masks, rows.preds) from error
            loader.refused += refused
            rows = rows.some(good)
            labels = self._labels(loader, masks, rows)
        self._keep(loader, Run(masks, rows, whose), labels)

    def _keep(self, loader: Loader, run: Run, labels: Labels) -> None:
        """What else is known of rows that were counted."""
        metric, (masks, rows, _) = loader.metric, run
        if labels.bad_prediction is not None and labels.bad_target is not None and self.tolerant:
            odd = labels.bad_prediction | labels.bad_target  # (N,)
            loader.pending.append((odd.any(), run, labels))
            labels = labels._replace(ignored=odd.unsqueeze(1) | (False if labels.ignored is None else labels.ignored))
            if sum(one.rows.preds.nbytes for _, one, _ in loader.pending) > _PENDING or len(loader.pending) >= 64:
                self._settle(loader)
        else:
            loader.write(masks, rows, labels)
        if not (metric.task.by_class or metric.task.ordinal) and self.watched.from_logits:
            loader.widen(rows.preds)
        if self.prober.own in masks and len(rows.target) and rows.each:
            loader.samples.update(labels, masks, self.prober.own, rows)

    def _hopeless(self, rows: Rows) -> bool:
        """Whether the first batch of all has a coalition without one answer: that is no accident."""
        if self._begun or not rows.preds.dtype.is_floating_point:
            return False
        preds = rows.preds if rows.counted is None else answered(rows.preds, rows.counted)
        return bool(preds.isnan().reshape(*preds.shape[:2], -1).any(-1).all(1).any())

    def _labels(self, loader: Loader, masks: tuple[int, ...], rows: Rows) -> Labels:
        metric = loader.metric
        at = [(metric.layout.masks or ()).index(mask) for mask in masks]
        preds = rows.preds if rows.counted is None else answered(rows.preds, rows.counted)
        return metric.count(
            preds, rows.target, rows.slices, rows.numbers, rows.group, rows.by, rows=at, counted=rows.counted
        )

    def _take(self, refused: Refused, run: Run, loader: Loader) -> Tensor | None:
        """Count what of a batch can't be scored as what it is; which rows can be, None where it is all of them."""
        layout, metric, (masks, rows, whose) = loader.metric.layout, loader.metric, run
        scored = bool(layout.curves or layout.levels or layout.sums)
        good, missed = refused.take(whose[0][0], masks, self.prober.own, rows, metric.reader, scored)
        if bool(good.all()):
            return None
        if len(missed.target) and self.tolerant:
            loader.write(masks, missed, self._labels(loader, masks, missed))
        return good

    def _settle(self, loader: Loader) -> None:
        """On an accelerator nothing was looked at yet: take what the metric had to refuse, by one look for many."""
        flags, view = [flag for flag, *_ in loader.pending], loader.metric.layout.view
        odd = torch.stack(flags).tolist() if flags else []
        for (_, run, labels), some in zip(loader.pending, odd, strict=True):
            rows = run.rows
            if some:
                taken = [(self._take(loader.refused, part, loader), part.whose[0][1]) for part in run.parts()]
                whole = rows.preds.new_ones(rows.preds.shape[1], dtype=torch.bool)
                good = torch.cat([whole[:n] if which is None else which for which, n in taken])
                view(loader.metric.counts, "samples").sub_((~good).sum())
                rows = rows.some(good)
                labels = loader.metric.reader.read(rows.preds, rows.target, eager=False)
            loader.write(run.masks, rows, labels)
        if any(odd):
            view(loader.metric.counts, "refused").zero_()
        loader.pending = []

    def _explained(self, error: ValueError, masks: tuple[int, ...], preds: Tensor) -> ValueError:
        """The same error, unless it is the hiding that makes the model answer NaN."""
        broken = preds.isnan().flatten(1).any(1).tolist() if preds.dtype.is_floating_point else []
        own = self.prober.own
        if not any(broken) or self.prober.heads is not None or own not in masks or broken[masks.index(own)]:
            return error
        return ValueError(self._hint(masks[broken.index(True)]))

    def _hint(self, mask: int) -> str:
        return (
            f"the model answers NaN when it is shown only {self.watched.modalities.name(mask)}, and does not when it "
            f"is shown all: what stands in for the others, baseline={self.watched.baseline!r}, is none that it can "
            "take, so give another"
        )

    def loader(
        self, trainer: Trainer, pl_module: LightningModule, i: int, preds: Tensor | None, C: int | None = None
    ) -> Loader:
        """What is kept of a loader; made at its first batch, or at the end where this rank saw none."""
        if i in self.loaders:
            return self.loaders[i]
        modalities, reading = self.watched.modalities, self.watched.reading(preds, C) | self.thresholds.reading()
        names = [modalities.name(mask) for mask in self.prober.masks]
        loaders = trainer.test_dataloaders if stage_of(trainer) == "test" else trainer.val_dataloaders
        index = GlobalIndex(tree_leaves(loaders)[i], *self._place, self.say)
        # What is made in inference mode can't be counted into outside it; what is left out is said once a run.
        with torch.inference_mode(False), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            metric = CoalitionConfusionMatrix(
                modalities, task=reading.pop("kind"), coalitions=names, **reading, **self.arguments
            ).to(pl_module.device)
        for warning in said:
            self.say(str(warning.message))
        self.loaders[i] = loader = Loader(metric, index, Contents(self.watched, self.show, self.say))
        if self.books is not None and not trainer.sanity_checking:
            name = stage_of(trainer) if i == 0 else f"{stage_of(trainer)}_{i}"
            loader.book = Book(self.books, name, trainer.global_rank, metric)
        return loader

    def cards(
        self, trainer: Trainer, pl_module: LightningModule, **info: Any
    ) -> Iterator[tuple[int, Loader, Scorecard, Refused]]:
        """Each loader's number, what was kept of it, its card, and what was refused; all ranks read them together."""
        batches = trainer.num_test_batches if stage_of(trainer) == "test" else trainer.num_val_batches
        first, waited = self.loaders[0].waiting.values if 0 in self.loaders else {}, self.auto.waits
        facts = gathered(
            (
                self.prober.opinion,
                {i: (one.metric.reader.C, one.units) for i, one in self.loaders.items()},
                {column: [value.cpu() for value in values] for column, values in first.items()},
                any(one.waiting.full for one in self.loaders.values()),
            )
        )
        self.prober.adopt(agreed("heads", [fact[0] for fact in facts]))
        self.auto.cut([fact[2] for fact in facts])
        known, facts = not any(fact[3] for fact in facts), [fact[:2] for fact in facts]
        if waited and not known:
            self.say(
                "by='auto': more answers than max_bytes wait for the cut points, so slices begin with the second epoch"
            )
        for i in range(len(batches) if isinstance(batches, list) else 1):
            C = agreed("numbers of classes", [loaders[i][0] for _, loaders in facts if i in loaders])
            if C is None and self.watched.num_classes is None and task_of(self.watched.task).by_class:
                self.say(f"no batch of loader {i} came on any rank, so nothing was counted: its classes are not known")
                continue
            loader = self.loader(trainer, pl_module, i, None, C)
            units = sum((loaders[i][1] for _, loaders in facts if i in loaders), Units())
            for rows in units.batches(self.prober.masks, trainer.global_rank, trainer.world_size):
                moved = self.auto.coded(rows.to(pl_module.device), known)
                self._add(loader, Run(self.prober.masks, moved, ((0, len(moved.target)),)))
            self._count_waiting(loader, known)
            self._settle(loader)
            if loader.book is not None:
                loader.book.finish(trainer)
            refused = sum(gathered(loader.refused), Refused())
            if refused.samples:
                info = {**info, "refused": refused.samples}
            if refused.hidden and self.prober.heads is None:
                self.say(self._hint(min(refused.hidden)))
            yield i, loader, loader.metric.scorecard(**info, **self.auto.info()), refused

    def due(self, trainer: Trainer) -> bool:
        """Whether this epoch is ablated."""
        return bool(self.watched.masks) and trainer.current_epoch % self.every_n_epochs == 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, batches and counts of a run that is under way."""
        return {**vars(self), "loaders": {}, "_before": (None, None)}


def stage_of(trainer: Trainer) -> str:
    """Either val or test."""
    return "test" if trainer.testing else "val"
