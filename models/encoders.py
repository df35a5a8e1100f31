"""One encoder a modality, each from raw input to D features. N samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu


class TextEncoder(nn.Module):
    """Token ids and their mask to features: words, their neighbours, the strongest answer to any of them."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        keep = mask.unsqueeze(-1).to(self.embed.weight.dtype)  # (N, T, 1)
        x = self.embed(tokens) * keep  # (N, T, D)
        x = relu(self.conv(x.transpose(1, 2))).transpose(1, 2)  # (N, T, D), none below what padding gives: 0
        x = (x * keep).amax(1)  # (N, D)
        return self.out(x)  # (N, D)


class ImageEncoder(nn.Module):
    """Pixels to features: two convolutions, then the mean over the picture."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, width, kernel_size=3, stride=2, padding=1)
        self.out = nn.Linear(width, width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = gelu(self.conv1(pixels))  # (N, 16, H/2, W/2)
        x = gelu(self.conv2(x))  # (N, D, H/4, W/4)
        return self.out(x.mean((2, 3)))  # (N, D)


class AudioEncoder(nn.Module):
    """A waveform to features: log-mel spectrogram, two convolutions, then the loudest moment."""

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, width: int, bands: int = 24) -> None:
        super().__init__()
        self.size = 2 ** round(math.log2(sample_rate * 0.032))  # a window of about 32 ms
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)
        self.register_buffer("filters", mel_filters(sample_rate, self.size, bands), persistent=False)
        self.conv1 = nn.Conv1d(bands, width, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.out = nn.Linear(width, width)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.log_mel(waveform)  # (N, B, T)
        x = gelu(self.conv1(x))  # (N, D, T/2)
        x = gelu(self.conv2(x))  # (N, D, T/4)
        return self.out(x.amax(2))  # (N, D)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """``(N, samples)`` to ``(N, B, T)``: the loudness of B mel bands over T windows, about −1 … 1."""
        spectrum = torch.stft(waveform, self.size, hop_length=self.size // 2, window=self.window, return_complex=True)
        power = spectrum.abs().square() / self.window.square().sum()  # (N, F, T)
        return (torch.log10(self.filters @ power + 1e-6) + 3) / 3  # (N, B, T)


def mel_filters(sample_rate: int, size: int, bands: int) -> Tensor:
    """``(B, size // 2 + 1)``: triangles, equally wide in mel = 2595 log10(1 + Hz / 700) (O'Shaughnessy 1987).

    >>> mel_filters(8000, 256, 32).shape
    torch.Size([32, 129])
    """
    mels = torch.linspace(0, 2595 * math.log10(1 + sample_rate / 2 / 700), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)  # (B + 2,) hertz
    low, peak, high = (edges[i : i + bands, None] for i in range(3))  # (B, 1) each
    hertz = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)  # (F,)
    return torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(min=0).float()  # (B, F)
