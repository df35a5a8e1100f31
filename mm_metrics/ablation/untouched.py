"""Run a model in evaluation mode and leave no trace of it."""

from __future__ import annotations

import copy
import operator
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from types import FunctionType, MethodType
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import Parameter, is_lazy

from mm_metrics.streams import kept_streams

OWN = vars(Module()).keys()  # what every module has beside its tables, none of it the model's own
TABLES = ("_parameters", "_buffers", "_modules")
HOOKS = ("_forward_pre_hooks", "_forward_hooks")
SMALL = 2**20  # bytes; larger tensors are copied only where a forward is known to change them, or may
DEEPEST, LONGEST = 4, 256  # how far what hangs on a module is followed
PLAIN = (bool, int, float, str, bytes, type(None), type, Module, torch.dtype, torch.device, FunctionType, MethodType)
HELD = (list, deque, set, bytearray, random.Random, np.random.Generator, torch.Generator)
NUMBERS = (bool, int, float, str)
OURS = {"training", "log", "log_dict", "_call_impl"}  # what is changed for a pass
STRANGERS = ("torch", "lightning", "pytorch_lightning", "transformers", "numpy")  # their objects hold the whole program


@dataclass
class Known:
    """What a forward is known to change: tensors by their ids, plain Python or not, modules outside the model.

    ``swaps``: it runs with other weights than the model has before and after, and may be ended before it swaps back.
    """

    ids: set[int] = field(default_factory=set)
    restless: bool = False
    swaps: bool = False
    outside: list[ReferenceType[Module]] = field(default_factory=list)


@contextmanager
def untouched(model: Module, known: Known | None, last: Guard | None = None) -> Iterator[Guard]:
    """Evaluation mode without gradients; afterwards modes, buffers, attributes, containers and RNG are as before.

    What is ``known`` of the model's forward makes it cheaper; None where it is to be looked at, everywhere and by
    value. The guard that it gives holds what to pass the next time, and is of use itself as the ``last`` one.
    """
    guard = last if last is not None and known is not None and last.serves(known) else Guard(model, known)
    hook = register_module_forward_pre_hook(guard.meet) if known is None and not is_compiled(model) else None
    devices: set[torch.device] = set()
    if torch.accelerator.is_available():
        devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    with kept_streams(devices):
        try:
            guard.enter()
            with torch.no_grad():
                yield guard
        finally:
            if hook is not None:
                hook.remove()
            guard.leave()


def _set_training(modules: list[Module], training: bool) -> None:
    for module in modules:
        if "training" in vars(module):
            vars(module)["training"] = training
        else:
            module.training = training  # a scripted one, which holds it elsewhere


def is_compiled(model: Module) -> bool:
    """Whether a part of the model is compiled: hooks do not see into it, and it warns of those on all modules."""
    return any(type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None for m in model.modules())


def _silent(*args: Any, **kwargs: Any) -> None:
    """Stand in for a LightningModule's ``log`` in a replay, whose values are not the user's."""


