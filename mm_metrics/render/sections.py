"""What the page shows of one card, of several against each other, and over epochs: pictures with words and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mm_metrics import words
from mm_metrics.counts.compare import Comparison
from mm_metrics.render import changes, charts, curves, draw, fitted, phrases, svg, tables
from mm_metrics.render.charts import number
from mm_metrics.render.curves import Curve
from mm_metrics.render.draw import Sheet
from mm_metrics.render.tables import Number, Table, Tables

_EPOCHS_SHOWN = 50
_PANELS_SHOWN = 13  # slices whose confusion is drawn
_CLASSES_SHOWN = 10


class Picture(NamedTuple):
    """A sheet, what it says in words, and its numbers."""

    title: str
    alt: str
    tables: list[tuple[str, Table]]
    sheet: Sheet
    caption: str = ""

    @property
    def svg(self) -> str:
        """The sheet as an element of the page."""
        return svg.inline(self.sheet, self.alt)


@dataclass
class Section:
    """What the page shows of one scorecard beside its sentences and tables."""

    told: Tables
    worst: Table | None = None  # classes of lowest recall, where there are more than two
    gains: list[Picture] = field(default_factory=list)
    coalitions: Picture | None = None
    fits: list[Picture] = field(default_factory=list)
    confusions: list[Picture] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)

    @property
    def panel_size(self) -> str:
        """How much room a confusion needs."""
        classes, longest = len(self.told.names), max(words.width(name) for name in self.told.names)
        return "small" if classes <= 4 and longest <= 8 else "medium" if classes <= 12 else "large"


def section(told: Tables) -> Section:
    """One card's."""
    made = Section(told, curves=_curves(told) if told.further.rows else [])
    if len(told.coalitions) > 1:
        made.gains = [_contributions(told), *([_interactions(told)] if told.interactions.rows else [])]
        made.coalitions = _coalitions(told)
    for slice in told.distinct[:_PANELS_SHOWN]:
        support = words.count(told.supports[slice], "sample")
        if line := fitted.fit(told, slice):
            numbers = fitted.table(told, slice, line)
            alt = f"Predicted against true on {slice}, {support}: {_said(numbers, 1)}"
            made.fits.append(Picture(slice, alt, [("Numbers", numbers)], fitted.panel(told, slice, line), support))
        cells = told.cells(slice)
        if cells is None or not told.supports[slice]:
            continue
        counts, worst = told.confusion_table(slice), told.worst_classes(slice)
        beside = [("Counts" if counts.columns[1:2] != ("taken for",) else "Largest errors", counts)]
        if len(told.names) > 2 and slice == "all":
            made.worst = worst._replace(rows=worst.rows[:_CLASSES_SHOWN])
        elif len(told.names) > 2:
            beside.append((f"{told.kind.nouns.capitalize()} of lowest recall", worst))
        alt = f"Confusion on {slice}: {_said(worst._replace(rows=worst.rows[:6]), 2, 'recall of')}"
        made.confusions.append(Picture(slice, alt, beside, draw.heat(cells), support))
    return made


def _curves(told: Tables) -> list[Picture]:
    """The curves of histograms that were kept, or a table alone of scores that have no curve."""
    pooled = "" if told.kind.positive else f" All {told.kind.nouns} are pooled, one against the rest."
    bands, sure = "Bands are 95% intervals.", "On the diagonal it is as often right as it is sure."
    made = []
    for title, field_, make, across, up, caption in (
        ("ROC", "curves", curves.roc, "false alarms", "hits", bands),
        ("Precision and recall", "curves", curves.precision_recall, "recall", "precision", bands),
        ("Reliability", "levels", curves.reliability, "how sure", "how often right", sure),
    ):
        drawn = told.curves(field_, make)
        if drawn:
            alt = f"{title} of {', '.join(drawn)}: {_said(told.further, 1, told.further.columns[1] + ' of')}"
            points = [(name, *_thinned(curve)) for name, curve in drawn.items()]
            heads = (f"{across} → {up}", *(f"point {i}" for i in range(1, _LISTED + 1)))
            sheet = draw.lines(drawn, across, up, square=True, diagonal=make is not curves.precision_recall)
            beside = [("Scores", told.further), ("Along the curve", Table(heads, points))]
            made.append(Picture(title, alt, beside, sheet, caption + pooled))
    return made


