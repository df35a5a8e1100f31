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


class Rows(Dataset):
    """Random inputs of M modalities and a label."""

    def __init__(self, n: int, M: int, C: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(n, M, width, generator=generator)
        self.label = torch.randint(C, (n,), generator=generator)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {**{f"m{m}": self.inputs[i, m] for m in range(self.inputs.shape[1])}, "label": self.label[i]}


class Model(LightningModule):
    """Deep encoders and a thin fusion; or, not `split`, one deep network over all inputs."""

    def __init__(self, M: int = 3, C: int = 10, width: int = 512, depth: int = 8, split: bool = True) -> None:
        super().__init__()
        self.M, self.split = M, split
        wide = width if split else M * width
        layers = [nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(wide, wide), nn.ReLU())))]
        self.encoders = (
            nn.ModuleList(
                nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())))
                for _ in range(M)
            )
            if split
            else nn.ModuleList(layers)
        )
        self.head = nn.Linear(M * width, C)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = [batch[f"m{m}"] for m in range(self.M)]
        if self.split:
            features = torch.cat([encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)], -1)
        else:
            features = self.encoders[0](torch.cat(inputs, -1))
        return self.head(features)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch), batch["label"]))


def measure(quick: bool = False) -> Iterator[Row]:
    """Encoders that dominate; a model that can't be split; more modalities; more classes."""
    repeats = 3 if quick else 9
    yield _against_plain("validation with 2^3 ablations, R=200", 1.10, repeats, Model(), peers=not quick)
    yield _against_plain("the same, a model that can't be split", 8.2, repeats, Model(split=False, width=192))
    if quick:
        return
    for M in (1, 2, 4, 6, 8):
        yield _against_plain(f"the same, M={M}", None, 3, Model(M=M))
    for C in (2, 100, 1000):
        yield _against_plain(f"the same, C={C}", None, 3, Model(C=C))


def _against_plain(what: str, goal: float | None, repeats: int, model: Model, peers: bool = False) -> Row:
    C, width, M = model.head.out_features, model.head.in_features // model.M, model.M
    loader = DataLoader(Rows(8 * 256, M, C, width), batch_size=256)
    names = {f"m{m}": f"m{m}" for m in range(M)}
    monitor = ModalityMonitor(names, num_classes=C, bootstrap=200, output_dir=tempfile.mkdtemp())
    runs: dict[str, Callable[[], object]] = {
        "plain": _validation(model, loader), "ours": _validation(model, loader, monitor),
    }  # fmt: skip
    if peers:
        runs |= _peers(model, loader, M)
    seconds = interleaved(runs, repeats, what)
    ratio = seconds["ours"] / seconds["plain"]
    others = {name: seconds[name] / seconds["plain"] for name in runs if name not in ("plain", "ours")}
    return Row(
        what, "the same without the monitor", ratio, f"<= {goal}x" if goal else "shown", goal is None or ratio <= goal,
        seconds, {f"{name}, times plain validation": value for name, value in others.items()},
    )  # fmt: skip


def _validation(model: Model, loader: DataLoader, *callbacks: ModalityMonitor) -> Callable[[], object]:
    trainer = Trainer(
        accelerator=device().type, devices=1, logger=False, callbacks=list(callbacks), enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    for callback in callbacks:  # what is measured is the counting; the page and the table are drawn once a run
        callback.on_validation_end = lambda trainer, pl_module: None  # type: ignore[method-assign]

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.validate(model, loader, verbose=False)

    return run


def _peers(model: Model, loader: DataLoader, M: int) -> dict[str, Callable[[], object]]:
    """The same batches through 2^M whole forwards, and through captum with one feature a modality."""
    where = device()

    def forward(*inputs: Tensor) -> Tensor:
        return model.to(where)({f"m{m}": x for m, x in enumerate(inputs)})

    def over(attribute: Callable[[tuple[Tensor, ...], Tensor], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                for batch in loader:
                    attribute(tuple(batch[f"m{m}"].to(where) for m in range(M)), batch["label"].to(where))

        return run

    masks = tuple(torch.full((1, 1), m, device=where) for m in range(M))
    naive = over(lambda x, _: [forward(*(v * (k >> m & 1) for m, v in enumerate(x))) for k in range(2**M)])
    ablation, shapley = FeatureAblation(forward), ShapleyValues(forward)
    version = captum.__version__
    return {
        "2^M whole forwards": naive,
        f"captum {version} FeatureAblation": over(lambda x, y: ablation.attribute(x, target=y, feature_mask=masks)),
        f"captum {version} ShapleyValues": over(lambda x, y: shapley.attribute(x, target=y, feature_mask=masks)),
    }
