"""Models that answer in words: their answers become the numbers of classes before anything looks at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mm_metrics.ablation.predict import prediction
from mm_metrics.cells import class_numbers


def in_numbers(predict: Callable[..., Any], names: Sequence[str] | None, extract: Any) -> Callable[..., Any]:
    """`predict`, whose lists of N words become ``(N,)`` numbers of the classes `names`; anything else stays."""
    answer = prediction(predict)

    def numbers(module: Any, batch: Any) -> Any:
        said = answer(module, batch)
        if not isinstance(said, list | tuple) or not all(isinstance(word, str) for word in said):
            return said
        return torch.tensor(class_numbers(said, names, extract), dtype=torch.int64, device=module.device)

    return numbers
