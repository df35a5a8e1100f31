"""`ModalityAblation`: a model's logits under every coalition, its encoders run once where it can be split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.baselines import Baselines, RunningMeans, named_baselines
from mm_metrics.ablation.batch import Key, flatten, some_rows
from mm_metrics.ablation.encoders import named_encoders
from mm_metrics.ablation.engine import Engine
from mm_metrics.ablation.inputs import Inputs
from mm_metrics.ablation.predict import Predict, Step, logits, prediction
from mm_metrics.ablation.view import View, look
from mm_metrics.ablation.whole import Whole
from mm_metrics.modalities import Modalities


class ModalityAblation:
    """The logits of a model when it is shown each coalition of its modalities, hiding the others' inputs.

    >>> import torch
    >>> class Concat(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.text, self.image = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
    ...         self.head = torch.nn.Linear(6, 2)
    ...     def forward(self, text, image):
    ...         return self.head(torch.cat([self.text(text), self.image(image)], dim=-1))
    >>> ablation = ModalityAblation(Concat(), {"text": "text", "image": "image"})
    >>> ablation({"text": torch.randn(8, 4), "image": torch.randn(8, 5)}).shape  # K, N, C
    torch.Size([4, 8, 2])
    >>> print(ablation.plan)
    text: kept at text
    image: kept at image
    """

    def __init__(
        self,
        model: Module,
        inputs: Mapping[str, Key | tuple[Key, ...]],
        *,
        predict: Callable[..., Any] | str | None = None,
        baseline: Any = "zero",
        encoders: str | Mapping[str, Any] | None = "auto",
        presence: Key | None = None,
        coalitions: object = "all",
        seed: int = 0,
        verify: int = 1,
        sample_axis: Mapping[Key, int] | None = None,
    ) -> None:
        """Take a model and which of its batch's keys make each modality; nothing runs yet.

        ``predict(model, batch)``, or ``predict(batch)``, gives the logits; by default the model's forward, and with
        ``"step"`` its own ``validation_step``.
        ``baseline`` is what stands in for a hidden input: ``"zero"``, ``"mean"``, ``"shuffle"``, ``"presence"``,
        ``"keep"``, a number, a tensor of one sample's shape, a function of the input, or a mapping of these by
        modality or key.
        ``encoders`` are found, named (``{"image": "backbone.vision"}``), or None: whole forward passes only.
        ``presence`` is the batch's entry that says which modalities a sample has, an ``(N, M)`` table or a mapping.
        ``verify``: every so many validations, each begun by `begin`, parts are compared with the whole again; 0: once.
        ``sample_axis`` names the axis of samples by modality or key, ``{"audio": 1}``, where it is not the first.
        Raises TypeError or ValueError for a name that is not known.
        """
        if not isinstance(model, Module):
            raise TypeError(f"model is a torch.nn.Module, got {type(model).__name__}: give the function as predict=")
        if not isinstance(verify, int) or verify < 0:
            raise ValueError(f"verify={verify!r}: every how many validations parts are compared, 0 for the first only")
        self.model = model
        self.say: Callable[[str], None] = lambda message: warnings.warn(message, UserWarning, stacklevel=2)
        self.inputs = Inputs(inputs, presence, sample_axis)
        self.modalities = Modalities(tuple(self.inputs.keys))
        self.masks = self.modalities.masks(coalitions, seed=seed)
        self._said: set[Hashable] = set()
        self._baselines = Baselines(baseline, self.inputs, seed, self._once)
        self._running = RunningMeans()
        keys = [key for keys in self.inputs.keys.values() for key in keys]
        self._step = prediction(predict, keys)
        named = named_encoders(model, encoders, self.modalities)
        self._whole = Whole(model, self._step, predict is None, self.modalities, self.masks, self._once)
        self._engine = Engine(self._whole, named, encoders is not None, verify)

    def __call__(self, batch: Any, presence: Any = None) -> Tensor:
        """``(K, N, C)`` logits, coalitions in the order of ``masks``; in evaluation mode, without a trace.

        ``presence`` ``(N, M)`` says which modalities a sample has, in place of the batch's own entry. Raises KeyError
        for a key that the batch lacks, and whatever the model raises.
        """
        with self._whole.untouched():
            return self._engine.answers(self._look(batch, presence), presence, self._look)

    def presence(self, batch: Any, told: Tensor | None = None) -> Tensor | None:
        """``(N, M)`` bool: which modalities a sample has, as ``told`` or as the batch's entry tells; None where all.

        A modality whose inputs the batch does not hold is absent from all samples, whatever is told.
        """
        leaves = flatten(batch)
        found = self.inputs.find(batch, leaves)
        absent = [not found.paths[name] for name in self.modalities]
        if told is None and self.inputs.presence is not None:
            told = self._look(batch).there
        if not any(absent):
            return told
        device = (
            next((x.device for x in leaves.values() if isinstance(x, Tensor)), None) if told is None else told.device
        )
        table = torch.ones(found.N, len(absent), dtype=torch.bool, device=device) if told is None else told.bool()
        return table & ~torch.tensor(absent, device=device)

    def begin(self) -> None:
        """A validation begins: every ``verify``-th time its first batch is answered both ways again.

        A loop of one's own calls it before each pass over the validation's batches, since the model may have changed.
        """
        self._engine.begin()

    def predict(self, batch: Any) -> Tensor:
        """The model's own logits ``(N, C)`` in evaluation mode, nothing hidden; from what was kept where possible."""
        return logits(self.raw(batch), self.num_classes)

    def together(self) -> AbstractContextManager[None]:
        """Inside, what is asked about one batch shares the care that is taken to leave no trace in the model."""
        return nullcontext() if self._whole.known is None else self._whole.untouched()

    def raw(self, batch: Any) -> Any:
        """What ``predict`` gives for the batch as it is, such as one head a modality; else as `predict`."""
        with self._whole.untouched():
            self._whole.look_for_ranks(batch)
            return self._whole.raw(batch)

    def glimpse(self, batch: Any) -> Any:
        """What `raw` gives for two of the batch's samples; for all of them where that is a mapping, or can't be had."""
        with suppress(Exception):  # what is the user's to see, the whole batch raises too
            found = self.inputs.find(batch, flatten(batch))
            output = None if found.whole or self.meets(batch) else self.raw(some_rows(batch, found.N, slice(2)))
            if output is not None and not isinstance(output, Mapping):
                return output
        return self.raw(batch)

    def wrap(self, around: Callable[[Predict], Predict]) -> None:
        """Let ``around(predict)`` take the place of ``predict(model, batch)``, to run it through a strategy."""
        self._whole.predict, self._whole.meets = around(self._whole.predict), True

    def meets(self, batch: Any) -> bool:
        """Whether ranks wait for each other in the model's forward, so that each has to run it as often."""
        with self._whole.untouched():
            return self._whole.look_for_ranks(batch)

    def watch(self, batch_idx: int = 0, dataloader_idx: int = 0) -> ModalityAblation:
        """From here to `unwatch` keep what the encoders, and the model itself, give for the tensors they are given.

        The batch's numbers are for ``predict="step"``, which hands them to the step.
        """
        if isinstance(self._step, Step):
            self._step.at = (batch_idx, dataloader_idx)
        self._whole.recorder.clear()
        if self._engine.may_split():
            self._whole.recorder.calls.__enter__()
        return self

    def unwatch(self) -> None:
        """Keep nothing more; what was kept stays until the next `watch` or `forget`."""
        self._whole.recorder.calls.__exit__()

    def forget(self) -> None:
        """Let go of what was kept of the last batch, and of the baseline's encodings."""
        self._engine.forget()

    @property
    def num_classes(self) -> int | None:
        """C where it is known, by which logits are told from other entries of what a model returns."""
        return self._whole.num_classes

    @num_classes.setter
    def num_classes(self, num_classes: int | None) -> None:
        self._whole.num_classes = num_classes

    @property
    def encoders(self) -> dict[str, tuple[str, ...]]:
        """The names of the modules whose outputs are kept, by modality; empty before the first batch."""
        names = {id(module): name for name, module in self.model.named_modules()}
        found: dict[str, dict[str, None]] = {name: {} for name in self.modalities}
        for form in self._whole.forms.values():
            for site in form.split.plan.sites if form.split is not None else ():
                if site.reaches:
                    found[self.modalities.names[site.modality]][names.get(id(site.module), "")] = None
        return {name: tuple(modules) for name, modules in found.items() if modules}

    @property
    def plan(self) -> str:
        """What is kept of each modality and where, or why nothing is: a line each."""
        kept = self.encoders
        why = "no module reads it alone, so what reads it runs for every coalition" if kept else self._engine.why()
        return "\n".join(
            f"{name}: kept at {', '.join(part or 'the model itself' for part in kept[name])}"
            if name in kept
            else f"{name}: not kept, {why}"
            for name in self.modalities
        )

    @property
    def wants_means(self) -> bool:
        """Whether a baseline is ``"mean"``, so that `add_to_means` is of use."""
        return "mean" in str(named_baselines(self._baselines.baseline))

    @property
    def means(self) -> Mapping[Any, Tensor]:
        """One sample's mean of each float input by its key, for the baseline ``"mean"``; empty: that of each batch."""
        return self._baselines.means

    @means.setter
    def means(self, means: Mapping[Any, Tensor]) -> None:
        self._baselines.use(means)

    def add_to_means(self, batch: Any) -> None:
        """Add a training batch to the running means; `use_means` puts them to use."""
        view = self._look(batch)
        for m, name in enumerate(self.modalities):
            for path, key in view.found.paths[name].items():
                x = view.rows(path)
                if isinstance(x, Tensor) and x.is_floating_point() and self._baselines.spec(name, key, path) == "mean":
                    self._running.add(key if len(path) == 1 else path, x, view.having(m))

    def use_means(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Let the running means be the baseline; ``all_reduce`` sums a tensor over the ranks, which all call this.

        Where no training batch came, as in a test after the training, the means stay what they are.
        """
        if self._running.sums:
            self.means = self._running.means(all_reduce)

    def _look(self, batch: Any, presence: Any = None) -> View:
        return look(batch, self.inputs, self.modalities, self._baselines, presence)

    def _once(self, key: Hashable, message: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self.say(message)
