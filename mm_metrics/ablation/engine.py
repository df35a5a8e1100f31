"""`ModalityAblation`: a model's logits under every coalition, its encoders run once where it can be split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.baselines import Baselines, RunningMeans, named_baselines
from mm_metrics.ablation.batch import Inputs, Key, copied, flatten, some_rows
from mm_metrics.ablation.calls import Calls
from mm_metrics.ablation.encoders import Site, make_plan, named_encoders, outer_calls
from mm_metrics.ablation.predict import Predict, Step, logits, prediction
from mm_metrics.ablation.recorder import Recorder
from mm_metrics.ablation.replay import DivergedError, given
from mm_metrics.ablation.split import Split, agree
from mm_metrics.ablation.untouched import untouched
from mm_metrics.ablation.view import View, form_of, look
from mm_metrics.modalities import Modalities

VACUOUS = 3  # batches that may be answered both ways while the model says the same to every coalition
COMPARED = 8  # samples at least, spread over the first batch, that are answered both ways


class ModalityAblation:
    """The logits of a model when it is shown each coalition of its modalities, hiding the others' inputs.

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
    >>> ablation.encoders
    {'text': ('text',), 'image': ('image',)}
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
    ) -> None:
        """Take a model and which of its batch's keys make each modality; nothing runs yet.

        ``predict(model, batch)``, or ``predict(batch)``, gives the logits; by default the model's forward, and with
        ``"step"`` its own ``validation_step``.
        ``baseline`` is what stands in for a hidden input: ``"zero"``, ``"mean"``, ``"shuffle"``, ``"presence"``, a
        number, a tensor of one sample's shape, a function of the input, or a mapping of these by modality or key.
        ``encoders`` are found, named (``{"image": "backbone.vision"}``), or None: whole forward passes only.
        ``presence`` is the batch's entry that says which modalities a sample has, an ``(N, M)`` table or a mapping.
        ``verify``: every so many validations, each begun by `begin`, parts are compared with the whole again; 0: once.
        Raises TypeError or ValueError for a name that is not known.
        """
        if not isinstance(model, Module):
            raise TypeError(f"model is a torch.nn.Module, got {type(model).__name__}: give the function as predict=")
        if not isinstance(verify, int) or verify < 0:
            raise ValueError(f"verify={verify!r}: every how many validations parts are compared, 0 for the first only")
        self.model, self.verify = model, verify
        self._validations = 0
        self.say: Callable[[str], None] = lambda message: warnings.warn(message, UserWarning, stacklevel=2)
        self.inputs = Inputs(inputs, presence)
        self.modalities = Modalities(tuple(self.inputs.keys))
        self.masks = self.modalities.masks(coalitions, seed=seed)
        self._baselines = Baselines(baseline, self.inputs, seed, self._once)
        keys = [key for keys in self.inputs.keys.values() for key in keys]
        self._predict, self._default = prediction(predict, keys), predict is None
        self._step = self._predict
        self._named = named_encoders(model, encoders, self.modalities)
        self._whole = encoders is None
        self._splits: dict[Hashable, Split | None] = {}
        self._roots: dict[Hashable, list[Site]] = {}
        self._tried: dict[Hashable, int] = {}
        self._writes: dict[Hashable, bool] = {}
        self._single: set[Hashable] = set()  # seen with one sample only, which shows no axis of samples
        self._running = RunningMeans()
        self._said: set[Hashable] = set()
        self._changing: set[int] | None = None
        self._compiled: bool | None = None
        self._ran = False
        self._kept = Recorder({id(model)})

    def __call__(self, batch: Any, presence: Any = None) -> Tensor:
        """``(K, N, C)`` logits, coalitions in the order of ``masks``; in evaluation mode, without a trace.

        ``presence`` ``(N, M)`` says which modalities a sample has, in place of the batch's own entry. Raises KeyError
        for a key that the batch lacks, and whatever the model raises.
        """
        with self._untouched():
            view = look(batch, self.inputs, self.modalities, self._baselines, presence)
            if not self._may_split():
                return self._hidden(view)
            if view.form not in self._splits or (view.form in self._single and view.N > 1):
                return self._first(view, presence)
            split = self._splits[view.form]
            if split is None:
                return self._hidden(view)
            try:
                return split.answers(view, self.masks, self._kept, self._kept_answer(view))
            except DivergedError as error:
                self._splits[view.form] = None
                self._once("diverged", f"{error}: inputs are hidden from now on, and the whole model runs")
                return self._hidden(view)

    def predict(self, batch: Any) -> Tensor:
        """The model's own logits ``(N, C)`` in evaluation mode, nothing hidden; from what was kept where possible."""
        return logits(self.raw(batch))

    def raw(self, batch: Any) -> Any:
        """What ``predict`` gives for the batch as it is, such as one head a modality; else as `predict`."""
        with self._untouched():
            form = form_of(batch)
            kept = self._kept_roots(flatten(batch), form)
            if kept is not None:
                with given(kept):
                    return self._run(copied(batch, deep=False))
            calls = Calls(lambda module: not calls.stack, lambda call: None, lambda call: None)
            batch = copied(batch, deep=self._writes.get(form, True))
            with calls:
                output = self._run(batch)
            self._note(form, outer_calls(calls.roots, batch))
            return output

    def glimpse(self, batch: Any) -> Any:
        """What `raw` gives for two of the batch's samples; for all of them where that is a mapping, or can't be had."""
        with suppress(Exception):  # what is the user's to see, the whole batch raises too
            keys = self.inputs.paths(batch).values()
            N = self.inputs.size(batch, [path for paths in keys for path in paths])
            output = self.raw(some_rows(batch, N, slice(2)))
            if not isinstance(output, Mapping):
                return output
        return self.raw(batch)

    def wrap(self, around: Callable[[Predict], Predict]) -> None:
        """Let ``around(predict)`` take the place of ``predict(model, batch)``, to run it through a strategy."""
        self._predict = around(self._predict)

    def watch(self, batch_idx: int = 0, dataloader_idx: int = 0) -> ModalityAblation:
        """From here to `unwatch` keep what the encoders, and the model itself, give for the tensors they are given.

        The batch's numbers are for ``predict="step"``, which hands them to the step.
        """
        if isinstance(self._step, Step):
            self._step.at = (batch_idx, dataloader_idx)
        self._kept.clear()
        if self._may_split():
            self._kept.calls.__enter__()
        return self

    def unwatch(self) -> None:
        """Keep nothing more; what was kept stays until the next `watch` or `forget`."""
        self._kept.calls.__exit__()

    def begin(self) -> None:
        """A validation begins: its first batch is answered both ways again, every ``verify``-th time."""
        if self.verify and self._validations % self.verify == 0:
            self._splits.clear()
            self._tried.clear()
        self._validations += 1

    def forget(self) -> None:
        """Let go of what was kept of the last batch, and of the baseline's encodings."""
        self._kept.clear()
        for split in self._splits.values():
            if split is not None:
                split.forget()

    @property
    def encoders(self) -> dict[str, tuple[str, ...]]:
        """The names of the modules whose outputs are kept, by modality; empty before the first batch."""
        names = {id(module): name for name, module in self.model.named_modules()}
        found: dict[str, dict[str, None]] = {name: {} for name in self.modalities}
        for split in self._splits.values():
            for site in split.plan.sites if split is not None else ():
                if site.reaches:
                    found[self.modalities.names[site.modality]][names.get(id(site.module), "")] = None
        return {name: tuple(modules) for name, modules in found.items() if modules}

    @property
    def plan(self) -> str:
        """What is kept of each modality and where, or why nothing is, a line each."""
        kept = self.encoders
        return "\n".join(
            f"{name}: kept at {', '.join(kept[name])}" if name in kept else f"{name}: nothing is kept"
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
        self._baselines.means = means

    def add_to_means(self, batch: Any) -> None:
        """Add a training batch to the running means; `use_means` puts them to use."""
        view = look(batch, self.inputs, self.modalities, self._baselines, None)
        for name, m in zip(self.modalities, range(len(self.modalities)), strict=True):
            for path, key in self.inputs.paths(batch)[name].items():
                x = view.leaves[path]
                if x.is_floating_point() and self._baselines.spec(name, key, path) == "mean":
                    self._running.add(key if len(path) == 1 else path, x, view.there[:, m])

    def use_means(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Let the running means be the baseline; ``all_reduce`` sums a tensor over the ranks, which all call this."""
        self.means = self._running.means(all_reduce)

    def _once(self, key: Hashable, message: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self.say(message)

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        with untouched(self.model, self._changing) as changing:
            yield
        self._changing = changing

    def _may_split(self) -> bool:
        """Whether encoders may be looked for: not against the user's word, nor in a compiled module."""
        if self._compiled is None:
            self._compiled = any(
                type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
                for module in self.model.modules()
            )
            if self._compiled and not self._whole:
                self._once(
                    "compiled",
                    f"{type(self.model).__name__} is compiled, its encoders can't be seen from outside: inputs are "
                    f"hidden and the whole model runs {len(self.masks)} times a batch",
                )
        return not self._whole and not self._compiled

    def _run(self, batch: Any) -> Any:
        """What the user's predict gives; the first time, an error that speaks of the batch's form is explained."""
        try:
            output = self._predict(self.model, batch)
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            if self._ran or not self._default:
                raise
            raise TypeError(
                f"{type(self.model).__name__} does not take this batch ({type(batch).__name__}) as it is "
                f"({type(error).__name__}: {error}): pass predict=lambda model, batch: model(...)"
            ) from error
        self._ran = True
        return output

    def _logits(self, batch: Any, N: int) -> Tensor:
        answer = logits(self._run(batch))
        if not answer.ndim or answer.shape[0] != N:
            raise ValueError(f"predict gave logits of shape {tuple(answer.shape)} for {N} samples: their axis is first")
        return answer.detach()

    def _note(self, form: Hashable, roots: list[Site]) -> None:
        self._roots[form] = roots
        self._kept.interest |= {id(site.module) for site in roots}

    def _kept_roots(self, leaves: Mapping, form: Hashable) -> list[tuple[Site, Any]] | None:
        found = [(site, self._kept.find(site, leaves)) for site in self._roots.get(form, ())]
        return (
            [(site, copied(output)) for site, output in found]
            if found and all(o is not None for _, o in found)
            else None
        )

    def _kept_answer(self, view: View) -> Tensor | None:
        """The model's own logits from the forward pass that was watched, where nothing is missing."""
        kept = self._kept_roots(view.leaves, view.form) if view.complete else None
        if kept is None:
            return None
        with given(kept):
            return self._logits(copied(view.batch, deep=False), view.N).clone()

    def _hidden(self, view: View, masks: tuple[int, ...] | None = None) -> Tensor:
        """Hide the inputs and run the whole model, once a coalition; its own forward pass serves where it was kept."""
        full = self.modalities.full
        masks = self.masks if masks is None else masks
        own = self._kept_answer(view) if self._may_split() and full in masks else None
        answers = [
            own if mask == full and own is not None else self._logits(view.hide((mask,)), view.N).clone()
            for mask in masks
        ]
        return torch.stack(answers)

    def _first(self, view: View, presence: Any) -> Tensor:
        """Answer both ways, and split the model from now on where the answers agree."""
        reference, split, why = self._both_ways(view, presence)
        form, K = view.form, len(self.masks)
        self._tried[form] = self._tried.get(form, 0) + 1
        (self._single.add if view.N == 1 else self._single.discard)(form)
        told = K < 2 or not torch.equal(reference, reference[-1:].expand_as(reference))
        if told or split is None or self._tried[form] == VACUOUS:
            self._splits[form] = split  # else all coalitions were answered alike, which proves nothing
        if split is None:
            self._once("whole", f"{why}: inputs are hidden and the whole model runs {K} times a batch")
        else:
            self._kept.interest |= split.plan.interest
            self._kept.copied |= {id(site.module) for site in split.plan.sites if site.written}
        return reference

    def _both_ways(self, view: View, presence: Any) -> tuple[Tensor, Split | None, str]:
        """The answer, and the way of splitting the model that gives it, or None and why there is none.

        Some samples are answered both ways, with all, none and all but one of the modalities; all samples where some
        can't stand for the batch: a baseline or a model that mixes samples, rows that are no batch by themselves.
        """
        telling = self.modalities.masks("leave_one_out")
        masks = self.masks if len(self.masks) <= len(telling) else tuple(m for m in self.masks if m in telling)
        rows = slice(None, None, max(1, view.N // COMPARED))
        if rows.step > 1:
            with suppress(Exception):  # what is the user's to see, the whole batch raises too
                batch, given = some_rows((view.batch, presence), view.N, rows)
                some = look(batch, self.inputs, self.modalities, self._baselines, given)
                reference = self._hidden(some, masks)
                split, why = self._try(some, reference, masks)
                if split is None:
                    return self._hidden(view), None, why
                answer = split.answers(view, self.masks, self._kept, None)
                if agree(answer[[self.masks.index(mask) for mask in masks]][:, rows], reference):
                    return answer, split, ""
        answer = self._hidden(view)
        return answer, *self._try(view, answer, self.masks)

    def _try(self, view: View, reference: Tensor, masks: tuple[int, ...]) -> tuple[Split | None, str]:
        """The way of splitting the model that gives ``reference``, or None and why there is none."""
        name = type(self.model).__name__
        try:
            plan = make_plan(
                self._run, view.batch, view.N, view.modality, len(self.modalities), view.presence, self._named
            )
        except Exception as error:  # what can't be followed can still be run whole
            return None, f"{name} can't be followed on a few rows ({type(error).__name__}: {error})"
        self._note(view.form, plan.roots)
        self._writes[view.form] = plan.writes
        if not any(site.reaches for site in plan.sites):
            return None, f"no module of {name} depends on one modality alone"
        why = ""
        for batched, one_row in ((True, True), (False, True), (True, False), (False, False)):
            if batched and plan.looped:
                continue
            trial = Split(plan, self._logits, batched, one_row)
            try:
                if agree(trial.answers(view, masks, self._kept, None), reference):
                    return trial, ""
            except Exception as error:  # another way may work, and the whole model does
                why = f"{name} can't be run in parts ({type(error).__name__}: {error})"
        return None, why or f"the parts of {name} give other logits than the whole"
