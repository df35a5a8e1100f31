"""The richest layout that a bound on its size allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mm_metrics.counts.labels import Reader
from mm_metrics.counts.layout import By, Layout
from mm_metrics.modalities import Modalities

MAX_BYTES = 256 * 2**20
_MARKS = 64  # tell cards of other samples apart by four standard deviations
GROUP_CELLS = 8192
_PATTERNS_UP_TO = 4  # modalities: 16 patterns of presence
_LEAST_BINS, _LEAST_SPREAD = 64, 16  # of histograms, and of their replicates
_MOST_CELLS = 4096
_GROUPS_SHARE = 64  # the table of groups takes at most this part of the buffer


def plan(
    modalities: Modalities,
    reader: Reader,
    masks: Sequence[int] | None,
    R: int,
    max_bytes: int = MAX_BYTES,
    *,
    by: By = (),
    curves: int = 0,
    bins: int = 512,
    levels: int = 0,
    sums: tuple[str, ...] = (),
) -> tuple[Layout, list[str]]:
    """The richest layout under `max_bytes`, and in a sentence each what it leaves out.

    First replicates keep the slice "all" only, then histograms have fewer bins, then theirs have, then there are fewer
    replicates, then full matrices are kept for the last coalition only, then there are no replicates, then there is no
    matrix. Raises ValueError where even that does not fit.

    >>> plan(Modalities(("text", "audio")), Reader(num_classes=2), None, 0)[1]
    []
    """
    combinations = math.prod(len(values) for _, values in by)
    if combinations > _MOST_CELLS:
        raise ValueError(
            f"by has {' x '.join(str(len(values)) for _, values in by)} combinations of values, more than "
            f"{_MOST_CELLS:,}: give fewer columns, or fewer values"
        )
    cells = 2 ** min(len(modalities), _PATTERNS_UP_TO) * combinations
    layout = Layout(
        modalities,
        reader.C,
        reader.L,
        None if masks is None else tuple(masks),
        R,
        patterns=False,
        by=by,
        found=reader.task.by_label,
        answers=reader.L == 1,
        curves=curves,
        bins=bins if curves else 0,
        levels=levels,
        sums=sums,
        group_cells=min(GROUP_CELLS, max(16, max_bytes // (_GROUPS_SHARE * 24 * cells))) if R else 0,
        ties=curves > 0,
        marks=_MARKS if R else 0,
    )
    said = []
    if 8 * layout.size > max_bytes and R:
        layout = replace(layout, replicate_slices=False)
        said.append("intervals are kept for the whole only, not for each modality's slice")
    while layout.bins > _LEAST_BINS and 8 * layout.size > max_bytes < 16 * replace(layout, R=0).size:
        layout = replace(layout, bins=max(_LEAST_BINS, layout.bins // 2))
    while layout.spread_bins > _LEAST_SPREAD and curves and 8 * _fewer_replicates(layout, max_bytes).size > max_bytes:
        layout = replace(layout, spread_bins=layout.spread_bins // 2)
    layout = _fewer_replicates(layout, max_bytes)
    if 8 * layout.size > max_bytes and layout.K > 1:
        layout = _fewer_replicates(replace(layout, full=False), max_bytes)
        said.append("per-class sums are kept instead of full matrices for all coalitions but the last")
    if 8 * layout.size > max_bytes:
        layout = replace(layout, R=0)
    if 8 * layout.size > max_bytes:
        layout = _fewer_replicates(replace(layout, full=False, last=False, R=R), max_bytes)
        layout = layout if 8 * layout.size <= max_bytes else replace(layout, R=0)
        said = ["per-class sums are kept instead of full matrices", *said[:1]]
    if layout.R < R:
        said.insert(1, f"{layout.R} bootstrap replicates are kept instead of {R}")
    if layout.bins < bins and curves:
        said.append(f"histograms have {layout.bins} bins instead of {bins}")
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
