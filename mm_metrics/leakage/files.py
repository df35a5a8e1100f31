"""Splits that are files: a manifest each, in CSV, JSON Lines or Parquet, with texts and paths of media."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mm_metrics.extras import install

ENDINGS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".parquet": "", ".pq": ""}
FilePath = str | os.PathLike[str]
ROWS = 256  # of a Parquet file at a time


class Place(NamedTuple):
    """Where a row stands: its manifest, and its number from 1."""

    path: Path
    row: int


PLACE = Place  # the key under which a row says where it stands; no column has it


def rows(path: FilePath, keys: Collection[Hashable] = ()) -> Iterator[dict[Any, Any]]:
    """The rows of a manifest, each with its `Place`; of Parquet only the columns ``keys``, where it has them all.

    Raises ValueError for a file that is none of .csv, .tsv, .jsonl, .ndjson, .parquet and .pq, and for a row that can't
    be read.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path} is a {ending or 'file without ending'}: a manifest is one of {', '.join(ENDINGS)}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    reader = _parquet(path, keys) if ending in (".parquet", ".pq") else _lines(path, ENDINGS[ending])
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            yield {PLACE: Place(path, number), **row}
    except (csv.Error, ValueError, RecursionError, OSError, NotImplementedError) as error:  # Arrow's errors are these
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is no {ending[1:]} file, after row {number}: {what}") from error


def _lines(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if not delimiter:
            for line in file:
                if line.strip():
                    if not isinstance(row := json.loads(line), dict):
                        raise ValueError("each line is an object")
                    yield row
            return
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        header = reader.fieldnames or []
        if len(set(header)) < len(header):
            raise ValueError(f"the header {header} names a column twice")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"the next row has more or fewer cells than the header's {len(header)}")
            yield row


def _parquet(path: Path, keys: Collection[Hashable]) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"Parquet is read by pyarrow, which is not installed: {install('pyarrow')}") from error
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = [name for name in names if name in keys] if set(keys) <= set(names) else names
        for batch in file.iter_batches(ROWS, columns=wanted):
            yield from batch.to_pylist()
