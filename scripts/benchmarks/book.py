"""The book of samples: rows a second of one core, written beside a validation and read again to the card."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.truth import Rows
from mm_metrics.predictions.book import score_book
from scripts.benchmarks.timing import Row, peak_mebibytes

_BATCH = 1024


def measure(quick: bool = False) -> Iterator[Row]:
    """Ten classes, three modalities, eight coalitions; what writing adds to counting, and reading with no bootstrap."""
    n = (50 if quick else 1000) * _BATCH
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    metric = CoalitionConfusionMatrix(("text", "image", "audio"), num_classes=10, bootstrap=0)
    random = torch.Generator().manual_seed(0)
    presence = torch.rand(_BATCH, 3, generator=random) < 0.8
    trainer = SimpleNamespace(is_global_zero=True, world_size=1)
    counted = written = 0.0
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder), "val", 0, metric, print)
        for first in range(0, n, _BATCH):
            preds, target = torch.randn(8, _BATCH, 10, generator=random), torch.randint(10, (_BATCH,), generator=random)
            index, start = torch.arange(first, first + _BATCH), time.process_time()
            labels = metric.count(preds, target, presence, index)
            middle = time.process_time()
            book.add(metric.layout.masks or (), Rows(preds, target, presence, numbers=index), labels)
            counted, written = counted + middle - start, written + time.process_time() - middle
        start = time.process_time()
        book.finish(trainer)
        written += time.process_time() - start
        path, start = Path(folder) / "val.samples.parquet", time.process_time()
        card = score_book(path)
        read = time.process_time() - start
        size = path.stat().st_size
    torch.set_num_threads(threads)
    assert torch.equal(card.confusion(), metric.scorecard().confusion()), "the book gives the card again"
    yield Row(
        f"a book of {n:,} samples, 8 coalitions, one core",
        "counting the same batches",
        written / counted,
        "shown",
        True,
        {"count": counted, "write": written, "read": read},
        {
            "million rows a second written": n / written / 1e6,
            "million rows a second read": n / read / 1e6,
            "bytes a row": size / n,
            "MiB": peak_mebibytes(),
        },
    )
