"""Late fusion: a model that answers once per modality needs no ablation, its heads are coalitions of one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mm_metrics.modalities import Modalities


def as_heads(output: object, modalities: Modalities) -> dict[int, Tensor] | None:
    """``{mask: logits}`` where a prediction is a mapping of coalitions' names, else None.

    Raises ValueError where heads differ in shape, or where one beside ``"all"`` has no modality's name.
    """
    if not isinstance(output, Mapping) or not output:
        return None
    heads: dict[int, Tensor] = {}
    whole = output.get("all")
    for name, value in output.items():
        try:
            mask = modalities.mask(name)
        except (ValueError, TypeError):
            if isinstance(whole, Tensor) and isinstance(value, Tensor) and value.shape == whole.shape:
                raise  # a head with a misspelt name
            return None  # some other mapping, as a ModelOutput is
        if not isinstance(value, Tensor):
            return None
        heads[mask] = value
    if len({head.shape for head in heads.values()}) > 1:
        shapes = {name: tuple(value.shape) for name, value in output.items()}
        raise ValueError(f"predict gave heads of different shape, {shapes}: each is (N, C), a row a sample")
    return dict(sorted(heads.items()))


def heard(masks: tuple[int, ...], full: int, presence: Tensor | None) -> Tensor | None:
    """``(K, N)`` bool: a head counts only the samples that have its modality, the whole counts all; None is all."""
    if presence is None:
        return None
    has = presence != 0  # (N, M)
    rows = []
    for mask in masks:
        row = torch.ones_like(has[:, 0])
        for m in range(has.shape[1]):
            if mask != full and mask >> m & 1:
                row = row & has[:, m]
        rows.append(row)
    return torch.stack(rows)