class Guard:
    """What modules and all that hangs on them were: attributes, tables, containers, generators, values of tensors."""

    def __init__(self, model: Module, known: Known | None) -> None:
        self.looking = known is None
        self.known = Known() if known is None else known
        self.seen: dict[int, Any] = {}  # alive, so that ids stay theirs
        self.dicts: list[tuple[dict, dict]] = []
        self.others: list[tuple[Any, Any, Callable[[], Any]]] = []
        self.tensors: list[Tensor] = []
        self.values: list[tuple[Tensor, int | None]] = []  # what the tensors were, and their versions
        self.first: dict[int, Any] = {}
        self.passes = 0
        self.weights: list[tuple[Parameter, Tensor, Tensor]] = []
        self.hooks: list[dict] = []  # their tables, looked at and not put back
        self.build: list[Any] = []  # modules and their hooks
        self.modules, self.training = list(model.modules()), list[Module]()
        for module in self.modules:
            self.add(module)
        for reference in self.known.outside:
            self.meet(reference(), ())
        bases = [(module, type(module).__mro__) for module in self.modules]
        self.loggers = [vars(m) for m, mro in bases if any(base.__name__ == "LightningModule" for base in mro)]
        self._ids = len(self.known.ids)
        self._flat = _flat([held for _, held in self.dicts] + self.hooks)

    def serves(self, known: Known) -> bool:
        """Whether all hangs on the model as it did, so that only values need to be remembered anew."""
        if self.looking or self.known is not known or self._ids != len(known.ids):
            return False
        parts = [(thing, was) for thing, was, _ in self.others if isinstance(thing, list | deque)]
        if not self._as_held() or not all(_alike(thing, was) for thing, was in parts):
            return False
        self.others = [one if isinstance(one[0], list | deque) else _held(one[0]) for one in self.others]
        self.values = [_value(tensor) for tensor in self.tensors]
        self.passes = 0
        self.weights.clear()
        return True

    def _as_held(self) -> bool:
        """Whether all tables, attributes and mappings hold the very things that they held."""
        things, lengths = _flat([home for home, _ in self.dicts] + self.hooks)
        return lengths == self._flat[1] and all(map(operator.is_, things, self._flat[0]))

    def done(self) -> None:
        """Let go of copies of values."""
        self.values.clear()
        self.weights.clear()

    def meet(self, module: Module | None, args: tuple) -> None:
        """A module that is called: one outside the model, such as a frozen extractor, is put back too."""
        if module is None:
            return
        if id(module) not in self.seen:
            if self.looking:
                self.known.outside.append(ref(module))
            for part in module.modules():
                self.add(part)
        if self.looking and self.passes < 2 and not self.known.swaps:
            weights = (x for x in module._parameters.values() if x is not None)
            self.known.swaps = any(self.first.get(id(x), _first(x)) != _first(x) for x in weights)

    def same(self, dicts: list[tuple[dict, dict]]) -> bool:
        """Whether flags and numbers among the attributes were then, in another guard's `dicts`, what they are now."""
        if dicts is self.dicts:
            return True
        return len(dicts) == len(self.dicts) and all(
            (len(held) == len(then) and all(map(operator.is_, held.values(), then.values())))
            or not any(
                isinstance(value, NUMBERS)
                for name in held.keys() | then.keys()
                if held.get(name, OURS) is not then.get(name, OURS)
                for value in (held.get(name, OURS), then.get(name, OURS))
            )
            for (_, held), (_, then) in zip(self.dicts, dicts, strict=True)
        )

    def again(self) -> None:
        """Before another pass: what the last one put into attributes and mappings, as into a cache, is not there.

        Numbers stay: they count the passes of this batch, and are put back after it.
        """
        self.passes += 1
        self._swap_back()
        if self.known.swaps and not self.weights:
            tables = [held for home, held in self.dicts if any(isinstance(x, Parameter) for x in held.values())]
            weights = {id(x): x for held in tables for x in held.values() if isinstance(x, Parameter)}
            self.weights = [(x, x.data, x.detach().clone()) for x in weights.values() if not is_lazy(x)]
        for home, held in self.dicts if self.looking or self.known.restless else ():
            if _alike(home, held):
                continue
            for name, value in [(name, home[name]) for name in home if home[name] is not held.get(name, OURS)]:
                if name in OURS or isinstance(value, NUMBERS):
                    continue
                self.known.restless = True
                if name in held:
                    home[name] = held[name]
                else:
                    del home[name]

    def add(self, module: Module) -> None:
        """Remember a module, its tables, and what it holds."""
        if id(module) in self.seen:
            return
        self.seen[id(module)] = module
        home = vars(module)
        self.dicts.append((home, dict(home)))
        hooks = [home[name] for name in HOOKS if name in home]
        self.hooks += hooks
        self.build += [module, *chain.from_iterable(one.values() for one in hooks)]
        for name in TABLES:
            table = home.get(name)
            if table:
                self.dicts.append((table, dict(table)))
                if name != "_modules":
                    for value in table.values():
                        self._tensor(value, weight=name == "_parameters")
        for name, value in home.items():
            if name not in OWN:
                self._hold(value, 0)

    def _hold(self, value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, PLAIN) or id(value) in self.seen or depth > DEEPEST:
            return
        elif isinstance(value, tuple):
            self._parts(value, depth)
        elif isinstance(value, HELD) or (isinstance(value, np.ndarray) and value.nbytes <= SMALL):
            self.seen[id(value)] = value
            self.others.append(_held(value))
            self._parts(value if isinstance(value, list | deque) else (), depth)
        elif isinstance(value, dict) or (
            hasattr(value, "__dict__") and type(value).__module__.split(".")[0] not in STRANGERS
        ):
            home = value if isinstance(value, dict) else vars(value)
            self.seen[id(value)] = value
            self.dicts.append((home, dict(home)))
            self._parts(home.values(), depth)

    def _parts(self, values: Any, depth: int) -> None:
        if len(values) <= LONGEST:
            for value in values:
                self._hold(value, depth + 1)

    def _tensor(self, tensor: Tensor | None, weight: bool = False) -> None:
        if tensor is None or is_lazy(tensor) or id(tensor) in self.seen:
            return
        if weight and self.looking:
            self.first[id(tensor)] = _first(tensor)
        small = tensor.numel() * tensor.element_size() <= SMALL
        if self.looking:
            wanted = small or not weight
        else:
            wanted = id(tensor) in self.known.ids or (small and not weight and tensor.device.type == "cpu")
        if wanted:
            self.seen[id(tensor)] = tensor
            self.tensors.append(tensor)
            self.values.append(_value(tensor))

    def _swap_back(self) -> None:
        for parameter, data, value in self.weights:
            if parameter.data_ptr() != data.data_ptr():
                parameter.data = data
            if not torch.equal(data, value):
                data.copy_(value)

    def enter(self) -> None:
        """Evaluation mode, and nothing that the model logs is the user's."""
        self.training = [module for module in self.modules if module.training]
        _set_training(self.training, False)  # not .eval(): a module may override it to do more
        for home in self.loggers:
            home.update(log=_silent, log_dict=_silent)

    def leave(self) -> None:
        """Put everything back."""
        _set_training(self.training, True)
        for home in self.loggers:
            home.pop("log", None)
            home.pop("log_dict", None)
        for home, held in () if self._as_held() else self.dicts:
            if not _alike(home, held):
                self.known.restless |= any(
                    home.get(name, OURS) is not held.get(name, OURS) for name in (home.keys() | held.keys()) - OURS
                )
                home.clear()
                home.update(held)
        for _, _, put_back in self.others:
            put_back()
        self._swap_back()
        for tensor, (value, version) in zip(self.tensors, self.values, strict=True):
            unasked = not self.looking and tensor.device.type != "cpu" and id(tensor) in self.known.ids
            if unasked or not _same(tensor, value, None if self.looking else version):
                self.known.ids.add(id(tensor))
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    tensor.copy_(value)


