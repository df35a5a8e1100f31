"""What a few training and validation samples under every coalition say of how a model learns. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from mm_metrics import contributions
from mm_metrics.callbacks.truth import Rows
from mm_metrics.counts.labels import Reader
from mm_metrics.modalities import Modalities
from mm_metrics.uncertainty import Contribution, Estimate, normal_quantile
from mm_metrics.verdict import Finding, sentences


@dataclass(frozen=True)
class Seen:
    """A few samples of one split, each shown under K coalitions; NaN where a coalition did not answer.

    `right` ``(K, N)`` is 1 for a right answer (multilabel: the share of labels), `likelihood` ``(K, N)`` the logarithm
    of the true label's probability, `there` ``(N, M)`` which modalities a sample has, `guess` ``(N,)`` how right the
    most frequent label would be.
    """

    modalities: Modalities
    masks: tuple[int, ...]
    right: Tensor
    likelihood: Tensor
    there: Tensor
    guess: Tensor

    def accuracy(self) -> Tensor:
        """``(K,)`` over all samples that were answered."""
        return self.right.nanmean(1)

    def alone(self, what: Tensor, m: int) -> float:
        """The mean of a ``(K, N)`` tensor with modality m alone, over the samples that have it."""
        if 1 << m not in self.masks:
            return math.nan
        return float(what[self.masks.index(1 << m)][self.there[:, m]].nanmean())

    def worth(self) -> Tensor:
        """``(M, N)``: each modality's Shapley value for the answer to each sample.

        Where a model has one head a modality and no more: what it gives alone over guessing.
        """
        values = contributions.shapley_values(self.right, self._table())
        return values if values.isfinite().any() else self.gain()

    def gain(self) -> Tensor:
        """``(M, N)``: what each modality gives alone."""
        return contributions.unimodal_gain(self.right, self._table(), empty=self.guess)

    def drop(self) -> Tensor:
        """``(M, N)``: what is lost without each modality."""
        return contributions.leave_one_out(self.right, self._table())

    def utilisation(self) -> list[float]:
        """Per modality, the share of the accuracy that is lost without it (Wu et al. 2022)."""
        return contributions.conditional_utilisation(self.accuracy(), self._table()).tolist()

    def _table(self) -> object:
        return self.modalities.table(self.masks)


def seen(modalities: Modalities, masks: Sequence[int], task: Reader, parts: Sequence[Rows]) -> Seen:
    """Read batches that the coalitions `masks` answered, whose slices are what is there.

    Samples with an ignored target, or a prediction that is not finite, are left out.

    Raises TypeError or ValueError for predictions and targets of a shape or type that do not fit the task.
    """
    preds, target = torch.cat([part.preds for part in parts], dim=1), torch.cat([part.target for part in parts])
    N = len(target)
    there = [part.slices for part in parts if part.slices is not None]
    answered = [part.counted for part in parts if part.counted is not None]
    labels = task.read(preds, target, eager=False)
    counted = torch.ones_like(labels.target, dtype=torch.bool) if labels.ignored is None else ~labels.ignored
    weights = counted.double() / counted.sum(1, keepdim=True)  # (N, L), NaN where nothing is counted
    for bad in (labels.bad_prediction, labels.bad_target):
        if bad is not None:
            weights = torch.where(bad.unsqueeze(1), torch.nan, weights)
    counts = one_hot(labels.target, task.C) * counted.unsqueeze(-1)  # (N, L, C)
    guess = labels.target == counts.sum(0).argmax(-1)
    likelihood = log_likelihoods(preds, labels.target, task)
    parts_of = [  # (K, N), (K, N), (N,)
        (torch.where(counted, value, 0.0) * weights).sum(-1)
        for value in ((labels.predicted == labels.target).double(), likelihood, guess.double())
    ]
    if answered:
        parts_of[:2] = [torch.where(torch.cat(answered, dim=1), value, torch.nan) for value in parts_of[:2]]
    has = torch.cat(there) != 0 if there else torch.ones(N, len(modalities), dtype=torch.bool)
    return Seen(modalities, tuple(masks), parts_of[0], parts_of[1], has, parts_of[2])


def log_likelihoods(preds: Tensor, target: Tensor, task: Reader) -> Tensor:
    """``(K, N, L)`` logarithms of the true labels' probabilities, NaN where predictions are labels.

    >>> logits = torch.tensor([[[0.0, 0.0], [9.0, -9.0]]])
    >>> log_likelihoods(logits, torch.tensor([[1], [0]]), Reader("multiclass", 2, from_logits=True)).exp().flatten()
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    K, N, L = preds.shape[0], *target.shape
    if not preds.dtype.is_floating_point:
        return torch.full((K, N, L), torch.nan, dtype=torch.float64, device=preds.device)
    x = preds.double()
    if task.task.by_class or (task.task.positive and x.shape[2:] == (2,)):
        logs = x.log_softmax(-1) if task.from_logits else x.log()
        return logs.gather(-1, target.clamp(0, logs.shape[-1] - 1).expand(K, N, 1))
    x = x.reshape(K, N, L)
    sign = 2 * target - 1
    return logsigmoid(sign * x) if task.from_logits else torch.where(sign > 0, x, 1 - x).log()


