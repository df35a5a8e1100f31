"""Splits that are files: the rows of manifests, with texts and paths of media."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterator
from typing import Any, NamedTuple

from mm_metrics.tables.source import FilePath, Source

ROWS = 256  # at a time: a cell may hold a recording
NO_LETTER = re.compile("[\udc80-\udcff]")  # a byte that is none in UTF-8


class Place(NamedTuple):
    """Where a row stands: its manifest, and its number from 0."""

    source: Source
    row: int


PLACE = Place  # the key under which a row says where it stands; no column has it


def rows(path: FilePath, keys: Collection[Hashable] = (), start: int = 0) -> Iterator[dict[Any, Any]]:
    """The rows of a manifest from ``start`` on, each with its `Place`; of the columns ``keys`` only, if all are there.

    Raises ValueError for a file that is none of CSV, JSON Lines and Parquet, and for a row that can't be read.
    """
    source = Source.of(path)
    names = source.columns()
    wanted = [name for name in names if name in keys or not set(keys) <= set(names)]
    later = [key for key in keys if isinstance(key, str) and key not in names] if source.format == "jsonl" else []

    def refuse(row: int, reason: ValueError) -> None:
        raise ValueError(f"{source.where(row)}: {reason}") from None

    for block in source.blocks([*wanted, *later], refuse, ROWS):
        if block.end <= start:
            continue
        columns = [getattr(column, "to_pylist", lambda column=column: column)() for column in block.columns.values()]
        for row, *cells in zip(block.rows.tolist(), *columns, strict=True):
            if row < start:
                continue
            found: dict[Any, Any] = {PLACE: Place(source, row)}
            for name, cell in zip(block.columns, cells, strict=True):
                if isinstance(cell, bytes) and source.format in ("csv", "tsv"):
                    cell = cell.decode()
                if isinstance(cell, str) and not cell.isascii() and NO_LETTER.search(cell):
                    refuse(row, ValueError(f"column {name!r} is not UTF-8: write the file anew in UTF-8"))
                if cell is not None or name in names:
                    found[name] = cell
            yield found
