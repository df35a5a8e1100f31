"""The scorecard in the console: the verdict's first screen, then the numbers, in 80 columns."""

from __future__ import annotations

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mm_metrics import words
from mm_metrics.render import changes, phrases, tables
from mm_metrics.render.tables import Number, Table, Tables
from mm_metrics.verdict import Verdict

if TYPE_CHECKING:
    from mm_metrics.counts.compare import Comparison
    from mm_metrics.counts.tally import Tally

# What a terminal is told before a text (ECMA-48, SGR).
BOLD, DIM, BLUE = "1", "2", "34"
LEVEL_STYLES = {"good": "1;32", "mixed": "1;33", "bad": "1;31"}
_ASCII = str.maketrans(
    {"−": "-", "–": "-", "·": "|", "…": "~", "↓": "v", "×": "x", "█": "#", "□": "?", "“": '"', "”": '"'}
)
_FINDINGS_SHOWN = 5
_CLASSES_LISTED = 8


def text(
    card: Tally | Tables,
    *,
    verdict: Verdict | None = None,
    width: int = 80,
    samples: Sequence[Mapping[str, Any]] | None = None,
    named: bool = False,
    color: bool | None = None,
) -> str:
    """The scorecard as text of at most `width` columns (50 at least), with ANSI colours where ``color=True``.

    `verdict` is the default gate's unless given; `samples` are what to look at next, as the monitor gathers them;
    `named` tables say first whose they are.

    >>> import torch
    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=2)
    >>> metric.update(torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]]), torch.tensor([1, 1]))
    >>> "Without text −100 points of F1" in text(metric.scorecard())
    True
    """
    told = tables.of(card, verdict, samples)
    verdict = told.verdict
    page = _Page(max(50, width), bool(color))
    if named:
        page.sentence(f"{told.name}, {words.count(told.card.samples, 'sample')}", DIM)
    page.sentence(verdict.headline, LEVEL_STYLES.get(verdict.level, BOLD))
    for line in (phrases.worth(told.gains, told.score), phrases.next_step(told)):
        page.sentence(line)
    slices = told.distinct_scores
    page.table(slices._replace(columns=("slice", "n", *slices.columns[2:])), "Scores by slice, with 95% intervals")
    page.sentence(phrases.folded(told), DIM)
    further = [i for i, name in enumerate(told.further.columns) if i == 0 or name not in slices.columns]
    if told.further.rows and len(further) > 1:
        page.table(told.further.only(further), "Beyond these, with 95% intervals")
    if len(told.coalitions) > 1:
        page.table(told.coalition_scores(told.telling), "Shown only these modalities", bars=True)
        omitted = len(told.coalitions) - len(told.telling)
        if omitted > 0:
            page.sentence(f"and {words.count(omitted, 'more coalition')}: card.score({told.score!r}, coalition=…)", DIM)
        page.table(told.contributions, f"What each modality gives, in {words.unit(told.score)}")
        page.sentence(phrases.guessed(told), DIM)
    groups = told.findings
    if groups:
        page.gap()
    for found in groups[:_FINDINGS_SHOWN]:
        said, listed = phrases.group(told, found, _CLASSES_LISTED)
        page.sentence(f"- {said}{listed and ': '}{listed}", indent="  ")
    if len(groups) > _FINDINGS_SHOWN:
        page.sentence(f"- and {words.count(len(groups) - _FINDINGS_SHOWN, 'more finding')}", indent="  ")
    if verdict.notes:
        page.gap()
    for note in verdict.notes:
        page.sentence(note, DIM)
    return page.end()


def difference(comparison: Comparison, *, width: int = 80, color: bool | None = None) -> str:
    """New less old as text of at most `width` columns: every score of every slice, and what each modality gives."""
    page = _Page(max(50, width), bool(color))
    how = "the same samples" if comparison.paired else "unpaired: other samples, or no shared index and seed"
    new, old = (card.support() for card in (comparison.new, comparison.old))
    page.sentence(f"New less old, {new:,} and {words.count(old, 'sample')}, {how}.", BOLD)
    for table in changes.differences(comparison, comparison.new.slices):
        unit = " in points (hundredths)" * (table.rows[0][1].per == 100)
        page.table(table, f"Differences{unit} by slice, with 95% intervals")
    score = comparison.new.headline
    gains = tables.gains(comparison.contributions(score), score)
    if any(math.isfinite(cell.value) for row in gains.rows for cell in row[1:]):
        page.table(gains, f"What each modality gives more than before, in {words.unit(score)}")
    return page.end()


