"""One model for every story: an encoder for each modality, a fusion, a loss."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss
from torch.optim.lr_scheduler import LambdaLR

from models.encoders import AudioEncoder, ImageEncoder, TextEncoder
from models.fusion import Fusion

Batch = dict[str, Tensor]


class FusionModel(LightningModule):
    """Text, image and audio to C logits, or to one number ``(N,)``: of two classes a logit, of one a place on a scale.

    ``forward(batch)`` reads tokens (N, T), mask (N, T), pixels (N, channels, H, W), waveform (N, samples) and
    presence (N, 3) bool, in the order text, image, audio.
    """

    def __init__(
        self,
        num_classes: int = 6,
        vocabulary: int = 64,
        channels: int = 3,
        sample_rate: int = 4000,
        width: int = 64,
        modality_dropout: float = 0.3,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.text = TextEncoder(vocabulary, width)
        self.image = ImageEncoder(channels, width)
        self.audio = AudioEncoder(sample_rate, width)
        outputs = 1 if num_classes == 2 else num_classes
        self.fusion = Fusion(3, width, outputs, modality_dropout)

    def forward(self, batch: Batch) -> Tensor:
        text = self.text(batch["tokens"], batch["mask"])  # (N, D)
        image = self.image(batch["pixels"])  # (N, D)
        audio = self.audio(batch["waveform"])  # (N, D)
        features = torch.stack((text, image, audio), dim=1)  # (N, M, D)
        logits = self.fusion(features, batch["presence"])  # (N, C), or (N, 1) for two classes
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the batch's labels ``(N,)``, of numbers on a scale their mean absolute error; a scalar."""
        logits, label = self(batch), batch["label"]
        if label.is_floating_point():
            return l1_loss(logits, label)
        if logits.ndim == 1:
            return binary_cross_entropy_with_logits(logits, label.to(logits.dtype))
        return cross_entropy(logits, label)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), prog_bar=True, batch_size=len(batch["label"]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch), batch_size=len(batch["label"]))

    def configure_optimizers(self) -> tuple[list, list]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        schedule = LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)  # from 1 down to 0
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]
