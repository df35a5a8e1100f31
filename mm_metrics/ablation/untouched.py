"""Run a model in evaluation mode and leave no trace of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

SMALL = 2**20  # bytes; larger buffers are kept only where a forward is known to change them


@contextmanager
def untouched(model: Module, changing: set[int] | None) -> Iterator[set[int]]:
    """Evaluation mode without gradients; afterwards modes, buffers, attributes and RNG streams are as before.

    ``changing`` holds the ids of the tensors that a forward is known to change, None where that is not known yet; it
    gives the set to pass the next time.
    """
    found = set(changing or ())
    modules = list(model.modules())
    before = [_Module(module, changing) for module in modules]
    streams = _streams(model)
    try:
        for module in modules:
            module.training = False  # not .eval(): a module may override it to do more
            if any(base.__name__ == "LightningModule" for base in type(module).__mro__):
                vars(module)["log"] = vars(module)["log_dict"] = _silent
        with torch.no_grad():
            yield found
    finally:
        for state in before:
            found |= state.restore()
        _restore(streams)


def _silent(*args: Any, **kwargs: Any) -> None:
    """Stand in for a LightningModule's ``log`` in a replay, whose values are not the user's."""


class _Module:
    """A module's own attributes, the containers and tensors among them by value."""

    def __init__(self, module: Module, changing: set[int] | None) -> None:
        self.module = module
        self.attributes = dict(vars(module))
        self.containers = [
            (value, value.copy()) for value in self.attributes.values() if type(value) in (dict, list, set)
        ]
        held = [*module._buffers.values(), *(value for value in self.attributes.values() if isinstance(value, Tensor))]
        self.tensors = [
            (t, t.detach().clone())
            for t in held
            if t is not None and (changing is None or id(t) in changing or t.numel() * t.element_size() <= SMALL)
        ]

    def restore(self) -> set[int]:
        """Put everything back; the ids of the tensors that had changed."""
        now = vars(self.module)
        for name in [name for name in now if name not in self.attributes]:
            del now[name]
        for name, value in self.attributes.items():
            if now.get(name, self) is not value:
                now[name] = value
        for container, value in self.containers:
            if len(container) != len(value) or any(
                a is not b for a, b in zip(_parts(container), _parts(value), strict=True)
            ):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(value)
        changed = [(tensor, value) for tensor, value in self.tensors if not torch.equal(tensor, value)]
        for tensor, value in changed:
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.copy_(value)
        return {id(tensor) for tensor, _ in changed}


def _parts(container: Any) -> list:
    return [part for pair in container.items() for part in pair] if isinstance(container, dict) else list(container)


def _streams(model: Module) -> tuple:
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type != "cpu"}
    states = [
        (device, torch.get_device_module(device).get_rng_state(device)) for device in devices if device.type != "meta"
    ]
    return torch.get_rng_state(), states, np.random.get_state(), random.getstate()


def _restore(streams: tuple) -> None:
    cpu, devices, numpy, python = streams
    torch.set_rng_state(cpu)
    for device, state in devices:
        torch.get_device_module(device).set_rng_state(state, device)
    np.random.set_state(numpy)
    random.setstate(python)
