"""One stage's batches to counts: predictions under every coalition, numbered, less copies, into a metric a loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.baselines import named_baselines
from mm_metrics.ablation.batch import read_key
from mm_metrics.callbacks.heads import as_heads, heard
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.sharding import is_sharded, through_strategy
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.metrics.base import answered
from mm_metrics.modalities import UNHIDDEN, Modalities
from mm_metrics.sampler import GlobalIndex


class Loader:
    """What is kept of one loader during one epoch."""

    def __init__(self, metric: CoalitionConfusionMatrix, index: GlobalIndex, samples: SampleTracker) -> None:
        self.metric, self.index, self.samples = metric, index, samples
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


class BatchCounter:
    """Predicts a batch under every coalition and counts it.

    `arguments` are those of the metric; the rest is named as in `ModalityMonitor`.
    """

    def __init__(
        self, inputs: Mapping[str, Any], modalities: Modalities, masks: tuple[int, ...], arguments: dict[str, Any],
        target: Any, presence: Any, slices: Any, predict: Callable[[Any, Any], Any] | str | None,
        baseline: Any, encoders: Any,
        every_n_epochs: int, max_batches: int | None, say: Callable[[str], None], verify: int = 1,
    ) -> None:  # fmt: skip
        self.inputs, self.modalities, self.masks, self.arguments = inputs, modalities, masks, arguments
        self.target, self.presence, self.slices = target, presence, slices
        self.predict, self.baseline, self.encoders = predict, baseline, encoders
        self.every_n_epochs, self.max_batches, self.say, self.verify = every_n_epochs, max_batches, say, verify
        self.ablation: ModalityAblation | None = None
        self.head_masks: tuple[int, ...] | None = None  # where the model answers once per modality
        self._looked = False
        self.loaders: dict[int, Loader] = {}
        self._metrics: dict[tuple[str, int], CoalitionConfusionMatrix] = {}
        self._means: Mapping[Any, Tensor] = {}  # of the training batches, for a test that follows the training
        self._training_tells = "mean" in str(named_baselines(baseline))

    def detach(self) -> None:
        """Let go of the model, the batches and the metrics: another run may bring others."""
        if self.ablation is not None:
            self.ablation.unwatch()
            self._means = self.ablation.means
        self.ablation, self.head_masks, self._looked = None, None, False
        self.loaders, self._metrics = {}, {}

    def begin(self, trainer: Trainer) -> None:
        """A new epoch; all ranks call it together."""
        self.loaders = {}
        if self.ablation is not None:
            self.ablation.begin()
        if self.ablation is not None and self.ablation.wants_means:
            self.ablation.use_means(lambda part: trainer.strategy.reduce(part, reduce_op="sum"))

    def end(self) -> None:
        """Let go of the epoch's last batch: training needs the room."""
        if self.ablation is not None:
            self.ablation.forget()

    def train_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Keep the running means of the inputs, where they are the baseline."""
        if not self._training_tells:
            return
        if self.ablation is None:
            self.ablation = self._ablation(trainer, pl_module)
        try:
            self.ablation.add_to_means(batch)
        except (LookupError, TypeError, ValueError) as error:
            self._training_tells = False
            self.say(f"training batches have other inputs ({error}): the baseline is each validation batch's own mean")

    def watch(self, batch_idx: int, dataloader_idx: int) -> None:
        """Keep what the encoders give while the user's own step runs."""
        if self.ablation is not None:
            self.ablation.watch(batch_idx, dataloader_idx)

    def unwatch(self) -> None:
        """Leave nothing behind on the module."""
        if self.ablation is not None:
            self.ablation.unwatch()

    def count(self, trainer: Trainer, pl_module: LightningModule, batch: Any, loader_index: int, stage: str) -> None:
        """Predict one batch under every coalition, and count it."""
        self.unwatch()
        with trainer.precision_plugin.forward_context():
            if self.ablation is None:
                self.ablation = self._ablation(trainer, pl_module)
            heads: dict[int, Tensor] | None = None
            if not self._looked:
                heads = as_heads(self.ablation.glimpse(batch), self.modalities)
                self._looked = True
                if heads is not None:
                    self.head_masks = tuple(sorted({*heads, self.modalities.full}))
                    if self.modalities.full not in heads:
                        self.say(
                            f"predict gives heads for {', '.join(self.modalities.name(mask) for mask in heads)} and no "
                            "'all', so what is said of the whole is NaN: return {'all': fused logits, ...}"
                        )
            presence = None if self.presence is None else read_key(batch, self.presence)
            if self.head_masks is None:
                rows, preds = self._ablated(trainer, batch, presence, loader_index)
            else:
                heads = heads or as_heads(self.ablation.raw(batch), self.modalities) or {}
                rows, preds = list(heads), torch.stack(list(heads.values()))
        target = read_key(batch, self.target)
        loader = self.loader(trainer, pl_module, stage, loader_index, preds)
        index, n = loader.index(preds.shape[1], preds.device)
        loader.batches += 1
        where = None if self.slices is None else read_key(batch, self.slices)
        where = self.modalities.presence(where, preds.shape[1], preds.device)
        counted = None
        if self.head_masks is not None:
            has = self.modalities.presence(presence, preds.shape[1], preds.device)
            counted = heard(tuple(rows), self.modalities.full, has)
        preds = preds if counted is None else answered(preds, counted)
        if n < preds.shape[1]:  # a distributed sampler's copies
            preds, target = preds[:, :n], target[:n]
            where = None if where is None else where[:n]
            counted = None if counted is None else counted[:, :n]
        if n == 0:
            return
        masks = loader.metric.layout.masks or ()
        which = [masks.index(mask) for mask in rows]
        try:
            labels = loader.metric._count(preds, target, where, index, which, counted)
        except ValueError as error:
            raise self._explained(error, rows, preds) from error
        if self.arguments["task"] != "multiclass" and self.arguments["from_logits"]:
            loader.widen(preds)
        if index is not None and self._own_mask() in rows:
            loader.samples.update(
                labels.predicted[rows.index(self._own_mask())],
                labels,
                {mask: k for k, mask in enumerate(rows)},
                self.modalities.full,
                index,
                where,
            )

    def _ablation(self, trainer: Trainer, pl_module: LightningModule) -> ModalityAblation:
        sharded = is_sharded(trainer.strategy)
        ablation = ModalityAblation(
            pl_module, self.inputs, predict=self.predict, baseline=self.baseline,
            encoders=None if sharded else self.encoders, presence=self.presence,
            coalitions=[self.modalities.name(mask) for mask in self.masks] or ["all"], seed=self.arguments["seed"],
            verify=self.verify,
        )  # fmt: skip
        ablation.say, ablation.means = self.say, self._means
        if sharded:
            ablation.wrap(lambda predict: through_strategy(trainer.strategy, predict))
            self.say(f"{type(trainer.strategy).__name__} shards the model: inputs are hidden, with whole forwards")
        return ablation

    def _explained(self, error: ValueError, rows: list[int], preds: Tensor) -> ValueError:
        """The same error, unless it is the hiding that makes the model answer NaN."""
        broken = preds.isnan().flatten(1).any(1).tolist() if preds.dtype.is_floating_point else []
        own = self._own_mask()
        if not any(broken) or self.head_masks is not None or own not in rows or broken[rows.index(own)]:
            return error
        name = self.modalities.name(rows[broken.index(True)])
        return ValueError(
            f"the model answers NaN when it is shown only {name}, and does not when it is shown all: what stands in "
            f"for the others, baseline={self.baseline!r}, is none that it can take, so give another"
        )

    def _ablated(self, trainer: Trainer, batch: Any, presence: Any, loader_index: int) -> tuple[list[int], Tensor]:
        """The masks and the predictions ``(K, N, ...)`` of this batch."""
        assert self.ablation is not None
        loader = self.loaders.get(loader_index)
        batches = 0 if loader is None else loader.batches
        due = self.due(trainer) and (self.max_batches is None or batches < self.max_batches)
        own = self._own_mask()
        if not due:
            return [own], self.ablation.predict(batch).unsqueeze(0)
        shown = self.ablation(batch)
        if own in self.masks:
            return list(self.masks), shown
        return [*self.masks, own], torch.cat([shown, self.ablation.predict(batch).unsqueeze(0).to(shown.dtype)])

    def _own_mask(self) -> int:
        """The row of the model's own predictions: that of all, unless absent modalities or batches set them apart."""
        if self.head_masks is not None:
            return self.modalities.full
        same = self.presence is None and self.max_batches is None
        return (
            self.modalities.full
            if not self.masks or (same and self.modalities.full in self.masks)
            else self.modalities.mask(UNHIDDEN)
        )

    def loader(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, loader_index: int, preds: Tensor | None
    ) -> Loader:
        """What is kept of a loader; made at its first batch, or at the end where this rank saw none."""
        if loader_index in self.loaders:
            return self.loaders[loader_index]
        key = (stage, loader_index)
        if key not in self._metrics:
            arguments = dict(self.arguments)
            if arguments["task"] == "multiclass" and arguments["num_classes"] is None:
                if preds is None or preds.ndim < 3:
                    raise ValueError(
                        "num_classes is None and no logits (N, C) to read it off: ModalityMonitor(num_classes=…)"
                    )
                arguments["num_classes"] = preds.shape[-1]
            masks = self.head_masks or tuple(dict.fromkeys((*self.masks, self._own_mask())))
            names = [self.modalities.name(mask) for mask in masks]
            self._metrics[key] = CoalitionConfusionMatrix(self.modalities.names, coalitions=names, **arguments)
        metric = self._metrics[key].to(pl_module.device)
        metric.reset()
        dataloaders = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
        index = GlobalIndex(_nth(dataloaders, loader_index), trainer.global_rank, trainer.world_size, self.say)
        task = self.arguments["task"]
        loader = Loader(metric, index, SampleTracker(self.modalities.names, task == "binary"))
        self.loaders[loader_index] = loader
        return loader

    def due(self, trainer: Trainer) -> bool:
        """Whether this epoch is ablated."""
        return bool(self.masks) and self.head_masks is None and trainer.current_epoch % self.every_n_epochs == 0


def _nth(loaders: Any, i: int) -> Any:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    return loaders[i] if isinstance(loaders, list | tuple) else loaders
