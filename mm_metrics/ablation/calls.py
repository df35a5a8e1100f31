"""The calls of a model's modules while something runs: who called whom, with what, and what came back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@dataclass(eq=False)
class Call:
    """One call of one module; ``nth`` counts the calls of that module within the same parent."""

    module: Module
    parent: Call | None
    nth: int
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    inside: Counter = field(default_factory=Counter)

    def outwards(self) -> list[Call]:
        """The call, the one that it is part of, and so on."""
        found = [self]
        while found[-1].parent is not None:
            found.append(found[-1].parent)
        return found


Watch = Callable[[Call], None]


def _pass(call: Call) -> None:
    pass


class Calls:
    """Watch module calls by global hooks, so that nothing of ours is ever on a module.

    A hook on the module itself would be copied and pickled with it, and would turn off the fused path of
    ``nn.TransformerEncoderLayer``, which changes the last digits of what the user logs.
    """

    def __init__(self, wanted: Callable[[Module], bool], enter: Watch = _pass, leave: Watch = _pass) -> None:
        self.wanted, self.on_enter, self.on_leave = wanted, enter, leave
        self.stack: list[Call] = []
        self.roots: list[Call] = []
        self.inside: Counter = Counter()
        self._handles: list[Any] = []

    def __enter__(self) -> Calls:
        if not self._handles:
            self._handles = [
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, with_kwargs=True),
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
            # torch forgets this entry, and torch.compile warns of global hooks while it is there
            getattr(torch.nn.modules.module, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)
        self._handles = []
        self.stack.clear()

    def _enter(self, module: Module, args: tuple) -> None:
        if not self.wanted(module):
            return
        parent = self.stack[-1] if self.stack else None
        counts = parent.inside if parent else self.inside
        call = Call(module, parent, counts[id(module)])
        counts[id(module)] += 1
        if parent is None:
            self.roots.append(call)
        self.stack.append(call)
        self.on_enter(call)

    def _leave(self, module: Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if not self.stack or not any(call.module is module for call in self.stack):
            return
        while self.stack[-1].module is not module:
            self.stack.pop()  # a call that raised, which the model caught
        call = self.stack.pop()
        call.args, call.kwargs, call.output = args, kwargs, output
        self.on_leave(call)
