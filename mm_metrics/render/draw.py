"""Pictures as marks on a sheet, in points: made once, written as SVG by the page and painted for loggers and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from mm_metrics import words
from mm_metrics.render.confusion import Cells
from mm_metrics.render.curves import Curve
from mm_metrics.render.tables import Number

# The page replaces these by its own, which follow light and dark.
INK, MUTED, LINE = "#1d2129", "#687080", "#d3d7de"
SERIES = ("#0b6bb8", "#d98200", "#0a8f6c", "#b5509c", "#4aa3df", "#c9570c", "#7a7f87")
RIGHT, WRONG = SERIES[0], SERIES[5]  # blue and orange: told apart by every reader
LEVELS = {"good": "#0a8f6c", "mixed": "#d98200", "bad": "#c02f1d"}
SMALL, NORMAL, LARGE = 8.5, 9.5, 10.5  # heights of letters
WIDTH = 338.0  # small, so that pictures stay legible on a phone
NUMBERED_UP_TO = 12  # rows with numbers in their cells
_FULL = 0.7  # the strongest cell under a number: letters keep their contrast, in light and in dark mode


class Mark(NamedTuple):
    """A "rect" (two corners), "line", "area", "dot" or "text" (its baseline)."""

    kind: str
    points: Sequence[tuple[float, float]]
    color: str
    alpha: float = 1.0
    size: float = 1.0  # a line's width, a dot's radius, the height of letters
    said: str = ""
    anchor: str = "start"
    bold: bool = False
    turn: float = 0.0  # degrees, against the clock
    dash: bool = False

    @property
    def corners(self) -> Sequence[tuple[float, float]]:
        """The points; of a rectangle all four."""
        if self.kind != "rect":
            return self.points
        (x, y), (right, bottom) = self.points
        return (x, y), (right, y), (right, bottom), (x, bottom)


class Sheet:
    """Marks from the upper left, in points."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.marks: list[Mark] = []

    def rect(self, x: float, y: float, width: float, height: float, color: str, alpha: float = 1.0) -> None:
        """A filled rectangle."""
        self.marks.append(Mark("rect", ((x, y), (x + width, y + height)), color, alpha))

    def line(
        self, points: Sequence[tuple[float, float]], color: str = INK, width: float = 1.0, dash: bool = False
    ) -> None:
        """A line through points."""
        self.marks.append(Mark("line", points, color, size=width, dash=dash))

    def text(
        self, x: float, y: float, said: str, size: float = NORMAL, color: str = INK, anchor: str = "start", **more: Any
    ) -> None:
        """Letters whose middle is at the height `y`; `more` is `bold` and `turn`."""
        lower, turn = 0.35 * size, math.radians(more.get("turn", 0.0))
        at = (x + lower * math.sin(turn), y + lower * math.cos(turn))
        self.marks.append(Mark("text", (at,), color, size=size, said=words.clean(said), anchor=anchor, **more))

    def place(self, other: Sheet, x: float, y: float) -> None:
        """The marks of another sheet, moved; this one grows where it has no room."""
        self.width, self.height = max(self.width, x + other.width), max(self.height, y + other.height)
        self.marks += [mark._replace(points=[(a + x, b + y) for a, b in mark.points]) for mark in other.marks]


def room(names: Iterable[str], columns: int = 14, size: float = NORMAL) -> float:
    """The points that the longest of some labels takes, in whatever font the reader has."""
    texts = [words.shortened(name, columns) for name in names]
    widest = max([sum(1.0 if c in "mwMW@%" else 0.66 * words.width(c) for c in text) for text in texts] or [0.0])
    return widest * size


def heat(cells: Cells, title: str = "", note: str = "", names: bool = True, side: float = 300.0) -> Sheet:
    """Counts as cells: what is right in blue, what is wrong in orange, the stronger the larger its share of the row.

    `side` is the most that all cells may take, in points.
    """
    height, width = cells.counts.shape
    numbered = height <= NUMBERED_UP_TO
    size = NORMAL if numbered else max(4.5, SMALL - height / 12)
    down, across = (min(36.0, side / height), min(46.0, side / width)) if numbered else (side / height,) * 2
    longest = max(words.width(words.shortened(name, 14)) for name in cells.columns)
    turned = longest * size * 0.66 > across - 3
    angle = (45.0 if numbered else 90.0) if turned else 0.0
    below = room(cells.columns, 14, size) * math.sin(math.radians(angle)) + size + 8
    left = room(cells.rows, 14, size) + 12 if names else 3.0
    top = 20.0 if title else 4.0
    sheet = Sheet(left + max(across * width, 100.0 if title else 0.0) + 6, top + down * height + below)
    if title:
        sheet.text(left, 8, words.shortened(title, 16), LARGE, bold=True)
        sheet.text(sheet.width - 6, 8, note, SMALL, MUTED, "end")
    shares, counts, right = cells.shares.nan_to_num().tolist(), cells.counts.tolist(), cells.right.tolist()
    gap = 0.03 if numbered else 0.0
    for i in range(height):
        for j in range(width):
            x, y, share = left + j * across, top + i * down, shares[i][j]
            if share:
                alpha = _FULL * share if numbered else share**0.6  # small shares of many classes stay visible
                color = RIGHT if right[i][j] else WRONG
                sheet.rect(x + gap * across, y + gap * down, across * (1 - 2 * gap), down * (1 - 2 * gap), color, alpha)
            if numbered:
                _numbers(sheet, x + across / 2, y + down / 2, int(counts[i][j]), share, min(across, 1.4 * down))
        if names:
            sheet.text(left - 5, top + (i + 0.5) * down, words.shortened(cells.rows[i], 14), size, anchor="end")
    for j, name in enumerate(cells.columns):
        x, y = left + (j + 0.5) * across, top + height * down + size / 2 + 4
        sheet.text(x, y, words.shortened(name, 14), size, anchor="end" if turned else "middle", turn=angle)
    return sheet


