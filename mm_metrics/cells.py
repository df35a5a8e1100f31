"""A cell of a file, or an entry of a sample, as text: the one reading of labels, ids, groups and marks."""

from __future__ import annotations

import ast
import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

_GROUPS = ("group", "speaker", "subject", "patient", "participant", "actor", "video", "dialogue", "session")
_LONGEST_LIST = 100_000  # letters
_NUMPY = re.compile(r"np\.\w+\(([^()]*)\)")  # np.str_('anna')
_QUOTE, _BETWEEN, _BETWEEN_QUOTES = r"['\"]", r"\s+", r"(?<=['\"])\s+(?=['\"])"
YES, NO = ("1", "true"), ("0", "false")


class UnreadableError(ValueError):
    """A cell, or a row, that can't be read: the reason in a sentence, and its kind in a word or two to count by."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(kind, sentence)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


def unused_group(names: Iterable[object]) -> str | None:
    """Of columns, or a batch's keys, the first that by its name says whose a sample is: a speaker, a video.

    >>> unused_group(["target", "Speaker_ID"]), unused_group(["target", 3])
    ('Speaker_ID', None)
    """
    plain = {str(name): str(name).lower().removesuffix("id").rstrip("_- ") for name in names}
    return next((name for name, said in plain.items() if said in _GROUPS), None)


def as_text(cell: object) -> str | None:
    """A label as text, the same whatever program wrote it; None where there is none.

    Spaces around it go, 3.0 is 3 (pandas writes whole numbers so where a column has gaps), True is true, and the two
    ways of writing an accented letter are one. Raises ValueError for what is no label: a list, bytes that are no UTF-8,
    half a surrogate pair.

    >>> as_text(" siren "), as_text(3.0), as_text("3.0"), as_text(True), as_text(float("nan"))
    ('siren', '3', '3', 'true', None)
    """
    if isinstance(cell, bytes):
        cell = cell.decode()
    if isinstance(cell, str):
        text = cell.strip()
        if not text.isascii():
            text.encode()  # half a surrogate pair, or a byte that was no letter, can't be
            text = unicodedata.normalize("NFC", text)
        return text[:-2] if text.endswith(".0") and text[:-2].removeprefix("-").isdecimal() else text
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):
        return None if math.isnan(cell) else str(int(cell)) if cell.is_integer() else repr(cell)
    if cell is None:
        return None
    raise UnreadableError("no label", f"a {type(cell).__name__} is no label")


def as_list(cell: object) -> object:
    """The list that a text spells, as pandas, numpy and JSON write one into CSV; any other cell as it is.

    >>> as_list("['anna', 'ben']"), as_list("['anna' 'ben']"), as_list("[12 5]"), as_list("[noise]")
    (['anna', 'ben'], ['anna', 'ben'], [12, 5], '[noise]')
    """
    text = cell.strip() if isinstance(cell, str) else ""
    if text[:1] + text[-1:] != "[]" or len(text) > _LONGEST_LIST:
        return cell
    text = _NUMPY.sub(r"\1", text)
    if "," not in text:
        text = f"[{re.sub(_BETWEEN_QUOTES if re.search(_QUOTE, text) else _BETWEEN, ',', text[1:-1].strip())}]"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell


def as_labels(cell: object) -> list[str]:
    """The labels of a multilabel cell: a list, or its text, or words joined with ``|``; nothing is no label.

    >>> as_labels("smoke|flood"), as_labels(["smoke"]), as_labels(""), as_labels(3), as_labels("['smoke', 'flood']")
    (['smoke', 'flood'], ['smoke'], [], ['3'], ['smoke', 'flood'])
    """
    cell = cell if isinstance(cell, list | tuple) else as_list(as_text(cell))
    parts = cell if isinstance(cell, list | tuple) else str(cell or "").split("|")
    return [text for part in parts if (text := as_text(part))]


def as_bit(cell: object) -> bool:
    """0, 1, true or false in any case and width; ValueError for all else."""
    text = (as_text(cell) or "").lower()
    if text not in YES + NO:
        raise UnreadableError("neither 0 nor 1", f"{quoted(cell)} is neither 0 nor 1")
    return text in YES


def as_hash(cell: object) -> list[int]:
    """Two numbers of 63 bits that stand for an id, a number for itself; equal for 7, 7.0 and "7"."""
    text = as_text(cell)
    if not text:
        raise UnreadableError("no id", "there is no id")
    if text.isdecimal() and len(text) < 19 and text == str(int(text)):
        return [int(text), 0]  # as an index that a metric was given
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return [int.from_bytes(half, "little") >> 1 for half in (digest[:8], digest[8:])]


def extracted(cell: object, pattern: str) -> list[str]:
    r"""What a regular expression finds in a cell: its first group that took part, or all that it matches.

    >>> extracted("The answer is (B).", r"answer is \(?([A-D])")
    ['B']
    """
    found = re.finditer(pattern, as_text(cell) or "")
    parts = (next(filter(None, match.groups()), "") if match.re.groups else match[0] for match in found)
    return [text for part in parts if (text := as_text(part))]


def class_numbers(
    answers: Sequence[object], names: Sequence[str] | None, extract: str | Callable[[str], object] | None = None
) -> list[int]:
    r"""Answers in words to the numbers of their classes, -1 for what is none; `extract` finds the part that counts.

    A regular expression's first match counts, and the whole answer where it has none. Raises TypeError without `names`.

    >>> class_numbers(["cat", "It is a dog", "neither"], ["cat", "dog"], r"a (\w+)")
    [0, 1, -1]
    """
    if names is None:
        raise TypeError(
            f"preds holds words, such as {quoted(answers[0] if answers else '')}: class_names=[…] names them"
        )
    codes = {as_text(name): code for code, name in enumerate(names)}

    def code(answer: object) -> int:
        part = extract(str(answer)) if callable(extract) else answer
        part = next(iter(extracted(part, extract)), part) if isinstance(extract, str) else part
        return codes.get(as_text(part), -1)

    return [code(answer) for answer in answers]


def quoted(cell: object) -> str:
    """A cell from a file that may come from anywhere, fit for a message: escaped and short."""
    cell = cell[:60] if isinstance(cell, str | bytes | list) else cell
    text = repr(cell.decode(errors="replace") if isinstance(cell, bytes) else cell)
    return text if len(text) <= 60 else text[:57] + "…"


def as_missing(cell: object) -> bool:
    """Whether a cell is null, which is not the same as an empty list or text."""
    return not isinstance(cell, list | tuple) and as_text(cell) is None
