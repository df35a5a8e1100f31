"""Small models and data for the tests of the callbacks: three modalities of eight numbers each."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MODALITIES = {"text": "text", "image": "image", "audio": "audio"}


class Rows(Dataset):
    """N samples: a class that text tells clearly and audio faintly; `missing` of each modality is absent."""

    def __init__(self, n: int = 70, num_classes: int = 3, missing: float = 0.0, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.label = torch.randint(num_classes, (n,), generator=generator)
        signal = nn.functional.one_hot(self.label, 8).float()
        self.inputs = {
            name: weight * signal + torch.randn(n, 8, generator=generator)
            for name, weight in (("text", 2.0), ("image", 0.0), ("audio", 1.0))
        }
        self.presence = torch.rand(n, 3, generator=generator) >= missing

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row = {name: value[i] for name, value in self.inputs.items()}
        return {**row, "label": self.label[i], "presence": self.presence[i], "number": torch.tensor(i)}


class Concat(LightningModule):
    """Three encoders, concatenated; dropout and BatchNorm so that modes and buffers matter."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for name in MODALITIES})
        self.head = nn.Sequential(nn.BatchNorm1d(24), nn.Dropout(0.2), nn.Linear(24, num_classes))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.head(torch.cat([self.encoders[name](batch[name]) for name in MODALITIES], dim=-1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch), batch["label"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch), batch["label"]), on_epoch=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("test_loss", nn.functional.cross_entropy(self(batch), batch["label"]), on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def loader(data: Dataset | None = None, batch_size: int = 16, **keywords) -> DataLoader:
    """A loader over the rows."""
    return DataLoader(Rows() if data is None else data, batch_size=batch_size, **keywords)


def trainer(tmp_path, *callbacks, **keywords) -> Trainer:
    """A quiet trainer on the CPU."""
    arguments = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": tmp_path,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(callbacks=list(callbacks), **{**arguments, **keywords})


def seeded(model: type[LightningModule] = Concat, **keywords) -> LightningModule:
    """The same weights every time."""
    seed_everything(0, verbose=False)
    return model(**keywords)


def without_dropout() -> LightningModule:
    """A model whose training draws nothing: Lightning's checkpoints hold no random streams to resume."""
    model = seeded()
    model.head[1].p = 0.0
    return model
