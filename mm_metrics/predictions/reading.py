"""Prediction files to blocks of rows, whatever their format.

A file is untrusted: nothing in it is unpickled, run or taken as a path; no more than a block of it is in memory; and a
row that can't be read is refused by file and line, or, where the user says so, counted and left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mm_metrics.extras import install

BLOCK_ROWS = 65_536
SUFFIXES = {
    ".csv": "csv_file", ".tsv": "csv_file",
    ".jsonl": "json_lines", ".ndjson": "json_lines",
    ".parquet": "parquet_file", ".pq": "parquet_file",
}  # fmt: skip

FilePath = str | os.PathLike[str]
Refuse = Callable[[int, str], None]  # row, reason


@dataclass
class Block:
    """Some rows of a file."""

    rows: np.ndarray  # (N,) int64: their numbers in the file, from 0; rows that can't be read have numbers too
    columns: dict[str, Any]  # name → pyarrow array, or list of what JSON holds
    end: int  # the number of the next row of the file


def columns_of(path: FilePath) -> list[str]:
    """The names of a file's columns. Raises ValueError for what is none of CSV, JSON Lines and Parquet."""
    with _one_sentence(path):
        return _format(path).columns(Path(path))


def blocks(path: FilePath, wanted: Collection[str], refuse: Refuse, block_rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """The wanted columns of a file, block by block, in order; at least one, and the last may be empty.

    `refuse` is called with the number of each row that can't be read, and why; it raises, or the row is left out.
    """
    with _one_sentence(path):
        block = None
        for block in _format(path).blocks(Path(path), list(wanted), refuse, block_rows):
            yield block
        if block is None:
            yield Block(np.empty(0, np.int64), {name: [] for name in wanted}, 0)


def place(path: FilePath, row: int) -> str:
    """Where in the file a person finds a row, by reading it again: "line 12", or "row 12" in Parquet."""
    return _format(path).place(Path(path), row)


def pyarrow() -> ModuleType:
    """The reader of CSV and Parquet; ImportError with what to install."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError(
            f"CSV and Parquet files are read by pyarrow, which is not installed: {install('pyarrow')}"
        ) from None
    return pyarrow


def parts(batch: Any, block_rows: int) -> Iterator[Any]:
    """A record batch in slices of at most `block_rows`."""
    for start in range(0, batch.num_rows, block_rows):
        yield batch.slice(start, block_rows)


def _format(path: FilePath) -> ModuleType:
    from importlib import import_module

    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: a file is read by its suffix, one of {', '.join(SUFFIXES)}")
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    return import_module(f"mm_metrics.predictions.{SUFFIXES[suffix]}")


@contextmanager
def _one_sentence(path: FilePath) -> Iterator[None]:
    """What pyarrow raises, as a ValueError of one line that names the file."""
    try:
        yield
    except Exception as error:
        # pyarrow says OSError of damaged content too; where the disk is at fault there is an errno.
        damaged = isinstance(error, OSError) and error.errno is None
        if not (damaged or type(error).__module__.startswith("pyarrow") or isinstance(error, UnicodeError)):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(f"{path} can't be read, is it cut off or damaged? {ascii(lines[0][:300])[1:-1]}") from None
