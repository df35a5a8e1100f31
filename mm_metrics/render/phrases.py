"""What the first lines say of a card: what each modality is worth, and what to look at next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mm_metrics import words
from mm_metrics.counts.tally import Tally
from mm_metrics.words import clean, count, points, shortened

SHOWN_SAMPLES = 10


def telling(card: Tally) -> str:
    """The score that tables and pictures are about: F1; accuracy where only right and wrong are known."""
    return "accuracy" if card.judged else "f1"


def worth(card: Tally, of: str | None = None, columns: int = 24) -> str:
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
    ranked = sorted(parts.items(), key=lambda item: (not words.distinguishable(item[1]), -abs(item[1].value)))
    said = {True: [], False: []}  # type: dict[bool, list[str]]
    for i, (name, estimate) in enumerate(ranked):
        value = sign * estimate.value
        unit = "" if i else f" {_unit(value)} of {words.label(of)}"
        said[words.distinguishable(estimate)].append(f"{shortened(name, columns)} {_rounded(value)}{unit}")
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


def next_step(card: Tally, samples: Sequence[Mapping[str, Any]] | None, slice: str | None = None) -> str:
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


def most_confused(card: Tally, slice: str = "all") -> tuple[str, str, int, int] | None:
    """Target, prediction, count and the target's support of the largest error; None without errors."""
    confusion = card.confusion(card.whole, slice)
    if card.kind.by_label:
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
