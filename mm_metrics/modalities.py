"""The vocabulary: modalities, coalitions of them, slices of the data, presence.

``M`` modalities in the order given; bit ``m`` of a coalition's mask is modality ``m``. ``K`` coalitions are a
``(K, M)`` bool table; all of them is ``2**M`` rows, row 0 none, row -1 all. ``S = 1 + M`` slices: ``("all", *names)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNHIDDEN = "nothing hidden"  # the model's own predictions, beside those under every coalition; no modality's name
ALL_COALITIONS_UP_TO = 6  # modalities; beyond, 2**M forward passes are no longer a default


@dataclass(frozen=True)
class Modalities:
    """The names of the modalities and everything that is said in terms of them.

    >>> modalities = Modalities(("text", "image", "audio"))
    >>> modalities.slices
    ('all', 'text', 'image', 'audio')
    >>> modalities.mask("audio-text"), modalities.name(0b101), modalities.name(0)
    (5, 'text-audio', 'none')
    """

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str] | Modalities) -> None:
        """Take the names in order; raise ValueError for an empty, doubled or ill-formed one."""
        if isinstance(names, str):
            raise TypeError(f"modalities is a list of names, got the string {names!r}: write ({names!r},)")
        names = names.names if isinstance(names, Modalities) else tuple(names)
        if not names:
            raise ValueError('modalities is empty: give at least one name, such as ("text", "image", "audio")')
        for name in names:
            if not isinstance(name, str) or not NAME.fullmatch(name) or name in ("all", "none"):
                raise ValueError(
                    f"modality name {name!r} is not usable: letters, digits and _, not starting with a digit, "
                    "and not 'all' or 'none'"
                )
        if len(set(names)) < len(names):
            raise ValueError(f"modalities {names} holds a name twice: every name once")
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        """M, the number of modalities."""
        return len(self.names)

    def __iter__(self):
        return iter(self.names)

    @property
    def full(self) -> int:
        """The mask of the coalition of all."""
        return 2 ** len(self) - 1

    @cached_property
    def slices(self) -> tuple[str, ...]:
        """The S = 1 + M slices in order."""
        return ("all", *self.names)

    def mask(self, coalition: str | int) -> int:
        """A coalition's bit mask from its name, typed in any order; ``all`` and ``none`` are understood."""
        if isinstance(coalition, int):
            if 0 <= coalition <= self.full + 1:  # the last is UNHIDDEN
                return coalition
            raise ValueError(f"coalition {coalition} is not in 0…{self.full}, the masks of {self.names}")
        if coalition == "all":
            return self.full
        if coalition == "none":
            return 0
        if coalition == UNHIDDEN:
            return self.full + 1
        parts = coalition.split("-") if isinstance(coalition, str) else []
        if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(self.names):
            raise ValueError(
                f"coalition {coalition!r} is not made of {self.names}: join their names with '-'"
                f"{meant(coalition, self.names)}"
            )
        return sum(1 << self.names.index(part) for part in parts)

    def name(self, mask: int) -> str:
        """A coalition's name: its modalities in order joined with ``-``; the empty one is ``none``."""
        if mask == self.full + 1:
            return UNHIDDEN
        return "-".join(name for m, name in enumerate(self.names) if mask >> m & 1) or "none"

    def masks(self, coalitions: object = "all", seed: int = 0) -> tuple[int, ...]:
        """The masks of ``coalitions`` in order.

        ``"all"``: every one up to six modalities, beyond that `sampled_coalitions`; ``"leave_one_out"``: all, all but
        one, none; ``"single"``: none, each alone, all; a ``(K, M)`` bool table; or names, of which UNHIDDEN comes
        last wherever it was named.
        """
        M = len(self)
        if isinstance(coalitions, str):
            if coalitions == "all" and M <= ALL_COALITIONS_UP_TO:
                return tuple(range(2**M))
            if coalitions == "all":
                return sampled_coalitions(M, seed=seed)
            if coalitions == "leave_one_out":
                return tuple(sorted({0, self.full, *(self.full ^ 1 << m for m in range(M))}))
            if coalitions == "single":
                return tuple(sorted({0, self.full, *(1 << m for m in range(M))}))
            raise ValueError(
                f"coalitions={coalitions!r} is not known: 'all', 'leave_one_out', 'single', a list of names or a "
                f"(K, {M}) bool table"
            )
        if isinstance(coalitions, Sequence) and coalitions and isinstance(coalitions[0], str | int):
            masks = tuple(self.mask(coalition) for coalition in coalitions)
        else:
            table = np.asarray(coalitions)
            if table.dtype != bool or table.ndim != 2 or table.shape[1] != M or not len(table):
                raise ValueError(
                    f"coalitions is a (K, {M}) bool table, one column a modality, got {table.dtype} of shape "
                    f"{table.shape}"
                )
            masks = tuple(int(row @ (1 << np.arange(M))) for row in table)
        if len(set(masks)) < len(masks):
            raise ValueError(f"coalitions {[self.name(mask) for mask in masks]} holds one twice: every one once")
        return tuple(sorted(masks, key=lambda mask: mask > self.full))

    def table(self, masks: Sequence[int]) -> np.ndarray:
        """``(K, M)`` bool: which modality each coalition shows."""
        return (np.asarray(masks, dtype=np.int64)[:, None] >> np.arange(len(self)) & 1).astype(bool)

    def slice_weights(self, name: str, known: Sequence[str] = ()) -> np.ndarray:
        """``(1 + M,)`` int64: how the slices add up to the one named; ``-audio`` is all less audio.

        Raises ValueError for another name; `known` are the slices that there are.
        """
        weights = np.zeros(1 + len(self), dtype=np.int64)
        if name.startswith("-") and name[1:] in self.names:
            weights[0], weights[1 + self.names.index(name[1:])] = 1, -1
        elif name in self.slices:
            weights[self.slices.index(name)] = 1
        else:
            there = tuple(known) or self.slices
            raise ValueError(f"slice {name!r} is not one of {there}, nor '-' and a modality{meant(name, self.names)}")
        return weights

    def presence(self, presence: object, N: int, device: torch.device) -> Tensor | None:
        """``(N, M)`` tensor, bool or integer, from what a caller gives; None stays None and means all.

        Values are not looked at here. Raises TypeError or ValueError for a wrong type, name, shape or device.
        """
        if presence is None:
            return None
        import torch  # here, as the command line's options know modalities before torch is worth its seconds

        M = len(self)
        if isinstance(presence, Mapping):
            if set(presence) != set(self.names):
                raise ValueError(
                    f"presence names {sorted(map(str, presence))}, the modalities are {sorted(self.names)}: "
                    "one entry each"
                )
            for name in self.names:
                self._check_presence(presence[name], (N,), f"presence[{name!r}]", device)
            return torch.stack([presence[name].to(torch.int64) for name in self.names], dim=-1)
        self._check_presence(presence, (N, M), "presence", device)
        return cast("Tensor", presence)

    @staticmethod
    def _check_presence(value: object, shape: tuple[int, ...], what: str, device: torch.device) -> None:
        from torch import Tensor

        if not isinstance(value, Tensor):
            raise TypeError(
                f"{what} is a bool tensor of shape {shape}, got {type(value).__name__}: use torch.as_tensor"
            )
        if value.dtype.is_floating_point or value.dtype.is_complex:
            raise TypeError(f"{what} is bool or integer 0/1, got {value.dtype}: use {what}.bool()")
        if tuple(value.shape) != shape:
            raise ValueError(f"{what} has shape {tuple(value.shape)}, expected {shape}: samples first, then modalities")
        if value.device != device:
            raise ValueError(
                f"{what} is on {value.device}, the predictions on {device}: use {what}.to({str(device)!r})"
            )


