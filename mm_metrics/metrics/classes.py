"""The torchmetrics classes: confusion matrices per slice and per coalition, and scores per slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mm_metrics import scores
from mm_metrics.metrics.base import ModalityMetric, answered


class ModalityConfusionMatrix(ModalityMetric):
    """A confusion matrix for every slice: of all samples, and of those that have each modality.

    `compute` gives ``(1 + M, C, C)`` int64, rows targets, in the order of `slices`; multilabel ``(1 + M, L, 2, 2)``.

    >>> metric = ModalityConfusionMatrix(("text", "audio"), num_classes=2)
    >>> presence = torch.tensor([[1, 1], [1, 0], [0, 1]])
    >>> metric.update(torch.tensor([1, 0, 0]), torch.tensor([1, 0, 1]), presence)
    >>> metric.compute()[metric.slices.index("audio")]
    tensor([[0, 0],
            [1, 1]])
    """

    def _value(self, counts: Tensor) -> Tensor:
        self._refuse(counts)
        confusion = self.layout.confusion(counts)[0]
        return confusion if self.task.by_label else confusion[:, 0]


class CoalitionConfusionMatrix(ModalityMetric):
    """A confusion matrix for every coalition of modalities that the model was shown, and every slice.

    `compute` gives ``(K, 1 + M, C, C)`` int64; multilabel ``(K, 1 + M, L, 2, 2)``. All coalitions by default.

    >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2)
    >>> shown = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])  # (K, N): none, text, audio, both
    >>> metric.update(shown, torch.tensor([1, 1]))
    >>> metric.scorecard().score("accuracy", coalition="text")
    0.5
    """

    def __init__(self, modalities: Iterable[str], num_classes: int | None = None, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("coalitions", "all")
        super().__init__(modalities, num_classes, *args, **kwargs)

    def update(
        self,
        preds: Tensor | Mapping[str, Tensor],
        target: Tensor,
        presence: object = None,
        index: Tensor | None = None,
        group: object = None,
        by: Mapping[str, object] | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Count a batch.

        Args:
            preds: ``(K, N)`` labels or ``(K, N, C)`` scores; or ``{coalition: (N,) or (N, C)}``, some or all. A row may
                be a list of N answers in words.
            target: ``(N,)``, multilabel ``(N, L)``.
            presence: ``(N, M)`` bool, where samples count; or ``{name: (N,)}``; None is everywhere.
            index: ``(N,)`` global sample numbers.
            group: ``(N,)`` integers or strings, of samples that are not independent.
            by: ``{column: (N,) codes or strings}``.
            counted: ``(K, N)`` bool, which coalitions answered which samples; None is all. Rows as in `preds`.
        """
        rows = None
        if isinstance(preds, Mapping):
            rows, preds = self._stacked({name: self.numbers(value, target) for name, value in preds.items()})
        elif isinstance(preds, list | tuple) and preds and all(isinstance(row, list | tuple) for row in preds):
            preds = torch.stack([self.numbers(row, target) for row in preds])
        K = self.layout.K if rows is None else len(rows)
        if isinstance(preds, Tensor) and (preds.ndim == 0 or preds.shape[0] != K):
            raise ValueError(
                f"preds has shape {tuple(preds.shape)}, expected ({K}, N) or ({K}, N, C): one row for each of "
                f"{K} coalitions, {', '.join(self.coalitions[:8])}"
            )
        if counted is not None and isinstance(preds, Tensor):
            shape = tuple(preds.shape[:2])
            if not isinstance(counted, Tensor) or counted.dtype != torch.bool or tuple(counted.shape) != shape:
                came = f"{counted.dtype} of {tuple(counted.shape)}" if isinstance(counted, Tensor) else type(counted)
                raise ValueError(f"counted is a bool tensor of shape {shape}, got {came}")
            preds = answered(preds, counted)
        self.refuse_twice(index, group)
        self.count(preds, target, presence, index, group, by, rows, counted)

    def _stacked(self, preds: Mapping[str, Tensor]) -> tuple[list[int], Tensor]:
        masks = self.layout.masks or ()
        rows = {}
        for name, value in preds.items():
            mask = self.modalities.mask(name)
            if mask not in masks or masks.index(mask) in rows:
                raise ValueError(f"preds[{name!r}]: expected each of {', '.join(self.coalitions)} at most once")
            if not isinstance(value, Tensor):
                raise TypeError(f"preds[{name!r}] is a tensor, got {type(value).__name__}: use torch.as_tensor")
            rows[masks.index(mask)] = value
        if len({(value.shape, value.dtype, value.device) for value in rows.values()}) != 1:
            shapes = {name: tuple(value.shape) for name, value in preds.items()}
            raise ValueError(f"preds has entries of different shape, type or device, or none: {shapes}")
        order = sorted(rows)
        return order, torch.stack([rows[k] for k in order])

    def _value(self, counts: Tensor) -> Tensor:
        self._refuse(counts)
        if not self.layout.full:
            raise ValueError(
                f"full matrices of {self.layout.K} coalitions are not kept under max_bytes: give more, or read "
                "scorecard(), whose scores need none"
            )
        confusion = self.layout.confusion(counts)
        return confusion if self.task.by_label else confusion[:, :, 0]


