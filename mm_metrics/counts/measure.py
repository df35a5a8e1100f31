"""Predictions to what scores beyond the confusion need: bins of the score, confidence, sums in fixed point.

Every number is rounded once, a sample, so that order and ranks change nothing. Logits and probabilities are both read:
in multiclass a row within 0…1 that sums to 1 holds probabilities.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.counts.labels import Labels, Reader
from mm_metrics.counts.layout import Layout
from mm_metrics.moments import LARGEST, LEVELS, MOSI, MOSI_SCORES, ORDINAL, ORDINAL_SCORES, SCALE
from mm_metrics.ranking import RANKINGS, bin_of
from mm_metrics.scores import SCORES
from mm_metrics.uncertainty import mixed_numbers

TOP = re.compile(r"top([1-9]\d*)")
_OF_CLASSES = (*RANKINGS, "calibration_error", "brier", "log_loss", "top5")
_MOST_LOSS = 64.0  # of one sample's log loss, in nats


class Measures(NamedTuple):
    """What a batch adds beyond its labels; None where the layout keeps none of it."""

    bins: Tensor | None = None  # (K, N, H) int64
    actual: Tensor | None = None  # (N, H) int64, 0 or 1
    tie: Tensor | None = None  # (K, N, H) int64 hash of the score
    level: Tensor | None = None  # (K, N, H) int64 bin of the confidence
    hit: Tensor | None = None  # (K, N, H) int64, 0 or 1
    confidence: Tensor | None = None  # (K, N, H) int64, fixed point
    totals: Tensor | None = None  # (K, N, F) int64, fixed point


def needed(scores: tuple[str, ...], reader: Reader) -> dict[str, object]:
    """What a layout has to keep for some scores, as arguments of `plan`; ValueError for a score that it can't keep."""
    H = reader.C if reader.task.by_class else reader.L
    need: dict[str, object] = {}
    sums: list[str] = list(ORDINAL) + (list(MOSI) if reader.rounded else []) if reader.task.ordinal else []
    for score in scores:
        if reader.task.ordinal and score in (*RANKINGS, "calibration_error", "brier", "log_loss"):
            raise ValueError(f"scores has {score!r}, and an ordinal task has no scores of classes: leave it out")
        if score in RANKINGS:
            need["curves"] = H
        elif score == "calibration_error":
            need["levels"] = 1 if reader.task.by_class else H
        elif score in ("brier", "log_loss") or (TOP.fullmatch(score) and reader.task.by_class):
            sums.append(score)
        elif TOP.fullmatch(score):
            raise ValueError(f"scores has {score!r}, which is of more than two classes: it needs task='multiclass'")
        elif score not in (
            known := (*SCORES, *((*ORDINAL_SCORES, *MOSI_SCORES) if reader.task.ordinal else _OF_CLASSES))
        ):
            raise ValueError(f"scores has {score!r}, which is not known: one of {', '.join(known)}")
    return need | {"sums": tuple(dict.fromkeys(sums))}


def score_names(layout: Layout) -> tuple[str, ...]:
    """The scores beyond the confusion that a layout tells."""
    names = list(RANKINGS) if layout.curves else []
    names += ["calibration_error"] if layout.levels else []
    if set(ORDINAL) <= set(layout.sums):
        names += ORDINAL_SCORES
    if set(MOSI) <= set(layout.sums):
        names += MOSI_SCORES
    return (*names, *(name for name in layout.sums if name not in (*ORDINAL, *MOSI)))


def measure(reader: Reader, layout: Layout, preds: Tensor, labels: Labels, target: Tensor) -> Measures | None:
    """A batch's measures; None where the layout keeps none. Raises ValueError for labels where scores are due.

    `preds` ``(K, N)``, ``(K, N, C)`` or ``(K, N, L)`` and `target` ``(N,)`` as they came.
    """
    if not (layout.curves or layout.levels or layout.sums):
        return None
    if reader.task.ordinal:
        return Measures(totals=_ordinal(reader, layout, preds, target))
    if not preds.dtype.is_floating_point:
        raise ValueError(f"preds is {preds.dtype} of {tuple(preds.shape[1:])}: scores= needs logits or probabilities")
    log_odds, log_p = logits_of(reader, preds)  # (K, N, H) each
    probability = log_p.exp()
    actual = labels.target
    if reader.task.by_class:
        actual = torch.zeros_like(log_p[0], dtype=torch.int64).scatter_(-1, labels.target, 1)  # (N, C)
    found: dict[str, Tensor] = {}
    if layout.curves:
        found |= {"bins": bin_of(log_odds, layout.bins), "actual": actual}
    if layout.ties:
        found["tie"] = mixed_numbers((log_odds + 0.0).view(torch.int32).long())  # -0.0 is 0.0
    if layout.levels:
        sure = probability.amax(-1, keepdim=True) if reader.task.by_class else probability
        right = labels.predicted == labels.target if reader.task.by_class else actual.expand(sure.shape) == 1
        steps = torch.linspace(0, 1, LEVELS, device=sure.device)
        level = (torch.bucketize(sure.nan_to_num(), steps, right=True) - 1).clamp(0, LEVELS - 1)
        found |= {"level": level, "hit": right.long(), "confidence": _fixed(sure)}
    if layout.sums:
        columns = [_total(name, reader, log_odds, log_p, probability, actual, preds, labels) for name in layout.sums]
        found["totals"] = torch.stack(columns, dim=-1)
    return Measures(**found)