def print_card(card: Tally | Tables, *, file: TextIO | None = None, **options: Any) -> None:
    """Print `text` with what the terminal can do: its colours, its width up to 100, its letters."""
    file = sys.stdout if file is None else file
    terminal = bool(getattr(file, "isatty", lambda: False)())
    if terminal:
        colors = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        options = {"width": min(100, shutil.get_terminal_size().columns), "color": colors, **options}
    said = text(card, **options)
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        said.encode(encoding)
    except UnicodeEncodeError:
        said = said.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    print(said, file=file, flush=True)


class _Page:
    """Lines of at most so many columns; each a list of (text, style)."""

    def __init__(self, columns: int, color: bool) -> None:
        self.columns, self.color = columns, color
        self.lines: list[list[tuple[str, str]]] = []

    def gap(self) -> None:
        self.lines.append([])

    def sentence(self, said: str, style: str = "", indent: str = "") -> None:
        said = words.clean(said)
        # Wide letters take two columns each: half the room is always enough.
        room = self.columns if words.width(said) == len(said) else self.columns // 2
        self.lines.extend([(line, style)] for line in textwrap.wrap(said, room, subsequent_indent=indent))

    def table(self, table: Table, title: str, bars: bool = False) -> None:
        """Columns as wide as their content, intervals muted; a name too long for what remains has a line of its own.

        What there is no room for stands below, under the same names.
        """
        table, columns = table.filled, len(table.filled.columns)
        body = [[_parts(cell) for cell in row[1:]] for row in table.rows]
        values, reaches = (
            [max([words.width(row[i][part]) for row in body] or [0]) for i in range(len(table.columns) - 1)]
            for part in (0, 1)
        )
        while True:
            widths = [
                max(words.width(name), value + (reach and reach + 1))
                for name, value, reach in zip(table.columns[1:], values, reaches, strict=True)
            ]
            if not any(reaches) or sum(widths) + len(widths) + 4 <= self.columns:
                break
            if columns > 2:
                self.table(table.only(range(1 + columns // 2)), title, bars)
                return self.table(table.only([0, *range(1 + columns // 2, columns)]), "")
            reaches = [0]  # no room for a single interval
        longest = max(words.width(words.clean(row[0])) for row in (table.columns, *table.rows))
        space = "  " if sum(widths) + 2 * len(widths) + min(longest, 6) <= self.columns else " "
        first = min(longest, max(4, self.columns - sum(widths) - len(space) * len(widths)))
        self.gap()
        self.sentence(title, BOLD)
        heads = [_padded(table.columns[0] if len(table.columns[0]) <= first else "", first)]
        heads += [
            _padded(name, w, right=not reach) for name, w, reach in zip(table.columns[1:], widths, reaches, strict=True)
        ]
        self.lines.append([(space.join(heads).rstrip(), DIM)])
        for row, parts in zip(table.rows, body, strict=True):
            name = words.clean(row[0])
            if words.width(name) > first:
                self.sentence(words.shortened(name, self.columns))
                name = ""
            line = [(_padded(name, first), "")]
            for cell, (value, reach), w, wide, ranged in zip(row[1:], parts, widths, values, reaches, strict=True):
                right = not (isinstance(cell, Number) and not cell.per)  # scores all start with "0." or "1."
                line.append((space + _padded(value, wide if ranged else w, right), ""))
                if ranged:
                    line.append((_padded(f" {reach}", w - wide), DIM))
            room = min(24, self.columns - first - sum(widths) - 2 * len(widths) - 2)
            if bars and room > 8 and row[1].value > 0:
                longest = max(1.0, *(other[1].value for other in table.rows if other[1].value > 0))
                line.append(("  " + "█" * round(room * row[1].value / longest), BLUE))
            self.lines.append(line)

    def end(self) -> str:
        lines = ("".join(_styled(*part) if self.color else part[0] for part in line) for line in self.lines)
        return "\n".join(line.rstrip() for line in lines)


def _styled(said: str, style: str) -> str:
    return f"\x1b[{style}m{said}\x1b[0m" if style and said else said


def _parts(cell: Any) -> tuple[str, str]:
    if isinstance(cell, Number):
        return cell.text, cell.interval
    return (words.short(cell) if isinstance(cell, int) else words.clean(cell)), ""


def _padded(said: str, columns: int, right: bool = False) -> str:
    space = " " * max(0, columns - words.width(said))
    return space + said if right else said + space