def _first(weight: Tensor) -> Any:
    """Where a weight lies, and its first value."""
    if is_lazy(weight):
        return None
    part = weight.detach()
    part = part.to_local() if hasattr(part, "to_local") else part  # of a sharded weight, this rank's
    return weight.data_ptr(), part[(slice(1),) * part.ndim].flatten().tolist()


def _alike(now: Any, was: Any) -> bool:
    """Whether two containers hold the very same things, under the same keys."""
    same = len(now) == len(was) and all(map(operator.is_, now, was))
    return same and (not isinstance(now, dict) or all(map(operator.is_, now.values(), was.values())))


def _flat(dicts: list[dict]) -> tuple[list[Any], list[int]]:
    """Keys and values of all, and how many are of each: one comparison is cheaper than many."""
    return [*chain.from_iterable(dicts), *chain.from_iterable([one.values() for one in dicts])], [*map(len, dicts)]


def _held(thing: Any) -> tuple[Any, Any, Callable[[], Any]]:
    """A container or a generator, a copy of what it holds, and what puts that back."""
    if isinstance(thing, random.Random):
        return thing, None, partial(thing.setstate, thing.getstate())
    if isinstance(thing, torch.Generator):
        return thing, None, partial(thing.set_state, thing.get_state())
    if isinstance(thing, np.random.Generator):
        return thing, None, partial(setattr, thing.bit_generator, "state", copy.deepcopy(thing.bit_generator.state))
    was = copy.copy(thing)
    if isinstance(thing, set | deque):
        fill = thing.update if isinstance(thing, set) else thing.extend
        return thing, was, lambda: (thing.clear(), fill(was))
    if isinstance(thing, np.ndarray):
        return thing, was, lambda: np.copyto(thing, was) if thing.flags.writeable else None
    return thing, was, partial(thing.__setitem__, slice(None), was)


def _value(tensor: Tensor) -> tuple[Tensor, int | None]:
    return tensor.detach().clone(), None if tensor.is_inference() else tensor._version


def _same(tensor: Tensor, value: Tensor, version: int | None) -> bool:
    if tensor.device.type != "cpu" and version is not None:
        return version == tensor._version  # comparing values would wait for the device
    return torch.equal(tensor, value) or bool(((tensor == value) | (tensor != tensor) & (value != value)).all())
