"""The samples behind a finding: a few numbers each, in memory that does not grow, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.truth import Rows
from mm_metrics.counts.labels import Labels, Reader
from mm_metrics.counts.measure import logits_of
from mm_metrics.modalities import Modalities

KEPT, WORST = 50, 10
_MANY = 16  # coalitions, of which each sample's answers are kept; of more, those of one modality, or of one missing
_UNASKED = -2
RANK = 2**40  # places of one rank


class SampleTracker:
    """Keeps of each kind of finding the lowest `KEPT` numbers and the `WORST` samples, on the device, without a stall.

    Kinds F, for S slices and M modalities: missed on a slice; right only with a modality; right only without it. In
    binary tasks a miss is an event that was not seen, else any wrong answer.
    """

    def __init__(self, modalities: Modalities, reader: Reader, masks: Sequence[int]) -> None:
        self.modalities, self.reader = modalities, reader
        M = len(modalities)
        few = masks if len(masks) <= _MANY else [mask for mask in masks if mask.bit_count() in (0, 1, M - 1, M, M + 1)]
        self.masks = tuple(few)
        self.kinds = [("missed", "all"), *(("missed", name) for name in modalities.names)]
        self.kinds += [(kind, name) for kind in ("right_only_with", "right_only_without") for name in modalities.names]
        self.lowest: list[Tensor] = []  # 1 where there is one (F, KEPT), number
        self.worst: list[Tensor] = []  # how sure (F, WORST), number, place, target (F, WORST, L), said (F, WORST, K, L)
        self.counts: Tensor | int = 0  # (F,)
        self.numbered, self.positions = True, False  # whether numbers are known; whether a sample is several rows

    @property
    def places(self) -> Tensor | None:
        """``(F, WORST)`` the places of the worst samples, -1 where there is none; None before the first batch."""
        return torch.where(self.worst[0] >= 0, self.worst[2], -1) if self.worst else None

    def update(self, labels: Labels, masks: Sequence[int], own: int, rows: Rows) -> None:
        """Look at one batch of `rows` that were read as `labels`, which the coalitions `masks` answered.

        `own` is the mask of the model's own prediction. A sample is ``rows.each`` rows, right where all of them are.
        """
        full, M, each = self.modalities.full, len(self.modalities), rows.each
        at = {mask: k for k, mask in enumerate(masks)}
        mine, whole = at[own], at.get(full, at[own])
        without = [at.get(full ^ 1 << m) if full in at else None for m in range(M)]
        sure = torch.zeros(labels.predicted.shape[:2], device=rows.preds.device)
        for k in {mine, whole, *(k for k in without if k is not None)}:  # a copy of all would cost as much again
            one = labels._replace(predicted=labels.predicted[k : k + 1])
            sure[k] = _sureness(self.reader, rows.preds[k : k + 1], one)[0].round(decimals=4)  # of noise no order comes
        target, said, counted = labels.target, labels.predicted, rows.counted  # (N, L), (K, N, L), (K, N)
        right = ((said == target) | (False if labels.ignored is None else labels.ignored)).all(-1)
        missed = ~right[mine] & (target[:, 0] == 1) if self.reader.task.positive else ~right[mine]
        slices = rows.slices
        self.numbered, self.positions = rows.numbers is not None, each > 1
        if each > 1:
            K, N = right.shape[0], right.shape[1] // each
            sure = torch.where(right, 0.0, sure).reshape(K, N, each).amax(-1)
            missed = missed.reshape(N, each).any(-1)
            said = right.reshape(K, N, each).sum(-1, keepdim=True)
            right, target = said[..., 0] == each, torch.full((N, 1), each, device=said.device)
            slices = None if slices is None else slices[::each]
            counted = None if counted is None else counted[:, ::each]
        wrong = ~right
        if counted is not None:
            said, wrong, right = said.where(counted[..., None], _UNASKED), wrong & counted, right & counted
        nothing = torch.zeros_like(missed)
        flags = [missed, *(missed if slices is None else missed & (slices[:, m] != 0) for m in range(M))]
        flags += [nothing if k is None else right[whole] & wrong[k] for k in without]
        flags += [nothing if k is None else right[k] & wrong[whole] for k in without]
        whose = [*[mine] * (1 + M), *(mine if k is None else k for k in without), *[whole] * M]
        found = torch.stack(flags)  # (F, N)
        given = [part[::each].expand_as(found) for part in (rows.numbers, rows.place) if part is not None]
        number, place = given[0], given[-1]  # whichever is known stands for both
        if self.numbered:
            self.lowest = _best(self.lowest, [found.byte(), number], KEPT)
        which = torch.arange(found.shape[1], device=found.device).expand_as(found)
        best = _best([], [torch.where(found, torch.stack([sure[k] for k in whose]), -1.0), number, place, which], WORST)
        unasked = torch.full_like(said[0], _UNASKED)[best[3]]
        asked = torch.stack([said[at[mask]][best[3]] if mask in at else unasked for mask in self.masks], dim=2)
        self.worst = _best(self.worst, [*best[:3], target[best[3]], asked], WORST)
        self.counts = self.counts + found.sum(1)

    def gathered(self, names: Sequence[str], own: int) -> list[dict[str, Any]]:
        """``[{"kind", "modality", "message", "samples", "of", "rows"}, …]`` over all ranks; all call it together.

        `rows` are the worst samples as the page takes them, in the classes' `names`, each with its ``"place"``.
        """
        mine = self.counts.tolist() if isinstance(self.counts, Tensor) else [0] * len(self.kinds)
        counts, numbers, samples = zip(*gathered((mine, self._numbers(), self._samples(names, own))), strict=True)
        return [
            {
                "kind": kind,
                "modality": modality,
                "message": self._message(kind, modality),
                "samples": sorted(n for rank in numbers for n in rank[i])[:KEPT],
                "of": sum(rank[i] for rank in counts),
                "rows": [row for *_, row in sorted(part for rank in samples for part in rank[i])][:WORST],
            }
            for i, (kind, modality) in enumerate(self.kinds)
        ]

    def _numbers(self) -> list[list[int]]:
        there, numbers = (part.tolist() for part in self.lowest) if self.lowest else ([[]] * len(self.kinds),) * 2
        return [[n for n, yes in zip(*kind, strict=True) if yes] for kind in zip(numbers, there, strict=True)]

    def _samples(self, names: Sequence[str], own: int) -> list[list[tuple[float, int, int, dict[str, Any]]]]:
        """The order and the row of this rank's worst samples of each kind."""
        if not self.worst:
            return [[] for _ in self.kinds]

        def said(labels: list[int]) -> str:
            if self.positions:
                return f"{labels[0]} positions right"
            if self.reader.task.by_label:
                return ", ".join(name for name, yes in zip(names, labels, strict=True) if yes == 1) or "none"
            return str(names[labels[0]]) if 0 <= labels[0] < len(names) else "no class"

        def row(number: int, place: int, target: list[int], answers: list[list[int]]) -> dict[str, Any]:
            told = {mask: said(one) for mask, one in zip(self.masks, answers, strict=True) if one[0] != _UNASKED}
            shown = number if self.numbered else f"{place % RANK} of process {place // RANK}"
            coalitions = {self.modalities.name(mask): answer for mask, answer in told.items() if mask != own}
            return {
                "number": shown,
                "target": said(target),
                "prediction": told[own],
                "coalitions": coalitions,
                "place": place,
            }

        kinds = zip(*(part.tolist() for part in self.worst), strict=True)
        return [
            [(-one[0], one[1], one[2], row(*one[1:])) for one in zip(*kind, strict=True) if one[0] >= 0]
            for kind in kinds
        ]

    def _message(self, kind: str, modality: str) -> str:
        if kind == "missed":
            what = "events missed" if self.reader.task.positive else "wrong answers"
            return what if modality == "all" else f"{what} on the slice {modality}"
        return f"right only {'with' if kind == 'right_only_with' else 'without'} {modality}"


