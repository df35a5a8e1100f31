"""Where the modalities meet: the one place that knows which of them a sample has."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """M feature vectors and their presence to logits; what is absent is replaced by a learned stand-in.

    ``modality_dropout``: the share of training samples that are shown a random subset of their modalities.
    """

    def __init__(self, modalities: int, width: int, outputs: int, modality_dropout: float = 0.0) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout
        self.stand_in = nn.Parameter(torch.zeros(modalities, width))
        self.norm = nn.LayerNorm(width)
        self.views = nn.Linear(modalities * width, 4 * width)
        self.out = nn.Linear(2 * width, outputs)

    def forward(self, features: Tensor, presence: Tensor) -> Tensor:
        if self.training and self.modality_dropout:  # learn to do without: some samples show a random coalition
            coalition = torch.rand(presence.shape, device=presence.device) < 0.5  # (N, M)
            whole = torch.rand(len(presence), 1, device=presence.device) >= self.modality_dropout  # (N, 1)
            presence = presence & (coalition | whole)
        x = torch.where(presence.unsqueeze(-1), self.norm(features), self.stand_in)  # (N, M, D)
        a, b = self.views(x.flatten(1)).chunk(2, dim=-1)  # (N, 2 D) each
        return self.out(a * b)  # (N, C): a product lets evidence meet that tells nothing on its own
