"""Strategies that spread one layer over ranks: there only whole forwards through the strategy are sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


def is_sharded(strategy: Any) -> bool:
    """Whether a submodule's forward alone would hang or fail; by name, as two packages have these classes."""
    return bool({cls.__name__ for cls in type(strategy).__mro__} & _SHARDED)


def through_strategy(strategy: Any, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`predict`, run inside the wrapped model's own forward, as Lightning runs a validation step."""
    redirection = getattr(strategy, "_forward_redirection", None)
    if redirection is None or strategy.model is None or strategy.model is strategy.lightning_module:
        return predict

    def redirected(module: Any, batch: Any) -> Any:
        # Lightning redirects by a method's name, and a bound function of that name on the module serves it.
        name = "_mm_metrics_predict"
        object.__setattr__(module, name, lambda batch: predict(module, batch))
        try:
            return redirection(strategy.model, module, name, batch)
        finally:
            object.__delattr__(module, name)

    return redirected
