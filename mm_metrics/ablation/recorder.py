"""Outputs of module calls, kept for the very tensors, and under the very weights, that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import Path, flatten, rebuilt
from mm_metrics.ablation.calls import Call, Calls
from mm_metrics.ablation.encoders import constants
from mm_metrics.ablation.plan import Site, Step
from mm_metrics.ablation.stamps import Checks, Values, moved, same_weights, stamp, unchanged

Versions = list[tuple[Tensor, int]]  # tensors, and the version of each when it was kept


@dataclass(eq=False)
class _Record:
    args: Mapping[Path, tuple[Tensor, Any]]
    constants: Mapping[Path, Any]
    output: Any
    versions: Versions
    autocast: object
    weights: Any  # their stamp, where the call is an outermost one


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
    records: dict[Call, _Record] = field(default_factory=dict)
    values: Values = field(default_factory=dict)  # what is written into a tensor later on is seen all the same
    outermost: list[tuple[Module, list[Tensor]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = Calls(self._wanted, leave=self._keep)

    def clear(self) -> None:
        """Forget all that was kept."""
        for kept in (self.records, self.values, self.outermost, self.calls.roots, self.calls.inside):
            kept.clear()

    def _wanted(self, module: Module) -> bool:
        return id(module) in self.interest or (self.judging and not self.calls.stack)

    def _keep(self, call: Call) -> None:
        given = flatten((call.args, call.kwargs))
        tensors = {path: value for path, value in given.items() if isinstance(value, Tensor)}
        if self.judging and call.parent is None:
            self.outermost.append((call.module, list(tensors.values())))
        hooked = bool(call.module._forward_hooks)
        if hooked or id(call.module) not in self.interest or any(part.training for part in call.module.modules()):
            return
        stamped = id(call.module) in self.owning
        args = {path: (x, stamp(x, self.values) if stamped else None) for path, x in tensors.items()}
        output, versions = held(call.output, id(call.module) in self.copied)
        weights = self.weights() if call.parent is None else None
        self.records[call] = _Record(args, constants(given), output, versions, autocast(tensors.values()), weights)

    def find(self, site: Site, batch: Mapping[Path, Any], checks: Checks | None = None, now: Any = None) -> Any:
        """The output of a site for this batch's tensors, None where it was not kept or is no longer right.

        With ``checks`` neither the tensors nor the weights, which are ``now`` such, may have changed since.
        """
        for call, record in reversed(self.records.items()):
            if call.module is not site.module or not self._matches(calls := call.outwards(), site.chain, batch, checks):
                continue
            root = self.records.get(calls[-1])
            kept = checks is None or (root is not None and same_weights(now, root.weights, checks))
            return record.output if kept and not written(record.versions) else None
        return None

    def swapped(self, now: Any) -> bool:
        """Whether an outermost call ran with weights of other places or values than those of ``now``."""
        return any(one.weights is not None and moved(now, one.weights) for one in self.records.values())

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
        self, calls: list[Call], chain: tuple[Step, ...], batch: Mapping[Path, Any], checks: Checks | None
    ) -> bool:
        for at, step in zip(calls, chain, strict=False):
            if at.module is not step.module:
                return False
            record = self.records.get(at)
            if record is not None and step.own is not None and self._same(record, step, step.own, batch, checks):
                return True
            if at.nth != step.nth:
                return False
        return False

    def _same(
        self, record: _Record, step: Step, own: Mapping[Path, Path], batch: Mapping[Path, Any], checks: Checks | None
    ) -> bool:
        return (
            record.args.keys() == own.keys()
            and record.constants == step.constants
            and record.autocast == autocast([tensor for tensor, _ in record.args.values()])
            and all(tensor is batch.get(own[path]) for path, (tensor, _) in record.args.items())
            and (checks is None or all(unchanged(tensor, then, checks) for tensor, then in record.args.values()))
        )


def _memory(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def held(output: Any, copied: bool) -> tuple[Any, Versions]:
    """A call's output, its tensors copied where somebody may write into them unseen, and what tells of a write."""
    made: Versions = []

    def hold(path: Path, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        kept = leaf.detach().clone() if copied or leaf.is_inference() else leaf.detach()
        if not kept.is_inference():
            made.append((kept, kept._version))
        return kept

    return rebuilt(output, hold), made


def written(versions: Versions) -> bool:
    """Whether somebody has written into one of these tensors since."""
    return any(tensor._version != then for tensor, then in versions)


def autocast(given: Iterable[Tensor]) -> object:
    """The precision context: outputs made in one don't serve in another."""
    kinds = sorted({tensor.device.type for tensor in given} | {"cpu"})
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind))
