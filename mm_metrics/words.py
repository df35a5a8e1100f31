"""How numbers and names are written: the same in a verdict, the console, pictures and on the page."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from mm_metrics.tasks import EXTENTS, LOWER_IS_BETTER
from mm_metrics.uncertainty import Estimate

ABSENT = "–"
LABELS = {
    **{name: name.upper() for name in ("f1", "auroc", "eer", "mae", "rmse", "ccc")},
    "unbalanced": "gap between precision and recall",
    "brier": "Brier score",
    "pearson": "Pearson correlation",
    "dprime": "sensitivity d′",
    **{f"acc{n}": f"Acc-{n}" for n in (2, 5, 7)},
    "acc2_nonzero": "Acc-2 without zeros",
    "f1_acc2": "F1 of Acc-2",
    "f1_nonzero": "F1 of Acc-2 without zeros",
}
_AVERAGED = re.compile(r"(.+)_(macro|micro|weighted|binary)")


def label(score: str) -> str:
    """A score's name as people write it.

    >>> label("f1"), label("unbalanced"), label("balanced_accuracy"), label("f1_weighted"), label("top5")
    ('F1', 'gap between precision and recall', 'balanced accuracy', 'weighted F1', 'top-5 accuracy')
    """
    if averaged := _AVERAGED.fullmatch(score):
        return f"{averaged[2]} {label(averaged[1])}"
    if score.startswith("top") and score[3:].isdigit():
        return f"top-{score[3:]} accuracy"
    return LABELS.get(score, score.replace("_", " "))


def heading(score: str) -> str:
    """A score's name over a column, with an arrow where less is better.

    >>> heading("f1"), heading("mae")
    ('F1', 'MAE ↓')
    """
    return f"{label(score)} ↓" if score in LOWER_IS_BETTER else label(score)


def score(value: float, unlike: float = math.nan) -> str:
    """A fraction in two places; in more where two would round it to a full 0 or 1, or to the number it is `unlike`.

    >>> score(0.875), score(0.9962), score(1.0), score(math.nan), score(0.4996, unlike=0.5)
    ('0.88', '0.996', '1.00', '–', '0.4996')
    """
    if not math.isfinite(value):
        return ABSENT
    for places in (2, 3, 4):
        said = f"{value:.{places}f}"
        full = abs(float(said)) in (0.0, 1.0) and abs(value) not in (0.0, 1.0)
        if not full and (value == unlike or float(said) != unlike):
            break
    return said.replace("-", "−")


def bound(value: float) -> str:
    """An end of an interval, without the 0 before its point.

    >>> bound(0.07), bound(1.0), bound(-0.251)
    ('.07', '1.0', '−.25')
    """
    said = "1.0" if f"{abs(value):.2f}" == "1.00" else f"{abs(value):.2f}".removeprefix("0")
    return f"−{said}" if value < 0 and said != ".00" else said


def interval(low: float, high: float) -> str:
    """``[.07, .19]``; nothing where there is none."""
    return f"[{bound(low)}, {bound(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def estimate(number: Estimate, unlike: float = math.nan) -> str:
    """A score with its interval, ``0.12 [.07, .19]``; without one where there is none.

    >>> estimate(Estimate(0.12, 0.07, 0.19)), estimate(Estimate(0.996, 0.9, 1.0))
    ('0.12 [.07, .19]', '0.996 [.90, 1.0]')
    """
    if math.isnan(number.value):
        return "not defined"
    return f"{score(number.value, unlike)} {interval(number.low, number.high)}".rstrip()


def per(score: str) -> int:
    """What a difference of 1 is said as: 100 points; as 1 of a score without a largest value, such as MAE.

    >>> per("f1_weighted"), per("mae")
    (100, 1)
    """
    return 1 if math.isinf(EXTENTS.get(score, (0, 1))[1]) else 100


def unit(score: str, many: bool = True) -> str:
    """What differences of a score are in: ``points of F1``, ``MAE``."""
    return f"point{'s' * many} of {label(score)}" if per(score) == 100 else label(score)


def points_estimate(number: Estimate, per: int = 100) -> str:
    """A difference of scores in points, or in their own unit, with its interval.

    >>> points_estimate(Estimate(-0.04, -0.06, -0.02)), points_estimate(Estimate(0.12, 0.08, 0.16), per=1)
    ('−4.0 [−6.0, −2.0]', '+0.12 [0.08, 0.16]')
    """
    return f"{points(number.value, per)} {points_interval(number.low, number.high, per)}".rstrip()


def points(value: float, per: int = 100, places: int | None = None) -> str:
    """A difference of fractions in points, with its sign; in its own unit in as many places as it takes not to be 0.

    >>> points(0.412), points(-0.0021), points(0.0), points(-0.41, places=0), points(0.87, 1), points(-0.0021, 1)
    ('+41.2', '−0.2', '0.0', '−41', '+0.87', '−0.002')
    """
    if not math.isfinite(value):
        return ABSENT
    digits = [places] if places is not None else [1] if per == 100 else [2, 3, 4] if value else [2]
    said = [f"{per * value:+.{n}f}" for n in digits]
    return next((one.replace("-", "−") for one in said if float(one)), said[0].lstrip("+-"))


def points_interval(low: float, high: float, per: int = 100) -> str:
    """``[38.0, 44.2]`` in points; nothing where there is none."""
    ends = ", ".join(points(end, per).lstrip("+") for end in (low, high))
    return f"[{ends}]" if math.isfinite(low) and math.isfinite(high) else ""


def distinguishable(estimate: Estimate) -> bool:
    """Whether the interval leaves out 0; also where there is no interval, as nothing is known against it."""
    return not (estimate.low <= 0 <= estimate.high)


def clean(name: object) -> str:
    r"""A name as one printable line: what would move the cursor or turn the reading direction becomes a box.

    >>> clean("a\nb"), clean("\x1b[31mred")
    ('a b', '□[31mred')
    """
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " if c in "\n\t" else "□" for c in text)


def fact(value: object) -> str:
    """A value as words, what it holds in turn.

    >>> fact(["a.csv", "b.csv"]), fact({"image": 3, "audio": None}), fact(True)
    ('a.csv, b.csv', 'image 3, audio –', 'yes')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(name)} {fact(part)}" for name, part in value.items()) or ABSENT
    if isinstance(value, list | tuple):
        return ", ".join(map(fact, value)) or ABSENT
    return ("yes" if value else "no") if isinstance(value, bool) else ABSENT if value in (None, "") else clean(value)


def width(text: str) -> int:
    """Columns that a text takes in a terminal.

    >>> width("audio"), width("音声")
    (5, 4)
    """
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shortened(name: object, columns: int) -> str:
    """A name in at most so many columns, its middle left out.

    >>> shortened("a_very_long_modality", 11)
    'a_ver…ality'
    """
    text = clean(name)
    if width(text) <= columns:
        return text
    half = len(text) // 2
    head, tail = text[:half][: 2 * columns], text[half:][-2 * columns :]  # a name may be as long as a book
    while width(head) + width(tail) >= columns:
        head, tail = (head[:-1], tail) if width(head) > width(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def count(number: int, noun: str) -> str:
    """``1 sample``, ``1,200 samples``."""
    return f"{number:,} {plural(number, noun)}"


def short(number: int) -> str:
    """A count in at most five letters.

    >>> short(1234), short(123456), short(1234567), short(98765432)
    ('1,234', '123k', '1.2M', '99M')
    """
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= max(unit, 10**4):
            return f"{number / unit:.{int(number < 10 * unit)}f}{letter}"
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """``sample`` of one, ``samples`` of others."""
    return noun if number == 1 else f"{noun}s"
