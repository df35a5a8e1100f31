"""Find the tensors in a batch of any form, and copy the batch with some of them exchanged."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from torch import Tensor
from torch.nn import Module

Key = Any
Path = tuple[Key, ...]


class MissingKeyError(KeyError, ValueError):
    """A key that the batch does not have; prints its sentence as it is, which KeyError does not."""

    def __str__(self) -> str:
        return str(self.args[0])


def children(node: object) -> list[tuple[Key, Any]] | None:
    """The parts of a container with their keys, None for a leaf; a list that holds no tensor at all is a leaf."""
    if isinstance(node, Tensor | Module | type):
        return None
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, tuple | list):
        deep = any(isinstance(part, Tensor) or children(part) is not None for part in node)
        return list(enumerate(node)) if deep or node == () else None
    if dataclasses.is_dataclass(node):
        names = [field.name for field in dataclasses.fields(node) if hasattr(node, field.name)]
        return [(name, getattr(node, name)) for name in names]
    attributes = getattr(node, "__dict__", None)
    if attributes and any(isinstance(value, Tensor) for value in attributes.values()):
        return list(attributes.items())
    return None


def flatten(node: object, path: Path = ()) -> dict[Path, Any]:
    """Every leaf by its path.

    >>> import torch
    >>> flatten({"a": 1, "b": (2, torch.zeros(1))})
    {('a',): 1, ('b', 0): 2, ('b', 1): tensor([0.])}
    """
    parts = children(node)
    if parts is None:
        return {path: node}
    return {leaf: value for key, part in parts for leaf, value in flatten(part, (*path, key)).items()}


def tensors(node: object) -> dict[Path, Tensor]:
    """Every tensor by its path."""
    return {path: leaf for path, leaf in flatten(node).items() if isinstance(leaf, Tensor)}


def rebuilt(node: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """A copy, all containers fresh, in which each leaf is ``change(path, leaf)``."""
    parts = children(node)
    if parts is None:
        return change(path, node)
    new = {key: rebuilt(part, change, (*path, key)) for key, part in parts}
    if isinstance(node, MutableMapping):
        copied = copy.copy(node)
        for key, value in new.items():
            copied[key] = value
        return copied
    if isinstance(node, Mapping):
        return type(node)(new)  # type: ignore[call-arg]
    if isinstance(node, tuple):
        return getattr(type(node), "_make", type(node))(new.values())
    if isinstance(node, list):
        return list(new.values())
    copied = copy.copy(node)
    for key, value in new.items():
        if value is not getattr(copied, key):
            object.__setattr__(copied, key, value)  # a frozen dataclass too
    return copied


def copied(node: Any, deep: bool = True) -> Any:
    """A copy with fresh containers, and fresh tensors if ``deep``: models write into what they are given."""
    return rebuilt(node, lambda path, leaf: leaf.clone() if deep and isinstance(leaf, Tensor) else leaf)


def some_rows(batch: Any, N: int, rows: slice) -> Any:
    """A copy of some of N samples; what has no row a sample stays as it is."""

    def change(path: Path, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == N:
            return leaf[rows].clone()
        return leaf[rows] if isinstance(leaf, list) and len(leaf) == N else leaf

    return rebuilt(batch, change)


def locate(batch: object, key: Key, what: str = "key") -> Path:
    """The path of a user's key: a dict key, a position, an attribute or a field's name; raises `MissingKeyError`."""
    names = getattr(type(batch), "_fields", None)
    if isinstance(batch, tuple) and names and key in names:
        return (names.index(key),)
    if isinstance(batch, tuple | list):
        there = list(range(len(batch)))
        if isinstance(key, int) and -len(batch) <= key < 0:
            key += len(batch)
    elif isinstance(batch, Mapping):
        there = list(batch)
    else:
        there = [name for name, _ in children(batch) or ()]
    if key in there:
        return (key,)
    told = list(names) if isinstance(batch, tuple) and names else there
    raise MissingKeyError(f"{what} {key!r} is not in the batch ({type(batch).__name__}), which has {told}")


def read_key(batch: Any, key: Key) -> Any:
    """The batch's entry under a dict key, position, field or attribute; raises `MissingKeyError`.

    >>> read_key({"label": 3}, "label")
    3
    """
    (found,) = locate(batch, key)
    if isinstance(batch, Mapping | tuple | list):
        return batch[found]
    return getattr(batch, found)


class Inputs:
    """Which keys of a batch belong to which modality.

    >>> Inputs({"text": ("tokens", "mask"), "image": "pixels"}).keys
    {'text': ('tokens', 'mask'), 'image': ('pixels',)}
    """

    def __init__(self, inputs: Mapping[str, Key | tuple[Key, ...]], presence: Key | None = None) -> None:
        """Take the mapping; raise TypeError or ValueError where it is none, or a key is in it twice."""
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"inputs maps each modality to its keys in the batch, got {type(inputs).__name__}: write "
                '{"text": ("tokens", "mask"), "image": "pixels"}'
            )
        self.keys = {name: tuple(keys) if isinstance(keys, tuple | list) else (keys,) for name, keys in inputs.items()}
        self.presence = presence
        flat = [key for keys in self.keys.values() for key in keys]
        for name, keys in self.keys.items():
            if not keys:
                raise ValueError(f"inputs[{name!r}] is empty: name at least one key of the batch")
        twice = sorted({str(key) for key in flat if flat.count(key) > 1})
        if twice:
            raise ValueError(f"inputs names {twice} more than once: a key belongs to one modality")
        if presence is not None and presence in flat:
            raise ValueError(f"presence={presence!r} is an input of a modality too: presence says what is there")

    def paths(self, batch: object, leaves: Mapping[Path, Any]) -> dict[str, dict[Path, Key]]:
        """Per modality the paths of its tensors and the key that each lies under; raises `MissingKeyError`."""
        found: dict[str, dict[Path, Key]] = {}
        for name, keys in self.keys.items():
            found[name] = {}
            for key in keys:
                under = self._under(leaves, locate(batch, key, f"inputs[{name!r}]:"))
                if not under:
                    raise TypeError(
                        f"inputs[{name!r}]: {key!r} holds no tensor in this batch, and only a tensor can be hidden: "
                        "name the tensors that the model reads"
                    )
                found[name] |= dict.fromkeys(under, key)
        return found

    def presence_paths(self, batch: object, leaves: Mapping[Path, Any]) -> list[Path]:
        """The paths of the presence entry; none where the user named none."""
        if self.presence is None:
            return []
        return self._under(leaves, locate(batch, self.presence, "presence"))

    @staticmethod
    def _under(leaves: Mapping[Path, Any], path: Path) -> list[Path]:
        return [leaf for leaf, value in leaves.items() if leaf[:1] == path and isinstance(value, Tensor)]

    def size(self, leaves: Mapping[Path, Any], paths: Iterable[Path]) -> int:
        """N, the samples in the batch; raises ValueError where the inputs' first axes differ."""
        sizes = {path: leaves[path].shape[0] if leaves[path].ndim else 0 for path in paths}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            told = ", ".join(f"{'/'.join(map(str, path))} {tuple(leaves[path].shape)}" for path in sizes)
            raise ValueError(
                f"the inputs' first axis is the samples, equally many in each and at least one, got {told}"
            )
        return next(iter(sizes.values()))
