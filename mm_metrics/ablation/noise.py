"""Corrupt one modality of a batch, for curves of a score against the strength of the corruption."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.batch import flatten, rebuilt
from mm_metrics.ablation.inputs import Inputs


def corrupt(batch: Any, inputs: Inputs, modality: str, strength: float, seed: int = 0) -> Any:
    """A copy of the batch in which one modality is corrupted; no random stream is moved.

    Floats get normal noise of ``strength`` times the input's own standard deviation over the batch; of integers the
    share ``min(strength, 1)`` is replaced by values drawn from the input itself; masks stay. Equal for equal seeds,
    on every device. Raises ValueError for a modality that is not known or a strength below 0.

    >>> import torch
    >>> batch = {"pixels": torch.tensor([[0.0, 2.0]]), "label": torch.tensor([1])}
    >>> corrupt(batch, Inputs({"image": "pixels"}), "image", 0.5, seed=1)["pixels"]
    tensor([[0.3307, 2.1335]])
    """
    if modality not in inputs.keys:
        raise ValueError(f"modality {modality!r} is not one of {tuple(inputs.keys)}")
    if not strength >= 0:
        raise ValueError(f"strength={strength}: 0 leaves the input as it is, 1 is noise as large as the input varies")
    found = flatten(batch)
    paths = inputs.find(batch, found).paths[modality]
    random = torch.Generator().manual_seed(seed)
    new = {}
    for path, key in paths.items():
        x = found[path]
        if not isinstance(x, Tensor):
            raise TypeError(f"modality {modality!r} is a list of str, and noise is for numbers")
        if x.dtype == torch.bool or str(key).endswith("mask") or str(path[-1]).endswith("mask"):
            continue
        here = x.detach()
        if x.is_floating_point():
            noise = torch.randn(x.shape, generator=random).to(x.device, x.dtype)
            new[path] = here + strength * here.std(correction=0) * noise
        else:
            hit = torch.rand(x.shape, generator=random) < strength
            other = torch.randint(x.numel(), x.shape, generator=random)
            new[path] = torch.where(hit.to(x.device), here.reshape(-1)[other.to(x.device)], here)
    return rebuilt(batch, lambda path, leaf: new.get(path, leaf))