def discrepancy(seen: Seen) -> dict[str, float]:
    """How likely a modality alone makes the true label, over the mean of the others: OGM's ρ (Peng et al. 2022).

    Means instead of sums, each over the samples that have the modality: the same where nothing is missing.
    """
    likely = [seen.alone(seen.likelihood.exp(), m) for m in range(len(seen.modalities))]
    found = {}
    for m, name in enumerate(seen.modalities):
        others = [value for i, value in enumerate(likely) if i != m and not math.isnan(value)]
        if others and sum(others) > 0:
            found[name] = likely[m] * len(others) / sum(others)
    return found


def overfitting_to_generalisation(train: float, val: float, first_train: float, first_val: float) -> float:
    """``|ΔO / ΔG|`` between two checkpoints' losses, O = val - train and G = val (Wang et al. 2020); NaN at no change.

    >>> overfitting_to_generalisation(train=0.1, val=0.9, first_train=1.0, first_val=1.0)
    8.0
    """
    overfit, generalised = (val - train) - (first_val - first_train), first_val - val
    return round(abs(overfit / generalised), 12) if generalised else math.nan


class Thresholds(NamedTuple):
    """Of findings, in fractions: see `mm_metrics.callbacks.ModalityDynamics`."""

    overfit: float = 0.5
    gap: float = 0.05
    dominant: float = 0.80
    unused: float = 0.02
    confidence: float = 0.95


def findings(
    train: Seen, val: Seen | None, bars: Thresholds, epoch: int = 0, began: Mapping[tuple[str, str], int] | None = None
) -> list[Finding]:
    """What is sure at the end of `epoch`; `began` says since which epoch a finding (kind, modality) has held so far.

    Memorised: worth that surely does not carry over to validation; dominant: the most of all worth; unused: none.
    """
    z = normal_quantile(1 - (1 - bars.confidence) / len(train.modalities))  # so many modalities are asked
    found: list[Finding] = []

    def add(kind: str, name: str, value: Estimate, bar: float, message: str, level: str = "good") -> None:
        message += f" (since epoch {(began or {}).get((kind, name), epoch)})"
        found.append(Finding(kind, name, "accuracy", *value, bar, message, level))

    worth = train.worth()
    for m, name in enumerate(() if val is None else train.modalities):
        a, b = (_mean(one.worth()[m][one.there[:, m]], z) for one in (train, val) if one is not None)
        room_a, room_b, gap = a.high - a.value, b.high - b.value, a.value - b.value
        half = math.hypot(room_a, room_b)
        carried = b.value - bars.overfit * a.value + math.hypot(bars.overfit * room_a, room_b)
        if gap - half > bars.gap and carried < 0:
            both = Estimate(gap, gap - half, gap + half)
            add("overfit_modality", name, both, bars.gap, sentences.memorised(name, a, b), "mixed")
    total = _mean(worth.sum(0), z)
    if len(train.modalities) < 2 or not total.low > bars.unused:  # it has learned nothing yet
        return found
    for m, name in enumerate(train.modalities):
        own = _mean(worth[m], z)
        if _mean(worth[m] - bars.dominant * worth.sum(0), z).low > 0:
            message = f"on training samples, {sentences.dominant(name, own, total.value, 'accuracy')}"
            add("dominant_modality", name, own, bars.dominant * total.value, message)
        lost, given = (_mean(part[m][train.there[:, m]], z) for part in (train.drop(), train.gain()))
        if all(abs(bound) <= bars.unused for bound in (*lost[1:], *given[1:])):
            message = f"on training samples, {sentences.unused(name, Contribution(lost, given, own), 'accuracy')}"
            add("unused_modality", name, lost, bars.unused, message)
    return found


def _mean(values: Tensor, z: float) -> Estimate:
    """The mean with a normal interval; one sample's worth of doubt stays where none differs (Agresti and Min 2005)."""
    values = values[values.isfinite()]
    n = len(values)
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan)
    value, half = float(values.mean()), z * math.sqrt(float(values.var()) / n + 1 / n**2)
    return Estimate(value, value - half, value + half)
