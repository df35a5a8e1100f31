"""Follow through a forward pass what each tensor depends on, as the bits of an integer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from mm_metrics.ablation.batch import Path, copied, tensors
from mm_metrics.ablation.calls import Call, Calls

OUT_OF_TORCH = {"numpy", "tolist", "__array__", "__dlpack__"}


@dataclass(eq=False)
class Trace:
    """One forward pass: its calls in order, the bits of their outputs, and the bits that reached the answer.

    ``work`` of each call, and of the whole pass (None), is a rough count of multiplications, inner calls included.

    ``escaped`` are bits whose values left torch, by ``.item()`` or ``.numpy()``, while a call ran (None: the whole
    pass): from there on all that it gives may hang on them. ``written`` are bits whose memory was written to.
    """

    batch: Any
    calls: list[Call] = field(default_factory=list)
    bits: dict[Call, int] = field(default_factory=dict)
    work: dict[Call | None, float] = field(default_factory=dict)
    escaped: dict[Call | None, int] = field(default_factory=dict)
    written: int = 0
    answer: int = 0


class _Escapes(TorchFunctionMode):
    """Sees tensors leave torch, which no dispatch mode does."""

    def __init__(self, escape: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.escape = escape

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in OUT_OF_TORCH and args and isinstance(args[0], Tensor):
            self.escape(args[0])
        return func(*args, **(kwargs or {}))


class _Dependence(TorchDispatchMode):
    """Carries bits from tensor to tensor through every operation, views and writes included.

    A tensor has bits of its own, and those that were written into its memory through any view of it.
    """

    def __init__(self, start: Iterable[tuple[Tensor, int]], escape: Callable[[int], None]) -> None:
        super().__init__()
        self.escape = escape
        self.known: Any = WeakTensorKeyDictionary()
        self.memory: dict[int, tuple[StorageWeakRef, int, int]] = {}  # reference, all its tensors' bits, bits written
        self.watched: dict[int, tuple[StorageWeakRef, int]] = {}
        self.written = 0
        self.work = 0.0
        for tensor, bits in start:
            self.mark(tensor, bits)
            self.watch(tensor, bits)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No compiled model is followed, and to shut the compiler out torch would import it, for more than a second."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        bits = 0
        for tensor in tensors((args, kwargs)).values():
            bits |= self.of(tensor)
        made = tensors((out,)).values()
        self.work += sum(tensor.numel() for tensor in made) * _inner(func, args)
        for tensor in made:
            self.mark(tensor, bits)
        if not made and out is not None and bits:
            self.escape(bits)  # a number or a bool: Python may branch on it
        schema = func._schema.arguments
        given = [*zip(schema, args, strict=False), *((a, kwargs[a.name]) for a in schema if a.name in kwargs)]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors((value,)).values():
                    self.write(tensor, bits)
        return out

    def of(self, tensor: Tensor) -> int:
        """A tensor's bits; of one that came about unseen, as by ``.data``, those of its memory."""
        _, held, written = self._memory(tensor)
        return self.known[tensor] | written if tensor in self.known else held

    def mark(self, tensor: Tensor, bits: int, replace: bool = False) -> None:
        """Add bits to a tensor, or let them replace those it has."""
        self.known[tensor] = bits if replace else self.known.get(tensor, 0) | bits
        reference, held, written = self._memory(tensor)
        if reference is not None:
            self.memory[reference.cdata] = (reference, bits, 0) if replace else (reference, held | bits, written)

    def write(self, tensor: Tensor, bits: int) -> None:
        """Add bits to all that shares the tensor's memory."""
        reference, held, written = self._memory(tensor)
        if reference is not None:
            self.memory[reference.cdata] = (reference, held | bits, written | bits)
            watched = self.watched.get(reference.cdata)
            if watched is not None and not watched[0].expired():
                self.written |= watched[1]

    def watch(self, tensor: Tensor, bits: int) -> None:
        """Add these bits to ``written`` when the tensor's memory is written to."""
        reference, _, _ = self._memory(tensor)
        if reference is not None:
            old = self.watched.get(reference.cdata)
            self.watched[reference.cdata] = (reference, bits if old is None or old[0].expired() else old[1] | bits)

    def _memory(self, tensor: Tensor) -> tuple[StorageWeakRef | None, int, int]:
        try:
            reference = StorageWeakRef(tensor.untyped_storage())
        except (NotImplementedError, RuntimeError):
            return None, 0, 0
        entry = self.memory.get(reference.cdata)
        return entry if entry is not None and not entry[0].expired() else (reference, 0, 0)


def _inner(func: Any, args: tuple) -> int:
    """How many products make one number of an operation's result."""
    name = func._schema.name
    if "convolution" in name:
        return math.prod(args[1].shape[1:])
    if name in ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"):
        return args["add" in name].shape[-1]
    return 1


def trace(
    run: Callable[[Any], Any], batch: Any, bits: Mapping[Path, int], outputs: Mapping[int, int] | None = None
) -> Trace:
    """Run a batch and follow the ``bits`` of its tensors.

    ``outputs`` gives the n-th call of the pass new bits for what it returns, in place of those it depends on.
    """
    outputs = outputs or {}
    done = Trace(batch)
    shut: dict[Call, int] = {}

    def escape(gone: int) -> None:
        if not any(call in shut for call in calls.stack):
            for call in (None, *calls.stack):
                done.escaped[call] = done.escaped.get(call, 0) | gone

    def enter(call: Call) -> None:
        if len(done.calls) in outputs:
            shut[call] = outputs[len(done.calls)]
        done.calls.append(call)
        done.work[call] = -mode.work

    def leave(call: Call) -> None:
        done.work[call] += mode.work
        call.output = copied(call.output, deep=False)  # some models change an output object after the call
        given = tensors((call.output,)).values()
        extra = done.escaped.get(call, 0)
        for tensor in given:
            if extra:
                mode.mark(tensor, extra)
            if call in shut:
                mode.mark(tensor, shut[call], replace=True)
                mode.watch(tensor, shut[call])
        done.bits[call] = extra
        for tensor in given:
            done.bits[call] |= mode.of(tensor)

    leaves = tensors(batch)
    mode = _Dependence(((leaves[path], bit) for path, bit in bits.items()), escape)
    with Calls(lambda module: True, enter, leave) as calls, _Escapes(lambda tensor: escape(mode.of(tensor))), mode:
        output = run(batch)
    done.written, done.work[None] = mode.written, mode.work
    done.answer = done.escaped.get(None, 0)
    for tensor in tensors((output,)).values():
        done.answer |= mode.of(tensor)
    return done
