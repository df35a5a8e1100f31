"""A batch ready to be scattered: its labels and measures, where each sample counts, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.counts.layout import Layout
from mm_metrics.counts.measure import Measures


class Cells(NamedTuple):
    """``(W, N)`` the cell of each sample, once a pattern or once a slice, and where it belongs to none."""

    cell: Tensor
    absent: Tensor | None


@dataclass
class Batch:
    """Labels and where they count; masks are None where they hold nothing."""

    predicted: Tensor  # (K, N, L)
    target: Tensor  # (N, L)
    present: Tensor | None  # (N, M)
    ignored: Tensor | None  # (N, L)
    refused: Tensor | None  # (N,)
    skipped: Tensor | None  # (K, N), not answered
    columns: Tensor | None = None  # (N,) combination of the columns' values
    numbers: Tensor | None = None  # (N,) of the samples or groups, that weights follow from
    group: Tensor | None = None  # (N,)
    index: Tensor | None = None  # (N,) of the samples
    measures: Measures | None = None

    def part(self, samples: slice) -> Batch:
        """The same of some of the samples."""
        measures = self.measures
        if measures is not None:
            cut = {
                name: value if value is None else value[samples] if name == "actual" else value[:, samples]
                for name, value in measures._asdict().items()
            }
            measures = Measures(**cut)
        first = {
            name: value[samples]
            for name in ("target", "present", "ignored", "refused", "columns", "numbers", "group", "index")
            if (value := getattr(self, name)) is not None
        }
        skipped = None if self.skipped is None else self.skipped[:, samples]
        return replace(self, predicted=self.predicted[:, samples], skipped=skipped, measures=measures, **first)

    @property
    def out(self) -> Tensor | None:
        """``(N, L)`` not to be counted for any coalition."""
        return any_of(self.ignored, None if self.refused is None else self.refused.unsqueeze(-1))

    def dropped(self, H: int) -> Tensor | None:
        """``(K or 1, N, H or 1)`` not to be counted, of H numbers a sample: by label where there are as many."""
        out = self.out
        if out is not None and out.shape[-1] not in (1, H):
            out = out.all(-1, keepdim=True)
        return any_of(
            None if out is None else out.unsqueeze(0), None if self.skipped is None else self.skipped.unsqueeze(-1)
        )

    def cells(self, layout: Layout) -> Cells:
        """Where each sample counts."""
        N, present = self.predicted.shape[1], self.present
        device = self.predicted.device
        absent = None
        if layout.patterns:
            M = len(layout.modalities)
            if present is None:
                cell = torch.full((1, N), 2**M - 1, device=device)
            else:
                cell = (present * powers_of_two(M, device)).sum(1).unsqueeze(0)
        else:
            cell = torch.arange(layout.base, device=device).unsqueeze(1).expand(-1, N)
            if present is not None:
                absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1).T
        if layout.by:
            assert self.columns is not None
            cell = cell * layout.V + self.columns
        return Cells(cell, absent)

    def coalitions(self, layout: Layout, rows: Sequence[int] | None) -> Tensor:
        """``(K,)`` int64: the coalitions that the predictions hold, made without a copy from the host."""
        device = self.predicted.device
        if rows is None or list(rows) == list(range(layout.K)):
            return torch.arange(layout.K, device=device)
        return torch.stack([torch.full((), k, device=device) for k in rows])


def powers_of_two(n: int, device: torch.device) -> Tensor:
    """1, 2, 4, …: what the bits of a pattern are worth."""
    return torch.pow(2, torch.arange(n, device=device))


def any_of(*masks: Tensor | None) -> Tensor | None:
    """The masks or-ed, None where there is none."""
    result = None
    for mask in masks:
        result = mask if result is None else result if mask is None else result | mask
    return result