def true_probability(reader: Reader, preds: Tensor, labels: Labels) -> Tensor:
    """``(K, N)`` how probable each coalition held what was true: of a class, or the mean over labels; NaN for labels.

    `preds` ``(K, N, …)`` as they came.
    """
    if not preds.dtype.is_floating_point or reader.task.ordinal:
        return torch.full(tuple(preds.shape[:2]), torch.nan, device=preds.device)
    if reader.task.by_class:
        log_p = _log_p(preds.detach().float())
        return log_p.gather(-1, labels.target.expand(*preds.shape[:2], 1)).squeeze(-1).exp()
    log_odds, _ = logits_of(reader, preds)
    return torch.where(labels.target == 1, log_odds, -log_odds).sigmoid().mean(-1)


def logits_of(reader: Reader, preds: Tensor) -> tuple[Tensor, Tensor]:
    """The log odds of each class or label, and the log of its probability, float32 ``(K, N, H)``."""
    x = preds.detach()
    x = x if x.dtype == torch.float64 else x.float()
    if reader.task.by_class:
        log_p = _log_p(x)
    elif x.ndim > 2 and x.shape[-1] == 2 and reader.L == 1:  # two columns
        x = (x[..., 1:] - x[..., :1]) if reader.from_logits else torch.logit(x[..., 1:])
        return x.float(), torch.nn.functional.logsigmoid(x).float()
    else:
        x = x.reshape(*x.shape[:2], reader.L)
        x = x if reader.from_logits else torch.logit(x)
        return x.float(), torch.nn.functional.logsigmoid(x).float()
    odds = log_p - torch.log(-torch.expm1(log_p.clamp(max=0)))
    return odds.float(), log_p.float()


def _log_p(x: Tensor) -> Tensor:
    """The log of the probability of each class ``(..., C)``, of logits or of probabilities."""
    given = ((x >= 0) & (x <= 1)).all(-1, keepdim=True) & ((x.sum(-1, keepdim=True) - 1).abs() < 1e-2)
    return torch.where(given, x.clamp(min=0).log(), x.log_softmax(-1))


def _total(
    name: str,
    reader: Reader,
    log_odds: Tensor,
    log_p: Tensor,
    probability: Tensor,
    actual: Tensor,
    preds: Tensor,
    labels: Labels,
) -> Tensor:
    """``(K, N)`` int64 of one sum."""
    if name == "brier":
        miss = (probability - actual) ** 2
        return _fixed(miss.sum(-1) if reader.task.by_class else miss.mean(-1))
    if name == "log_loss":
        if reader.task.by_class:
            loss = -log_p.gather(-1, labels.target.expand(*log_p.shape[:2], 1)).squeeze(-1)
        else:
            loss = -torch.nn.functional.logsigmoid(torch.where(actual == 1, log_odds, -log_odds)).mean(-1)
        return _fixed(loss.clamp(max=_MOST_LOSS))
    k = int(name.removeprefix("top"))
    own = preds.gather(-1, labels.target.expand(*preds.shape[:2], 1))
    before = torch.arange(preds.shape[-1], device=preds.device) < labels.target  # of equal scores the first class wins
    ahead = ((preds > own) | ((preds == own) & before)).sum(-1)
    return (ahead < k).long() * SCALE


def _ordinal(reader: Reader, layout: Layout, preds: Tensor, target: Tensor) -> Tensor:
    """``(K, N, F)`` int64 of an ordinal task's sums."""
    p = preds.detach().reshape(*preds.shape[:2]).float()  # (K, N)
    y = target.detach().reshape(-1).float().expand_as(p)
    e = p - y
    values = dict(zip(ORDINAL, (e, e.abs(), e * e, y, p, y * p, y * y, p * p), strict=True))
    if reader.rounded:
        for prefix, yes_y, yes_p, counts in (
            ("acc2", y >= 0, p >= 0, torch.ones_like(y, dtype=torch.bool)),
            ("nonzero", y > 0, p > 0, y != 0),
        ):
            for cell, hit in (
                ("00", ~yes_y & ~yes_p),
                ("01", ~yes_y & yes_p),
                ("10", yes_y & ~yes_p),
                ("11", yes_y & yes_p),
            ):
                values[f"{prefix}_{cell}"] = hit & counts
        for classes, edge in ((5, 2.0), (7, 3.0)):
            values[f"hits{classes}"] = p.clamp(-edge, edge).round() == y.clamp(-edge, edge).round()
    return torch.stack([_fixed(values[name].float()) for name in layout.sums], dim=-1)


def _fixed(values: Tensor) -> Tensor:
    """Floats to int64 in fixed point; what is not finite is 0, as its sample is refused."""
    return (values.nan_to_num(0.0, 0.0, 0.0).clamp(-(LARGEST**2) * 4, LARGEST**2 * 4) * SCALE).round().long()
