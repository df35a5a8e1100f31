"""One pass over a split: every sample leaves a few numbers behind and is forgotten."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_metrics.leakage import inputs
from mm_metrics.leakage.inputs import NOTHING, Input
from mm_metrics.leakage.samples import Sample, each_sample, keys_of, stream

CHUNK = 256  # samples described at a time
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
class Fingerprints:
    """What is kept of a split of N samples."""

    digests: dict[str, np.ndarray]  # modality → (N, 2) uint64, zeros where there is no input
    descriptors: dict[str, np.ndarray]  # modality → records of the samples that have an input, for near copies
    labels: np.ndarray  # (N, 2) uint64
    groups: dict[str, np.ndarray]  # field → (N, 2) uint64

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)


def fingerprint(name: str, source: Any, plan: Plan, bar: Callable[[Iterator, int | None], Iterator]) -> Fingerprints:
    """Read the split once; raise ValueError where a key is in none of its samples, or an input is no input."""
    elements, total, batched = stream(source)
    first: list[str] = []
    inputs_first = [keys[0] for keys in plan.modalities.values()]
    watched = _watch(elements, first)
    samples = each_sample(
        watched, plan.keys, batched if plan.batched is None else plan.batched, inputs_first, plan.target
    )
    columns = {modality: _Column(modality, plan) for modality in plan.modalities}
    labels: list[np.ndarray] = []
    groups: dict[str, list[np.ndarray]] = {str(field): [] for field in plan.groups}
    seen: set[Hashable] = set()
    for number, sample in enumerate(bar(samples, total)):
        seen.update(sample)
        present = _presence(sample, plan)
        for modality, column in columns.items():
            try:
                column.add(sample if present[modality] else {})
            except (TypeError, ValueError) as error:
                raise type(error)(f"split {name!r}, sample {number}, modality {modality!r}: {error}") from error
        labels.append(inputs.label_digest(sample.get(plan.target)))
        for field in plan.groups:
            groups[str(field)].append(inputs.label_digest(sample.get(field)))
    if labels:
        _check_keys(name, plan, seen, first[0])
    rows = np.stack([*labels, NOTHING])[:-1]
    return Fingerprints(
        {modality: np.stack([*column.digests, NOTHING])[:-1] for modality, column in columns.items()},
        {modality: column.described() for modality, column in columns.items() if modality in plan.near},
        rows,
        {field: np.stack([*values, NOTHING])[:-1] for field, values in groups.items()},
    )


class _Column:
    """One modality over one split, as it is read."""

    def __init__(self, modality: str, plan: Plan) -> None:
        self.modality, self.plan, self.keys = modality, plan, plan.modalities[modality]
        self.digests: list[np.ndarray] = []
        self.waiting: list[tuple[Input, float | None]] = []
        self.blocks: list[np.ndarray] = []

    def add(self, sample: Sample) -> None:
        value = sample.get(self.keys[0])
        if value is None:
            self.digests.append(NOTHING)
            return
        value = inputs.plain(value)
        kind = self.plan.kinds.setdefault(self.modality, inputs.kind_of(value))
        inputs.check_kind(value, kind)
        mask = None
        for key in self.keys[1:]:
            other = None if sample.get(key) is None else np.asarray(inputs.plain(sample[key]))
            if other is not None and (other.dtype == bool or str(key).endswith("mask")):
                mask = other if mask is None else mask * other
        found = inputs.trimmed(value, kind, mask)
        self.digests.append(NOTHING if found is None else inputs.digest(found))
        if found is not None and self.modality in self.plan.near and kind in self.plan.describers:
            rate = self.plan.rates.get(self.modality)
            rate = rate if isinstance(rate, float | int) else sample.get(rate)
            self.waiting.append((found, None if rate is None else float(rate)))
            if len(self.waiting) == CHUNK:
                self._describe()

    def _describe(self) -> None:
        values, rates = zip(*self.waiting, strict=True)
        self.blocks.append(self.plan.describers[self.plan.kinds[self.modality]](list(values), list(rates)))
        self.waiting = []

    def described(self) -> np.ndarray:
        if self.waiting:
            self._describe()
        return np.concatenate(self.blocks) if self.blocks else np.zeros(0)


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
    row = np.asarray(inputs.plain(value)).reshape(-1)
    if len(row) != len(plan.modalities):
        raise ValueError(
            f"presence {plan.presence!r} has {len(row)} entries a sample, expected one for each of "
            f"{tuple(plan.modalities)}; presence=None ignores it"
        )
    return {modality: bool(there) for modality, there in zip(plan.modalities, row, strict=True)}


def _check_keys(name: str, plan: Plan, seen: set[Hashable], offered: str) -> None:
    wanted: Sequence[tuple[str, Hashable]] = [
        *((f"modality {modality!r} reads", key) for modality, keys in plan.modalities.items() for key in keys),
        *(("group reads", field) for field in plan.groups),
        *(("sample_rate reads", rate) for rate in plan.rates.values() if not isinstance(rate, float | int)),
    ]
    for what, key in wanted:
        if key not in seen:
            close = difflib.get_close_matches(str(key), offered.replace("'", " ").split(), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{what} {key!r}, which no sample of split {name!r} has: there are {offered}{meant}")
