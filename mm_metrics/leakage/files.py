"""Splits that are files: a CSV or JSON Lines manifest each, with texts and paths to recordings and pictures."""

from __future__ import annotations

import csv
import json
import os
import wave
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mm_metrics.leakage.detect import find_leakage
from mm_metrics.leakage.findings import Leakage

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def from_files(
    files: Mapping[str, str | os.PathLike[str]],
    modalities: Mapping[str, str] | Iterable[str],
    group: Any = None,
    near: bool | Iterable[str] = True,
    target: str | None = "label",
    progress: bool = True,
    kinds: Mapping[str, str] | None = None,
) -> Leakage:
    r"""What splits given as manifests share; `find_leakage` over their rows, read one at a time.

    ``files``: split → a .csv (with a header), .jsonl or .ndjson file. ``modalities``: name → column, or names that are
    columns. A cell ending in .wav (PCM) or a picture's ending is a path, relative to the manifest, unless ``kinds``
    says text; any other is the text itself; an empty one is a missing modality. A recording's own rate is used.
    Raises ValueError for a file, row or column that cannot be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.csv").write_text("report,label\nsmoke in the cellar,1\n")
    >>> _ = (folder / "test.jsonl").write_text('{"report": "smoke in the cellar", "label": 1}\n')
    >>> files = {"train": folder / "train.csv", "test": folder / "test.jsonl"}
    >>> from_files(files, {"text": "report"}, near=False, progress=False).touched("test")
    [0]
    """
    columns = dict(modalities) if isinstance(modalities, Mapping) else {name: name for name in modalities}
    texts = {columns[name] for name, kind in (kinds or {}).items() if kind == "text" and name in columns}
    splits = {name: _samples(Path(path), set(columns.values()), texts) for name, path in files.items()}
    rates = {name: ("rate", column) for name, column in columns.items()}
    return find_leakage(
        splits, columns, group, near, target, progress, presence=None, kinds=kinds, sample_rate=rates, batched=False
    )


def _samples(path: Path, columns: set[str], texts: set[str]) -> Iterator[dict[Any, Any]]:
    for number, row in enumerate(_rows(path), start=1):
        sample: dict[Any, Any] = dict(row)
        for column in columns & set(row):
            cell = row[column]
            sample[column], sample["rate", column] = None, None
            if isinstance(cell, str) and cell.strip():
                try:
                    loaded = (cell, None) if column in texts else _loaded(cell, path.parent)
                except (OSError, ValueError, EOFError, wave.Error) as error:
                    raise ValueError(f"{path}, row {number}, column {column!r}: {error}") from error
                sample[column], sample["rate", column] = loaded
            elif cell is not None and not isinstance(cell, str):
                sample[column] = cell  # JSON Lines may hold token numbers
        yield sample


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    ending = path.suffix.lower()
    if ending not in (".csv", ".jsonl", ".ndjson"):
        raise ValueError(f"{path} is a {ending or 'file without ending'}: a manifest is .csv, .jsonl or .ndjson")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if ending == ".csv":
                yield from csv.DictReader(file, strict=True)
                return
            for line in file:
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("each line is an object")
                    yield row
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no {ending[1:]} file: {error}") from error


def _loaded(cell: str, folder: Path) -> tuple[Any, float | None]:
    """The input that a cell stands for, and its rate in Hz where it is a recording."""
    ending = Path(cell).suffix.lower()
    if ending == ".wav":
        return _recording(folder / cell)
    if ending in PICTURES:
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError('pictures need the extra: pip install "mm_metrics[leakage]"') from error
        with Image.open(folder / cell) as picture:
            return np.asarray(picture.convert("RGB")), None
    return cell, None


def _recording(path: Path) -> tuple[np.ndarray, float]:
    with wave.open(str(path), "rb") as file:
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
        data = np.frombuffer(file.readframes(file.getnframes()), dtype=np.uint8)
    data = data[: len(data) - len(data) % (width * channels)]
    if width == 1:
        samples = data.astype(np.float32) / 128 - 1
    else:  # little-endian integers of any width, in the high bytes of 32 bits
        padded = np.zeros((len(data) // width, 4), dtype=np.uint8)
        padded[:, 4 - width :] = data.reshape(-1, width)
        samples = padded.view("<i4").reshape(-1).astype(np.float32) / 2**31
    return samples.reshape(-1, channels).T.squeeze(0) if channels == 1 else samples.reshape(-1, channels).T, float(rate)
