"""Whether tensors and weights are still what they were, without waiting for an accelerator."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

PROBED, VALUES = 256, 16  # so many weights at most are looked at, and of each so many values
FEW = 2**14  # numbers of a tensor that are looked at one by one
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Values = dict[int, tuple[Tensor, Any]]  # tensors without a version by their ids, and what their values were


@dataclass
class Checks:
    """Comparisons of one batch: at once on a CPU; elsewhere the answer is put off and read once, for all of them."""

    flags: list[Tensor] = field(default_factory=list)
    pairs: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    values: Values = field(default_factory=dict)

    def __call__(self, flag: Tensor | bool) -> bool:
        """What the flag says; True as yet where its device would have to be waited for."""
        if isinstance(flag, Tensor) and flag.device.type != "cpu":
            self.flags.append(flag)
            return True
        return bool(flag)

    def equal(self, now: Tensor, then: Tensor) -> bool:
        """Whether two tensors hold the same values; True as yet where their device would have to be waited for."""
        if now.device.type == "cpu" or now.shape != then.shape:
            return torch.equal(now, then)
        self.pairs[id(now), id(then)] = (now, then)
        return True

    def hold(self) -> bool:
        """Whether all that was put off holds too: the one wait of a batch."""
        pairs: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
        for now, then in self.pairs.values():
            pairs.setdefault(now.dtype, []).append((now.reshape(-1), then.reshape(-1)))
        for several in pairs.values():
            now, then = (torch.cat(side) for side in zip(*several, strict=True))
            self.flags.append((now == then).all())
        held = not self.flags or bool(torch.stack(self.flags).all())
        self.flags.clear()
        self.pairs.clear()
        return held


def stamp(x: Tensor, made: Values) -> Any:
    """What changes when somebody writes into a tensor: its version, or where it has none its values.

    A tensor made in inference mode has no version; it is looked at once, and those looked at are held by ``made``.
    """
    if not x.is_inference():
        return x._version
    if id(x) not in made:
        made[id(x)] = x, _values(x)
    return made[id(x)][1]


def _values(x: Tensor) -> Any:
    """All bytes of a few numbers on a CPU; else sums of their bits over the first and over the last axis.

    These tell any write that does not move values around in both at once, and need no copy.
    """
    with suppress(RuntimeError, TypeError):  # numpy has no such type
        if x.device.type == "cpu" and x.numel() <= FEW:
            return x.numpy().tobytes()
    try:
        bits = (torch.view_as_real(x) if x.is_complex() else x).view(BITS[x.element_size()])
        if not bits.ndim:
            return (bits.clone(),)
        wide = torch.int64 if bits.dtype == torch.uint8 else bits.dtype
        return bits.sum(0, dtype=wide), bits.sum(-1, dtype=wide)
    except (RuntimeError, KeyError):
        return None


def unchanged(x: Tensor, then: Any, checks: Checks) -> bool:
    """Whether a tensor is what it was when it was stamped."""
    now = stamp(x, checks.values)
    if not isinstance(then, tuple):
        return then is not None and now == then
    return all(checks.equal(one, was) for one, was in zip(now, then, strict=True))


class Weights:
    """The parameters and buffers of some modules, less tensors whose ids are in ``skip``.

    A write through ``.data``, as some averages of weights do, changes neither place nor version: a few values of some
    weights are looked at.
    """

    def __init__(self, modules: Collection[Module], skip: Collection[int] = ()) -> None:
        parts = dict.fromkeys(part for module in modules for part in module.modules())
        self.tables = [table for part in parts for table in (part._parameters, part._buffers) if table]
        self.skip = skip
        self._places: Any = None
        self._probes: list[Tensor] = []
        self._last: tuple[Any, Any] = None, None

    def now(self) -> tuple[Any, Any]:
        """Place and version of each, and the values that are looked at, on an accelerator still there.

        On a CPU the very thing that the last call gave, where nothing changed since.
        """
        every = [x for table in self.tables for x in table.values() if x is not None]
        held = [x for x in every if id(x) not in self.skip and not is_lazy(x)]
        places = [x.data_ptr() for x in held]
        if places != self._places:
            self._places, self._probes = places, _probes(held)
        values: Any = torch.cat(self._probes) if self._probes else None
        if self._probes and values.device.type == "cpu":
            values = values.view(torch.uint8).numpy().tobytes()
        found = [*places, *(None if x.is_inference() else x._version for x in held)], values
        if isinstance(values, Tensor) or found != self._last:
            self._last = found
        return self._last


def _probes(held: list[Tensor]) -> list[Tensor]:
    able = [x.detach().view(-1) for x in held if x.is_floating_point() and x.is_contiguous() and x.numel()]
    able = [x for x in able if (x.device, x.dtype) == (able[0].device, able[0].dtype)]
    return [x[:: max(1, x.numel() // VALUES)][:VALUES] for x in able[:: max(1, len(able) // PROBED)]]


def moved(now: tuple[Any, Any], then: tuple[Any, Any]) -> bool:
    """Whether weights have other places or values; on an accelerator, to ask would be to wait, and versions tell."""
    half = len(now[0]) // 2
    if not isinstance(now[1], bytes) or not isinstance(then[1], bytes):
        return now[0] != then[0]
    return now[0][:half] != then[0][:half] or now[1] != then[1]


def same_weights(now: tuple[Any, Any] | None, then: tuple[Any, Any] | None, checks: Checks) -> bool:
    """Whether the weights are what they were."""
    if now is None or then is None or (now is not then and now[0] != then[0]):
        return False
    if isinstance(now[1], Tensor) and isinstance(then[1], Tensor):
        return checks.equal(now[1], then[1])
    return now[1] == then[1]
