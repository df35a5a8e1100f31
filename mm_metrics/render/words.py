"""How numbers and names are said: the same in the console, in pictures and on the page."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_metrics.scorecard import Estimate, Scorecard

ABSENT = "–"
LABELS = {"f1": "F1", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
SHOWN_SAMPLES = 10


def score(value: float) -> str:
    """A fraction in two places; in more where two would round it to a full 0 or 1.

    >>> score(0.875), score(0.9962), score(1.0), score(math.nan)
    ('0.88', '0.996', '1.00', '–')
    """
    if not math.isfinite(value):
        return ABSENT
    for places in (2, 3, 4):
        said = f"{value:.{places}f}"
        if abs(float(said)) not in (0.0, 1.0) or abs(value) in (0.0, 1.0):
            break
    return said.replace("-", "−")


def bound(value: float) -> str:
    """An end of an interval, without the 0 before its point.

    >>> bound(0.07), bound(1.0), bound(-0.251)
    ('.07', '1.0', '−.25')
    """
    said = "1.0" if f"{abs(value):.2f}" == "1.00" else f"{abs(value):.2f}".removeprefix("0")
    return f"−{said}" if value < 0 and said != ".00" else said


def interval(low: float, high: float) -> str:
    """``[.07, .19]``; nothing where there is none."""
    return f"[{bound(low)}, {bound(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def points(value: float, places: int = 1) -> str:
    """A difference of fractions in points, with its sign.

    >>> points(0.412), points(-0.0021), points(0.0), points(-0.41, 0)
    ('+41.2', '−0.2', '0.0', '−41')
    """
    if not math.isfinite(value):
        return ABSENT
    said = f"{100 * value:+.{places}f}"
    return said.lstrip("+-") if float(said) == 0 else said.replace("-", "−")


def points_interval(low: float, high: float) -> str:
    """``[38.0, 44.2]`` in points; nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{points(low).lstrip('+')}, {points(high).lstrip('+')}]"


def distinguishable(estimate: Estimate) -> bool:
    """Whether the interval leaves out 0; also where there is no interval, as nothing is known against it."""
    return not (estimate.low <= 0 <= estimate.high)


def clean(name: object) -> str:
    r"""A name as one printable line: what would move the cursor or turn the reading direction becomes a box.

    >>> clean("a\nb"), clean("\x1b[31mred")
    ('a b', '□[31mred')
    """
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "□" for c in str(name))


def width(text: str) -> int:
    """Columns that a text takes in a terminal.

    >>> width("audio"), width("音声")
    (5, 4)
    """
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shortened(name: object, columns: int) -> str:
    """A name in at most so many columns, its middle left out.

    >>> shortened("a_very_long_modality", 11)
    'a_ver…ality'
    """
    text = clean(name)
    if width(text) <= columns:
        return text
    head, tail, room = "", "", columns - 1
    front, back = iter(text), iter(reversed(text))
    while True:
        if width(head) <= width(tail):
            grown = head + next(front)
            if width(grown + tail) > room:
                return f"{head}…{tail}"
            head = grown
        else:
            grown = next(back) + tail
            if width(head + grown) > room:
                return f"{head}…{tail}"
            tail = grown


def count(number: int, noun: str) -> str:
    """``1 sample``, ``1,200 samples``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def telling(card: Scorecard) -> str:
    """The score that tables and pictures are about: F1; accuracy where only right and wrong are known."""
    return "accuracy" if getattr(card, "judged", False) else "f1"


def worth(card: Scorecard, of: str | None = None, columns: int = 24) -> str:
    """What each modality is worth, in one line; empty where the coalitions counted do not tell.

    ``Without text −41 points of F1 · image −3 · audio −0.2 (not distinguishable from 0)``
    """
    of = of or telling(card)
    gains = card.contributions(of)
    drops = {name: part.drop for name, part in gains.items() if math.isfinite(part.drop.value)}
    alone = {name: part.unimodal_gain for name, part in gains.items() if math.isfinite(part.unimodal_gain.value)}
    if not drops and not alone:
        return ""
    parts, sign, opening = (drops, -1, "Without") if drops else (alone, 1, "Alone")
    ranked = sorted(parts.items(), key=lambda item: (not distinguishable(item[1]), -abs(item[1].value)))
    said = {True: [], False: []}  # type: dict[bool, list[str]]
    for i, (name, estimate) in enumerate(ranked):
        value = sign * estimate.value
        unit = "" if i else f" {_unit(value)} of {LABELS.get(of, of)}"
        said[distinguishable(estimate)].append(f"{shortened(name, columns)} {_rounded(value)}{unit}")
    line = f"{opening} " + " · ".join(said[True] + said[False])
    if said[False]:
        many = len(said[False])
        whom = "" if many == 1 else "both " if many == 2 and not said[True] else f"the last {many}: "
        line += f" ({whom}not distinguishable from 0)"
    return line


def _rounded(value: float) -> str:
    return points(value, 0 if abs(value) >= 0.01 else 1)


def _unit(value: float) -> str:
    return "point" if _rounded(value) in ("+1", "−1") else "points"


def next_step(card: Scorecard, samples: Sequence[Mapping[str, Any]] | None, slice: str | None = None) -> str:
    """What to look at next: the samples gathered, else the most frequent confusion of a slice.

    ``Next: look at these 10 missed samples: 3, 17, …``
    """
    for entry in sorted(samples or (), key=lambda entry: entry.get("modality") != slice):  # the weak slice's first
        numbers = list(entry.get("samples", ()))
        if numbers:
            what = {"right_only_with": "right only with", "right_only_without": "right only without"}
            kind, modality = str(entry.get("kind", "missed")), entry.get("modality")
            shown = numbers[:SHOWN_SAMPLES]
            these = "this" if len(shown) == 1 else f"these {len(shown)}"
            plural = "" if len(shown) == 1 else "s"
            if kind in what and modality:
                noun = f"sample{plural} {what[kind]} {modality}"
            else:
                noun = f"missed sample{plural}" + (f" of {modality}" if modality not in (None, "", "all") else "")
            numbered = ", ".join(map(clean, shown)) + (", …" if len(numbers) > len(shown) else "")
            return f"Next: look at {these} {clean(noun)}: {numbered}"
    worst = most_confused(card, slice or "all")
    if worst is None:
        return ""
    actual, predicted, missed, of = worst
    where = f" on {slice}" if slice and slice != "all" else ""
    return f"Next: look at “{actual}” taken for “{predicted}”{where}: {missed:,} of {count(of, 'sample')}."


def most_confused(card: Scorecard, slice: str = "all") -> tuple[str, str, int, int] | None:
    """Target, prediction, count and the target's support of the largest error; None without errors."""
    confusion = card.confusion(card.whole, slice)
    if card.task == "multilabel":
        misses = confusion[:, 1, 0]
        label = int(misses.argmax())
        name = shortened(card.names[label], 24)
        return (name, "absent", int(misses[label]), int(confusion[label, 1].sum())) if misses[label] > 0 else None
    wrong = confusion.clone()
    wrong.fill_diagonal_(0)
    row, column = divmod(int(wrong.argmax()), wrong.shape[1])
    if not int(wrong[row, column]):
        return None
    names = card.names
    actual, predicted = shortened(names[row], 24), shortened(names[column], 24)
    return actual, predicted, int(wrong[row, column]), int(confusion[row].sum())
