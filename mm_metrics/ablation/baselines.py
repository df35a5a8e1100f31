"""What stands in for a hidden modality."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mm_metrics.ablation.batch import Key, Path
from mm_metrics.ablation.inputs import Inputs

NAMED = ("zero", "mean", "shuffle", "presence", "keep")
LENGTHS = re.compile(r"(.*[_./])?(lengths?|lens?|sizes?|durations?)")
ROWS = 64  # stand-ins that are held on their device
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
    text: str | Sequence[str] = ""

    def texts(self, texts: Sequence[str]) -> list[str]:
        """What hidden samples of a list of str show."""
        if self.kind in ("same", "shift"):
            return [texts[(i - self.shift) % len(texts)] for i in range(len(texts))]
        return [self.text] * len(texts) if isinstance(self.text, str) else list(self.text)

    @property
    def told(self) -> str:
        """In words, for an error."""
        if self.kind in ("same", "shift"):
            return "left as it is" if self.kind == "same" else "another sample's"
        if self.values is None:
            return repr(self.text)
        only = self.values is not None and self.values.numel() and bool((self.values == self.values.flatten()[0]).all())
        return f"{self.values.flatten()[0].item():g} throughout" if only else "your own"

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
        self._rows: dict[Hashable, StandIn] = {}
        self._uses = 0
        if isinstance(baseline, Mapping):
            known = [*inputs.keys, *(key for keys in inputs.keys.values() for key in keys)]
            unknown = [name for name in baseline if name not in known]
            if unknown:
                raise ValueError(f"baseline names {unknown}: the modalities and their keys are {known}")
        self._check(baseline)

    def use(self, means: Mapping[Any, Tensor]) -> None:
        """Take these means; what was made of others is no longer of use."""
        self.means = means
        self._uses += 1

    def _check(self, spec: Any, inner: bool = False) -> None:
        if isinstance(spec, Mapping):
            for part in spec.values():
                self._check(part, inner=True)
        elif isinstance(spec, str) and spec not in NAMED and not inner:  # inside it may be a text
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

    def stand_in(self, modality: str, key: Key, path: Path, x: Any, there: Tensor | None) -> StandIn:
        """The stand-in of input ``x``, ``(N, ...)`` or texts; ``there`` ``(N,)``: which samples have it, None all."""
        spec, where = self.spec(modality, key, path), "/".join(map(str, (key, *path[1:])))
        if not isinstance(x, Tensor):
            return self._text(spec, x)
        if isinstance(spec, str) and spec not in NAMED:
            raise ValueError(f"baseline={spec!r} of {where!r} is not known: one of {NAMED}, or a tensor")
        real = x.is_floating_point() or x.is_complex()
        if isinstance(spec, str):
            if spec in ("presence", "keep"):
                return StandIn("same")
            if spec == "shuffle":
                return StandIn("shift", shift=self._shift(len(x)))
            if x.dtype == torch.bool or where.endswith("mask"):
                return self._row(x, self._open(where, x), token="mask")
            if spec == "mean" and real:
                return self._mean(path, key, x, there)
            if not real:
                self._say_integers(modality, where)
            return self._row(x, 0, token="zero")
        if callable(spec) and not isinstance(spec, Tensor):
            values = torch.as_tensor(spec(x.clone())).detach().to(x.device, x.dtype)
            if values.ndim == x.ndim and len(values) == len(x) > 1:
                return StandIn("rows", torch.broadcast_to(values, x.shape))
            return self._row(x, values, f"baseline of {where!r}")
        version = spec._version if isinstance(spec, Tensor) and not spec.is_inference() else None
        return self._row(x, spec, f"baseline of {where!r}", token=("given", where, version))

    def _text(self, spec: Any, texts: Sequence[str]) -> StandIn:
        if callable(spec):
            return StandIn("rows", text=spec(list(texts)))
        if spec in ("presence", "keep"):
            return StandIn("same")
        if spec == "shuffle":
            return StandIn("shift", shift=self._shift(len(texts)))
        return StandIn("row", text=spec if isinstance(spec, str) and spec not in NAMED else "")

    def _row(self, x: Tensor, value: Any, what: str = "", token: Hashable = None) -> StandIn:
        """A stand-in of one row, held on its device under its ``token``; raises ValueError for another shape."""
        key = None if token is None else (token, tuple(x.shape[1:]), x.dtype, x.device)
        if key is not None and key in self._rows:
            return self._rows[key]
        number = isinstance(value, bool | int | float)  # made on the device: to move it there would be to wait
        value = x.new_full((), value) if number else torch.as_tensor(value).detach().to(x.device, x.dtype)
        if value.ndim == x.ndim and value.shape[0] == 1:
            value = value[0]
        try:
            row = StandIn("row", torch.broadcast_to(value, x.shape[1:])[None], token=key)
        except RuntimeError:
            raise ValueError(
                f"{what} has shape {tuple(value.shape)}, one sample has {tuple(x.shape[1:])}: give a tensor of that "
                "shape, or a function of the input where lengths vary"
            ) from None
        if key is not None:
            while len(self._rows) >= ROWS:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = row
        return row

    def _say_integers(self, modality: str, where: str) -> None:
        if is_lengths((where,)):
            held, why, other = "lengths", "which some models can't take: to leave them as they are", "'keep'"
        else:
            held, why, other = "integers", "which may be a word: to show another", "ids"
        line = f"baseline={{{modality!r}: {{{where.split('/')[-1]!r}: {other}}}}}"
        told = f"{where!r} holds {held}; a hidden {modality} shows 0 in their place, {why}, write {line}"
        self.say(("zero", where), told)

    def _open(self, where: str, x: Tensor) -> int:
        if x.dtype == torch.bool and "pad" in where:
            self.say(
                ("padding", where),
                f"{where!r} is taken for a padding mask as torch has them, True where padded: a hidden sample shows "
                "False throughout",
            )
            return 0
        return 1  # a wholly closed mask would make a softmax NaN

    def _mean(self, path: Path, key: Key, x: Tensor, there: Tensor | None) -> StandIn:
        where = key if len(path) == 1 else path
        kept = self.means.get(where)
        if kept is not None and kept.shape == x.shape[1:]:
            return self._row(x, kept, token=("mean", where, self._uses))
        sums, count = total(x, there)
        return self._row(x, sums / count.clamp(min=1))

    def _shift(self, N: int) -> int:
        if N > 1:
            return 1 + random.Random(f"{self.seed} {N}").randrange(N - 1)
        self.say("shuffle", "baseline='shuffle' shows another sample's input; in a batch of one there is no other")
        return 0


def total(x: Tensor, there: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum ``(...)`` of ``x`` ``(N, ...)`` over the samples that are ``there`` ``(N,)``, and their number.

    A sample that is not finite everywhere is left out: it would reach all others' stand-in.
    """
    counts = x.isfinite().flatten(1).all(1)
    counts = counts if there is None else counts & there
    exact = x.to(torch.promote_types(x.dtype, precise(x.device)))
    return torch.where(counts.reshape(-1, *[1] * (x.ndim - 1)), exact, 0).sum(0), counts.sum()


