"""The samples behind a finding: a few numbers each, in memory that does not grow, the same on any number of ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mm_metrics.counts.labels import Labels

KEPT = 50
_NOBODY = torch.iinfo(torch.int64).max


class SampleTracker:
    """Keeps the lowest `KEPT` sample numbers of each kind of finding, on the device and without a stall.

    Kinds, for S slices and M modalities: missed on a slice; right only with a modality; right only without it. In
    binary tasks a miss is an event that was not seen, else any wrong answer.
    """

    def __init__(self, modalities: tuple[str, ...], binary: bool) -> None:
        self.modalities, self.binary = modalities, binary
        self.kinds = [("missed", "all"), *(("missed", name) for name in modalities)]
        self.kinds += [(kind, name) for kind in ("right_only_with", "right_only_without") for name in modalities]
        self.lowest: Tensor | None = None

    def update(
        self, labels: Labels, own: int, rows: dict[int, int], index: Tensor, slices: Tensor | None, each: int = 1
    ) -> None:
        """Look at one batch.

        Row `own` of ``labels.predicted`` is the model's own prediction, ``rows[mask]`` a coalition's; `index` ``(N,)``
        the samples' numbers; `slices` ``(N, M)`` where they count, None for everywhere. A sample is `each` rows, and is
        right where all of them are.
        """
        full = 2 ** len(self.modalities) - 1
        if each > 1:
            K, N = labels.predicted.shape[:2]
            ignored = None if labels.ignored is None else labels.ignored.reshape(N // each, -1)
            labels = labels._replace(
                predicted=labels.predicted.reshape(K, N // each, -1),
                target=labels.target.reshape(N // each, -1),
                ignored=ignored,
            )
            index, slices = index[::each], None if slices is None else slices[::each]
        keep = labels.ignored if labels.ignored is None else ~labels.ignored
        target = labels.target

        def right(predicted: Tensor) -> Tensor:
            hit = predicted == target
            return (hit if keep is None else hit | ~keep).all(-1)

        wrong = ~right(labels.predicted[own])
        if self.binary:
            wrong = wrong & (target[:, 0] == 1)
        flags = [wrong]
        flags += [wrong if slices is None else wrong & (slices[:, m] != 0) for m in range(len(self.modalities))]
        with_all = right(labels.predicted[rows[full]]) if full in rows else None
        nothing = torch.zeros_like(wrong)
        for with_it in (True, False):
            for m in range(len(self.modalities)):
                without = rows.get(full ^ 1 << m)
                if with_all is None or without is None:
                    flags.append(nothing)
                    continue
                other = right(labels.predicted[without])
                flags.append(with_all & ~other if with_it else other & ~with_all)
        found = torch.where(torch.stack(flags), index, _NOBODY)  # (kinds, N)
        if self.lowest is not None:
            found = torch.cat([self.lowest, found], dim=1)
        self.lowest = found.sort(dim=1).values[:, :KEPT]

    def gathered(self, all_gather: Any, device: torch.device) -> list[dict[str, Any]]:
        """``[{"kind", "modality", "message", "samples"}, …]`` over all ranks; every rank must call it."""
        lowest = torch.full((len(self.kinds), KEPT), _NOBODY, device=device)
        if self.lowest is not None:
            lowest[:, : self.lowest.shape[1]] = self.lowest
        lowest = all_gather(lowest).reshape(-1, *lowest.shape).movedim(0, 1).flatten(1).sort(dim=1).values
        return [
            {
                "kind": kind,
                "modality": modality,
                "message": self._message(kind, modality),
                "samples": [n for n in row.tolist() if n != _NOBODY][:KEPT],
            }
            for (kind, modality), row in zip(self.kinds, lowest.cpu(), strict=True)
        ]

    def _message(self, kind: str, modality: str) -> str:
        if kind == "missed":
            what = "events missed" if self.binary else "wrong answers"
            return what if modality == "all" else f"{what} on the slice {modality}"
        return f"right only {'with' if kind == 'right_only_with' else 'without'} {modality}"
