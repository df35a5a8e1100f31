"""What splits share, as a value: findings, the samples touched, what was compared how; JSON in and out."""

from __future__ import annotations

import json
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mm_metrics.files import write_whole

FINDING_KINDS = ("exact", "near", "group", "label_conflict")
PAIRS_KEPT = 1000
FORMAT, VERSION = "mm_metrics.leakage", 1
HOW = {"value": "by value", "text": "texts by letters", "content": "files by content", "bytes": "files by bytes"}


@dataclass(frozen=True)
class Finding:
    """One thing that two splits share, or that one holds more than once.

    ``kind``: exact, near, group or label_conflict. ``modality``: the modality, or the group's field. ``splits``: the
    earlier one first; twice the same name for what lies within one. ``count``: samples of the later split that are
    touched (groups: groups shared). ``share``: the count over the later split's samples (groups: over its groups).
    ``pairs``: sample numbers in the earlier and the later split, up to 1,000. ``samples``: every touched sample of the
    later split, in order; of copies within a split the first is not touched.
    """

    kind: str
    modality: str
    splits: tuple[str, str]
    count: int
    share: float
    pairs: tuple[tuple[int, int], ...]
    samples: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True)
class Compared:
    """How many samples of a split were compared how in a modality.

    ``how``: "value" (tensors, arrays, pictures in memory), "text" (letters), "content" (files decoded), "bytes" (files
    as they lie), "nothing" (absent, or one constant value).
    """

    modality: str
    split: str
    how: str
    count: int


