"""JSON Lines, by the standard library.

pyarrow's reader fixes a column's type on its first block, refuses a label that is a number in one row and a word in
another, and its errors name no line.
"""

from __future__ import annotations

import json
import secrets
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
    with path.open("rb") as file:
        first, lines, size = 0, [], 0
        for row, line in _lines(file):
            lines.append(line)
            size += len(line)
            if len(lines) == block_rows or size > _BLOCK:
                yield _block(first, lines, wanted, refuse)
                first, lines, size = row + 1, [], 0
        yield _block(first, lines, wanted, refuse)


def _block(first: int, lines: list[bytes], wanted: list[str], refuse: Refuse) -> Block:
    rows = np.arange(first, first + len(lines))
    objects = _together(lines)
    if objects is None:
        good, objects = [], []
        for row, line in enumerate(lines, first):
            try:
                objects.append(_object(line))
                good.append(row)
            except ValueError as error:
                refuse(row, str(error))
        rows = np.array(good, dtype=np.int64)
    return Block(rows, {name: [content.get(name) for content in objects] for name in wanted}, first + len(lines))


def _together(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """The objects of all the lines in one call, ten times as fast as one by one; None where not every line is one.

    Between the lines stands a word that no file can know, so none can pass for what lines are not by themselves.
    """
    between = secrets.token_hex(8)
    if max(map(len, lines), default=0) >= _LONGEST_LINE:
        return None
    try:
        content = json.loads("[" + f',"{between}",'.encode().join(lines).decode() + "]")
    except (ValueError, RecursionError):
        return None
    whole = len(content) == max(0, 2 * len(lines) - 1) and set(map(type, content[::2])) <= {dict}
    return content[::2] if whole and all(word == between for word in content[1::2]) else None


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
