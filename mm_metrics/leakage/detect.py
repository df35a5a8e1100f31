"""What splits share: exact and near copies per modality, groups, and equal inputs under different labels."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from mm_metrics.extras import install
from mm_metrics.leakage.engine import on_ray
from mm_metrics.leakage.files import FilePath
from mm_metrics.leakage.findings import HOW, PAIRS_KEPT, Compared, Finding, Leakage
from mm_metrics.leakage.fingerprints import Fingerprints, Plan, Read, changes, check_keys, fingerprint
from mm_metrics.leakage.inputs import KINDS
from mm_metrics.leakage.lookup import codes, matches
from mm_metrics.leakage.modules import is_module, splits_of
from mm_metrics.leakage.near import kinds as near_copies
from mm_metrics.modalities import Modalities
from mm_metrics.streams import kept_streams

DECODERS = {"soundfile": "soundfile", "PIL": "pillow"}
EARLIER_KEPT = 10  # earlier samples listed for one later sample


def find_leakage(
    splits: Any,
    modalities: Mapping[str, Any] | Iterable[str],
    group: Hashable | Collection[Hashable] | None = None,
    near: bool | Iterable[str] = True,
    target: Hashable | None = "label",
    progress: bool = True,
    *,
    within: bool | None = None,
    presence: Hashable | None = "presence",
    kinds: Mapping[str, str] | None = None,
    sample_rate: Hashable | float | Mapping[str, Hashable | float] | None = None,
    batched: bool | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> Leakage:
    """Find what splits share, per modality and pair of splits, in one pass over each and without keeping a sample.

    ``splits``: name → data set, DataLoader (or a list or mapping of them), iterable of samples or of batches, one batch
    (columns), table of pandas or pyarrow, or a manifest's path; the first is the one trained on. Or a
    LightningDataModule, whose loaders are read. ``modalities``: name → the sample's key, or a tuple of it and its
    mask's; or names that are keys. ``group``: a key or several (speaker, patient, source video). ``near``: look for
    near copies, in all or in the modalities named (needs the extra ``leakage``). ``target``: the label's key.
    ``within``: look for copies and label conflicts inside each split too; by default only where there is one.
    ``presence``: the key that says which modalities a sample has.
    ``kinds``: modality → text, image, audio or other, where `kind_of` would be wrong; "other" gets exact copies only,
    and "text" says that strings are letters, whatever file they name. ``sample_rate``: the audio's rate in Hz, or its
    key in the sample, or a mapping of modalities to these; without it rates are taken as equal, or one as twice the
    other. ``batched``: whether an iterable's elements are batches, where `is_batch` would be wrong. ``engine="ray"``:
    read manifests and data sets by number on a Ray cluster, else on ``workers`` local processes, for the same answer.

    An entry that is the path of a file is compared by what the file holds: decoded where that can be done, else by its
    bytes; `Leakage.compared` says how many of which. Groups and labels are read as in prediction files: 12, 12.0 and
    " 12" are one, a list is several. A sample number is the position in the split. Samples that lack a modality,
    silence and one-coloured pictures are not compared. Raises ValueError or TypeError for splits, keys, paths or inputs
    that are not as said, ImportError where near copies are asked for without the extra.

    >>> train = [{"text": "smoke on the second floor", "label": 1}, {"text": "a cat in a tree", "label": 0}]
    >>> test = [{"text": "A cat in a tree", "label": 0}, {"text": "smoke on the second floor", "label": 0}]
    >>> print(find_leakage({"train": train, "test": test}, ["text"], near=False, progress=False))
    kind           modality    splits                 count   share  examples
    exact          text        train → test               1   50.0%  0→1
    label_conflict text        train → test               1   50.0%  0→1
    Compared text: 4 texts by letters.
    """
    if is_module(splits):
        splits = splits_of(splits)
    if not isinstance(splits, Mapping) or not splits:
        got = "an empty one" if isinstance(splits, Mapping) else type(splits).__name__
        raise ValueError(f'splits is a mapping of names to data, or a data module, got {got}: write {{"train": …}}')
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
    letters = frozenset(modality for modality, kind in kinds.items() if kind == "text")
    rates = _rates(sample_rate, keys)
    plan = Plan(keys, groups, target, presence, rates, batched, kinds, letters, describers, wanted)
    if engine not in ("local", "ray"):
        raise ValueError(f"engine={engine!r}: expected 'local' or 'ray'")
    with kept_streams():
        if engine == "ray":
            prints = on_ray(splits, plan, workers)
        else:
            prints = {name: fingerprint(name, split, plan, _bar(name, progress)) for name, split in splits.items()}
        moving = [name for name, split in splits.items() if changes(name, split, plan, prints[name])]
    for name, part in prints.items():
        check_keys(name, plan, part)
    compared = _compared(prints, plan)
    found = _findings(prints, plan, len(prints) == 1 if within is None else within)
    sizes = {name: len(part) for name, part in prints.items()}
    notes = list(_notes(prints, compared, plan))
    if moving:
        notes.append(
            f"{', '.join(moving)}: read again, samples are others (an augmentation?), so copies may be missed."
        )
    if plan.target is not None and not any(part.labels.any() for part in prints.values()):
        notes.append(f"Label conflicts are not looked for: no sample has the target {plan.target!r}.")
    return Leakage(tuple(found), sizes, tuple(notes), compared)


def from_files(
    files: Mapping[str, FilePath | Sequence[FilePath]],
    modalities: Mapping[str, str] | Iterable[str],
    group: Any = None,
    near: bool | Iterable[str] = True,
    target: str | None = "label",
    progress: bool = True,
    kinds: Mapping[str, str] | None = None,
    within: bool | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> Leakage:
    r"""What splits given as manifests share; `find_leakage` over their rows, read one at a time.

    ``files``: split → a .csv or .tsv (with a header), .jsonl, .ndjson, .parquet or .pq file, or a list of these.
    ``modalities``: name → column, or names that are columns. A cell is a text, or the path of a file from the
    manifest's folder (or from where the program runs); an empty one is a missing modality. Raises ValueError for a
    file, row or cell that cannot be read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.csv").write_text("report,label\nsmoke in the cellar,1\n")
    >>> _ = (folder / "test.jsonl").write_text('{"report": "smoke in the cellar", "label": 1}\n')
    >>> files = {"train": folder / "train.csv", "test": folder / "test.jsonl"}
    >>> from_files(files, {"text": "report"}, near=False, progress=False).touched("test")
    [0]
    """
    more: dict[str, Any] = {"within": within, "kinds": kinds, "engine": engine, "workers": workers}
    return find_leakage(files, modalities, group, near, target, progress, presence=None, batched=False, **more)


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


def _compared(prints: dict[str, Fingerprints], plan: Plan) -> tuple[Compared, ...]:
    """What was compared how; raises ValueError where some entries of a modality are files and others letters."""
    rows = [
        Compared(modality, name, how, part.inputs[modality].compared[how])
        for modality in plan.modalities
        for name, part in prints.items()
        for how in (*HOW, "nothing")
        if part.inputs[modality].compared[how]
    ]
    for modality in plan.modalities:
        count = {how: sum(row.count for row in rows if (row.modality, row.how) == (modality, how)) for how in HOW}
        if count["text"] and (files := count["content"] + count["bytes"]):
            raise ValueError(
                f"modality {modality!r}: {files:,} entries are paths of files and {count['text']:,} name no file: mend "
                f"those paths, or say kinds={{{modality!r}: 'text'}} to compare letters"
            )
    return tuple(rows)


def _findings(prints: dict[str, Fingerprints], plan: Plan, within: bool) -> Iterator[Finding]:
    names, parts = list(prints), list(prints.values())
    inputs = {m: codes([part.inputs[m].digests for part in parts]) for m in plan.modalities}
    labels = codes([part.labels for part in parts])
    groups = {field: codes([part.groups[field][1] for part in parts]) for field in map(str, plan.groups)}
    for a, b in combinations_with_replacement(range(len(names)), 2):
        if a == b and not within:
            continue
        splits, N = (names[a], names[b]), len(parts[b])
        for modality, code in inputs.items():
            i, j = matches(code[a], code[b], EARLIER_KEPT)
            yield from _finding("exact", modality, splits, i, j, N)
            if modality in plan.near and plan.kinds.get(modality) in plan.describers:
                i, j = _near(
                    code[a], code[b], parts[a].inputs[modality], parts[b].inputs[modality], plan.kinds[modality]
                )
                yield from _finding("near", modality, splits, i, j, N)
            i, j = _conflicts(code[a], code[b], labels[a], labels[b])
            yield from _finding("label_conflict", modality, splits, i, j, N)
        for field, code in groups.items() if a != b else ():
            yield from _shared_groups(field, splits, code[a], code[b], parts[a], parts[b])


def _finding(
    kind: str, modality: str, splits: tuple[str, str], i: np.ndarray, j: np.ndarray, N: int
) -> Iterator[Finding]:
    """The finding that pairs ``(P,)`` i of the earlier and j of the later split make, if any; within one, i < j."""
    if splits[0] == splits[1]:
        i, j = i[i < j], j[i < j]
    samples = np.unique(j)
    if len(samples):
        pairs = tuple(zip(i[:PAIRS_KEPT].tolist(), j[:PAIRS_KEPT].tolist(), strict=True))
        yield Finding(kind, modality, splits, len(samples), len(samples) / N, pairs, tuple(samples.tolist()))


def _near(a: np.ndarray, b: np.ndarray, earlier: Read, later: Read, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Near copies among what is not an exact copy, each distinct input looked up once."""
    first = [np.unique(code[read.rows], return_index=True)[1] for code, read in ((a, earlier), (b, later))]
    inside = earlier is later
    new = first[1] if inside else first[1][~np.isin(b[later.rows[first[1]]], a)]
    i, j = near_copies.pairs(kind, earlier.records[first[0]], later.records[new])
    i, j = earlier.rows[first[0]][i], later.rows[new][j]
    if inside:
        return i, j
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


