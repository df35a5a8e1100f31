"""What two splits share: exact and near copies per modality, groups, and equal inputs under different labels."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from mm_metrics.leakage import near as near_copies
from mm_metrics.leakage.findings import PAIRS_KEPT, Finding, Leakage
from mm_metrics.leakage.fingerprints import Fingerprints, Plan, fingerprint
from mm_metrics.leakage.inputs import KINDS
from mm_metrics.leakage.lookup import codes, matches
from mm_metrics.modalities import Modalities
from mm_metrics.streams import kept_streams

EARLIER_KEPT = 10  # earlier samples listed for one later sample


def find_leakage(
    splits: Mapping[str, Any],
    modalities: Mapping[str, Any] | Iterable[str],
    group: Hashable | Collection[Hashable] | None = None,
    near: bool | Iterable[str] = True,
    target: Hashable | None = "label",
    progress: bool = True,
    *,
    presence: Hashable | None = "presence",
    kinds: Mapping[str, str] | None = None,
    sample_rate: Hashable | float | Mapping[str, Hashable | float] | None = None,
    batched: bool | None = None,
) -> Leakage:
    """Find what splits share, per modality and pair of splits, in one pass over each and without keeping a sample.

    ``splits``: name → data set, DataLoader, iterable of samples or of batches, or one batch (columns); the first is
    the one trained on. ``modalities``: name → the sample's key, or a tuple of it and its mask's; or names that are
    keys. ``group``: a key or several (speaker, patient, source video). ``near``: look for near copies, in all or in
    the modalities named (needs the extra ``leakage``). ``target``: the label's key. ``presence``: the key that says
    which modalities a sample has. ``kinds``: modality → text, image, audio or other, where `kind_of` would be wrong;
    "other" gets exact copies only. ``sample_rate``: the audio's rate in Hz, or its key in the sample, or a mapping of
    modalities to these; without it rates are taken as equal, or one as twice the other. ``batched``: whether an
    iterable's elements are batches, where `is_batch` would be wrong.

    A sample number is the position in the split. Samples that lack a modality, silence and one-coloured pictures are
    not compared. Raises ValueError or TypeError for splits, keys or inputs that are not as said, ImportError where
    near copies are asked for without the extra.

    >>> train = [{"text": "smoke on the second floor", "label": 1}, {"text": "a cat in a tree", "label": 0}]
    >>> test = [{"text": "A cat in a tree", "label": 0}, {"text": "smoke on the second floor", "label": 0}]
    >>> print(find_leakage({"train": train, "test": test}, ["text"], near=False, progress=False))
    kind           modality    splits                 count   share  examples
    exact          text        train → test               1   50.0%  0→1
    label_conflict text        train → test               1   50.0%  0→1
    """
    if not isinstance(splits, Mapping) or len(splits) < 2:
        raise ValueError(
            f"splits is a mapping of at least two names to data, got {type(splits).__name__}"
            f"{f' of {len(splits)}' if isinstance(splits, Mapping) else ''}: "
            'write {"train": …, "test": …}'
        )
    keys = _keys(modalities)
    kinds = dict(kinds or {})
    for modality, kind in kinds.items():
        if modality not in keys or kind not in KINDS:
            raise ValueError(f"kinds[{modality!r}]={kind!r}: expected one of {tuple(keys)} as one of {KINDS}")
    wanted = frozenset(keys if near is True else () if near is False else [near] if isinstance(near, str) else near)
    if not wanted <= set(keys):
        raise ValueError(f"near={sorted(wanted)} names modalities that are not among {tuple(keys)}")
    describers = near_copies.describers() if wanted else {}
    groups = () if group is None else tuple(group) if isinstance(group, list | tuple | set) else (group,)
    plan = Plan(keys, groups, target, presence, _rates(sample_rate, keys), batched, kinds, describers, wanted)
    with kept_streams():
        prints = {name: fingerprint(name, split, plan, _bar(name, progress)) for name, split in splits.items()}
    return Leakage(
        tuple(_findings(prints, plan)), {name: len(part) for name, part in prints.items()}, tuple(_notes(prints, plan))
    )


def _keys(modalities: Mapping[str, Any] | Iterable[str]) -> dict[str, tuple[Hashable, ...]]:
    names = Modalities(modalities)
    if not isinstance(modalities, Mapping):
        return {name: (name,) for name in names}
    return {name: key if isinstance(key := modalities[name], tuple) else (key,) for name in names}


def _rates(sample_rate: Any, keys: Collection[str]) -> Mapping[str, Any]:
    if isinstance(sample_rate, Mapping):
        if not set(sample_rate) <= set(keys):
            raise ValueError(f"sample_rate names {sorted(sample_rate)}, the modalities are {tuple(keys)}")
        return sample_rate
    return {} if sample_rate is None else dict.fromkeys(keys, sample_rate)


def _bar(name: str, progress: bool):
    def bar(samples: Iterator, total: int | None) -> Iterator:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return samples
        return iter(tqdm(samples, desc=f"leakage: {name}", total=total, unit=" samples", disable=not progress))

    return bar


def _findings(prints: dict[str, Fingerprints], plan: Plan) -> Iterator[Finding]:
    names = list(prints)
    inputs = {m: codes([part.digests[m] for part in prints.values()]) for m in plan.modalities}
    labels = codes([part.labels for part in prints.values()])
    groups = {f: codes([part.groups[f] for part in prints.values()]) for f in map(str, plan.groups)}
    for a, b in combinations(range(len(names)), 2):
        splits = names[a], names[b]
        for modality, code in inputs.items():
            i, j = matches(code[a], code[b], EARLIER_KEPT)
            yield from _finding("exact", modality, splits, i, j, len(code[b]))
            if modality in plan.near and plan.kinds.get(modality) in plan.describers:
                earlier, later = (prints[split].descriptors[modality] for split in splits)
                i, j = _near(code[a], code[b], earlier, later, plan.kinds[modality])
                yield from _finding("near", modality, splits, i, j, len(code[b]))
            i, j = _conflicts(code[a], code[b], labels[a], labels[b])
            yield from _finding("label_conflict", modality, splits, i, j, len(code[b]))
        for field, code in groups.items():
            yield from _shared_groups(field, splits, code[a], code[b])


def _finding(
    kind: str, modality: str, splits: tuple[str, str], i: np.ndarray, j: np.ndarray, N: int
) -> Iterator[Finding]:
    samples = np.unique(j)
    if len(samples):
        pairs = tuple(zip(i[:PAIRS_KEPT].tolist(), j[:PAIRS_KEPT].tolist(), strict=True))
        yield Finding(kind, modality, splits, len(samples), len(samples) / N, pairs, tuple(samples.tolist()))


def _near(
    a: np.ndarray, b: np.ndarray, earlier: np.ndarray, later: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Near copies among what is not an exact copy, each distinct input looked up once."""
    here = [np.flatnonzero(code >= 0) for code in (a, b)]  # descriptors hold only the samples that have an input
    first = [np.unique(code[rows], return_index=True)[1] for code, rows in zip((a, b), here, strict=True)]
    new = first[1][~np.isin(b[here[1]][first[1]], a)]
    i, j = near_copies.pairs(kind, earlier[first[0]], later[new])
    i, j = here[0][first[0]][i], here[1][new][j]
    # every later sample that equals the one looked up is touched by the same earlier ones
    k, copies = matches(b[j], b, EARLIER_KEPT)
    return i[k], copies


