"""Curves of what histograms hold: receiver operating characteristic, precision over recall, and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mm_metrics.moments import SCALE
from mm_metrics.uncertainty import wilson

_POINTS = 80  # of a curve that is drawn


class Curve(NamedTuple):
    """A line's places and values ``(n,)`` each, with a band around it where there is one; a gap where one is NaN."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def roc(counts: Tensor, replicates: Tensor | None = None) -> Curve:
    """Hits over false alarms as the threshold falls, with a 95% band: ``(2, B)`` negatives first, and ``(R, 2, B)``."""
    return _banded(*_rates(counts.numpy()), None if replicates is None else _rates(replicates.numpy()))


def precision_recall(counts: Tensor, replicates: Tensor | None = None) -> Curve:
    """Precision over recall as the threshold falls, with a 95% band; shapes as in `roc`."""
    return _banded(*_precision(counts.numpy()), None if replicates is None else _precision(replicates.numpy()))


def reliability(levels: Tensor, replicates: Tensor | None = None) -> Curve:
    """How often right, over how sure: ``(LEVELS, 3)`` samples, hits and confidence; ``(R, LEVELS, 3)`` for the band.

    Levels without samples are left out; without replicates the band is Wilson's interval of each level.
    """
    count, hits, sure = levels.double().numpy().T
    seen = count > 0
    count, hits, sure = count[seen], hits[seen], sure[seen]
    if replicates is None:
        ends = [tuple(map(float, wilson(h, n, 0.95))) for h, n in zip(hits, count, strict=True)]
        low, high = ([end[i] for end in ends] for i in (0, 1))
    else:
        parts = replicates.double().numpy()[:, seen]
        with np.errstate(invalid="ignore"):
            low, high = np.nanpercentile(parts[..., 1] / parts[..., 0], (2.5, 97.5), axis=0).tolist()
    return Curve((sure / SCALE / count).tolist(), (hits / count).tolist(), low, high)


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False alarms and hits ``(..., B + 1)``, each rising from 0 to 1."""
    sums = np.cumsum(np.flip(counts.astype(np.float64), -1), -1)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], -1)
    with np.errstate(invalid="ignore"):
        rates = sums / sums[..., -1:]
    return rates[..., 0, :], rates[..., 1, :]


def _precision(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall ``(..., B)``, rising, and the precision there; where nothing is found yet, that of the first found."""
    sums = np.cumsum(np.flip(counts.astype(np.float64), -1), -1)
    total = sums.sum(-2)
    with np.errstate(invalid="ignore"):
        precision, recall = sums[..., 1, :] / total, sums[..., 1, :] / sums[..., 1, -1:]
    first = np.take_along_axis(precision, (total > 0).argmax(-1)[..., None], -1)
    return recall, np.where(total > 0, precision, first)


def _banded(x: np.ndarray, y: np.ndarray, replicates: tuple[np.ndarray, np.ndarray] | None) -> Curve:
    """A curve thinned to what can be seen of it, with the middle 95% of its replicates at the same places."""
    if np.isnan(x).any() or np.isnan(y).any():
        return Curve([], [])
    far = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))  # along the curve
    places = np.unique(np.searchsorted(far, np.linspace(0, far[-1], _POINTS)).clip(0, len(x) - 1))
    x, y = x[places], y[places]
    if replicates is None:
        return Curve(x.tolist(), y.tolist())
    rows = [np.interp(x, *row) for row in zip(*replicates, strict=True) if not np.isnan(row).any()]
    if len(rows) < 2:
        return Curve(x.tolist(), y.tolist())
    low, high = np.percentile(rows, (2.5, 97.5), axis=0)
    return Curve(x.tolist(), y.tolist(), np.minimum(low, y).tolist(), np.maximum(high, y).tolist())
