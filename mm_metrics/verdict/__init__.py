"""A tally and bars to good, mixed, bad or undecided, with reasons.

>>> import torch
>>> from mm_metrics import ModalityConfusionMatrix, QualityGate
>>> metric = ModalityConfusionMatrix(("text",), num_classes=2)
>>> metric.update(torch.arange(100) % 2, torch.arange(100) % 2)
>>> metric.scorecard().verdict(QualityGate(recall=(0.7, 0.9))).level
'good'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_metrics.verdict.gate import QualityGate
    from mm_metrics.verdict.judge import judge
    from mm_metrics.verdict.rules import Finding, Verdict

__all__ = ["QualityGate", "judge", "Finding", "Verdict"]

_HOMES = {"QualityGate": "gate", "judge": "judge", "Finding": "rules", "Verdict": "rules"}


def __getattr__(name: str) -> Any:
    # The gate alone must not wait seconds for torch: the command line's help is made from it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    globals().update({key: getattr(module, key) for key, home in _HOMES.items() if home == _HOMES[name]})
    return globals()[name]
