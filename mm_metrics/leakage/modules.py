"""The splits of a data module, such as a LightningDataModule; no framework is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def is_module(data: object) -> bool:
    """Whether it prepares, sets up and gives loaders as a LightningDataModule does."""
    return all(callable(getattr(data, name, None)) for name in ("prepare_data", "setup", "train_dataloader"))


def named(name: str) -> Any:
    """What ``package.module:Class`` names; raises ValueError for what is no such name, ImportError for no module."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # a command's own path is where it is installed
        sys.path.insert(0, os.getcwd())
    if not attribute or (found := getattr(import_module(module), attribute, None)) is None:
        raise ValueError(f"datamodule {name!r} names nothing: expected package.module:Class")
    return found


def splits_of(module: Any) -> dict[str, Any]:
    """Split → loaders, the one trained on first: ``train``, ``val``, ``test``, those that the module has.

    All loaders of training are one split; of several for validation or test each is its own: ``val``, ``val_1``, or
    ``val_far`` for the key ``far``.
    """
    module.prepare_data()
    for stage in ("fit", "test"):
        module.setup(stage=stage)
    splits: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        give = getattr(module, f"{name}_dataloader", None)
        if give is None or getattr(give, "__qualname__", "").startswith("DataHooks."):  # Lightning's own, which refuses
            continue
        loaders = give()
        if name == "train" or not isinstance(loaders, list | tuple | Mapping):
            splits[name] = loaders
            continue
        pairs = loaders.items() if isinstance(loaders, Mapping) else enumerate(loaders)
        splits |= {f"{name}_{key}" if key != 0 else name: loader for key, loader in pairs}
    return splits
