"""What a multimodal model gets right on each modality, and what it would lose without it, while it trains."""

from mm_metrics import contributions, scores
from mm_metrics.ablation import ModalityAblation
from mm_metrics.leakage import find_leakage
from mm_metrics.metrics import (
    CoalitionConfusionMatrix,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityPrecision,
    ModalityRecall,
)
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import QualityGate

__version__ = "0.1.0"

__all__ = [
    "ModalityConfusionMatrix",
    "CoalitionConfusionMatrix",
    "ModalityAccuracy",
    "ModalityPrecision",
    "ModalityRecall",
    "ModalityF1Score",
    "ModalityAblation",
    "Scorecard",
    "QualityGate",
    "find_leakage",
    "scores",
    "contributions",
]
