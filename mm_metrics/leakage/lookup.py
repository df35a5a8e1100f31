"""Equal codes, and equal bands of codes, between two splits: sorted arrays and binary search, never all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

CHUNK = 1 << 20  # candidate pairs at a time: what bounds the memory of a lookup


def codes(digests: list[np.ndarray]) -> list[np.ndarray]:
    """``(N, 2)`` digests a split → ``(N,)`` int64 a split: equal where the digests are, −1 where there is none."""
    everything = np.concatenate(digests)
    _, inverse = np.unique(everything, axis=0, return_inverse=True)
    numbers = np.where(everything.any(axis=1), inverse.reshape(-1), -1).astype(np.int64)
    return np.split(numbers, np.cumsum([len(part) for part in digests])[:-1])


def matches(a: np.ndarray, b: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``(i, j)`` with ``a[i] == b[j] >= 0``, by j and then i, at most ``limit`` of them for each j.

    >>> matches(np.array([5, 7, 5]), np.array([7, 5, 9]), limit=10)
    (array([1, 0, 2]), array([0, 1, 1]))
    """
    order = np.argsort(a, kind="stable")
    first = np.searchsorted(a, b, side="left", sorter=order)
    number = np.minimum(np.searchsorted(a, b, side="right", sorter=order) - first, limit)
    number[b < 0] = 0
    j = np.repeat(np.arange(len(b)), number)
    step = np.arange(len(j)) - np.repeat(np.cumsum(number) - number, number)
    return order[np.repeat(first, number) + step], j


def candidates(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs ``(i, j)`` of rows of ``(Na, B)`` and ``(Nb, B)`` uint64 keys that are equal in at least one column.

    Comes in blocks of whole j's with about CHUNK pairs each; no pair comes twice.
    """
    B = a.shape[1]
    orders = [np.argsort(a[:, band], kind="stable") for band in range(B)]
    firsts = np.stack([np.searchsorted(a[:, band], b[:, band], "left", orders[band]) for band in range(B)])
    numbers = np.stack([np.searchsorted(a[:, band], b[:, band], "right", orders[band]) for band in range(B)]) - firsts
    block = np.cumsum(numbers.sum(axis=0)) // CHUNK if len(b) else np.zeros(0, dtype=np.int64)
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]):
        found = []
        for band in range(B):
            number, first = numbers[band, start:stop], firsts[band, start:stop]
            j = np.repeat(np.arange(start, stop), number)
            step = np.arange(len(j)) - np.repeat(np.cumsum(number) - number, number)
            found.append(j * len(a) + orders[band][np.repeat(first, number) + step])
        pairs = np.sort(np.concatenate(found))
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        if len(pairs):
            yield pairs % len(a), pairs // len(a)


def agreeing(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, bits: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of the pairs ``(x[a], y[b])`` of rows of keys those that agree in at least a share of their bits.

    One equal key in dozens is often chance; the bits of all keys together are a cheap second opinion.
    """
    x, y = (np.ascontiguousarray(keys).view(np.uint64) for keys in (x, y))
    kept = _ones(x[a] ^ y[b]) <= (1 - share) * bits
    return a[kept], b[kept]


def _ones(words: np.ndarray) -> np.ndarray:
    """``(..., W)`` uint64 to ``(...)``: how many bits are set. Until numpy 2 is the oldest that is supported."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
    return np.unpackbits(words.view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)
