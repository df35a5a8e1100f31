"""CSV, by pyarrow's streaming reader."""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mm_metrics.cells import NO_UTF8
from mm_metrics.predictions.reading import Block, Refuse, parts, pyarrow

_BLOCK = 4 * 2**20  # bytes; also a bound on the length of a row
_HEADER = 2**20  # bytes in which the header has to end
_MOST_WAITING = 1_000_000  # bad rows in a row, whose numbers are in memory


def columns(path: Path) -> list[str]:
    """The names in the header."""
    with path.open("rb") as file:
        start = file.read(_HEADER)
    lines = start.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    try:
        names = next(csv.reader(lines, delimiter=_delimiter(path)), [])
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: no header of a CSV file ({error})") from None
    if any("\ufffd" in name for name in names):
        raise ValueError(f"{path}, line 1: no header of a CSV file in UTF-8")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path}, line 1: the header {'names a column twice' if names else 'is empty'}")
    return names


def blocks(path: Path, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as bytes: no type is guessed from what the first block happens to hold."""
    pa = pyarrow()
    from pyarrow import csv as reader

    bad: deque[tuple[int, str]] = deque()  # rows that pyarrow has seen and that are not passed yet
    passed = 0

    def on_bad(row: Any) -> str:
        # Counts the header as row 1. What is raised here pyarrow would swallow.
        bad.append((row.number - 2, f"it has {row.actual_columns} fields, the header {row.expected_columns}"))
        return "skip" if len(bad) < _MOST_WAITING else "error"

    def pass_bad(end: float) -> Iterator[int]:
        while bad and bad[0][0] < end:
            refuse(*bad[0])
            yield bad.popleft()[0]

    with path.open("rb") as file:
        stream = reader.open_csv(
            _Utf8(file),
            read_options=reader.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=reader.ParseOptions(
                delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=on_bad
            ),
            convert_options=reader.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary()), strings_can_be_null=False
            ),
        )
        for batch in stream:
            for part in parts(batch, block_rows):
                candidates = np.arange(passed, passed + part.num_rows + len(bad))
                rows = candidates[~np.isin(candidates, [row for row, _ in bad])][: part.num_rows]
                passed = int(rows[-1]) + 1
                list(pass_bad(passed))
                yield Block(rows, {name: part.column(name) for name in wanted}, passed)
    passed = max([passed, *(row + 1 for row in pass_bad(np.inf))])
    yield Block(np.empty(0, np.int64), {name: [] for name in wanted}, passed)


def place(path: Path, row: int) -> str:
    """The physical line that a row begins on: quoted cells may hold line breaks."""
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader((line.replace("\0", "\ufffd") for line in file), delimiter=_delimiter(path))
        line, number = 1, -2
        for fields in reader:
            number += bool(fields)  # empty lines are no rows, for pyarrow too
            if number == row and fields:
                return f"line {line}"
            line = reader.line_num + 1
    return f"row {row + 1}"


class _Utf8(io.RawIOBase):
    """A file with `NO_UTF8` for every byte that is none.

    pyarrow hands a row of the wrong length over as text; where it is none, its error ends nowhere.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("mm_metrics.no_utf8")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes, or one fewer for each that is part of a letter not read to its end."""
        while True:
            # Of a letter begun in the last read up to 3 bytes are held back, and come on top.
            data = self._file.read(max(1, len(buffer) - 3))
            if data.isascii() and self._decoder.getstate() == (b"", 0):
                encoded = data
            else:
                encoded = self._decoder.decode(data, final=not data).encode()
            if encoded or not data:
                buffer[: len(encoded)] = encoded
                return len(encoded)


def _substituted(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return NO_UTF8.decode() * (error.end - error.start), error.end


codecs.register_error("mm_metrics.no_utf8", _substituted)


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","
