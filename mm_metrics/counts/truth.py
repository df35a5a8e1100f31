"""What is known of N samples beside their predictions, read once at the door: target, where they count, numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mm_metrics.counts.layout import HALF, OTHER_VALUE, By
from mm_metrics.modalities import Modalities
from mm_metrics.uncertainty import mixed_numbers

COPY = -1  # the number of a sample that a sampler added, which counts nowhere


@dataclass(frozen=True)
class Truth:
    """One batch's truth."""

    target: Tensor  # (N,), multilabel (N, L)
    presence: Tensor | None = None  # (N, M), where samples count; None: everywhere
    index: Tensor | None = None  # (N,) int64 numbers of the samples
    group: Tensor | None = None  # (N,) int64 numbers of the groups that they belong to
    columns: Tensor | None = None  # (N,) int64 combination of the columns' values


def read_truth(
    modalities: Modalities,
    by: By,
    N: int,
    device: torch.device,
    target: Tensor,
    presence: object = None,
    index: object = None,
    group: object = None,
    values: Mapping[str, object] | None = None,
) -> Truth:
    """What a caller gives of N samples to `Truth`; raises TypeError or ValueError, naming the argument.

    `values` are those of the columns `by`: integers (codes in the order of the column's values) or strings, ``(N,)``.
    """
    return Truth(
        target,
        modalities.presence(presence, N, device),
        None if index is None else _numbers(index, N, device),
        None if group is None else _group(group, N, device),
        _columns(by, values, N, device),
    )


def as_columns(by: Mapping[str, object] | None) -> By:
    """``{"language": ["de", "en"], "channel": 3}`` to columns with their values, ``other`` last.

    A last column halves the samples by a hash of their numbers, or groups.

    >>> as_columns({"language": ["de"], "channel": 2})
    (('language', ('de', 'other')), ('channel', ('0', '1', 'other')), ('_half', ('0', '1')))
    """
    columns = []
    for column, values in (by or {}).items():
        if isinstance(values, int) and not isinstance(values, bool) and values > 0:
            names = tuple(map(str, range(values)))
        elif isinstance(values, Sequence) and not isinstance(values, str) and len(values):
            names = tuple(map(str, values))
        else:
            raise ValueError(f"by[{column!r}] is {values!r}: the column's values in a list, or an integer n for 0…n-1")
        if (
            not column
            or column[0] == "_"
            or "/" in column
            or "-" in column
            or len(set(names)) < len(names)
            or OTHER_VALUE in names
        ):
            raise ValueError(f"by[{column!r}]: a name without / and -, every value once, and not 'other'; got {names}")
        columns.append((column, (*names, OTHER_VALUE)))
    return (*columns, (HALF, ("0", "1"))) if columns else ()


def halved(truth: Truth, numbers: Tensor) -> Truth:
    """The truth with each sample in the half of its number, or of its group ``(N,)``."""
    if truth.columns is None:
        return truth
    return replace(truth, columns=truth.columns * 2 + (mixed_numbers(~numbers) & 1))


def _numbers(index: object, N: int, device: torch.device) -> Tensor:
    if not isinstance(index, Tensor) or index.dtype.is_floating_point or index.dtype == torch.bool:
        raise TypeError(f"index is an integer tensor of sample numbers, got {getattr(index, 'dtype', type(index))}")
    if tuple(index.shape) != (N,) or index.device != device:
        raise ValueError(f"index has shape {tuple(index.shape)} on {index.device}, expected ({N},) on {device}")
    return index.long()


def _group(group: object, N: int, device: torch.device) -> Tensor:
    if isinstance(group, Tensor):
        if group.dtype.is_floating_point or group.dtype == torch.bool:
            raise TypeError(f"group is integers or strings, one a sample, got {group.dtype}: use group.long()")
        if tuple(group.shape) != (N,) or group.device != device:
            raise ValueError(f"group has shape {tuple(group.shape)} on {group.device}, expected ({N},) on {device}")
        return group.long()
    names = _listed(group, N, "group")
    if all(isinstance(name, int | np.integer) and not isinstance(name, bool) for name in names):
        return torch.tensor(list(map(int, map(str, names))), dtype=torch.int64).to(device)
    return torch.tensor([hashed(str(name)) for name in names], dtype=torch.int64).to(device)


def hashed(name: str) -> int:
    """The same number for a string on every rank, shard and day."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def _columns(by: By, values: Mapping[str, object] | None, N: int, device: torch.device) -> Tensor | None:
    by = tuple(column for column in by if column[0] != HALF)
    known = [column for column, _ in by]
    if set(values or ()) != set(known):
        raise ValueError(
            f"by holds {sorted(map(str, values or ()))}, this metric was made with by of {known}: the same"
        )
    cell = None
    for column, names in by:
        value = (values or {})[column]
        if isinstance(value, Tensor):
            if value.dtype.is_floating_point or tuple(value.shape) != (N,) or value.device != device:
                raise ValueError(
                    f"by[{column!r}] is {value.dtype} of {tuple(value.shape)} on {value.device}, expected ({N},) codes "
                    f"in 0…{len(names) - 2} on {device}, or strings"
                )
            code = value.long()
            last = len(names) - 1
            code = torch.where((code >= 0) & (code < last), code, last)
        else:
            at = {name: i for i, name in enumerate(names)}
            listed = _listed(value, N, f"by[{column!r}]")
            code = torch.tensor([at.get(str(name), len(names) - 1) for name in listed], dtype=torch.int64).to(device)
        cell = code if cell is None else cell * len(names) + code
    return cell


def _listed(value: object, N: int, what: str) -> list[object]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{what} is {type(value).__name__}: a tensor of integers, or a list of strings, one a sample")
    if len(value) != N:
        raise ValueError(f"{what} holds {len(value)}, expected {N}: one a sample")
    return list(value)
