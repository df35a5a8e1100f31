"""A scorecard to the keys that are logged, and which of them go to the loggers."""

from __future__ import annotations

from mm_metrics.scorecard import Contribution, Estimate, Scorecard
from mm_metrics.verdict import Verdict

_SCORES = ("accuracy", "precision", "recall", "f1")
_ABLATED = ("accuracy", "f1")


def logged_keys(card: Scorecard, verdict: Verdict, stage: str, intervals: bool = False) -> dict[str, float]:
    """``{key: value}`` of everything the monitor logs, ``…/low`` and ``…/high`` among it where `intervals`.

    >>> import torch
    >>> from mm_metrics import ModalityConfusionMatrix
    >>> metric = ModalityConfusionMatrix(("text", "audio"), num_classes=2)
    >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    >>> card = metric.scorecard()
    >>> logged_keys(card, card.verdict(), "val")["val/text/accuracy"]
    0.5
    """
    estimates: dict[str, Estimate] = {}
    plain: dict[str, float] = {}
    for slice in card.slices:
        for score in _SCORES:
            estimates[f"{slice}/{score}"] = _estimate(card, intervals, score, None, slice)
        if slice != "all":
            plain[f"{slice}/support"] = card.support(slice)
    if len(card.coalitions) > 1:
        for coalition in card.coalitions:
            for score in _ABLATED:
                estimates[f"ablation/{coalition}/{score}"] = _estimate(card, intervals, score, coalition, "all")
        for score in _ABLATED:
            for modality, given in card.contributions(score).items():
                estimates |= _contribution(modality, score, given)
    for key, estimate in estimates.items():
        plain[key] = estimate.value
        if intervals:
            plain[f"{key}/low"], plain[f"{key}/high"] = estimate.low, estimate.high
    plain["verdict"] = verdict.number
    return {f"{stage}/{key}": float(value) for key, value in plain.items()}


def summary_keys(card: Scorecard, stage: str) -> set[str]:
    """The few that the loggers get by default: the whole; recall and F1 per modality; drop in F1; the verdict."""
    keys = {f"all/{score}" for score in _SCORES} | {"verdict"}
    for modality in card.modalities:
        keys |= {f"{modality}/recall", f"{modality}/f1", f"drop/{modality}/f1"}
    return {f"{stage}/{key}" for key in keys}


def _estimate(card: Scorecard, interval: bool, score: str, coalition: str | None, slice: str) -> Estimate:
    if interval:
        return card.estimate(score, coalition, slice)
    return Estimate(card.score(score, coalition, slice), float("nan"), float("nan"))


def _contribution(modality: str, score: str, given: Contribution) -> dict[str, Estimate]:
    return {f"drop/{modality}/{score}": given.drop, f"shapley/{modality}/{score}": given.shapley}
