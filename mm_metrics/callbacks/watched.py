"""What both callbacks are told of a batch, a task and a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from torch import Tensor

from mm_metrics.ablation.batch import MissingKeyError, read_key
from mm_metrics.counts.labels import Reader
from mm_metrics.counts.layout import By
from mm_metrics.counts.truth import as_columns
from mm_metrics.modalities import Modalities
from mm_metrics.tasks import task_of


@dataclass(frozen=True)
class Watched:
    """What both callbacks are told of a batch, a task and a module; fields as the arguments of `ModalityMonitor`.

    Raises TypeError or ValueError for what does not fit, before any training.

    >>> Watched({"text": "tokens", "image": ["pixels", "mask"]}, num_classes=3).inputs
    {'text': 'tokens', 'image': ('pixels', 'mask')}
    """

    inputs: Mapping[str, Any]
    num_classes: int | None = None
    task: str = "multiclass"
    num_labels: int | None = None
    target: Any = "label"
    presence: Any = None
    slices: Any = None
    predict: Callable[..., Any] | str | None = None
    ignore_index: int | None = None
    threshold: Any = 0.5
    from_logits: bool = True
    ablation: Any = "all"  # None: the module's own answers alone
    baseline: Any = "zero"
    encoders: Any = "auto"
    seed: int = 0
    verify: int = 1
    unit: Any = None
    group: Any = None
    by: Mapping[str, Any] | None = None
    edges: Any = None
    sample_axis: Mapping[Any, int] | None = None
    class_names: Any = None
    extract: Any = None

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not isinstance(self.inputs, Mapping):
            raise TypeError(
                f"modalities maps names to keys of the batch, got {type(self.inputs).__name__}: write "
                '{"text": ("tokens", "mask"), "image": "pixels"}'
            )
        inputs = {name: tuple(key) if isinstance(key, list) else key for name, key in self.inputs.items()}
        object.__setattr__(self, "inputs", inputs)
        if isinstance(self.threshold, list | tuple):
            object.__setattr__(self, "threshold", tuple(map(float, self.threshold)))
        if self.num_classes is not None or not task_of(self.task).by_class:
            Reader(**self.reading())
        _ = self.masks

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Watched:
        """Of a callback's arguments, each of which has a field's name; others are left to it."""
        return cls(given["modalities"], **{one.name: given[one.name] for one in fields(cls) if one.name in given})

    @cached_property
    def modalities(self) -> Modalities:
        """Their names."""
        return Modalities(self.inputs)

    @cached_property
    def columns(self) -> By:
        """The columns of `by` and their values."""
        return as_columns(self.by)[:-1]

    @cached_property
    def masks(self) -> tuple[int, ...]:
        """The coalitions that are shown; none without ablation."""
        return () if self.ablation is None else self.modalities.masks(self.ablation, self.seed)

    def entries(self, batch: Any, modality: str) -> Iterator[tuple[Any, int]]:
        """What a batch has under each key of a modality, None where it lacks it, and the axis of samples there."""
        keys, axes = self.inputs[modality], self.sample_axis or {}
        for key in keys if isinstance(keys, tuple) else (keys,):
            value = None
            with suppress(MissingKeyError):
                value = read_key(batch, key)
            yield value, axes.get(key, axes.get(modality, 0))

    def reading(self, preds: Tensor | None = None, C: int | None = None) -> dict[str, Any]:
        """The arguments of `Reader`, C read off ``preds`` ``(K, N, C)`` where it was left out; else ValueError."""
        C = self.num_classes if C is None else C
        if C is None and task_of(self.task).by_class:
            if preds is None or preds.ndim < 3 or not preds.dtype.is_floating_point:
                raise ValueError("num_classes is None and no logits (N, C) to read it off: give num_classes=…")
            C = preds.shape[-1]
        names = ("num_labels", "threshold", "from_logits", "ignore_index", "edges")
        return {"kind": self.task, "num_classes": C, **{name: getattr(self, name) for name in names}}