@dataclass(frozen=True)
class Leakage:
    """The findings over all pairs of splits; ``sizes`` samples a split; ``compared`` how; ``notes``: what could not be.

    ``groups`` are the keys or columns that say which samples belong together, as far as they were named.

    >>> copy = Finding("exact", "text", ("train", "test"), 1, 0.25, ((7, 2),), (2,))
    >>> shared = Leakage((copy,), {"train": 9, "test": 4})
    >>> shared.touched("test"), shared.without("test").tolist()
    ([2], [True, True, False, True])
    """

    findings: tuple[Finding, ...]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()
    groups: tuple[str, ...] = ()

    def touched(
        self, split: str, kinds: Iterable[str] | str | None = None, modalities: Iterable[str] | str | None = None
    ) -> list[int]:
        """Sorted numbers of the split's samples that an earlier split shares; by default of every kind and modality.

        The first split is what the others are held against: of its own samples only copies within it are touched.
        Raises ValueError for an unknown split or kind.
        """
        self._check(split, self.sizes, "split")
        kinds = FINDING_KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
        for kind in kinds:
            self._check(kind, FINDING_KINDS, "kind")
        names = None if modalities is None else {modalities} if isinstance(modalities, str) else set(modalities)
        chosen = (f for f in self.findings if f.splits[1] == split and f.kind in kinds)
        return sorted({j for f in chosen if names is None or f.modality in names for j in f.samples})

    def without(self, split: str, **which: Any) -> np.ndarray:
        """``(N,)`` bool: the split's samples that are not touched; takes the keywords of `touched`."""
        kept = np.ones(self.sizes.get(split, 0), dtype=bool)
        kept[self.touched(split, **which)] = False
        return kept

    def summary(self) -> list[dict[str, Any]]:
        """One plain dict a finding: kind, modality, splits, count, share and up to ten pairs."""
        plain = ("kind", "modality", "count", "share")
        return [
            {name: getattr(f, name) for name in plain}
            | {"splits": list(f.splits), "pairs": [list(pair) for pair in f.pairs[:10]]}
            for f in self.findings
        ]

    def table(self) -> str:
        """The findings as lines of at most 80 columns, a few pairs as examples; then what was compared how."""
        from mm_metrics.words import count  # which needs torch, and a command's help does not wait for that

        names = ", ".join(self.sizes)
        lines = [] if self.findings else [f"Nothing shared {'between' if len(self.sizes) > 1 else 'within'} {names}."]
        if self.findings:
            lines.append(f"{'kind':<15}{'modality':<12}{'splits':<20}{'count':>8} {'share':>7}  examples")
        for f in self.findings:
            where = " → ".join(f.splits) if f.splits[0] != f.splits[1] else f"within {f.splits[0]}"
            row = f"{f.kind:<15}{_short(f.modality, 11):<12}{_short(where, 19):<20}"
            row += f"{f.count:>8,} {f.share:>7.1%}  "
            for pair in f.pairs:
                example = f"{pair[0]}→{pair[1]} "
                if len(row) + len(example) > 81:
                    break
                row += example
            lines.append(row.rstrip())
        groups = [
            f"The row of {f.modality} counts groups: {count(f.count, 'group')} of {f.splits[1]} ({f.share:.1%}), with "
            f"{len(f.samples):,} of its {count(self.sizes[f.splits[1]], 'sample')}; the others count samples."
            for f in self.findings
            if f.kind == "group"
        ]
        for sentence in (*groups, self.how(), *self.notes):
            lines += textwrap.wrap(sentence, 80)
        return "\n".join(lines)

    __str__ = table

    def how(self) -> str:
        """What was compared how, in one sentence: ``Compared audio: 3,000 files by content; text: …``."""
        counts: dict[str, Counter[str]] = {row.modality: Counter() for row in self.compared}
        for row in self.compared:
            counts[row.modality][row.how] += row.count
        parts = [
            f"{modality}: {', '.join(f'{count[how]:,} {HOW[how]}' for how in HOW if count[how]) or 'nothing'}"
            for modality, count in counts.items()
        ]
        return f"Compared {'; '.join(parts)}." if parts else ""

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, "sizes": dict(self.sizes), "notes": list(self.notes)}
        content["findings"] = [asdict(finding) for finding in self.findings]
        content["compared"] = [asdict(row) for row in self.compared]
        content["groups"] = list(self.groups)
        write_whole(path, json.dumps(content, separators=(",", ":"), allow_nan=False))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Leakage:
        """Read a file of `to_json`; raises ValueError where it is another thing or does not hold together."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return _checked(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is no {FORMAT} file of version {VERSION}: {error}") from None

    @staticmethod
    def _check(name: str, known: Iterable[str], what: str) -> None:
        if name not in known:
            raise ValueError(f"{what} {name!r} is not one of {tuple(known)}")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _expect(fact: bool, what: str) -> None:
    if not fact:
        raise ValueError(what)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _checked(content: Any) -> Leakage:
    """A Leakage from parsed JSON, every field looked at."""
    _expect(isinstance(content, dict) and content.get("format") == FORMAT, "its format is another")
    _expect(content.get("version") == VERSION, f"its version is {content.get('version')!r}")
    sizes, notes, groups = content["sizes"], content["notes"], content.get("groups", [])
    _expect(isinstance(sizes, dict) and all(_is_count(N) for N in sizes.values()), "sizes are counts")
    for texts in (notes, groups):
        _expect(isinstance(texts, list) and all(isinstance(text, str) for text in texts), "notes, groups are strings")
    rows = content.get("compared", [])  # files written before it was counted have none
    compared = tuple(Compared(**row) for row in rows)
    for row in compared:
        _expect(isinstance(row.modality, str) and row.split in sizes, "what was compared is a modality of a split")
        _expect(row.how in (*HOW, "nothing") and _is_count(row.count), "what was compared how is a count")
    order, findings = list(sizes), []
    for entry in content["findings"]:
        splits, samples = tuple(entry["splits"]), tuple(entry["samples"])
        pairs = tuple((i, j) for i, j in entry["pairs"])
        found = Finding(**entry | {"splits": splits, "samples": samples, "pairs": pairs})
        kind, count, share = found.kind, found.count, found.share
        _expect(kind in FINDING_KINDS, f"kind {kind!r} is not one of {FINDING_KINDS}")
        _expect(isinstance(found.modality, str), "a modality is a string")
        _expect(len(splits) == 2 and all(split in order for split in splits), f"splits {splits} are two of {order}")
        _expect(order.index(splits[0]) <= order.index(splits[1]), f"splits {splits} have the earlier one first")
        A, B = sizes[splits[0]], sizes[splits[1]]
        _expect(all(_is_count(i) and i < A and _is_count(j) and j < B for i, j in pairs), "pairs are sample numbers")
        _expect(len(pairs) <= PAIRS_KEPT, f"at most {PAIRS_KEPT} pairs are kept")
        _expect(all(_is_count(j) and j < B for j in samples), "samples are sample numbers")
        _expect(all(i < j for i, j in pairwise(samples)), "samples are in order, each once")
        _expect(_is_count(count) and count > 0, "a count is positive")
        _expect(isinstance(share, float | int) and 0 <= share <= 1, "a share lies in 0…1")
        _expect(kind == "group" or (count == len(samples) and abs(share - count / B) < 1e-9), "count, share, samples")
        findings.append(found)
    return Leakage(tuple(findings), sizes, tuple(notes), compared, tuple(groups))
