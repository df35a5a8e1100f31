"""Bootstrap replicates: cost per replicate and coalition, against torchmetrics' BootStrapper."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchmetrics
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.wrappers import BootStrapper

from mm_metrics import CoalitionConfusionMatrix
from scripts.benchmarks.timing import Row, device, interleaved

K, N, C, R, PEER_R = 8, 256, 10, 200, 10


def measure(quick: bool = False) -> Iterator[Row]:
    """Every score of ours in 4 slices; of the peer one score of the whole, which is a handicap to us."""
    where = device()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(K, N, C, generator=generator).to(where)
    target = torch.randint(C, (N,), generator=generator).to(where)
    presence = (torch.rand(N, 3, generator=generator) < 0.7).to(where)
    index = torch.arange(N, device=where)
    names = ("text", "image", "audio")
    ours = CoalitionConfusionMatrix(names, num_classes=C, bootstrap=R, validate_args=False).to(where)
    plain = CoalitionConfusionMatrix(names, num_classes=C, validate_args=False).to(where)
    peer = BootStrapper(MulticlassF1Score(C, validate_args=False), num_bootstraps=PEER_R).to(where)
    seconds = interleaved(
        {
            "ours": lambda: ours.update(logits, target, presence, index),
            "without": lambda: plain.update(logits, target, presence, index),
            "peer": lambda: peer.update(logits[0], target),
        },
        5 if quick else 25,
        "replicates",
    )
    mine = max(seconds["ours"] - seconds["without"], 1e-9) / (R * K)
    ratio = seconds["peer"] / PEER_R / mine
    yield Row(
        f"a replicate of a coalition, N={N}, C={C}, R={R}",
        f"torchmetrics {torchmetrics.__version__} BootStrapper",
        ratio,
        ">= 100x",
        ratio >= 100,
        seconds,
        {"microseconds": 1e6 * mine},
    )
