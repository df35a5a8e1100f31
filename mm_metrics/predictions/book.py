"""The book of a stage: one row a sample, what it was and what was said under every coalition, as Parquet.

Written in shards, one a rank, whose row groups rank zero joins; read again to the very card that was counted. Columns:
``index``, ``group``, ``target``, ``prediction``, ``presence_{modality}``, ``by_{column}`` and for each coalition
``prediction_{coalition}`` and ``true_probability_{coalition}``: how probable the model held what was true. A prediction
that was not given is null, an answer that is no class -1. Labels are class numbers, in multilabel lists of 0 and 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.modalities import UNHIDDEN
from mm_metrics.scorecard import Scorecard
from mm_metrics.tables.parquet_file import parquet
from mm_metrics.tasks import task_of

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"mm_metrics"  # of the schema's metadata, under which the header stands as JSON
FORMAT = "mm_metrics/samples"
ROWS = 65_536  # of a row group


def header_of(metric: CoalitionConfusionMatrix) -> dict[str, Any]:
    """What a book says of itself, so that the same metric can be made to count it again."""
    layout, reader = metric.layout, metric.reader
    return {
        "format": FORMAT,
        "version": 1,
        "modalities": list(metric.modalities.names),
        "task": metric.task.name,
        "num_classes": layout.C,
        "num_labels": layout.L,
        "class_names": None if metric.class_names is None else list(metric.class_names),
        "coalitions": list(metric.coalitions),
        "own": UNHIDDEN if UNHIDDEN in metric.coalitions else metric.coalitions[-1],
        "bootstrap": layout.R,
        "seed": metric.seed,
        "ignore_index": reader.ignore_index,
        "edges": reader.edges,
        "by": [[column, list(values)] for column, values in layout.by if not column.startswith("_")],
    }


def header_in(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The header of a Parquet file that is a book, else None."""
    metadata = parquet().read_schema(path).metadata or {}
    header = json.loads(metadata[KEY]) if KEY in metadata else {}
    return header if header.get("format") == FORMAT else None


class BookWriter:
    """Writes rows to a shard by row groups; memory holds one of them. Raises ImportError without pyarrow."""

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self.path, self.header = Path(path), header
        self.schema = _schema(header)
        self._rows: list[pa.RecordBatch] = []
        self._count = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _writer(self.path, self.schema)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Rows by column name: arrays ``(N,)``, of labels ``(N, L)``; a column left out is null."""
        import pyarrow as pa

        N = len(columns["target"])
        arrays = [_array(columns.get(field.name), field.type, N) for field in self.schema]
        self._rows.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._count += N
        if self._count >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group."""
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._rows).combine_chunks())
            self._rows, self._count = [], 0

    def close(self) -> None:
        """Finish the shard."""
        self.flush()
        self._writer.close()


