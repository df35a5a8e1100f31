"""Whether an answer in parts is the answer of the whole."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from mm_metrics.ablation.stamps import Checks

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}  # of how much a class's logits vary; 3e-2 in lower precision
ULPS = 32  # units in the last place of a logit, whatever it varies by


def agree(answer: Tensor, reference: Tensor, checks: Checks | None = None) -> bool:
    """Whether two answers ``(K, N, C...)`` are equal up to rounding, and decide alike.

    Each class is measured by how much its own logits vary over coalitions and samples, so that neither a class that
    is masked by -1e9 nor a constant makes others agree. A decision may turn only where it hangs on the last places.

    >>> logits = torch.tensor([[[1.0, 2.0, -1e9], [3.0, 2.0, -1e9]]])
    >>> agree(logits, logits + torch.tensor([1e-6, 0.0, 0.0])), agree(logits, logits + torch.tensor([0.1, 0.0, 0.0]))
    (True, False)
    """
    checks = Checks() if checks is None else checks
    if answer.shape != reference.shape or answer.dtype != reference.dtype:
        return False
    if not reference.is_floating_point():
        return checks((answer == reference).all())
    if reference.device.type == "cpu" and torch.equal(answer, reference):
        return True
    room, finite = room_of(reference), reference.isfinite()
    odd = (answer == reference) | (answer.isnan() & reference.isnan())
    if not checks(torch.where(finite, (answer - reference).abs() <= room, odd).all()):
        return False
    if reference.ndim != 3:
        return True
    best, top = reference.max(2, keepdim=True)
    pick = answer.argmax(2, keepdim=True)
    return checks(~(best - reference.gather(2, pick) > (room[top] + room[pick]) / 2).any())


def room_of(reference: Tensor) -> Tensor:
    """How far rounding may move each class's logits: ``(K, N, C...)`` to ``(C...)``."""
    if not reference.is_floating_point():
        return torch.zeros((), device=reference.device)
    finite = reference.isfinite()
    low, high = (reference.where(finite, fill) for fill in (torch.inf, -torch.inf))
    low, high = low.amin((0, 1)), high.amax((0, 1))
    ulp = torch.finfo(reference.dtype).eps * torch.maximum(high.abs(), low.abs())
    return (_rounding(reference) * (high - low) + ULPS * ulp).where(high >= low, 0)


def near(answer: Tensor, own: Tensor, room: Tensor, checks: Checks) -> bool:
    """Whether an answer ``(N, C...)`` is the model's ``own``; by few kernels where its device is not waited for."""
    if own.device.type == "cpu" and torch.equal(answer, own):
        return True
    if checks(((answer - own).abs() <= room).logical_or_(answer == own).all()):
        return True
    return own.device.type == "cpu" and agree(answer.unsqueeze(0), own.unsqueeze(0), checks)


def _rounding(reference: Tensor) -> float:
    """How far rounding alone moves an answer, relative to how much it varies."""
    rounding = ROUNDING.get(reference.dtype, 3e-2)
    if torch.is_autocast_enabled(reference.device.type):
        return 3e-2
    return max(rounding, 1e-3) if reference.device.type == "cuda" and _rounds_products() else rounding


def _rounds_products() -> bool:
    """Whether the user lets matrix products round to TF32; that convolutions may is a default, and no excuse."""
    with suppress(Exception):  # torch refuses to tell by the one switch what was set by the other
        return torch.backends.cuda.matmul.allow_tf32
    return getattr(torch.backends.cuda.matmul, "fp32_precision", "") == "tf32"
