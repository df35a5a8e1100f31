"""A tally and bars to good, mixed, bad or undecided, with reasons.

>>> import torch
>>> from mm_metrics import ModalityConfusionMatrix, QualityGate
>>> metric = ModalityConfusionMatrix(("text",), num_classes=2)
>>> metric.update(torch.arange(100) % 2, torch.arange(100) % 2)
>>> metric.scorecard().verdict(QualityGate(recall=(0.7, 0.9))).level
'good'
"""

from mm_metrics.verdict.gate import QualityGate
from mm_metrics.verdict.judge import judge
from mm_metrics.verdict.rules import Finding, Verdict

__all__ = ["QualityGate", "judge", "Finding", "Verdict"]
