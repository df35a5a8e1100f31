"""What pictures are made of: matplotlib axes in, marks drawn. No pyplot, so no state is left behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_metrics import words
from mm_metrics.extras import install
from mm_metrics.render.tables import Cells, Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page replaces the first three by its own, which follow light and dark.
INK, MUTED, LINE = "#1d2129", "#687080", "#d3d7de"
RIGHT, WRONG = "#0b6bb8", "#c9570c"  # blue and orange: told apart by every reader
SERIES = ("#0b6bb8", "#d98200", "#0a8f6c", "#b5509c", "#4aa3df", "#c9570c", "#7a7f87")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEVELS = {"good": "#0a8f6c", "mixed": "#d98200", "bad": "#c02f1d"}
SMALL, NORMAL, LARGE = 8.5, 9.5, 10.5
NUMBERED_UP_TO = 12  # rows with numbers in their cells
_CELL_TEXT_TURNS = 0.85  # the share above which a cell is dark in light and in dark mode


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {install('matplotlib')}") from error
    return Figure(figsize=(width, height), facecolor="white")


def axes(width: float, height: float, left: float, right: float = 0.15, top: float = 0.3, bottom: float = 0.4) -> Axes:
    """One axes in a figure of its own, with margins in inches."""
    fig = figure(width, height)
    return fig.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def inches(names: Iterable[str], columns: int = 14) -> float:
    """The room that the longest of some labels takes, in whatever font the reader has."""
    texts = [words.shortened(name, columns) for name in names]
    return max([sum(0.132 if c in "mwMW@%" else 0.087 * words.width(c) for c in text) for text in texts] or [0.0])


def plain(ax: Axes, grid: str = "x", baseline: float | None = None) -> None:
    """Thin muted lines instead of a frame."""
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_facecolor("none")
    ax.tick_params(length=0, labelsize=NORMAL, colors=MUTED, labelcolor=INK)
    ax.tick_params(axis=grid, labelcolor=MUTED, labelsize=SMALL)  # type: ignore[arg-type]
    ax.grid(axis=grid, color=LINE, linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    if baseline is not None:
        line = ax.axvline if grid == "x" else ax.axhline
        line(baseline, color=MUTED, linewidth=0.9, zorder=2)


def title(ax: Axes, said: str, muted: str = "") -> None:
    """A title at the left, with a muted second part."""
    text = ax.set_title(said, loc="left", fontsize=LARGE, color=INK, pad=7, parse_math=False)
    text.set_fontweight("bold")
    if muted:
        ax.set_title(muted, loc="right", fontsize=SMALL, color=MUTED, pad=7, parse_math=False)


def bars(
    ax: Axes, labels: Sequence[str], series: Mapping[str, Sequence[Number]], unit: str, columns: int = 22,
    bounds: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Horizontal bars with intervals and their values, one group a label; differences are drawn in points."""
    height = 0.72 / len(series)
    ends = [0.0]
    for i, (name, values) in enumerate(series.items()):
        factor = 100.0 if values and values[0].points else 1.0
        y = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * height
        lengths = np.array([value.value * factor for value in values], dtype=float)
        color = SERIES[i % len(SERIES)]
        ax.barh(y, np.nan_to_num(lengths), height * 0.82, color=color, alpha=0.88, label=name, linewidth=0)
        for at, value in zip(y, values, strict=True):
            low, high = value.low * factor, value.high * factor
            if math.isfinite(low) and math.isfinite(high):
                ax.plot([low, high], [at, at], color=INK, linewidth=1.3, solid_capstyle="butt", zorder=3)
            reach = [end for end in (0.0, value.value * factor, high) if math.isfinite(end)]
            ends += [*reach, low if math.isfinite(low) else 0.0]
            ax.annotate(
                value.text, (max(reach), at), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=SMALL, color=INK, parse_math=False, annotation_clip=False,
            )  # fmt: skip
    span = max(ends) - min(ends) or 1.0
    ax.set_xlim(*(bounds or (min(ends) - 0.03 * span * (min(ends) < 0), max(ends) + 0.16 * span)))
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), [words.shortened(label, columns) for label in labels], parse_math=False)
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(unit, fontsize=SMALL, color=MUTED, loc="left")
    plain(ax, "x", 0.0)


def legend(ax: Axes, rows: float = 1.0) -> None:
    """The series' names in a row above the axes."""
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=SMALL, handlelength=1.0,
        handleheight=0.8, columnspacing=1.4, borderpad=0, borderaxespad=0.4, labelcolor=INK,
    )  # fmt: skip


def dots(ax: Axes, table: np.ndarray, names: Sequence[str]) -> None:
    """Which modality each row shows: ``(rows, M)`` bool as full and empty dots, joined."""
    rows, M = table.shape
    y, x = np.mgrid[:rows, :M]
    for shown in (False, True):
        at = table == shown
        ax.scatter(x[at], y[at], s=26, color=INK if shown else LINE, zorder=3, linewidth=0)
    for row in range(rows):
        columns = np.flatnonzero(table[row])
        if len(columns) > 1:
            ax.plot([columns[0], columns[-1]], [row, row], color=INK, linewidth=1.4, zorder=2)
    ax.set_xlim(-0.6, M - 0.4)
    ax.set_xticks(
        range(M), [words.shortened(name, 14) for name in names], rotation=45, ha="left", rotation_mode="anchor",
        parse_math=False,
    )  # fmt: skip
    ax.xaxis.tick_top()
    plain(ax, "y")
    ax.grid(visible=False)
    ax.tick_params(axis="both", labelcolor=INK, labelsize=NORMAL, pad=2)
    ax.tick_params(axis="y", labelleft=False)