def _numbers(sheet: Sheet, x: float, y: float, count: int, share: float, space: float) -> None:
    """A cell's count and, below it, its share; the share alone where there is no room for both."""
    color = INK if count else MUTED
    if space < 31:
        if count:
            sheet.text(x, y, f"{100 * share:.0f}", min(NORMAL, space / 2.6), color, "middle")
    elif not count:
        sheet.text(x, y, "0", NORMAL, color, "middle")
    else:
        sheet.text(x, y - 5.5, words.short(count), NORMAL, color, "middle")
        sheet.text(x, y + 6, f"{100 * share:.0f}%", SMALL - 0.5, color, "middle")


def bars(
    labels: Sequence[str],
    series: Mapping[str, Sequence[Number]],
    unit: str,
    *,
    columns: int = 22,
    shown: Sequence[Sequence[bool]] = (),
    heads: Sequence[str] = (),
    mark: float = math.nan,
    said: str = "",
) -> Sheet:
    """Horizontal bars with intervals and their values, one group a label; differences are drawn in their unit.

    Instead of labels, rows of dots ``shown`` ``(rows, M)`` under `heads` say which modalities there are. `mark` is a
    value for comparison, and `said` its name.
    """
    each = 24.0 if len(series) > 1 else 20.0
    per = max((value.per for values in series.values() for value in values), default=0)
    factor, ends = per or 1, [0.0] if per else [0.0, 1.0]
    ends += [factor * end for values in series.values() for value in values for end in value[:3] if math.isfinite(end)]
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1.0
    left = 24.0 * len(heads) + 8 if heads else room(labels, columns) + 12
    top = 0.75 * room(heads) + 14 if heads else 22.0 if len(series) > 1 else 6.0
    top = max(top, 16.0 if said else 0.0)
    sheet = Sheet(WIDTH, top + each * max(1, len(labels)) + 32)
    right, bottom = WIDTH - 44.0, sheet.height - 28
    place = axes(sheet, (left, top, right, bottom), (low, high))

    def at(value: float) -> float:
        return place(value, 0.0)[0]

    sheet.text(left, bottom + 21, unit, SMALL, MUTED)
    if math.isfinite(mark):
        sheet.line(((at(mark), top), (at(mark), bottom)), MUTED, 1.0, dash=True)
        sheet.text(at(mark) + 3, top - 7, said, SMALL, MUTED)
    thick = 0.72 * each / len(series)
    for i, values in enumerate(series.values()):
        for row, value in enumerate(values):
            y = top + each * (row + 0.5) + (i - (len(series) - 1) / 2) * thick
            number, reach = value.value * factor, [at(0.0)]
            if math.isfinite(number):
                reach.append(at(number))
                x, width = min(reach), abs(reach[1] - reach[0])
                sheet.rect(x, y - 0.41 * thick, width, 0.82 * thick, SERIES[i % len(SERIES)], 0.88)
            if math.isfinite(value.low) and math.isfinite(value.high):
                reach.append(at(value.high * factor))
                sheet.line(((at(value.low * factor), y), (reach[-1], y)), INK, 1.3)
            sheet.text(max(reach) + 4, y, value.text, SMALL)
    sheet.line(((at(0.0), top), (at(0.0), bottom)), MUTED, 0.9)
    for row, label in enumerate(() if heads else labels):
        sheet.text(left - 6, top + each * (row + 0.5), words.shortened(label, columns), anchor="end")
    _dots(sheet, shown, heads, top, each)
    if len(series) > 1:
        _legend(sheet, list(series), left)
    return sheet


def _legend(sheet: Sheet, names: Sequence[str], left: float) -> None:
    width = sum(room([name], 22, SMALL) + 22 for name in names)
    x = max(4.0, min(left, sheet.width - width))
    for i, name in enumerate(names):
        sheet.rect(x, 4, 8, 7, SERIES[i % len(SERIES)], 0.88)
        sheet.text(x + 12, 8, words.shortened(name, 22), SMALL)
        x += room([name], 22, SMALL) + 22