_LISTED = 6


def _thinned(curve: Curve) -> list[str]:
    """Points along a curve, as words."""
    n = len(curve.x)
    at = [round(i * (n - 1) / (_LISTED - 1)) for i in range(_LISTED)]
    return [f"{words.score(curve.x[k])} → {words.score(curve.y[k])}" for k in at]


def _contributions(told: Tables) -> Picture:
    unit = words.unit(told.score)
    drops = any(row[1].value == row[1].value for row in told.contributions.rows)
    what = "Lost without each modality" if drops else "Gained by each modality alone"
    alt = f"{what}, in {unit}: {_said(told.contributions, 1 if drops else 2)}"
    caption = (
        "The drop is what is lost without a modality. Shapley values share out the whole and sum to all less none."
    )
    caption = f"{caption} {phrases.guessed(told)}".rstrip()
    beside = [(unit, told.contributions)]
    return Picture("What each modality gives", alt, beside, charts.contributions(told), caption)


def _coalitions(told: Tables) -> Picture:
    label = words.label(told.score)
    alt = f"{label} by the modalities shown: {_said(told.coalition_scores(told.telling), 1)}"
    everything = told.coalition_scores(told.coalitions)
    beside = [(" and ".join(everything.columns[1:]), everything)]
    caption = f"Full dots are modalities that the model was shown; bars are {label}, lines 95% intervals."
    return Picture("Shown only these modalities", alt, beside, charts.coalitions(told), caption)


def _interactions(told: Tables) -> Picture:
    unit = words.unit(told.score)
    alt = f"Interactions in {unit}: {_said(told.interactions, 1)}"
    beside = [(unit, told.interactions), ("Of all modalities", told.together)]
    caption = "Above 0 two modalities give more together than each adds alone; below 0 they repeat each other."
    return Picture("Together or instead", alt, beside, charts.interactions(told), caption)


def _said(table: Table, column: int, opening: str = "") -> str:
    """The first rows of a table as a sentence, for who does not see the picture."""
    parts = []
    for row in table.rows[:8]:
        value = row[column]
        parts.append(f"{opening} {row[0]} {value.text} {value.interval}".strip())
    return ", ".join(parts) + (f" and {len(table.rows) - 8} more" if len(table.rows) > 8 else "") + "."


@dataclass
class Compared:
    """The cards of one stage: models in rows, and the newest less the oldest."""

    stage: str
    models: Table
    new: str
    old: str
    paired: bool = False
    pictures: list[Picture] = field(default_factory=list)
    refused: str = ""


