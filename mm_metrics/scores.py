"""Counts to scores: pure functions over ``(..., C, C)`` confusions, rows targets, columns predictions.

Every function takes either a confusion or its `ClassSums`, so bootstrap replicates, which keep the sums alone, go
through the same lines. Scores are float64 fractions (Matthews and kappa in -1…1). A confusion without samples scores
NaN; a class with neither target nor prediction is left out of the macro mean, and 0/0 elsewhere is 0, as scikit-learn
and torchmetrics have it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.tasks import EXTENTS, Task, task_of


class ClassSums(NamedTuple):
    """What every score needs: per class ``(..., C)`` the hits, the predictions and the actual samples."""

    hits: Tensor
    predicted: Tensor
    actual: Tensor


Counts = Tensor | ClassSums
AVERAGES = ("macro", "micro", "weighted", "binary", "none", None)


def class_sums(confusion: Counts) -> ClassSums:
    """``(..., C, C)`` counts to three sums of shape ``(..., C)``; raises ValueError for another shape.

    >>> class_sums(torch.tensor([[90, 10], [15, 85]])).predicted
    tensor([105,  95])
    """
    if isinstance(confusion, ClassSums):
        return confusion
    confusion = torch.as_tensor(confusion)
    if confusion.ndim < 2 or confusion.shape[-1] != confusion.shape[-2]:
        raise ValueError(f"confusion has shape {tuple(confusion.shape)}, expected (..., C, C): targets by predictions")
    return ClassSums(confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-2), confusion.sum(-1))


def accuracy(confusion: Counts, average: str | None = "micro") -> Tensor:
    """Hits over all samples, ``(..., C, C)`` to ``(...)``; another `average` is that of the recalls per class.

    >>> accuracy(torch.tensor([[90, 10], [15, 85]]))
    tensor(0.8750, dtype=torch.float64)
    """
    return recall(confusion, "micro" if average == "binary" else average)


def precision(confusion: Counts, average: str | None = "macro") -> Tensor:
    """Hits over predictions, ``(..., C, C)`` to ``(...)``, or ``(..., C)`` with ``average="none"``.

    >>> precision(torch.tensor([[90, 10], [15, 85]]), average="binary")
    tensor(0.8947, dtype=torch.float64)
    """
    sums = class_sums(confusion)
    return _averaged(sums.hits, sums.predicted, sums, average)


def recall(confusion: Counts, average: str | None = "macro") -> Tensor:
    """Hits over actual samples, ``(..., C, C)`` to ``(...)``, or ``(..., C)`` with ``average="none"``.

    >>> recall(torch.tensor([[90, 10], [15, 85]]), average="none")
    tensor([0.9000, 0.8500], dtype=torch.float64)
    """
    sums = class_sums(confusion)
    return _averaged(sums.hits, sums.actual, sums, average)


def fbeta(confusion: Counts, beta: float = 1.0, average: str | None = "macro") -> Tensor:
    """F-beta, recall weighted `beta` times as much as precision (van Rijsbergen 1979).

    >>> fbeta(torch.tensor([[90, 10], [15, 85]]), beta=2, average="binary")
    tensor(0.8586, dtype=torch.float64)
    """
    sums = class_sums(confusion)
    hits, predicted, actual = (part.to(_double(part)) for part in sums)  # integers times beta take the default dtype
    return _averaged((1 + beta**2) * hits, beta**2 * actual + predicted, sums, average)


def f1(confusion: Counts, average: str | None = "macro") -> Tensor:
    """The harmonic mean of precision and recall.

    >>> f1(torch.tensor([[90, 10], [15, 85]]), average="binary")
    tensor(0.8718, dtype=torch.float64)
    """
    return fbeta(confusion, 1.0, average)


def specificity(confusion: Counts, average: str | None = "macro") -> Tensor:
    """Of the samples not of a class, the share not predicted as it.

    >>> specificity(torch.tensor([[90, 10], [15, 85]]), average="binary")
    tensor(0.9000, dtype=torch.float64)
    """
    sums = class_sums(confusion)
    others = sums.actual.sum(-1, keepdim=True) - sums.actual
    return _averaged(others - sums.predicted + sums.hits, others, sums, average)


def jaccard(confusion: Counts, average: str | None = "macro") -> Tensor:
    """Intersection over union of a class's predictions and actual samples (Jaccard 1912).

    >>> jaccard(torch.tensor([[90, 10], [15, 85]]), average="binary")
    tensor(0.7727, dtype=torch.float64)
    """
    sums = class_sums(confusion)
    return _averaged(sums.hits, sums.predicted + sums.actual - sums.hits, sums, average)


def balanced_accuracy(confusion: Counts) -> Tensor:
    """The mean recall of the classes that have samples (Brodersen et al. 2010).

    >>> balanced_accuracy(torch.tensor([[98, 0], [2, 0]]))
    tensor(0.5000, dtype=torch.float64)
    """
    sums = class_sums(confusion)
    return _ratio(_ratio(sums.hits, sums.actual).sum(-1), (sums.actual > 0).sum(-1), empty=torch.nan)


def matthews(confusion: Counts) -> Tensor:
    """Matthews' correlation, -1…1, for any number of classes (Gorodkin 2004); 0 where it is not defined.

    >>> matthews(torch.tensor([[90, 10], [15, 85]]))
    tensor(0.7509, dtype=torch.float64)
    """
    hits, predicted, actual, total = _doubles(class_sums(confusion))
    covariance = hits * total - (predicted * actual).sum(-1)
    outside = total - predicted.sum(-1)  # answers that are no class are a column of their own, without a row
    spread = (total**2 - (predicted**2).sum(-1) - outside**2) * (total**2 - (actual**2).sum(-1))
    return torch.where(total > 0, _ratio(covariance, spread.clamp(min=0).sqrt()), torch.nan)


def cohen_kappa(confusion: Counts) -> Tensor:
    """Agreement beyond chance, -1…1 (Cohen 1960); NaN where chance alone agrees fully.

    >>> cohen_kappa(torch.tensor([[90, 10], [15, 85]]))
    tensor(0.7500, dtype=torch.float64)
    """
    hits, predicted, actual, total = _doubles(class_sums(confusion))
    chance = (predicted * actual).sum(-1)
    return _ratio(hits * total - chance, total**2 - chance, empty=torch.nan)


def support(confusion: Counts, average: str | None = "micro") -> Tensor:
    """The number of samples, int64; of each class with ``average="none"``, of class 1 with ``"binary"``.

    >>> support(torch.tensor([[90, 10], [15, 85]]))
    tensor(200)
    """
    actual = class_sums(confusion).actual
    if average in ("none", None):
        return actual
    return actual[..., 1] if average == "binary" else actual.sum(-1)


AVERAGED = {f.__name__: f for f in (accuracy, precision, recall, f1, specificity, jaccard)}
WHOLE = {f.__name__: f for f in (balanced_accuracy, matthews, cohen_kappa)}
SCORES = (*AVERAGED, *WHOLE)
PROPORTIONS = ("accuracy", "precision", "recall", "specificity", "jaccard")  # of a class: hits over a number of samples


def extent(name: str) -> tuple[float, float]:
    """The least and the most that a score can be: 0 and 1 for most.

    >>> extent("f1"), extent("matthews"), extent("dprime")
    ((0.0, 1.0), (-1.0, 1.0), (-inf, inf))
    """
    return EXTENTS.get(name, (0.0, 1.0))


def score(name: str, counts: Counts, task: str | Task = "multiclass", average: str | None = "default") -> Tensor:
    """The score `name` as a task reads it, from counts with an axis of labels: ``(..., L, C, C)`` to ``(...)``.

    ``average="default"`` is macro (accuracy: micro) in multiclass, class 1 in binary; in multilabel the mean over
    labels (accuracy: over all label decisions). L is 1 except in multilabel, where C is 2. Raises ValueError for an
    unknown name or average.

    >>> score("f1", torch.tensor([[[90, 10], [15, 85]]]), task="binary")
    tensor(0.8718, dtype=torch.float64)
    """
    if name not in SCORES:
        raise ValueError(f"score {name!r} is not known: one of {', '.join(SCORES)}")
    if average not in (*AVERAGES, "default"):
        raise ValueError(f"average={average!r} is not known: 'macro', 'micro', 'weighted', 'binary' or 'none'")
    sums = class_sums(counts)
    if name in WHOLE:
        return WHOLE[name](sums).mean(-1)
    task = task_of(task) if isinstance(task, str) else task
    average = task.default_average(name) if average == "default" else average
    if task.by_label:
        return _over_labels(name, sums, average)
    return AVERAGED[name](ClassSums(*(part.squeeze(-2) for part in sums)), average)


class Behind(NamedTuple):
    """The classes that a score is a mean of, each ``(..., P)``: weights, ratios, and the samples behind each ratio."""

    weights: Tensor
    ratios: Tensor
    sizes: Tensor


def behind(name: str, counts: Counts, task: str | Task = "multiclass", average: str | None = "default") -> Behind:
    """The classes that a score is a mean of, from ``(..., L, C, C)``.

    A class's recall stands on its actual samples, its precision on its predictions, F1 and Jaccard on both, hits once;
    P is 1 for a proportion of one whole. With ``average="none"`` ``(..., C, 1)``.

    >>> behind("recall", torch.tensor([[[90, 10], [15, 85]]])).sizes
    tensor([100., 100.], dtype=torch.float64)
    """
    sums = ClassSums(*(part.to(_double(part)) for part in class_sums(counts)))
    hits, predicted, actual = sums  # (..., L, C)
    task = task_of(task) if isinstance(task, str) else task
    average = task.default_average(name) if average == "default" else average
    if name in WHOLE and name != "balanced_accuracy" and actual.shape[-1] > 2:  # 1 less errors over what chance misses
        missed = actual.sum(-1) - (actual**2).sum(-1) / actual.sum(-1).clamp(min=1)  # (..., 1)
        return Behind(torch.ones_like(missed), (1 + WHOLE[name](sums)) / 2, (2 * missed).clamp(min=1))
    if name in WHOLE:  # as a mean of recalls
        # Where a class of two has no samples, Matthews and kappa are not defined: 0 stands for what is not known.
        there = (actual > 0) | (actual.shape[-1] == 2 and name != "balanced_accuracy")
        hits, actual, there = hits.flatten(-2), actual.flatten(-2), there.flatten(-2)
        return Behind(_shares(there), _ratio(hits, actual), actual.clamp(min=1))
    total = actual.sum(-1, keepdim=True)
    sizes = {"recall": actual, "accuracy": actual, "precision": predicted, "specificity": total - actual}
    size = sizes.get(name, predicted + actual - hits)
    if task.by_label:
        size = total[..., 0] if name == "accuracy" else size[..., 1]  # (..., L)
        weights, total = (actual[..., 1] if average == "weighted" else total[..., 0] > 0), total.sum(-2)
    else:
        size, total = size[..., 0, :], total[..., 0, :]
        weights = (actual if average == "weighted" else predicted + actual > 0)[..., 0, :]
    several = average in ("macro", "weighted") or (task.by_label and average == "binary")
    if average == "micro" or (name == "accuracy" and average == "binary"):
        several, size = False, torch.minimum(size.sum(-1, keepdim=True), total)
    elif average == "binary" and not task.by_label:
        size = size[..., 1:2]
    elif average in ("none", None):
        size = size.unsqueeze(-1)
    ratios = score(name, sums, task, "none" if several else average)
    if several:
        return Behind(_shares(weights), torch.where(weights > 0, ratios, 0.0), size.clamp(min=1))  # of no sample NaN
    return Behind(torch.ones_like(size), ratios.unsqueeze(-1), size.clamp(min=1))


def _shares(weights: Tensor) -> Tensor:
    return _ratio(weights, weights.sum(-1, keepdim=True))


def _over_labels(name: str, sums: ClassSums, average: str | None) -> Tensor:
    one = "micro" if name == "accuracy" else "binary"
    if average == "micro":
        return AVERAGED[name](ClassSums(*(part.sum(-2) for part in sums)), one)
    per_label = AVERAGED[name](sums, one)
    if average in ("none", None):
        return per_label
    weight = sums.actual[..., 1] if average == "weighted" else sums.actual.sum(-1) > 0
    value = _ratio((per_label.nan_to_num() * weight).sum(-1), weight.sum(-1))
    return torch.where(sums.actual.sum((-1, -2)) == 0, torch.nan, value)


def _averaged(numerator: Tensor, denominator: Tensor, sums: ClassSums, average: str | None) -> Tensor:
    """Per-class ratios ``(..., C)`` averaged to ``(...)``; NaN where there is no sample at all."""
    empty = sums.actual.sum(-1) == 0
    if average == "micro":
        value = _ratio(numerator.sum(-1), denominator.sum(-1))
    elif average in ("none", None):
        value, empty = _ratio(numerator, denominator), empty.unsqueeze(-1)
    elif average == "binary":
        if numerator.shape[-1] != 2:
            raise ValueError(f"average='binary' reads class 1 of two, got {numerator.shape[-1]} classes: use 'macro'")
        value = _ratio(numerator[..., 1], denominator[..., 1])
    elif average in ("macro", "weighted"):
        weight = sums.actual if average == "weighted" else sums.predicted + sums.actual > 0
        value = _ratio((_ratio(numerator, denominator) * weight).sum(-1), weight.sum(-1))
    else:
        raise ValueError(f"average={average!r} is not known: 'macro', 'micro', 'weighted', 'binary' or 'none'")
    return torch.where(empty, torch.nan, value)


def _ratio(numerator: Tensor, denominator: Tensor, empty: float = 0.0) -> Tensor:
    numerator, denominator = numerator.to(_double(numerator)), denominator.to(_double(denominator))
    return (numerator / denominator).masked_fill_(denominator == 0, empty)


def _doubles(sums: ClassSums) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hits, predicted, actual = (part.to(_double(part)) for part in sums)
    return hits.sum(-1), predicted, actual, actual.sum(-1)


def _double(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64  # which has no float64
