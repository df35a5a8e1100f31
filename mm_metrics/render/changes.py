"""New less old as tables: of slices, and of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mm_metrics import words
from mm_metrics.counts.compare import Comparison
from mm_metrics.render import tables
from mm_metrics.render.tables import Number, Table


def differences(comparison: Comparison, slices: Sequence[str]) -> list[Table]:
    """New less old of the scores of slices, a table a unit: plain errors, and points.

    Slices that are the whole, or hold nothing, are left out.
    """
    if comparison.new.partial:
        return []
    new, whole = comparison.new, comparison.new.support()
    told = [name for name in slices if name == "all" or 0 < new.support(name) < whole]
    made = []
    for per in (1, 100):
        if shown := [score for score in tables.slice_scores(new) if words.per(score) == per]:
            rows = [(name, *(Number(*comparison.estimate(s, new.whole, name), per) for s in shown)) for name in told]
            made.append(Table(("slice", *map(words.heading, shown)), rows))
    return made


def class_differences(comparison: Comparison, most: int = tables.WORST) -> Table:
    """New less old of each class, or label, in points: those that changed most, the most lost first."""
    scores = ("recall", "f1")
    columns = [comparison.class_estimates(score) for score in scores]
    rows: list[tuple[Any, ...]] = [
        (words.clean(name), *(Number(*column[name], 100) for column in columns))
        for name in comparison.new.names
        if math.isfinite(columns[0][name].value)
    ]
    changed = sorted(rows, key=lambda row: -abs(row[1].value))[:most]
    return Table((comparison.new.kind.noun, *map(words.label, scores)), sorted(changed, key=lambda row: row[1].value))
