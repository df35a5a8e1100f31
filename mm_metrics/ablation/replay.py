"""Forward passes in which encoders give kept outputs instead of running."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import Path, copied, flatten, rebuilt
from mm_metrics.ablation.encoders import constants
from mm_metrics.ablation.hide import choose, spread
from mm_metrics.ablation.plan import Site
from mm_metrics.ablation.recorder import Versions, held, written

Outputs = Collection[tuple[Site, Any]]


class Enough(BaseException):
    """Ends a forward pass whose last wanted output is there; no Exception, so that models don't catch it."""


class DivergedError(RuntimeError):
    """A forward pass called other encoders than the one that was traced."""


class ApartError(RuntimeError):
    """This one batch can't be answered in parts: its encoders' outputs do not fit together."""


@dataclass
class Way:
    """An encoder's output for a batch of N samples when its modality is shown, and ``hidden``, of ``n`` samples.

    ``there`` ``(N,)`` says which samples have the modality, None that all do; ``n`` is N or 1.
    """

    site: Site
    output: Any
    hidden: Any
    there: Tensor | None
    N: int
    n: int
    alone: dict[bool, Any] = field(default_factory=dict)  # what one coalition is given, made once a batch
    made: dict[bool, Versions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shown, self._hidden = flatten(self.output), flatten(self.hidden)
        self.joint = self._shown.keys() == self._hidden.keys() and all(
            self._fits(path, leaf, self._hidden[path]) for path, leaf in self._shown.items()
        )

    def _fits(self, path: Path, leaf: Any, other: Any) -> bool:
        """Whether rows shown and rows hidden can lie in one tensor; what has no rows must be one and the same."""
        axis = sample_axis(self.site, path, leaf, self.N)
        if axis is not None and isinstance(other, Tensor):
            if leaf.dtype != other.dtype or leaf.ndim != other.ndim:
                return False
            rows = other.shape[axis]
            shape = (*leaf.shape[:axis], rows, *leaf.shape[axis + 1 :])
            return other.shape == shape and leaf.shape[axis] * self.n == rows * self.N
        if isinstance(leaf, Tensor) and isinstance(other, Tensor):
            same = leaf.data_ptr() == other.data_ptr() and leaf.shape == other.shape
            return same or (leaf.device.type == "cpu" and torch.equal(leaf, other))
        return type(leaf) is type(other) and bool(leaf == other)

    @property
    def written(self) -> bool:
        """Whether somebody has written into what one coalition was given."""
        return any(map(written, self.made.values()))

    def of(self, flags: Sequence[bool]) -> Any:
        """What the encoder gives for the k·N samples of k coalitions, by the ``flags`` that show its modality.

        To one coalition alone all tensors are fresh and no inference tensors, so that their versions tell of a write.
        """
        shown = flags[0]
        if not self.joint and (len(flags) > 1 or (self.there is not None and shown)):
            raise ApartError(f"{type(self.site.module).__name__} gives outputs of other shapes when it is hidden")
        if len(flags) > 1:
            return self._made(flags)
        if shown not in self.alone:
            with torch.inference_mode(False), torch.no_grad():
                self.alone[shown], self.made[shown] = held(self._made(flags), copied=False)
        return copied(self.alone[shown], deep=self.site.written)

    def _made(self, flags: Sequence[bool]) -> Any:
        def change(path: Path, leaf: Any) -> Any:
            axis = sample_axis(self.site, path, leaf, self.N)
            if axis is None:
                return leaf.clone() if isinstance(leaf, Tensor) else leaf
            hidden = leaf if all(flags) else self._spread(path, axis)
            here = leaf
            if self.there is not None and any(flags):
                here = choose(self.there, leaf, self._hidden[path], axis)
            return torch.cat([here if shown else hidden for shown in flags], axis)

        return rebuilt(self.output if any(flags) else self.hidden, change)

    def _spread(self, path: Path, axis: int) -> Tensor:
        """The hidden output's tensor for N samples, without memory where it has one."""
        return self._hidden[path] if self.n == self.N else spread(self._hidden[path], self.N, axis)


def sample_axis(site: Site, path: Path, leaf: Any, N: int) -> int | None:
    """The axis of an output's tensor that holds the samples, None where none does."""
    axis = site.axes.get(path) if isinstance(leaf, Tensor) else None
    if axis is None and N == 1 and isinstance(leaf, Tensor) and leaf.ndim:
        return 0  # traced on one row, where its axes could not be told apart
    return axis


def along_samples(site: Site, output: Any, change: Callable[[Tensor, int], Tensor]) -> Any:
    """An encoder's output, each tensor that holds samples changed along their axis."""

    def along(path: Path, leaf: Any) -> Any:
        axis = site.axes.get(path)
        return leaf if axis is None else change(leaf, axis)

    return rebuilt(output, along)


@contextmanager
def given(
    outputs: Outputs,
    calls: Mapping[int, int] | None = None,
    keep: Collection[Site] = (),
    batch: Any = None,
    enough: Collection[Site] = (),
) -> Iterator[dict[Site, Any]]:
    """Inside, the sites' calls give these outputs and run nothing, no hooks either; afterwards all is as before.

    The sites in ``keep`` run for the ``batch``, and the mapping that comes holds what they gave; as soon as it has all
    of ``enough`` the pass ends by `Enough`. Raises DivergedError where a module is called more or less often than in
    ``calls`` (by its id), the traced pass, or with another of the batch's tensors.
    """
    by_site, kept, made = dict(outputs), dict[Site, Any](), list[tuple[Tensor, int]]()
    by_order: dict[Module, dict[int, Site]] = {}
    for site in (*by_site, *keep):
        by_order.setdefault(site.module, {})[site.order] = site
    counts, running = dict.fromkeys(by_order, 0), False

    def run_and_keep(site: Site, run: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        nonlocal running
        once = calls is not None and calls[id(site.module)] == 1
        if not once and not _takes(site, flatten((args, kwargs)), batch):
            raise DivergedError("the model called an encoder in another order than when it was followed")
        running = True  # what a replay does not get to
        try:
            output = run(*args, **kwargs)
        finally:
            running = False
        kept[site], versions = held(output, site.written)
        made.extend(versions)
        if enough and kept.keys() >= set(enough):
            raise Enough
        return output

    def stand_in(module: Module) -> Callable[..., Any]:
        run = module._call_impl

        def replayed(*args: Any, **kwargs: Any) -> Any:
            if running:
                return run(*args, **kwargs)
            site = by_order[module].get(counts[module])
            counts[module] += 1
            if site is None:
                return run(*args, **kwargs)
            return by_site[site] if site in by_site else run_and_keep(site, run, args, kwargs)

        return replayed

    try:
        for module in by_order:
            vars(module)["_call_impl"] = stand_in(module)
        with suppress(Enough):
            yield kept
            if calls is not None and any(count != calls[id(module)] for module, count in counts.items()):
                raise DivergedError("the model called its encoders otherwise than when it was followed")
        if written(made):
            raise DivergedError("the model wrote into what an encoder gave")
    finally:
        for module in by_order:
            vars(module).pop("_call_impl", None)


def _takes(site: Site, args: Mapping[Path, Any], batch: Any) -> bool:
    """Whether a call is given the tensors of the batch, and the flags, that it was followed with."""
    leaves, step = flatten(batch), site.chain[0]
    own = step.own or {}
    return constants(args) == step.constants and all(args.get(path) is leaves[there] for path, there in own.items())
