"""One int64 buffer and the names of its parts: `Layout`, planned under a bound on its size by `plan`.

Everything in the buffer is additive, so shards, ranks and days add up as one tensor. Samples are kept by group: by
their pattern of present modalities (``2**M`` groups, added up to slices on reading), or, where those would be too many,
by slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mm_metrics.counts.labels import Reader
from mm_metrics.modalities import Modalities
from mm_metrics.scores import ClassSums, class_sums

MAX_BYTES = 256 * 2**20
REFUSED = ("predictions that are NaN, infinite or out of range", "targets out of range", "presence other than 0 and 1")
_PATTERNS_UP_TO = 4  # modalities: 16 patterns of presence
_HIT_PATTERNS_UP_TO = 9  # coalitions: 512 patterns of right and wrong; three modalities, and nothing hidden


@dataclass(frozen=True)
class Layout:
    """What one int64 buffer holds and where.

    >>> layout = Layout(Modalities(("text", "audio")), C=3)
    >>> layout.fields["confusion"]  # offset, then (K, groups, L, C, C)
    (0, (1, 4, 1, 3, 3))
    >>> layout.confusion(torch.zeros(layout.size, dtype=torch.int64)).shape  # (K, S, L, C, C)
    torch.Size([1, 3, 1, 3, 3])
    """

    modalities: Modalities
    C: int
    L: int = 1
    masks: tuple[int, ...] | None = None  # of the K coalitions; None: all shown, K = 1
    R: int = 0
    patterns: bool = True  # groups are patterns of presence, else slices
    replicate_slices: bool = True  # replicates are kept for every slice, else for "all"
    full: bool = True  # a (C, C) matrix for every coalition, else for the last, and per-class sums for all

    def __post_init__(self) -> None:
        """Fill in the one coalition of all where none are named."""
        if self.masks is None:
            object.__setattr__(self, "masks", (self.modalities.full,))

    @property
    def K(self) -> int:
        """Coalitions."""
        assert self.masks is not None
        return len(self.masks)

    @property
    def S(self) -> int:
        """Slices: 1 + M."""
        return 1 + len(self.modalities)

    @property
    def G(self) -> int:
        """Groups that samples are counted in."""
        return 2 ** len(self.modalities) if self.patterns else self.S

    @cached_property
    def fields(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Name to offset and shape, in the order of the buffer; the spare cell comes last."""
        K, G, L, C, R = self.K, self.G, self.L, self.C, self.R
        shapes: dict[str, tuple[int, ...]] = {"confusion": (K if self.full else 1, G, L, C, C)}
        if not self.full:
            shapes["sums"] = (K, G, L, 3, C)
        shapes["hits"] = (G, 2**K) if self.hit_patterns else (self.S, K, K)
        if R:
            shapes["replicates"] = (K, L, 3, C, self.S if self.replicate_slices else 1, R)
        shapes |= {"refused": (len(REFUSED),), "samples": (1,), "spare": (1,)}
        fields, offset = {}, 0
        for name, shape in shapes.items():
            fields[name] = (offset, shape)
            offset += math.prod(shape)
        return fields

    @property
    def hit_patterns(self) -> bool:
        """Whether hits are kept as a histogram of patterns, one bit a coalition, or as a (K, K) matrix."""
        return self.K <= _HIT_PATTERNS_UP_TO

    @property
    def size(self) -> int:
        """Cells of the buffer."""
        return self.fields["spare"][0] + 1

    def view(self, counts: Tensor, name: str) -> Tensor:
        """The part of the buffer `name`, in its shape; changes to it are changes to the buffer."""
        offset, shape = self.fields[name]
        return counts[offset : offset + math.prod(shape)].view(shape)

    def confusion(self, counts: Tensor) -> Tensor:
        """``(K, S, L, C, C)``, targets by predictions; of the last coalition alone where not `full`."""
        return self.by_slice(self.view(counts, "confusion"))

    def class_sums(self, counts: Tensor) -> ClassSums:
        """Hits, predictions and actual samples, each ``(K, S, L, C)``."""
        if self.full:
            return class_sums(self.confusion(counts))
        return ClassSums(*self.by_slice(self.view(counts, "sums")).unbind(3))

    def replicate_sums(self, counts: Tensor) -> ClassSums:
        """The same of every bootstrap replicate, each ``(R, K, S, L, C)``; S is 1 where only "all" is kept."""
        return ClassSums(*self.view(counts, "replicates").permute(5, 0, 4, 1, 2, 3).unbind(4))

    def hits(self, counts: Tensor) -> Tensor:
        """``(S, 2**K)`` samples by which coalitions get them right, or ``(S, K, K)``: right by i and wrong by j.

        Only samples that every coalition answered; the diagonal of the latter is the number of each one's hits.
        """
        if not self.hit_patterns:
            return self.view(counts, "hits")
        return self.by_slice(self.view(counts, "hits").unsqueeze(0))[0]

    def by_slice(self, counts: Tensor) -> Tensor:
        """``(K, G, ...)`` to ``(K, S, ...)``, always a copy."""
        if not self.patterns:
            return counts.clone()
        M = len(self.modalities)
        parts = [counts.sum(1)]
        for m in range(M):
            halves = counts.unflatten(1, (2 ** (M - 1 - m), 2, 2**m))
            parts.append(halves[:, :, 1].sum((1, 2)))
        return torch.stack(parts, dim=1)


def plan(
    modalities: Modalities, reader: Reader, masks: Sequence[int] | None, R: int, max_bytes: int = MAX_BYTES
) -> tuple[Layout, list[str]]:
    """The richest layout under `max_bytes`, and in a sentence each what it leaves out.

    First replicates keep the slice "all" only, then they are fewer, then full matrices are kept for the last coalition
    only, then there are no replicates. Raises ValueError where even that does not fit.

    >>> plan(Modalities(("text", "audio")), Reader(num_classes=2), None, 0)[1]
    []
    """
    layout = Layout(modalities, reader.C, reader.L, None if masks is None else tuple(masks), R, patterns=False)
    said = []
    if 8 * layout.size > max_bytes and R:
        layout = replace(layout, replicate_slices=False)
        said.append("intervals are kept for the whole only, not for each modality's slice")
    layout = _fewer_replicates(layout, max_bytes)
    if 8 * layout.size > max_bytes and layout.K > 1:
        layout = _fewer_replicates(replace(layout, full=False), max_bytes)
        said.append("per-class sums are kept instead of full matrices for all coalitions but the last")
    if 8 * layout.size > max_bytes:
        layout = replace(layout, R=0)
    if layout.R < R:
        said.insert(1, f"{layout.R} bootstrap replicates are kept instead of {R}")
    if 8 * layout.size > max_bytes:
        raise ValueError(
            f"max_bytes={max_bytes} is too little: {layout.C} classes, {layout.K} coalitions and {layout.R} replicates "
            f"take {8 * layout.size} bytes; give more, or fewer of them"
        )
    finer = replace(layout, patterns=True)
    if len(modalities) <= _PATTERNS_UP_TO and 8 * finer.size <= max_bytes // 4:
        layout = finer
    return layout, said


def _fewer_replicates(layout: Layout, max_bytes: int) -> Layout:
    """As many replicates as fit; all of them where fewer than 50 would, which give no interval worth the name."""
    if 8 * layout.size <= max_bytes or not layout.R:
        return layout
    without = replace(layout, R=0).size
    fit = (max_bytes // 8 - without) * layout.R // (layout.size - without)
    return replace(layout, R=fit) if fit >= 50 else layout
