"""Which picture is drawn of which table: tables in, sheets out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mm_metrics import words
from mm_metrics.render import draw, fitted, phrases
from mm_metrics.render.confusion import Cells
from mm_metrics.render.curves import Curve
from mm_metrics.render.draw import Sheet
from mm_metrics.render.tables import Number, Table, Tables

PANELS = 4  # confusions side by side
_PAIRS = 15


def confusions(told: Tables) -> Sheet | None:
    """The confusions of all slices that are not the whole, side by side; None where no matrix was kept."""
    panels = [(told.cells(name), name, f"n = {told.supports[name]:,}") for name in told.distinct]
    return side_by_side([(cells, name, note) for cells, name, note in panels if cells is not None])


def fits(told: Tables) -> Sheet | None:
    """Predicted against true numbers of all slices that are not the whole, side by side; None of other tasks."""
    lines = [(name, fitted.fit(told, name)) for name in told.distinct]
    return _in_rows([fitted.panel(told, name, line, name, 160.0) for name, line in lines if line])


def side_by_side(panels: Sequence[tuple[Cells, str, str]]) -> Sheet | None:
    """Confusions with their names and a note each, four in a row."""
    return _in_rows([draw.heat(*panel, names=i % PANELS == 0, side=160.0) for i, panel in enumerate(panels)])


def _in_rows(drawn: Sequence[Sheet]) -> Sheet | None:
    return _stacked([drawn[i : i + PANELS] for i in range(0, len(drawn), PANELS)]) if drawn else None


def _stacked(rows: Iterable[Sequence[Sheet]], gap: float = 10.0) -> Sheet:
    """Sheets beside each other in rows, each row below the one before it."""
    whole = Sheet(0, 0)
    for row in rows:
        x, y = 0.0, whole.height
        for part in row:
            whole.place(part, x, y)
            x += part.width + gap
        whole.height += gap
    return whole


def drawn(told: Tables) -> dict[str, Sheet]:
    """What loggers get, under titles: confusions, lines, coalitions, contributions, as there are any."""
    sheets = {
        "confusions": ("Confusion: rows are what was there", confusions(told)),
        "predicted": ("Predicted against true: dashes are equal", fits(told)),
    }
    if len(told.coalitions) > 1:
        sheets["coalitions"] = "Shown only these modalities", coalitions(told)
        sheets["contributions"] = "What each modality gives", contributions(told)
    return {name: _titled(title, sheet) for name, (title, sheet) in sheets.items() if sheet}


def summary(told: Tables) -> Sheet:
    """The essentials on one sheet: the verdict, what each modality is worth, confusions."""
    parts = drawn(told)
    order = (("coalitions", "contributions"), ("predicted",), ("confusions",))
    rows = [row for names in order if (row := [parts[name] for name in names if name in parts])]
    return _stacked([[_head(told, max(792.0, _stacked(rows).width))], *rows])


def coalitions(told: Tables) -> Sheet:
    """The headline score of every coalition: dots say which modalities were shown, bars what it scored."""
    names, guess = told.telling, told.majority
    label = words.label(told.score)
    known = 0 < guess < 1
    return draw.bars(
        names,
        {label: [told.estimate(told.score, name) for name in names]},
        label,
        shown=told.shown(names).tolist(),
        heads=told.modalities,
        mark=guess if known else float("nan"),
        said="guessing the majority" if known else "",
    )


def contributions(told: Tables) -> Sheet:
    """What is lost without each modality, and its Shapley value; of heads what each gains alone."""
    columns = {name: [row[i + 1] for row in told.contributions.rows] for i, name in enumerate(_GIVEN)}
    known = {name: part for name, part in columns.items() if any(value.value == value.value for value in part)}
    shown = [name for name in (_GIVEN[0], _GIVEN[2]) if name in known] or [_GIVEN[1]]
    return bars(told.contributions, {name: columns[name] for name in shown}, words.unit(told.score))


_GIVEN = ("drop without it", "gain alone", "Shapley value")


def interactions(told: Tables) -> Sheet:
    """The pairs of modalities that interact most: more, or less, than each adds alone."""
    rows = told.interactions.rows[:_PAIRS]
    return bars(Table((), rows), {"interaction": [row[1] for row in rows]}, words.unit(told.score), 26)


def bars(table: Table, series: Mapping[str, Sequence[Number]], unit: str, columns: int = 22) -> Sheet:
    """Differences, one group of bars a row of the table."""
    return draw.bars([row[0] for row in table.rows], series, unit, columns=columns)


def history(
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, str],
    label: str = "",
    factor: float = 1.0,
    across: str = "epoch",
) -> Sheet:
    """Values over epochs, a line each with its band: `rows` are one dict an epoch, `series` names to keys of them."""
    x = [number(row.get("epoch", i)) for i, row in enumerate(rows)]
    curves = {}
    for name, key in series.items():
        y, low, high = ([factor * number(row.get(end)) for row in rows] for end in (key, f"{key}/low", f"{key}/high"))
        banded = any(value == value for value in (*low, *high))
        curves[name] = Curve(x, y, low, high) if banded else Curve(x, y)
    return draw.lines(curves, across, label)


def number(value: Any) -> float:
    """A number as it is kept in a history; NaN for what is none."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _head(told: Tables, width: float) -> Sheet:
    """The verdict, what each modality is worth and what to look at next, above a summary."""
    lines = textwrap.wrap(words.clean(told.verdict.headline), 80, max_lines=2, placeholder=" …")
    sheet = Sheet(width, 58.0 + 20 * len(lines))
    sheet.rect(12, 12, 5, sheet.height - 20, draw.LEVELS.get(told.verdict.level, draw.MUTED))
    for i, line in enumerate(lines):
        sheet.text(28, 21 + 20 * i, line, 15.5, bold=True)
    y = 23.0 + 20 * len(lines)
    for said, size, color in (
        (phrases.worth(told.gains, told.score), 11.5, draw.INK),
        (phrases.next_step(told), 10.5, draw.MUTED),
    ):
        sheet.text(28, y, textwrap.shorten(said, 120, placeholder=" …"), size, color)
        y += 18
    return sheet


def _titled(title: str, sheet: Sheet) -> Sheet:
    whole = Sheet(0, 0)
    whole.text(4, 8, title, draw.LARGE, bold=True)
    whole.place(sheet, 0, 20)
    return whole
