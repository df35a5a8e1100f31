"""Predicted against true numbers of an ordinal task: the least-squares line over the binned counts."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from mm_metrics import words
from mm_metrics.counts.labels import MOSI_EDGE
from mm_metrics.moments import SCALE, Fit, least_squares
from mm_metrics.render import draw
from mm_metrics.render.confusion import CLASSES_SHOWN
from mm_metrics.render.draw import Sheet
from mm_metrics.render.tables import Number, Table, Tables


def fit(told: Tables, slice: str) -> Fit | None:
    """Of a slice, from the totals that the card holds; None of other tasks, and without samples."""
    layout, n = told.card.layout, told.supports[slice]
    if "product" not in layout.sums or not n or told.card.partial:
        return None
    means = told.card.field("totals", slice)[told.card.row(None)].double() / SCALE / n
    return least_squares(dict(zip(layout.sums, means, strict=True)))


def table(told: Tables, slice: str, line: Fit) -> Table:
    """The numbers of a panel."""
    names = ("slope", "intercept", "mean true", "mean predicted", "true standard deviation", "predicted")
    rows = [(name, Number(value)) for name, value in zip(names, line, strict=True)]
    scores = [(words.label(score), told.estimate(score, slice=slice)) for score in ("mae", "pearson")]
    return Table(("least squares", "value"), [*rows[:2], *scores, *rows[2:]])


def panel(told: Tables, slice: str, line: Fit, title: str = "", side: float = 250.0) -> Sheet:
    """True numbers across and predicted ones up, as shares of what was true; dashes are where both are equal."""
    borders, shares = _binned(told, slice)
    ends = [middle + 2 * far * spread for middle, spread in zip(line[2:4], line[4:], strict=True) for far in (-1, 1)]
    wide = sorted(high - low for low, high in pairwise(borders)) or [1.0]
    outer = [borders[0] - wide[len(wide) // 2], borders[-1] + wide[len(wide) // 2]] if borders else []
    low, high = min(*ends, *outer), max(*ends, *outer)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    left, top = 34.0, 18.0
    sheet = Sheet(left + side + 10, top + side + 30)

    at = draw.axes(sheet, (left, top, left + side, top + side), (low, high), (low, high))
    places = [low, *borders, high]
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            if share:
                x, y = at(places[i], places[j + 1])
                right, bottom = at(places[i + 1], places[j])
                sheet.rect(x, y, right - x, bottom - y, draw.RIGHT, 0.6 * share)
    sheet.line((at(low, low), at(high, high)), draw.INK, 1.0, dash=True)
    if line.slope == line.slope:
        inside = [low, high]
        if line.slope:  # leave the line within the square
            inside = sorted(min(max((end - line.intercept) / line.slope, low), high) for end in (low, high))
        sheet.line([at(x, line.intercept + line.slope * x) for x in inside], draw.WRONG, 2.0)
    sheet.text(
        left, 7, words.shortened(title, 16) or "predicted", draw.LARGE if title else draw.SMALL, bold=bool(title)
    )
    sheet.text(left + side, 7, f"slope {words.score(line.slope)}", draw.SMALL, draw.MUTED, "end")
    sheet.text(left + side, top + side + 22, "true", draw.SMALL, draw.MUTED, "end")
    return sheet


def _binned(told: Tables, slice: str) -> tuple[list[float], list[list[float]]]:
    """Where the classes are cut, neighbours together where they are many, and the shares ``(C, C)`` of each row."""
    counts, cuts = told.confusion(slice), _cuts(told)
    if counts is None or not cuts:
        return [], []
    C = len(counts)
    group = torch.arange(C) * min(C, CLASSES_SHOWN) // C
    B = int(group[-1]) + 1
    counts = counts.new_zeros(B, C).index_add_(0, group, counts)
    counts = counts.new_zeros(B, B).index_add_(1, group, counts)
    borders = [cut for cut, (before, after) in zip(cuts, pairwise(group.tolist()), strict=True) if after > before]
    return borders, (counts / counts.sum(1, keepdim=True)).nan_to_num().tolist()


def _cuts(told: Tables) -> list[float]:
    """Where the classes are cut, as the card says of itself; nothing where it does not, as one from before."""
    said = told.card.info.get("edges")
    cuts = [edge - MOSI_EDGE + 0.5 for edge in range(2 * MOSI_EDGE)] if said == "mosi" else said
    if not isinstance(cuts, list) or not all(isinstance(cut, int | float) for cut in cuts):
        return []
    rising = all(low < high for low, high in pairwise([-math.inf, *cuts, math.inf]))
    return cuts if rising and len(cuts) == len(told.names) - 1 else []
