"""Answer a batch in parts where they were compared with the whole, else by hiding inputs and running it whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import some_rows
from mm_metrics.ablation.encoders import make_plan
from mm_metrics.ablation.plan import Form
from mm_metrics.ablation.replay import ApartError
from mm_metrics.ablation.split import Split, split_by
from mm_metrics.ablation.stamps import Checks, Weights, moved
from mm_metrics.ablation.verify import agree, room_of
from mm_metrics.ablation.view import View
from mm_metrics.ablation.whole import Whole

VACUOUS = 3  # batches that may be answered both ways while the model says the same to every coalition
COMPARED = 8  # samples at least, spread over the first batch, that are answered both ways
FAILURES = 3  # times that batches of one form could not be answered in parts, after which no more parts are tried
PATIENCE = 3  # times that only an attribute had changed and the parts held, after which attributes are not looked at
LITTLE = 0.02  # of the model's work: encoders that do less cost more to keep than to run

Look = Callable[[Any, Any], View]


class Engine:
    """Answers views of batches with the ``whole`` model, or in parts.

    ``named`` are the encoders that the user named, None where they are to be found; ``apart`` says whether there may
    be any; ``verify`` every how many validations parts are compared again.
    """

    def __init__(self, whole: Whole, named: Mapping[Module, int] | None, apart: bool, verify: int) -> None:
        self.whole, self.named, self.apart, self.verify = whole, named, apart, verify
        self.name, self.masks, self.forms, self.recorder = whole.name, whole.masks, whole.forms, whole.recorder
        self._validations = 0
        self._patience = PATIENCE
        self._verified: tuple[Any, ...] | None = None  # what the model was when its parts were compared

    def begin(self) -> None:
        """A validation begins."""
        if self.verify and self._validations % self.verify == 0:
            self.whole.known = None
            self._compare_again()
        self._validations += 1

    def _compare_again(self) -> None:
        for form in self.forms.values():
            form.due = form.split is not None
            form.decided &= form.due or not 0 < form.failed < FAILURES

    def may_split(self) -> bool:
        """Whether encoders may be looked for: not against the user's word, nor in a compiled module."""
        if self.whole.compiled and self.apart:
            self.whole.once(
                "compiled",
                f"{self.name} is compiled, its encoders can't be seen from outside: inputs are hidden and the whole "
                f"model runs {len(self.masks)} times a batch",
            )
        return self.apart and not self.whole.compiled and not self.whole.meets

    def why(self) -> str:
        """Why nothing at all is kept."""
        if self.whole.meets:
            return f"ranks wait for each other in {self.name}"
        if not self.apart or self.whole.compiled:
            return f"{self.name} is compiled" if self.apart else "encoders=None"
        return next((form.why for form in self.forms.values() if form.why), "no batch came as yet")

    def answers(self, view: View, presence: Any, look: Look) -> Tensor:
        """``(K, N, C)``; ``look`` views some of the batch's rows with some of the ``presence``."""
        self.whole.judge(view)
        if self.whole.look_for_ranks(view.batch) or not self.may_split():
            return self.whole.hidden(view)
        if self.whole.rebuilt:
            self.whole.rebuilt = False
            self.forget()
            self._compare_again()
        form = self.forms.setdefault(view.form, Form())
        if view.found.whole:
            form.why = view.found.whole
            return self.whole.hidden(view)
        if not form.decided or (form.single and view.N > 1):
            form.split = None
            return self._both_ways(view, form, presence, look)
        if form.split is None:
            return self.whole.hidden(view)
        now = self.whole.now()
        if form.due or (self.verify and (view.N > form.largest or self._changed(now))):
            return self._both_ways(view, form, presence, look)
        checks = Checks()
        try:
            answer = self._parts(view, form.split, checks, now)
            if checks.hold():
                return answer
        except Exception as error:  # whatever goes wrong in the parts, the whole model may do
            answer = self.whole.hidden(view)
            if not isinstance(error, ApartError):
                self._drop(form, f"{self.name} can't be run in parts ({type(error).__name__}: {error})")
            return answer
        self.forget()  # what was put off has failed: nothing that was kept is sure
        return self.whole.hidden(view)

    def forget(self) -> None:
        """Let go of what was kept of the last batch, and of the baseline's encodings."""
        self.recorder.clear()
        for form in self.forms.values():
            if form.split is not None:
                form.split.forget()

    def _changed(self, now: Any) -> bool:
        """Whether, in a loop that calls no `begin`, the model behind the encoders is not what it was when compared.

        Its weights are looked at, unless ``now`` says that none of the model's changed, and its attributes, `PATIENCE`
        times in vain.
        """
        if self._validations or self._verified is None or self.whole.guard is None:
            return False
        behind, then, of_all, attributes = self._verified
        if now is not of_all and moved(behind.now(), then):
            self._patience = PATIENCE
            return True
        return self._patience > 0 and not self.whole.guard.same(attributes)

    def _compared(self, view: View, form: Form) -> None:
        """Both ways agreed, or the whole was taken: until something changes."""
        form.due, form.largest = False, max(view.N, form.largest)
        assert self.whole.guard is not None
        skip = set() if self.whole.known is None else set(self.whole.known.ids)
        for split in (form.split for form in self.forms.values() if form.split is not None):
            skip |= {id(x) for site in split.plan.sites for x in (*site.module.parameters(), *site.module.buffers())}
        behind = Weights([self.whole.model], skip)
        now = behind.now()
        self._patience -= self._verified is not None and not moved(now, self._verified[1])
        self._verified = behind, now, self.whole.now(), self.whole.guard.dicts

    def _parts(self, view: View, split: Split, checks: Checks, now: Any) -> Tensor:
        own = self.whole.kept_answer(view, checks, now)
        return split.answers(view, self.masks, self.recorder, own, checks, now)

    def _drop(self, form: Form, why: str) -> None:
        form.split, form.why, form.failed = None, why, form.failed + 1
        self.whole.once(("dropped", form.failed), f"{why}: inputs are hidden from now on, and the whole model runs")

    def _both_ways(self, view: View, form: Form, presence: Any, look: Look) -> Tensor:
        """Answer both ways, and split the model from now on where the answers agree; parts that fail are found anew."""
        parts, K = form.split, len(self.masks)
        answer, split, why = self._compare(view, parts, presence, look)
        if parts is None:
            form.tried += 1
            form.single = view.N == 1
            told = K < 2 or not torch.equal(answer, answer[-1:].expand_as(answer))
            form.decided = told or split is None or form.tried >= VACUOUS  # else it proves nothing
        form.split, form.why = split if form.decided else None, why
        if split is not None:
            self.whole.watch_for(split.plan.sites)
            self.recorder.interest |= split.plan.interest
            self.recorder.copied |= {id(site.module) for site in split.plan.sites if site.written}
        elif parts is not None:
            self._drop(form, why)
        else:
            self.whole.once("whole", f"{why}: inputs are hidden and the whole model runs {K} times a batch")
        self._compared(view, form)
        return answer

    def _compare(self, view: View, parts: Split | None, presence: Any, look: Look) -> tuple[Tensor, Split | None, str]:
        """The answer, and the way of splitting the model that gives it, or None and why there is none.

        Some samples are answered both ways, with all, none and all but one of the modalities; all samples where some
        can't stand for the batch: a baseline or a model that mixes samples, rows that are no batch by themselves.
        """
        with suppress(Exception):  # what is the user's to see, the whole batch raises too
            some, masks, rows = self._some(view, presence, look)
            if some is not None:
                reference = self.whole.hidden(some, masks)
                split, why = (parts, "") if parts is not None else self._try(some, reference, masks)
                if split is None:
                    return self.whole.hidden(view), None, why
                answer = self._agreeing(view, split, reference, masks, rows)
                if answer is not None:
                    return answer, split, ""
        reference = self.whole.hidden(view)
        if parts is not None:
            if self._agreeing(view, parts, reference, self.masks, slice(None)) is not None:
                return reference, parts, ""
            self.whole.once(
                ("anew", self._validations),
                f"{self.name} runs otherwise than when it was followed, its parts no longer give what the whole gives: "
                "it is followed anew",
            )
        return reference, *self._try(view, reference, self.masks)

    def _some(self, view: View, presence: Any, look: Look) -> tuple[View | None, tuple[int, ...], slice]:
        telling = self.whole.modalities.masks("leave_one_out")
        masks = self.masks if len(self.masks) <= len(telling) else tuple(m for m in self.masks if m in telling)
        rows = slice(None, None, max(1, view.N // COMPARED))
        if rows.step == 1:
            return None, masks, rows
        batch, given = some_rows((view.batch, presence), view.N, rows)
        return look(batch, given), masks, rows

    def _agreeing(
        self, view: View, split: Split, reference: Tensor, masks: tuple[int, ...], rows: slice
    ) -> Tensor | None:
        """``(K, N, C)`` in parts, None where they are not the ``reference`` for its coalitions and rows."""
        checks = Checks()
        try:
            answer = self._parts(view, split, checks, self.whole.now())
        except Exception:  # the whole model may do what the parts can't
            return None
        some = answer[[self.masks.index(mask) for mask in masks]][:, rows]
        if not agree(some, reference, checks) or not checks.hold():
            return None
        split.room = room_of(reference)
        return answer

    def _try(self, view: View, reference: Tensor, masks: tuple[int, ...]) -> tuple[Split | None, str]:
        """The way of splitting the model that gives ``reference``, or None and why there is none."""
        form, before = self.forms.setdefault(view.form, Form()), self.whole.now()
        try:
            plan = make_plan(
                self.whole.run, view.batch, view.N, view.modality, len(self.whole.modalities), view.presence, self.named
            )
        except Exception as error:  # what can't be followed can still be run whole
            return None, f"{self.name} can't be followed on a few rows ({type(error).__name__}: {error})"
        self.whole.note(form, plan.roots)
        swaps = self.whole.guard is not None and self.whole.guard.known.swaps
        plan.ends = self.whole.default and not swaps and self.whole.now()[0] == before[0]
        form.writes = plan.writes
        if not any(site.reaches for site in plan.sites):
            return None, f"no module of {self.name} depends on one modality alone"
        if plan.share < LITTLE and self.named is None:
            why = f"the encoders of {self.name} do {plan.share:.1%} of its work, and cost more to keep than to run"
            return None, why
        split, why = split_by(plan, self.whole.logits, view, masks, reference, self.recorder, self.whole.now())
        if split is not None:
            return split, ""
        other = f"the parts of {self.name} give other logits than the whole"
        if not agree(self.whole.hidden(view, masks), reference):
            return None, f"{other}, which is random in evaluation mode"
        return None, f"{self.name}: {why}" if why else other
