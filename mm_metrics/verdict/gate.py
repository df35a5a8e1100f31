"""The bars that a scorecard is held to: data alone, light to import."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mm_metrics.tasks import EXTENTS, LOWER_IS_BETTER

Bars = tuple[float, float]
Threshold = float | Bars | Mapping[str, float | Bars]
SCORES = ("accuracy", "precision", "recall", "f1")  # that have bars of their own accord


@dataclass(frozen=True)
class QualityGate:
    """The bars a scorecard is held to, ``(bad, good)`` in units of the score; one number is the good bar.

    Of errors (`mae`, `rmse`, `eer`, `brier`, `log_loss`, `calibration_error`) less is better, and the good bar is the
    lower: ``mae=(0.9, 0.6)`` is bad above 0.9 and good below 0.6. Each score may be a mapping by modality (or
    ``"all"``), with the default for what it leaves out; a score without a default is asked where it has a bar alone.
    An ordinal task is held to the bars that were given alone, once one is of another score than those with defaults;
    with edges="mosi" Acc-2 and its F1 are, by default, held to the bars of accuracy and F1.
    No threshold adapts itself. The defaults are the project's own; they suit no task in particular. Raises ValueError
    for thresholds that a score can't reach or in the wrong order.

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
        mae: (bad, good) of an ordinal task: the lower the better, as 0.9 and 0.6
        rmse: (bad, good) of an ordinal task: the lower the better
        pearson: (bad, good) of an ordinal task
        ccc: (bad, good) of an ordinal task: Lin's concordance
        acc2: (bad, good) of an ordinal task with edges="mosi"
        f1_acc2: (bad, good) of an ordinal task with edges="mosi"
        acc2_nonzero: (bad, good) of an ordinal task with edges="mosi"
        f1_nonzero: (bad, good) of an ordinal task with edges="mosi"
        acc5: (bad, good) of an ordinal task with edges="mosi"
        acc7: (bad, good) of an ordinal task with edges="mosi"
        auroc: (bad, good) of a card that was made with scores=("auroc",)
        average_precision: (bad, good) of a card that keeps it
        eer: (bad, good) of a card that keeps it: the lower the better
        calibration_error: (bad, good) of a card that keeps it: the lower the better
        brier: (bad, good) of a card that keeps it: the lower the better
        log_loss: (bad, good) of a card that keeps it: the lower the better
        f1_weighted: (bad, good): the mean over classes by their size
        f1_micro: (bad, good): over all answers alike
        balanced_accuracy: (bad, good)

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
    mae: Threshold | None = None
    rmse: Threshold | None = None
    pearson: Threshold | None = None
    ccc: Threshold | None = None
    acc2: Threshold | None = None
    f1_acc2: Threshold | None = None
    acc2_nonzero: Threshold | None = None
    f1_nonzero: Threshold | None = None
    acc5: Threshold | None = None
    acc7: Threshold | None = None
    auroc: Threshold | None = None
    average_precision: Threshold | None = None
    eer: Threshold | None = None
    calibration_error: Threshold | None = None
    brier: Threshold | None = None
    log_loss: Threshold | None = None
    f1_weighted: Threshold | None = None
    f1_micro: Threshold | None = None
    balanced_accuracy: Threshold | None = None

    def __post_init__(self) -> None:
        """Check every threshold."""
        for score in self.scores:
            value, (least, most), order = getattr(self, score), EXTENTS.get(score, (0, 1)), "bad <= good"
            if score in LOWER_IS_BETTER:
                order = "good <= bad, as less is better"
            for name, entry in value.items() if isinstance(value, Mapping) else [("all", value)]:
                bad, good = _bars(entry, score)
                low, high = (good, bad) if score in LOWER_IS_BETTER else (bad, good)
                if not (least <= low <= high <= most):
                    raise ValueError(
                        f"{score}={entry!r} for {name!r}: expected (bad, good) in {least:g}…{most:g} with {order}"
                    )
        for name in ("gap", "unused", "dominant"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a fraction in 0…1")

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores that have bars: those of every card first."""
        names = (*SCORES, *(name for name, default in _DEFAULTS.items() if default is None))
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def given(self) -> tuple[str, ...]:
        """Those whose bars are not the default ones."""
        return tuple(name for name in self.scores if getattr(self, name) != _DEFAULTS[name])

    def asked(self, ordinal: bool) -> tuple[str, ...]:
        """Those that a card is held to: of an ordinal task the given ones alone, once its numbers have bars."""
        return self.given if ordinal and set(self.given) - set(SCORES) else self.scores

    def bars(self, score: str, slice: str) -> Bars:
        """``(bad, good)`` of a score on a slice; NaN where it has none there."""
        value = getattr(self, score)
        if isinstance(value, Mapping):
            value = value.get(slice, _DEFAULTS[score])
        return (math.nan, math.nan) if value is None else _bars(value, score)

    def names(self, slice: str) -> bool:
        """Whether any score has a bar for that slice of its own."""
        values = (getattr(self, name) for name in self.scores)
        return any(isinstance(value, Mapping) and slice in value for value in values)

    def check_names(self, slices: Iterable[str], classes: Sequence[str]) -> None:
        """Raise ValueError where a bar, or a critical class, names what the scorecard does not have."""
        slices = tuple(slices)
        for score in self.scores:
            value = getattr(self, score)
            unknown = set(value) - set(slices) if isinstance(value, Mapping) else set()
            if unknown:
                raise ValueError(f"{score} has bars for {sorted(unknown)}, the scorecard's slices are {slices}")
        unknown = set(map(str, self.critical)) - set(classes)
        if unknown:
            raise ValueError(f"critical names {sorted(unknown)}, the scorecard's classes are {tuple(classes[:20])}")


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(QualityGate)}


def _bars(value: Any, score: str) -> Bars:
    """``(bad, good)`` from a pair, or from the good bar alone: the default's bad bar, else the worst that there is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        least, most = EXTENTS.get(score, (0.0, 1.0))
        default = _DEFAULTS[score]
        worst = default[0] if default else most if score in LOWER_IS_BETTER else least
        return worst if score in LOWER_IS_BETTER else min(worst, float(value)), float(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return float(value[0]), float(value[1])
    raise ValueError(f"threshold {value!r}: expected a number, or a pair (bad, good)")
