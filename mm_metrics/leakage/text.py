"""Near copies of texts: the same words but for case, punctuation, spacing and a few changes.

A text becomes a set of shingles: runs of five characters of its normalised form, or of two tokens where it comes as
integers. MinHash gives the keys that make two texts candidates; the Jaccard similarity of their shingles decides.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from datasketch import MinHash

from mm_metrics.leakage.inputs import Input
from mm_metrics.leakage.lookup import candidates

CHARACTERS, TOKENS = 5, 2  # a shingle's length
FEWEST = 8  # shingles: below, two texts that only resemble each other share half of them
KEYS, ROWS = 32, 4  # keys a text, permutations a key: at a similarity of 0.5, 0.6, 0.7 a key is shared by 87, 99, 99.9%
SKETCH = 256  # shingles kept: of a longer text those with the smallest hashes, which estimate the similarity
SIMILARITY = 0.5
PAIRS = 1 << 14  # texts compared at a time
EMPTY = np.uint32(2**32 - 1)

RECORD = np.dtype([("keys", np.uint64, KEYS), ("sketch", np.uint32, SKETCH), ("shingles", np.int32)])


def describe(texts: list[Input], rates: list[float | None]) -> np.ndarray:
    """``(N,)`` records of N texts, strings or (L,) integers."""
    sets = [shingles(text) for text in texts]
    records = np.zeros(len(texts), dtype=RECORD)
    records["sketch"] = EMPTY
    for record, found in zip(records, sets, strict=True):
        record["sketch"][: len(found)] = found[:SKETCH]
        record["shingles"] = len(found)
    hashes = MinHash.bulk([found.tolist() for found in sets], num_perm=KEYS * ROWS, seed=1, hashfunc=int)
    values = np.stack([minhash.hashvalues for minhash in hashes]).astype(np.uint64).reshape(len(texts), KEYS, ROWS)
    records["keys"] = _mixed(values)
    return records


def shingles(text: Input) -> np.ndarray:
    """The sorted 32-bit hashes of a text's shingles.

    >>> bool((shingles("There's FIRE,  on Main st.") == shingles("theres fire on main st")).all())
    True
    """
    if isinstance(text, str):
        units, length = _normalised(text), CHARACTERS
    else:
        units, length = np.frombuffer(text, np.uint8) if isinstance(text, bytes) else np.asarray(text), TOKENS
    if len(units) < length:
        return np.zeros(0, dtype=np.uint32)
    runs = np.lib.stride_tricks.sliding_window_view(units.astype(np.int64).view(np.uint64), length)
    return np.unique((_mixed(runs) >> np.uint64(32)).astype(np.uint32))


def _normalised(text: str) -> np.ndarray:
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if c.isalnum() else " " if c.isspace() else "" for c in plain).split()
    return np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _mixed(values: np.ndarray) -> np.ndarray:
    """One well-mixed 64-bit number for each run along the last axis (the finaliser of splitmix64)."""
    state = np.full(values.shape[:-1], 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in range(values.shape[-1]):
        state = (state ^ values[..., column]) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def pairs(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """``(3, P)``: positions i and j of near copies among the records of two splits, and their likeness."""
    i, j = (np.flatnonzero(records["shingles"] >= FEWEST) for records in (earlier, later))
    found = [np.zeros((3, 0))]
    for a, b in candidates(earlier["keys"][i], later["keys"][j]):
        for start in range(0, len(a), PAIRS):
            p, q = i[a[start : start + PAIRS]], j[b[start : start + PAIRS]]
            like = similarity(earlier[p], later[q])
            found.append(np.stack([p, q, like])[:, like >= SIMILARITY])
    return np.concatenate(found, axis=1)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(P,)`` Jaccard similarity of P pairs of records: exact up to SKETCH shingles, else its bottom-k estimate."""
    both = np.sort(np.concatenate([a["sketch"], b["sketch"]], axis=1), axis=1)
    first = np.ones_like(both, dtype=bool)
    first[:, 1:] = both[:, 1:] != both[:, :-1]
    first &= both != EMPTY
    twice = np.zeros_like(first)
    twice[:, :-1] = first[:, :-1] & (both[:, 1:] == both[:, :-1])
    longest = np.maximum(a["shingles"], b["shingles"])
    bound = np.where(longest > SKETCH, SKETCH, 2 * SKETCH)[:, None]
    used = first & (np.cumsum(first, axis=1) <= bound)
    return (twice & used).sum(axis=1) / np.maximum(used.sum(axis=1), 1)
