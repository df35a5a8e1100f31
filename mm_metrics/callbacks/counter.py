"""One stage's batches to counts: answers under every coalition, numbered, less copies, into a metric a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mm_metrics.callbacks.prober import Prober, Watched, own_mask
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.truth import Rows, Truth, rows_of, truth_of
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.metrics.base import answered
from mm_metrics.sampler import GlobalIndex


class Loader:
    """What is kept of one loader during one epoch."""

    def __init__(self, metric: CoalitionConfusionMatrix, index: GlobalIndex) -> None:
        self.metric, self.index = metric, index
        self.samples = SampleTracker(metric.modalities.names, metric.task.positive)
        self.batches = 0
        self.range: Tensor | None = None  # of the scores, where they may be probabilities taken for logits

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


class Counter:
    """Counts batches: `begin` an epoch, `watch` and `count` each batch, read the `loaders`, `end`.

    ``metric`` holds the arguments of the metric that are not of `Watched`; the rest is named as in `ModalityMonitor`.
    """

    def __init__(
        self,
        watched: Watched,
        metric: dict[str, Any],
        every_n_epochs: int,
        max_batches: int | None,
        say: Callable[[str], None],
    ) -> None:
        self.watched, self.arguments, self.say = watched, metric, say
        self.every_n_epochs, self.max_batches = every_n_epochs, max_batches
        self.prober = Prober(watched, say, own_mask(watched, max_batches is not None))
        self.loaders: dict[int, Loader] = {}
        self._truth: Truth | None = None
        self._means = self.prober.wants_means

    def detach(self) -> None:
        """Let go of the model, the batches and the metrics: another run may bring others."""
        self.prober.forget()
        self.loaders, self._truth = {}, None
        self._means = self.prober.wants_means

    def begin(self, trainer: Trainer) -> None:
        """A new epoch; all ranks call it together."""
        self.loaders = {}
        ablation = self.prober.ablation
        if ablation is not None:
            ablation.begin()
            if ablation.wants_means:
                ablation.use_means(lambda part: trainer.strategy.reduce(part, reduce_op="sum"))

    def end(self) -> None:
        """Let go of the epoch's last batch and of its counts: training needs the room."""
        self.loaders = {}
        if self.prober.ablation is not None:
            self.prober.ablation.forget()

    def train_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Keep the running means of the inputs, where they are the baseline."""
        if not self._means:
            return
        try:
            self.prober.start(trainer, pl_module).add_to_means(batch)
        except (LookupError, TypeError, ValueError) as error:
            self._means = False
            self.say(f"training batches have other inputs ({error}): the baseline is each validation batch's own mean")

    def watch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, loader: int) -> None:
        """Before the user's own step: read the truth, and keep what the encoders give from here on."""
        self._truth = truth_of(self.watched, batch)
        if self.prober.ablation is not None:
            self.prober.ablation.watch(batch_idx, loader)

    def unwatch(self) -> None:
        """Leave nothing behind on the module."""
        if self.prober.ablation is not None:
            self.prober.ablation.unwatch()

    def count(self, trainer: Trainer, pl_module: LightningModule, batch: Any, loader_index: int) -> None:
        """After the user's own step: the batch's answers under every coalition into the counts."""
        self.unwatch()
        prober = self.prober
        prober.start(trainer, pl_module)
        truth, self._truth = self._truth, None
        truth = truth_of(self.watched, batch) if truth is None else truth
        loader = self.loaders.get(loader_index)
        batches = 0 if loader is None else loader.batches
        shown = prober(batch, self.due(trainer) and (self.max_batches is None or batches < self.max_batches))
        if loader is None:
            loader = self.loader(trainer, pl_module, loader_index, shown.preds)
        loader.batches += 1
        index, n = loader.index(shown.preds.shape[1], shown.preds.device)
        if n:
            self._add(loader, shown.rows, rows_of(self.watched, shown, truth, index, n))

    def _add(self, loader: Loader, masks: tuple[int, ...], rows: Rows) -> None:
        metric, own = loader.metric, self.prober.own
        preds = rows.preds if rows.counted is None else answered(rows.preds, rows.counted)
        at = [(metric.layout.masks or ()).index(mask) for mask in masks]
        try:
            labels = metric.count(preds, rows.target, rows.slices, rows.numbers, rows=at, counted=rows.counted)
        except ValueError as error:
            raise self._explained(error, masks, preds) from error
        if not metric.task.by_class and self.watched.from_logits:
            loader.widen(preds)
        if rows.numbers is not None and own in masks:
            places = {mask: k for k, mask in enumerate(masks)}
            loader.samples.update(labels, places[own], places, rows.numbers, rows.slices)

    def _explained(self, error: ValueError, masks: tuple[int, ...], preds: Tensor) -> ValueError:
        """The same error, unless it is the hiding that makes the model answer NaN."""
        broken = preds.isnan().flatten(1).any(1).tolist() if preds.dtype.is_floating_point else []
        own = self.prober.own
        if not any(broken) or self.prober.heads is not None or own not in masks or broken[masks.index(own)]:
            return error
        name = self.watched.modalities.name(masks[broken.index(True)])
        return ValueError(
            f"the model answers NaN when it is shown only {name}, and does not when it is shown all: what stands in "
            f"for the others, baseline={self.watched.baseline!r}, is none that it can take, so give another"
        )

    def loader(self, trainer: Trainer, pl_module: LightningModule, loader_index: int, preds: Tensor | None) -> Loader:
        """What is kept of a loader; made at its first batch, or at the end where this rank saw none."""
        if loader_index in self.loaders:
            return self.loaders[loader_index]
        modalities, reading = self.watched.modalities, self.watched.reading(preds)
        names = [modalities.name(mask) for mask in self.prober.masks]
        dataloaders = trainer.test_dataloaders if stage_of(trainer) == "test" else trainer.val_dataloaders
        index = GlobalIndex(_nth(dataloaders, loader_index), trainer.global_rank, trainer.world_size, self.say)
        with torch.inference_mode(False):  # what is made in inference mode can't be counted into outside it
            metric = CoalitionConfusionMatrix(
                modalities, task=reading.pop("kind"), coalitions=names, **reading, **self.arguments
            ).to(pl_module.device)
        self.loaders[loader_index] = loader = Loader(metric, index)
        return loader

    def finished(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[tuple[int, Loader]]:
        """Every loader of the epoch with its number; all ranks go through them together."""
        batches = trainer.num_test_batches if stage_of(trainer) == "test" else trainer.num_val_batches
        for i in range(len(batches) if isinstance(batches, list) else 1):
            yield i, self.loader(trainer, pl_module, i, None)

    def due(self, trainer: Trainer) -> bool:
        """Whether this epoch is ablated."""
        return bool(self.watched.masks) and trainer.current_epoch % self.every_n_epochs == 0


def stage_of(trainer: Trainer) -> str:
    """Either val or test."""
    return "test" if trainer.testing else "val"


def _nth(loaders: Any, i: int) -> Any:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    return loaders[i] if isinstance(loaders, list | tuple) else loaders
