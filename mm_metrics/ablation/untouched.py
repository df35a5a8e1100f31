"""Run a model in evaluation mode and leave no trace of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from mm_metrics.streams import kept_streams

OWN = vars(Module()).keys()  # what every module has, none of it a tensor
SMALL = 2**20  # bytes; larger buffers are kept only where a forward is known to change them


@contextmanager
def untouched(model: Module, changing: set[int] | None) -> Iterator[set[int]]:
    """Evaluation mode without gradients; afterwards modes, buffers, tensors held as attributes and RNG are as before.

    ``changing`` holds the ids of the tensors that a forward is known to change, None where that is not known yet; it
    gives the set to pass the next time.
    """
    found = set(changing or ())
    modules = list(model.modules())
    states = [_State(module, changing) for module in modules]
    loggers = [module for module in modules if any(base.__name__ == "LightningModule" for base in type(module).__mro__)]
    devices: set[torch.device] = set()
    if torch.accelerator.is_available():
        devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    with kept_streams(devices):
        try:
            for module in modules:
                module.training = False  # not .eval(): a module may override it to do more
            for module in loggers:
                vars(module).update(log=_silent, log_dict=_silent)
            with torch.no_grad():
                yield found
        finally:
            for module in loggers:
                vars(module).pop("log", None), vars(module).pop("log_dict", None)
            for state in states:
                found |= state.restore()


def _silent(*args: Any, **kwargs: Any) -> None:
    """Stand in for a LightningModule's ``log`` in a replay, whose values are not the user's."""


class _State:
    """A module's mode, its buffers, and the tensors that it holds as plain attributes."""

    def __init__(self, module: Module, changing: set[int] | None) -> None:
        self.module, self.training = module, module.training
        self.homes = [(home, _held(home)) for home in (vars(module), module._buffers)]
        self.values = [
            (tensor, tensor.detach().clone(), _version(tensor))
            for _, held in self.homes
            for tensor in held.values()
            if changing is None or id(tensor) in changing or tensor.numel() * tensor.element_size() <= SMALL
        ]

    def restore(self) -> set[int]:
        """Put everything back; the ids of the tensors that had changed."""
        vars(self.module)["training"] = self.training
        for home, held in self.homes:
            for name in _held(home).keys() - held.keys():
                del home[name]
            for name, tensor in held.items():
                if home.get(name) is not tensor:
                    home[name] = tensor
        changed = [(tensor, value) for tensor, value, version in self.values if not _same(tensor, value, version)]
        for tensor, value in changed:
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.copy_(value)
        return {id(tensor) for tensor, _ in changed}


def _held(home: dict[str, Any]) -> dict[str, Tensor]:
    mine = home.keys() - OWN
    return {name: home[name] for name in mine if isinstance(home[name], Tensor) and not is_lazy(home[name])}


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _same(tensor: Tensor, value: Tensor, version: int | None) -> bool:
    if tensor.device.type != "cpu" and version is not None:
        return version == tensor._version  # comparing values would wait for the device
    return torch.equal(tensor, value) or bool(((tensor == value) | (tensor != tensor) & (value != value)).all())
