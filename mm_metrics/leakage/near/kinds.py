"""Near copies: which descriptor and which comparison a kind of input has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np

from mm_metrics.extras import install
from mm_metrics.leakage.fingerprints import Describe

BLOCK = 8192  # samples a side
THREADS = 2  # each unpacks its own block
NEAR_KINDS = ("text", "image", "audio")


def describers() -> dict[str, Describe]:
    """Kind → describe(inputs, sample rates) → records; raises ImportError where the extra is missing."""
    try:
        return {kind: import_module(f"mm_metrics.leakage.near.{kind}").describe for kind in NEAR_KINDS}
    except ImportError as error:
        raise ImportError(
            f"near copies need {error.name}: {install('datasketch', 'pillow', 'scipy')}, or say near=False"
        ) from error


def pairs(kind: str, earlier: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (i, j) of near copies among the records of two splits, by j and then likest first.

    Goes block by block, so that what the comparison unpacks does not grow with the splits.
    """
    compare = import_module(f"mm_metrics.leakage.near.{kind}").pairs
    places = [(i, j) for i in range(0, len(earlier), BLOCK) for j in range(0, len(later), BLOCK)]

    def block(place: tuple[int, int]) -> np.ndarray:
        i, j = place
        return compare(earlier[i : i + BLOCK], later[j : j + BLOCK]) + np.array([[i], [j], [0]])

    with ThreadPoolExecutor(THREADS) as threads:  # numpy works outside the interpreter's lock
        found = [np.zeros((3, 0)), *threads.map(block, places)]
    i, j, likeness = np.concatenate(found, axis=1)
    order = np.lexsort((i, -likeness, j))
    both = np.stack([i[order], j[order]]).astype(np.int64)
    first = np.sort(np.unique(both, axis=1, return_index=True)[1])
    return both[0, first], both[1, first]
