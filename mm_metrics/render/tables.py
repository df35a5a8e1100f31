"""A scorecard's numbers as tables: what stands beside every picture, in the console and in a logger's table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm_metrics import contributions, words
from mm_metrics.counts.compare import Comparison
from mm_metrics.counts.tally import Tally
from mm_metrics.render import phrases
from mm_metrics.uncertainty import Estimate

SCORES = ("accuracy", "precision", "recall", "f1")
COALITIONS_SHOWN = 16
CLASSES_SHOWN = 30  # beyond, the worst are shown and the rest is added up
WORST = 20


class Number(NamedTuple):
    """A value with its interval, as a fraction or, where it is a difference, in points."""

    value: float
    low: float = math.nan
    high: float = math.nan
    points: bool = False

    @property
    def text(self) -> str:
        """The value as it is said."""
        return words.points(self.value) if self.points else words.score(self.value)

    @property
    def interval(self) -> str:
        """The interval as it is said; empty where there is none."""
        return words.points_interval(self.low, self.high) if self.points else words.interval(self.low, self.high)


class Table(NamedTuple):
    """Column names and rows of cells (`Number`, int or str); the first column names the row."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


def slice_scores(card: Tally) -> Table:
    """Accuracy, precision, recall and F1 of the whole and of every modality's slice, with the samples behind them."""
    rows = [
        (name, card.support(name, card.whole), *(Number(*card.estimate(s, card.whole, name)) for s in SCORES))
        for name in card.slices
    ]
    return Table(("slice", "samples", *(words.label(s) for s in SCORES)), rows)


def coalition_scores(card: Tally, all_of_them: bool = False) -> Table:
    """F1 and accuracy of every coalition, all modalities first; of the telling ones where they are many."""
    chosen = ordered_coalitions(card) if all_of_them else telling_coalitions(card)
    shown = tuple(dict.fromkeys((phrases.telling(card), "accuracy")))
    rows = [(name, *(Number(*card.estimate(score, name)) for score in shown)) for name in chosen]
    return Table(("shown", *(words.label(score) for score in shown)), rows)


def ordered_coalitions(card: Tally) -> list[str]:
    """Names of the coalitions counted, the largest first."""
    masks = [card.layout.modalities.mask(name) for name in card.coalitions]  # less the model's own, unhidden answers
    return [card.layout.modalities.name(mask) for mask in sorted(masks, key=lambda mask: (-mask.bit_count(), mask))]


def telling_coalitions(card: Tally) -> list[str]:
    """All of them up to sixteen; beyond, those of all, all but one, one and none."""
    M = len(card.modalities)
    names = ordered_coalitions(card)
    if len(names) <= COALITIONS_SHOWN:
        return names
    telling = {
        card.layout.modalities.name(mask)
        for mask in map(card.layout.modalities.mask, card.coalitions)
        if mask.bit_count() in (0, 1, M - 1, M)
    }
    return [name for name in names if name in telling]


def coalition_label(card: Tally, name: str) -> str:
    """A coalition's name; of four modalities and more ``all`` and ``all but audio``, which are shorter."""
    M, mask = len(card.modalities), card.layout.modalities.mask(name)
    if M < 4 or mask.bit_count() < M - 1:
        return name
    hidden = [m for i, m in enumerate(card.modalities) if not mask >> i & 1]
    return f"all but {hidden[0]}" if hidden else "all"


def contribution_points(card: Tally | Comparison, score: str | None = None, slice: str = "all") -> Table:
    """Drop, gain alone and Shapley value of every modality, in points of a score; of two cards, what they differ by."""
    score = score or phrases.telling(card if isinstance(card, Tally) else card.new)
    rows = [
        (name, *(_points(estimate) for estimate in parts)) for name, parts in card.contributions(score, slice).items()
    ]
    return Table(("modality", "drop without it", "gain alone", "Shapley value"), rows)


def interaction_points(card: Tally, score: str | None = None) -> Table:
    """The Shapley interaction of every pair of modalities, in points, the largest first; no rows where not counted."""
    score = score or phrases.telling(card)
    parts = torch.stack(card.apply(contributions.shapley_interactions, score), dim=-1)  # (M, M, 3)
    rows = []
    for i, j in combinations(range(len(card.modalities)), 2):
        value, low, high = parts[i, j].tolist()
        if math.isfinite(value):
            rows.append((f"{card.modalities[i]} × {card.modalities[j]}", Number(value, low, high, points=True)))
    return Table(("pair", "interaction"), sorted(rows, key=lambda row: -abs(row[1].value)))


def together(card: Tally, score: str | None = None) -> list[tuple[str, Number]]:
    """Cooperation and interaction share (InterSHAP) of all modalities, where the coalitions counted tell them."""
    score, said = score or phrases.telling(card), []
    for name, function, in_points in (
        ("Cooperation (SHAPE)", contributions.cooperation, True),
        ("Interaction share (InterSHAP)", contributions.interaction_share, False),
    ):
        value, low, high = (float(part) for part in card.apply(function, score))
        if math.isfinite(value):
            said.append((name, Number(value, low, high, in_points)))
    return said


