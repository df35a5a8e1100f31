"""One pass over a split: every sample leaves a few numbers behind and is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from mm_metrics.cells import as_bit, as_labels
from mm_metrics.leakage import inputs
from mm_metrics.leakage.contents import entry_of
from mm_metrics.leakage.files import PLACE
from mm_metrics.leakage.inputs import NOTHING, Input
from mm_metrics.leakage.samples import Sample, each_sample, keys_of, streams
from mm_metrics.modalities import meant

CHUNK = 256  # samples described at a time
ODD_KEPT = 4  # files that could not be compared as others are
AGAIN = 8  # samples read twice, to see whether they stay the same
Bar = Callable[[Iterator, int | None], Iterator]
Describe = Callable[[list[Input], list[float | None]], np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What is read from a sample, and what is made of it."""

    modalities: Mapping[str, tuple[Hashable, ...]]  # the input's key, then those of its masks
    groups: tuple[Hashable, ...]
    target: Hashable | None
    presence: Hashable | None
    rates: Mapping[str, Hashable | float]  # modality → its key in the sample, or one rate in Hz
    batched: bool | None
    kinds: dict[str, str]  # modality → kind; filled in as the first input of a modality is seen
    letters: frozenset[str]  # modalities whose strings are texts, whatever file they name
    describers: Mapping[str, Describe]  # kind → what near copies are found by
    near: frozenset[str]  # modalities whose near copies are looked for

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """Every key that is read."""
        rates = (rate for rate in self.rates.values() if not isinstance(rate, float | int))
        lone = (self.target, self.presence, *self.groups, *rates)
        inputs = (key for keys in self.modalities.values() for key in keys)
        return tuple(dict.fromkeys(key for key in (*inputs, *lone) if key is not None))


