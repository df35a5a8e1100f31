"""Late fusion: a model that answers once per modality needs no ablation, its heads are coalitions of one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mm_metrics.modalities import Modalities


def as_heads(output: object, modalities: Modalities) -> dict[int, Tensor] | None:
    """``{mask: logits}`` where a prediction is a mapping of coalitions' names, else None."""
    if not isinstance(output, Mapping) or not output:
        return None
    try:
        heads = {modalities.mask(name): value for name, value in output.items()}
    except (ValueError, TypeError):
        return None  # some other mapping, as a ModelOutput is
    return dict(sorted(heads.items())) if all(isinstance(value, Tensor) for value in heads.values()) else None


def answered(masks: tuple[int, ...], full: int, presence: Tensor | None) -> Tensor | None:
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
