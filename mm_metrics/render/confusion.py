"""Which cells of a confusion are drawn, and which of its errors are listed, where classes are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics import words

CLASSES_SHOWN = 30  # beyond, the most confused are shown and the rest is added up
LABELS_SHOWN = 12  # each with its numbers
CONFUSED = 20


class Cells(NamedTuple):
    """A confusion as it is drawn: counts and shares of a row ``(rows, columns)``, and which cells are right."""

    counts: Tensor
    shares: Tensor
    right: Tensor
    rows: list[str]
    columns: list[str]
    omitted: int = 0  # classes that are added up, or labels that are left out


def chosen(confusion: Tensor, by_label: bool = False, first: Iterable[int] = ()) -> list[int]:
    """The classes of ``(C, C)``, or labels of ``(L, 2, 2)``, that are drawn: all of few; of many, those that come
    `first` and the most confused.
    """
    count, most = len(confusion), LABELS_SHOWN if by_label else CONFUSED
    if count <= (LABELS_SHOWN if by_label else CLASSES_SHOWN):
        return list(range(count))
    if by_label:
        errors = confusion[:, 1, 0] + confusion[:, 0, 1]
    else:
        errors = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    ranked, wanted = errors.argsort(descending=True, stable=True).tolist(), set(first)
    return sorted(sorted(ranked, key=lambda i: i not in wanted)[:most])


def cells(confusion: Tensor, names: Sequence[str], by_label: bool = False, shown: Sequence[int] | None = None) -> Cells:
    """A confusion ``(C, C)``, or of labels ``(L, 2, 2)``, to draw; `shown` are the classes that are.

    All other classes are added up. Of labels one row each, with hits, misses, false alarms and rightly absent ones.
    """
    shown = chosen(confusion, by_label) if shown is None else list(shown)
    count = len(confusion)
    omitted = count - len(shown)
    labels = [words.clean(names[i]) for i in shown]
    if by_label:
        hit, missed, alarm, absent = (confusion[shown][:, i, j] for i, j in ((1, 1), (1, 0), (0, 1), (0, 0)))
        counts = torch.stack([hit, missed, alarm, absent], dim=-1)  # (labels, 4)
        of = torch.stack([hit + missed] * 2 + [alarm + absent] * 2, dim=-1)
        right = torch.tensor([True, False, False, True]).expand(len(shown), 4)
        return Cells(counts, counts / of, right, labels, ["hit", "missed", "false alarm", "rightly absent"], omitted)
    right = torch.eye(len(shown) + (omitted > 0), dtype=torch.bool)
    if omitted:
        group = torch.full((count,), len(shown))
        group[shown] = torch.arange(len(shown))
        hits = confusion.diagonal()[group == len(shown)].sum()
        rows = confusion.new_zeros(len(shown) + 1, count).index_add_(0, group, confusion)
        confusion = rows.new_zeros(len(rows), len(rows)).index_add_(1, group, rows)
        labels.append(f"{omitted:,} others")
        right[-1, -1] = bool(2 * hits >= confusion[-1, -1])
    return Cells(confusion, confusion / confusion.sum(1, keepdim=True), right, labels, labels, omitted)


def largest_errors(confusion: Tensor, names: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """Target, prediction, count and the target's support of the most frequent errors ``(C, C)``, 30 at most."""
    wrong = confusion.clone()
    wrong.fill_diagonal_(0)
    top = wrong.flatten().topk(min(CLASSES_SHOWN, wrong.numel()), sorted=True)
    order = sorted(zip((-top.values).tolist(), top.indices.tolist(), strict=True))
    actual = confusion.sum(1)
    places = [(-count, *divmod(cell, len(confusion))) for count, cell in order if count]
    return [(words.clean(names[i]), words.clean(names[j]), int(n), int(actual[i])) for n, i, j in places]


def most_confused(confusion: Tensor, names: Sequence[str], by_label: bool) -> tuple[str, str, int, int] | None:
    """The most frequent error, in the form of `largest_errors`; of labels the most missed. None without errors."""
    if not by_label:
        return next(iter(largest_errors(confusion, names)), None)
    misses = confusion[:, 1, 0]
    label = int(misses.argmax())
    missed, of = int(misses[label]), int(confusion[label, 1].sum())
    return (words.clean(names[label]), "absent", missed, of) if missed else None
