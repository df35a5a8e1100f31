"""The pictures, one by one, as functions of a scorecard or its tables: each gives ``(fig, ax)``, without pyplot.

All need matplotlib; the page writes the same sheets without it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mm_metrics import scores
from mm_metrics.extras import install
from mm_metrics.files import write_whole
from mm_metrics.render import charts, confusion, draw, tables
from mm_metrics.render.draw import Sheet
from mm_metrics.render.samples import png
from mm_metrics.render.tables import Number, Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mm_metrics.counts.tally import Tally

DPI = 130


def confusions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The confusion of every slice as heat cells with counts and shares of the row."""
    return paint(charts.confusions(tables.of(card)) or Sheet(72, 72), ax)


def coalitions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The score of every coalition: dots say which modalities the model was shown, bars what it scored."""
    return paint(charts.coalitions(tables.of(card)), ax)


def contributions(card: Tally | Tables, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """What is lost without each modality, and its Shapley value, in points with intervals."""
    return paint(charts.contributions(tables.of(card)), ax)


def drawn(told: Tables) -> dict[str, Figure]:
    """The pictures that loggers get, each made once: confusions, lines, coalitions, contributions, as there are any."""
    sheets = {"confusions": charts.titled(charts.confusions(told), "Confusion: rows are what was there")}
    sheets["predicted"] = charts.titled(charts.fits(told), "Predicted against true: dashes are equal")
    if len(told.coalitions) > 1:
        sheets["coalitions"] = charts.titled(charts.coalitions(told), "Shown only these modalities")
        sheets["contributions"] = charts.titled(charts.contributions(told), "What each modality gives")
    return {name: paint(sheet)[0] for name, sheet in sheets.items() if sheet is not None}


def summary(card: Tally | Tables, made: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """The essentials on one sheet ``(height, width, 3)`` uint8: the verdict, what each modality is worth, confusions.

    `made` are pixels of what `drawn` gave, which is not drawn again.
    """
    told = tables.of(card)
    parts = {name: pixels(figure) for name, figure in drawn(told).items()} if made is None else made
    upper = [parts[name] for name in ("coalitions", "contributions") if name in parts]
    rows = [_beside(upper)] if upper else []
    rows += [parts[name] for name in ("predicted", "confusions") if name in parts]
    width = max([792 * DPI // 72, *(row.shape[1] for row in rows)])
    rows.insert(0, pixels(paint(charts.head(told, width * 72 / DPI))[0]))
    return np.concatenate([_padded(row, row.shape[0] + 16, width) for row in rows])


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    height = max(part.shape[0] for part in parts)
    return np.concatenate([_padded(part, height, part.shape[1] + 40) for part in parts], axis=1)


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same picture at the upper left of a white one."""
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), constant_values=255)


def pixels(figure: Figure) -> np.ndarray:
    """``(height, width, 3)`` uint8 of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands in for the letter
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> Path:
    """Write pixels to `path` as PNG, whole or not at all: ``write_png("summary.png", summary(card))``."""
    return write_whole(path, png(image))


def paint(sheet: Sheet, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """A sheet's marks on matplotlib axes: a figure of its own, or as large as `ax` lets it be."""
    try:
        from matplotlib.collections import LineCollection, PolyCollection
        from matplotlib.colors import to_rgba
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {install('matplotlib')}") from error
    scale = 1.0
    if ax is None:
        figure = NewFigure(figsize=(sheet.width / 72, sheet.height / 72), facecolor="white")
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
    faces = [mark for mark in sheet.marks if mark.kind in ("rect", "area")]
    corners = [
        ((x, y), (right, y), (right, bottom), (x, bottom))
        for (x, y), (right, bottom) in (mark.points for mark in faces if mark.kind == "rect")
    ]
    corners += [mark.points for mark in faces if mark.kind == "area"]  # type: ignore[misc]
    faces.sort(key=lambda mark: mark.kind == "area")
    colors = [to_rgba(mark.color, mark.alpha) for mark in faces]
    ax.add_collection(PolyCollection(corners, facecolors=colors, linewidths=0), autolim=False)
    lines = [mark for mark in sheet.marks if mark.kind == "line"]
    ax.add_collection(
        LineCollection(
            [mark.points for mark in lines],
            colors=[mark.color for mark in lines],
            linewidths=[mark.size * scale for mark in lines],
            linestyles=[(0, (2, 2)) if mark.dash else "solid" for mark in lines],
        ),
        autolim=False,
    )
    dots = [mark for mark in sheet.marks if mark.kind == "dot"]
    if dots:
        x, y = zip(*(mark.points[0] for mark in dots), strict=True)
        sizes = [(2 * mark.size * scale) ** 2 for mark in dots]
        ax.scatter(x, y, s=sizes, c=[mark.color for mark in dots], linewidths=0, zorder=3)
    for mark in sheet.marks:
        if mark.kind == "text":
            ax.text(
                *mark.points[0],
                mark.said,
                fontsize=mark.size * scale,
                color=mark.color,
                ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor],
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
