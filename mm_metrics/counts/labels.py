"""Predictions and targets as users have them to checked labels: the only place that knows the tasks' input formats.

Inside, every task has one shape: predicted ``(K, N, L)`` and target ``(N, L)`` int64 in 0…C-1, with L = 1 except in
multilabel, where C = 2. What is wrong is refused at once where looking costs nothing (`eager`), and marked otherwise,
because a look at a value on an accelerator stalls it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.moments import LARGEST
from mm_metrics.tasks import Task, task_of

MOSI_EDGE = 3
UNANSWERED = -1  # an answer that is no class: a miss
_ROUNDING = 1e-2  # of two probabilities in half precision


class Labels(NamedTuple):
    """A batch ready to be counted; masks are None where nothing is marked."""

    predicted: Tensor  # (K, N, L) int64
    target: Tensor  # (N, L) int64
    ignored: Tensor | None  # (N, L) bool
    bad_prediction: Tensor | None  # (N,) bool
    bad_target: Tensor | None  # (N,) bool


@dataclass(frozen=True)
class Reader:
    """How predictions and targets are read.

    >>> Reader("multiclass", num_classes=3).read(torch.tensor([[[0.1, 0.7, 0.2]]]), torch.tensor([1])).predicted
    tensor([[[1]]])
    """

    kind: str = "multiclass"
    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | Sequence[float] = 0.5
    from_logits: bool = False
    ignore_index: int | None = None
    edges: Sequence[float] | str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that do not fit the task."""
        for name in ("threshold", "edges"):  # lists, as configurations have them
            value = getattr(self, name)
            if not isinstance(value, str | int | float | None):
                object.__setattr__(self, name, tuple(float(part) for part in value))
        if self.task.ordinal:
            self._check_edges()
        elif self.edges is not None:
            raise ValueError(f"edges={self.edges!r}: task={self.kind!r} has none, they are for task='ordinal'")
        if self.task.by_class:
            if not isinstance(self.num_classes, int) or self.num_classes < 2:
                raise ValueError(f"num_classes={self.num_classes!r}: task='multiclass' needs an integer of 2 or more")
        elif self.num_classes not in (None, 2) and self.task.positive:
            raise ValueError(f"num_classes={self.num_classes!r}: task='binary' has two, leave it out")
        if self.task.by_label and (not isinstance(self.num_labels, int) or self.num_labels < 1):
            raise ValueError(f"num_labels={self.num_labels!r}: task='multilabel' needs an integer of 1 or more")
        thresholds = self.thresholds
        if len(thresholds) not in (1, self.L) or not all(0 <= t <= 1 for t in thresholds):
            raise ValueError(f"threshold={self.threshold!r}: a fraction in 0…1, or one for each of {self.L} labels")

    @cached_property
    def task(self) -> Task:
        """What the task is."""
        return task_of(self.kind)

    @property
    def C(self) -> int:
        """Classes: 2 in binary and multilabel, those that the edges cut in ordinal tasks."""
        if self.task.ordinal:
            return 2 * MOSI_EDGE + 1 if self.rounded or self.edges is None else len(self.edges) + 1
        return int(self.num_classes) if self.task.by_class and self.num_classes else 2

    @property
    def L(self) -> int:
        """Labels: 1 except in multilabel."""
        return int(self.num_labels) if self.task.by_label and self.num_labels else 1

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One threshold, or one for each label."""
        return (float(t),) if isinstance(t := self.threshold, int | float) else tuple(t)

    @property
    def rounded(self) -> bool:
        """Whether classes are numbers rounded to -3…3, as the sentiment of CMU-MOSI is scored."""
        return self.edges == "mosi"

    @property
    def named(self) -> tuple[str, ...] | None:
        """Names that the classes have by themselves: those of an ordinal task."""
        if not self.task.ordinal or self.edges is None:
            return None
        if self.rounded:
            return tuple(map(str, range(-MOSI_EDGE, MOSI_EDGE + 1)))
        ends = ("", *(f"{edge:g}" for edge in self.edges), "")
        return tuple(f"{low}…{high}" if low or high else "…" for low, high in pairwise(ends))

    def read(self, preds: Tensor, target: Tensor, eager: bool = True) -> Labels:
        """``preds`` ``(K, N)`` or ``(K, N, C)`` with their ``target`` to `Labels`.

        Raises TypeError or ValueError for a wrong type or shape always, for a wrong value if `eager`; otherwise the
        samples with wrong values are marked.
        """
        N = self._check_target(target, preds)
        target = target.reshape(N, self.L)
        ignored = None if self.ignore_index is None else target == self.ignore_index
        if ignored is not None:  # what is left out may hold anything
            preds = torch.where(ignored if preds.ndim > 2 else ignored.squeeze(-1), torch.zeros_like(preds[:1]), preds)
        checked = target if ignored is None else torch.where(ignored, 0, target)
        predicted, bad_prediction = self._predicted(preds, eager)
        if self.task.ordinal:
            bad_target = _beyond(checked, "target", eager)
            return Labels(
                predicted,
                self._class_of(checked),
                ignored,
                None if bad_prediction is None else bad_prediction.any(2).any(0),
                None if bad_target is None else bad_target.any(1),
            )
        bad_target = _outside(checked, self.C - 1, "target", self.ignore_index, eager)
        if target.dtype.is_floating_point:
            if eager and bad_target is None and bool((checked != checked.round()).any()):
                raise ValueError(f"target holds {_first(checked, checked != checked.round())}: exactly 0. or 1.")
            bad_target = None if eager else bad_target | (checked != checked.round())  # type: ignore[operator]
        return Labels(
            predicted,
            checked.long() if eager else checked.long().clamp(0, self.C - 1),  # what is marked may index all the same
            ignored,
            None if bad_prediction is None else bad_prediction.reshape(*preds.shape[:2], -1).any(2).any(0),
            None if bad_target is None else bad_target.any(1),
        )

    def _check_target(self, target: Tensor, preds: Tensor) -> int:
        for name, value in (("preds", preds), ("target", target)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} is a tensor, got {type(value).__name__}: use torch.as_tensor({name})")
            if value.dtype.is_complex:
                raise TypeError(f"{name} is {value.dtype}: real numbers are due")
        if preds.ndim < 2:
            raise ValueError("preds is a single number: one prediction a sample, (N,) or (N, C)")
        N = preds.shape[1]
        shape = (N, self.L) if self.task.by_label else (N,)
        column = self.task.positive or self.task.ordinal
        if tuple(target.shape) not in (shape, (N, 1) if column else shape):
            hint = ""
            if tuple(target.shape) == (N, 1):
                hint = ": use target.squeeze(-1)"
            elif self.task.by_class and target.ndim == 2 and target.shape[1] == self.C:
                hint = ": one-hot targets are read by target.argmax(-1)"
            raise ValueError(
                f"target has shape {tuple(target.shape)}, expected {shape} to go with preds of shape "
                f"{tuple(preds.shape[1:])}{hint}"
            )
        if target.dtype.is_floating_point and self.task.by_class:
            raise TypeError(
                f"target is {target.dtype}: class numbers are integers, on a scale they are task='ordinal', edges=…"
            )
        if target.device != preds.device:
            raise ValueError(f"target is on {target.device}, preds on {preds.device}: use target.to(preds.device)")
        return N

    def _predicted(self, preds: Tensor, eager: bool) -> tuple[Tensor, Tensor | None]:
        """``(K, N, L)`` labels, and what is wrong in a mask of a shape that starts ``(K, N)``."""
        shape, floating = tuple(preds.shape[1:]), preds.dtype.is_floating_point
        N = shape[0]
        if self.task.ordinal:
            if shape not in ((N,), (N, 1)):
                raise ValueError(f"preds has shape {shape}: task='ordinal' expects ({N},) numbers, or ({N}, 1)")
            numbers = preds.reshape(preds.shape[0], N, 1)
            return self._class_of(numbers), _beyond(numbers, "preds", eager)
        if self.task.by_class:
            if len(shape) == 2 and shape[1] == self.C and floating:
                return _argmax(preds, eager)
            if len(shape) != 1:
                why = f"expected ({N},) labels or ({N}, {self.C}) logits or probabilities"
                if floating is False and len(shape) == 2:
                    why += f"; integers of two axes are neither, {preds.dtype} came"
                elif len(shape) == 2 and shape[0] == self.C:
                    why += "; transposed? use preds.T"
                raise ValueError(f"preds has shape {shape}, num_classes={self.C}: {why}")
            if floating or preds.dtype == torch.bool:
                raise TypeError(f"preds of shape {shape} is {preds.dtype}: labels are integers, logits are (N, C)")
            preds = preds.long()
            bad = _outside(preds, self.C - 1, "preds", None, eager)
            return (preds if eager else preds.clamp(UNANSWERED, self.C - 1)).unsqueeze(-1), bad
        if self.task.positive:
            if shape == (N, 2) and floating:
                return self._two_columns(preds, eager)
            if shape not in ((N,), (N, 1)):
                raise ValueError(f"preds has shape {shape}: task='binary' expects ({N},), or ({N}, 2) scores")
            preds = preds.reshape(preds.shape[0], N, 1)
        elif shape != (N, self.L):
            raise ValueError(
                f"preds has shape {shape}: task='multilabel' with num_labels={self.L} expects ({N}, {self.L})"
            )
        if not floating:
            bad = _outside(preds, 1, "preds" if self.L == 1 else "preds of labels", None, eager)
            return preds.long() if eager else preds.long().clamp(UNANSWERED, 1), bad
        if self.from_logits:
            return self._above(preds, [_logit(t) for t in self.thresholds]), _nan(preds, eager)
        return self._above(preds, list(self.thresholds)), _no_probability(preds, eager)

    def _class_of(self, numbers: Tensor) -> Tensor:
        """Numbers of any shape to classes: rounded, halves to even, or by the edges, each of which begins a class."""
        numbers = numbers.detach().float().nan_to_num()
        if self.rounded:
            return numbers.clamp(-MOSI_EDGE, MOSI_EDGE).round().long() + MOSI_EDGE
        assert isinstance(self.edges, tuple)
        # One comparison an edge: a tensor of edges would have to be copied to the device, a stall.
        return sum(((numbers >= edge).long() for edge in self.edges), torch.zeros_like(numbers, dtype=torch.int64))

    def _check_edges(self) -> None:
        if self.rounded:
            return
        edges = self.edges
        if not isinstance(edges, tuple) or not edges or list(edges) != sorted(set(edges)):
            raise ValueError(
                f"edges={edges!r}: rising numbers that cut the scale into classes, (-0.5, 0.5) say, or 'mosi'"
            )
        if self.num_classes not in (None, len(edges) + 1):
            raise ValueError(f"num_classes={self.num_classes!r}: {len(edges)} edges cut {len(edges) + 1}, leave it out")

    def _two_columns(self, preds: Tensor, eager: bool) -> tuple[Tensor, Tensor | None]:
        if self.from_logits:
            apart = (_single(preds[..., 1]) - _single(preds[..., 0])).unsqueeze(-1)  # NaN of two equal infinities
            return self._above(apart, [_logit(self.thresholds[0])]), _nan(apart, eager)
        bad = _no_probability(preds, eager)
        total = _single(preds).sum(-1, keepdim=True)
        uneven = (total - 1).abs() > _ROUNDING
        if eager and bool(uneven.any()):
            raise ValueError(
                f"preds of two columns hold a row that sums to {_first(total, uneven):.4g}, expected probabilities of "
                "both classes, which sum to 1: give the positive one alone, preds[:, 1]"
            )
        return self._above(preds[..., 1:], list(self.thresholds)), bad if eager else bad | uneven  # type: ignore[operator]

    def _above(self, preds: Tensor, thresholds: list[float]) -> Tensor:
        preds = _single(preds)  # half precision would round the threshold too
        if len(set(thresholds)) == 1:
            return (preds > thresholds[0]).long()
        # One comparison a label: a tensor of thresholds would have to be copied to the device, a stall.
        return torch.stack([preds[..., label] > t for label, t in enumerate(thresholds)], dim=-1).long()


def _single(values: Tensor) -> Tensor:
    """Half precision as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _argmax(preds: Tensor, eager: bool) -> tuple[Tensor, Tensor | None]:
    """``(K, N, C)`` to ``(K, N, 1)``; a NaN wins every argmax, so a row is bad just where its winner is not finite."""
    if eager and preds.device.type == "cpu":
        values = preds.detach()
        values = values if values.dtype == torch.float64 else values.float()
        # numpy's argmax over a short last axis is several times torch's.
        predicted = torch.from_numpy(values.numpy().argmax(-1)).unsqueeze(-1)
        if math.isfinite(values.sum()):
            return predicted, None
        winner = values.gather(-1, predicted)
    else:
        winner, predicted = preds.max(-1, keepdim=True)
    bad = ~winner.isfinite()
    if not eager:
        return predicted, bad
    if bool(bad.any()):
        raise ValueError(
            f"preds: {int(bad.any(0).sum())} of {bad[0].numel()} samples have no finite largest score "
            f"(found {_first(winner, bad)}): NaN or infinity came out of the model"
        )
    return predicted, None


