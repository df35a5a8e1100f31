"""A threshold as a file: chosen on one scorecard, taken over by files that are scored, never by its own samples."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from mm_metrics.counts.overlap import fingerprint
from mm_metrics.files import write_whole
from mm_metrics.ranking import Point, just_below
from mm_metrics.scorecard import Scorecard

_FORMAT = "mm_metrics/threshold"


def write(
    path: str, card: Scorecard, file: str, score: str, at_least: float, slice: str, points: Mapping[str, Point | None]
) -> None:
    """Write where a card's score reaches a bar, by label, with what tells its samples."""
    found = {label: point and point._asdict() for label, point in points.items()}
    chosen = {"score": score, "at_least": at_least, "slice": slice, "file": file, "samples": fingerprint(card)}
    write_whole(path, json.dumps({"format": _FORMAT, **chosen, "thresholds": found}, indent=1) + "\n")


def read(text: str | None, file: Callable[[str], str]) -> tuple[float | None, dict[str, Any]]:
    """A number; or what `write` wrote, or a scorecard, whose F1 is best there; and its facts; or ValueError."""
    try:
        return None if text is None else float(text), {}
    except ValueError:
        path = file(str(text))
    value: float | None = math.nan
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        if content["format"] == _FORMAT:
            (point,) = content["thresholds"].values()
            value, chosen = point["threshold"], {key: content[key] for key in ("score", "at_least", "file", "samples")}
        else:
            card = Scorecard.from_json(path)
            score, (value,) = card.best_thresholds()
            chosen = {"score": score, "file": os.path.basename(path), "samples": fingerprint(card)}
    except (KeyError, TypeError, AttributeError, UnicodeError, json.JSONDecodeError):
        pass
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ValueError(f"--threshold {text}: no threshold of a binary task, as mm-metrics threshold --output writes")
    return just_below(value), chosen | {"values": [value]}


def note(card: Scorecard, chosen: dict[str, Any]) -> None:
    """Keep with a card what its threshold comes from; ValueError where that is the card's own samples."""
    if not chosen:
        return
    samples = chosen.pop("samples")
    if samples and samples == fingerprint(card):
        raise ValueError(
            f"--threshold: {chosen['file']} is of the very samples that are scored, whose scores would be too good: "
            "choose it on validation"
        )
    card.info["threshold"] = chosen
