"""A whole `trainer.validate` with the monitor, against the same without, the naive way and captum's."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator

import captum
import torch
from captum.attr import FeatureAblation, ShapleyValues
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mm_metrics.callbacks import ModalityMonitor
from scripts.benchmarks.timing import Row, device, interleaved

N, T, WIDTH, DEPTH = 128, 8, 512, 24


class Rows(Dataset):
    """Random sequences of M modalities and a label."""

    def __init__(self, n: int, M: int, C: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(n, M, T, WIDTH, generator=generator)
        self.label = torch.randint(C, (n,), generator=generator)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {**{f"m{m}": self.inputs[i, m] for m in range(self.inputs.shape[1])}, "label": self.label[i]}


class Model(LightningModule):
    """An encoder of each modality's T steps, and a linear fusion of what they pool; not `split`, one for all steps."""

    def __init__(self, M: int = 3, C: int = 10, split: bool = True) -> None:
        super().__init__()
        self.M, self.C, self.split = M, C, split
        self.encoders = nn.ModuleList(
            nn.Sequential(*(layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))
            for _ in range(M if split else 1)
        )
        self.head = nn.Linear((M if split else 1) * WIDTH, C)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = [batch[f"m{m}"] for m in range(self.M)]  # (N, T, WIDTH) each
        inputs = inputs if self.split else [torch.cat(inputs, 1)]
        pooled = [encoder(x).mean(1) for encoder, x in zip(self.encoders, inputs, strict=True)]
        return self.head(torch.cat(pooled, -1))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch), batch["label"]))


def measure(quick: bool = False) -> Iterator[Row]:
    """Encoders that dominate, a model that can't be split, captum; then more modalities and more classes."""
    batches, repeats = (8, 2) if quick else (40, 3)
    yield _against_plain("validation with 2^3 ablations, R=200", 1.10, 3 * batches, repeats, Model())
    yield _against_plain("the same, a model that can't be split", 8.2, batches // 2, repeats, Model(split=False))
    if quick:
        return
    yield _peers(Model(), 2, 3)
    for M in (1, 2, 4, 6, 8):
        yield _against_plain(f"20 batches, M={M}", None, 20, 2, Model(M=M))
    for C in (2, 100, 1000):
        yield _against_plain(f"20 batches, C={C}", None, 20, 2, Model(C=C))


def _against_plain(what: str, goal: float | None, batches: int, repeats: int, model: Model) -> Row:
    loader = DataLoader(Rows(batches * N, model.M, model.C), batch_size=N)
    names = {f"m{m}": f"m{m}" for m in range(model.M)}
    monitor = ModalityMonitor(names, num_classes=model.C, bootstrap=200, output_dir=tempfile.mkdtemp())
    seconds = interleaved(
        {"plain": validation(model, loader), "ours": validation(model, loader, monitor)}, repeats, what
    )
    ratio = seconds["ours"] / seconds["plain"]
    return Row(
        what,
        "the same without the monitor",
        ratio,
        f"<= {goal:.2f}x" if goal else "shown",
        goal is None or ratio <= goal,
        seconds,
        {"coalitions": len(monitor.watched.masks)},
    )


def validation(model: LightningModule, loader: DataLoader, *callbacks: ModalityMonitor) -> Callable[[], object]:
    """A whole `trainer.validate`, without what is drawn at its end."""
    trainer = Trainer(
        accelerator=device().type,
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    for callback in callbacks:  # what is measured is the counting; the page and the table are drawn once a run
        callback.on_validation_end = lambda trainer, pl_module: None  # type: ignore[method-assign]

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.validate(model, loader, verbose=False)

    return run


def _peers(model: Model, batches: int, repeats: int) -> Row:
    """The same batches through 2^M whole forwards, and through captum with one feature a modality; no counting."""
    loader, where, M = DataLoader(Rows(batches * N, model.M, model.C), batch_size=N), device(), model.M
    model.to(where)

    def forward(*inputs: Tensor) -> Tensor:
        return model({f"m{m}": x for m, x in enumerate(inputs)})

    def over(attribute: Callable[[tuple[Tensor, ...], Tensor], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                for batch in loader:
                    attribute(tuple(batch[f"m{m}"].to(where) for m in range(M)), batch["label"].to(where))

        return run

    masks = tuple(torch.full((1, 1, 1), m, device=where) for m in range(M))
    naive = over(lambda x, _: [forward(*(v * (k >> m & 1) for m, v in enumerate(x))) for k in range(2**M)])
    ablation, shapley = FeatureAblation(forward), ShapleyValues(forward)
    runs = {
        "plain": over(lambda x, _: forward(*x)),
        "2^M whole forwards": naive,
        "FeatureAblation": over(lambda x, y: ablation.attribute(x, target=y, feature_mask=masks)),
        "ShapleyValues": over(lambda x, y: shapley.attribute(x, target=y, feature_mask=masks)),
    }
    seconds = interleaved(runs, repeats, "captum")
    times = {f"{name}, times plain": seconds[name] / seconds["plain"] for name in runs if name != "plain"}
    return Row(
        "2^3 whole forwards",
        "one forward a batch",
        times["2^M whole forwards, times plain"],
        "shown",
        True,
        seconds,
        {f"captum {captum.__version__} {name}": value for name, value in list(times.items())[1:]},
    )
