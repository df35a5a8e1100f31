"""Random streams that are as before, whatever is drawn meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for module, device, state in states:
            module.set_rng_state(state, device)