@dataclass(frozen=True)
class Read:
    """What is kept of one modality of N samples."""

    digests: np.ndarray  # (N, 2) uint64, zeros where there is no input
    compared: Counter[str]  # how → samples: value, text, content, bytes, nothing
    rows: np.ndarray  # (P,) numbers of the samples that near copies are looked for by
    records: np.ndarray  # (P,) what they are found by
    odd: tuple[str, ...]  # the first files that were not compared by their content, and why

    def __add__(self, other: Read) -> Read:
        """Of this part of a split and the next one; where a part has no record it knows no record's type."""
        records = [part for part in (self.records, other.records) if len(part)] or [other.records]
        rows = np.concatenate([self.rows, other.rows + len(self.digests)])
        digests = np.concatenate([self.digests, other.digests])
        odd = (self.odd + other.odd)[:ODD_KEPT]
        return Read(digests, self.compared + other.compared, rows, np.concatenate(records), odd)


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of a split of N samples."""

    inputs: dict[str, Read]  # by modality
    labels: np.ndarray  # (N, 2) uint64
    groups: dict[str, tuple[np.ndarray, np.ndarray]]  # field → (G,) sample numbers and (G, 2) uint64, one a group in it
    seen: frozenset[Hashable]  # the keys that samples had, of those that are read
    offered: str  # what the first sample has, for a message

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def __add__(self, other: Fingerprints) -> Fingerprints:
        """Of this part of a split and the next one."""
        inputs = {modality: read + other.inputs[modality] for modality, read in self.inputs.items()}
        groups = {}
        for field, (rows, digests) in self.groups.items():
            more, others = other.groups[field]
            groups[field] = np.concatenate([rows, more + len(self)]), np.concatenate([digests, others])
        labels = np.concatenate([self.labels, other.labels])
        return Fingerprints(inputs, labels, groups, self.seen | other.seen, self.offered or other.offered)


def fingerprint(
    name: str, source: Any, plan: Plan, bar: Bar = lambda samples, _: samples, start: int = 0
) -> Fingerprints:
    """Read the split, or its part from sample ``start``, once; raise ValueError where an input is no input."""
    parts = streams(source, plan.keys)
    totals = [total for _, total, _ in parts]
    first: list[str] = []
    inputs_first = [keys[0] for keys in plan.modalities.values()]
    keys, asked = (*plan.keys, PLACE), plan.batched
    samples = chain.from_iterable(
        each_sample(_watch(part, first), keys, batched if asked is None else asked, inputs_first, plan.target)
        for part, _, batched in parts
    )
    columns = {modality: _Column(modality, plan) for modality in plan.modalities}
    labels: list[np.ndarray] = []
    groups: dict[str, list[tuple[int, np.ndarray]]] = {str(field): [] for field in plan.groups}
    seen: set[Hashable] = set()
    for number, sample in enumerate(bar(samples, None if None in totals else sum(totals))):  # type: ignore[arg-type]
        seen.update(sample)
        reads, key, where = "presence", plan.presence, partial(_where, sample, name, start + number)
        try:
            present = _presence(sample, plan)
            for modality, column in columns.items():
                reads, key = f"modality {modality!r}", column.keys[0]
                column.add(number, sample if present[modality] else {}, where)
            reads, key = "target", plan.target
            labels.append(inputs.label_digest(sample.get(plan.target)))
            for key in plan.groups:
                reads = "group"
                found = dict.fromkeys(inputs.names_of(sample.get(key)))
                groups[str(key)] += [(number, inputs.digest(group)) for group in found]
        except (TypeError, ValueError, OSError) as error:
            what = f"column {key!r}" if PLACE in sample else reads
            raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{where()}, {what}: {error}") from error
    numbers = {field: np.array([number for number, _ in pairs], dtype=np.int64) for field, pairs in groups.items()}
    return Fingerprints(
        {modality: column.read() for modality, column in columns.items()},
        _stacked(labels),
        {field: (numbers[field], _stacked([found for _, found in pairs])) for field, pairs in groups.items()},
        frozenset(seen),
        first[0] if first else "",
    )


def changes(name: str, source: Any, plan: Plan, found: Fingerprints) -> bool:
    """Whether a split that is read by number has other samples when the first few are read again."""
    if not isinstance(source, Dataset | DataLoader):
        return False
    elements, total, batched = streams(source, plan.keys)[0]
    if total is None:
        return False
    few = replace(plan, batched=bool(batched), kinds=dict(plan.kinds), near=frozenset())
    again = fingerprint(name, islice(elements, 1 if batched else AGAIN), few)
    pairs = ((read.digests, found.inputs[modality].digests[: len(again)]) for modality, read in again.inputs.items())
    return any((one != other).any() for one, other in pairs)


def _stacked(digests: list[np.ndarray]) -> np.ndarray:
    """``(N, 2)`` of N digests, none too."""
    return np.stack([*digests, NOTHING])[:-1]


class _Column:
    """One modality over one split, as it is read."""

    def __init__(self, modality: str, plan: Plan) -> None:
        self.modality, self.plan, self.keys = modality, plan, plan.modalities[modality]
        self.digests: list[np.ndarray] = []
        self.compared: Counter[str] = Counter()
        self.rows: list[int] = []
        self.waiting: list[tuple[Input, float | None]] = []
        self.blocks: list[np.ndarray] = []
        self.odd: list[str] = []

    def add(self, number: int, sample: Sample, where: Callable[[], str]) -> None:
        value = sample.get(self.keys[0])
        blank = (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
        if value is None or blank:  # pandas puts NaN where there is nothing
            self._keep("nothing", NOTHING)
            return
        folder = sample[PLACE].source.path.parent if PLACE in sample else None
        entry = entry_of(value, folder, self.modality in self.plan.letters)
        if entry.odd and len(self.odd) < ODD_KEPT:
            self.odd.append(f"{where()}: {entry.odd}")
        if isinstance(entry.value, bytes):  # of a file, whatever the others are: it can be equal, and not alike
            self._keep(entry.how if entry.value else "nothing", inputs.digest(entry.value) if entry.value else NOTHING)
            return
        kind = self.plan.kinds.setdefault(self.modality, entry.kind or inputs.kind_of(entry.value))
        if kind != "other" and entry.kind not in (None, kind):
            raise ValueError(f"read as {kind}, got {entry.kind}: one kind a modality, or say kinds={{…: 'other'}}")
        inputs.check_kind(entry.value, kind)
        mask = None
        for key in self.keys[1:]:
            other = None if sample.get(key) is None else np.asarray(inputs.plain(sample[key]))
            if other is not None and (other.dtype == bool or str(key).endswith("mask")):
                mask = other if mask is None else mask * other
        found = inputs.trimmed(entry.value, kind, mask)
        self._keep("nothing" if found is None else entry.how, NOTHING if found is None else inputs.digest(found))
        if found is not None and self.modality in self.plan.near and kind in self.plan.describers:
            rate = self.plan.rates.get(self.modality)
            rate = entry.rate or (rate if isinstance(rate, float | int) else sample.get(rate))
            self.rows.append(number)
            self.waiting.append((found, None if rate is None else float(rate)))
            if len(self.waiting) == CHUNK:
                self._describe()

    def _keep(self, how: str, found: np.ndarray) -> None:
        self.compared[how] += 1
        self.digests.append(found)

    def _describe(self) -> None:
        values, rates = zip(*self.waiting, strict=True)
        self.blocks.append(self.plan.describers[self.plan.kinds[self.modality]](list(values), list(rates)))
        self.waiting = []

    def read(self) -> Read:
        """What is kept of it."""
        if self.waiting:
            self._describe()
        records = np.concatenate(self.blocks) if self.blocks else np.zeros(0)
        rows = np.array(self.rows, dtype=np.int64)
        return Read(_stacked(self.digests), self.compared, rows, records, tuple(self.odd))


def _where(sample: Sample, split: str, number: int) -> str:
    return sample[PLACE].source.where(sample[PLACE].row) if PLACE in sample else f"split {split!r}, sample {number}"


def _watch(elements: Iterator[Any], first: list[str]) -> Iterator[Any]:
    for element in elements:
        if not first:
            first.append(keys_of(element))
        yield element


def _presence(sample: Sample, plan: Plan) -> dict[str, bool]:
    value = sample.get(plan.presence)
    if value is None:
        return dict.fromkeys(plan.modalities, True)
    if isinstance(value, Mapping):
        return {modality: bool(value.get(modality, True)) for modality in plan.modalities}
    row = as_labels(value) if isinstance(value, str) else np.asarray(inputs.plain(value)).reshape(-1).tolist()
    if len(row) != len(plan.modalities):
        raise ValueError(
            f"presence {plan.presence!r} has {len(row)} entries a sample, expected one for each of "
            f"{tuple(plan.modalities)}; presence=None ignores it"
        )
    return {modality: as_bit(there) for modality, there in zip(plan.modalities, row, strict=True)}


def check_keys(name: str, plan: Plan, found: Fingerprints) -> None:
    """Raise ValueError where a key is in none of a split's samples."""
    wanted: Sequence[tuple[str, Hashable]] = [
        *((f"modality {modality!r} reads", key) for modality, keys in plan.modalities.items() for key in keys),
        *(("group reads", field) for field in plan.groups),
        *(("sample_rate reads", rate) for rate in plan.rates.values() if not isinstance(rate, float | int)),
    ]
    for what, key in wanted:
        if len(found) and key not in found.seen:
            close = meant(key, found.offered.replace("'", " ").split())
            raise ValueError(f"{what} {key!r}, which no sample of split {name!r} has: there are {found.offered}{close}")
