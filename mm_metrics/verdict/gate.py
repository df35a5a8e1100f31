"""The bars that a scorecard is held to: data alone, light to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Bars = tuple[float, float]
Threshold = float | Bars | Mapping[str, float | Bars]
SCORES = ("accuracy", "precision", "recall", "f1")  # that have bars


@dataclass(frozen=True)
class QualityGate:
    """The bars a scorecard is held to. Thresholds are fractions, ``(bad, good)``; one number is the good bar.

    Each of `accuracy`, `precision`, `recall` and `f1` may be a mapping by modality (or ``"all"``), with the default
    for what it leaves out. No threshold adapts itself. The defaults are the project's own; they suit no task in
    particular. Raises ValueError for thresholds out of 0…1 or in the wrong order.

    Args:
        accuracy: (bad, good)
        precision: (bad, good)
        recall: (bad, good)
        f1: (bad, good)
        gap: between precision and recall; above it is bad
        min_support: samples, or groups where they come in those; fewer are undecided
        min_positives: actual positives, for precision predicted ones; fewer are undecided
        critical: classes that set the level, among more than 20
        unused: of F1: a modality that gives no more is not used
        dominant: a modality that gives a larger share dominates
        confidence: of every interval
        family_wise: the confidence is that of all intervals together, not of each

    >>> from mm_metrics import ModalityConfusionMatrix
    >>> import torch
    >>> metric = ModalityConfusionMatrix(("text",), task="binary")
    >>> target = torch.tensor([1] * 100 + [0] * 100)
    >>> metric.update(torch.tensor([1] * 85 + [0] * 15 + [1] * 10 + [0] * 90), target)
    >>> verdict = metric.scorecard().verdict()
    >>> verdict.level, verdict.firm
    ('good', False)
    >>> metric.scorecard().verdict(QualityGate(recall={"text": (0.9, 0.95)})).level
    'bad'
    """

    accuracy: Threshold = (0.70, 0.85)
    precision: Threshold = (0.50, 0.80)
    recall: Threshold = (0.50, 0.80)
    f1: Threshold = (0.0, 0.80)
    gap: float = 0.30
    min_support: int = 30
    min_positives: int = 10
    critical: Sequence[str] = ()
    unused: float = 0.02
    dominant: float = 0.80
    confidence: float = 0.95
    family_wise: bool = False

    def __post_init__(self) -> None:
        """Check every threshold."""
        for score in SCORES:
            value = getattr(self, score)
            for name, entry in value.items() if isinstance(value, Mapping) else [("all", value)]:
                bad, good = _bars(entry, _default(score))
                if not (0 <= bad <= good <= 1):
                    raise ValueError(f"{score}={entry!r} for {name!r}: expected (bad, good) with 0 <= bad <= good <= 1")
        for name in ("gap", "unused", "dominant"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a fraction in 0…1")

    def bars(self, score: str, slice: str) -> Bars:
        """``(bad, good)`` of a score on a slice."""
        value = getattr(self, score)
        if isinstance(value, Mapping):
            value = value.get(slice, _default(score))
        return _bars(value, _default(score))

    def names(self, slice: str) -> bool:
        """Whether any score has a bar for that slice of its own."""
        return any(isinstance(value, Mapping) and slice in value for value in (getattr(self, name) for name in SCORES))

    def check_names(self, slices: Iterable[str], classes: Sequence[str]) -> None:
        """Raise ValueError where a bar, or a critical class, names what the scorecard does not have."""
        slices = tuple(slices)
        for score in SCORES:
            value = getattr(self, score)
            unknown = set(value) - set(slices) if isinstance(value, Mapping) else set()
            if unknown:
                raise ValueError(f"{score} has bars for {sorted(unknown)}, the scorecard's slices are {slices}")
        unknown = set(map(str, self.critical)) - set(classes)
        if unknown:
            raise ValueError(f"critical names {sorted(unknown)}, the scorecard's classes are {tuple(classes[:20])}")


def _default(score: str) -> Any:
    return QualityGate.__dataclass_fields__[score].default


def _bars(value: Any, default: Bars) -> Bars:
    """``(bad, good)`` from a pair, or from the good bar alone, which the default's bad bar never exceeds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(default[0], float(value)), float(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return float(value[0]), float(value[1])
    raise ValueError(f"threshold {value!r}: expected a fraction, or a pair (bad, good)")
