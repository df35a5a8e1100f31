"""Random streams that are as before, whatever is drawn meanwhile."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_WORDS = 4 * 624 + 4  # bytes of a Mersenne twister: its numbers, and which comes next
_seen: tuple[Any, ...] = (None,)  # the memory that numpy's and Python's streams were last seen in, and their states


@contextmanager
def kept_streams(devices: Iterable[torch.device] | None = None) -> Iterator[None]:
    """Put back Python's, numpy's and torch's global streams, on the CPU and on `devices`, by default all CUDA ones.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> with kept_streams():
    ...     drawn = torch.rand(1)
    >>> bool(torch.rand(1) == drawn)
    True
    """
    global _seen
    if devices is None:
        devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count() * torch.cuda.is_initialized())]
    modules = [(device, torch.get_device_module(device)) for device in devices if device.type not in ("cpu", "meta")]
    states = [(module, device, module.get_rng_state(device)) for device, module in modules]
    torch_state, memory = torch.get_rng_state(), _memory()
    if memory != _seen[0]:
        _seen = memory, np.random.get_state(legacy=False), random.getstate()
    _, numpy_state, python_state = _seen
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        if memory != _memory():
            np.random.set_state(numpy_state)
            random.setstate(python_state)
        for module, device, state in states:
            module.set_rng_state(state, device)


def _memory() -> Any:
    """The bytes that numpy's and Python's streams lie in, a tenth of the price of their states; equal to nothing else.

    A stream may have moved where they differ, and has not where they are equal: a normal that waits lies there too.
    """
    streams: Any = np.random.get_state.__self__, random.getstate.__self__  # type: ignore[attr-defined]
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if type(bits) is not np.random.MT19937:
        return object()
    head = object.__basicsize__  # which counts references
    parts = [ctypes.string_at(id(one) + head, type(one).__basicsize__ - head) for one in streams]
    return parts, ctypes.string_at(bits.ctypes.state_address, _WORDS), streams[1].gauss_next
