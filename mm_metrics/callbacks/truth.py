"""What a batch tells of its samples beside the inputs: read once, before the user's step can change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mm_metrics.ablation.batch import read_key
from mm_metrics.callbacks.prober import Shown, Watched


@dataclass(frozen=True)
class Truth:
    """A batch's entries as they came; None where the user named none."""

    target: Any  # (N, ...)
    slices: Any = None  # (N, M), where a sample counts


def truth_of(watched: Watched, batch: Any) -> Truth:
    """Read a batch's truth; raises KeyError for an entry that it lacks."""
    target = watched.target(batch) if callable(watched.target) else read_key(batch, watched.target)
    return Truth(target, None if watched.slices is None else read_key(batch, watched.slices))


class Rows(NamedTuple):
    """What of a batch is counted, K coalitions and N samples less a sampler's copies."""

    preds: Tensor  # (K, N, ...)
    target: Tensor  # (N, ...)
    slices: Tensor | None  # (N, M)
    counted: Tensor | None  # (K, N)
    numbers: Tensor | None  # (N,), those of the samples


def rows_of(watched: Watched, shown: Shown, truth: Truth, numbers: Tensor | None, n: int) -> Rows:
    """Put answers and truth side by side, the first n samples of them."""
    preds, slices = shown.preds, shown.presence
    if truth.slices is not None:
        slices = watched.modalities.presence(truth.slices, preds.shape[1], preds.device)
    counted = shown.counted
    if n == preds.shape[1]:
        return Rows(preds, truth.target, slices, counted, numbers)
    return Rows(
        preds[:, :n],
        truth.target[:n],
        None if slices is None else slices[:n],
        None if counted is None else counted[:, :n],
        numbers,
    )
