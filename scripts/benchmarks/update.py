"""Counting a batch: 8 coalitions by 4 slices and every score, against torchmetrics and against its own floor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchmetrics
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassMatthewsCorrCoef,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassSpecificity,
)

from mm_metrics import CoalitionConfusionMatrix
from scripts.benchmarks.timing import Row, device, interleaved

NAMES, K, S = ("text", "image", "audio"), 8, 4
PEER = f"torchmetrics {torchmetrics.__version__} MetricCollection"


def measure(quick: bool = False) -> Iterator[Row]:
    """From labels and from logits, small and large batches."""
    sizes = [(256, 10)] if quick else [(256, 10), (256, 100), (4096, 10), (4096, 100), (1024, 1000)]
    for N, C in sizes:
        for kind, goal in (("labels", 20.0), ("logits", 10.0)):
            yield _row(N, C, kind, goal if (N, C) == (256, 10) else 2.0, 5 if quick else 51)


def _row(N: int, C: int, kind: str, goal: float, repeats: int) -> Row:
    where = device()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(K, N, C, generator=generator).to(where)
    preds = logits.argmax(-1) if kind == "labels" else logits
    target = torch.randint(C, (N,), generator=generator).to(where)
    presence = (torch.rand(N, 3, generator=generator) < 0.7).to(where)
    ours = CoalitionConfusionMatrix(NAMES, num_classes=C, validate_args=False).to(where)
    peers = [[_peer(C).to(where) for _ in range(S)] for _ in range(K)]
    rows = [
        torch.arange(N, device=where),
        *(presence[:, m].nonzero().flatten() for m in range(3)),
    ]  # not charged to the peer

    def peer() -> None:
        for k in range(K):
            for s in range(S):
                peers[k][s].update(preds[k][rows[s]], target[rows[s]])

    cells, ones = (
        torch.randint(K * 8 * C * C, (K * N,), device=where),
        torch.ones(K * N, dtype=torch.int64, device=where),
    )
    buffer = torch.zeros(K * 8 * C * C, dtype=torch.int64, device=where)

    def floor() -> None:
        if kind == "logits":
            logits.argmax(-1)
        buffer.scatter_add_(0, cells, ones)

    peer()  # compute groups form at the first update
    seconds = interleaved(
        {"ours": lambda: ours.update(preds, target, presence), "peer": peer, "floor": floor}, repeats, f"update {N}x{C}"
    )
    ratio = seconds["peer"] / seconds["ours"]
    return Row(
        f"update from {kind}, N={N}, C={C}",
        PEER,
        ratio,
        f">= {goal:g}x",
        ratio >= goal,
        seconds,
        {"times its floor": seconds["ours"] / seconds["floor"]},
    )


def _peer(C: int) -> torchmetrics.MetricCollection:
    """Every score that a scorecard gives, of one slice of one coalition; those of equal states share one update."""
    by_class = {"precision": MulticlassPrecision, "recall": MulticlassRecall, "f1": MulticlassF1Score}
    by_class |= {"specificity": MulticlassSpecificity, "balanced_accuracy": MulticlassAccuracy}
    whole = {"matthews": MulticlassMatthewsCorrCoef, "cohen_kappa": MulticlassCohenKappa}
    return torchmetrics.MetricCollection(
        {"accuracy": MulticlassAccuracy(C, average="micro", validate_args=False)}
        | {name: score(C, average="macro", validate_args=False) for name, score in by_class.items()}
        | {"jaccard": MulticlassJaccardIndex(C, average="macro", validate_args=False)}
        | {name: score(C, validate_args=False) for name, score in whole.items()}
    )
