"""What the fingerprints of splits share: copies, conflicts of labels, groups; and what could not be compared."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations_with_replacement

import numpy as np

from mm_metrics.extras import install
from mm_metrics.leakage.findings import HOW, PAIRS_KEPT, Compared, Finding
from mm_metrics.leakage.fingerprints import ODD_KEPT, Fingerprints, Plan, Read
from mm_metrics.leakage.lookup import codes, matches
from mm_metrics.leakage.near import kinds as near_copies

DECODERS = {"soundfile": "soundfile", "PIL": "pillow"}
EARLIER_KEPT = 10  # earlier samples listed for one later sample


def compared_of(prints: dict[str, Fingerprints], plan: Plan) -> tuple[Compared, ...]:
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


def findings_of(prints: dict[str, Fingerprints], plan: Plan, within: bool) -> Iterator[Finding]:
    """What every pair of splits shares, and each ``within``, a finding a kind and modality."""
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
                reads = parts[a].inputs[modality], parts[b].inputs[modality]
                i, j = _near(code[a], code[b], *reads, plan.kinds[modality])
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


def notes_of(
    prints: dict[str, Fingerprints], compared: tuple[Compared, ...], plan: Plan, moving: list[str]
) -> Iterator[str]:
    """What could not be compared, or not fully, a sentence each; ``moving`` splits are others when read again."""
    for modality in plan.modalities:
        of = [row for row in compared if row.modality == modality]
        if missing := [f"{row.count:,} of {row.split}" for row in of if row.how == "nothing"]:
            yield f"Not compared, as absent or constant in {modality}: {', '.join(missing)}."
        N = sum(row.count for row in of if row.how != "nothing")
        apart = N - sum(len(part.inputs[modality].rows) for part in prints.values())
        if modality in plan.near and apart:
            which = "" if apart == N else f" of {apart:,} of {N:,}"
            yield f"{modality}: exact copies only{which}; kinds={{{modality!r}: …}} says text, image or audio."
        odd = [what for part in prints.values() for what in part.inputs[modality].odd]
        lacking = [package for name, package in DECODERS.items() if find_spec(name) is None]
        if odd and not lacking:
            yield f"{modality}: {'; '.join(odd[:ODD_KEPT])}{'; …' if len(odd) >= ODD_KEPT else '.'}"
        if any(row.how == "bytes" for row in of):
            more = f"; {install(*lacking)} decodes more" if lacking else ""
            yield f"{modality}: what was compared by bytes may share what was coded another way{more}."
    if moving:
        yield f"{', '.join(moving)}: read again, samples are others (an augmentation?), so copies may be missed."
    if plan.target is not None and not any(part.labels.any() for part in prints.values()):
        yield f"Label conflicts are not looked for: no sample has the target {plan.target!r}."
