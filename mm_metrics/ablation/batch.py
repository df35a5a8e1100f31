"""Find the tensors in a batch of any form, and copy the batch with some of them exchanged."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.nn import Module

Key = Any
Path = tuple[Key, ...]
LEAVES = (Tensor, Module, type)
PLAIN = {Tensor, type(None), bool, int, float, str}  # most of what is asked about, told at once


class MissingKeyError(KeyError, ValueError):
    """A key that the batch does not have; prints its sentence as it is, which KeyError does not."""

    key: Key = None

    def __str__(self) -> str:
        return str(self.args[0])


def children(node: object) -> list[tuple[Key, Any]] | None:
    """The parts of a container with their keys, None for a leaf; a list that holds no tensor at all is a leaf."""
    if type(node) in PLAIN:
        return None
    if isinstance(node, tuple | list):
        deep = any(isinstance(part, Tensor) or children(part) is not None for part in node)
        return list(enumerate(node)) if deep or node == () else None
    if isinstance(node, dict | Mapping):
        return list(node.items())
    if isinstance(node, LEAVES):
        return None
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
    leaves: dict[Path, Any] = {}
    for key, part in parts:
        if type(part) in PLAIN:
            leaves[(*path, key)] = part
        else:
            leaves |= flatten(part, (*path, key))
    return leaves


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
    """The path of a user's key: a dict key, a position, an attribute or a field's name, or such joined by dots.

    Raises `MissingKeyError`.

    >>> locate({"inputs": {"text": 1}}, "inputs.text")
    ('inputs', 'text')
    """
    names = getattr(type(batch), "_fields", None)
    if isinstance(batch, tuple) and names and key in names:
        return (names.index(key),)
    if isinstance(batch, tuple | list):
        there = list(range(len(batch)))
        key = int(key) if isinstance(key, str) and key.isdecimal() else key
        if isinstance(key, int) and -len(batch) <= key < 0:
            key += len(batch)
    elif isinstance(batch, Mapping):
        there = list(batch)
    else:
        there = [name for name, _ in children(batch) or ()]
    if key in there:
        return (key,)
    for i in (i for i, letter in enumerate(key) if letter == ".") if isinstance(key, str) else ():
        with suppress(MissingKeyError):
            path = locate(batch, key[:i])
            return (*path, *locate(at(batch, path), key[i + 1 :]))
    told = list(names) if isinstance(batch, tuple) and names else there
    error = MissingKeyError(f"{what} {key!r} is not in the batch ({type(batch).__name__}), which has {told}")
    error.key = key
    raise error


def at(batch: Any, path: Path) -> Any:
    """The part of a batch that lies at a path."""
    for key in path:
        batch = batch[key] if isinstance(batch, Mapping | tuple | list) else getattr(batch, key)
    return batch


def read_key(batch: Any, key: Key, argument: str = "") -> Any:
    """The batch's entry under a dict key, position, field or attribute, or a path of them.

    Raises `MissingKeyError`, which names the argument that gave the key.

    >>> read_key({"label": 3}, "label")
    3
    """
    try:
        return at(batch, locate(batch, key))
    except MissingKeyError as error:
        if argument:
            error.args = (f"{error}: {argument} names another",)
        raise
