"""Summing over 4 gloo processes, C=100 and 8 coalitions, against torchmetrics' metrics of the same scores."""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchmetrics

from mm_metrics import CoalitionConfusionMatrix
from scripts.benchmarks.timing import Row

K, N, C = 8, 256, 100


def measure(quick: bool = False) -> Iterator[Row]:
    """One launch a world size; peak memory is that of rank zero."""
    peaks = {}
    for world in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_rank, args=(world, folder, 2 if quick else 5), nprocs=world)
            figures = json.loads((Path(folder) / "figures.json").read_text())
        peaks[world] = figures["peak"]
    ratio = figures["peer"] / figures["ours"]
    yield Row(
        f"sync on 4 processes, C={C}, 8 coalitions", f"torchmetrics {torchmetrics.__version__}",
        ratio, ">= 5x", ratio >= 5, {"ours": figures["ours"], "peer": figures["peer"]},
        {f"MiB added by our sync, {world} processes": peak / 1024 for world, peak in peaks.items()},
    )  # fmt: skip


def _rank(rank: int, world: int, folder: str, repeats: int) -> None:
    from scripts.benchmarks.update import _peer

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(rank)
    preds, target = torch.randint(C, (K, N), generator=generator), torch.randint(C, (N,), generator=generator)
    ours = CoalitionConfusionMatrix(("text", "image", "audio"), num_classes=C)
    ours.update(preds, target)
    peers = [[_peer(C) for _ in range(4)] for _ in range(K)]
    for k in range(K):
        for s in range(4):
            peers[k][s].update(preds[k], target)

    def sync_peers() -> None:
        for row in peers:
            for peer in row:
                peer.compute()
                for metric in peer.values():
                    metric._computed = None

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours.compute()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for name, run in (("ours", ours.compute), ("peer", sync_peers)):
            dist.barrier()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    if rank == 0:
        figures = {name: statistics.median(values) for name, values in seconds.items()} | {"peak": peak}
        (Path(folder) / "figures.json").write_text(json.dumps(figures))
    dist.destroy_process_group()
