"""The same few samples of a loader's data set, epoch after epoch and on any number of ranks, read without a trace."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler
from torch.utils.data import SequentialSampler as Sequential

from mm_metrics.ablation.batch import copied, rebuilt
from mm_metrics.ablation.untouched import untouched

BATCH_SIZE = 32  # where a loader does not say
_DEEPEST, _LONGEST, _MOST = 6, 64, 10_000  # how far a data set's parts are followed


class FixedSubset:
    """Up to `samples` samples of a loader: drawn from its data set by `seed`, else its first batches.

    The data set is read by index, through the loader's ``collate_fn``; samplers, workers, RNG streams and the data
    set's own attributes are left as they are. Where it can't be read by index, `keep` is given the first batches.
    """

    def __init__(self, samples: int, seed: int, say: Callable[[str], None]) -> None:
        self.samples, self.seed, self.say = samples, seed, say
        self.kept = 0  # samples of `keep`
        self.readable: bool | None = None  # None: not looked at yet
        self._host: list[Any] = []  # as collated
        self._seen: list[Any] = []  # as a step got them

    def read(self, loader: Any, pl_module: Any, within: int | None = None) -> bool:
        """Read the samples, from the data set's first `within` where given; False where it can't be indexed."""
        if self.readable is None:
            why = _unreadable(loader)
            if not why:
                try:
                    self._host = self._collated(loader, pl_module, within)
                except (KeyError, IndexError, TypeError, NotImplementedError) as error:
                    why = f"its data set can't be read by number ({type(error).__name__}: {error})"
            if why:
                self.say(
                    f"{why}: the first {self.samples} samples that come are the ones that dynamics are measured on"
                )
            self.readable = not why
        return self.readable

    def keep(self, batch: Any, N: int) -> None:
        """Take a batch of N samples, as it was given to a step, while some are still wanted; no stall."""
        if self.readable is False and self.kept < self.samples:
            self._seen.append(copied(batch))
            self.kept += N

    def batches(self, trainer: Any, pl_module: Any) -> Iterator[Any]:
        """The samples in batches, on the module's device, as a step would get them."""
        self._seen = [rebuilt(batch, lambda path, leaf: _moved(leaf, "cpu")) for batch in self._seen]
        for batch in self._seen:
            yield rebuilt(batch, lambda path, leaf: _moved(leaf, pl_module.device))
        for batch in self._host:
            with untouched(pl_module, None), torch.no_grad():
                _seed(self.seed)
                batch = trainer.precision_plugin.convert_input(copied(batch))
                batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            yield batch

    def _collated(self, loader: DataLoader, pl_module: Any, within: int | None) -> list[Any]:
        length = len(loader.dataset)  # type: ignore[arg-type]
        length = length if within is None else min(length, within)
        n = min(self.samples, length)
        numbers = np.sort(np.random.default_rng(self.seed).choice(length, n, replace=False)).tolist()
        # Batches of nearly equal size: a last one of a single sample would be another form of input.
        parts = np.array_split(np.array(numbers, dtype=int), max(1, -(-n // (loader.batch_size or BATCH_SIZE))))
        with untouched(pl_module, None), unread(loader.dataset, loader.collate_fn):
            _seed(self.seed)
            return [loader.collate_fn(_fetch(loader.dataset, part.tolist())) for part in parts if len(part)]


@contextmanager
def unread(*roots: Any) -> Iterator[None]:
    """Put back the attributes, containers and random generators that can be reached from `roots`.

    >>> import random
    >>> class Noise:
    ...     def __init__(self): self.random, self.read = random.Random(0), 0
    ...     def __getitem__(self, i): self.read += 1; return self.random.random()
    >>> noise = Noise()
    >>> with unread(noise): first = noise[0]
    >>> noise.read, noise[0] == first
    (0, True)
    """
    undo: dict[int, Callable[[], Any]] = {}
    alive: list[Any] = []  # ids are of use while the objects live
    todo = [(root, 0) for root in roots]
    while todo and len(undo) < _MOST:
        node, depth = todo.pop()
        if id(node) in undo or depth > _DEEPEST:
            continue
        restore, parts = _parts(node)
        undo[id(node)] = restore
        alive.append(node)
        todo += [(part, depth + 1) for part in parts]
    try:
        yield
    finally:
        for restore in undo.values():
            restore()


def _parts(node: Any) -> tuple[Callable[[], Any], list[Any]]:
    """How to put a node back, and what it is made of."""
    if isinstance(node, random.Random):
        return functools.partial(node.setstate, node.getstate()), []
    if isinstance(node, np.random.RandomState):
        return functools.partial(node.set_state, node.get_state()), []
    if isinstance(node, np.random.Generator):
        return functools.partial(setattr, node.bit_generator, "state", node.bit_generator.state), []
    if isinstance(node, torch.Generator):
        return functools.partial(node.set_state, node.get_state()), []
    if isinstance(node, Tensor | np.ndarray | type | types.ModuleType | str | bytes | int | float | None):
        return _nothing, []
    if isinstance(node, functools.partial):
        return _nothing, [node.func, *node.args, *node.keywords.values()]
    if isinstance(node, types.MethodType):
        return _nothing, [node.__self__]
    if isinstance(node, types.FunctionType):
        return _nothing, [cell.cell_contents for cell in node.__closure__ or () if _filled(cell)]
    if type(node) in (list, tuple, dict, set):
        before = node.copy() if not isinstance(node, tuple) else node
        parts = list(node.values()) if isinstance(node, dict) else list(node)
        back = _nothing if isinstance(node, tuple) else functools.partial(_refill, node, before)
        return back, parts if len(parts) <= _LONGEST else []
    attributes = getattr(node, "__dict__", None)
    if not isinstance(attributes, dict):
        return _nothing, []
    return functools.partial(_refill, attributes, dict(attributes)), list(attributes.values())


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, list):
        container[:] = before
    elif isinstance(container, dict):
        for key in [key for key in container if key not in before]:
            del container[key]
        container.update(before)
    elif container != before:
        container.clear()
        container.update(before)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (raises where the cell is empty)
    except ValueError:
        return False
    return True


def _nothing() -> None:
    """Leave what has no state."""


def _unreadable(loader: Any) -> str:
    """Why a loader's samples can't be read by number, empty where they can."""
    if not isinstance(loader, DataLoader):
        return f"{type(loader).__name__} is no DataLoader"
    dataset, sampler = loader.dataset, loader.sampler
    batch_sampler: Any = loader.batch_sampler
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        return f"{type(dataset).__name__} is read in order alone"
    while hasattr(batch_sampler, "batch_sampler"):  # Lightning's wrapper
        batch_sampler = batch_sampler.batch_sampler
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        return f"{type(batch_sampler).__name__} may leave samples of the data set out"
    source = getattr(sampler, "dataset" if isinstance(sampler, DistributedSampler) else "data_source", None)
    if not isinstance(sampler, Sequential | RandomSampler | DistributedSampler) or source is not dataset:
        return f"{type(sampler).__name__} may leave samples of the data set out"
    return ""


def _fetch(dataset: Any, numbers: list[int]) -> list[Any]:
    if callable(getattr(dataset, "__getitems__", None)):
        return dataset.__getitems__(numbers)
    return [dataset[i] for i in numbers]


def _seed(seed: int) -> None:
    """Random transforms give every rank the same; `untouched` puts the streams back."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _moved(leaf: Any, device: Any) -> Any:
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf
