"""Two books of the same samples: which became wrong, which became right, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mm_metrics.predictions.book import header_in
from mm_metrics.tables.parquet_file import parquet
from mm_metrics.tables.source import FilePath

SHOWN = 10  # numbers of samples


class Change(NamedTuple):
    """Samples of a kind: how many, how many are right in the old book alone, and how many in the new one alone."""

    samples: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Changes:
    """What changed from one book to another; ``changes["all"]``, by modality, and by class of the target."""

    changes: dict[str, Change]
    lost: np.ndarray  # numbers of samples that are right in the old book and wrong in the new one
    gained: np.ndarray  # the other way round
    alone: tuple[int, int]  # samples of the old book, and of the new one, that the other has not

    def __str__(self) -> str:
        """A table, and the first samples to look at."""
        width = max(len("samples with"), *map(len, self.changes))
        lines = [f"{'samples with':{width}}  samples  now wrong  now right      net"]
        for name, (samples, lost, gained) in self.changes.items():
            net = f"{gained - lost:+,}".replace("-", "−")
            lines.append(f"{name:{width}}  {samples:>7,}  {lost:>9,}  {gained:>9,}  {net:>7}")
        for what, found in (("Now wrong", self.lost), ("Now right", self.gained)):
            if len(found):
                more = ", …" if len(found) > SHOWN else ""
                lines.append(f"{what}: {', '.join(map(str, found[:SHOWN].tolist()))}{more}")
        if any(self.alone):
            old, new = self.alone
            lines.append(f"In one book only, and not compared: {old:,} of the old, {new:,} of the new.")
        return "\n".join(lines)


def compare_books(old: FilePath, new: FilePath) -> Changes:
    """The samples of two books, joined by their numbers, whose own prediction became right or wrong.

    Raises ValueError for books of other modalities, tasks or classes, without numbers, or of other targets.
    """
    headers = [header_in(path) for path in (old, new)]
    for path, header in zip((old, new), headers, strict=True):
        if header is None:
            raise ValueError(f"{path} is no book of samples, as samples='all' of the monitor writes them")
    first, second = headers[0] or {}, headers[1] or {}
    for what in ("modalities", "task", "num_classes", "num_labels", "class_names"):
        if first[what] != second[what]:
            raise ValueError(f"{new} has {what} {second[what]}, {old} has {first[what]}: the same are due")
    books = [_book(path, first["modalities"]) for path in (old, new)]
    numbers, *at = np.intersect1d(books[0]["index"], books[1]["index"], assume_unique=True, return_indices=True)
    before, after = ({name: cells[rows] for name, cells in book.items()} for book, rows in zip(books, at, strict=True))
    if len(numbers) and not np.array_equal(before["target"], after["target"]):
        number = numbers[(before["target"] != after["target"]).reshape(len(numbers), -1).any(1).argmax()]
        raise ValueError(f"sample {number} has another target in {new} than in {old}: the same samples are due")
    target = before["target"]
    counted = np.ones(len(numbers), dtype=bool)
    if first["ignore_index"] is not None and target.ndim == 1:
        counted = target != first["ignore_index"]
    lost, gained = before["right"] & ~after["right"] & counted, after["right"] & ~before["right"] & counted

    def change(members: np.ndarray) -> Change:
        return Change(int((members & counted).sum()), int((lost & members).sum()), int((gained & members).sum()))

    changes = {"all": change(counted)}
    changes |= {name: change(before[f"presence_{name}"]) for name in first["modalities"]}
    by_label = target.ndim > 1
    for i, name in enumerate(first["class_names"] or range(target.shape[1] if by_label else first["num_classes"])):
        changes[f"class {name}"] = change(target[:, i] == 1 if by_label else target == i)
    alone = (len(books[0]["index"]) - len(numbers), len(books[1]["index"]) - len(numbers))
    return Changes(changes, numbers[lost], numbers[gained], alone)


def _book(path: FilePath, modalities: list[str]) -> dict[str, Any]:
    """A book's columns that are compared, with ``right`` ``(N,)``: all of a sample's labels are."""
    names = ["index", "target", "prediction", *(f"presence_{name}" for name in modalities)]
    table = parquet().read_table(path, columns=names)
    if table["index"].null_count or len(table["index"].unique()) < len(table):
        raise ValueError(f"{path}: its samples have no numbers, or two have one, so no other book has them")
    there = table["prediction"].is_valid().to_numpy()
    book = {name: np.array(table[name].to_pylist()) for name in names if name != "prediction"}
    none = [0] * book["target"].shape[1] if book["target"].ndim > 1 else 0
    predicted = np.array([none if cell is None else cell for cell in table["prediction"].to_pylist()])
    return {**book, "right": there & (predicted == book["target"]).reshape(len(there), -1).all(1)}
