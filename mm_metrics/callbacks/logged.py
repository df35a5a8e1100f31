"""What the monitor needs of Lightning's logging: values that are final, and the user's keys left to the user."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Constant(Metric):
    """A value that is already equal on all ranks.

    A plain tensor logged at the end of an epoch would be reduced over ranks again, or warned of once a key.
    """

    full_state_update = False

    def __init__(self, value: float, device: torch.device) -> None:
        super().__init__(sync_on_compute=False)
        self.value = torch.tensor(value, device=device)
        self._update_count = 1

    def update(self) -> None:
        """Nothing: the value is final."""

    def compute(self) -> Tensor:
        """The value."""
        return self.value


def keys_of_the_user(trainer: Any) -> set[str]:
    """The names that the module or another callback has logged in this loop so far."""
    results = getattr(trainer, "_results", None) or {}
    names = set()
    for result in results.values():
        if isinstance(getattr(result, "value", None), Constant):
            continue  # the monitor's own, of an earlier epoch
        name, loader = result.meta.name, result.meta.dataloader_idx
        names |= {name, f"{name}/dataloader_idx_{loader}"} if loader is not None else {name}
    return names


def log_final(
    trainer: Any, pl_module: Any, values: Mapping[str, float], sent: Collection[str], say: Callable[[str], None]
) -> None:
    """Log `values`, which are equal on all ranks, to be monitored; those in `sent` to the loggers too.

    A key of the user's stays the user's. A NaN that would end the training of somebody who watches it is said.
    """
    users = keys_of_the_user(trainer)
    nans = []
    for key, value in values.items():
        if key in users:
            say(f"{key} is logged by the model itself: that value stays, the callback's own is left out")
            continue
        if value != value:
            nans.append(key)
        pl_module.log(
            key,
            Constant(value, pl_module.device),
            on_step=False,
            on_epoch=True,
            logger=bool(trainer.loggers) and key in sent,
            add_dataloader_idx=False,
            metric_attribute="mm_metrics",
        )
    for callback in trainer.callbacks:
        of, name = getattr(callback, "monitor", None), type(callback).__name__
        if of in nans and getattr(callback, "check_finite", False):
            say(
                f"{of} is NaN this epoch, as of a slice without samples, and {name} stops at the first NaN: "
                f"{name}(monitor={of!r}, check_finite=False) goes on"
            )
