"""One HTML file that says it all: readable without a script, a network or a second file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm_metrics import __version__, words
from mm_metrics.counts.compare import Comparison
from mm_metrics.counts.tally import Tally
from mm_metrics.extras import install
from mm_metrics.files import write_whole
from mm_metrics.render import phrases, tables
from mm_metrics.render.tables import Number, Table
from mm_metrics.verdict import QualityGate, Verdict, judge

_STAGE = re.compile(r"(train|val|validate|test|predict)(_\d+)?")
_EPOCHS_SHOWN = 50
_FINDINGS_SHOWN = 12
_PANELS_SHOWN = 13  # slices whose confusion is drawn


@dataclass
class Picture:
    """A figure, what it says in words, and its numbers."""

    title: str
    alt: str
    tables: list[tuple[str, Table]]
    svg: str = ""
    caption: str = ""


@dataclass
class Section:
    """What the page shows of one scorecard."""

    name: str
    card: Tally
    verdict: Verdict
    worth: str
    next_step: str
    tiles: list[tuple[str, Number]]
    scores: Table
    pictures: list[Picture] = field(default_factory=list)
    confusions: list[Picture] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def panel_size(self) -> str:
        """How much room a confusion needs."""
        classes, longest = len(self.card.names), max(words.width(name) for name in self.card.names)
        return "small" if classes <= 4 and longest <= 8 else "medium" if classes <= 12 else "large"


@dataclass
class Against:
    """Two cards of one stage: the differences, new less old."""

    new: str
    old: str
    paired: bool = False
    picture: Picture | None = None
    refused: str = ""


def write(
    path: str | os.PathLike[str],
    cards: Tally | Mapping[str, Tally] | Sequence[Tally],
    *,
    verdicts: Verdict | Mapping[str, Verdict] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    leakage: Sequence[Mapping[str, Any]] | None = None,
    dynamics: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write the report to `path`, whole or not at all, and return it.

    Args:
        path: of the HTML file.
        cards: one scorecard, or several, by name or in a list. Those of one stage (``info["stage"]``, else the name)
            are compared, each with the first of them.
        verdicts: as the cards; the default gate's where not given.
        history: one dict an epoch, ``{"epoch": 0, "val/all/f1": …}``.
        samples: what to look at, ``{"kind", "modality", "samples", "message"}`` each, with ``"stage"`` where several
            cards are shown.
        leakage: what splits share, ``{"kind", "modality", "splits", "count", "share"}`` each.
        dynamics: one dict an epoch, of how fast each modality learns.

    Raises ImportError without Jinja2; without matplotlib alone, tables stand in for pictures.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(f"the report needs Jinja2: {install('jinja2')}") from error
    named = _named(cards)
    if not named:
        raise ValueError("cards is empty: give one scorecard, or several by name")
    given = verdicts if isinstance(verdicts, Mapping) else dict.fromkeys(named, verdicts)
    painter = _Painter()
    sections = [
        _section(name, card, given.get(name) or judge(card, QualityGate()), _of_stage(samples, name, named), painter)
        for name, card in named.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm_metrics.render", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, finalize=_printable,
    )  # fmt: skip
    page = environment.get_template("template.html").render(
        sections=sections,
        comparisons=_comparisons(named, painter),
        histories=_histories(history or (), named, painter),
        dynamics=_dynamics(dynamics or (), sections[0].card.modalities, painter),
        leakage=_leakage(leakage),
        asked_for_leakage=leakage is not None,
        without_pictures=""
        if painter.can
        else f"Pictures need matplotlib, which is not installed here: {install('matplotlib')}.",
        version=__version__,
        Number=Number,
    )
    return write_whole(path, page.lstrip())


def _named(cards: Tally | Mapping[str, Tally] | Sequence[Tally]) -> dict[str, Tally]:
    if isinstance(cards, Mapping):
        return dict(cards)
    listed = [cards] if isinstance(cards, Tally) else list(cards)
    return {"": listed[0]} if len(listed) == 1 else {f"card {i}": card for i, card in enumerate(listed, 1)}


class _Painter:
    """Figures to inline SVG, each with ids of its own; none where matplotlib is missing."""

    def __init__(self) -> None:
        self.count = 0
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            self.can = False
        else:
            self.can = True

    def __call__(self, draw: Callable[[Any], tuple[Any, Any]], alt: str) -> str:
        if not self.can:
            return ""
        from mm_metrics.render import figures, svg

        self.count += 1
        return svg.inline(draw(figures)[0], f"figure-{self.count}", alt)


def _section(name: str, card: Tally, verdict: Verdict, samples: list[dict[str, Any]], painter: _Painter) -> Section:
    weak = next((finding.modality for finding in verdict.findings if finding.modality in card.slices), None)
    section = Section(
        words.clean(name), card, verdict, phrases.worth(card), phrases.next_step(card, samples, weak),
        [(words.label(score), Number(*card.estimate(score, card.whole))) for score in tables.SCORES],
        tables.slice_scores(card), samples=samples, facts=_facts(card),
    )  # fmt: skip
    if len(card.coalitions) > 1:
        section.pictures = [picture for picture in _worth_pictures(card, painter) if picture is not None]
    if not card.support("all", card.whole):
        return section
    for slice in card.slices[:_PANELS_SHOWN]:
        table = tables.confusion_table(card, slice)
        beside = [("Counts" if table.columns[1:2] != ("taken for",) else "Largest errors", table)]
        if len(card.names) > 2:
            beside.append(("Classes of lowest recall", tables.worst_classes(card, slice)))
        alt = f"Confusion on {slice}: " + _said(tables.worst_classes(card, slice, 6), 2, "recall of")
        svg = painter(lambda figures, slice=slice: figures.confusion(card, slice, titled=False), alt)  # type: ignore[misc]
        support = words.count(card.support(slice, card.whole), "sample")
        section.confusions.append(Picture(slice, alt, beside, svg, support))
    return section


def _worth_pictures(card: Tally, painter: _Painter) -> Iterable[Picture | None]:
    shown = tables.coalition_scores(card)
    score = words.label(phrases.telling(card))
    alt = f"{score} by the modalities shown: " + _said(shown, 1)
    everything = tables.coalition_scores(card, all_of_them=True)
    yield Picture(
        "Shown only these modalities", alt, [(" and ".join(everything.columns[1:]), everything)],
        painter(lambda figures: figures.coalitions(card), alt),
        f"Full dots are modalities that the model was shown; bars are {score}, lines 95% intervals.",
    )  # fmt: skip
    given = tables.contribution_points(card)
    alt = f"Points of {score} lost without each modality: " + _said(given, 1)
    yield Picture(
        "What each modality gives", alt, [(f"Points of {score}", given)],
        painter(lambda figures: figures.contributions(card), alt),
        "The drop is what is lost without a modality. Shapley values share out the whole and sum to all less none.",
    )  # fmt: skip
    pairs = tables.interaction_points(card)
    if pairs.rows:
        alt = f"Interactions in points of {score}: " + _said(pairs, 1)
        overall = Table(("measure", "value"), tables.together(card))
        yield Picture(
            "Together or instead", alt, [(f"Points of {score}", pairs), ("Of all modalities", overall)],
            painter(lambda figures: figures.interactions(card), alt),
            "Above 0 two modalities give more together than each adds alone; below 0 they repeat each other.",
        )  # fmt: skip


def _said(table: Table, column: int, opening: str = "") -> str:
    """The first rows of a table as a sentence, for who does not see the picture."""
    parts = []
    for row in table.rows[:8]:
        number = row[column]
        unit = " points" if number.points else ""
        parts.append(f"{opening} {row[0]} {number.text}{unit} {number.interval}".strip())
    return ", ".join(parts) + (f" and {len(table.rows) - 8} more" if len(table.rows) > 8 else "") + "."


def _comparisons(named: Mapping[str, Tally], painter: _Painter) -> list[Against]:
    """Each card against the first of its stage."""
    first: dict[str, str] = {}
    found = []
    for name, card in named.items():
        stage = str(card.info.get("stage") or (name if _STAGE.fullmatch(name) else ""))
        old = first.setdefault(stage, name)
        if old == name:
            continue
        against = Against(words.clean(name), words.clean(old))
        found.append(against)
        try:
            comparison = Comparison(card, named[old])
            table = tables.differences(comparison)
        except ValueError as error:
            against.refused = str(error)
            continue
        against.paired = comparison.paired
        recalls = table.columns.index("recall")
        alt = f"Differences of recall, {against.new} less {against.old}: {_said(table, recalls)}"
        svg = painter(lambda figures, comparison=comparison: figures.differences(comparison), alt)  # type: ignore[misc]
        against.picture = Picture(f"{against.new} less {against.old}", alt, [("Points", table)], svg)
    return found


def _histories(rows: Sequence[Mapping[str, Any]], named: Mapping[str, Tally], painter: _Painter) -> list[Picture]:
    """F1 of every slice, and drops, over epochs, for every stage that the keys tell."""
    rows = [dict(row) for row in rows]
    keys = tables.history_keys(rows)
    modalities = next(iter(named.values())).modalities
    stages = list(dict.fromkeys(key.partition("/")[0] for key in keys if key.count("/") >= 2))
    pictures = []
    for stage in stages:
        for score in ("f1", "recall"):
            series = {name: f"{stage}/{name}/{score}" for name in ("all", *modalities)}
            pictures.append(_lines(rows, series, keys, f"{stage}: {words.label(score)} by slice", "", painter))
        series = {name: f"{stage}/drop/{name}/f1" for name in modalities}
        pictures.append(_lines(rows, series, keys, f"{stage}: drop without a modality", "F1", painter))
    return [picture for picture in pictures if picture is not None]


def _dynamics(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str], painter: _Painter) -> list[Picture]:
    """One picture for each thing that is measured of every modality: keys that differ in the modality's name alone."""
    rows = [dict(row) for row in rows]
    keys = tables.history_keys(rows)
    groups: dict[str, dict[str, str]] = {}
    for key in keys:
        parts = key.split("/")
        whose = next((part for part in parts if part in modalities), None)
        what = " ".join(part for part in parts if part not in (whose, "dynamics")).replace("_", " ")
        groups.setdefault(what, {})[whose or parts[-1]] = key
    pictures = [_lines(rows, series, keys, words.clean(what), "", painter) for what, series in groups.items()]
    return [picture for picture in pictures if picture is not None]


