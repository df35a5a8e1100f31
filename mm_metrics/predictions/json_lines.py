"""JSON Lines, the sample logs of lm-evaluation-harness and lmms-eval among them.

A strict decoder reads a line, the standard library what that refuses: NaN, as Python writes it, is taken. pyarrow's
reader fixes a column's type on its first block and its errors name no line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from mm_metrics.cells import UnreadableError, as_text, quoted
from mm_metrics.predictions.reading import Block, Refuse, Source

try:
    from msgspec.json import Decoder

    _fast: Callable[[str], Any] = Decoder().decode
except ImportError:
    _fast = json.loads

_LONGEST_LINE = 16 * 2**20  # characters of one object
_BLOCK = 64 * 2**20  # characters of the lines of a block
_PEEK = 1000  # lines whose keys are taken for the file's columns
_HARNESS = "filtered_resps"  # the key under which evaluation harnesses keep what was answered


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
                    raise ValueError(f"{source.name}, {place(source, row)}: {error}") from None
    return [*names, "prediction"] if _HARNESS in names and "prediction" not in names else list(names)


def blocks(source: Source, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as lists; None where an object lacks the key."""
    with source.text("\n") as file:
        objects: list[dict[str, Any]] = []
        rows: list[int] = []
        size, filters, logged, again = 0, set(), set(), False
        row = -1
        for row, line in _lines(file):
            size += len(line)
            try:
                content = _object(line)
                if _HARNESS in content:
                    filters.add(as_text(content.get("filter")))
                    if (digest := content.get("doc_hash")) is not None:  # lmms-eval names no filter
                        again |= (sample := (repr(content.get("doc_id")), repr(digest))) in logged
                        logged.add(sample)
                    target = as_text(content.get("target")) or ""
                    if target[:1] == "[" and target[1:-1].isdecimal():  # a list of one right option
                        content["target"] = target = target[1:-1]
                    if "prediction" in wanted:
                        content.setdefault("prediction", _response(content, target))
                objects.append(content)
                rows.append(row)
            except UnreadableError as error:
                refuse(row, error)
            if len(filters) > 1 or again:
                raise ValueError(
                    f"{source.name}, {place(source, row)}: a sample is there more than once, as for each of "
                    f"the filters {', '.join(map(quoted, filters))}: keep the lines of one"
                )
            if len(objects) == block_rows or size > _BLOCK:
                yield _block(rows, objects, wanted, row + 1)
                rows, objects, size = [], [], 0
        yield _block(rows, objects, wanted, row + 1)


def place(source: Source, row: int) -> str:
    """The physical line of a row: empty lines are no rows."""
    with source.text("\n") as file:
        number = -1
        for line, content in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), start=1):
            number += bool(content.strip())
            if number == row:
                return f"line {line}"
    return f"row {row + 1}"


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


def _response(content: dict[str, Any], target: str) -> Any:
    """What a harness took for the answer: a text, or the option with the best log-likelihood as the target names it.

    lm-evaluation-harness logs log-likelihoods, lmms-eval losses: of either the one nearest to 0 is the best. A target
    is the number of an option, or the text that was asked for as its argument.
    """
    answer = content[_HARNESS]
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, list):
        return answer
    if not all(isinstance(option, list) and option for option in answer):
        raise UnreadableError("several answers", f"{_HARNESS} holds {len(answer)} answers: one is due")
    try:
        values = [float(option[0]) for option in answer]  # pairs of a value and whether it was the greedy choice
    except (TypeError, ValueError):
        values = [math.nan]
    if any(map(math.isnan, values)) or min(values) < 0 < max(values):
        raise UnreadableError("no likelihoods", f"{_HARNESS} holds neither log-likelihoods nor losses")
    best: Any = min(range(len(values)), key=lambda option: abs(values[option]))
    if target and not target.isdecimal():
        asked = content.get("arguments")
        text = asked.get(f"gen_args_{best}", {}).get("arg_1") if isinstance(asked, dict) else None
        if text is None:
            reason = f"its target {quoted(target)} is no number, and no text of option {best} is logged"
            raise UnreadableError("unnamed option", reason)
        best = text
    right = content.get("acc")
    if isinstance(right, int | float) and (target == as_text(best)) != bool(right):
        raise UnreadableError("another answer", f"its acc is {right}, and {quoted(best)} is the best of {_HARNESS}")
    return best
