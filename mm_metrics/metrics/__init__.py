"""The route as torchmetrics: confusion matrices and scores per slice, confusion matrices per coalition.

>>> import torch
>>> from mm_metrics import ModalityRecall
>>> metric = ModalityRecall(("text", "audio"), num_classes=2)
>>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor([[1, 0], [1, 1]]))
>>> metric.compute()["audio/recall"]
tensor(0.)
"""

from mm_metrics.metrics.classes import (
    CoalitionConfusionMatrix,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityPrecision,
    ModalityRecall,
)

__all__ = [
    "ModalityConfusionMatrix",
    "CoalitionConfusionMatrix",
    "ModalityAccuracy",
    "ModalityPrecision",
    "ModalityRecall",
    "ModalityF1Score",
]
