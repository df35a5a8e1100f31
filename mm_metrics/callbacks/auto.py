"""Slices without a column: properties that the monitor reads off the inputs, cut at thirds of the first validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mm_metrics.callbacks.prober import Shown
from mm_metrics.callbacks.truth import Rows
from mm_metrics.callbacks.watched import Watched
from mm_metrics.properties import LEVELS, PROPERTIES, cut_points, levels

AUTO, MISSING = "auto", "missing"


def without_auto(by: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The columns of `by` that batches hold."""
    return {name: values for name, values in (by or {}).items() if not _is_auto(values)} or None


class Auto:
    """The columns of `by` that are "auto": their values in a batch, and their cut points, equal on all ranks."""

    def __init__(self, by: Mapping[str, Any] | None, watched: Watched, say: Callable[[str], None]) -> None:
        self.watched, self.say = watched, say
        asked = [column for column, values in (by or {}).items() if _is_auto(values)]
        self.columns = {column: column.rpartition(".")[::2] for column in asked if column != MISSING}
        self.missing = MISSING in asked
        for column, (modality, name) in self.columns.items():
            if name not in PROPERTIES or modality not in ("", *watched.modalities):
                raise ValueError(
                    f"by[{column!r}]='auto': one of {', '.join(PROPERTIES)}, {MISSING}, with a modality of "
                    f"{', '.join(watched.modalities)} before it where several have it, 'audio.loudness'"
                )
        self.cuts: dict[str, tuple[float, ...]] = {}
        M = len(watched.modalities)
        self.by = {
            column: values if column not in asked else M + 1 if column == MISSING else list(LEVELS)
            for column, values in (by or {}).items()
        } or None

    @property
    def waits(self) -> bool:
        """Whether cut points are not known yet."""
        return not self.columns.keys() <= self.cuts.keys()

    def values(self, batch: Any, shown: Shown) -> dict[str, Tensor]:
        """``(N,)`` each; NaN where the sample lacks the modality. Raises ValueError where it is not clear which."""
        N, device, presence = shown.preds.shape[1], shown.preds.device, shown.presence
        found: dict[str, Tensor] = {}
        for column, (modality, name) in self.columns.items():
            modality = modality or self._modality(batch, column)
            m, value = self.watched.modalities.names.index(modality), torch.full((N,), torch.nan, device=device)
            entry = next(self._entries(batch, modality, PROPERTIES[name][1]), None)
            entry = next(self._entries(batch, modality), None) if entry is None else entry
            if entry is not None:
                value = PROPERTIES[name][0](entry).to(device)
            found[column] = value if presence is None else torch.where(presence[:, m] != 0, value, torch.nan)
        if self.missing:
            has = torch.ones(N, len(self.watched.modalities), device=device) if presence is None else presence != 0
            found[MISSING] = (has == 0).sum(1)
        return found

    def _modality(self, batch: Any, column: str) -> str:
        fits = PROPERTIES[column][1]
        names = [name for name in self.watched.modalities if next(self._entries(batch, name, fits), None) is not None]
        if len(names) != 1:
            raise ValueError(
                f"by[{column!r}]='auto': {' and '.join(names) or 'no modality'} can have that, say which: by="
                f"{{'{(names or self.watched.modalities.names)[-1]}.{column}': 'auto'}}"
            )
        self.columns[column] = (names[0], column)
        return names[0]

    def _entries(self, batch: Any, modality: str, fits: Callable[[Any], bool] = lambda entry: True) -> Any:
        """The entries of a modality that fit, its samples first; lists of tensors are padded to one."""
        for entry, axis in self.watched.entries(batch, modality):
            if isinstance(entry, list) and entry and all(isinstance(x, Tensor) and x.ndim == 1 for x in entry):
                entry = torch.nn.utils.rnn.pad_sequence(entry, batch_first=True)
            if isinstance(entry, Tensor) and axis:
                entry = entry.movedim(axis, 0)
            absent = entry is None or (isinstance(entry, Tensor) and entry.numel() == 0)  # without rows
            if not absent and fits(entry):
                yield entry

    def cut(self, parts: Sequence[dict[str, list[Tensor]]]) -> None:
        """Take the cut points from the values of all ranks, in the host's memory, where they are not known."""
        if not self.waits:
            return
        for column in self.columns:
            ends = cut_points(torch.cat([torch.zeros(0), *(value for part in parts for value in part.get(column, ()))]))
            if ends:
                self.cuts[column] = ends
            if len(set(ends)) < len(LEVELS) - 1:
                self.say(f"by[{column!r}]='auto': thirds of it end at {list(ends)}, so some of its slices are empty")

    def coded(self, rows: Rows, known: bool = True) -> Rows:
        """The rows with the numbers of their thirds; all of them those of no third where cut points are not `known`."""
        if not self.columns:
            return rows
        by = dict(rows.by or {})
        for column in self.columns:
            value = torch.as_tensor(by[column], device=rows.preds.device)
            by[column] = levels(value.float(), self.cuts.get(column, ()) if known else ())
        return rows._replace(by=by)

    def info(self) -> dict[str, Any]:
        """What the card tells of it."""
        return {"cuts": {column: list(cuts) for column, cuts in self.cuts.items()}} if self.columns else {}

    def load(self, cuts: Any) -> None:
        """Go on with the cut points of a checkpoint."""
        if isinstance(cuts, dict) and cuts.keys() == self.columns.keys():
            self.cuts = {column: tuple(map(float, ends)) for column, ends in cuts.items()}


def _is_auto(values: Any) -> bool:
    return isinstance(values, str) and values == AUTO
