"""Outputs of module calls, kept for the very tensors that they were made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.batch import Path, flatten, rebuilt, tensors
from mm_metrics.ablation.calls import Call, Calls
from mm_metrics.ablation.encoders import Site, Step, constants


class Enough(BaseException):
    """Ends a forward pass whose last wanted output is there; no Exception, so that models don't catch it."""


@dataclass(eq=False)
class _Record:
    call: Call
    args: Mapping[Path, tuple[Tensor, Any]]
    constants: Mapping[Path, Any]
    output: Any
    versions: Mapping[Path, int | None]
    autocast: object


@dataclass
class Recorder:
    """What `Calls` saw of the modules in ``interest`` since `clear`.

    The inputs of a record are known by identity and version. A tensor made in inference mode has no version: a copy
    of it is kept and compared.
    """

    interest: set[int]
    copied: set[int] = field(default_factory=set)
    own: bool = False  # our own pass over tensors that nobody else can write to
    enough: Collection[Site] = ()
    records: list[_Record] = field(default_factory=list)
    of_call: dict[Call, _Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calls = Calls(lambda module: id(module) in self.interest, lambda call: None, self._keep)
        self._left = {id(site.module): sum(s.module is site.module for s in self.enough) for site in self.enough}

    def clear(self) -> None:
        """Forget all that was kept."""
        self.records.clear()
        self.of_call.clear()
        self.calls.roots.clear()
        self.calls.inside.clear()

    def _keep(self, call: Call) -> None:
        if any(module.training for module in call.module.modules()):
            return
        given = flatten((call.args, call.kwargs))
        args = {
            path: (value, None if self.own else _stamp(value))
            for path, value in given.items()
            if isinstance(value, Tensor)
        }
        copied = id(call.module) in self.copied

        def hold(path: Path, leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().clone() if copied or leaf.is_inference() else leaf.detach()

        output = rebuilt(call.output, hold)
        versions = {path: _version(tensor) for path, tensor in tensors(output).items()}
        record = _Record(call, args, given, output, versions, autocast(tensor for tensor, _ in args.values()))
        self.records.append(record)
        self.of_call[call] = record
        if id(call.module) in self._left:
            self._left[id(call.module)] -= 1
            if not any(left > 0 for left in self._left.values()):
                raise Enough

    def find(self, site: Site, batch: Mapping[Path, Any]) -> Any:
        """The output of a site for this batch's tensors, None where it was not kept or is no longer right."""
        for record in reversed(self.records):
            if record.call.module is site.module and self._matches(record, site.chain, batch):
                now = {path: _version(tensor) for path, tensor in tensors(record.output).items()}
                return record.output if now == record.versions else None
        return None

    def _matches(self, record: _Record, chain: tuple[Step, ...], batch: Mapping[Path, Any]) -> bool:
        call: Call | None = record.call
        for step in chain:
            if call is None or call.module is not step.module:
                return False
            at = self.of_call.get(call)
            if at is not None and step.own is not None and self._same(at, step, batch):
                return True
            if call.nth != step.nth:
                return False
            call = call.parent
        return self.own and call is None

    def _same(self, record: _Record, step: Step, batch: Mapping[Path, Any]) -> bool:
        assert step.own is not None
        return (
            record.args.keys() == step.own.keys()
            and constants(record.constants) == step.constants
            and record.autocast == autocast(tensor for tensor, _ in record.args.values())
            and all(
                tensor is batch.get(step.own[path]) and (self.own or _unchanged(tensor, stamp))
                for path, (tensor, stamp) in record.args.items()
            )
        )


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _stamp(tensor: Tensor) -> Any:
    return tensor.clone() if tensor.is_inference() else tensor._version


def _unchanged(tensor: Tensor, stamp: Any) -> bool:
    return torch.equal(tensor, stamp) if isinstance(stamp, Tensor) else tensor._version == stamp


def autocast(given: Iterable[Tensor]) -> object:
    """The precision context: outputs made in one don't serve in another."""
    kinds = sorted({tensor.device.type for tensor in given} | {"cpu"})
    return tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)
