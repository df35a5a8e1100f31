"""A threshold as a file: chosen on one scorecard, taken over by files that are scored, never by its own samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
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


def read(given: Any, file: Callable[[str], str]) -> tuple[float | dict[str, float] | None, dict[str, Any]]:
    """A number, or one by label; or what `write` wrote, or a scorecard, where its F1 is best; and its facts.

    Raises ValueError for a file that is neither, or where a label has no threshold.
    """
    if given is None or isinstance(given, float | dict):
        return given, {}
    path = file(str(given))
    found: dict[str, Any] = {}
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if content["format"] == _FORMAT:
            found = {label: point and point["threshold"] for label, point in content["thresholds"].items()}
            chosen = {key: content[key] for key in ("score", "at_least", "file", "samples")}
        else:
            card = Scorecard.from_json(path)
            score, values = card.best_thresholds()
            found = dict(zip(card.names if card.kind.by_label else [""], values, strict=True))
            chosen = {"score": score, "file": os.path.basename(path), "samples": fingerprint(card)}
    except (KeyError, TypeError, AttributeError, UnicodeError, json.JSONDecodeError):
        pass
    if not found or not all(isinstance(value, float) and 0 <= value <= 1 for value in found.values()):
        lacking = ", ".join(label for label, value in found.items() if label and value is None)
        what = f"none for {lacking[:200]}" if lacking else "no threshold"
        raise ValueError(f"--threshold {given}: {what}, as mm-metrics threshold --output writes")
    cuts = {label: just_below(value) for label, value in found.items()}
    return cuts.get("", cuts), chosen | {"values": found}


def note(card: Scorecard, chosen: dict[str, Any]) -> None:
    """Keep with a card what its threshold comes from; ValueError where that is the card's own samples."""
    if not chosen:
        return
    samples, found = chosen.pop("samples"), chosen.pop("values")
    if samples and samples == fingerprint(card):
        raise ValueError(
            f"--threshold: {chosen['file']} is of the very samples that are scored, whose scores would be too good: "
            "choose it on validation"
        )
    values = list(found.values()) if "" in found else [found.get(label, 0.5) for label in card.names]
    card.info["threshold"] = chosen | {"values": values}