def _shared_groups(
    field: str, splits: tuple[str, str], a: np.ndarray, b: np.ndarray, earlier: Fingerprints, later: Fingerprints
) -> Iterator[Finding]:
    """The groups that both splits hold; of each the first sample in either."""
    (here, _), (there, _) = earlier.groups[field], later.groups[field]
    known, first = np.unique(b, return_index=True)
    i, j = matches(a, known, 1)
    if len(i):
        order = np.argsort(there[first[j]], kind="stable")[:PAIRS_KEPT]
        pairs = tuple(zip(here[i[order]].tolist(), there[first[j[order]]].tolist(), strict=True))
        samples = np.unique(there[np.isin(b, a)])
        yield Finding("group", field, splits, len(i), len(i) / len(known), pairs, tuple(samples.tolist()))


def _notes(prints: dict[str, Fingerprints], compared: tuple[Compared, ...], plan: Plan) -> Iterator[str]:
    for modality in plan.modalities:
        missing = [row for row in compared if row.modality == modality and row.how == "nothing"]
        if missing:
            counts = ", ".join(f"{row.count:,} of {row.split}" for row in missing)
            yield f"Not compared, as absent or constant in {modality}: {counts}."
        N = sum(row.count for row in compared if row.modality == modality and row.how != "nothing")
        apart = N - sum(len(part.inputs[modality].rows) for part in prints.values())
        if modality in plan.near and apart:
            which = "" if apart == N else f" of {apart:,} of {N:,}"
            yield f"{modality}: exact copies only{which}; kinds={{{modality!r}: …}} says text, image or audio."
        if any(row.modality == modality and row.how == "bytes" for row in compared):
            lacking = [package for name, package in DECODERS.items() if find_spec(name) is None]
            more = f"; {install(*lacking)} decodes more" if lacking else ""
            yield f"{modality}: what was compared by bytes may share what was coded another way{more}."
