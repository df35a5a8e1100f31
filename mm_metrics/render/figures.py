"""The pictures, one by one, as functions of a scorecard or its tables: each gives ``(fig, ax)``, without pyplot.

All need matplotlib; the page writes the same sheets without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mm_metrics import scores
from mm_metrics.extras import needed
from mm_metrics.render import charts, confusion, draw, tables
from mm_metrics.render.draw import Sheet
from mm_metrics.render.pixels import DPI
from mm_metrics.render.tables import Number, Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mm_metrics.counts.tally import Tally


_ALIGNED = {"start": "left", "middle": "center", "end": "right"}


def confusions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The confusion of every slice as heat cells with counts and shares of the row."""
    return paint(charts.confusions(tables.of(card)) or Sheet(72, 72), ax)


def coalitions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The score of every coalition: dots say which modalities the model was shown, bars what it scored."""
    return paint(charts.coalitions(tables.of(card)), ax)


def contributions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """What is lost without each modality, and its Shapley value, in points with intervals."""
    return paint(charts.contributions(tables.of(card)), ax)


def paint(sheet: Sheet, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """A sheet's marks on matplotlib axes: a figure of its own, or as large as `ax` lets it be."""
    with needed("matplotlib", "figures need matplotlib"):
        from matplotlib.collections import LineCollection, PolyCollection
        from matplotlib.colors import to_rgba
        from matplotlib.figure import Figure as NewFigure
        from matplotlib.patches import Circle
    scale = 1.0
    if ax is None:
        figure = NewFigure(figsize=(sheet.width / 72, sheet.height / 72), dpi=DPI, facecolor="white")
        ax = figure.add_axes((0, 0, 1, 1))
    else:
        figure = ax.figure  # type: ignore[assignment]
        box = ax.get_position()
        inches = figure.get_size_inches()
        scale = min(72 * box.width * inches[0] / sheet.width, 72 * box.height * inches[1] / sheet.height)
    ax.set_axis_off()
    ax.set_aspect("equal", anchor="NW")
    ax.set_xlim(0, sheet.width)
    ax.set_ylim(sheet.height, 0)
    kinds = ("rect", "area"), ("line",), ("dot",), ("text",)
    faces, lines, dots, texts = ([mark for mark in sheet.marks if mark.kind in kind] for kind in kinds)
    colors = [to_rgba(mark.color, mark.alpha) for mark in faces]
    made = PolyCollection([mark.corners for mark in faces], facecolors=colors, linewidths=0)
    ax.add_collection(made, autolim=False)
    dashes = [(0, (2, 2)) if mark.dash else "solid" for mark in lines]
    widths, inks = [scale * mark.size for mark in lines], [mark.color for mark in lines]
    ways = LineCollection([mark.points for mark in lines], linewidths=widths, colors=inks, linestyles=dashes)
    ax.add_collection(ways, autolim=False)
    for mark in dots:
        ax.add_patch(Circle(mark.points[0], mark.size, color=mark.color, linewidth=0, zorder=3))
    for mark in texts:
        ax.text(
            *mark.points[0],
            mark.said,
            fontsize=mark.size * scale,
            color=mark.color,
            ha=_ALIGNED[mark.anchor],
            va="baseline",
            rotation=mark.turn,
            rotation_mode="anchor",
            fontweight="bold" if mark.bold else "normal",
            parse_math=False,
        )
    return figure, ax


def plot_metric(metric: Any, value: Any, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """What a metric's `compute` gives, or a list of that over time, drawn.

    >>> import torch
    >>> from mm_metrics import ModalityRecall
    >>> metric = ModalityRecall(("text", "audio"), task="binary")
    >>> metric.update(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0]))
    >>> fig, ax = metric.plot()
    """
    return paint(sheet_of(metric, value), ax)


def sheet_of(metric: Any, value: Any) -> Sheet:
    """The same as a sheet: confusions side by side, bars of scores, or lines over time."""
    by_label = metric.task.by_label
    if isinstance(value, Sequence) and not isinstance(value, Tensor):
        rows = [{"epoch": step, **_scored(metric, one, by_label)} for step, one in enumerate(value)]
        series = {key: key for row in rows[:1] for key in row if key != "epoch"}
        return charts.history(rows, series, across="step")
    if isinstance(value, Mapping):
        return draw.bars(list(value), {"score": [Number(float(part)) for part in value.values()]}, "score")
    names = metric.class_names or tuple(map(str, range(value.shape[-3] if by_label else value.shape[-1])))
    value = value.cpu()
    if value.ndim > (4 if by_label else 3):
        panels = [(value[k, 0], coalition) for k, coalition in enumerate(metric.coalitions)][::-1]
    else:
        panels = list(zip(value, metric.slices, strict=True))
    shown = confusion.chosen(panels[0][0], by_label)
    cells = [(confusion.cells(part, names, by_label, shown), name, "") for part, name in panels]
    return charts.side_by_side(cells[: tables.COALITIONS_SHOWN]) or Sheet(72, 72)


def _scored(metric: Any, value: Any, by_label: bool) -> dict[str, float]:
    """A step's values by name; of confusions the accuracy of every slice."""
    if isinstance(value, Mapping):
        return {key: float(part) for key, part in value.items()}
    value = value[-1] if value.ndim > (4 if by_label else 3) else value  # all modalities shown
    by_slice = scores.accuracy(value.sum(1) if by_label else value)
    return {f"{name}/accuracy": float(part) for name, part in zip(metric.slices, by_slice, strict=True)}
