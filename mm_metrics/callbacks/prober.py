"""A module's answers to a few samples under every coalition, and which of its modules encode each modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.batch import read_key
from mm_metrics.callbacks.heads import as_heads, heard
from mm_metrics.callbacks.learning import Part, Shown, shown
from mm_metrics.callbacks.sharding import is_sharded, through_strategy
from mm_metrics.callbacks.subset import FixedSubset
from mm_metrics.counts.labels import Reader
from mm_metrics.modalities import Modalities
from mm_metrics.tasks import task_of


class Prober:
    """Looks at a module by ablation, or through its heads where it answers once a modality.

    `task` holds the arguments of `Reader`; the rest is named as in `ModalityDynamics`.
    """

    def __init__(
        self, inputs: Mapping[str, Any], modalities: Modalities, task: dict[str, Any], target: Any, presence: Any,
        predict: Callable[[Any, Any], Any] | None, baseline: Any, encoders: Any, seed: int, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.inputs, self.modalities, self.task = inputs, modalities, task
        self.target, self.presence, self.predict = target, presence, predict
        self.baseline, self.encoders, self.seed, self.say = baseline, encoders, seed, say
        self.forget()

    def forget(self) -> None:
        """Be ready for another module."""
        self.ablation: ModalityAblation | None = None
        self.heads: tuple[int, ...] | None = None

    def start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, subset: FixedSubset) -> None:
        """Answer a first batch, by which the encoders are found; `subset` is what a mean is taken of."""
        sharded = is_sharded(trainer.strategy)
        self.ablation = ModalityAblation(
            pl_module, self.inputs, predict=self.predict, baseline=self.baseline,
            encoders=None if sharded else self.encoders, presence=self.presence, seed=self.seed,
        )  # fmt: skip
        self.ablation.say = self.say
        if sharded:
            self.ablation.wrap(lambda predict: through_strategy(trainer.strategy, predict))
            self.say(f"{type(trainer.strategy).__name__} shards the model: gradients are not measured")
        if self.ablation.wants_means:
            for one in subset.batches(trainer, pl_module):
                self.ablation.add_to_means(one)
            self.ablation.use_means()
        with trainer.precision_plugin.forward_context():
            heads = as_heads(self.ablation.glimpse(batch), self.modalities)
            self.heads = None if heads is None else tuple(heads)
            self.ablation(batch)

    def found_encoders(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, list[Module]]:
        """The modules of each modality, named by the user or found; says which modality has none."""
        if self.encoders is None or self.ablation is None or is_sharded(trainer.strategy):
            return {}
        named = self.encoders if isinstance(self.encoders, Mapping) else self.ablation.encoders
        modules = dict(pl_module.named_modules())
        found = {
            modality: [modules[one] if isinstance(one, str) else one for one in _listed(names)]
            for modality, names in named.items()
        }
        missing = [name for name in self.modalities if name not in found]
        if missing:
            self.say(
                f"no encoder of {', '.join(missing)} was found, so their gradients are not measured: name them, "
                f"encoders={{{missing[0]!r}: 'module.name'}}"
            )
        return found

    def shown(self, trainer: Trainer, pl_module: LightningModule, subset: FixedSubset) -> Shown | None:
        """Every sample under every coalition; None without samples."""
        parts = [self._part(trainer, batch) for batch in subset.batches(trainer, pl_module)]
        if not parts:
            return None
        assert self.ablation is not None
        self.ablation.forget()
        return shown(self.modalities, self._task(parts[0].preds), self.heads or self.ablation.masks, parts)

    def _part(self, trainer: Trainer, batch: Any) -> Part:
        assert self.ablation is not None
        with trainer.precision_plugin.forward_context():
            if self.heads is None:
                preds = self.ablation(batch)
            else:
                preds = torch.stack(list((as_heads(self.ablation.raw(batch), self.modalities) or {}).values()))
        presence = None if self.presence is None else read_key(batch, self.presence)
        there = self.modalities.presence(presence, preds.shape[1], preds.device)
        counted = None if self.heads is None else heard(self.heads, self.modalities.full, there)
        return Part(preds, read_key(batch, self.target), there, counted).cpu()

    def _task(self, preds: Tensor) -> Reader:
        arguments = dict(self.task)
        if task_of(arguments["kind"]).by_class and arguments["num_classes"] is None:
            if preds.ndim < 3:
                raise ValueError(
                    "num_classes is None and no logits (N, C) to read it off: ModalityDynamics(num_classes=…)"
                )
            arguments["num_classes"] = preds.shape[-1]
        return Reader(**arguments)


def _listed(names: Any) -> tuple | list:
    return names if isinstance(names, tuple | list) else (names,)
