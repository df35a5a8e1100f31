"""One HTML file that says it all: readable without a script, a network or a second file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mm_metrics import __version__, words
from mm_metrics.counts.tally import Tally
from mm_metrics.extras import needed
from mm_metrics.files import write_whole
from mm_metrics.render import phrases, sections, tables
from mm_metrics.render import samples as kept
from mm_metrics.render.charts import number
from mm_metrics.render.sections import Compared
from mm_metrics.render.tables import Table, Tables
from mm_metrics.verdict import Verdict

_STAGE = re.compile(r"(train|val|validate|test|predict)(_\d+)?")
Cards = Tally | Tables


def write(
    path: str | os.PathLike[str],
    cards: Cards | Mapping[str, Cards] | Sequence[Cards],
    *,
    verdicts: Verdict | Mapping[str, Verdict] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    leakage: Sequence[Mapping[str, Any]] | None = None,
    dynamics: Sequence[Mapping[str, Any]] | None = None,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write the report to `path`, whole or not at all, and return it.

    Args:
        path: of the HTML file.
        cards: one scorecard, or several, by name or in a list, the oldest first. Those of one stage
            (``info["stage"]``, else the name) are compared, the newest with the oldest.
        verdicts: as the cards; the default gate's where not given.
        history: one dict an epoch, ``{"epoch": 0, "val/all/f1": …}``; bounds ``…/low`` and ``…/high`` are bands.
        samples: what to look at, ``{"kind", "modality", "samples", "message"}`` each, with ``"stage"`` where several
            cards are shown.
        leakage: what splits share, ``{"kind", "modality", "splits", "count", "share"}`` each.
        dynamics: one dict an epoch, of how fast each modality learns.
        shown: the samples of findings, in the form of `mm_metrics.render.samples.shown`, each with its ``"stage"``
            where several cards are shown; the page stays below 5 MB.

    Raises ImportError without Jinja2.
    """
    with needed("jinja2", "the report needs Jinja2"):
        import jinja2
    named = _named(cards)
    if not named:
        raise ValueError("cards is empty: give one scorecard, or several by name")
    given = verdicts if isinstance(verdicts, Mapping) else dict.fromkeys(named, verdicts)
    told = {
        name: tables.of(card, given.get(name), _of_stage(samples, name, named), name) for name, card in named.items()
    }
    first, compared = next(iter(told.values())), _comparisons(told)
    room = kept.MOST_BYTES / len(named)
    newest_first = list(told.values())[:: -1 if compared else 1]
    page = _template(jinja2).render(
        sections=[sections.section(one) for one in newest_first],
        shown={one.name: kept.shown(_of_stage(shown, name, named), room) for name, one in told.items()},
        comparisons=compared,
        histories=sections.histories([dict(row) for row in history or ()], first.modalities, first.score),
        dynamics=sections.dynamics([dict(row) for row in dynamics or ()], first.modalities),
        leakage=_leakage(leakage),
        asked_for_leakage=leakage is not None,
        version=__version__,
        phrases=phrases,
    )
    return write_whole(path, page.lstrip())


@cache
def _template(jinja2: Any) -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm_metrics.render", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
    )
    return environment.get_template("template.html")


def _named(cards: Cards | Mapping[str, Cards] | Sequence[Cards]) -> dict[str, Cards]:
    if isinstance(cards, Mapping):
        return dict(cards)
    listed = [cards] if isinstance(cards, Tally | Tables) else list(cards)
    return {"": listed[0]} if len(listed) == 1 else {f"card {i}": card for i, card in enumerate(listed, 1)}


def _of_stage(entries: Sequence[Mapping[str, Any]] | None, name: str, named: Mapping[str, Cards]) -> list[Any]:
    """One card's entries: those that name it; those that name none are the first card's."""
    return [one for one in entries or () if one.get("stage", next(iter(named))) == name or len(named) == 1]


def _comparisons(told: Mapping[str, Tables]) -> list[Compared]:
    """Of every stage that has several cards."""
    stages: dict[str, list[Tables]] = {}
    for name, one in told.items():
        stage = str(one.card.info.get("stage") or (name if _STAGE.fullmatch(name) else ""))
        stages.setdefault(stage, []).append(one)
    return [sections.compared(cards, words.clean(stage)) for stage, cards in stages.items() if len(cards) > 1]


def _leakage(findings: Sequence[Mapping[str, Any]] | None) -> Table:
    rows = []
    for entry in findings or ():
        splits = entry.get("splits", "")
        where = splits if isinstance(splits, str) else " → ".join(map(str, splits))
        what = words.clean(entry.get("kind", "")).replace("_", " ")
        share = number(entry.get("share"))
        said = f"{100 * share:.1f}%" if math.isfinite(share) else words.ABSENT
        counted = words.count(int(entry.get("count", 0)), "group" if what == "group" else "sample")
        rows.append((what, words.clean(entry.get("modality", "")), words.clean(where), counted, said))
    return Table(("kind", "modality", "splits", "count", "share"), rows)


def _printable(value: Any) -> Any:
    """What the template puts in: names without control characters; what is markup already stays."""
    return words.clean(value) if type(value) is str else value
