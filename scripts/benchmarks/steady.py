"""What the monitor costs beside the model: a batch of one that does nothing, ones that sleep, the end of a run."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mm_metrics import CoalitionConfusionMatrix, ModalityAblation
from mm_metrics.callbacks import ModalityMonitor
from scripts.benchmarks.ablation import validation
from scripts.benchmarks.timing import Row, interleaved

NAMES, N, WIDTH = ("text", "image", "audio"), 64, 16


class _Encoder(nn.Module):
    """Sleeps as a real one would compute, in proportion to the samples: a busy machine makes it no slower."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.seconds:
            time.sleep(self.seconds * len(x) / N)
        return x * self.weight


class Sleeper(LightningModule):
    """Three encoders that take `seconds` together, and a linear fusion."""

    def __init__(self, seconds: float = 0.0, C: int = 10) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: _Encoder(seconds / len(NAMES)) for name in NAMES})
        self.head = nn.Linear(len(NAMES) * WIDTH, C)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.head(torch.cat([self.encoders[name](batch[name]) for name in NAMES], dim=-1))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self(batch)


def measure(quick: bool = False) -> Iterator[Row]:
    """The fixed price of a batch, what is added to a validation, and what comes after its last batch."""
    yield _null_batch(*((20, 1) if quick else (150, 7)))
    for batches, seconds, goal in ((8, 0.02, 1.25),) if quick else ((32, 0.02, 1.25), (120, 0.3, 1.05)):
        yield _beside(batches, seconds, goal, 1 if quick else 3 if batches < 100 else 1)
    yield _end("end of a run: table, figures, page", 10, 0.6, True, 1 if quick else 5)
    yield _end("end of a validation, C=1000", 50 if quick else 1000, 1.0, False, 1 if quick else 3)


def _batches(n: int, C: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {name: torch.randn(N, WIDTH, generator=generator) for name in NAMES}
        | {"label": torch.randint(C, (N,), generator=generator)}
        | {"has": torch.rand(N, len(NAMES), generator=generator) < 0.8, "index": torch.arange(i * N, (i + 1) * N)}
        for i in range(n)
    ]


def _null_batch(batches: int, repeats: int) -> Row:
    """Processor time that the monitor adds to a batch: what so many more of them cost a validation, with and without.

    8 coalitions, presence, and 200 replicates of every slice. Beside it, what ablation and counting cost when each
    batch is answered and counted by itself.
    """
    few, many = (DataLoader(_batches(n, 10), batch_size=None) for n in (batches, 2 * batches))  # type: ignore[arg-type,var-annotated]
    runs = {
        (ours, i): validation(Sleeper(), loader, *[_monitor()] * ours)
        for ours in (True, False)
        for i, loader in enumerate((few, many))
    }
    spent: dict[tuple[bool, int], list[float]] = {key: [] for key in runs}
    for _ in tqdm(range(repeats + 1), desc="null batches", leave=False):
        for key, run in runs.items():
            start = time.process_time()
            run()
            spent[key].append(time.process_time() - start)
    seconds = {key: statistics.median(each[1:]) for key, each in spent.items()}
    added = [(seconds[ours, 1] - seconds[ours, 0]) / batches for ours in (True, False)]
    return _against(f"a batch of a model that does nothing, N={N}, R=200", added[0] - added[1], 0.0013, _alone(batches))


def _monitor() -> ModalityMonitor:
    return ModalityMonitor(
        {name: name for name in NAMES}, num_classes=10, presence="has", bootstrap=200, output_dir=tempfile.mkdtemp()
    )


def _alone(batches: int) -> dict[str, float]:
    ablation = ModalityAblation(
        Sleeper(), {name: name for name in NAMES}, presence="has", encoders={name: f"encoders.{name}" for name in NAMES}
    )
    metric = CoalitionConfusionMatrix(NAMES, num_classes=10, bootstrap=200)
    spent: list[tuple[float, float]] = []
    with torch.inference_mode():
        for batch in _batches(batches + 5, 10):
            start = time.process_time()
            logits = ablation(batch)
            middle = time.process_time()
            metric.update(logits, batch["label"], batch["has"], batch["index"])
            spent.append((middle - start, time.process_time() - middle))
    return {
        name: statistics.median(part)
        for name, part in zip(("ablation alone", "counting alone"), zip(*spent[5:], strict=True), strict=True)
    }


def _against(what: str, seconds: float, goal: float, details: dict[str, float]) -> Row:
    shown = {f"ms, {name}": 1000 * value for name, value in details.items()}
    shown = {"ms": 1000 * seconds} | shown
    return Row(what, f"{1000 * goal:g} ms", seconds / goal, "<= 1x", seconds <= goal, {"ours": seconds}, shown)


def _beside(batches: int, seconds: float, goal: float, repeats: int) -> Row:
    loader: DataLoader = DataLoader(_batches(batches, 10), batch_size=None)  # type: ignore[arg-type]
    runs = {
        "plain": validation(Sleeper(seconds), loader),
        "ours": validation(Sleeper(seconds), loader, _monitor()),
    }
    what = f"validation of {batches} batches of {1000 * seconds:g} ms"
    spent = interleaved(runs, repeats, what)
    ratio = spent["ours"] / spent["plain"]
    return Row(what, "the same without the monitor", ratio, f"<= {goal:.2f}x", ratio <= goal, spent)


def _end(what: str, C: int, goal: float, report: bool, repeats: int) -> Row:
    """Seconds from the last batch to the end of `trainer.validate`, the first run's imports left out."""
    loader: DataLoader = DataLoader(_batches(10, C), batch_size=None)  # type: ignore[arg-type]
    monitor = ModalityMonitor(
        {name: name for name in NAMES},
        num_classes=C,
        presence="has",
        bootstrap=200,
        report=report,
        output_dir=tempfile.mkdtemp(),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[monitor],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    spent: list[float] = []
    last = [0.0]
    counted: Callable[..., None] = monitor.on_validation_batch_end

    def counting(*arguments: object) -> None:
        counted(*arguments)
        last[0] = time.process_time()

    monitor.on_validation_batch_end = counting  # type: ignore[method-assign,assignment]
    for _ in range(repeats + 1):
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            trainer.validate(Sleeper(C=C), loader, verbose=False)
        spent.append(time.process_time() - last[0])
    return _against(what, statistics.median(spent[1:]), goal, {})
