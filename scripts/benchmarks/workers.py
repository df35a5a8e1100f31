"""Scoring and leakage on Ray, by the number of its workers, against one process of the same machine."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas

from mm_metrics import find_leakage
from mm_metrics.cli import main
from scripts.benchmarks.leaks import Samples
from scripts.benchmarks.timing import Row

NAMES = ("text", "image", "audio")


def measure(quick: bool = False) -> Iterator[Row]:
    """Rows, or samples, a second: with what starting takes, and once the workers have done it all before."""
    with tempfile.TemporaryDirectory() as folder:
        n = 20_000 if quick else 2_000_000
        score = ["score", *_files(Path(folder), n), "--modalities", *NAMES, "--classes", *map(str, range(10))]
        yield _row(f"score {n:,} rows in four files", n, lambda **how: _score(score, folder, how), quick)
    m = 600 if quick else 20_000
    splits = {"train": Samples("audio", m // 2, 0), "test": Samples("audio", m // 2, 1)}
    yield _row(
        f"leakage of {m:,} recordings", m, lambda **how: find_leakage(splits, ["audio"], progress=False, **how), quick
    )


def _row(what: str, n: int, run: Callable[..., object], quick: bool) -> Row:
    import ray

    alone = _seconds(run)
    rates = {"one process, a second": n / alone}
    for workers in (1,) if quick else (1, 2, 4):
        start = time.perf_counter()
        ray.init(num_cpus=workers, log_to_driver=False, logging_level=logging.ERROR)
        _seconds(run, engine="ray", workers=workers)
        rates[f"{workers} workers, with their start"] = n / (time.perf_counter() - start)
        rates[f"{workers} workers, warm"] = n / _seconds(run, engine="ray", workers=workers)
        ray.shutdown()
    return Row(what, "one process", max(rates.values()) * alone / n, "shown", True, {"ours": alone}, rates)


def _seconds(run: Callable[..., object], **how: object) -> float:
    start = time.perf_counter()
    run(**how)
    return time.perf_counter() - start


def _score(command: list[str], folder: str, how: dict[str, object]) -> None:
    with redirect_stdout(StringIO()):
        options = [text for name, value in how.items() for text in (f"--{name}", str(value))]
        assert main([*command, "--output", f"{folder}/card.json", *options]) < 4


def _files(folder: Path, n: int) -> list[str]:
    random = np.random.default_rng(0)
    paths = [str(folder / f"part-{i}.csv") for i in range(4)]
    for path in paths:
        columns = {"target": random.integers(10, size=n // 4), "prediction": random.integers(10, size=n // 4)}
        columns |= {f"presence_{name}": random.integers(2, size=n // 4) for name in NAMES}
        pandas.DataFrame(columns).to_csv(path, index=False)
    return paths
