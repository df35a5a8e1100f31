"""A model in two halves: its encoders' outputs, kept; and what lies behind them, replayed for each coalition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.batch import Path, copied, rebuilt, tensors
from mm_metrics.ablation.plan import Plan, Site
from mm_metrics.ablation.recorder import Recorder, autocast
from mm_metrics.ablation.replay import DivergedError, Outputs, Way, along_samples, given
from mm_metrics.ablation.stamps import Checks, Weights, same_weights
from mm_metrics.ablation.verify import agree, near, room_of
from mm_metrics.ablation.view import View

CHUNK_BYTES = 2**28  # of inputs and encoder outputs in one larger batch
CHUNK_BYTES_CPU = 2**20  # where starting a pass costs little, and what leaves the cache costs more
CHUNK_SAMPLES = 2**16
SHAPES = 64  # baselines, by modality and shape, whose encodings are held


class Split:
    """Answers batches of one form through a plan.

    ``run(batch, N)`` gives the logits ``(N, C)``. ``batched`` puts several coalitions into one larger batch;
    ``one_row`` encodes the baseline on one row.
    """

    def __init__(self, plan: Plan, run: Callable[[Any, int], Tensor], batched: bool, one_row: bool) -> None:
        self.plan, self.run, self.batched, self.one_row = plan, run, batched, one_row
        self.most = CHUNK_SAMPLES
        self.room: Tensor | None = None  # by which a replay may miss the model's own answer, once it was compared
        self._encoded: dict[Any, tuple[Any, Any, Outputs]] = {}
        self._weights = {
            m: Weights([site.module for site in plan.sites if site.modality == m])
            for m in {site.modality for site in plan.sites}
        }

    def forget(self) -> None:
        """Let go of the baseline's encodings."""
        self._encoded.clear()

    def answers(
        self, view: View, masks: tuple[int, ...], recorder: Recorder, own: Tensor | None, checks: Checks, now: Any
    ) -> Tensor:
        """``(K, N, C)``; ``own`` is the model's own answer where it is known and nothing is missing.

        ``now`` stamps the weights. Where coalitions share larger batches the first holds that of all too, whose answer
        is known: a replay that gives another raises DivergedError, at once or when the ``checks`` are read.
        """
        outputs: Outputs = [(site, recorder.find(site, view.leaves, checks, now)) for site in self.plan.sites]
        if any(output is None for _, output in outputs):
            outputs, own = self._encode(view)
        hidden = self._hidden_outputs(view, outputs, checks, now)
        ways = self._ways(view, outputs, hidden)
        full = view.modalities.full
        found: dict[int, Tensor] = {}
        todo = tuple(mask for mask in masks if own is None or mask != full)
        most = self._chunk(view, outputs) if self.batched and view.joint and all(way.joint for way in ways) else 1
        control = own if 1 < most and todo else None
        todo = todo if control is None or self.room is None else (full, *todo)
        while todo:
            k = min(most, self.most)
            try:
                answer = self._replay(view, todo[:k], ways)
            except torch.OutOfMemoryError:
                if min(k, len(todo)) == 1:
                    raise
                self.most = min(k, len(todo)) // 2
                continue
            if control is not None and self.room is not None and not near(answer[0], control, self.room, checks):
                raise DivergedError("a replay of the parts gives another answer than the model's own")
            control, done, todo = None, todo[:k], todo[k:]
            found |= zip(done, answer, strict=True)
            if wrote := [way.site for way in ways if way.written]:
                for site in wrote:
                    site.written = True  # from now on it is given copies
                ways = self._ways(view, outputs, hidden)
        found |= {} if own is None else {full: own}
        return torch.stack([found[mask] for mask in masks])

    def _ways(self, view: View, outputs: Outputs, hidden: list[tuple[Any, int]]) -> list[Way]:
        return [
            Way(site, output, other, view.having(site.modality), view.N, n)
            for (site, output), (other, n) in zip(outputs, hidden, strict=True)
        ]

    def _replay(self, view: View, masks: tuple[int, ...], ways: list[Way]) -> Tensor:
        outputs = [(way.site, way.of([bool(mask >> way.site.modality & 1) for mask in masks])) for way in ways]
        batch = view.hide(masks, write=self.plan.writes)
        with given(outputs, self.plan.calls):
            answer = self.run(batch, len(masks) * view.N)
        return (answer.clone() if len(masks) == 1 else answer).unflatten(0, (len(masks), view.N))

    def _chunk(self, view: View, outputs: Outputs) -> int:
        held = [x for _, output in outputs for x in tensors(output).values()]
        held += [view.leaves[path] for path in view.modality]
        size = sum(x.numel() * x.element_size() for x in held)
        room = CHUNK_BYTES_CPU if held[0].device.type == "cpu" else CHUNK_BYTES
        return max(1, min(room // max(size, 1), CHUNK_SAMPLES // view.N))

    def _encode(self, view: View) -> tuple[Outputs, Tensor | None]:
        """Run the model once for the encoders' outputs, and its answer where that is the coalition of all."""
        whole = view.complete or any(stand_in.kind == "shift" for stand_in in view.stand_ins.values())
        batch = copied(view.batch, self.plan.writes) if whole else view.hide((view.modalities.full,), self.plan.writes)
        with given((), self.plan.calls, self.plan.sites, batch) as kept:
            answer = self.run(batch, view.N).clone()
        return [(site, kept[site]) for site in self.plan.sites], answer if view.complete or not whole else None

    def _hidden_outputs(self, view: View, outputs: Outputs, checks: Checks, now: Any) -> list[tuple[Any, int]]:
        """Each encoder's output for its modality's stand-in, with its samples: one, or N."""
        kinds: dict[int, set[str]] = {site.modality: set() for site, _ in outputs}
        for path, m in view.modality.items():
            kind = view.stand_ins[path].kind
            kinds.setdefault(m, set()).add(kind if self.one_row or kind != "row" else "rows")
        shift = next((stand_in.shift for stand_in in view.stand_ins.values() if stand_in.kind == "shift"), 0)

        def roll(x: Tensor, axis: int) -> Tensor:
            return x.unflatten(axis, (view.N, -1)).roll(shift, axis).flatten(axis, axis + 1)

        found: dict[Site, tuple[Any, int]] = {}
        rows, missing, precision = set(), {}, autocast([view.leaves[path] for path in view.modality])
        for m in dict.fromkeys(site.modality for site, _ in outputs):
            mine = [(site, output) for site, output in outputs if site.modality == m]
            if kinds[m] == {"same"}:
                found.update((site, (output, view.N)) for site, output in mine)
            elif kinds[m] == {"shift"}:
                found.update((site, (along_samples(site, output, roll), view.N)) for site, output in mine)
            elif kinds[m] != {"row"}:
                rows.add(m)
            else:
                key = m, *(stand_in.token for path, stand_in in view.stand_ins.items() if view.modality[path] == m)
                then, own, held = self._encoded.get((key, precision), (None, None, ()))
                if same_weights(now, then, checks) or same_weights(self._weights[m].now(), own, checks):
                    self._encoded[key, precision] = now, own, held
                    found.update((site, (output, 1)) for site, output in held)
                else:
                    missing[m] = key
        if rows:
            found.update((site, (out, view.N)) for site, out in self._encode_baseline(view, outputs, rows, view.N))
        if missing:
            fresh = self._encode_baseline(view, outputs, set(missing), 1)
            found.update((site, (output, 1)) for site, output in fresh)
            for m, key in missing.items():
                if None not in key:  # else nothing tells what it was made of
                    if len(self._encoded) >= SHAPES:
                        del self._encoded[next(iter(self._encoded))]
                    made = [(site, output) for site, output in fresh if site.modality == m]
                    self._encoded[key, precision] = now, self._weights[m].now(), made
        return [found[site] for site, _ in outputs]

    def _encode_baseline(self, view: View, outputs: Outputs, wanted: set[int], n: int) -> Outputs:
        """Run the wanted modalities' encoders on their stand-ins, n rows; the others' outputs are there already."""

        def change(path: Path, leaf: Any) -> Any:
            if isinstance(leaf, list) and len(leaf) == view.N:
                return leaf[:n]
            if not isinstance(leaf, Tensor) or not leaf.ndim or leaf.shape[0] != view.N:
                return leaf
            if view.modality.get(path, -1) in wanted:
                return view.stand_ins[path].of(leaf).expand(n, *leaf.shape[1:]).clone()
            return leaf[:n].clone()

        batch = rebuilt(view.batch, change)
        mine = [site for site in self.plan.sites if site.modality in wanted]
        modules = {site.module for site in mine}
        others = [(site, output) for site, output in outputs if site.module not in modules]
        if n < view.N:
            first = lambda x, axis: x.narrow(axis, 0, x.shape[axis] // view.N)  # noqa: E731
            others = [(site, along_samples(site, output, first)) for site, output in others]
        others = [(site, copied(output)) for site, output in others]
        keep = [site for site in self.plan.sites if site.module in modules]
        with given(others, None, keep, batch, mine if self.plan.ends else ()) as kept:
            self.run(batch, n)
        if any(site not in kept for site in mine):
            raise DivergedError("the model called its encoders otherwise than when it was followed")
        return [(site, kept[site]) for site in mine]


def split_by(
    plan: Plan,
    run: Callable[[Any, int], Tensor],
    view: View,
    masks: tuple[int, ...],
    reference: Tensor,
    recorder: Recorder,
    now: Any,
) -> tuple[Split | None, str]:
    """The cheapest way of splitting the model that gives the ``reference`` ``(K, N, C)``; None and what went wrong."""
    why = ""
    for batched, one_row in ((True, True), (False, True), (True, False), (False, False)):
        if batched and plan.looped:
            continue
        split, checks = Split(plan, run, batched, one_row), Checks()
        try:
            if agree(split.answers(view, masks, recorder, None, checks, now), reference, checks) and checks.hold():
                split.room = room_of(reference)
                return split, ""
        except Exception as error:  # another way may work, and the whole model does
            why = f"it can't be run in parts ({type(error).__name__}: {error})"
    return None, why
