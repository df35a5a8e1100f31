"""How strongly each modality's encoders are pulled by the loss: norms of their gradients, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class Pull(NamedTuple):
    """Of one modality: the mean gradient norm since `restart`, and the learning speed since training began."""

    gradient_norm: float
    learning_speed: float


class EncoderGradients:
    """Sums on the device, without a stall, what `read` then fetches once.

    The learning speed is the sum over steps of the squared gradient norm over the squared parameter norm (Wu et al.
    2022). A step whose gradient is not finite, which a gradient scaler skips, is left out.

    >>> encoder = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(encoder.parameters())
    >>> encoder.weight.data.fill_(2.0), encoder(torch.ones(1, 1)).sum().backward()
    (tensor([[2.]]), None)
    >>> gradients = EncoderGradients({"text": [encoder]})
    >>> gradients.add(optimizer)
    >>> gradients.read()["text"]
    Pull(gradient_norm=1.0, learning_speed=0.25)
    """

    def __init__(self, encoders: Mapping[str, Iterable[Module]], before: Mapping[str, float] | None = None) -> None:
        self.parameters = {
            name: list({id(p): p for module in modules for p in module.parameters()}.values())
            for name, modules in encoders.items()
        }
        self.before = dict(before or {})  # learning speeds of a run that this one resumes
        self._sums: dict[str, Tensor] = {}  # (norms, steps, speed)

    @torch.no_grad()
    def add(self, optimizer: Optimizer) -> None:
        """Before a step of `optimizer`: add what its gradients are for the parameters that it moves."""
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameters in self.parameters.items():
            pulled = [p for p in parameters if p.grad is not None and id(p) in moved]
            if not pulled:
                continue
            grads = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in pulled if p.grad is not None]
            gradient = get_total_norm(grads)
            gradient = gradient.to(torch.float32 if gradient.device.type == "mps" else torch.float64)
            weight = get_total_norm([p.detach() for p in pulled]).to(gradient)
            step = torch.stack([gradient, torch.ones_like(gradient), (gradient / weight).square()])
            step = torch.where(step.isfinite().all(), step, 0.0)
            self._sums[name] = self._sums[name] + step if name in self._sums else step

    def restart(self) -> None:
        """Begin another mean of norms."""
        for name, sums in self._sums.items():
            self._sums[name] = sums.clone()
            self._sums[name][:2].zero_()

    def read(self) -> dict[str, Pull]:
        """Per modality; the one look at the device. Empty before the first step."""
        if not self._sums:
            return {}
        device = next(iter(self._sums.values())).device
        rows = torch.stack([sums.to(device) for sums in self._sums.values()]).tolist()
        return {
            name: Pull(norm / steps if steps else math.nan, speed + self.before.get(name, 0.0))
            for name, (norm, steps, speed) in zip(self._sums, rows, strict=True)
        }


def relative_speeds(speeds: Mapping[str, float]) -> dict[str, float]:
    """The logarithm of each branch's learning speed over the mean of the others'.

    Not the conditional learning speed of Wu et al. (2022), which sets the layers after the fusion against the branch.

    >>> relative_speeds({"text": 1.0, "audio": 1.0})
    {'text': 0.0, 'audio': 0.0}
    """
    found = {}
    for name, speed in speeds.items():
        others = [other for key, other in speeds.items() if key != name]
        mean = sum(others) / len(others) if others else 0.0
        if speed > 0 and mean > 0:
            found[name] = math.log(speed / mean)
    return found
