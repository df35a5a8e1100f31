"""The pictures, one by one, as functions of a scorecard: each gives ``(fig, ax)`` and touches no global state.

All need matplotlib. Figures are small, so that they stay legible on a phone.
"""

from __future__ import annotations

import io
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mm_metrics import scores, words
from mm_metrics.counts.compare import Comparison
from mm_metrics.files import write_whole
from mm_metrics.render import draw, phrases, tables
from mm_metrics.verdict import QualityGate, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mm_metrics.counts.tally import Tally

WIDTH = 4.7  # inches


def confusion(card: Tally, slice: str = "all", ax: Axes | None = None, titled: bool = True) -> tuple[Figure, Axes]:
    """One slice's confusion as heat cells with counts and shares of the row; `titled` with names and axis labels."""
    cells = tables.confusion_cells(card, slice)
    support = words.count(card.support(slice, card.whole), "sample")
    return _heat(cells, slice if titled else "", support if titled else "", ax)


def confusions(card: Tally, slices: Sequence[str] | None = None) -> tuple[Figure, np.ndarray]:
    """The confusions of all slices side by side."""
    names = card.slices if slices is None else tuple(slices)
    panels = [(tables.confusion_cells(card, name), name, f"n = {card.support(name, card.whole):,}") for name in names]
    return _side_by_side(panels)


