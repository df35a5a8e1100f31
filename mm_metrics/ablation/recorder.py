"""Outputs of module calls, kept for the very tensors, and under the very weights, that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import Path, flatten, rebuilt, tensors
from mm_metrics.ablation.calls import Call, Calls
from mm_metrics.ablation.encoders import constants
from mm_metrics.ablation.plan import Site, Step
from mm_metrics.ablation.stamps import Checks, moved, same_weights, stamp, unchanged


@dataclass(eq=False)
class _Record:
    call: Call
    args: Mapping[Path, tuple[Tensor, Any]]
    constants: Mapping[Path, Any]
    output: Any
    versions: list[int | None]
    autocast: object


@dataclass
class Recorder:
    """What `Calls` saw of the modules in ``interest`` since `clear`.

    The inputs of a record are known by identity and stamp, those of the modules in ``owning`` alone: they may be the
    batch's own. ``weights`` gives the weights' stamp when an outermost call ends. Nothing is kept of a module with
    forward hooks of its own, which change what it gives after it was seen.
    """

    interest: set[int]
    owning: set[int]
    weights: Callable[[], Any]
    judging: bool
    copied: set[int] = field(default_factory=set)
    records: list[_Record] = field(default_factory=list)
    of_call: dict[Call, _Record] = field(default_factory=dict)
    stamps: dict[Call, Any] = field(default_factory=dict)
    sums: dict[int, tuple[Tensor, Any]] = field(default_factory=dict)
    outermost: list[tuple[Module, list[Tensor]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = Calls(self._wanted, lambda call: None, self._keep)

    def clear(self) -> None:
        """Forget all that was kept."""
        self.records.clear()
        self.of_call.clear()
        self.stamps.clear()
        self.sums.clear()
        self.outermost.clear()
        self.calls.roots.clear()
        self.calls.inside.clear()

    def _wanted(self, module: Module) -> bool:
        return id(module) in self.interest or (self.judging and not self.calls.stack)

    def _keep(self, call: Call) -> None:
        given = flatten((call.args, call.kwargs))
        if self.judging and call.parent is None:
            self.outermost.append((call.module, [value for value in given.values() if isinstance(value, Tensor)]))
        hooked = bool(call.module._forward_hooks)
        if hooked or id(call.module) not in self.interest or any(part.training for part in call.module.modules()):
            return
        stamped = id(call.module) in self.owning
        args = {
            path: (value, self._stamp(value) if stamped else None)
            for path, value in given.items()
            if isinstance(value, Tensor)
        }
        output = held(call.output, id(call.module) in self.copied)
        record = _Record(call, args, given, output, versions(output), autocast(tensor for tensor, _ in args.values()))
        self.records.append(record)
        self.of_call[call] = record
        if call.parent is None:
            self.stamps[call] = self.weights()

    def _stamp(self, x: Tensor) -> Any:
        if not x.is_inference():
            return stamp(x)
        if id(x) not in self.sums:  # once a tensor: what is written into it later on is seen all the same
            self.sums[id(x)] = (x, stamp(x))
        return self.sums[id(x)][1]

    def find(self, site: Site, batch: Mapping[Path, Any], checks: Checks | None = None, now: Any = None) -> Any:
        """The output of a site for this batch's tensors, None where it was not kept or is no longer right.

        With ``checks`` neither the tensors nor the weights, which are ``now`` such, may have changed since.
        """
        for record in reversed(self.records):
            if record.call.module is site.module and self._matches(record, site.chain, batch, checks):
                if versions(record.output) != record.versions:
                    return None
                if checks is not None:
                    root = record.call
                    while root.parent is not None:
                        root = root.parent
                    if not same_weights(now, self.stamps.get(root), checks):
                        return None
                return record.output
        return None

    def swapped(self, now: Any) -> bool:
        """Whether an outermost call ran with weights of other places or values than those of ``now``."""
        return any(then is not None and moved(now, then) for then in self.stamps.values())

    def gave_others(self, batch: Mapping[Path, Any], inputs: Iterable[Path], roots: list[Site]) -> bool:
        """Whether a step gave the model's outermost modules other tensors than the batch's, or none of its inputs."""
        own = {_memory(x) for x in batch.values() if isinstance(x, Tensor)}
        mine = {_memory(x) for path in inputs if isinstance(x := batch[path], Tensor)}
        if not mine:  # words, whose memory tells nothing
            return False
        outer = {id(site.module) for site in roots}
        given = [(id(module), {_memory(x) for x in tensors if x.numel()}) for module, tensors in self.outermost]
        whole = [memory for module, memory in given if module in outer]
        return any(not memory <= own for memory in whole) if whole else not any(memory & mine for _, memory in given)

    def _matches(
        self, record: _Record, chain: tuple[Step, ...], batch: Mapping[Path, Any], checks: Checks | None
    ) -> bool:
        call: Call | None = record.call
        for step in chain:
            if call is None or call.module is not step.module:
                return False
            at = self.of_call.get(call)
            if at is not None and step.own is not None and self._same(at, step, batch, checks):
                return True
            if call.nth != step.nth:
                return False
            call = call.parent
        return False

    def _same(self, record: _Record, step: Step, batch: Mapping[Path, Any], checks: Checks | None) -> bool:
        assert step.own is not None
        return (
            record.args.keys() == step.own.keys()
            and constants(record.constants) == step.constants
            and record.autocast == autocast(tensor for tensor, _ in record.args.values())
            and all(tensor is batch.get(step.own[path]) for path, (tensor, _) in record.args.items())
            and (checks is None or all(unchanged(tensor, then, checks) for tensor, then in record.args.values()))
        )


def _memory(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def held(output: Any, copied: bool) -> Any:
    """A call's output, its tensors copied where somebody may write into them unseen."""

    def hold(path: Path, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().clone() if copied or leaf.is_inference() else leaf.detach()

    return rebuilt(output, hold)


def versions(output: Any) -> list[int | None]:
    """What changes when somebody writes into an output's tensors."""
    return [None if x.is_inference() else x._version for x in tensors(output).values()]


def autocast(given: Iterable[Tensor]) -> object:
    """The precision context: outputs made in one don't serve in another."""
    kinds = sorted({tensor.device.type for tensor in given} | {"cpu"})
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind))
