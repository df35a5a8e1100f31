"""JSON Lines.

A strict decoder reads a line, the standard library what that refuses: NaN, as Python writes it, is taken. pyarrow's
reader fixes a column's type on its first block and its errors name no line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from mm_metrics.cells import UnreadableError
from mm_metrics.tables.source import Block, Refuse, Source

try:
    from msgspec.json import Decoder

    _fast: Callable[[str], Any] = Decoder().decode
except ImportError:
    _fast = json.loads

_LONGEST_LINE = 16 * 2**20  # characters of one object
_BLOCK = 64 * 2**20  # characters of the lines of a block
_PEEK = 1000  # lines whose keys are taken for the file's columns


def columns(source: Source) -> list[str]:
    """The keys of the first thousand objects."""
    names: dict[str, None] = {}
    with source.text("\n") as file:
        for row, line in _lines(file):
            if row == _PEEK:
                break
            try:
                names |= dict.fromkeys(_object(line))
            except UnreadableError as error:
                if row == 0:
                    raise ValueError(f"{source.where(row)}: {error}") from None
    return list(names)


def blocks(source: Source, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as lists; None where an object lacks the key."""
    with source.text("\n") as file:
        objects: list[dict[str, Any]] = []
        rows: list[int] = []
        row, size = -1, 0
        for row, line in _lines(file):
            size += len(line)
            try:
                objects.append(_object(line))
                rows.append(row)
            except UnreadableError as error:
                refuse(row, error)
            if len(objects) == block_rows or size > _BLOCK:
                yield _block(rows, objects, wanted, row + 1)
                rows, objects, size = [], [], 0
        yield _block(rows, objects, wanted, row + 1)


def line(source: Source, row: int) -> int | None:
    """The physical line of a row: empty lines are no rows."""
    with source.text("\n") as file:
        number = -1
        for at, content in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), start=1):
            number += bool(content.strip())
            if number == row:
                return at
    return None


def _block(rows: list[int], objects: list[dict[str, Any]], wanted: list[str], end: int) -> Block:
    columns = {name: [content.get(name) for content in objects] for name in wanted}
    return Block(np.array(rows, dtype=np.int64), columns, end)


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    return enumerate(filter(str.strip, iter(lambda: file.readline(_LONGEST_LINE), "")))


def _object(line: str) -> dict[str, Any]:
    """Raises `UnreadableError`, in words, for what is no JSON object."""
    if len(line) >= _LONGEST_LINE:
        raise UnreadableError("too long", f"it is longer than {_LONGEST_LINE:,} characters")
    try:
        content = _fast(line)
    except Exception:  # whatever it is, the standard library says it, or reads the line
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableError("no JSON", f"it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise UnreadableError("no JSON", f"it is a {type(content).__name__}, expected an object such as {{…}}")
    return content