def _lines(
    rows: Sequence[Mapping[str, Any]], series: Mapping[str, str], keys: Sequence[str], title: str, label: str,
    painter: _Painter,
) -> Picture | None:  # fmt: skip
    series = {name: key for name, key in series.items() if key in keys}
    if not series:
        return None
    table = Table(
        ("epoch", *map(words.clean, series)),
        [
            (words.clean(row.get("epoch", i)), *(Number(_float(row.get(key))) for key in series.values()))
            for i, row in enumerate(rows)
        ][-_EPOCHS_SHOWN:],
    )
    alt = f"{title} over {words.count(len(rows), 'epoch')}; at the end: " + ", ".join(
        f"{name} {number.text}" for name, number in zip(table.columns[1:], table.rows[-1][1:], strict=True)
    )
    svg = painter(lambda figures: figures.history(rows, series, label), alt)
    return Picture(title, alt, [("By epoch", table)], svg)


def _leakage(findings: Sequence[Mapping[str, Any]] | None) -> Table:
    rows = []
    for entry in findings or ():
        splits = entry.get("splits", "")
        where = splits if isinstance(splits, str) else " → ".join(map(str, splits))
        what = words.clean(entry.get("kind", "")).replace("_", " ")
        share = _float(entry.get("share"))
        said = f"{100 * share:.1f}%" if math.isfinite(share) else words.ABSENT
        rows.append((what, words.clean(entry.get("modality", "")), words.clean(where), entry.get("count", 0), said))
    return Table(("kind", "modality", "splits", "count", "share"), rows)


def _of_stage(
    samples: Sequence[Mapping[str, Any]] | None, name: str, named: Mapping[str, Tally]
) -> list[dict[str, Any]]:
    """The samples of one card: those that name it, and where none is named those of the first."""
    first = next(iter(named))
    return [dict(entry) for entry in samples or () if entry.get("stage", first) == name or len(named) == 1]


def _facts(card: Tally) -> list[tuple[str, str]]:
    """What was run, as (what, value)."""
    facts = {
        "modalities": ", ".join(card.modalities),
        "task": f"{card.task}, {len(card.names):,} {card.kind.noun if len(card.names) == 1 else card.kind.nouns}",
        "samples": f"{card.samples:,}",
        "coalitions": f"{len(card.coalitions)} of {2 ** len(card.modalities)}",
        "bootstrap replicates": str(card.layout.R),
        "bootstrap seed": str(card.seed),
    }
    for key, value in card.info.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{inner} {part}" for inner, part in value.items())
        facts[words.clean(key)] = words.clean(value)
    return list(facts.items())


def _printable(value: Any) -> Any:
    """What the template puts in: names without control characters; what is markup already stays."""
    return words.clean(value) if type(value) is str else value


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
