"""A model in two halves: its encoders' outputs, kept; and what lies behind them, replayed for each coalition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import Path, copied, flatten, rebuilt, tensors
from mm_metrics.ablation.encoders import Plan, Site
from mm_metrics.ablation.recorder import Enough, Recorder, autocast
from mm_metrics.ablation.replay import DivergedError, both, first_sample, given, joined, shifted
from mm_metrics.ablation.view import View

CHUNK_BYTES = 2**28  # of inputs and encoder outputs in one larger batch
CHUNK_BYTES_CPU = 2**20  # where starting a pass costs little, and what leaves the cache costs more
CHUNK_SAMPLES = 2**16
SHAPES = 16  # input shapes whose baseline encodings are held

Outputs = list[tuple[Site, Any]]


@dataclass
class Ways:
    """An encoder's output for a batch when its modality is shown, and when it is hidden."""

    site: Site
    shown: Any
    hidden: Any

    def __post_init__(self) -> None:
        self._made = self._versions()

    @property
    def written(self) -> bool:
        """Whether somebody has written into them."""
        return self._versions() != self._made

    def _versions(self) -> list[int]:
        return [tensor._version for tensor in tensors((self.shown, self.hidden)).values()]


class Split:
    """Answers batches of one form through a plan.

    ``run(batch, N)`` gives the logits ``(N, C)``. ``batched`` puts several coalitions into one larger batch;
    ``one_row`` encodes the baseline on one row.
    """

    def __init__(self, plan: Plan, run: Callable[[Any, int], Tensor], batched: bool, one_row: bool) -> None:
        self.plan, self.run, self.batched, self.one_row = plan, run, batched, one_row
        self.most = CHUNK_SAMPLES
        self._encoded: dict[int, dict[Any, list]] = {}

    def forget(self) -> None:
        """Let go of the baseline's encodings."""
        self._encoded.clear()

    def answers(self, view: View, masks: tuple[int, ...], kept: Recorder, own: Tensor | None) -> Tensor:
        """``(K, N, C)``; ``own`` is the model's own answer where it is known and nothing is missing."""
        outputs = self.kept_outputs(view, kept)
        if outputs is None:
            outputs, own = self._encode(view)
        hidden = self._hidden_outputs(view, outputs)
        ways = self._ways(view, outputs, hidden)
        full = view.modalities.full
        todo = tuple(mask for mask in masks if mask != full or own is None)
        found = {} if own is None else {full: own}
        while todo:
            k = self._chunk(view, outputs) if self.batched else 1
            try:
                answer = self._replay(view, todo[:k], ways)
            except torch.OutOfMemoryError:
                if min(k, len(todo)) == 1:
                    raise
                self.most = min(k, len(todo)) // 2
                continue
            found.update(zip(todo[:k], answer, strict=True))
            todo = todo[k:]
            if wrote := [way.site for way in ways if way.written]:
                for site in wrote:
                    site.written = True  # from now on it is given copies
                ways = self._ways(view, outputs, hidden)
        return torch.stack([found[mask] for mask in masks])

    def kept_outputs(self, view: View, kept: Recorder) -> Outputs | None:
        """The encoders' outputs for this very batch, None where one was not kept."""
        outputs = [(site, kept.find(site, view.leaves)) for site in self.plan.sites]
        return None if any(output is None for _, output in outputs) else outputs

    @staticmethod
    def _ways(view: View, outputs: Outputs, hidden: list[Any]) -> list[Ways]:
        return [
            Ways(site, *both(site, output, other, view.having(site.modality), view.N))
            for (site, output), other in zip(outputs, hidden, strict=True)
        ]

    def _replay(self, view: View, masks: tuple[int, ...], ways: list[Ways]) -> Tensor:
        outputs = [
            (
                way.site,
                joined(way.site, way.shown, way.hidden, [bool(m >> way.site.modality & 1) for m in masks], view.N),
            )
            for way in ways
        ]
        batch = view.hide(masks, None if self.plan.writes else self.plan.around)
        with given(outputs, self.plan.calls):
            answer = self.run(batch, len(masks) * view.N)
        return answer.clone().unflatten(0, (len(masks), view.N))

    def _chunk(self, view: View, outputs: Outputs) -> int:
        held = [x for site, output in outputs if site.reaches for x in tensors(output).values()]
        held += [view.leaves[path] for path in self.plan.around]
        size = sum(x.numel() * x.element_size() for x in held)
        room = CHUNK_BYTES_CPU if view.there.device.type == "cpu" else CHUNK_BYTES
        return max(1, min(room // max(size, 1), CHUNK_SAMPLES // view.N, self.most))

    def _recorder(self, wanted: set[int]) -> Recorder:
        """Records our own pass; with ``wanted`` modalities it ends as soon as their encoders have run."""
        modules = {site.module for site in self.plan.sites if site.modality in wanted}
        enough = [site for site in self.plan.sites if site.module in modules]
        copied = {id(site.module) for site in self.plan.sites if site.written}
        return Recorder(set(self.plan.interest), copied, own=True, enough=enough)

    def _encode(self, view: View) -> tuple[Outputs, Tensor | None]:
        """Run the model once for the encoders' outputs, and its answer where that is the coalition of all."""
        whole = view.complete or any(stand_in.kind == "shift" for stand_in in view.stand_ins.values())
        batch = copied(view.batch, self.plan.writes) if whole else view.hide((view.modalities.full,))
        recorder = self._recorder(set())
        with recorder.calls:
            answer = self.run(batch, view.N).clone()
        return self._found(recorder, self.plan.sites, batch), answer if view.complete or not whole else None

    def _found(self, recorder: Recorder, sites: list[Site], batch: Any) -> Outputs:
        leaves = flatten(batch)
        outputs = [(site, recorder.find(site, leaves)) for site in sites]
        if any(output is None for _, output in outputs):
            raise DivergedError("the model called its encoders otherwise than when it was followed")
        return outputs

    def _hidden_outputs(self, view: View, outputs: Outputs) -> list[Any]:
        """Each encoder's output for its modality's stand-in: one row, or a row a sample."""
        kinds: dict[int, set[str]] = {site.modality: set() for site, _ in outputs}
        for path, m in view.modality.items():
            kind = view.stand_ins[path].kind
            kinds.setdefault(m, set()).add(kind if self.one_row or kind != "row" else "rows")
        shift = next((stand_in.shift for stand_in in view.stand_ins.values() if stand_in.kind == "shift"), 0)
        found: dict[Site, Any] = {}
        rows, missing = set(), {}
        for m in dict.fromkeys(site.modality for site, _ in outputs):
            mine = [(site, output) for site, output in outputs if site.modality == m]
            if kinds[m] == {"same"}:
                found.update(mine)
            elif kinds[m] == {"shift"}:
                found.update((site, shifted(site, output, shift, view.N)) for site, output in mine)
            elif kinds[m] != {"row"}:
                rows.add(m)
            else:
                key = self._key(view, m)
                held = None if key is None else self._encoded.get(m, {}).get(key)
                if held is None:
                    missing[m] = key
                else:
                    found.update(held)
        if rows:
            found.update(self._encode_baseline(view, outputs, rows, view.N))
        if missing:
            fresh = self._encode_baseline(view, outputs, set(missing), 1)
            found.update(fresh)
            for m, key in missing.items():
                self._hold(m, key, [(site, output) for site, output in fresh if site.modality == m])
        return [found[site] for site, _ in outputs]

    def _hold(self, m: int, key: Any, encoded: Outputs) -> None:
        held = self._encoded.setdefault(m, {})
        if key is None:
            return
        if len(held) >= SHAPES:
            del held[next(iter(held))]
        held[key] = encoded

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
        modules = {site.module for site in self.plan.sites if site.modality in wanted}
        others = [(site, output) for site, output in outputs if site.module not in modules]
        if n < view.N:
            others = [(site, first_sample(site, output, view.N)) for site, output in others]
        recorder = self._recorder(wanted)
        try:
            with given([(site, copied(output)) for site, output in others]), recorder.calls:
                self.run(batch, n)
        except Enough:
            pass
        return self._found(recorder, [site for site, _ in outputs if site.modality in wanted], batch)

    def _key(self, view: View, m: int) -> Any:
        """What a baseline's encoding hangs on, None where that is not known."""
        tokens = [view.stand_ins[path].token for path in view.stand_ins if view.modality[path] == m]
        if None in tokens:
            return None
        modules = dict.fromkeys(site.module for site in self.plan.sites if site.modality == m)
        return (*tokens, *(weights(module) for module in modules), autocast(tensors(view.batch).values()))


def weights(module: Module) -> tuple:
    """Changes when a weight or buffer does: place and version of each, and a few values of some of them.

    A write through ``.data``, as some averages of weights do, changes neither place nor version.
    """
    held = [*module.parameters(), *module.buffers()]
    probed = [x.detach().reshape(-1) for x in held[:: max(1, len(held) // 8)] if x.is_floating_point()]
    with torch.no_grad():
        sums = [x[:: max(1, x.numel() // 64)].sum(dtype=torch.float64) for x in probed]
        values = torch.stack(sums).tolist() if sums else []
    return (*((x.data_ptr(), None if x.is_inference() else x._version) for x in held), *values)


def agree(answer: Tensor, reference: Tensor) -> bool:
    """Whether two answers are equal up to rounding: 1e-5 of the largest logit, more in lower precision."""
    if answer.shape != reference.shape or answer.dtype != reference.dtype:
        return False
    if not reference.is_floating_point():
        return torch.equal(answer, reference)
    rounding = {torch.float64: 1e-9, torch.float32: 1e-5}.get(reference.dtype, 3e-2)
    device = reference.device.type
    if torch.is_autocast_enabled(device):
        rounding = 3e-2
    elif device == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        rounding = max(rounding, 5e-3)
    finite = reference[reference.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(answer, reference, rtol=rounding, atol=rounding * scale, equal_nan=True)
