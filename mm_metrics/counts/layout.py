"""One int64 buffer and the names of its parts.

Everything in the buffer is additive, so shards, ranks and days add up as one tensor. Samples are kept by cell: by their
pattern of present modalities (``2**M`` of them, added up to slices on reading), or, where those would be too many, by
slice; times their values of the columns that slices are asked by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mm_metrics.modalities import Modalities
from mm_metrics.moments import LEVELS
from mm_metrics.scores import ClassSums, class_sums

REFUSED = ("predictions that are NaN, infinite or out of range", "targets out of range", "presence other than 0 and 1")
OTHER_VALUE = "other"  # of a column, for what is none of its values
HALF = "_half"  # a column of two values by a hash: what one half proposes the other judges
_HIT_PATTERNS_UP_TO = 9  # coalitions: 512 patterns of right and wrong; three modalities, and nothing hidden

By = tuple[tuple[str, tuple[str, ...]], ...]  # columns and their values, `OTHER_VALUE` last


@dataclass(frozen=True)
class Layout:
    """What one int64 buffer holds and where.

    >>> layout = Layout(Modalities(("text", "audio")), C=3, by=(("language", ("de", "other")),))
    >>> layout.fields["confusion"]  # offset, then (K, cells, L, C, C)
    (0, (1, 8, 1, 3, 3))
    >>> layout.slices
    ('all', 'text', 'audio', 'language/de', 'language/other')
    >>> layout.class_sums(torch.zeros(layout.size, dtype=torch.int64)).hits.shape  # (K, S, L, C)
    torch.Size([1, 5, 1, 3])
    """

    modalities: Modalities
    C: int
    L: int = 1
    masks: tuple[int, ...] | None = None  # of the K coalitions; None: all shown, K = 1
    R: int = 0
    patterns: bool = True  # cells are patterns of presence, else slices
    replicate_slices: bool = True  # replicates are kept for every slice, else for "all"
    full: bool = True  # a (C, C) matrix for every coalition, else per-class sums for all
    last: bool = True  # where not full: a matrix for the last coalition all the same
    by: By = ()
    curves: int = 0  # H, histograms of the score, one for each class or label
    bins: int = 0  # B, of a histogram
    spread_bins: int = 64  # of a replicate's, at most: intervals need fewer bins than values
    levels: int = 0  # H, tables of confidence
    found: bool = False  # samples of which any true label was found, beside those of which all labels are right
    answers: bool = False  # answers of -1, which are no class, have a place
    sums: tuple[str, ...] = ()  # names of F additive numbers a sample and coalition, in fixed point
    group_cells: int = 0  # of the table that counts groups
    ties: bool = False  # histograms know whether all their samples have one score, as those of nothing shown have
    marks: int = 0  # of grouped samples, whose weights tell groups alone: bits of their mixed numbers

    def __post_init__(self) -> None:
        """Fill in the one coalition of all where none are named."""
        if self.masks is None:
            object.__setattr__(self, "masks", (self.modalities.full,))

    @cached_property
    def K(self) -> int:
        """Coalitions."""
        assert self.masks is not None
        return len(self.masks)

    @cached_property
    def slices(self) -> tuple[str, ...]:
        """The S slices in order: all, the modalities, then ``column/value``."""
        told = [(column, values) for column, values in self.by if column != HALF]
        return (*self.modalities.slices, *(f"{column}/{value}" for column, values in told for value in values))

    @property
    def S(self) -> int:
        """Slices."""
        return len(self.slices)

    @property
    def base(self) -> int:
        """Cells before the columns: patterns of presence, or the whole and each modality."""
        return 2 ** len(self.modalities) if self.patterns else 1 + len(self.modalities)

    @property
    def V(self) -> int:
        """Combinations of the columns' values."""
        combinations = 1
        for _, values in self.by:
            combinations *= len(values)
        return combinations

    @property
    def G(self) -> int:
        """Cells that samples are counted in."""
        return self.base * self.V

    @property
    def replicate_cells(self) -> int:
        """How many parts of the data have replicates: the whole, the slices, or with columns the cells."""
        return 1 if not self.replicate_slices else self.G if self.by else self.S

    @property
    def replicate_bins(self) -> int:
        """Bins of the replicates' histograms."""
        return max(1, min(self.bins, self.spread_bins))

    @cached_property
    def fields(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Name to offset and shape, in the order of the buffer; the spare cell comes last."""
        K, G, L, C, R, A = self.K, self.G, self.L, self.C, self.R, self.replicate_cells
        H, B, F, T = self.curves, self.bins, len(self.sums), self.group_cells
        shapes: dict[str, tuple[int, ...]] = {"confusion": (K if self.full else int(self.last), G, L, C, C)}
        if not self.full:
            shapes["sums"] = (K, G, L, 3, C)
        if self.answers:
            shapes["unanswered"] = (K, G, C)
        shapes["hits"] = (G, 2**K) if self.hit_patterns else (1 + len(self.modalities), K, K)
        if self.found and self.hit_patterns:
            shapes["found"] = shapes["hits"]
        if R:
            shapes["replicates"] = (K, L, 3, C, A, R)
        if H:
            shapes["curves"] = (K, G, H, 2, B)
        if H and self.ties:
            shapes["ties"] = (K, G, H, 2)
        if H and R:
            shapes["replicate_curves"] = (K, H, 2, self.replicate_bins, A, R)
        if self.levels:
            shapes["levels"] = (K, G, self.levels, LEVELS, 3)
        if self.levels and R:
            shapes["replicate_levels"] = (K, self.levels, LEVELS, 3, A, R)
        if F:
            shapes["totals"] = (K, G, F)
        if F and R:
            shapes["replicate_totals"] = (K, F, A, R)
        if T:
            shapes |= {"groups": (G, T, 3), "marks": (self.marks,)}
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
        return ClassSums(*(self.by_slice(part) for part in self.cell_sums(counts)))

    def cell_sums(self, counts: Tensor) -> ClassSums:
        """The same by cell, each ``(K, G, L, C)``."""
        if self.full:
            sums = class_sums(self.view(counts, "confusion"))
            if not self.answers:
                return sums
            return sums._replace(actual=sums.actual + self.view(counts, "unanswered").unsqueeze(2))
        return ClassSums(*self.view(counts, "sums").unbind(3))

    def hits(self, counts: Tensor) -> Tensor:
        """``(G, 2**K)`` samples by which coalitions get them right, or ``(1 + M, K, K)``: right by i and wrong by j.

        Only samples that every coalition answered; the diagonal of the latter is the number of each one's hits.
        """
        return self.view(counts, "hits")

    def strange(self, counts: Tensor) -> list[str]:
        """Columns none of whose values any sample has, though samples were counted."""
        of = {column: [f"{column}/{value}" for value in values] for column, values in self.by if column != HALF}
        samples = dict(zip(self.slices, self.class_sums(counts).actual[-1].sum((-1, -2)).tolist(), strict=True))
        return [
            column for column, names in of.items() if not any(samples[n] for n in names[:-1]) and samples[names[-1]]
        ]

    def by_slice(self, counts: Tensor) -> Tensor:
        """``(K, G, ...)`` to ``(K, S, ...)``, always a copy; made of sums, which every device has for integers."""
        columns = range(2, 2 + len(self.by))
        cells = counts.unflatten(1, (self.base, *(len(values) for _, values in self.by))) if self.by else counts
        base = cells.sum(tuple(columns)) if self.by else cells  # (K, base, ...)
        if self.patterns:
            M = len(self.modalities)
            bits = base.unflatten(1, (2,) * M)  # (K, 2, …, 2, ...), modality m on the axis M - m
            parts = [_added(bits, M), *(_added(bits.select(M - m, 1), M - 1) for m in range(M))]
            slices = torch.stack(parts, dim=1)
        else:
            slices = base.clone()
        whole = cells.sum(1) if self.patterns else cells[:, 0]  # (K, values of each column …, ...)
        for column in range(len(self.by)):
            if self.by[column][0] == HALF:
                continue
            others = tuple(1 + other for other in range(len(self.by)) if other != column)
            slices = torch.cat([slices, whole.sum(others) if others else whole], dim=1)
        return slices

    def cell_weights(self, slice: str | tuple[str, ...]) -> np.ndarray:
        """``(G,)`` int64: how the cells add up to a slice; ``-audio`` is all less audio, of a tuple what is in each.

        Raises ValueError for an unknown name, and for a crossing that the cells do not tell.
        """
        names = (slice,) if isinstance(slice, str) else tuple(slice)
        base, columns = np.ones(self.base, np.int64), [np.ones(len(values), np.int64) for _, values in self.by]
        of_modality = []
        for name in names:
            column, found, value = name.partition("/")
            known = dict(self.by)
            if found and column in known and value in known[column]:
                at = [c for c, _ in self.by].index(column)
                columns[at] *= np.array([other == value for other in known[column]])
            else:
                of_modality.append(self.modalities.slice_weights(name, self.slices))
        if self.patterns:
            shown = self.modalities.table(range(self.base)).astype(np.int64)  # (2**M, M)
            inside = np.concatenate([np.ones((self.base, 1), np.int64), shown], axis=1)
            for weights in of_modality:
                base *= inside @ weights
        else:
            told = [weights for weights in of_modality if weights[0] != 1 or weights[1:].any()]
            if len(told) > 1:
                raise ValueError(f"slice {slice!r} crosses modalities, and patterns of presence were not kept for that")
            base = told[0] if told else self.modalities.slice_weights("all")
        weights = base
        for values in columns:
            weights = np.multiply.outer(weights, values).reshape(-1)
        return weights

    def replicate_weights(self, slice: str | tuple[str, ...]) -> np.ndarray | None:
        """``(A,)``: the same over the parts that have replicates; None for a slice that has none."""
        if slice == "all" and self.replicate_cells == 1:
            return np.ones(1, np.int64)
        if not self.replicate_slices:
            return None
        if self.by:
            return self.cell_weights(slice)
        name = slice if isinstance(slice, str) else slice[0] if len(slice) == 1 else None
        return None if name is None else self.modalities.slice_weights(name)


def _added(bits: Tensor, M: int) -> Tensor:
    """``(K, 2, …, 2, ...)`` without the M axes after the first, summed: by halves, which adds whole rows at a time."""
    for _ in range(M):
        bits = bits.select(1, 0) + bits.select(1, 1)
    return bits
