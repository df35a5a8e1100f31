"""Near copies: which descriptor and which comparison a kind of input has."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from mm_metrics.leakage.fingerprints import Describe

Pairs = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
NEAR_KINDS = ("text", "image", "audio")


def describers() -> dict[str, Describe]:
    """Kind → describe(inputs, sample rates) → records; raises ImportError where the extra is missing."""
    try:
        return {kind: import_module(f"mm_metrics.leakage.{kind}").describe for kind in NEAR_KINDS}
    except ImportError as error:
        raise ImportError(
            f'near copies need the extra: pip install "mm_metrics[leakage]", or say near=False ({error})'
        ) from error


def pairs(kind: str) -> Pairs:
    """The comparison of a kind: earlier and later records → positions (i, j) of near copies, by j."""
    return import_module(f"mm_metrics.leakage.{kind}").pairs