def _best(held: list[Tensor], found: list[Tensor], most: int) -> list[Tensor]:
    """Of rows ``(F, n, …)`` held and found those of the largest first part; of equals, the earlier ones."""
    parts = [torch.cat(pair, dim=1) for pair in zip(held, found, strict=True)] if held else found
    order = parts[0].sort(dim=1, descending=True, stable=True).indices[:, :most]
    return [part[torch.arange(len(order), device=order.device)[:, None], order] for part in parts]


def _sureness(reader: Reader, preds: Tensor, labels: Labels) -> Tensor:
    """``(K, N)`` how sure each coalition is of what it says: its probability, 0 for labels alone.

    Of several labels that of the surest wrong one, in an ordinal task how many classes it is off. `preds` as they came.
    """
    if reader.task.ordinal:
        return (labels.predicted - labels.target).abs().amax(-1).float()
    if not preds.dtype.is_floating_point:
        return torch.zeros(tuple(preds.shape[:2]), device=preds.device)
    if reader.task.by_class:
        x = preds.detach().float()
        said = x.gather(-1, labels.predicted.clamp(min=0))  # the largest of the row
        given = (said <= 1) & ((x.sum(-1, keepdim=True) - 1).abs() < 1e-2) & (x.amin(-1, keepdim=True) >= 0)
        return torch.where(given, said, 1 / (x - said).exp_().sum(-1, keepdim=True)).squeeze(-1).nan_to_num(0.0)
    held = logits_of(reader, preds)[0].sigmoid()
    said = torch.where(labels.predicted == 1, held, 1 - held)
    return torch.where(labels.predicted == labels.target, 0.0, said.nan_to_num(0.0)).amax(-1)
