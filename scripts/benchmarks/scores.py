"""Scores from histograms: a batch's cost and the bytes, against torchmetrics' AUROC, exact and binned."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchmetrics
from torchmetrics.classification import MulticlassAUROC

from mm_metrics import CoalitionConfusionMatrix
from scripts.benchmarks.timing import Row, device, interleaved

K, N, C, BATCHES = 8, 256, 10, 40


def measure(quick: bool = False) -> Iterator[Row]:
    """Ours: 8 coalitions in 4 slices, for four rankings at once; the peer: one score of the whole."""
    where, batches = device(), 4 if quick else BATCHES
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(K, N, C, generator=generator).to(where)
    probabilities = logits[-1].softmax(-1)
    target = torch.randint(C, (N,), generator=generator).to(where)
    presence = (torch.rand(N, 3, generator=generator) < 0.7).to(where)
    names = ("text", "image", "audio")
    ours = CoalitionConfusionMatrix(names, num_classes=C, scores=("auroc",)).to(where)
    plain = CoalitionConfusionMatrix(names, num_classes=C).to(where)
    exact = MulticlassAUROC(C, validate_args=False).to(where)
    binned = MulticlassAUROC(C, thresholds=512, validate_args=False).to(where)
    seconds = interleaved(
        {
            "ours": lambda: ours.update(logits, target, presence),
            "without": lambda: plain.update(logits, target, presence),
            "exact": lambda: exact.update(probabilities, target),
            "binned": lambda: binned.update(probabilities, target),
        },
        batches,
        "scores",
    )
    mine = max(seconds["ours"] - seconds["without"], 1e-9) / K
    sizes = {
        "ours": 8 * (ours.layout.size - plain.layout.size) / K,
        "exact": sum(part.nbytes for state in (exact.preds, exact.target) for part in state),
        "binned": binned.confmat.nbytes,
    }
    for peer in ("binned", "exact"):
        yield Row(
            f"a batch of one coalition into histograms, N={N}, C={C}",
            f"torchmetrics {torchmetrics.__version__} MulticlassAUROC, {peer}",
            seconds[peer] / mine,
            ">= 1x" if peer == "binned" else "shown",
            peer == "exact" or seconds[peer] >= mine,
            seconds,
            {"kilobytes": round(sizes["ours"] / 1000), "theirs": round(sizes[peer] / 1000), "batches": batches + 1},
        )
