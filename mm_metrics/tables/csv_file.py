"""CSV: pieces without a quote by pyarrow, and from the first oddity to the end by the standard library.

pyarrow is ten times as fast, and can neither say where a row is wrong nor that a quote was never closed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TextIO

import numpy as np

from mm_metrics.cells import UnreadableError
from mm_metrics.tables.source import Block, Refuse, Source

Row = list[str] | tuple[int, csv.Error]  # cells; or how many lines a row took that is no CSV, and why
_BLOCK = 4 * 2**20  # characters
_HEADER = 2**20  # characters in which the header has to end
_LONGEST = 16 * 2**20  # characters of a cell, and of a line


def columns(source: Source) -> list[str]:
    """The names in the header."""
    with source.text("") as file:
        try:
            names: list[str] = next(_reader(source, io.StringIO(file.read(_HEADER), newline="")), [])
        except csv.Error as error:
            raise ValueError(f"{source.name}, line 1: no header of a CSV file ({error})") from None
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(names)):
        raise ValueError(f"{source.name}, line 1: no header in UTF-8; --encoding says what else it is")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{source.name}, line 1: the header {'names a column twice' if names else 'is empty'}")
    return names


def blocks(source: Source, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as text: no type is guessed from what the first block happens to hold."""
    header = columns(source)
    row, rest = 0, ""
    with source.text("") as file:
        next(_reader(source, iter(file.readline, "")))
        while more := file.read(_BLOCK):
            rest += more
            cut = rest.rfind("\n") + 1
            if (table := _plain(source, rest[:cut], header, wanted)) is None:
                break
            rest = rest[cut:]
            for part in table.to_batches(max_chunksize=block_rows):
                rows = np.arange(row, row + part.num_rows)
                row += part.num_rows
                yield Block(rows, {name: part.column(name) for name in wanted}, row)
        careful = _rows(_reader(source, _lines(source, rest, file)))
        at = {name: header.index(name) for name in wanted}
        for fields in _batches(careful, block_rows):
            good: list[tuple[int, Any]] = []
            end = row
            for end, cells in enumerate((cells for cells in fields if cells), row + 1):
                if (wrong := _wrong(source, end - 1, cells, len(header))) is not None:
                    refuse(end - 1, wrong)
                else:
                    good.append((end - 1, cells))
            numbers = np.array([number for number, _ in good], dtype=np.int64)
            yield Block(numbers, {name: [cells[i] for _, cells in good] for name, i in at.items()}, end)
            row = end


def line(source: Source, row: int) -> int | None:
    """The physical line that a row begins on: quoted cells may hold line breaks."""
    with source.text("") as file:
        reader, number, first = _reader(source, file), -2, 1
        for fields in _rows(reader):
            number += bool(fields)  # empty lines are no rows, for pyarrow too
            if number == row and fields:
                return first
            first = reader.line_num + 1
    return None


def _lines(source: Source, rest: str, file: TextIO) -> Iterator[str]:
    """The lines of `rest`, whose last goes on in the file, and those that follow."""
    before = rest
    for line in chain(iter(lambda: file.readline(_LONGEST), ""), [""]):
        if len(line) == _LONGEST:
            raise ValueError(f"{source.name} can't be read: it has a line of {_LONGEST:,} characters or more")
        yield from io.StringIO(before + line, newline="") if before else [line] if line else []
        before = ""


def _plain(source: Source, text: str, header: list[str], wanted: list[str]) -> Any:
    """Whole lines as a table of bytes; None where a quote, a wrong row or a byte that is no letter is among them."""
    try:
        import pyarrow as pa
        from pyarrow import csv as reader
    except ImportError:
        return None
    if not text or '"' in text or not source.delimiter.isascii():
        return None
    try:
        data = text.encode()
        return reader.read_csv(
            pa.BufferReader(data),
            reader.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=header),
            reader.ParseOptions(delimiter=source.delimiter, quote_char=False),
            reader.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary()), strings_can_be_null=False
            ),
        )
    except (UnicodeError, pa.ArrowInvalid):
        return None


def _wrong(source: Source, row: int, cells: Row, due: int) -> UnreadableError | None:
    if isinstance(cells, list):
        sentence = f"it has {len(cells)} fields, the header {due}"
        return None if len(cells) == due else UnreadableError("number of fields", sentence)
    lines, reason = cells
    if lines > 1:  # who knows how many rows these lines were
        raise ValueError(f"{source.where(row)}: a quote opens that is not closed")
    return UnreadableError("no CSV", f"it is no CSV ({reason})")


def _batches(rows: Iterable[Row], block_rows: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for fields in rows:
        batch.append(fields)
        size += sum(map(len, fields)) if isinstance(fields, list) else 0
        if len(batch) == block_rows or size > _LONGEST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _rows(reader: Any) -> Iterator[Row]:
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = reader.line_num - before, error
        yield fields


def _reader(source: Source, lines: Iterable[str]) -> Any:
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)
    return csv.reader(lines, delimiter=source.delimiter, strict=True)
