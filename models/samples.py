"""Splits that lie in memory: a data set is a mapping of tensors, a data module makes one a split."""

from __future__ import annotations

from abc import abstractmethod

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SPLITS = ("train", "val", "test")


class Samples(Dataset):
    """Tensors of equal length N; sample i is the mapping of their i-th rows, with its number as ``index``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = {**tensors, "index": torch.arange(len(tensors["label"]))}

    def __len__(self) -> int:
        return len(self.tensors["label"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {key: tensor[i] for key, tensor in self.tensors.items()}


class SamplesModule(LightningDataModule):
    """Loaders over three `Samples`; what a split holds is up to ``make(split)``."""

    def __init__(self, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.splits: dict[str, Samples] = {}

    @abstractmethod
    def make(self, split: str) -> dict[str, Tensor]:
        """The split's tensors: tokens, mask, pixels, waveform, presence, label, and what else there is to say."""

    def setup(self, stage: str | None = None) -> None:
        """Make every split once."""
        if not self.splits:
            self.splits = {split: Samples(self.make(split)) for split in SPLITS}

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._loader("test")

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            self.splits[split],
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def hide_absent(sample: dict[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
    """Zeros and padding where ``presence (N, 3)`` says that a sample lacks its text, image or audio."""
    text, image, audio = presence.unbind(1)  # (N,) each
    return {
        **sample,
        "tokens": sample["tokens"] * text[:, None],
        "mask": sample["mask"] & text[:, None],
        "pixels": sample["pixels"] * image[:, None, None, None],
        "waveform": sample["waveform"] * audio[:, None],
        "presence": presence,
    }