def coalitions(card: Tally, score: str | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The score of every coalition: dots say which modalities the model was shown, bars what it scored."""
    score = score or phrases.telling(card)
    names = tables.telling_coalitions(card)
    table = card.layout.modalities.table([card.layout.modalities.mask(name) for name in names])
    columns = 0.34 * len(card.modalities) + 0.1
    if ax is None:
        header = 0.25 + 0.75 * draw.inches(card.modalities)  # names at 45°
        ax = draw.axes(WIDTH, 0.27 * len(names) + 0.45 + header, columns + 0.2, 0.2, header, 0.45)
    values = [tables.Number(*card.estimate(score, name)) for name in names]
    label = words.label(score)
    draw.bars(ax, [""] * len(names), {label: values}, label, bounds=(0.0, 1.16))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    majority = card.majority(score)
    if 0 < majority < 1:
        ax.axvline(majority, color=draw.MUTED, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(
            "guessing the majority", (majority, 1), xycoords=("data", "axes fraction"), xytext=(3, 3),
            textcoords="offset points", fontsize=draw.SMALL, color=draw.MUTED, annotation_clip=False,
        )  # fmt: skip
    share = columns / (ax.get_position().width * ax.figure.get_size_inches()[0])  # type: ignore[union-attr]
    draw.dots(ax.inset_axes((-share - 0.02, 0.0, share, 1.0), sharey=ax), table, card.modalities)
    ax.tick_params(axis="y", labelleft=False)
    return ax.figure, ax  # type: ignore[return-value]


def contributions(
    card: Tally, score: str | None = None, slice: str = "all", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """What is lost without each modality, and its Shapley value, in points with intervals."""
    score = score or phrases.telling(card)
    table = tables.contribution_points(card, score, slice)
    labels = [row[0] for row in table.rows]
    series = {"drop without it": [row[1] for row in table.rows], "Shapley value": [row[3] for row in table.rows]}
    if not any(value.value == value.value for value in series["drop without it"]):
        series = {"gain alone": [row[2] for row in table.rows]}
    ax = _bar_axes(labels, 0.48, ax)
    draw.bars(ax, labels, series, f"points of {words.label(score)}")
    draw.legend(ax)
    return ax.figure, ax  # type: ignore[return-value]


def interactions(card: Tally, score: str | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """The Shapley interaction of the 15 pairs that interact most, in points: more, or less, than each adds alone."""
    score = score or phrases.telling(card)
    rows = tables.interaction_points(card, score).rows[:15]
    labels = [row[0] for row in rows]
    ax = _bar_axes(labels, 0.3, ax, columns=26)
    draw.bars(ax, labels, {"interaction": [row[1] for row in rows]}, f"points of {words.label(score)}", 26)
    return ax.figure, ax  # type: ignore[return-value]


def differences(comparison: Comparison, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """New less old: recall and F1 of every slice, in points with intervals."""
    table = tables.differences(comparison)
    labels = [row[0] for row in table.rows]
    ax = _bar_axes(labels, 0.48, ax)
    series = {name: [row[table.columns.index(name)] for row in table.rows] for name in ("recall", "F1")}
    draw.bars(ax, labels, series, "points, new − old")
    draw.legend(ax)
    return ax.figure, ax  # type: ignore[return-value]


def history(
    rows: Sequence[Mapping[str, Any]], series: Mapping[str, str], label: str = "", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Values over epochs, one line each: `rows` are one dict an epoch, `series` names to keys of them."""
    x = [float(row.get("epoch", i)) for i, row in enumerate(rows)]
    ys = {name: [_number(row.get(key)) for row in rows] for name, key in series.items()}
    if ax is None:
        ax = draw.axes(WIDTH, 2.5, 0.5, 0.25 + draw.inches(ys), 0.15, 0.45)
    draw.lines(ax, x, ys)
    ax.set_xlabel("epoch", fontsize=draw.SMALL, color=draw.MUTED, loc="left")
    ax.set_ylabel(label, fontsize=draw.SMALL, color=draw.MUTED, parse_math=False)
    return ax.figure, ax  # type: ignore[return-value]


def summary(card: Tally, verdict: Any = None, samples: Any = None) -> tuple[Figure, np.ndarray]:
    """The essentials on one sheet of 11 by 7.6 inches: verdict, worth, coalitions, contributions, confusions."""
    verdict = judge(card, QualityGate()) if verdict is None else verdict
    weak = next((finding.modality for finding in verdict.findings if finding.modality in card.slices), None)
    headline = textwrap.fill(words.clean(verdict.headline), 80, max_lines=2, placeholder=" …")
    step = textwrap.shorten(phrases.next_step(card, samples, weak), 120, placeholder=" …")
    fig = draw.figure(11.0, 7.6)
    deep = 0.037 * headline.count("\n")
    common: dict[str, Any] = {"va": "top", "parse_math": False}
    fig.text(0.04, 0.955, headline, fontsize=15.5, fontweight="bold", color=draw.INK, **common)
    worth = textwrap.shorten(phrases.worth(card), 120, placeholder=" …")
    fig.text(0.04, 0.905 - deep, worth, fontsize=11.5, color=draw.INK, **common)
    fig.text(0.04, 0.872 - deep, step, fontsize=10.5, color=draw.MUTED, **common)
    draw.band(fig, verdict.level, 0.845 - deep)
    M = len(card.modalities)
    names = draw.inches(card.modalities) / 7.6
    at = 0.735 - deep - max(0.0, 0.75 * names - 0.08)
    left = coalitions(card, ax=fig.add_axes((0.06 + 0.034 * M, 0.475, 0.42 - 0.034 * M, at - 0.475)))[1]
    right = contributions(card, ax=fig.add_axes((0.55 + 0.7 * names, 0.475, 0.42 - 0.7 * names, at - 0.475)))[1]
    for x, said in (
        (0.04, f"{words.label(phrases.telling(card))}, shown only these modalities"),
        (0.55, "What each modality gives"),
    ):
        fig.text(x, 0.815 - deep, said, fontsize=draw.LARGE, fontweight="bold", color=draw.INK, **common)
    panels = []
    for i, name in enumerate(card.slices[:4]):
        place = (0.1 + i * 0.22, 0.11, 0.2, 0.235)
        panels.append(confusion(card, name, fig.add_axes(place))[1])
        if i:
            panels[-1].set(yticks=[], ylabel="")
    return fig, np.array([left, right, *panels], dtype=object)


def write_png(path: str | os.PathLike[str], figure: Figure, dpi: int = 130) -> Path:
    """Write a figure to `path` as PNG, whole or not at all: ``write_png("summary.png", summary(card)[0])``."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands in for the letter
        figure.savefig(out, format="png", dpi=dpi)
    return write_whole(path, out.getvalue())


def plot_metric(metric: Any, value: Any, ax: Axes | None = None) -> tuple[Figure, Any]:
    """What a metric's `compute` gives, or a list of that over time: confusions, bars or lines.

    With `ax` one confusion is drawn, that of all samples and all modalities shown.

    >>> import torch
    >>> from mm_metrics import ModalityRecall
    >>> metric = ModalityRecall(("text", "audio"), task="binary")
    >>> metric.update(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0]))
    >>> fig, ax = metric.plot()
    """
    if isinstance(value, Sequence) and not isinstance(value, Tensor):
        return _over_time(metric, value, ax)
    if isinstance(value, Mapping):
        labels = list(value)
        ax = _bar_axes(labels, 0.34, ax)
        draw.bars(ax, labels, {"score": [tables.Number(float(part)) for part in value.values()]}, "score")
        return ax.figure, ax  # type: ignore[return-value]
    multilabel = metric.task.by_label
    names = metric.class_names or tuple(map(str, range(value.shape[-3] if multilabel else value.shape[-1])))
    value = value.cpu()
    if value.ndim > (4 if multilabel else 3):
        panels = [(value[k, 0], coalition) for k, coalition in enumerate(metric.coalitions)][::-1]
    else:
        panels = list(zip(value, metric.slices, strict=True))
    drawn = [(tables.cells(part, names, multilabel), name, "") for part, name in panels]
    return _heat(*drawn[0], ax) if ax is not None else _side_by_side(drawn[: tables.COALITIONS_SHOWN])


def _over_time(metric: Any, values: Sequence[Any], ax: Axes | None) -> tuple[Figure, Any]:
    rows = []
    for step, value in enumerate(values):
        if not isinstance(value, Mapping):
            multilabel = metric.task.by_label
            value = value[-1] if value.ndim > (4 if multilabel else 3) else value  # all modalities shown
            by_slice = scores.accuracy(value.sum(1) if multilabel else value)
            value = {f"{name}/accuracy": part for name, part in zip(metric.slices, by_slice, strict=True)}
        rows.append({"epoch": step, **{key: float(part) for key, part in value.items()}})
    fig, ax = history(rows, {key: key for key in rows[0] if key != "epoch"} if rows else {}, ax=ax)
    ax.set_xlabel("step", fontsize=draw.SMALL, color=draw.MUTED, loc="left")
    return fig, ax


def _bar_axes(labels: Sequence[str], each: float, ax: Axes | None, columns: int = 22) -> Axes:
    if ax is not None:
        return ax
    return draw.axes(WIDTH, each * max(1, len(labels)) + 0.85, 0.2 + draw.inches(labels, columns))


def _heat(cells: tables.Cells, name: str, note: str, ax: Axes | None, rows: bool = True) -> tuple[Figure, Axes]:
    if ax is None:
        height, width = cells.counts.shape
        small = height <= draw.NUMBERED_UP_TO
        left, top = (0.4 if name else 0.12) + draw.inches(cells.rows), 0.35 if name else 0.08
        across = min(4.2, max(1.6, 0.62 * width)) if small else 4.2
        down = min(4.2, max(0.9, 0.5 * height)) if small else 4.2
        below = (0.4 if name else 0.22) + (
            (0.75 if small else 0.9) * draw.inches(cells.columns) if draw.turned(cells) else 0.0
        )
        ax = draw.axes(left + across + 0.1, down + below + top, left, 0.1, top, below)
    draw.heat(ax, cells, rows)
    if name:
        draw.title(ax, words.shortened(name, 22), note)
    else:
        ax.set(xlabel="", ylabel="")
    return ax.figure, ax  # type: ignore[return-value]


def _side_by_side(panels: Sequence[tuple[tables.Cells, str, str]]) -> tuple[Figure, np.ndarray]:
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    side = 2.3 if panels[0][0].counts.shape[0] <= 12 else 3.6
    fig = draw.figure(side * columns + 0.5, (side + 0.6) * lines)
    grid = fig.subplots(lines, columns, squeeze=False)
    for i, ax in enumerate(grid.flat):
        if i < len(panels):
            _heat(*panels[i], ax, rows=i % columns == 0)
        else:
            ax.set_axis_off()
    fig.subplots_adjust(
        left=0.55 * 2 / fig.get_size_inches()[0], right=0.98, top=0.9, bottom=0.22 / lines, wspace=0.12, hspace=0.5
    )
    return fig, grid.ravel()[: len(panels)]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
