"""What the samples behind findings hold: kept from the batches in bounded memory, shown by the user's functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from mm_metrics.callbacks.book import on_their_way
from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.watched import Watched
from mm_metrics.render.samples import Unshown, plain, small

MOST_HELD = 2**27  # bytes of entries on a rank


def showers(show: Any, modalities: Iterable[str]) -> dict[str, Callable[[Any], Any]]:
    """`show=` as a function for each modality that is shown; TypeError or ValueError for what is none."""
    names = list(modalities)
    if show is None or show == "auto":
        return {} if show is None else dict.fromkeys(names, _by_itself)
    if not isinstance(show, Mapping) or not all(map(callable, show.values())):
        raise TypeError(
            f"show={show!r}: 'auto', or a function for each modality, show={{{names[0]!r}: tokenizer.decode}}"
        )
    if strange := [name for name in show if name not in names]:
        raise ValueError(f"show has {strange[0]!r}, which is no modality: one of {', '.join(names)}")
    return dict(show)


class Contents:
    """Copies of what the worst samples of one loader and rank hold, taken from each batch without a stall."""

    def __init__(self, watched: Watched, show: Mapping[str, Callable[[Any], Any]], say: Callable[[str], None]) -> None:
        self.watched, self.show, self.say = watched, show, say
        self.kept: dict[int, dict[str, Any]] = {}  # by place
        self.held = 0  # bytes
        self._waiting: tuple[Any, ...] | None = None

    def take(self, batch: Any, N: int, first: int, n: int, samples: SampleTracker, presence: Tensor | None) -> None:
        """Keep what a batch of N rows, the first n of them samples, holds of the worst `samples`, and nothing else.

        On an accelerator the batch is held until the next one, when its places have come to the host.
        """
        self.settle()
        if not self.show or (places := samples.places) is None:
            return
        moved, arrived = on_their_way({"places": places})
        self._waiting = batch, N, range(first, first + n), presence, moved["places"], arrived
        if arrived is None:
            self.settle()

    def settle(self) -> None:
        """Take what the last batch holds."""
        if self._waiting is None:
            return
        batch, N, own, presence, places, arrived = self._waiting
        self._waiting = None
        if arrived is not None:
            arrived.synchronize()
        wanted = set(places.flatten().tolist())
        self.kept = {place: entries for place, entries in self.kept.items() if place in wanted}
        self.held = sum(map(_size, self.kept.values()))
        for place in sorted(wanted & set(own)):
            row = place - own.start
            entries = {"": None if presence is None else presence[row].clone()}
            for modality in self.show:
                entry = self._entry(batch, modality, N, row)
                if self.held + _size(entry) > MOST_HELD:
                    entry = Unshown("too large to be kept")
                self.held += _size(entry)
                entries[modality] = tree_map_only(Tensor, Tensor.clone, entry)
            self.kept[place] = entries

    def gathered(self, places: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What the page shows of the samples at `places`, or why not, of all ranks; all call it together."""
        if not self.show:
            return {}
        self.settle()
        places = list(dict.fromkeys(places))
        mine = {place: self._shown(self.kept[place]) for place in places if place in self.kept}
        pooled = "not kept: rows of one unit are pooled" if self.watched.unit else "not kept in the first validation"
        made = dict.fromkeys(places, dict.fromkeys(self.show, Unshown(pooled)))
        return made | {place: content for rank in gathered(mine) for place, content in rank.items()}

    def _entry(self, batch: Any, modality: str, N: int, row: int) -> Any:
        """A sample's entry, of several keys a tuple of them; None where the batch has none."""
        parts = tuple(_row(value, N, row, axis) for value, axis in self.watched.entries(batch, modality))
        return parts if isinstance(self.watched.inputs[modality], tuple) else parts[0]

    def _shown(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Each modality's content, cut to its size; nothing for what can't be shown by itself."""
        there, made = entries[""], {}
        for m, modality in enumerate(self.watched.modalities.names):
            entry = tree_map_only(Tensor, Tensor.cpu, entries.get(modality))
            if modality not in self.show or entry is None:
                continue
            try:
                absent = there is not None and not there[m]
                value = (
                    Unshown("absent") if absent else entry if isinstance(entry, Unshown) else self.show[modality](entry)
                )
                made[modality] = None if value is None else small(value)
            except Exception as error:  # it is the user's, and a page is no reason to end a training
                made[modality] = Unshown("show= failed")
                self.say(f"show[{modality!r}] raised {type(error).__name__}: {error}; the page goes without")
        return {modality: value for modality, value in made.items() if value is not None}


def _row(value: Any, N: int, row: int, axis: int) -> Any:
    """One sample of a batch's value, None where it has none of its own."""
    if isinstance(value, Tensor):
        there = -value.ndim <= axis < value.ndim and value.shape[axis] == N
        return value.detach().select(axis, row) if there else None
    if isinstance(value, np.ndarray):
        return value[row].copy() if value.ndim and len(value) == N else None
    if isinstance(value, Mapping):
        return {key: _row(part, N, row, axis) for key, part in value.items()}
    return value[row] if type(value) in (list, tuple) and len(value) == N else None


def _by_itself(entry: Any) -> Any:
    """What is plainly content among the parts of an entry."""
    parts = entry if isinstance(entry, tuple) else tuple(entry.values()) if isinstance(entry, Mapping) else (entry,)
    return next((part for part in map(plain, parts) if part is not None), None)


def _size(entry: Any) -> int:
    return sum(getattr(leaf, "nbytes", None) or sys.getsizeof(leaf) for leaf in tree_leaves(entry))