def precise(device: torch.device) -> torch.dtype:
    """The widest float that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def keeping(*ids: int, fill: int = 0) -> Callable[[Tensor], Tensor]:
    """A baseline for tokens that leaves the special ``ids`` where they are, and shows ``fill`` elsewhere.

    >>> keeping(101, 102)(torch.tensor([[101, 7, 8, 102]]))
    tensor([[101,   0,   0, 102]])
    """
    return lambda x: torch.where(torch.isin(x, torch.tensor(ids, device=x.device)), x, fill)


def is_lengths(path: Path) -> bool:
    """Whether an input's name says that it holds lengths.

    >>> is_lengths(("audio_lengths",)), is_lengths(("tokens",))
    (True, False)
    """
    return LENGTHS.fullmatch(str(path[-1]).lower()) is not None


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

    def add(self, key: Any, x: Tensor, there: Tensor | None) -> None:
        """Add a batch ``(N, ...)``; an input whose samples change their shape has no mean from then on."""
        x = x.detach()
        if key not in self.sums:
            self.sums[key] = torch.zeros(x.shape[1:], dtype=precise(x.device), device=x.device)
            self.counts[key] = torch.zeros((), dtype=precise(x.device), device=x.device)
        if self.sums[key].shape != x.shape[1:]:
            self.uneven.add(key)
        elif key not in self.uneven:
            sums, count = total(x, there)
            self.sums[key] = self.sums[key] + sums
            self.counts[key] = self.counts[key] + count

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
