"""Towers of Hugging Face's transformers, joined late: CLIP's text and vision, and a speech encoder beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel, Wav2Vec2Config

# Towers that train in seconds, with random weights and without a download.
WIDTH: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = CLIPTextConfig(**WIDTH, vocab_size=64, max_position_embeddings=16, bos_token_id=62, eos_token_id=63)
IMAGE = CLIPVisionConfig(**WIDTH, image_size=24, patch_size=8)
SPEECH = Wav2Vec2Config(
    **WIDTH,
    conv_dim=(32, 32),
    conv_kernel=(64, 8),
    conv_stride=(32, 4),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
    mask_time_prob=0.0,
    layerdrop=0.0,
)


class Towers(LightningModule):
    """Text, image and speech to C logits; reads the flat mapping that transformers' processors give.

    ``clip`` and ``speech`` are names of pretrained weights, such as ``"openai/clip-vit-base-patch32"`` and
    ``"facebook/wav2vec2-base"``, or, for speech, a configuration; by default small towers with random weights.
    """

    def __init__(
        self,
        num_classes: int = 6,
        clip: str | None = None,
        speech: str | object = SPEECH,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.text = CLIPTextModel.from_pretrained(clip) if clip else CLIPTextModel(TEXT)
        self.image = CLIPVisionModel.from_pretrained(clip) if clip else CLIPVisionModel(IMAGE)
        self.speech = AutoModel.from_pretrained(speech) if isinstance(speech, str) else AutoModel.from_config(speech)
        if self.speech.config.is_encoder_decoder:  # Whisper
            self.speech = self.speech.get_encoder()
        widths = [tower.config.hidden_size for tower in (self.text, self.image, self.speech)]
        self.head = nn.Linear(sum(widths), num_classes)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"]
        words = self.text(batch["input_ids"], attention_mask=mask).last_hidden_state  # (N, T, D)
        mask = mask.unsqueeze(-1).to(words.dtype)
        text = (words * mask).sum(1) / mask.sum(1).clamp(min=1)  # (N, D)
        image = self.image(batch["pixel_values"]).pooler_output  # (N, D)
        speech = self.speech(batch[self.speech.main_input_name]).last_hidden_state.mean(1)  # (N, D)
        return self.head(torch.cat((text, image, speech), dim=-1))  # (N, C)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        loss = cross_entropy(self(batch), batch["label"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", cross_entropy(self(batch), batch["label"]), batch_size=len(batch["label"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