def _beyond(values: Tensor, what: str, eager: bool) -> Tensor | None:
    """Which numbers of an ordinal task are not within ±1,024, beyond which sums in fixed point could overflow."""
    bad = ~(values.abs() <= LARGEST)
    if not eager:
        return bad
    if bool(bad.any()):
        raise ValueError(f"{what} holds {_first(values, bad)}, expected numbers within ±{LARGEST:g}: scale both alike")
    return None


def _outside(values: Tensor, top: int, what: str, ignore_index: int | None, eager: bool) -> Tensor | None:
    """Which labels are not in 0…top; where it costs nothing, refused at once."""
    if values.dtype == torch.bool:
        return None if eager else torch.zeros_like(values)
    least = UNANSWERED if what == "preds" else 0
    if not eager:
        return ~((values >= least) & (values <= top))
    if values.numel() == 0:
        return None
    low, high = values.aminmax()
    if (
        low.item() >= least and high.item() <= top
    ):  # on Python's numbers: each look at a tensor costs more than the loop
        return None
    bad = ~((values >= least) & (values <= top))
    hint = ""
    if what == "target" and low.item() == 1 and high.item() == top + 1:
        hint = "; labels start at 0: use target - 1"
    elif what == "target" and ignore_index is None:
        hint = f"; ignore_index={_first(values, bad)} leaves it out"
    raise ValueError(
        f"{what} holds {_first(values, bad)}, expected {'' if least == 0 else '-1 for no class, or '}0…{top}: "
        f"{int(bad.sum())} of {values.numel()}{hint}"
    )


def _nan(values: Tensor, eager: bool) -> Tensor | None:
    bad = values.isnan()
    if not eager:
        return bad
    if bool(bad.any()):
        raise ValueError(f"preds holds NaN: {int(bad.sum())} of {values.numel()} values")
    return None


def _no_probability(values: Tensor, eager: bool) -> Tensor | None:
    bad = ~((values >= 0) & (values <= 1))
    if not eager:
        return bad
    if bool(bad.any()):
        raise ValueError(
            f"preds holds {_first(values, bad)}, expected probabilities in 0…1: "
            "if these are logits, say from_logits=True"
        )
    return None


def _first(values: Tensor, bad: Tensor) -> float | int:
    return values.flatten()[bad.flatten().long().argmax()].item()


def _logit(p: float) -> float:
    return math.log(p / (1 - p)) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)
