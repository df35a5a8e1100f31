"""Parquet, by pyarrow, in batches whatever the size of its row groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mm_metrics.extras import needed
from mm_metrics.tables.source import Block, Refuse, Source

_BUFFER = 2**20  # bytes of a column chunk read at a time
_LIMITS = {"thrift_string_size_limit": 2**26, "thrift_container_size_limit": 2**22}  # of a hostile footer


def columns(source: Source) -> list[str]:
    """The names of the columns."""
    with _opened(source) as file:
        return list(file.schema_arrow.names)


def blocks(source: Source, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as they are; words stay in dictionaries, so that a block is no larger than the file says."""
    with _opened(source) as file:
        import pyarrow as pa

        text = {pa.string(), pa.binary()}
        words = [field.name for field in file.schema_arrow if field.name in wanted and field.type in text]
    with _opened(source, read_dictionary=words, buffer_size=_BUFFER, pre_buffer=False) as file:
        meta, groups = file.metadata, range(file.num_row_groups) if source.groups is None else source.groups
        end = sum(meta.row_group(i).num_rows for i in range(groups[0])) if len(groups) else 0
        for batch in file.iter_batches(block_rows, groups, columns=wanted, use_threads=False):
            rows = np.arange(end, end + batch.num_rows)
            end += batch.num_rows
            yield Block(rows, {name: batch.column(name) for name in wanted}, end)


def split(source: Source, rows: int) -> list[Source]:
    """The same file in parts of whole row groups, each of at least so many rows but the last."""
    with _opened(source) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    parts: list[list[int]] = [[]]
    for i in range(len(sizes)):
        if sum(sizes[j] for j in parts[-1]) >= rows:
            parts.append([])
        parts[-1].append(i)
    return [replace(source, groups=tuple(part)) for part in parts]


def parquet() -> Any:
    """Pyarrow's reader and writer; ImportError with what to install."""
    with needed("pyarrow", "Parquet needs pyarrow, which is not installed"):
        from pyarrow import parquet
    return parquet


def _opened(source: Source, **options: Any) -> Any:
    return parquet().ParquetFile(source.path, **options, **_LIMITS)