def _conflicts(
    a: np.ndarray, b: np.ndarray, labels_a: np.ndarray, labels_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Equal inputs with known labels that differ; of an input's earlier labels one sample each is looked at."""
    known = np.flatnonzero((a >= 0) & (labels_a >= 0))
    _, first = np.unique(np.stack([a[known], labels_a[known]]), axis=1, return_index=True)
    rows = np.sort(known[first])
    i, j = matches(a[rows], np.where(labels_b >= 0, b, -1), EARLIER_KEPT + 1)
    other = labels_a[rows][i] != labels_b[j]
    return rows[i[other]], j[other]


def _shared_groups(field: str, splits: tuple[str, str], a: np.ndarray, b: np.ndarray) -> Iterator[Finding]:
    known, first = np.unique(b[b >= 0], return_index=True)
    first = np.flatnonzero(b >= 0)[first]
    i, j = matches(a, b[first], 1)
    if len(i):
        order = np.argsort(first[j])[:PAIRS_KEPT]
        pairs = tuple(zip(i[order].tolist(), first[j][order].tolist(), strict=True))
        samples = np.flatnonzero((b >= 0) & np.isin(b, a))
        yield Finding("group", field, splits, len(i), len(i) / len(known), pairs, tuple(samples.tolist()))


def _notes(prints: dict[str, Fingerprints], plan: Plan) -> Iterator[str]:
    for modality in plan.modalities:
        missing = {name: int((~part.digests[modality].any(axis=1)).sum()) for name, part in prints.items()}
        if any(missing.values()):
            counts = ", ".join(f"{number:,} of {name}" for name, number in missing.items() if number)
            yield f"Not compared, as absent or constant in {modality}: {counts}."
        kind = plan.kinds.get(modality)
        if modality in plan.near and kind is not None and kind not in plan.describers:
            yield f"{modality}: exact copies only; kinds={{{modality!r}: …}} says text, image or audio."
