"""The samples behind a finding: a few each, in memory that does not grow, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.truth import Rows
from mm_metrics.counts.labels import Labels, Reader
from mm_metrics.counts.measure import logits_of
from mm_metrics.metrics import CoalitionConfusionMatrix

KEPT, WORST = 50, 10
_MANY = 16  # coalitions, of which each sample's answers are kept; of more, those of one modality, or of one missing
_CLASSES = 64  # that have samples of their own
_UNASKED = 2**20  # no class, and no number that a scale may have
RANK = 2**40  # places of one rank
_OF_CLASS = ("missed_class", "taken_for")


class SampleTracker:
    """Keeps of each kind of finding the `KEPT` samples that are surest and wrong, on the device, without a stall.

    Kinds F, for slices and modalities: missed on a slice; right only with a modality; right only without it; for
    classes, or labels: missed, and taken for it. In binary tasks a miss is an event that was not seen, and what was
    seen and is none is a false alarm; else a miss is any wrong answer, and on a scale every answer is one, those
    farthest off first. Of samples that are equally sure the lower numbers come first, on any number of ranks.
    """

    def __init__(self, metric: CoalitionConfusionMatrix) -> None:
        self.modalities, self.reader = metric.modalities, metric.reader
        M, masks, names = len(self.modalities), metric.layout.masks or (), self.modalities.names
        few = masks if len(masks) <= _MANY else [mask for mask in masks if mask.bit_count() in (0, 1, M - 1, M, M + 1)]
        self.masks = tuple(few)
        self.by = [part for part in metric.layout.by if part[0][0] != "_"]
        classes = self.reader.L if self.reader.task.by_label else self.reader.C
        self.classes = 0 if self.reader.task.positive or classes > _CLASSES else classes
        self.kinds: list[tuple[str, str, int | None]] = [("missed", name, None) for name in ("all", *names)]
        self.kinds += [("missed", f"{column}/{value}", None) for column, values in self.by for value in values]
        self.kinds += [(kind, name, None) for kind in ("right_only_with", "right_only_without") for name in names]
        self.kinds += [(kind, "all", c) for kind in _OF_CLASS for c in range(self.classes)]
        if self.reader.task.positive:
            self.kinds += [("false_alarm", name, None) for name in ("all", *names)]
        self.worst: list[Tensor] = []  # order (F, KEPT), number, place, target (F, KEPT, L), said (F, KEPT, K, L)
        self.counts: Tensor | int = 0  # (F,)
        self.numbered, self.positions = True, False  # whether numbers are known; whether a sample is several rows

    @property
    def places(self) -> Tensor | None:
        """``(F, WORST)`` the places of the worst samples, -1 where there is none; None before the first batch."""
        return torch.where(self.worst[0] > -RANK, self.worst[2], -1)[:, :WORST] if self.worst else None

    def update(self, labels: Labels, masks: Sequence[int], own: int, rows: Rows) -> None:
        """Look at `rows` that were read as `labels`, which the coalitions `masks` answered.

        `own` is the mask of the model's own prediction. A sample is ``rows.each`` rows, right where all of them are.
        """
        preds, each, (said, target, ignored) = rows.preds.detach(), rows.each, labels[:3]
        slices, counted = rows.slices, rows.counted
        number: Any = rows.place if rows.numbers is None else rows.numbers  # where one is not known, the other stands
        place: Any = rows.numbers if rows.place is None else rows.place
        codes = [(rows.by or {})[column] for column, _ in self.by]
        full, M = self.modalities.full, len(self.modalities)
        at = {mask: k for k, mask in enumerate(masks)}
        mine, whole = at[own], at.get(full, at[own])
        without = [at.get(full ^ 1 << m) if full in at else None for m in range(M)]
        scale, sure = self.reader.task.ordinal, torch.zeros(said.shape[:2], device=preds.device)
        numbers = preds.float().reshape(sure.shape) if scale else preds
        true = rows.target.float().reshape(-1) if scale else rows.target
        for k in {mine, whole, *(k for k in without if k is not None)}:  # a copy of all would cost as much again
            one = labels._replace(predicted=said[k : k + 1])
            off = (
                (numbers[k] - true).abs().nan_to_num() / 10
                if scale
                else _sureness(self.reader, preds[k : k + 1], one)[0]
            )
            sure[k] = off.round(decimals=4)  # of noise no order comes
        right = ((said == target) | (False if ignored is None else ignored)).all(-1)
        missed = ~right[mine] & (target[:, 0] == 1) if self.reader.task.positive else ~right[mine]
        of_class = self._of_classes(said[mine], target, ignored, ~right[mine], each)
        alarms = ~right[mine] & (target[:, 0] == 0)
        if scale:
            missed = torch.ones_like(missed) if ignored is None else ~ignored.all(-1)
            said, target = numbers.unsqueeze(-1), true.unsqueeze(-1)
        self.numbered, self.positions = rows.numbers is not None, each > 1
        if each > 1:
            K, N = right.shape[0], right.shape[1] // each
            sure = (sure if scale else torch.where(right, 0.0, sure)).reshape(K, N, each).amax(-1)
            missed, alarms = (part.reshape(N, each).any(-1) for part in (missed, alarms))
            said = right.reshape(K, N, each).sum(-1, keepdim=True)
            right, target = said[..., 0] == each, torch.full((N, 1), each, device=said.device)
            slices = None if slices is None else slices[::each]
            number, place, *codes = (x[::each] for x in (number, place, *codes))
            counted = None if counted is None else counted[:, ::each]
        wrong = ~right
        if counted is not None:
            said, wrong, right = said.where(counted[..., None], _UNASKED), wrong & counted, right & counted
        nothing = torch.zeros_like(missed)
        flags, alarmed = (
            [part, *(part if slices is None else part & (slices[:, m] != 0) for m in range(M))]
            for part in (missed, alarms)
        )
        if self.reader.task.positive:
            of_class = torch.stack(alarmed)
        flags += [
            missed & (code == v) for code, (_, values) in zip(codes, self.by, strict=True) for v in range(len(values))
        ]
        whose = [mine] * len(flags) + [mine if k is None else k for k in without] + [whole] * M
        flags += [nothing if k is None else right[whole] & wrong[k] for k in without]
        flags += [nothing if k is None else right[k] & wrong[whole] for k in without]
        found = torch.cat([torch.stack(flags), of_class])  # (F, N)
        whose += [mine] * len(of_class)
        # One integer orders them: first how sure, then the number, and among numbers that are not known the place.
        order = (
            (1e4 * torch.stack([sure[k] for k in whose])).round().long().clamp(max=2**21) << 41
        ) - number % RANK  # (F, N)
        order, which = torch.where(found, order, -RANK).topk(min(KEPT, found.shape[1]), dim=1)
        unasked = torch.full_like(said[0], _UNASKED)[which]
        asked = torch.stack([said[at[mask]][which] if mask in at else unasked for mask in self.masks], dim=2)
        best = [order, number[which], place[which], target[which], asked]
        if self.worst:
            best = [torch.cat(pair, dim=1) for pair in zip(self.worst, best, strict=True)]
            first = best[0].topk(min(KEPT, best[0].shape[1]), dim=1).indices
            best = [part[torch.arange(len(first), device=first.device)[:, None], first] for part in best]
        self.worst, self.counts = best, self.counts + found.sum(1)

    def _of_classes(self, said: Tensor, target: Tensor, ignored: Tensor | None, wrong: Tensor, each: int) -> Tensor:
        """``(2 C, N)`` bool: samples of a class that were missed, and those wrongly taken for it; of labels alike."""
        if self.reader.task.by_label and self.classes:
            heard = True if ignored is None else ~ignored
            return torch.cat([(target == 1) & (said != 1) & heard, (target != 1) & (said == 1) & heard], dim=1).T
        numbers = torch.arange(self.classes, device=said.device)
        flags = torch.cat([(part == numbers) & wrong[:, None] for part in (target, said)], dim=1)
        return flags.unflatten(0, (len(wrong) // each, each)).any(1).T

    def gathered(
        self, names: Sequence[str], own: int, wanted: Callable[[str, str, str | None], bool]
    ) -> list[dict[str, Any]]:
        """``[{"kind", "modality", "class", "message", "samples", "of", "rows"}, …]`` over all ranks; all call it.

        Of the kinds that are `wanted`, and have samples; `samples` are numbers, the surest first, `rows` the worst as
        the page takes them, in the classes' `names`, each with its ``"place"``.
        """
        kinds = [(kind, slice, None if c is None else str(names[c])) for kind, slice, c in self.kinds]
        mine = self.counts.tolist() if isinstance(self.counts, Tensor) else [0] * len(kinds)
        told = [part.tolist() for part in self.worst[:3]]  # order, number and place of each
        shown = [part[:, :WORST].tolist() for part in self.worst[3:]]  # target and answers: no more are rows
        parts = zip(*told, *shown, strict=True) if self.worst else [()] * len(kinds)
        samples = [
            [(-one[0], one[2], one) for one in zip_longest(*part) if one[0] > -RANK] if wanted(*kind) else []
            for kind, part in zip(kinds, parts, strict=True)
        ]
        counts, ranks = zip(*gathered((mine, samples)), strict=True)
        made = []
        for i, kind in enumerate(kinds):
            of, best = sum(rank[i] for rank in counts), sorted(part for rank in ranks for part in rank[i])[:KEPT]
            if of and wanted(*kind):
                entry: dict[str, Any] = dict(zip(("kind", "modality", "class"), kind, strict=True))
                entry["message"] = self._message(*kind)
                entry["samples"] = [one[1] for *_, one in best] if self.numbered else []
                rows = [self._row(names, own, *one[1:]) for *_, one in best[:WORST]]
                made.append({**entry, "of": of, "rows": rows})
        return made

    def _row(
        self, names: Sequence[str], own: int, number: int, place: int, target: list[Any], answers: list[list[Any]]
    ) -> dict[str, Any]:
        """A sample as the page takes it."""

        def said(labels: list[Any]) -> str:
            if self.positions:
                return f"{labels[0]} positions right"
            if self.reader.task.ordinal:
                return f"{labels[0]:.3g}"
            if self.reader.task.by_label:
                return ", ".join(name for name, yes in zip(names, labels, strict=True) if yes == 1) or "none"
            return str(names[labels[0]]) if 0 <= labels[0] < len(names) else "no class"

        told = {mask: said(one) for mask, one in zip(self.masks, answers, strict=True) if one[0] != _UNASKED}
        coalitions = {self.modalities.name(mask): answer for mask, answer in told.items() if mask != own}
        shown = number if self.numbered else f"{place % RANK} of process {place // RANK}"
        answer: dict[str, Any] = {"number": shown, "target": said(target), "prediction": told[own]}
        if self.reader.task.ordinal and not self.positions:  # numbers of one class are right, and need not be equal
            values = torch.tensor([one[0] for one in answers], dtype=torch.float32)
            read = self.reader.read(values.reshape(-1, 1), torch.tensor(target, dtype=torch.float32), eager=False)
            right = (read.predicted == read.target).flatten().tolist()
            answer["right"] = [
                self.modalities.name(mask) for mask, yes in zip(self.masks, right, strict=True) if yes and mask in told
            ]
        return {**answer, "coalitions": coalitions, "place": place}

    def _message(self, kind: str, modality: str, name: str | None) -> str:
        noun = f"{self.reader.task.noun} {name!r}"
        task = self.reader.task
        what = "events missed" if task.positive else "largest errors" if task.ordinal else "wrong answers"
        return {
            "missed": what if modality == "all" else f"{what} on the slice {modality}",
            "right_only_with": f"right only with {modality}",
            "right_only_without": f"right only without {modality}",
            "missed_class": f"{noun} missed",
            "taken_for": f"taken for {noun}",
            "false_alarm": "false alarms" if modality == "all" else f"false alarms on the slice {modality}",
        }[kind]


def _sureness(reader: Reader, preds: Tensor, labels: Labels) -> Tensor:
    """``(K, N)`` how sure each coalition is of what it says: its probability, 0 for labels alone.

    Of several labels that of the surest wrong one. `preds` as they came.
    """
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
