"""What stands in for a hidden modality."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mm_metrics.ablation.batch import Inputs, Key, Path

NAMED = ("zero", "mean", "shuffle", "presence")
Kind = Literal["row", "rows", "shift", "same"]


@dataclass(frozen=True)
class StandIn:
    """One input's stand-in: one row for all samples, a row for each, another sample's, or the input itself.

    ``token`` tells two stand-ins apart without looking at them; None where that can't be told.
    """

    kind: Kind
    values: Tensor | None = None  # (1, ...) or (N, ...)
    shift: int = 0
    token: Hashable = None

    def of(self, x: Tensor) -> Tensor:
        """``(1, ...)`` or ``(N, ...)``: what a hidden sample shows in place of ``x``."""
        if self.kind == "shift":
            return x.roll(self.shift, 0)
        return x if self.values is None else self.values


class Baselines:
    """The baseline of each input, from what the user gives: one for all, or a mapping by modality or key.

    ``means`` holds one sample's mean by key; without it ``"mean"`` is that of the batch's samples that have the
    modality.
    """

    def __init__(self, baseline: Any, inputs: Inputs, seed: int, say: Callable[[Hashable, str], None]) -> None:
        """Raise ValueError for a name that is not known, or that needs a presence entry and has none."""
        self.baseline, self.inputs, self.seed, self.say = baseline, inputs, seed, say
        self.means: Mapping[Any, Tensor] = {}
        if isinstance(baseline, Mapping):
            known = [*inputs.keys, *(key for keys in inputs.keys.values() for key in keys)]
            unknown = [name for name in baseline if name not in known]
            if unknown:
                raise ValueError(f"baseline names {unknown}: the modalities and their keys are {known}")
        self._check(baseline)

    def _check(self, spec: Any) -> None:
        if isinstance(spec, Mapping):
            for inner in spec.values():
                self._check(inner)
        elif isinstance(spec, str) and spec not in NAMED:
            raise ValueError(
                f"baseline={spec!r} is not known: one of {NAMED}, a number, a tensor of one sample's shape, a function "
                "of the input, or a mapping of these by modality or key"
            )
        elif isinstance(spec, str) and spec == "presence" and self.inputs.presence is None:
            raise ValueError(
                "baseline='presence' leaves the inputs as they are and changes the batch's presence entry: "
                "name that entry by presence="
            )

    def spec(self, modality: str, key: Key, path: Path) -> Any:
        """What the user gave for this input, ``"zero"`` where nothing; raises ValueError for an unknown key."""
        spec = self.baseline
        if isinstance(spec, Mapping):
            spec = spec[modality] if modality in spec else spec.get(key, "zero")
        if isinstance(spec, Mapping):
            keys = self.inputs.keys[modality]
            if len(path) == 1 and len(keys) >= 1 and (unknown := [name for name in spec if name not in keys]):
                raise ValueError(f"baseline[{modality!r}] names {unknown}: the keys of {modality} are {list(keys)}")
            spec = spec[path[-1]] if path[-1] in spec else spec.get(key, "zero")
        return spec

    def stand_in(self, modality: str, key: Key, path: Path, x: Tensor, there: Tensor) -> StandIn:
        """The stand-in of input ``x`` ``(N, ...)``; ``there`` ``(N,)`` bool says which samples have it."""
        spec, where = self.spec(modality, key, path), "/".join(map(str, (key, *path[1:])))
        real = x.is_floating_point() or x.is_complex()
        if isinstance(spec, str):
            if spec == "presence":
                return StandIn("same")
            if spec == "shuffle":
                return StandIn("shift", shift=self._shift(len(x)))
            if x.dtype == torch.bool or where.endswith("mask"):
                return _row(x, self._open(where, x), token="mask")
            if spec == "mean" and real:
                return self._mean(path, key, x, there)
            if not real:
                self.say(
                    ("zero", where),
                    f"{where!r} holds integers; a hidden {modality} shows 0 in their place, which may be a word: "
                    f"to show another, write baseline={{{modality!r}: {{{where.split('/')[-1]!r}: ids}}}}",
                )
            return _row(x, 0, token="zero")
        if callable(spec) and not isinstance(spec, Tensor):
            values = torch.as_tensor(spec(x.clone())).detach().to(x.device, x.dtype)
            if values.ndim == x.ndim and len(values) == len(x) > 1:
                return StandIn("rows", torch.broadcast_to(values, x.shape))
            return _row(x, values, f"baseline of {where!r}")
        return _row(x, spec, f"baseline of {where!r}", token="given")

    def _open(self, where: str, x: Tensor) -> int:
        if x.dtype == torch.bool and "pad" in where:
            self.say(
                ("padding", where),
                f"{where!r} is taken for a padding mask as torch has them, True where padded: a hidden sample shows "
                "False throughout",
            )
            return 0
        return 1  # a wholly closed mask would make a softmax NaN

    def _mean(self, path: Path, key: Key, x: Tensor, there: Tensor) -> StandIn:
        kept = self.means.get(key if len(path) == 1 else path)
        if kept is not None and kept.shape == x.shape[1:]:
            return _row(x, kept, token=(id(kept), None if kept.is_inference() else kept._version))
        return _row(x, total(x, there) / there.sum().clamp(min=1))

    def _shift(self, N: int) -> int:
        if N > 1:
            return 1 + random.Random(f"{self.seed} {N}").randrange(N - 1)
        self.say("shuffle", "baseline='shuffle' shows another sample's input; in a batch of one there is no other")
        return 0


def total(x: Tensor, there: Tensor) -> Tensor:
    """The sum of ``x`` ``(N, ...)`` over the samples that are ``there`` ``(N,)``, in double precision."""
    exact = x.to(torch.promote_types(x.dtype, torch.float64))
    return torch.where(there.reshape(-1, *[1] * (x.ndim - 1)), exact, 0).sum(0)


def _row(x: Tensor, value: Any, what: str = "", token: Hashable = None) -> StandIn:
    value = torch.as_tensor(value).detach().to(x.device, x.dtype)
    if value.ndim == x.ndim and value.shape[0] == 1:
        value = value[0]
    try:
        row = torch.broadcast_to(value, x.shape[1:])[None]
    except RuntimeError:
        raise ValueError(
            f"{what} has shape {tuple(value.shape)}, one sample has {tuple(x.shape[1:])}: give a tensor of that "
            "shape, or a function of the input where lengths vary"
        ) from None
    return StandIn("row", row, token=None if token is None else (token, tuple(x.shape[1:]), x.dtype, x.device))


def named_baselines(spec: Any) -> Any:
    """The names among the baselines that the user gave."""
    if isinstance(spec, Mapping):
        return [named_baselines(inner) for inner in spec.values()]
    return spec if isinstance(spec, str) else None


class RunningMeans:
    """The sum and the number of samples of each input, one sample's shape, in double precision.

    >>> import torch
    >>> means = RunningMeans()
    >>> means.add("pixels", torch.tensor([[1.0], [3.0]]), torch.tensor([True, True]))
    >>> means.means()
    {'pixels': tensor([2.], dtype=torch.float64)}
    """

    def __init__(self) -> None:
        self.sums: dict[Any, Tensor] = {}
        self.counts: dict[Any, Tensor] = {}
        self.uneven: set[Any] = set()

    def add(self, key: Any, x: Tensor, there: Tensor) -> None:
        """Add a batch ``(N, ...)``; an input whose samples change their shape has no mean from then on."""
        x = x.detach()
        if key not in self.sums:
            self.sums[key] = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
            self.counts[key] = torch.zeros((), dtype=torch.float64, device=x.device)
        if self.sums[key].shape != x.shape[1:]:
            self.uneven.add(key)
        elif key not in self.uneven:
            self.sums[key] = self.sums[key] + total(x, there)
            self.counts[key] = self.counts[key] + there.sum()

    def means(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> dict[Any, Tensor]:
        """One sample's mean by key; ``all_reduce`` gives a tensor's sum over the ranks, which all call this."""
        reduce = all_reduce or (lambda tensor: tensor)
        keys = sorted(self.sums, key=str)
        if not keys:
            return {}
        uneven = reduce(torch.tensor([float(key in self.uneven) for key in keys], device=self.sums[keys[0]].device))
        found = {}
        for key, broken in zip(keys, uneven.tolist(), strict=True):
            if broken:
                continue
            both = reduce(torch.cat([self.sums[key].reshape(-1), self.counts[key].reshape(1)]))
            found[key] = both[:-1].reshape(self.sums[key].shape) / both[-1].clamp(min=1)
        return found
