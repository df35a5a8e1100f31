"""Parquet, by pyarrow, in batches whatever the size of its row groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mm_metrics.predictions.reading import Block, Refuse, pyarrow

_BUFFER = 2**20  # bytes of a column chunk read at a time
_LIMITS = {"thrift_string_size_limit": 2**26, "thrift_container_size_limit": 2**22}  # of a hostile footer


def columns(path: Path) -> list[str]:
    """The names of the columns."""
    pyarrow()
    from pyarrow import parquet

    with parquet.ParquetFile(path, **_LIMITS) as file:
        return list(file.schema_arrow.names)


def blocks(path: Path, wanted: list[str], refuse: Refuse, block_rows: int) -> Iterator[Block]:
    """The wanted columns as they are; words stay in dictionaries, so that a block is no larger than the file says."""
    pa = pyarrow()
    from pyarrow import parquet

    with parquet.ParquetFile(path, **_LIMITS) as file:
        words = [field.name for field in file.schema_arrow if field.name in wanted and _is_text(pa, field.type)]
    options: dict[str, Any] = {"read_dictionary": words, "buffer_size": _BUFFER, "pre_buffer": False, **_LIMITS}
    end = 0
    with parquet.ParquetFile(path, **options) as file:
        for batch in file.iter_batches(batch_size=block_rows, columns=wanted, use_threads=False):
            rows = np.arange(end, end + batch.num_rows)
            end += batch.num_rows
            yield Block(rows, {name: batch.column(name) for name in wanted}, end)


def place(path: Path, row: int) -> str:
    """The number of a row, from 1."""
    return f"row {row + 1}"


def _is_text(pa: Any, type: Any) -> bool:
    return pa.types.is_string(type) or pa.types.is_binary(type)
