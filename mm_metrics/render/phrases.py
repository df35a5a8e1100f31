"""Sentences that more than one reader shows: what each modality is worth, what to look at next, findings in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mm_metrics import words
from mm_metrics.render import confusion
from mm_metrics.render.tables import Tables
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Contribution, Estimate
from mm_metrics.verdict import Finding
from mm_metrics.verdict.rules import imprecise
from mm_metrics.words import clean, count, points, shortened

SHOWN_SAMPLES = 10


def worth(gains: Mapping[str, Contribution], score: str = "f1", columns: int = 24) -> str:
    """What each modality is worth, in one line; empty where the coalitions counted do not tell.

    ``Without text −41 points of F1 · image −3 · audio −0.2 (not distinguishable from 0)``
    """
    drops = {name: part.drop for name, part in gains.items() if math.isfinite(part.drop.value)}
    alone = {name: part.unimodal_gain for name, part in gains.items() if math.isfinite(part.unimodal_gain.value)}
    if not drops and not alone:
        return ""
    parts, sign, opening = (drops, -1, "Without") if drops else (alone, 1, "Alone")
    sign = -sign if score in LOWER_IS_BETTER else sign  # an error rises by what is lost
    ranked = sorted(parts.items(), key=lambda item: (not words.distinguishable(item[1]), -abs(item[1].value)))
    said: dict[bool, list[str]] = {True: [], False: []}
    for i, (name, estimate) in enumerate(ranked):
        value = sign * estimate.value
        number = points(value, 100, 0 if abs(value) >= 0.01 else 1) if words.per(score) == 100 else points(value, 1)
        unit = "" if i else f" {words.unit(score, number not in ('+1', '−1'))}"
        said[words.distinguishable(estimate)].append(f"{shortened(name, columns)} {number}{unit}")
    line = f"{opening} " + " · ".join(said[True] + said[False])
    if said[False]:
        many = len(said[False])
        whom = "" if many == 1 else "both " if many == 2 and not said[True] else f"the last {many}: "
        line += f" ({whom}not distinguishable from 0)"
    return line


def next_step(told: Tables) -> str:
    """What to look at next: the samples gathered, else the most frequent confusion of the weak slice.

    ``Next: look at these 10 missed samples: 3, 17, …``
    """
    first = next((f for f in told.verdict.findings if f.modality in told.slices), None)
    whose_first, taken = None if first is None else (first.modality, first.class_name), False
    if first is not None and first.score != "recall" and (told.kind.positive or first.class_name is not None):
        taken = first.score == "precision" or imprecise(told.card, first.modality, first.class_name)

    def later(entry: Mapping[str, Any]) -> tuple[bool, bool, bool]:
        other = (entry.get("modality"), entry.get("class")) != whose_first
        return (
            other,
            not other and (entry.get("kind") in ("taken_for", "false_alarm")) != taken,
            entry.get("modality") != told.weak,
        )

    for entry in sorted(told.samples, key=later):
        numbers = list(entry.get("samples", ()))
        if numbers:
            kind, whose = str(entry.get("kind", "missed")), entry.get("class") or entry.get("modality") or "all"
            shown = numbers[:SHOWN_SAMPLES]
            these = "this" if len(shown) == 1 else f"these {len(shown)}"
            noun = words.plural(len(shown), "sample")
            if kind in ("right_only_with", "right_only_without", "taken_for"):
                noun = f"{noun} {kind.replace('_', ' ')} {whose}"
            elif kind == "false_alarm":
                noun = words.plural(len(shown), "false alarm") + (f" on {whose}" if whose != "all" else "")
            elif told.kind.ordinal and kind == "missed":
                noun = f"{noun} of the largest error" + (f" on {whose}" if whose != "all" else "")
            else:
                noun = f"missed {noun}" + (f" of {whose}" if whose != "all" else "")
            numbered = ", ".join(map(clean, shown)) + (", …" if len(numbers) > len(shown) else "")
            return f"Next: look at {these} {clean(noun)}: {numbered}"
    counts = told.confusion(told.weak)
    worst = None if counts is None else confusion.most_confused(counts, told.names, told.kind.by_label)
    if worst is None:
        return ""
    actual, predicted, missed, of = worst
    where = f" on {told.weak}" if told.weak != "all" else ""
    how = "missed" if told.kind.by_label else f"taken for “{shortened(predicted, 24)}”"
    return f"Next: look at “{shortened(actual, 24)}” {how}{where}: {missed:,} of {count(of, 'sample')}."


def folded(told: Tables) -> str:
    """Which slices are the whole, as a sentence; empty where none is."""
    names = [shortened(name, 24) for name in told.folded]
    if not names:
        return ""
    many = len(names) > 1
    which = f"{', '.join(names[:-1])} and {names[-1]} count" if many else f"{names[0]} counts"
    return f"{which} every sample: what is said of all is said of {'them' if many else 'it'}."


def guessed(told: Tables) -> str:
    """That a guess stands in for showing nothing, where that was not counted; empty where it was."""
    alone = any(math.isfinite(part.unimodal_gain.value) for part in told.gains.values())
    if not alone or 0 in told.card.masks:
        return ""
    guess = "saying what is most frequent of each label" if told.kind.by_label else "guessing the majority class"
    return f"No answers with everything hidden (none) were counted: gain alone is above {guess}."


def confusion_note(told: Tables) -> str:
    """How the drawn confusions are read, and what of them is drawn; empty where none was kept."""
    if not told.drawn:
        return ""
    shown, many, nouns = len(told.drawn), len(told.names), told.kind.nouns
    if told.kind.by_label:
        read = (
            "Rows are labels: hit and missed are of the samples that have a label, false alarm and rightly absent of "
            "those that have not. Blue is right, orange wrong."
        )
        less = f"Drawn are {shown} of {many:,} {nouns}: those that findings name, and those that err most."
    else:
        read = (
            "Rows are what was there, columns what was predicted; blue is right, orange wrong, percentages are of the "
            "row."
        )
        less = f"The most confused of {many:,} {nouns} are drawn, all others added up."
    return f"{read} {less}" if shown < many else read


def group(told: Tables, found: tuple[Finding, ...], most: int = 24) -> tuple[str, str]:
    """A group of findings as a sentence and, where they are several, its classes, the worst first."""
    if len(found) == 1:
        return found[0].message, ""
    one = found[0]
    gap = one.score == "unbalanced"
    bar = f"{100 * one.threshold:.0f} points" if gap else words.score(one.threshold)
    why = {
        "bad": f"{'above' if gap else 'below'} {bar}, the bar for bad",
        "undecided": "cannot be judged yet: too few samples, or an interval that reaches from good into bad",
    }.get(one.level, f"not above {bar}, the bar for good")
    ranked = sorted(found, key=lambda f: f.value, reverse=gap)
    listed = [f"{shortened(f.class_name or f.modality, 32)} {_said(f, gap)}" for f in ranked[:most]]
    nouns = told.kind.nouns if one.class_name else "slices"
    more = [f"and {len(found) - most:,} more"] if len(found) > most else []
    return f"{words.label(one.score)} of {len(found):,} {nouns} {why}", ", ".join(listed + more)


def _said(found: Finding, gap: bool) -> str:
    if gap:
        return points(found.value, places=0).lstrip("+")
    return words.estimate(Estimate(found.value, found.low, found.high), unlike=found.threshold)
