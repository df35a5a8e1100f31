"""How a module answers a batch: under every coalition, or through its heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.baselines import named_baselines
from mm_metrics.ablation.batch import read_key
from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.spoken import in_numbers
from mm_metrics.callbacks.watched import Watched
from mm_metrics.modalities import UNHIDDEN, Modalities
from mm_metrics.tasks import task_of

_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


class Shown(NamedTuple):
    """A module's answers to N samples under K coalitions."""

    rows: tuple[int, ...]  # the K coalitions' masks
    preds: Tensor  # (K, N, ...)
    counted: Tensor | None  # (K, N) bool, which of them answered; None for all
    presence: Tensor | None  # (N, M), which modalities a sample has; None for all


class Prober:
    """Answers batches: ``prober(batch)`` is what a module says of it under every coalition, or by its heads.

    A module that answers once a modality needs no ablation: its heads are coalitions of one. ``own`` is the mask of
    the module's own answers, which stand beside those of the coalitions where these are not the same.
    """

    def __init__(self, watched: Watched, say: Callable[[str], None], own: int | None = None) -> None:
        self.watched, self.modalities, self.say = watched, watched.modalities, say
        self._own = self.modalities.full if own is None else own
        self._means: Mapping[Any, Tensor] = {}  # of the training batches, for a test that follows the training
        self.unlike = False  # training batches have other inputs
        self.ablation: ModalityAblation | None = None
        self.forget()

    def forget(self) -> None:
        """Let go of the module and of the batches: another run may bring others."""
        if self.ablation is not None:
            self.ablation.unwatch()
            self._means = self.ablation.means
        self.ablation = None
        self.heads: tuple[int, ...] | None = None  # their masks, where the module has heads
        self.begun = False  # whether a batch was counted: what fails before is how the callback was set up
        self._looked = self.unlike = False
        self._context: Callable[[], Any] = nullcontext

    def start(self, trainer: Any, pl_module: Any) -> ModalityAblation:
        """Be ready for the module's batches."""
        if self.ablation is not None:
            return self.ablation
        watched, sharded = self.watched, is_sharded(trainer.strategy)
        self.ablation = ModalityAblation(
            pl_module,
            watched.inputs,
            predict=in_numbers(watched.predict, watched.class_names, watched.extract)
            if callable(watched.predict)
            else watched.predict,
            baseline=watched.baseline,
            encoders=None if sharded else watched.encoders,
            presence=watched.presence,
            seed=watched.seed,
            coalitions=[self.modalities.name(mask) for mask in watched.masks] or ["all"],
            verify=watched.verify,
            sample_axis=watched.sample_axis,
        )
        self.ablation.num_classes = watched.num_classes if task_of(watched.task).by_class else None
        self.ablation.say = self.say
        self.ablation.means = {key: mean.to(pl_module.device) for key, mean in self._means.items()}
        self._context = trainer.precision_plugin.forward_context
        if sharded:
            self.ablation.wrap(lambda predict: through_strategy(trainer.strategy, predict))
            self.say(f"{type(trainer.strategy).__name__} shards the model: inputs are hidden, with whole forwards")
        return self.ablation

    def use_means(self) -> None:
        """Let the training batches' means be the baseline; all ranks call it together, also one that saw no batch."""
        sums: list[Tensor] = []
        ablation = None if self.unlike else self.ablation

        def noted(part: Tensor) -> Tensor:
            sums.append(part)
            return torch.zeros_like(part)

        if ablation is not None:
            ablation.use_means(noted)
        parts = [part for part in gathered([part.cpu() for part in sums]) if part]
        total = iter([torch.stack(part).sum(0) for part in zip(*parts, strict=True)])
        if ablation is not None:
            ablation.use_means(lambda part: next(total).to(part.device))
        held = self._means if ablation is None else ablation.means
        means = gathered({key: mean.cpu() for key, mean in held.items()})
        self._means = next((found for found in means if found), {})

    @property
    def opinion(self) -> tuple[int, ...] | None:
        """The masks of the heads, ``()`` for none, None where no batch has told yet."""
        return (self.heads or ()) if self._looked else None

    def adopt(self, heads: tuple[int, ...] | None) -> None:
        """Take the other ranks' word for what heads there are."""
        self.heads = heads or None

    @property
    def own(self) -> int:
        """The mask of the module's own answers."""
        return self._own if self.heads is None else self.modalities.full

    @property
    def masks(self) -> tuple[int, ...]:
        """The masks of all that is ever answered, the module's own last."""
        return self.heads or tuple(dict.fromkeys((*self.watched.masks, self.own)))

    @property
    def wants_means(self) -> bool:
        """Whether a training batch's mean stands in for what is hidden."""
        return "mean" in str(named_baselines(self.watched.baseline))

    def encoders(self, pl_module: Module, batch: Any) -> dict[str, list[Module]]:
        """The modules that encode each modality, named by the user or found in answering `batch`."""
        assert self.ablation is not None
        with self._context():
            self.ablation(batch)
        modules = dict(pl_module.named_modules())
        named = self.watched.encoders if isinstance(self.watched.encoders, Mapping) else self.ablation.encoders
        return {
            modality: [modules[one] if isinstance(one, str) else one for one in _listed(names)]
            for modality, names in named.items()
        }

    def meets(self, batch: Any) -> bool:
        """Whether ranks wait for each other in a forward of the module."""
        assert self.ablation is not None
        with self._context():
            return self.ablation.meets(batch)

    def __call__(self, batch: Any, ablate: bool = True) -> Shown:
        """The answers to one batch, its own alone where not `ablate`; as in evaluation mode, without a trace.

        Raises RuntimeError where a rank that others wait for can't answer: they would go on with other batches' parts.
        """
        try:
            return self._answers(batch, ablate)
        except (LookupError, TypeError, ValueError) as error:
            if self.meets(batch):
                raise RuntimeError(f"other ranks wait for this one, and its batch has no answer: {error}") from error
            raise

    def _answers(self, batch: Any, ablate: bool) -> Shown:
        ablation = self.ablation
        assert ablation is not None
        with self._context(), ablation.together():
            heads = None if self._looked else self._look(batch)
            if self.heads is not None:
                heads = heads or as_heads(ablation.raw(batch), self.modalities) or {}
                rows, preds = tuple(heads), torch.stack(list(heads.values()))
            elif not ablate:
                rows, preds = (self.own,), ablation.predict(batch).unsqueeze(0)
            else:
                rows, preds = self.watched.masks, ablation(batch)
                if self.own not in rows:
                    own = ablation.predict(batch).unsqueeze(0)
                    rows, preds = (*rows, self.own), torch.cat([preds, own.to(preds.dtype)])
        presence = None if self.watched.presence is None else read_key(batch, self.watched.presence, "presence=")
        presence = ablation.presence(batch, self.modalities.presence(presence, preds.shape[1], preds.device))
        counted = None if self.heads is None else heard(rows, self.modalities.full, presence)
        return Shown(rows, preds, counted, presence)

    def _look(self, batch: Any) -> dict[int, Tensor] | None:
        """Whether the module answers by heads; and what they say, where a glimpse of the batch told all."""
        assert self.ablation is not None
        heads = as_heads(self.ablation.glimpse(batch), self.modalities)
        self._looked = True
        if heads is not None:
            self.heads = tuple(sorted({*heads, self.modalities.full}))
            if self.modalities.full not in heads:
                self.say(
                    f"predict gives heads for {', '.join(self.modalities.name(mask) for mask in heads)} and no "
                    "'all', so what is said of the whole is NaN: return {'all': fused logits, ...}"
                )
        return heads

    def __getstate__(self) -> dict[str, Any]:
        """Without the module and its batches."""
        means = self._means if self.ablation is None else self.ablation.means
        return {**vars(self), "ablation": None, "_context": nullcontext, "_looked": False, "_means": means}


