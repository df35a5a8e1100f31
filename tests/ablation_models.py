"""Small models of every kind that the ablation must take, and the answer by hiding inputs, written out."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

INPUTS = {"text": ("tokens", "mask"), "image": "pixels", "audio": "waveform"}


class Text(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, width)
        layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, dropout=0.2)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.layers(self.embedding(tokens), src_key_padding_mask=~mask)  # (N, T, D)


class Image(nn.Sequential):
    def __init__(self, width: int = 8) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(16, width),
        )


class Audio(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, width, batch_first=True)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.rnn(waveform.unflatten(1, (-1, 4)))[0][:, -1]


class Fused(nn.Module):
    """What the models below share: three encoders and a batch that is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image, self.audio = Text(), Image(), Audio()
        self.head = nn.Linear(24, 5)

    def encode(self, batch: dict[str, Tensor]) -> list[Tensor]:
        text = self.text(batch["tokens"], batch["mask"]).mean(1)
        return [text, self.image(batch["pixels"]), self.audio(batch["waveform"])]


class Concat(Fused):
    def forward(self, batch):
        return self.head(torch.cat(self.encode(batch), -1))


class Keywords(Fused):
    def forward(self, tokens, mask, pixels, waveform=None):
        return {"logits": self.head(torch.cat(self.encode(locals()), -1))}


class Gated(Fused):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(24, 3)

    def forward(self, batch):
        features = torch.stack(self.encode(batch), 1)
        gates = self.gate(features.flatten(1)).softmax(-1).unsqueeze(-1)
        return self.head((features * gates).flatten(1))


class CrossAttention(Fused):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, batch):
        tokens = self.text(batch["tokens"], batch["mask"])
        others = torch.stack((self.image(batch["pixels"]), self.audio(batch["waveform"])), 1)
        seen, _ = self.attention(others, tokens, tokens, key_padding_mask=~batch["mask"])
        return self.head(torch.cat([tokens.mean(1, keepdim=True), self.norm(seen)], 1).flatten(1))


class Late(Fused):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(8, 5) for _ in range(3))

    def forward(self, batch):
        return torch.stack([head(x) for head, x in zip(self.heads, self.encode(batch), strict=True)]).mean(0), "loss"


class Layers(Fused):
    """Encoders whose parts are called one by one, an in-place step between them, pixels scaled on the way."""

    def forward(self, batch):
        x = batch["pixels"].float() / 255 + 1
        for layer in self.image:
            x = layer(x)
            x.mul_(1.5)
        text = self.text.layers(self.text.embedding(batch["tokens"]), src_key_padding_mask=~batch["mask"]).mean(1)
        audio = self.audio.rnn(batch["waveform"].unflatten(1, (-1, 4)))[1][0]
        return self.head(torch.cat([text, x, audio], -1))


class Frames(Fused):
    """The image encoder sees each image twice, as frames in one long batch; the text runs time first."""

    def forward(self, batch):
        frames = torch.stack((batch["pixels"], batch["pixels"].flip(-1)), 1)
        image = self.image(frames.flatten(0, 1)).unflatten(0, (-1, 2)).mean(1)
        text = self.text(batch["tokens"], batch["mask"])
        return self.head(torch.cat([text.mean(1), image, self.audio(batch["waveform"])], -1))


class Joined(nn.Module):
    """No module depends on one modality alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16 + 7, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, batch):
        return self.net(torch.cat([batch["waveform"], batch["tokens"].float()], -1))


class Batch(NamedTuple):
    tokens: Tensor
    mask: Tensor
    pixels: Tensor
    waveform: Tensor
    label: Tensor


def make_batch(N: int = 6, T: int = 7, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, T + 1, (N,), generator=random)
    return {
        "tokens": torch.randint(1, 30, (N, T), generator=random),
        "mask": torch.arange(T) < lengths[:, None],
        "pixels": torch.randn(N, 3, 6, 6, generator=random),
        "waveform": torch.randn(N, 16, generator=random),
        "label": torch.randint(0, 5, (N,), generator=random),
    }


def hidden(batch: dict[str, Tensor], inputs: dict, shown: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with zeros, or an open mask, wherever ``shown[modality]`` ``(N,)`` is False."""
    out = dict(batch)
    for modality, keys in inputs.items():
        for key in (keys,) if isinstance(keys, str) else keys:
            x = batch[key].clone()
            x[~shown[modality]] = 1 if key.endswith("mask") else 0
            out[key] = x
    return out


@torch.no_grad()
def by_hand(run, batch: dict[str, Tensor], inputs: dict, presence: Tensor | None = None) -> Tensor:
    """``(K, N, C)``: `run` on the hidden batch, once a coalition."""
    N = len(batch["label"])
    answers = []
    for bits in itertools.product((False, True), repeat=len(inputs)):
        coalition = dict(zip(inputs, reversed(bits), strict=True))
        there = torch.ones(N, len(inputs), dtype=torch.bool) if presence is None else presence
        shown = {name: there[:, m] & coalition[name] for m, name in enumerate(inputs)}
        answers.append(run(hidden(batch, inputs, shown)))
    return torch.stack(answers)


class Runs:
    """How often the forward of each named module of a model really runs."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        self.counts = dict.fromkeys(names, 0)
        for name in names:
            self._count(model.get_submodule(name), name)

    def _count(self, module: nn.Module, name: str) -> None:
        forward = module.forward

        def counted(*args, **kwargs):
            self.counts[name] += 1
            return forward(*args, **kwargs)

        module.forward = counted

    def take(self) -> dict[str, int]:
        """The counts since the last time."""
        counts, self.counts = self.counts, dict.fromkeys(self.counts, 0)
        return counts