class _ModalityScore(ModalityMetric):
    """One score for every slice, ``{"all/…": (), "text/…": (), …}``, with `average` as in `mm_metrics.scores.score`."""

    higher_is_better = True
    score: ClassVar[str]

    def __init__(
        self,
        modalities: Iterable[str],
        num_classes: int | None = None,
        *args: Any,
        average: str | None = "default",
        **kwargs: Any,
    ) -> None:
        if average not in (*scores.AVERAGES, "default"):
            raise ValueError(f"average={average!r} is not known: 'macro', 'micro', 'weighted', 'binary' or 'none'")
        self.average = average
        super().__init__(modalities, num_classes, *args, **kwargs)

    def _sharing(self) -> object:
        return self.average  # not the class: accuracy, precision, recall and F1 count the same and share one update

    def _value(self, counts: Tensor) -> dict[str, Tensor]:
        self._refuse(counts)
        sums = self.layout.class_sums(counts)
        value = scores.score(self.score, scores.ClassSums(*(part[0] for part in sums)), self.task, self.average)
        value = value.to(self._score_dtype or torch.get_default_dtype())
        return {f"{name}/{self.score}": value[s] for s, name in enumerate(self.slices)}


class ModalityAccuracy(_ModalityScore):
    """Accuracy of every slice: hits over samples; multilabel over label decisions.

    >>> metric = ModalityAccuracy(("text", "audio"), num_classes=2)
    >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor([[1, 1], [1, 0]]))
    >>> metric.compute()
    {'all/accuracy': tensor(0.5000), 'text/accuracy': tensor(0.5000), 'audio/accuracy': tensor(1.)}
    """

    score = "accuracy"


class ModalityPrecision(_ModalityScore):
    """Precision of every slice: macro; in binary tasks of the positive class.

    >>> metric = ModalityPrecision(("text", "audio"), task="binary")
    >>> metric.update(torch.tensor([0.9, 0.8]), torch.tensor([1, 0]), torch.tensor([[1, 1], [0, 1]]))
    >>> metric.compute()["audio/precision"]
    tensor(0.5000)
    """

    score = "precision"


class ModalityRecall(_ModalityScore):
    """Recall of every slice: macro; in binary tasks of the positive class.

    >>> metric = ModalityRecall(("text", "audio"), task="binary", from_logits=True)
    >>> metric.update(torch.tensor([2.0, -1.0]), torch.tensor([1, 1]), torch.tensor([[1, 1], [1, 0]]))
    >>> metric.compute()["text/recall"]
    tensor(0.5000)
    """

    score = "recall"


class ModalityF1Score(_ModalityScore):
    """F1 of every slice: macro; in binary tasks of the positive class.

    >>> metric = ModalityF1Score(("text", "audio"), num_classes=3, average="macro")
    >>> metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    >>> metric.compute()["all/f1"]
    tensor(0.5556)
    """

    score = "f1"