def own_mask(watched: Watched, some_batches: bool) -> int:
    """The mask of the module's own answers: that of all, unless absent modalities or `some_batches` set them apart."""
    full, masks = watched.modalities.full, watched.masks
    alike = not masks or (watched.presence is None and not some_batches and full in masks)
    return full if alike else watched.modalities.mask(UNHIDDEN)


def as_heads(output: object, modalities: Modalities) -> dict[int, Tensor] | None:
    """``{mask: logits}`` where a prediction is a mapping of coalitions' names, else None.

    Raises ValueError where heads differ in shape, or where one beside ``"all"`` has no modality's name.
    """
    if not isinstance(output, Mapping) or not output:
        return None
    heads: dict[int, Tensor] = {}
    whole = output.get("all")
    for name, value in output.items():
        try:
            mask = modalities.mask(name)
        except (ValueError, TypeError):
            if isinstance(whole, Tensor) and isinstance(value, Tensor) and value.shape == whole.shape:
                raise  # a head with a misspelt name
            return None  # some other mapping, as a ModelOutput is
        if not isinstance(value, Tensor):
            return None
        heads[mask] = value
    if len({head.shape for head in heads.values()}) > 1:
        shapes = {name: tuple(value.shape) for name, value in output.items()}
        raise ValueError(f"predict gave heads of different shape, {shapes}: each is (N, C), a row a sample")
    return dict(sorted(heads.items()))


def heard(masks: tuple[int, ...], full: int, presence: Tensor | None) -> Tensor | None:
    """``(K, N)`` bool: a head counts only the samples that have its modality, the whole counts all; None is all."""
    if presence is None:
        return None
    has = presence != 0  # (N, M)
    everybody = torch.ones_like(has[:, 0])
    columns = [[has[:, m] for m in range(has.shape[1]) if mask != full and mask >> m & 1] for mask in masks]
    return torch.stack([torch.stack([everybody, *heard]).all(0) for heard in columns])


def is_sharded(strategy: Any) -> bool:
    """Whether a submodule's forward alone would hang or fail; by name, as two packages have these classes."""
    return bool({cls.__name__ for cls in type(strategy).__mro__} & _SHARDED)


def through_strategy(strategy: Any, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`predict`, run inside the wrapped model's own forward, as Lightning runs a validation step."""
    redirection = getattr(strategy, "_forward_redirection", None)
    if redirection is None or strategy.model is None or strategy.model is strategy.lightning_module:
        return predict

    def redirected(module: Any, batch: Any) -> Any:
        # Lightning redirects by a method's name, and a bound function of that name on the module serves it.
        name = "_mm_metrics_predict"
        object.__setattr__(module, name, lambda batch: predict(module, batch))
        try:
            return redirection(strategy.model, module, name, batch)
        finally:
            object.__delattr__(module, name)

    return redirected


def _listed(names: Any) -> tuple | list:
    return names if isinstance(names, tuple | list) else (names,)
