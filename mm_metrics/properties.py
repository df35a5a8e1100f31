"""What inputs tell by themselves, to cut slices by: pure functions of an entry ``(N, ...)`` to ``(N,)`` values.

All run on the entry's device, and none waits for it. A value that an entry does not have is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LEVELS = ("low", "middle", "high")
_QUIET = 1e-12  # the power that stands for silence, −120 dB
_FRAMES = 64


def length(entry: Any) -> Tensor:
    """Characters of each of N texts; of token ids ``(N, T)``, or of a mask, those that are not 0.

    >>> length(["three", ""]), length(torch.tensor([[7, 8, 0]]))
    (tensor([5., 0.]), tensor([2.]))
    """
    if not isinstance(entry, Tensor):
        return torch.tensor([float(len(text)) for text in entry])
    return (entry != 0).flatten(1).sum(1).float()


def brightness(images: Tensor) -> Tensor:
    """The mean over pixels and channels, in the units of the images ``(N, ...)``.

    >>> brightness(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([127.5000])
    """
    return images.float().flatten(1).mean(1)


def sharpness(images: Tensor) -> Tensor:
    """The variance of the Laplacian of ``(N, C, H, W)``, ``(N, H, W, C)`` or ``(N, H, W)`` (Pech-Pacheco et al. 2000).

    >>> sharpness(torch.eye(4).reshape(1, 1, 4, 4)) > sharpness(torch.ones(1, 1, 4, 4))
    tensor([True])
    """
    images = images.float()
    channels_last = images.ndim > 3 and images.shape[-1] <= 4 < images.shape[-3]
    grey = images if images.ndim == 3 else images.mean(-1 if channels_last else -3)
    if min(grey.shape[-2:]) < 3:
        return torch.full((len(grey),), torch.nan, device=grey.device)
    rows, columns = grey[..., 1:-1], grey[..., 1:-1, :]
    curve = rows[..., 2:, :] + rows[..., :-2, :] + columns[..., 2:] + columns[..., :-2] - 4 * rows[..., 1:-1, :]
    return curve.flatten(1).var(1, unbiased=False)


def duration(waveforms: Tensor) -> Tensor:
    """Samples up to the last that is not 0, of ``(N, T)`` or ``(N, channels, T)``: zeros at the end are padding.

    >>> duration(torch.tensor([[0.0, 0.5, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([3., 0.])
    """
    heard = (waveforms.reshape(len(waveforms), -1, waveforms.shape[-1]) != 0).any(1)
    return (heard * torch.arange(1, heard.shape[1] + 1, device=heard.device)).amax(1).float()


def loudness(waveforms: Tensor) -> Tensor:
    """The mean power up to the padding, in dB of full scale; integers are scaled by their largest.

    >>> loudness(torch.tensor([[0.1, -0.1, 0.0], [0.0, 0.0, 0.0]]))
    tensor([ -20., -120.])
    """
    return _decibel(_power(waveforms).sum(1) / duration(waveforms).clamp(min=1))


def snr(waveforms: Tensor) -> Tensor:
    """How far the loudest twentieth of 64 frames lies above the quietest, in dB: an estimate of signal to noise.

    >>> snr(torch.cat([torch.full((1, 320), 0.01), torch.full((1, 320), 1.0)], dim=1)).round()
    tensor([40.])
    """
    size = max(1, waveforms.shape[-1] // _FRAMES)
    power = _power(waveforms)
    frames = power[:, : power.shape[1] // size * size].unflatten(1, (-1, size)).mean(2)  # (N, frames)
    whole = (duration(waveforms) / size).floor().clamp(1, frames.shape[1]).unsqueeze(1)
    place = torch.arange(frames.shape[1], device=frames.device)
    frames = torch.where(place < whole, frames, torch.inf).sort(1).values
    quiet, loud = (frames.gather(1, (q * (whole - 1)).round().long()).squeeze(1) for q in (0.05, 0.95))
    return _decibel(loud) - _decibel(quiet)


def cut_points(values: Tensor) -> tuple[float, ...]:
    """Where thirds of the values ``(N,)`` end, whatever their order; NaN is left out.

    >>> cut_points(torch.tensor([3.0, 1.0, 2.0, torch.nan, 6.0, 5.0, 4.0]))
    (2.0, 4.0)
    """
    ranked = values[~values.isnan()].double().sort().values.tolist()
    return tuple(ranked[math.ceil(len(ranked) * part / len(LEVELS)) - 1] for part in (1, 2)) if ranked else ()


def levels(values: Tensor, cuts: Sequence[float]) -> Tensor:
    """The number of each value's third, int64; what is NaN, and all without cut points, is one more than there are.

    >>> levels(torch.tensor([1.0, 2.5, 9.0, torch.nan]), (2.0, 4.0))
    tensor([0, 1, 2, 3])
    """
    code = sum(((values > cut).long() for cut in cuts), torch.zeros_like(values, dtype=torch.int64))
    return torch.where(values.isnan() if cuts else torch.ones_like(code, dtype=torch.bool), len(LEVELS), code)


def _power(waveforms: Tensor) -> Tensor:
    """``(N, T)`` mean squares over channels."""
    scale = 1.0 if waveforms.dtype.is_floating_point else float(torch.iinfo(waveforms.dtype).max)
    return (waveforms.float() / scale).square().reshape(len(waveforms), -1, waveforms.shape[-1]).mean(1)


def _decibel(power: Tensor) -> Tensor:
    return 10 * power.clamp(min=_QUIET).log10()


def _is_text(entry: Any) -> bool:
    if isinstance(entry, Tensor):
        return entry.dtype in (torch.int32, torch.int64, torch.bool) and entry.ndim == 2
    return isinstance(entry, Sequence) and len(entry) > 0 and all(isinstance(text, str) for text in entry)


def _is_image(entry: Any) -> bool:
    return isinstance(entry, Tensor) and (entry.ndim == 4 or (entry.ndim == 3 and entry.dtype == torch.uint8))


def _is_audio(entry: Any) -> bool:
    plain = isinstance(entry, Tensor) and (entry.dtype.is_floating_point or entry.dtype == torch.int16)
    return plain and (entry.ndim == 2 or (entry.ndim == 3 and entry.shape[1] <= 8))


PROPERTIES: dict[str, tuple[Callable[[Any], Tensor], Callable[[Any], bool]]] = {
    "length": (length, _is_text),
    "brightness": (brightness, _is_image),
    "sharpness": (sharpness, _is_image),
    "loudness": (loudness, _is_audio),
    "snr": (snr, _is_audio),
    "duration": (duration, _is_audio),
}
