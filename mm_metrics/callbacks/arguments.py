"""What the monitor refuses before any training: arguments out of what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mm_metrics.extras import install
from mm_metrics.modalities import NAME
from mm_metrics.verdict import QualityGate

_CHOICES = {"on_bad": ("warn", "stop", "raise"), "log": ("summary", "all"), "on_bad_values": ("count", "raise")}


def check(given: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for arguments of `ModalityMonitor`, by name, that are out of what they may be."""
    gate, name, samples, every, most = (
        given[key] for key in ("gate", "name", "samples", "every_n_epochs", "max_batches")
    )
    if gate is not None and not isinstance(gate, QualityGate):
        raise TypeError(f"gate is a QualityGate, got {type(gate).__name__}: write QualityGate(accuracy=(0.5, 0.6))")
    for what, choices in _CHOICES.items():
        if given[what] not in choices:
            raise ValueError(f"{what}={given[what]!r} is not known: one of {', '.join(map(repr, choices))}")
    if samples is not None and (samples != "all" or find_spec("pyarrow") is None):
        raise ValueError(f"samples={samples!r}: 'all' or None, and a book of samples needs {install('pyarrow')}")
    if name is not None and not NAME.fullmatch(name):
        raise ValueError(f"name={name!r} begins keys and is a folder: letters, digits and _, 'emotion' say")
    if every < 1 or (most is not None and most < 1):
        raise ValueError(f"every_n_epochs={every}, max_batches={most}: 1 or more")
