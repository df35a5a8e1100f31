"""One stage's batches to counts: answers under every coalition, numbered, less copies, into a metric a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mm_metrics.ablation.batch import copied, tensors
from mm_metrics.callbacks.auto import Auto
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.contents import Contents
from mm_metrics.callbacks.loader import Loader
from mm_metrics.callbacks.prober import Prober, own_mask
from mm_metrics.callbacks.ranks import agreed, gathered, place, repeated
from mm_metrics.callbacks.refused import Refused
from mm_metrics.callbacks.samples import RANK
from mm_metrics.callbacks.thresholds import Thresholds
from mm_metrics.callbacks.truth import Truth, rows_of, truth_of
from mm_metrics.callbacks.units import Units
from mm_metrics.callbacks.waiting import Run
from mm_metrics.callbacks.watched import Watched
from mm_metrics.cells import unused_group
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.sampler import GlobalIndex
from mm_metrics.scorecard import Scorecard
from mm_metrics.tasks import task_of


@dataclass(eq=False)
class Counter:
    """Counts batches: `begin` an epoch, `watch` and `count` each batch, read the `cards`, `end`.

    `arguments` are those of the metric that are not of `Watched`; the rest is named as in `ModalityMonitor`.
    """

    watched: Watched
    arguments: dict[str, Any]
    every_n_epochs: int
    max_batches: int | None
    tolerant: bool  # samples that can't be scored are counted
    thresholds: Thresholds
    auto: Auto
    show: Mapping[str, Callable[[Any], Any]]
    say: Callable[[str], None]
    books: Path | None = None  # where the books of all samples lie, None for none
    loaders: dict[int, Loader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prober = Prober(self.watched, self.say, own_mask(self.watched, self.max_batches is not None))
        self.detach()

    def detach(self) -> None:
        """Let go of the model, the batches and the metrics: another run may bring others."""
        self.prober.forget()
        for loader in self.loaders.values():
            if loader.book is not None:
                loader.book.drop()
        self.loaders = {}
        self.unused_group: str | None = None  # a key of the batch that says whose a sample is
        self._before: tuple[Any, Truth | None] = (None, None)
        self._classes: dict[int, int] = {}  # of loaders of which a batch was counted
        self._means = self.prober.wants_means
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
            truth = Truth(*map(copied, vars(truth_of(self.watched, batch)).values()))  # the step may write into it
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
            if not self.tolerant or loader not in self._classes:
                raise  # what fails before any batch was counted is how the monitor was set up
            N = next((len(leaf) for leaf in tensors(batch).values() if leaf.ndim), 0)
            one = self.loader(trainer, pl_module, loader, None, self._classes[loader])
            one.index(N, torch.device("cpu"))
            one.seen += N
            one.refused.note(batch_idx, f"{type(error).__name__}: {error}", N, N)

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
            if n and self._counts:
                if self.auto.waits:
                    loader.waiting.note(found, n)
                if truth.unit is not None:
                    loader.units.take(shown.rows, rows, truth.unit)
                else:
                    loader.take_in(shown.rows, rows, batch_idx)
                    loader.contents.take(batch, N, first, n, loader.samples, shown.presence)
        except (LookupError, TypeError, ValueError):
            loader.index.seen, loader.index.batches = at  # `count` refuses the batch whole
            raise
        loader.batches, loader.seen, prober.begun = loader.batches + 1, loader.seen + n, True
        self._classes[i] = loader.metric.reader.C

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
        with torch.inference_mode(False), repeated(self.say):
            metric = CoalitionConfusionMatrix(
                modalities, task=reading.pop("kind"), coalitions=names, **reading, **self.arguments
            ).to(pl_module.device)
        contents = Contents(self.watched, self.show, self.say)
        loader = Loader(metric, index, contents, self.prober, self.auto, self.tolerant, self.arguments["max_bytes"])
        self.loaders[i] = loader
        if self.books is not None and not trainer.sanity_checking:
            name = stage_of(trainer) if i == 0 else f"{stage_of(trainer)}_{i}"
            loader.book = Book(self.books, name, trainer.global_rank, metric, self.say)
        return loader

    def cards(
        self, trainer: Trainer, pl_module: LightningModule, **info: Any
    ) -> Iterator[tuple[int, Loader, Scorecard, Refused]]:
        """Each loader's number, what was kept of it, its card, and what was refused; all ranks read them together."""
        batches = trainer.num_test_batches if stage_of(trainer) == "test" else trainer.num_val_batches
        first, waited = self.loaders[0].waiting.values if 0 in self.loaders else {}, self.auto.waits
        own = (
            self.prober.opinion,
            {column: [value.cpu() for value in values] for column, values in first.items()},
            any(one.waiting.full for one in self.loaders.values()),
            {i: (one.metric.reader.C, one.units) for i, one in self.loaders.items()},
        )
        heads, values, full, ranks = zip(*gathered(own), strict=True)
        self.prober.adopt(agreed("heads", heads))
        self.auto.cut(values)
        known = not any(full)
        if waited and not known:
            self.say(
                "by='auto': more answers than max_bytes wait for the cut points, so slices begin with the second epoch"
            )
        for i in range(len(batches) if isinstance(batches, list) else 1):
            C = agreed("numbers of classes", [loaders[i][0] for loaders in ranks if i in loaders])
            if C is None and self.watched.num_classes is None and task_of(self.watched.task).by_class:
                self.say(f"no batch of loader {i} came on any rank, so nothing was counted: its classes are not known")
                continue
            loader = self.loader(trainer, pl_module, i, None, C)
            units = sum((loaders[i][1] for loaders in ranks if i in loaders), Units())
            for rows in units.batches(self.prober.masks, trainer.global_rank, trainer.world_size):
                moved = self.auto.coded(rows.to(pl_module.device), known)
                loader.add(Run(self.prober.masks, moved, ((0, len(moved.target)),)))
            loader.count_waiting(known)
            loader.settle()
            if loader.book is not None:
                loader.book.finish(trainer)
            refused = sum(gathered(loader.refused), Refused())
            more = {"refused": refused.samples} if refused.samples else {}
            if refused.hidden and self.prober.heads is None:
                self.say(loader.hint(min(refused.hidden)))
            with repeated(self.say if known else lambda message: None):
                card = loader.metric.scorecard(**info, **self.auto.info(), **more)
            yield i, loader, card, refused

    def due(self, trainer: Trainer) -> bool:
        """Whether this epoch is ablated."""
        return bool(self.watched.masks) and trainer.current_epoch % self.every_n_epochs == 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, batches and counts of a run that is under way."""
        return {**vars(self), "loaders": {}, "_before": (None, None)}


def stage_of(trainer: Trainer) -> str:
    """Either val or test."""
    return "test" if trainer.testing else "val"
