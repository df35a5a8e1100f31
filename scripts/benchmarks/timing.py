"""Interleaved runs and medians: on a shared machine only ratios taken in one run mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


@dataclass
class Row:
    """One line of the table: what was measured, against whom, the ratio, and the goal it is held to."""

    measure: str
    peer: str
    ratio: float
    goal: str
    met: bool
    seconds: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain Python, for JSON."""
        return asdict(self)


def interleaved(runs: Mapping[str, Callable[[], Any]], repeats: int, what: str = "") -> dict[str, float]:
    """The median seconds of each, every repeat running all of them in turn; one unmeasured round goes before."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in tqdm(range(repeats + 1), desc=what, leave=False):
        for name, run in runs.items():
            _wait()
            start = time.perf_counter()
            run()
            _wait()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mebibytes() -> float:
    """The most memory that this program had resident; getrusage would count that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