def meant(typed: object, names: Iterable[str]) -> str:
    """What a typing error seems to mean, for the end of a refusal; empty where nothing is close.

    >>> meant("txt", ["text", "audio"])
    "; did you mean 'text'?"
    """
    close = difflib.get_close_matches(str(typed).lstrip("-"), list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def sampled_coalitions(M: int, seed: int = 0, rounds: int = 1) -> tuple[int, ...]:
    """Masks that suffice for every drop and unimodal gain, and for an unbiased Shapley estimate.

    For each size 1…M-1 a random subset and its M shifts around a ring of the modalities in random order: every size
    holds every modality equally often, each subset of a size is equally likely, and sizes 1 and M-1 come out complete.
    ``2 + M * (M - 1)`` masks a round, none and all among them: 134 for twelve modalities where 2**M is 4,096.

    >>> len(sampled_coalitions(12))
    134
    """
    random = np.random.default_rng(seed)
    masks = {0, 2**M - 1}
    for _ in range(rounds):
        for size in range(1, M):
            shifts: set[int] = set()
            while len(shifts) < M:  # a subset that a shift maps onto itself would give fewer
                ring, subset = random.permutation(M), random.permutation(M)[:size]
                shifts = {sum(1 << int(ring[(i + shift) % M]) for i in subset) for shift in range(M)}
            masks |= shifts
    return tuple(sorted(masks))