def compared(told: Sequence[Tables], stage: str) -> Compared:
    """The cards of a stage, the oldest first; why not where they measure different things."""
    old, new = told[0], told[-1]
    slices = [name for name in new.distinct if all(name in one.slices for one in told)][1:]
    scores = tables.slice_scores(new.card)[:3] if new.kind.ordinal else ("accuracy", "f1", "recall")
    columns = [*((s, "all") for s in scores), *((scores[0 if new.kind.ordinal else 2], name) for name in slices)]
    heads = [f"{'' if slice == 'all' else slice} {words.heading(score)}".strip() for score, slice in columns]
    rows = [(one.name, one.supports["all"], *(one.estimate(s, slice=x) for s, x in columns)) for one in told]
    made = Compared(stage, Table(("model", "n", *heads), rows[::-1]), new.name, old.name)
    try:
        comparison = Comparison(new.card, old.card)
    except ValueError as error:
        made.refused = str(error)
        return made
    made.paired = comparison.paired
    score = new.score
    title = f"{new.name} less {old.name}"
    for table in changes.differences(comparison, new.distinct):
        drawn = [name for name in ("recall", "F1") if name in table.columns] or table.columns[1:3]
        what, unit = "scores", "points"
        if table.rows[0][1].per == 1:
            what, unit = "errors", " and ".join(name.removesuffix(" ↓") for name in drawn)
        made.pictures.append(_differences(table, drawn, f"{title}: {what} by slice", unit))
    gains = tables.gains(comparison.contributions(score) if old.gains and new.gains else {}, score)
    if any(row[1].value == row[1].value for row in gains.rows):
        what = f"{title}: what each modality gives"
        made.pictures.append(_differences(gains, gains.columns[1::2], what, words.unit(score)))
    if not new.kind.positive and new.card.knows("recall"):
        classes = changes.class_differences(comparison)
        shown = classes.columns[1:] if len(classes.rows) > 1 else ()
        if shown:
            made.pictures.append(_differences(classes, shown, f"{title}: {new.kind.nouns}", "points"))
    return made


def _differences(table: Table, shown: Sequence[str], title: str, unit: str) -> Picture:
    series = {name: [row[table.columns.index(name)] for row in table.rows] for name in shown}
    alt = f"{title}, differences in {unit}: {_said(table, table.columns.index(shown[0]), shown[0])}"
    return Picture(title, alt, [(unit, table)], charts.bars(table, series, unit))


def histories(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str], score: str) -> list[Picture]:
    """Scores of every slice, and drops in points, over epochs, for every stage that the keys tell."""
    keys = tables.history_keys(rows)
    stages = dict.fromkeys(key.partition(mark)[0] for key in keys for mark in ("/all/", "/drop/") if mark in key)
    made = []
    for stage in stages:
        for name in dict.fromkeys((score, "recall")):
            series = {slice: f"{stage}/{slice}/{name}" for slice in ("all", *modalities)}
            made.append(lines(rows, series, keys, f"{stage}: {words.label(name)} by slice"))
        series = {name: f"{stage}/drop/{name}/{score}" for name in modalities}
        title = f"{stage}: drop without a modality"
        made.append(lines(rows, series, keys, title, words.unit(score), words.per(score)))
    return list(filter(None, made))


def dynamics(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> list[Picture]:
    """One picture for each thing that is measured of every modality: keys that differ in the modality's name alone."""
    keys = tables.history_keys(rows)
    groups: dict[str, dict[str, str]] = {}
    for key in keys:
        parts = key.split("/")
        whose = next((part for part in parts if part in modalities), None)
        what = " ".join(part for part in parts if part not in (whose, "dynamics")).replace("_", " ")
        groups.setdefault(what, {})[whose or parts[-1]] = key
    return list(filter(None, (lines(rows, series, keys, words.clean(what)) for what, series in groups.items())))


def lines(
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, str],
    keys: Iterable[str],
    title: str,
    label: str = "",
    per: int = 0,
) -> Picture | None:
    """Values over epochs with their bands, where the rows hold bounds; None where no row holds any of the keys."""
    series = {name: key for name, key in series.items() if key in keys}
    if not series:
        return None

    def cells(row: Mapping[str, Any]) -> list[Number]:
        ends = [[number(row.get(f"{key}{end}")) for end in ("", "/low", "/high")] for key in series.values()]
        return [Number(value, low, high, per) for value, low, high in ends]

    body = [(words.clean(row.get("epoch", i)), *cells(row)) for i, row in enumerate(rows)]
    table = Table(("epoch", *map(words.clean, series)), body[-_EPOCHS_SHOWN:])
    alt = f"{title} over {words.count(len(rows), 'epoch')}; at the end: " + ", ".join(
        f"{name} {value.text}" for name, value in zip(table.columns[1:], table.rows[-1][1:], strict=True)
    )
    return Picture(title, alt, [("By epoch", table)], charts.history(rows, series, label, per or 1))
