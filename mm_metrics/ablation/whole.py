"""Run the whole model, on the batch as it is or with inputs hidden, and leave no trace of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode

from mm_metrics.ablation.batch import Path, copied, flatten
from mm_metrics.ablation.calls import Calls
from mm_metrics.ablation.encoders import outer_calls
from mm_metrics.ablation.plan import Form, Site
from mm_metrics.ablation.predict import Predict, logits
from mm_metrics.ablation.recorder import Recorder
from mm_metrics.ablation.replay import given
from mm_metrics.ablation.stamps import Checks, Weights
from mm_metrics.ablation.untouched import Guard, Known, is_compiled, untouched
from mm_metrics.ablation.view import View, form_of
from mm_metrics.modalities import Modalities


class HidingError(RuntimeError):
    """The model can't run on what stands in for a hidden modality, and can on the batch as it is."""


class _Collectives(TorchDispatchMode):
    """Sees whether what runs inside waits for other ranks, by whichever function it does so."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func.namespace in ("c10d", "_c10d_functional")
        return func(*args, **(kwargs or {}))


class Whole:
    """A model that is run whole.

    ``predict(model, batch)`` gives what holds the logits, ``default`` says that it is the model's forward; ``masks``
    are the K coalitions; ``once(key, message)`` says something once.
    """

    def __init__(
        self,
        model: Module,
        predict: Predict,
        default: bool,
        modalities: Modalities,
        masks: tuple[int, ...],
        once: Callable[[Hashable, str], None],
    ) -> None:
        self.model, self.predict, self.default, self.once = model, predict, default, once
        self.modalities, self.masks, self.name = modalities, masks, type(model).__name__
        self.num_classes: int | None = None
        self.forms: dict[Hashable, Form] = {}
        self.recorder = Recorder({id(model)}, {id(model)}, self.now, judging=default)
        self.known: Known | None = None
        self.guard: Guard | None = None
        self.meets: bool | None = None  # whether a forward waits for the other ranks' own; None where nobody looked
        self.rebuilt = False  # since its parts were last compared
        self._ran, self._inside = False, 0
        self._columns: tuple[int, ...] | None = None  # of an answer to several samples
        self._weights: Weights | None = None

    @cached_property
    def compiled(self) -> bool:
        """Whether the model, or a part of it, is compiled."""
        return is_compiled(self.model)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Evaluation mode; afterwards the model is as before, and so it is for the next one inside another."""
        last = self.guard
        if self._inside and last is not None:
            if self._inside > 1:
                last.leave()
                last.enter()
            self._inside += 1
            yield
            return
        with untouched(self.model, self.known, last) as self.guard:
            if last is not None and last is not self.guard and last.build != self.guard.build:
                self.rebuilt, self._weights = True, None  # of other modules, or with other hooks
                self.recorder.clear()
            self._inside = 1
            try:
                yield
            finally:
                self._inside = 0
        if self.known is None:
            self._weights = None  # a forward's own buffers are no sign that weights changed
        self.known = self.guard.known
        self.guard.done()

    def look_for_ranks(self, batch: Any) -> bool:
        """Whether ranks meet in a forward, as one pass over a first batch tells: then each must run it as often."""
        if self.meets is None:
            mode = _Collectives()
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                with mode:
                    self.run(copied(batch))
                self.recorder.clear()
            self.meets = mode.seen
            if self.meets:
                self.once("meets", f"ranks wait for each other in {self.name}: it is run whole, as often on each")
        return self.meets

    def now(self) -> Any:
        """The stamp of the model's weights, less what a forward itself changes."""
        if self._weights is None:
            self._weights = Weights([self.model], () if self.known is None else self.known.ids)
        return self._weights.now()

    def run(self, batch: Any) -> Any:
        """What the user's predict gives; the first time, an error that speaks of the batch's form is explained."""
        if self.guard is not None:
            self.guard.again()
        try:
            output = self.predict(self.model, batch)
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            if self._ran or not self.default:
                raise
            raise TypeError(
                f"{self.name} does not take this batch ({type(batch).__name__}) as it is "
                f"({type(error).__name__}: {error}): pass predict=lambda model, batch: model(...)"
            ) from error
        self._ran = True
        return output

    def logits(self, batch: Any, N: int) -> Tensor:
        """``(N, C)``; raises ValueError where what comes has another first axis."""
        answer = logits(self.run(batch), self.num_classes)
        if N == 1 and answer.shape == self._columns:
            answer = answer.unsqueeze(0)  # a model that squeezes its answer, and the last batch of one
        elif N > 1:
            self._columns = answer.shape[1:]
        if not answer.ndim or answer.shape[0] != N:
            raise ValueError(f"predict gave logits of shape {tuple(answer.shape)} for {N} samples: their axis is first")
        return answer.detach()

    def raw(self, batch: Any) -> Any:
        """What ``predict`` gives for the batch as it is; from what was kept where the user's step ran it."""
        leaves = flatten(batch)
        form = self.forms.setdefault(form_of(batch, leaves), Form())
        kept = self._kept_roots(leaves, form)
        if kept is not None:
            with given(kept):
                return self.run(copied(batch, deep=False))
        calls = Calls(lambda module: not calls.stack)
        batch = copied(batch, deep=form.writes)
        with calls:
            output = self.run(batch)
        if not form.roots:
            self.note(form, outer_calls(calls.roots, batch))
        return output

    def hidden(self, view: View, masks: tuple[int, ...] | None = None) -> Tensor:
        """``(K, N, C)``: hide the inputs and run the model, once a coalition; its own pass serves where it was kept."""
        full, checks = self.modalities.full, Checks()
        own = self.kept_answer(view, checks, None)
        own = own if checks.hold() else None
        masks = self.masks if masks is None else masks
        return torch.stack([own if mask == full and own is not None else self._one(view, mask) for mask in masks])

    def _one(self, view: View, mask: int) -> Tensor:
        try:
            return self.logits(view.hide((mask,)), view.N).clone()
        except Exception as error:  # whatever a model raises at what stands in, it is told from its own errors below
            if mask == self.modalities.full and view.complete:
                raise
            self.logits(copied(view.batch), view.N)  # an error that is not the hiding's is the model's own
            raise HidingError(
                f"{self.name} can't run when it is shown only {self.modalities.name(mask)} "
                f"({type(error).__name__}: {error}), and can when it is shown all: {view.stand_ins_told(mask)}"
            ) from error

    def note(self, form: Form, roots: list[Site]) -> None:
        """Keep in mind which calls of the step give the model's own answer."""
        form.roots = roots
        self.watch_for(roots)

    def watch_for(self, sites: list[Site]) -> None:
        """From the next step on keep what these calls give."""
        for site in sites:
            self.recorder.interest |= {id(step.module) for step in site.chain}
            self.recorder.owning |= {id(step.module) for step in site.chain if step.own is not None}

    def kept_answer(self, view: View, checks: Checks, now: Any) -> Tensor | None:
        """The model's own logits ``(N, C)`` from the forward pass that was watched, where nothing is missing."""
        form = self.forms.get(view.form)
        if form is None or not view.complete or not self.recorder.records:
            return None
        kept = self._kept_roots(view.leaves, form, checks, now)
        if kept is None:
            return None
        with given(kept):
            return self.logits(copied(view.batch, deep=False), view.N).clone()

    def _kept_roots(
        self, leaves: Mapping[Path, Any], form: Form, checks: Checks | None = None, now: Any = None
    ) -> list[tuple[Site, Any]] | None:
        if not self.recorder.records:
            return None
        now = self.now() if now is None and checks is not None else now
        found = [(site, self.recorder.find(site, leaves, checks, now)) for site in form.roots]
        if found and all(output is not None for _, output in found):
            return [(site, copied(output)) for site, output in found]
        if self.default and checks is not None and self.recorder.swapped(now):
            self.once(
                "swapped",
                f"{self.name} had other weights while the step ran than it has after it, and is ablated with those "
                "that it has: if the step swaps them, write predict='step' and return its logits",
            )
        return None

    def judge(self, view: View) -> None:
        """Say so where the step that was watched gave the model other tensors than the batch's own, all of its rows."""
        form = self.forms.get(view.form)
        if self.recorder.judging and self.recorder.outermost and form is not None and form.roots and view.complete:
            self.recorder.judging = False
            if self.recorder.gave_others(view.leaves, view.modality, form.roots):
                self.once(
                    "prepared",
                    f"the step gave {self.name} other tensors than the batch's own, and the ablation gives it the "
                    "batch's: if the step prepares its inputs, write predict='step' and return its logits",
                )
