"""JSON Lines, by the standard library.

pyarrow's reader fixes a column's type on its first block, refuses a label that is a number in one row and a word in
another, and its errors name no line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mm_metrics.predictions.reading import Block, Refuse

_LONGEST_LINE = 16 * 2**20  # bytes of one object
_BLOCK = 64 * 2**20  # bytes of the lines of a block
_PEEK = 1000  # lines whose keys are taken for the file's columns


def columns(path: Path) -> list[str]:
    """The keys of the first thousand objects."""
    names: dict[str, None] = {}
    with path.open("rb") as file:
        for row, line in _lines(file):
            if row == _PEEK:
                break
            try:
                names |= dict.fromkeys(_object(line))
            except ValueError as error:
                if row == 0:
                    raise ValueError(f"{path}, {place(path, row)}: {error}") from None
    return list(names)


def blocks(path: Path, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as lists; None where an object lacks the key."""
    rows: list[int] = []
    cells: list[list[Any]] = []
    size = end = 0

    def block() -> Block:
        columns = zip(*cells, strict=True) if cells else ((),) * len(wanted)
        named = {name: list(column) for name, column in zip(wanted, columns, strict=True)}
        return Block(np.array(rows, dtype=np.int64), named, end)

    with path.open("rb") as file:
        for row, line in _lines(file):
            end = row + 1
            try:
                content = _object(line)
            except ValueError as error:
                refuse(row, str(error))
                continue
            rows.append(row)
            cells.append([content.get(name) for name in wanted])
            size += len(line)
            if len(rows) == block_rows or size > _BLOCK:
                yield block()
                rows, cells, size = [], [], 0
    yield block()


def place(path: Path, row: int) -> str:
    """The physical line of a row: empty lines are no rows."""
    with path.open("rb") as file:
        number = -1
        for line, content in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            number += bool(content.strip())
            if number == row:
                return f"line {line}"
    return f"row {row + 1}"


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    row = 0
    while line := file.readline(_LONGEST_LINE):
        if row == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield row, line
            row += 1


def _object(line: bytes) -> dict[str, Any]:
    """Raises ValueError, in words, for what is no JSON object."""
    if len(line) >= _LONGEST_LINE:
        raise ValueError(f"it is longer than {_LONGEST_LINE:,} bytes")
    try:
        content = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}, expected an object such as {{…}}")
    return content