def join_books(shards: Iterable[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Copy the row groups of all shards to `path`, or where it links to, whole or not at all; remove the shards."""
    target, parts = Path(os.path.realpath(path)), list(map(Path, shards))
    whole = target.with_name(f".{target.name}.whole")
    try:
        if parts[1:]:
            with _writer(whole, parquet().read_schema(parts[0])) as writer:
                for shard in parts:
                    with parquet().ParquetFile(shard) as file:
                        for group in range(file.num_row_groups):
                            writer.write_table(file.read_row_group(group))
        os.replace(whole if parts[1:] else parts[0], target)
    finally:
        for shard in (whole, *parts):
            shard.unlink(missing_ok=True)
    return target


def score_book(path: str | os.PathLike[str]) -> Scorecard:
    """The card of a book's samples, equal to the one that was counted; ValueError for a file that is no book.

    Scores that need more than labels, as AUROC does, are not in a book.
    """
    header = header_in(path)
    if header is None:
        raise ValueError(f"{path} is no book of samples, as samples='all' of the monitor writes them")
    kind = task_of(header["task"])
    metric = CoalitionConfusionMatrix(
        header["modalities"],
        header["num_classes"] if kind.by_class else None,
        kind.name,
        header["num_labels"] if kind.by_label else None,
        by={column: values[:-1] for column, values in header["by"]},
        **{name: header[name] for name in ("coalitions", "bootstrap", "seed", "ignore_index", "class_names", "edges")},
    )
    with parquet().ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            _count(metric, header, file.read_row_group(group))
    return metric.scorecard(book=Path(path).name)


def column_of(header: Mapping[str, Any], coalition: str, what: str = "prediction") -> str:
    """The column of a coalition's predictions: the model's own have no name behind them."""
    return what if coalition == header["own"] else f"{what}_{coalition}"


def value_names(header: Mapping[str, Any], name: str, values: Any) -> list[str]:
    """The values of a column ``by_{column}`` by name, from codes or names ``(N,)``; what is none of them is other."""
    names = dict(map(tuple, header["by"]))[name.removeprefix("by_")]
    if isinstance(values, torch.Tensor):
        return [names[code] if 0 <= code < len(names) else names[-1] for code in values.tolist()]
    return [str(value) if str(value) in names else names[-1] for value in values]


def _count(metric: CoalitionConfusionMatrix, header: Mapping[str, Any], table: pa.Table) -> None:
    by_label, L = metric.task.by_label, header["num_labels"]

    def labels(column: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers, 0 where null, and where there are some."""
        cells = table[column].combine_chunks()
        there = ~cells.is_null().to_numpy(zero_copy_only=False)
        if by_label:
            values = np.zeros((len(cells), L), dtype=np.int64)
            values[there] = cells.drop_null().flatten().to_numpy().reshape(-1, L)
            return values, there
        return cells.fill_null(0).to_numpy().astype(np.float32 if header["edges"] else np.int64), there

    target, _ = labels("target")
    answers = [labels(column_of(header, coalition)) for coalition in header["coalitions"]]
    presence = {
        name: torch.from_numpy(table[f"presence_{name}"].to_numpy().astype(bool)) for name in header["modalities"]
    }
    numbers = {name: table[name].combine_chunks() for name in ("index", "group")}
    numbers = {name: cells for name, cells in numbers.items() if not cells.null_count}
    given = {name: torch.from_numpy(cells.to_numpy().astype(np.int64)) for name, cells in numbers.items()}
    metric.update(
        torch.from_numpy(np.stack([values for values, _ in answers])),
        torch.from_numpy(target),
        presence,
        given.get("index"),
        given.get("group"),
        {column: table[f"by_{column}"].to_pylist() for column, _ in header["by"]} or None,
        counted=torch.from_numpy(np.stack([there for _, there in answers])),
    )


def _schema(header: Mapping[str, Any]) -> pa.Schema:
    import pyarrow as pa

    label = pa.float32() if header["edges"] else pa.int32()
    label = pa.list_(pa.int8()) if task_of(header["task"]).by_label else label
    fields = [("index", pa.int64()), ("group", pa.int64()), ("target", label)]
    fields += [(column_of(header, name), label) for name in [header["own"]]]
    fields += [(f"presence_{name}", pa.bool_()) for name in header["modalities"]]
    fields += [(f"by_{column}", pa.string()) for column, _ in header["by"]]
    others = [name for name in header["coalitions"] if name != header["own"]]
    fields += [(column_of(header, name), label) for name in others]
    fields += [(column_of(header, name, "true_probability"), pa.float32()) for name in (header["own"], *others)]
    return pa.schema(fields, metadata={KEY: json.dumps(header)})


def _writer(path: Path, schema: pa.Schema) -> Any:
    """What writes a book: columns of labels by a dictionary, for which probabilities and numbers are too many."""
    labels = [field.name for field in schema if "probability" not in field.name and field.name != "index"]
    return parquet().ParquetWriter(path, schema, use_dictionary=labels)


def _array(values: Any, kind: pa.DataType, N: int) -> pa.Array:
    import pyarrow as pa

    if values is None:
        return pa.nulls(N, kind)
    mask = None
    if isinstance(values, tuple):  # with where they are not given
        values, mask = values
    if pa.types.is_list(kind):
        given = np.ones(len(values), dtype=bool) if mask is None else ~mask
        ends = np.cumsum(np.where(given, values.shape[1], 0), dtype=np.int32)
        flat = pa.array(values[given].reshape(-1), kind.value_type)
        offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
        return pa.ListArray.from_arrays(offsets, flat, mask=None if mask is None else pa.array(mask))
    return pa.array(values, kind, mask=mask)
