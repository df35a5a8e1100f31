"""Summing over 4 gloo processes, C=100 and 8 coalitions, against torchmetrics: no score is computed on either side."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchmetrics
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from mm_metrics import CoalitionConfusionMatrix
from scripts.benchmarks.timing import Row, peak_mebibytes

K, S, N, C = 8, 4, 256, 100


def measure(quick: bool = False) -> Iterator[Row]:
    """One launch a world size; peak memory is that of rank zero."""
    peaks = {}
    for world in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_rank, args=(world, folder, 3 if quick else 9), nprocs=world)
            figures = json.loads((Path(folder) / "figures.json").read_text())
        peaks[world] = figures["peak"]
    seconds = figures["seconds"]
    ratio = seconds["MetricCollection"] / seconds["ours"]
    yield Row(
        f"sync on 4 processes, C={C}, 8 coalitions",
        f"torchmetrics {torchmetrics.__version__} MetricCollection",
        ratio,
        ">= 5x",
        ratio >= 5,
        seconds,
        {"against MulticlassConfusionMatrix": seconds["MulticlassConfusionMatrix"] / seconds["ours"]}
        | {f"MiB added by our sync, {world} processes": peak for world, peak in peaks.items()},
    )


def _rank(rank: int, world: int, folder: str, repeats: int) -> None:
    from scripts.benchmarks.update import _peer

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(rank)
    preds, target = torch.randint(C, (K, N), generator=generator), torch.randint(C, (N,), generator=generator)
    ours = CoalitionConfusionMatrix(("text", "image", "audio"), num_classes=C)
    ours.update(preds, target)
    peers: dict[str, list[Metric]] = {
        "MetricCollection": [metric for _ in range(K * S) for metric in _peer(C).values(copy_state=False)],
        "MulticlassConfusionMatrix": [MulticlassConfusionMatrix(C, validate_args=False) for _ in range(K * S)],
    }
    for metrics in peers.values():
        for metric in metrics:
            metric.update(preds[0], target)

    def sync(*metrics: Metric) -> None:
        for metric in metrics:
            metric.sync()
            metric.unsync()

    before = peak_mebibytes()
    sync(ours)
    peak = peak_mebibytes() - before
    runs = {"ours": partial(sync, ours), **{name: partial(sync, *peers[name]) for name in peers}}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            dist.barrier()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    if rank == 0:
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        (Path(folder) / "figures.json").write_text(json.dumps({"seconds": medians, "peak": peak}))
    dist.destroy_process_group()
