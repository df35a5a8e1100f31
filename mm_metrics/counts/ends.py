"""The ends of a score's interval: what its replicates show, and what those cannot know."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_metrics import moments, scores, uncertainty
from mm_metrics.scores import Behind, ClassSums
from mm_metrics.tasks import Task

_UNBOUNDED = ("mae", "rmse", "log_loss")
_MOVED = dict.fromkeys(("matthews", "cohen_kappa", "pearson", "ccc", "mae"), 2.0)
_MOVED |= {"rmse": 3.0} | dict.fromkeys(("auroc", "eer"), 0.5)
_LOSS = math.log(10)  # of an answer that held what is true for one in ten
_OF_POSITIVES = ("precision", "recall", "f1", "jaccard")


def steps(score: str, behind: Behind, value: Tensor) -> tuple[Tensor, Tensor]:
    """`uncertainty.least_size` of a score with a `value` ``(...)``, and how far one sample of those may move it.

    Most by 1, a correlation by 2, an error without a bound by twice its mean, and squares by more; rankings, where
    a sample is right or wrong by degrees, by half.
    """
    known = score in _UNBOUNDED and value != 0  # of no error at all nothing tells the unit
    moved = _MOVED.get(score, 1.0) * torch.where(torch.as_tensor(known), value.abs(), 1.0)
    if score == "log_loss":
        moved = moved.clamp(min=_LOSS)
    elif score == "dprime":  # as far as the AUROC that gives it
        moved = math.sqrt(math.pi) * torch.exp(value.square() / 4)
    return uncertainty.least_size(behind.weights, behind.sizes), moved


def ends(
    score: str,
    value: Tensor,
    spread: Tensor,
    behind: Behind,
    sums: ClassSums,
    task: Task,
    average: str | None,
    confidence: float,
    groups: int | None,
) -> tuple[Tensor, Tensor]:
    """Low and high of a score with a `value` ``(...)``, replicates ``(R, ...)``, and class sums ``(L, C)`` each."""
    (size, unit), (lowest, highest) = steps(score, behind, value), scores.extent(score)
    n = groups or int(size.min().clamp(max=10**9))
    if score in _UNBOUNDED and value > 0:
        return moments.scaled_interval(value, spread, size * value / unit, confidence, n, torch.log, torch.exp)
    if score in ("pearson", "ccc") and value.abs() < 1 - 1e-6:
        most = (1 + value.abs().clamp(min=0.99)) / 2  # of replicates that drew two samples alone
        spread = spread.clamp(-most, most)
        return moments.scaled_interval(value, spread, size, confidence, n, torch.atanh, torch.tanh)
    if score == "dprime":  # as the AUROC that gives it, which infinite replicates have too
        value, spread = (torch.special.ndtr(part / math.sqrt(2)) for part in (value, spread))
        lowest, highest = 0.0, 1.0
    if highest > 1:
        low, high = uncertainty.difference_interval(value, spread, size, confidence, groups, unit)
        return low.clamp(min=lowest), high.clamp(max=highest)
    total = uncertainty.effective_size(behind.weights, behind.sizes)
    if groups is None:  # replicates of n samples vary as n - 1 do (Efron 1982), in each class
        unbiased = total / uncertainty.effective_size(behind.weights, (behind.sizes - 1).clamp(min=1))
        spread = value + (spread - value) * unbiased.sqrt()
    if score == "dprime":  # which one class alone takes to infinity
        total = torch.where(behind.weights > 0, 2 * behind.sizes, torch.inf).amin(-1)
    elif score in ("auroc", "eer"):
        total = 2 * total
    elif score == "f1":  # where all are right, the next wrong one takes half of what it takes from Jaccard's
        total = total * (1 + (value == 1).double())
    # Of other scores what is behind them tells their size alone.
    reach = uncertainty.mean_reach(*behind, confidence, score == "f1") if score in scores.SCORES else None
    low, high = uncertainty.score_interval(value, spread, total, confidence, lowest, groups, reach)
    events = of_positive(sums.actual, task)
    if score in ("matthews", "cohen_kappa"):  # 0 stands for what is not defined, and could be any
        unknown = ((sums.actual > 0).sum(-1) < 2).double().mean()
        low, high = (low - unknown).clamp(min=lowest), (high + unknown).clamp(max=1)
    elif behind.weights.shape == events.shape and average != "weighted":
        if score in _OF_POSITIVES:  # a class of nothing counts 0, and could be any
            nothing = (events if score != "precision" else of_positive(sums.predicted, task)) == 0
            high = (high + (behind.weights * nothing).sum()).clamp(max=1)
        # Classes that are left out may be rare, not impossible: as many as of one or two samples (after Chao 1984).
        left, few = behind.weights == 0, (events > 0) & (events < 3)
        more = torch.minimum(left.sum(), few.sum())
        share = more / (len(left) - left.sum() + more)
        low, high = low - share * (low - lowest), high + share * (1 - high)
    if score == "average_precision":  # of P positives it lies too high, as the first one's rank counts most
        low = (low - (1 - value) * (behind.weights / (behind.sizes + 1)).sum(-1)).clamp(min=0)
    if score == "dprime":
        low, high = (math.sqrt(2) * torch.special.ndtri(end) for end in (low, high))
    return low, high


def of_positive(part: Tensor, task: Task) -> Tensor:
    """``(..., L, C)`` to the classes ``(..., C)``, of labels what is there ``(..., L)``."""
    return part[..., 1] if task.by_label else part[..., 0, :]