def _dots(sheet: Sheet, shown: Sequence[Sequence[bool]], heads: Sequence[str], top: float, each: float) -> None:
    """Which modality each row shows, as full and empty dots, joined."""
    places = [16 + 24.0 * m for m in range(len(heads))]
    for x, name in zip(places, heads, strict=True):
        sheet.text(x, top - 7, words.shortened(name, 14), turn=45)
    for row, has in enumerate(shown):
        y = top + each * (row + 0.5)
        full = [x for x, there in zip(places, has, strict=True) if there]
        if len(full) > 1:
            sheet.line(((full[0], y), (full[-1], y)), INK, 1.4)
        for x, there in zip(places, has, strict=True):
            sheet.marks.append(Mark("dot", ((x, y),), INK if there else LINE, size=3.0))


def lines(
    curves: Mapping[str, Curve], across: str = "", up: str = "", square: bool = False, diagonal: bool = False
) -> Sheet:
    """One line a curve, named at its end; the whole is black in every picture. `square`: both axes from 0 to 1."""
    first, last, low, high = 0.0, 1.0, 0.0, 1.0
    if not square:
        ends = [v for c in curves.values() for v in (*c.y, *c.low, *c.high) if math.isfinite(v)] or [low, high]
        places = [v for c in curves.values() for v in c.x if math.isfinite(v)] or [first, last]
        first, last = min(places), max(max(places), min(places) + 1.0)
        more = 0.06 * (max(ends) - min(ends)) or 0.05
        low, high = min(ends) - more, max(ends) + more
    left, top = 46.0, 16.0 if up else 8.0
    sheet = Sheet(WIDTH, 250.0 if square else 180.0)
    right, bottom = WIDTH - 14 - room(curves), sheet.height - 32

    at = axes(sheet, (left, top, right, bottom), (first, last), (low, high), 0.0 if square else 1.0)
    if diagonal:
        sheet.line((at(first, low), at(last, high)), MUTED, 1.0, dash=True)
    sheet.text(left, bottom + 24, across, SMALL, MUTED)
    sheet.text(4, 6, up, SMALL, MUTED)
    named = []
    for i, (name, curve) in enumerate(curves.items()):
        color = INK if name == "all" else SERIES[(i - ("all" in list(curves)[:i])) % len(SERIES)]
        seen = [k for k, y in enumerate(curve.y) if math.isfinite(y)]
        for _, stretch in groupby(enumerate(seen), lambda entry: entry[1] - entry[0]):  # between gaps
            run = [k for _, k in stretch]
            if curve.low:
                below, above = ([at(curve.x[k], ends[k]) for k in run] for ends in (curve.low, curve.high))
                if all(math.isfinite(y) for _, y in below + above):
                    sheet.marks.append(Mark("area", below + above[::-1], color, 0.14))
            along = [at(curve.x[k], curve.y[k]) for k in run]
            sheet.line(along, color, 1.6)
            if len(run) == 1:
                sheet.marks.append(Mark("dot", along, color, size=2.4))
        if seen:
            named.append((at(0, curve.y[seen[-1]])[1], name, color))
    spread = apart([y for y, *_ in named], 11.5)
    inside = max(0.0, top - min(spread, default=top))  # where lines end at the top, as all of a ROC do
    inside += min(0.0, bottom - max(spread, default=bottom))
    for y, (_, name, color) in zip(spread, named, strict=True):
        sheet.text(right + 6, y + inside, words.shortened(name, 14), color=color)
    return sheet


def axes(
    sheet: Sheet,
    box: tuple[float, float, float, float],
    across: tuple[float, float],
    up: tuple[float, float] | None = None,
    least: float = 0.0,
) -> Callable[[float, float], tuple[float, float]]:
    """Lines and numbers at round values in a box, its left, top, right and bottom; gives the place of two values.

    Without `up` there is nothing to read upwards; `least` is the least step across.
    """
    left, top, right, bottom = box
    (first, last), (low, high) = across, up or (0.0, 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - first) / (last - first) * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    for tick in ticks(first, last, 5, least):
        x, _ = at(tick, low)
        sheet.line(((x, top), (x, bottom)), LINE, 0.6)
        sheet.text(x, bottom + 9, f"{tick:g}".replace("-", "−"), SMALL, MUTED, "middle")
    for tick in ticks(low, high, 5) if up else ():
        _, y = at(first, tick)
        sheet.line(((left, y), (right, y)), LINE, 0.6)
        sheet.text(left - 5, y, f"{tick:g}".replace("-", "−"), SMALL, MUTED, "end")
    return at


def ticks(low: float, high: float, most: int, least: float = 0.0) -> list[float]:
    """Round numbers from `low` to `high`, about `most` of them, `least` apart.

    >>> ticks(0.0, 1.0, 5), ticks(-3.0, 48.0, 5), ticks(0.0, 2.0, 5, 1.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10.0, 20.0, 30.0, 40.0], [0.0, 1.0, 2.0])
    """
    rough = max((high - low) / most, least)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * s for s in (1, 2, 5, 10) if unit * s >= 0.8 * rough)
    return [round(k * step, 10) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def apart(places: Sequence[float], least: float) -> list[float]:
    """The same places, moved as little as it takes to lie `least` apart."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for _ in range(50):
        for i, j in pairwise(order):
            push = max(0.0, least - (moved[j] - moved[i])) / 2
            moved[i], moved[j] = moved[i] - push, moved[j] + push
    return moved
