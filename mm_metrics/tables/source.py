"""A table in a file to blocks of rows, whatever its format.

A file is untrusted: nothing in it is unpickled, run or taken as a path; no more than a block of it is in memory; and a
row that can't be read is refused by file and line, or, where the user says so, counted and left out.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Self, TextIO

import numpy as np

from mm_metrics.cells import UnreadableError

BLOCK_ROWS = 65_536
FORMATS = {"csv": "csv_file", "tsv": "csv_file", "jsonl": "json_lines", "parquet": "parquet_file"}
SUFFIXES = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl", ".pq": "parquet"}

FilePath = str | os.PathLike[str]
Refuse = Callable[[int, UnreadableError], None]  # row, reason


@dataclass
class Block:
    """Some rows of a file."""

    rows: np.ndarray  # (N,) int64: their numbers in the file, from 0; rows that can't be read have numbers too
    columns: dict[str, Any]  # name → pyarrow array, or list of what JSON holds
    end: int  # the number of the next row of the file


@dataclass(frozen=True)
class Source:
    """A file and how it is read; of Parquet, where ``groups`` are named, those row groups alone."""

    name: str
    path: Path
    format: str
    delimiter: str
    encoding: str
    packed: bool = False  # by gzip
    groups: tuple[int, ...] | None = None
    spool: Any = None  # keeps what standard input held

    @classmethod
    def of(
        cls, path: FilePath, format: str | None = None, delimiter: str | None = None, encoding: str = "utf-8"
    ) -> Self:
        """A file by its path, or standard input by ``-``. ValueError for what is none of CSV, JSON Lines, Parquet."""
        if os.fspath(path) == "-":
            if format is None:
                raise ValueError(f"standard input has no suffix: --format says which, one of {', '.join(FORMATS)}")
            spool = _Spool()
            return replace(cls.of(spool.path, format, delimiter, encoding), name="standard input", spool=spool)
        place = Path(path)
        packed = place.suffix.lower() == ".gz"
        suffix = (place.with_suffix("") if packed else place).suffix.lower()
        if format is None and suffix not in SUFFIXES:
            raise ValueError(f"{path}: a file is read by its suffix, one of {', '.join(SUFFIXES)}, or by --format")
        if not place.exists():
            raise ValueError(f"{path}: there is no such file")
        if not place.is_file():
            raise ValueError(f"{path}: it is no file that can be read twice; - and --format read standard input")
        format = format or SUFFIXES[suffix]
        if packed and format == "parquet":
            raise ValueError(f"{path}: Parquet is packed in itself and read from both ends: unpack the .gz first")
        encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        return cls(str(path), place, format, delimiter or ("\t" if format == "tsv" else ","), encoding, packed)

    def columns(self) -> list[str]:
        """The names of the columns. Raises ValueError where there are none to be read."""
        with _one_sentence(self.name):
            return self._reader.columns(self)

    def blocks(self, wanted: Collection[str], refuse: Refuse, block_rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """The wanted columns, block by block, in order; at least one, and the last may be empty.

        `refuse` is called with the number of each row that can't be read, and why; it raises, or the row is left out.
        """
        with _one_sentence(self.name):
            block = None
            for block in self._reader.blocks(self, list(wanted), refuse, block_rows):
                yield block
            if block is None:
                yield Block(np.empty(0, np.int64), {name: [] for name in wanted}, 0)

    def where(self, row: int) -> str:
        """Where a person finds a row, by reading the file again: "a.csv, line 12", or "b.parquet, row 12"."""
        line = None if self.format == "parquet" else self._reader.line(self, row)
        return f"{self.name}, {f'row {row + 1}' if line is None else f'line {line}'}"

    def split(self, rows: int) -> list[Source]:
        """The file in parts that can be read apart: of Parquet, row groups of so many rows together; else one."""
        return self._reader.split(self, rows) if self.format == "parquet" else [self]

    def open(self) -> BinaryIO:
        """The file's bytes, unpacked."""
        return gzip.open(self.path) if self.packed else self.path.open("rb")  # type: ignore[return-value]

    def text(self, newline: str) -> TextIO:
        """The file's letters; a byte that is none comes as half a surrogate pair, which `as_text` refuses."""
        return io.TextIOWrapper(self.open(), encoding=self.encoding, errors="surrogateescape", newline=newline)

    @property
    def _reader(self) -> ModuleType:
        return import_module(f"mm_metrics.tables.{FORMATS[self.format]}")


class _Spool:
    """A copy of standard input, which is read more than once, and gone with its source."""

    def __init__(self) -> None:
        handle, self.path = tempfile.mkstemp(prefix="mm_metrics.")
        weakref.finalize(self, os.unlink, self.path)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """What pyarrow and gzip raise, as a ValueError of one line that names the file."""
    try:
        yield
    except Exception as error:
        # pyarrow says OSError of damaged content too; where the disk is at fault there is an errno.
        damaged = isinstance(error, OSError) and error.errno is None
        damaged |= isinstance(error, UnicodeError | EOFError | zlib.error)
        if not (damaged or type(error).__module__.startswith("pyarrow")):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(f"{name} can't be read, is it cut off or damaged? {ascii(lines[0][:300])[1:-1]}") from None
