"""What a multimodal model gets right on each modality, and what it would lose without it, while it trains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "ModalityAblation": "ablation",
    "Scorecard": "scorecard",
    "QualityGate": "verdict",
    "find_leakage": "leakage",
}


def __getattr__(name: str) -> Any:
    # Names come when they are first asked for: `mm-metrics --help` need not wait seconds for torch, and where torch
    # itself can't be imported the command line can still say so with an exit code of its own.
    if name in ("scores", "contributions"):
        return import_module(f"mm_metrics.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'mm_metrics' has no attribute {name!r}")
    value = getattr(import_module(f"mm_metrics.{_HOMES.get(name, 'metrics')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
