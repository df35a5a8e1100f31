"""Random streams that are as before, whatever is drawn meanwhile."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_SIZE = 624 * 4 + 4  # bytes of a Mersenne Twister's state: its key, and how far it is read
_seen: tuple[Any, bytes, Any] = None, b"", None  # numpy's generator, its memory, and the state that it meant


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
    if devices is None:
        devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count() * torch.cuda.is_initialized())]
    modules = [(device, torch.get_device_module(device)) for device in devices if device.type not in ("cpu", "meta")]
    states = [(module, device, module.get_rng_state(device)) for device, module in modules]
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state, memory = _numpy_state()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        if memory is None or memory != _memory():
            np.random.set_state(numpy_state)
        for module, device, state in states:
            module.set_rng_state(state, device)


def _memory() -> bytes:
    """What numpy's global generator holds: to read it as a state takes a hundred times as long."""
    return ctypes.string_at(np.random.get_bit_generator().ctypes.state_address, _SIZE)


def _numpy_state() -> tuple[Any, bytes | None]:
    """The state, and the memory that tells it until somebody draws; None where a half of a normal pair waits to be."""
    global _seen
    generator = np.random.get_bit_generator()
    if generator is _seen[0] and _memory() == _seen[1]:
        return _seen[2], _seen[1]
    state: Any = np.random.get_state()
    if type(generator) is not np.random.MT19937 or state[3]:
        return state, None
    memory = _memory()
    if memory != state[1].tobytes() + int(state[2]).to_bytes(4, sys.byteorder):
        return state, None
    _seen = generator, memory, state
    return state, memory