def heat(ax: Axes, cells: Cells, rows: bool = True, columns: int = 14) -> None:
    """Counts as cells: what is right in blue, what is wrong in orange, the stronger the larger its share of the row."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    shares = cells.shares.nan_to_num().numpy()
    right = cells.right.numpy()
    height, width = shares.shape
    numbered = height <= NUMBERED_UP_TO
    if numbered:
        for i, j in np.ndindex(height, width):
            face = RIGHT if right[i, j] else WRONG
            ax.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, color=face, alpha=shares[i, j], linewidth=0))
            _cell_text(ax, cells, i, j, height)
    else:
        image = np.empty((height, width, 4))
        image[..., :3] = np.where(right[..., None], to_rgb(RIGHT), to_rgb(WRONG))
        image[..., 3] = shares**0.6  # small shares of many classes stay visible
        ax.imshow(image, interpolation="none", aspect="auto")
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    size = NORMAL if numbered else max(4.5, SMALL - height / 12)
    ax.set_xticks(range(width), [words.shortened(name, columns) for name in cells.columns], parse_math=False)
    if turned(cells, columns):
        for label in ax.get_xticklabels():
            label.set(rotation=45 if numbered else 90, ha="right" if numbered else "center", rotation_mode="anchor")
            if not numbered:
                label.set(va="center", ha="right")
    names = [words.shortened(name, columns) for name in cells.rows] if rows else []
    ax.set_yticks(range(height) if rows else [], names, parse_math=False)
    plain(ax)
    ax.grid(visible=False)
    ax.tick_params(axis="both", labelcolor=INK, labelsize=size, pad=2)
    if rows:
        ax.set_ylabel("actual", fontsize=SMALL, color=MUTED, loc="top")
    if cells.rows == cells.columns:
        ax.set_xlabel("predicted", fontsize=SMALL, color=MUTED, loc="right")


def turned(cells: Cells, columns: int = 14) -> bool:
    """Whether the columns' names are too long to lie side by side."""
    longest = max(words.width(words.shortened(name, columns)) for name in cells.columns)
    return longest * len(cells.columns) > 42 or (longest > 8 and len(cells.columns) > 2)


def _cell_text(ax: Axes, cells: Cells, i: int, j: int, size: int) -> None:
    count, share = int(cells.counts[i, j]), float(cells.shares[i, j])
    color = "white" if share > _CELL_TEXT_TURNS else INK if count else MUTED
    common: dict[str, Any] = {"ha": "center", "color": color, "parse_math": False}
    if size > 6:
        if count:
            ax.text(j, i, f"{100 * share:.0f}", va="center", fontsize=11 - size / 3, **common)
        return
    ax.text(j, i, _short(count), va="center" if math.isnan(share) else "bottom", fontsize=NORMAL, **common)
    if not math.isnan(share):
        ax.text(j, i + 0.08, f"{100 * share:.0f}%", va="top", fontsize=SMALL - 0.5, **common)


def _short(count: int) -> str:
    """A count in at most five letters."""
    for limit, unit in ((10**10, "G"), (10**7, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / limit * 10:.0f}{unit}"
    return f"{count:,}" if count >= 1000 else str(count)


def band(figure: Figure, level: str, bottom: float) -> None:
    """A stripe in a verdict's colour at the upper left."""
    from matplotlib.patches import Rectangle

    color = LEVELS.get(level, MUTED)
    figure.add_artist(Rectangle((0.018, bottom), 0.007, 0.957 - bottom, color=color, linewidth=0))


def lines(ax: Axes, x: Sequence[float], series: Mapping[str, Sequence[float]], columns: int = 14) -> None:
    """One line a series, named at its end; a gap where a value is NaN. The whole is black in every picture."""
    ends = []
    for name, y in series.items():
        i = [other for other in series if other != "all"].index(name) if name != "all" else 0
        color, marker = (INK, "") if name == "all" else (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)])
        values = np.asarray(y, dtype=float)
        ax.plot(x, values, color=color, marker=marker, markersize=3.6, linewidth=1.5, label=words.clean(name))
        seen = np.flatnonzero(np.isfinite(values))
        if len(seen):
            ends.append((float(values[seen[-1]]), name, color))
    plain(ax, "y")
    ax.tick_params(axis="x", labelcolor=MUTED, labelsize=SMALL)
    ax.margins(y=0.12)
    ax.locator_params(axis="x", integer=True)
    bottom, top = ax.get_ylim()
    places = _spread([end[0] for end in ends], 0.085 * (top - bottom))
    for at, (_, name, color) in zip(places, ends, strict=True):
        ax.annotate(
            words.shortened(name, columns), (1, at), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=NORMAL, color=color, parse_math=False,
            annotation_clip=False,
        )  # fmt: skip


def _spread(places: Sequence[float], least: float) -> list[float]:
    """The same places, moved as little as it takes to lie `least` apart."""
    order = np.argsort(places)
    moved = np.array([places[i] for i in order], dtype=float)
    for _ in range(50):
        gaps = np.diff(moved)
        close = np.flatnonzero(gaps < least * 0.999)
        if not len(close):
            break
        for i in close:
            push = (least - (moved[i + 1] - moved[i])) / 2
            moved[i] -= push
            moved[i + 1] += push
    result = [0.0] * len(places)
    for rank, i in enumerate(order):
        result[i] = float(moved[rank])
    return result
