"""The book of a stage, written while it runs: values leave the accelerator in bulk, shards of ranks are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.truth import Rows
from mm_metrics.counts.labels import Labels
from mm_metrics.counts.measure import true_probability
from mm_metrics.metrics import CoalitionConfusionMatrix
from mm_metrics.predictions.book import BookWriter, column_of, header_of, join_books, value_names

_HELD = 16  # batches that may be on their way to the host


class Book:
    """One loader's book: `add` a batch after it was counted, `finish` on every rank."""

    def __init__(
        self, folder: Path, name: str, rank: int, metric: CoalitionConfusionMatrix, say: Callable[[str], None]
    ) -> None:
        self.path, self.rank, self.metric, self.say = folder / f"{name}.samples.parquet", rank, metric, say
        self.header = header_of(metric)
        self.fault: str | None = None  # why there is no book
        self._waiting: list[tuple[dict[str, Any], Any]] = []
        with self._on_disk():
            self.writer = BookWriter(self.shard(rank), self.header)

    def shard(self, rank: int) -> Path:
        """The file of one rank."""
        return self.path.with_name(f".{self.path.stem}.{rank}.parquet")

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Give the book up where a disk does not take it: the counts stay, and a training is worth more."""
        try:
            yield
        except OSError as error:
            self.fault, self._waiting = self.fault or str(error), []

    def add(self, masks: Sequence[int], rows: Rows, labels: Labels) -> None:
        """Rows of a batch that the coalitions `masks` answered, as they came and as `labels`."""
        if self.fault is not None:
            return
        modalities, by_label, preds = self.metric.modalities, self.metric.task.by_label, rows.answers
        numeric, counted = self.metric.task.ordinal, rows.counted
        held = true_probability(self.metric.reader, preds, labels)
        true = labels.target
        if numeric:
            true = rows.target.reshape(-1, 1).float()
        elif labels.ignored is not None and self.header["ignore_index"] is not None:
            true = torch.where(labels.ignored, self.header["ignore_index"], true)
        columns: dict[str, Any] = {
            "target": true if by_label else true[:, 0],
            "index": rows.numbers,
            "group": rows.group,
        }
        columns |= {f"by_{column}": (rows.by or {})[column] for column, _ in self.header["by"]}
        for m, name in enumerate(modalities):
            columns[f"presence_{name}"] = None if rows.slices is None else rows.slices[:, m] != 0
        for k, mask in enumerate(masks):
            coalition = modalities.name(mask)
            said = labels.predicted[k] if by_label else labels.predicted[k, :, 0]
            said = preds[k].reshape(-1).float() if numeric else said
            column, probable = (column_of(self.header, coalition, what) for what in ("prediction", "true_probability"))
            columns[column] = said if counted is None else (said, ~counted[k])
            columns[probable] = held[k] if counted is None else (held[k], ~counted[k])
        self._waiting.append(on_their_way(columns))
        while self._waiting and (len(self._waiting) > _HELD or self._waiting[0][1] is None):
            self._write(*self._waiting.pop(0))  # what is on the host already may be the batch's own, which may change

    def finish(self, trainer: Any) -> None:
        """Close this rank's shard; rank zero joins them, or says why there is no book. Every rank calls it."""
        while self._waiting:
            self._write(*self._waiting.pop(0))
        with self._on_disk():
            if self.fault is None:
                self.writer.close()
        self.fault = next(filter(None, gathered(self.fault)), None)  # all shards are there
        shards = [self.shard(rank) for rank in range(trainer.world_size)]
        if not trainer.is_global_zero:
            return
        with self._on_disk():
            if self.fault is None:
                join_books(shards, self.path)
        if self.fault is not None:
            self.say(f"{self.path} could not be written ({self.fault}): training goes on without it")
            for path in (self.path, *shards):
                with suppress(OSError):
                    path.unlink()

    def drop(self) -> None:
        """Leave no half book behind, where the validation came to no end."""
        self._waiting = []
        with suppress(OSError):
            self.shard(self.rank).unlink(missing_ok=True)

    def _write(self, columns: dict[str, Any], arrived: Any) -> None:
        if arrived is not None:
            arrived.synchronize()
        N = len(columns["target"])
        rows: dict[str, Any] = {}
        for name, value in columns.items():
            if name.startswith("presence_") and value is None:
                value = torch.ones(N, dtype=torch.bool)
            if name.startswith("by_"):
                rows[name] = value_names(self.header, name, value)
                continue
            parts = value if isinstance(value, tuple) else (value,)
            arrays = tuple(None if part is None else part.numpy() for part in parts)
            rows[name] = arrays if len(arrays) > 1 else arrays[0]
        with self._on_disk():
            self.writer.add(rows)


def on_their_way(columns: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Copies on the host, asynchronously from an accelerator, and the event after which they are there."""

    def away(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(away, value))
        if not isinstance(value, Tensor) or value.device.type != "cuda":
            return value.detach().cpu() if isinstance(value, Tensor) else value
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value.detach(), non_blocking=True)

    event = None
    moved = {name: away(value) for name, value in columns.items()}
    if any(isinstance(value, Tensor) and value.device.type == "cuda" for value in columns.values()):
        event = torch.cuda.Event()
        event.record()
    return moved, event
