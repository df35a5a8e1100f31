"""Where a batch holds the inputs of each modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from mm_metrics.ablation.batch import Key, MissingKeyError, Path, at, locate


@dataclass
class Found:
    """Where a batch of N samples holds its inputs: by modality the paths of its tensors and texts, and their keys.

    ``axes`` are the sample axes that are not the first; ``lists`` the paths of lists of tensors, one a sample;
    ``texts`` those of lists of str, ``packed`` those of packed sequences. Modalities without paths are absent.
    """

    paths: dict[str, dict[Path, Key]] = field(default_factory=dict)
    N: int = 0
    axes: dict[Path, int] = field(default_factory=dict)
    lists: set[Path] = field(default_factory=set)
    texts: set[Path] = field(default_factory=set)
    packed: set[Path] = field(default_factory=set)

    @cached_property
    def whole(self) -> str:
        """Why such inputs can't be answered in parts; empty where they can."""
        kinds = {"lists of str": self.texts, "lists of tensors": self.lists, "packed sequences": self.packed}
        held = [name for name, paths in kinds.items() if paths] + ["another axis of samples"] * bool(self.axes)
        return f"inputs with {held[0]} are hidden, not followed" if held else ""


class Inputs:
    """Which keys of a batch belong to which modality.

    >>> Inputs({"text": ("tokens", "mask"), "image": "pixels"}).keys
    {'text': ('tokens', 'mask'), 'image': ('pixels',)}
    """

    def __init__(
        self,
        inputs: Mapping[str, Key | tuple[Key, ...]],
        presence: Key | None = None,
        sample_axis: Mapping[Key, int] | None = None,
    ) -> None:
        """Take the mapping; raise TypeError or ValueError where it is none, or a key or an axis is not right."""
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
        self.axes = dict(sample_axis or {})
        unknown = [name for name in self.axes if name not in (*self.keys, *flat)]
        if unknown or not all(isinstance(axis, int) and axis >= 0 for axis in self.axes.values()):
            raise ValueError(
                f"sample_axis={self.axes}: {{modality or key: axis}}, counted from 0, of {list(self.keys)} and {flat}"
            )
        self._seen: set[Key] = set()  # keys that some batch had
        self._batches: set[Key] = set()  # of lists that hold batches, not samples
        if presence is not None and presence in flat:
            raise ValueError(f"presence={presence!r} is an input of a modality too: presence says what is there")

    def find(self, batch: object, leaves: Mapping[Path, Any]) -> Found:
        """Where the inputs lie; raises `MissingKeyError`, and TypeError or ValueError for what can't be hidden.

        A key that is missing from a mapping, None, an empty list or a tensor without rows makes its modality absent.
        """
        found, sizes, lists = Found(), {}, []
        absent: list[MissingKeyError] = []
        for name, keys in self.keys.items():
            mine = found.paths[name] = {}
            missing: list[MissingKeyError] = []
            for key in keys:
                x, axis = leaves.get((key,)), self.axes.get(key, self.axes.get(name, 0))
                if isinstance(x, Tensor) and not axis and x.ndim and x.shape[0] and not x.is_nested:
                    self._seen.add(key)
                    mine[(key,)], sizes[(key,)] = key, x.shape[0]
                    continue
                try:
                    path = locate(batch, key, f"inputs[{name!r}]:")
                except MissingKeyError as error:
                    missing.append(error)
                    continue
                node = at(batch, path)
                self._seen.add(key)
                if _is_empty(node):
                    continue
                under = [leaf for leaf in leaves if leaf[: len(path)] == path]
                under = [leaf for leaf in under if isinstance(leaves[leaf], Tensor) or _is_texts(leaves[leaf])]
                if not under or any(isinstance(leaves[leaf], Tensor) and leaves[leaf].is_nested for leaf in under):
                    raise TypeError(
                        f"inputs[{name!r}]: {key!r} holds no tensor in this batch that can be hidden, but "
                        f"{type(node).__name__}: name padded tensors, a list of tensors, one a sample, or of str"
                    )
                if isinstance(node, PackedSequence):
                    found.packed.add(path)
                    sizes[path] = int(node.batch_sizes[0])
                    under = [under[0]]
                elif isinstance(node, list) and all(isinstance(part, Tensor) for part in node):
                    lists.append((key, path, node, under))
                else:
                    for leaf in under:
                        x = leaves[leaf]
                        if not isinstance(x, Tensor):
                            found.texts.add(leaf)
                        elif axis:
                            found.axes[leaf] = axis
                        sizes[leaf] = len(x) if not isinstance(x, Tensor) else x.shape[axis] if x.ndim > axis else 0
                mine |= dict.fromkeys(under, key)
            if missing and (mine or not self._may_lack(batch, missing, leaves)):
                raise missing[0]
            absent += missing
        self._settle_lists(lists, sizes, leaves, found)
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            if not sizes and absent:
                raise absent[0]
            shapes = {
                path: tuple(x.shape) if isinstance(x := leaves.get(path), Tensor) else n for path, n in sizes.items()
            }
            told = ", ".join(f"{'/'.join(map(str, path))} {shape}" for path, shape in shapes.items())
            raise ValueError(
                f"the inputs' first axis is the samples, equally many in each and at least one, got {told}: another is "
                "named by sample_axis={modality: axis}"
            )
        found.N = next(iter(sizes.values()))
        return found

    def _settle_lists(self, lists: list, sizes: dict[Path, int], leaves: Mapping[Path, Any], found: Found) -> None:
        """Tell lists of tensors, one a sample, from lists of batches: as many as samples, and never seen otherwise."""
        claimed = {leaf for _, _, _, under in lists for leaf in under}
        known = set(sizes.values()) or {
            x.shape[0] for path, x in leaves.items() if isinstance(x, Tensor) and x.ndim and path not in claimed
        }
        for key, path, node, under in lists:
            if len(node) in known and key not in self._batches:
                found.lists.add(path)
                sizes[path] = len(node)
            else:
                self._batches.add(key)
                sizes.update({leaf: leaves[leaf].shape[0] if leaves[leaf].ndim else 0 for leaf in under})

    def _may_lack(self, batch: object, missing: list[MissingKeyError], leaves: Mapping[Path, Any]) -> bool:
        """Whether keys may be missing: of a mapping, which had them before or holds nothing that they could mean."""
        if not isinstance(batch, Mapping):
            return False
        named = {str(key).split(".")[0] for keys in self.keys.values() for key in keys} | {str(self.presence)}
        others = [
            x
            for path, x in leaves.items()
            if isinstance(x, Tensor) and x.ndim > 1 and x.dtype != torch.bool and str(path[0]) not in named
        ]
        return bool(self._seen) and (not others or all(error.key in self._seen for error in missing))

    def presence_paths(self, batch: object, leaves: Mapping[Path, Any]) -> dict[Path, Key | None]:
        """The paths of the presence entry's tensors with their modalities, None for one table; none without one."""
        if self.presence is None:
            return {}
        path = locate(batch, self.presence, "presence")
        under = [leaf for leaf, x in leaves.items() if leaf[: len(path)] == path and isinstance(x, Tensor)]
        return {leaf: None if leaf == path else leaf[-1] for leaf in under}


def _is_empty(node: Any) -> bool:
    if isinstance(node, Tensor):
        return node.ndim > 0 and node.shape[0] == 0
    return node is None or (isinstance(node, list | tuple | Mapping) and not len(node))


def _is_texts(leaf: Any) -> bool:
    return isinstance(leaf, list | tuple) and bool(leaf) and all(isinstance(text, str) for text in leaf)