def differences(comparison: Comparison) -> Table:
    """New less old of every score on every slice, in points."""
    shown = comparison.new.whole
    rows = [(name, *(_points(comparison.estimate(s, shown, name)) for s in SCORES)) for name in comparison.new.slices]
    return Table(("slice", *(words.label(score) for score in SCORES)), rows)


def _points(estimate: Estimate) -> Number:
    return Number(estimate.value, estimate.low, estimate.high, points=True)


class Cells(NamedTuple):
    """A confusion as it is drawn: counts and shares of a row ``(rows, columns)``, and which cells are right."""

    counts: Tensor
    shares: Tensor
    right: Tensor
    rows: list[str]
    columns: list[str]
    omitted: int = 0  # classes or labels that are added up, or left out


def confusion_cells(card: Tally, slice: str = "all") -> Cells:
    """A slice's confusion to draw: up to 30 classes as counted; beyond, the 20 most confused and all others added up.

    Multilabel: one row a label, with its hits, misses, false alarms and rightly absent ones.
    """
    return cells(card.confusion(card.whole, slice), card.names, card.kind.by_label)


def cells(confusion: Tensor, names: Sequence[str], multilabel: bool = False) -> Cells:
    """The same of a confusion ``(C, C)``, or of labels ``(L, 2, 2)``."""
    confusion = confusion.to(torch.float64)
    count = len(confusion)
    errors = (
        confusion[:, 1, 0] + confusion[:, 0, 1]
        if multilabel
        else confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    )
    chosen = list(range(count))
    if count > CLASSES_SHOWN:
        chosen = sorted(errors.argsort(descending=True, stable=True)[:WORST].tolist())
    omitted = count - len(chosen)
    labels = [words.clean(names[i]) for i in chosen]
    if multilabel:
        pairs = confusion[chosen].flip(-2)  # present first
        pairs = torch.stack([pairs[:, 0, 1], pairs[:, 0, 0], pairs[:, 1, 1], pairs[:, 1, 0]], dim=-1)
        of = torch.stack([pairs[:, :2].sum(-1)] * 2 + [pairs[:, 2:].sum(-1)] * 2, dim=-1)
        right = torch.tensor([True, False, False, True]).expand(len(chosen), 4)
        return Cells(
            pairs.long(), pairs / of, right, labels, ["hit", "missed", "false alarm", "rightly absent"], omitted
        )
    right = torch.eye(len(chosen) + (omitted > 0), dtype=torch.bool)
    if omitted:
        groups = torch.full((count,), len(chosen))
        groups[chosen] = torch.arange(len(chosen))
        member = torch.nn.functional.one_hot(groups).double()  # (C, shown + 1)
        kept, hits = member.T @ confusion @ member, confusion.diagonal()[groups == len(chosen)].sum()
        labels.append(f"{omitted} others")
        confusion = kept
        right[-1, -1] = bool(2 * hits >= kept[-1, -1])
    return Cells(confusion.long(), confusion / confusion.sum(1, keepdim=True), right, labels, labels, omitted)


def confusion_table(card: Tally, slice: str = "all") -> Table:
    """The numbers of `confusion_cells`; beyond 30 classes the largest errors, one a row."""
    part = confusion_cells(card, slice)
    if not part.omitted or card.kind.by_label:
        rows = [(name, *map(int, row)) for name, row in zip(part.rows, part.counts.tolist(), strict=True)]
        return Table(("actual", *part.columns), rows)
    confusion = card.confusion(card.whole, slice).clone()
    actual = confusion.sum(1)
    confusion.fill_diagonal_(0)
    largest = confusion.flatten().argsort(descending=True, stable=True)[:CLASSES_SHOWN].tolist()
    errors = [divmod(cell, len(confusion)) for cell in largest]
    return Table(
        ("actual", "taken for", "samples", "of"),
        [
            (words.clean(card.names[i]), words.clean(card.names[j]), int(confusion[i, j]), int(actual[i]))
            for i, j in errors
            if confusion[i, j] > 0
        ],
    )


def worst_classes(card: Tally, slice: str = "all", most: int = WORST) -> Table:
    """The classes, or labels, of lowest recall that occur in a slice, the worst first."""
    recall, precision = (card.class_scores(score, card.whole, slice) for score in ("recall", "precision"))
    actual = card.confusion(card.whole, slice)
    support = actual[:, 1].sum(-1) if card.kind.by_label else actual.sum(-1)
    rows = [
        (words.clean(name), int(n), Number(recall[name]), Number(precision[name]))
        for name, n in zip(card.names, support.tolist(), strict=True)
        if n
    ]
    return Table(("class", "samples", "recall", "precision"), sorted(rows, key=lambda row: row[2])[:most])


def history_keys(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that hold numbers in any epoch, in order of appearance."""
    keys = {key: None for row in history for key, value in row.items() if isinstance(value, int | float)}
    return [key for key in keys if key not in ("epoch", "step")]
