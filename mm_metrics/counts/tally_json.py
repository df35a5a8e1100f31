"""A scorecard as JSON and back; ``scorecard.schema.json`` beside this file is the published form.

What is read may come from anywhere: nothing in it is run, unpacked beyond the size its layout says, or taken on trust.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from mm_metrics.counts.consistent import contradiction
from mm_metrics.counts.layout import Layout
from mm_metrics.counts.tally import Tally
from mm_metrics.files import finite, write_whole
from mm_metrics.modalities import Modalities
from mm_metrics.tasks import OTHER, task_of

T = TypeVar("T", bound=Tally)
FORMAT = "mm_metrics/scorecard"
VERSION = 2
_OF_LAYOUT: dict[str, Any] = {  # what a layout has beyond its sizes, and what it has in a card of version 1
    "patterns": None,
    "replicate_slices": None,
    "full": None,
    "last": True,
    "found": False,
    "answers": False,
    "curves": 0,
    "bins": 0,
    "levels": 0,
    "sums": (),
    "group_cells": 0,
    "ties": False,
    "marks": 0,
    "spread_bins": 64,
}
_OF_ANY_SIGN = {"groups", "ties", "totals", "replicate_totals", "spare"}  # hashes, differences, and what counts nowhere
_MAX_CELLS = 2**30  # 8 GiB of counts: more is a damaged or a hostile file
_SURELY_FITS, _LIKELY = 2**30, 64  # bytes unpacked, and beyond them how many to a packed one
_DEEPEST, _NESTED = 64, (dict, list, tuple)  # levels of info
_MOST = 2**53  # samples: sums of counts up to here overflow nothing, and float64 holds them


def write(card: Tally, path: str | os.PathLike[str] | None = None) -> str:
    """The card as JSON text; written to `path` whole or not at all, where one is given."""
    layout = card.layout
    raw = card.counts.numpy().astype("<i8", copy=False).data  # large ones pack slowly, for little
    content = {
        "format": FORMAT,
        "version": VERSION,
        "modalities": list(card.modalities),
        "task": card.task,
        "num_classes": layout.C,
        "num_labels": layout.L,
        "class_names": None if card.class_names is None else list(card.class_names),
        "coalitions": [layout.modalities.name(mask) for mask in layout.masks or ()],
        "bootstrap": layout.R,
        "seed": card.seed,
        "shards": list(card.shards),
        "parts": sorted(card.parts),
        "layout": {"by": list(map(list, layout.by)), **{name: getattr(layout, name) for name in _OF_LAYOUT}},
        "info": finite(_told(card.info)),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "counts": base64.b64encode(zlib.compress(raw, 6 if raw.nbytes < 2**20 else 2)).decode(),
    }
    text = json.dumps(content, indent=1, default=str, ensure_ascii=False, allow_nan=False)
    if path is not None:
        write_whole(path, text + "\n")
    return text


def read(source: str | os.PathLike[str], make: type[T]) -> T:
    """A card of the class `make` from a path, or from the JSON text; ValueError in one sentence for anything else."""
    text, where = str(source), "the JSON text"
    if not text.lstrip().startswith("{"):
        where = str(source)
        text = Path(source).read_bytes().decode(errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not a scorecard: no valid JSON ({error}); was it cut off?") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{where} is not a scorecard: its 'format' is not {FORMAT!r}")
    if content.get("version") not in (1, VERSION) or isinstance(content["version"], bool):
        raise ValueError(
            f"{where} is a scorecard of version {content.get('version')!r}, this library reads versions up to "
            f"{VERSION}: write it again with this release, or read it with the one that wrote it"
        )
    try:
        return make(**_fields(content))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, zlib.error) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where} is a damaged scorecard: {what}") from None


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    modalities = Modalities(_strings(content["modalities"], "modalities"))
    masks = modalities.masks(_strings(content["coalitions"], "coalitions"))
    task = task_of(content["task"])
    kept = _layout(content["layout"], content["version"])
    sizes = {name: _integer(content[name], name) for name in ("num_classes", "num_labels", "bootstrap")}
    if sizes["num_classes"] < 2 or sizes["num_labels"] < 1 or len(modalities) > 62:
        raise ValueError(f"sizes {sizes} make no scorecard")
    class_names = content["class_names"]
    if class_names is not None:
        class_names = tuple(_strings(class_names, "class_names"))
        if len(class_names) != sizes["num_labels" if task.by_label else "num_classes"]:
            raise ValueError(f"it names {len(class_names)} classes")
        "".join(class_names).encode()  # half a surrogate pair could be neither printed nor written again
    if task.positive or task.by_label:
        due = 3 if task.positive and class_names and class_names[-1] == OTHER else 2
        if sizes["num_classes"] != due:
            raise ValueError(f"num_classes is {sizes['num_classes']}, task {task.name} has {due}")
    if not task.by_label and sizes["num_labels"] != 1:
        raise ValueError(f"num_labels is {sizes['num_labels']}, task {task.name} has 1")
    layout = Layout(modalities, sizes["num_classes"], sizes["num_labels"], masks, sizes["bootstrap"], **kept)
    if layout.size > _MAX_CELLS:
        raise ValueError(f"it would hold {layout.size} counts, more than {_MAX_CELLS}")
    packed = base64.b64decode(content["counts"], validate=True)
    if 8 * layout.size > max(_SURELY_FITS, _LIKELY * len(packed)):
        raise ValueError(f"{len(packed):,} bytes would unpack to {8 * layout.size / 2**30:.1f} GiB")
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, 8 * layout.size + 1)
    if len(raw) != 8 * layout.size or hashlib.sha256(raw).hexdigest() != content["sha256"]:
        raise ValueError("its counts do not fit their layout or their checksum")
    counts = torch.from_numpy(np.frombuffer(raw, dtype="<i8").astype(np.int64))
    for name in layout.fields.keys() - _OF_ANY_SIGN:
        field = layout.view(counts, name)
        if field.numel() and (int(field.min()) < 0 or int(field.max()) > _MOST):
            raise ValueError(f"{name} holds a count outside 0…{_MOST}")
    info = _told(content["info"])
    if not isinstance(content["shards"], list):
        raise TypeError("shards is no list")
    shards = tuple(_integer(shard, "shards") for shard in content["shards"])
    parts = frozenset(_strings(content["parts"], "parts"))
    seed = content["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed is {seed!r}")
    if class_names and class_names[-1] == OTHER and bool((layout.class_sums(counts).actual[..., -1, -1] != 0).any()):
        raise ValueError(f"class {OTHER!r} has samples, and it stands for answers that are no class")
    if problem := contradiction(layout, counts):
        raise ValueError(problem)
    return {
        "layout": layout,
        "task": task.name,
        "counts": counts,
        "seed": seed,
        "class_names": class_names,
        "shards": shards,
        "info": info,
        "added": parts,
    }


def _layout(found: dict[str, Any], version: int) -> dict[str, Any]:
    """Arguments of `Layout` beyond its sizes."""
    kept: dict[str, Any] = {}
    for name, old in _OF_LAYOUT.items():
        value = found[name] if old is None else found.get(name, old)
        if name == "sums":
            kept[name] = tuple(_strings(list(value), name))
        else:
            kept[name] = _integer(value, name) if type(old) is int else _boolean(value, name)
    columns = [] if version == 1 else found["by"]
    by = tuple((_strings([column], "by")[0], tuple(_strings(values, "by"))) for column, values in columns)
    if len({column for column, _ in by}) < len(by) or any(len(set(values)) < max(2, len(values)) for _, values in by):
        raise ValueError("by names a column, or a value, twice")
    return kept | {"by": by}


def _told(info: object) -> dict[str, Any]:
    level, depth = [info], 0
    while depth <= _DEEPEST and level:
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, _NESTED))
        level, depth = [one for parts in inner for one in parts], depth + 1
    if not isinstance(info, dict) or level:
        raise TypeError(f"info is no object of at most {_DEEPEST} levels")
    return info


def _strings(value: object, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{what} is no list of strings")
    return value


def _boolean(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} is {value!r}, neither true nor false")
    return value


def _integer(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise TypeError(f"{what} is {value!r}, no count")
    return value
