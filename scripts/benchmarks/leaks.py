"""Leakage between splits: samples a second per modality, and how that grows with their number."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm_metrics import find_leakage
from scripts.benchmarks.timing import Row

_WORDS = np.array([f"word{i}" for i in range(2000)])


def measure(quick: bool = False) -> Iterator[Row]:
    """Text, image and audio apart, from 1,000 to 100,000 samples in two splits."""
    sizes = (500, 1000) if quick else (1000, 10_000, 100_000)
    for modality in ("text", "image", "audio"):
        rates = {}
        for n in sizes:
            splits = {"train": Samples(modality, n // 2, 0), "test": Samples(modality, n // 2, 1)}
            start = time.perf_counter()
            find_leakage(splits, [modality], progress=False)
            rates[n] = n / (time.perf_counter() - start)
        growth = rates[sizes[0]] / rates[sizes[-1]]
        yield Row(
            f"leakage, {modality}, {sizes[-1]:,} samples",
            f"itself at {sizes[0]:,}",
            growth,
            "shown",
            True,
            {},
            {f"samples a second at {n:,}": rate for n, rate in rates.items()},
        )


class Samples:
    """A map-style data set of random samples of one modality, made when they are asked for."""

    def __init__(self, modality: str, n: int, seed: int) -> None:
        self.modality, self.n, self.seed = modality, n, seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        random = np.random.default_rng((self.seed, i))
        if self.modality == "text":
            return {"text": " ".join(random.choice(_WORDS, 20))}
        if self.modality == "image":
            coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            return {"image": np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8))}
        return {"audio": random.standard_normal(8000).astype(np.float32)}
