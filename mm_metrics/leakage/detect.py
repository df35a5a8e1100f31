"""The door: splits, whatever they are, to what they share; light to import, and so the command line's options."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from mm_metrics.leakage.findings import Leakage
from mm_metrics.modalities import Modalities


def find_leakage(
    splits: Any,
    modalities: Mapping[str, Any] | Iterable[str],
    group: Hashable | Collection[Hashable] | None = None,
    near: bool | str | Iterable[str] = True,
    target: Hashable | None = "label",
    progress: bool = True,
    *,
    within: bool | None = None,
    presence: Hashable | None = "presence",
    kinds: Mapping[str, str] | None = None,
    sample_rate: Hashable | Mapping[str, Hashable] | None = None,
    batched: bool | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> Leakage:
    """Find what splits share, per modality and pair of splits, in one pass over each and without keeping a sample.

    An entry that is the path of a file is compared by what the file holds: decoded where that can be done, else by its
    bytes; `Leakage.compared` says how many of which. Groups and labels are read as in prediction files: 12, 12.0 and
    " 12" are one, a list is several. A sample number is the position in the split. Samples that lack a modality,
    silence and one-coloured pictures are not compared. Every argument but ``splits`` is an option of ``mm-metrics
    leakage``.

    Args:
        splits: name → data set, DataLoader (or a list or mapping of them), iterable of samples or of batches, one batch
            (columns), table of pandas or pyarrow, or a manifest's path; the first is the one trained on. Or a
            LightningDataModule, whose loaders are read
        modalities: their names, each with its key or column where that has another name; of a key and its masks' a
            tuple, or k,mask
        group: a key or column, or several, whose equal entries are one speaker, patient or source video
        near: look for near copies too, in all modalities or in those named; needs the extra leakage: texts of 20 words
            whose runs of letters agree by 0.7 (Jaccard), pictures whose thumbnails correlate by 0.88, recordings whose
            waveforms do by 0.91
        target: the label's key or column
        progress: show a bar for each split
        within: look for copies and label conflicts inside each split too; by default only where there is one
        presence: the key or column that says which modalities a sample has: a mapping, or one 0 or 1 for each (1|0)
        kinds: of modalities, text, image, audio or other, where what is seen would be wrong; other gets exact copies
            only, and text says that strings are letters, whatever file they name
        sample_rate: the audio's rate in Hz, or its key or column, for all modalities or by name; without it rates are
            taken as equal, or one as twice the other
        batched: an iterable's elements are batches, or are not, where `is_batch` would be wrong
        engine: ray reads manifests, and data sets by number, on a cluster, else on local processes; the same answer
        workers: local processes of the engine ray; all cores by default

    Raises ValueError or TypeError for splits, keys, paths or inputs that are not as said, ImportError where near copies
    are asked for without the extra.

    >>> train = [{"text": "smoke on the second floor", "label": 1}, {"text": "a cat in a tree", "label": 0}]
    >>> test = [{"text": "A cat in a tree", "label": 0}, {"text": "smoke on the second floor", "label": 0}]
    >>> print(find_leakage({"train": train, "test": test}, ["text"], near=False, progress=False))
    kind           modality    splits                 count   share  examples
    exact          text        train → test               1   50.0%  0→1
    label_conflict text        train → test               1   50.0%  0→1
    Compared text: 4 texts by letters.
    """
    from mm_metrics.leakage import fingerprints, shared
    from mm_metrics.leakage.engine import on_ray
    from mm_metrics.leakage.inputs import KINDS
    from mm_metrics.leakage.modules import is_module, splits_of
    from mm_metrics.leakage.near.kinds import describers
    from mm_metrics.streams import kept_streams

    if is_module(splits):
        splits = splits_of(splits)
    if not isinstance(splits, Mapping) or not splits:
        got = "an empty one" if isinstance(splits, Mapping) else type(splits).__name__
        raise ValueError(f'splits is a mapping of names to data, or a data module, got {got}: write {{"train": …}}')
    named = modalities if isinstance(modalities, Mapping) else {name: name for name in Modalities(modalities)}
    keys = {name: key if isinstance(key := named[name], tuple) else (key,) for name in Modalities(named)}
    kinds = dict(kinds or {})
    for modality, kind in kinds.items():
        if modality not in keys or kind not in KINDS:
            raise ValueError(f"kinds[{modality!r}]={kind!r}: expected one of {tuple(keys)} as one of {KINDS}")
    wanted = frozenset(keys if near is True else () if near is False else [near] if isinstance(near, str) else near)
    if not wanted <= set(keys):
        raise ValueError(f"near={sorted(wanted)} names modalities that are not among {tuple(keys)}")
    groups = () if group is None else tuple(group) if isinstance(group, list | tuple | set) else (group,)
    letters = frozenset(modality for modality, kind in kinds.items() if kind == "text")
    rates = sample_rate if isinstance(sample_rate, Mapping) else dict.fromkeys(keys, sample_rate)
    if not set(rates) <= set(keys):
        raise ValueError(f"sample_rate names {sorted(rates)}, the modalities are {tuple(keys)}")
    rates = {name: rate for name, rate in rates.items() if rate is not None}
    near_by = describers() if wanted else {}
    plan = fingerprints.Plan(keys, groups, target, presence, rates, batched, kinds, letters, near_by, wanted)
    if engine not in ("local", "ray"):
        raise ValueError(f"engine={engine!r}: expected 'local' or 'ray'")
    with kept_streams():
        if engine == "ray":
            prints = on_ray(splits, plan, workers)
        else:
            read = fingerprints.fingerprint
            prints = {name: read(name, split, plan, _bar(name, progress)) for name, split in splits.items()}
        moving = [name for name, split in splits.items() if fingerprints.changes(name, split, plan, prints[name])]
    for name, part in prints.items():
        fingerprints.check_keys(name, plan, part)
    compared = shared.compared_of(prints, plan)
    found = shared.findings_of(prints, plan, len(prints) == 1 if within is None else within)
    notes = (*shared.notes_of(prints, compared, plan, moving),)
    sizes = {name: len(part) for name, part in prints.items()}
    return Leakage(tuple(found), sizes, notes, compared, tuple(map(str, groups)))


def from_files(
    files: Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]],
    modalities: Mapping[str, str] | Iterable[str],
    *arguments: Any,
    **more: Any,
) -> Leakage:
    r"""What splits given as manifests share; `find_leakage` over their rows, read one at a time.

    ``files``: split → a .csv or .tsv (with a header), .jsonl, .ndjson, .parquet or .pq file, or a list of these.
    ``modalities``: name → column, or names that are columns. A cell is a text, or the path of a file from the
    manifest's folder (or from where the program runs); an empty one is a missing modality. Takes the other arguments of
    `find_leakage`, ``presence`` as None by default. Raises ValueError for a file, row or cell that cannot be read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.csv").write_text("report,label\nsmoke in the cellar,1\n")
    >>> _ = (folder / "test.jsonl").write_text('{"report": "smoke in the cellar", "label": 1}\n')
    >>> files = {"train": folder / "train.csv", "test": folder / "test.jsonl"}
    >>> from_files(files, {"text": "report"}, near=False, progress=False).touched("test")
    [0]
    """
    return find_leakage(files, modalities, *arguments, **{"presence": None, "batched": False, **more})


def _bar(name: str, progress: bool) -> Callable[[Iterator, int | None], Iterator]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return lambda samples, _: samples
    how = {"desc": f"leakage: {name}", "unit": " samples", "disable": not progress}
    return lambda samples, total: iter(tqdm(samples, total=total, **how))
