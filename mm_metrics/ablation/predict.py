"""A model's logits, however it takes its batch and whatever it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import cache, partial
from inspect import Parameter, signature
from types import MethodType
from typing import Any
from unittest.mock import MagicMock, patch

from torch import Tensor
from torch.nn import Module

Predict = Callable[[Module, Any], Any]


def prediction(predict: Callable[..., Any] | str | None, inputs: Collection[Any] = ()) -> Predict:
    """A function of model and batch: the user's, of the batch alone too, a `Step`, or `call` with the ``inputs``' keys.

    >>> prediction(lambda batch: batch + 1)(None, 2), prediction(lambda model, batch: batch)(None, 2)
    (3, 2)
    """
    if predict is None:
        return partial(call, inputs=inputs)
    if isinstance(predict, str) and predict == "step":
        return Step()
    if not callable(predict):
        raise TypeError(
            f"predict is a function of model and batch, got {type(predict).__name__} {predict!r}: write predict='step' "
            "for the module's own validation_step"
        )
    try:
        parameters = list(signature(predict).parameters.values())
    except (TypeError, ValueError):
        return predict
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind in kinds]
    if len(required) == 1 and not any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return lambda model, batch: predict(batch)
    return predict


class Step:
    """The module's own ``validation_step``, while it is tested its ``test_step``, its loggers muted; gives its logits.

    ``at`` holds the numbers of the batch and of its loader, for steps that take them.
    """

    def __init__(self) -> None:
        self.at = (0, 0)

    def __call__(self, model: Module, batch: Any) -> Tensor:
        """What the step returns: a tensor, ``"logits"`` or ``"preds"``; raises TypeError where it is none of these."""
        trainer = getattr(model, "_trainer", None)
        name = "test_step" if getattr(trainer, "testing", False) else "validation_step"
        step = getattr(model, name, None)
        if step is None:
            raise TypeError(f"predict='step' runs {type(model).__name__}.{name}, which it has not: pass a function")
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        parameters = signature(step).parameters.values()
        more = sum(p.kind in kinds for p in parameters) - 1
        if any(p.kind == p.VAR_POSITIONAL for p in parameters):
            more = 2
        loggers = getattr(trainer, "_loggers", None)
        with patch.object(trainer, "_loggers", [MagicMock() for _ in loggers]) if loggers else nullcontext():
            output = step(batch, *self.at[: max(more, 0)])
        for key in ("logits", "preds"):
            found = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
            output = found if isinstance(found, Tensor) else output
        if isinstance(output, Tensor) and output.ndim:
            return output
        held = f" with {list(output)}" if isinstance(output, Mapping) else ""
        raise TypeError(
            f"{type(model).__name__}.{name} gave {type(output).__name__}{held}, and predict='step' reads the logits "
            "from it: return them as a tensor, or in {'loss': ..., 'logits': ...}"
        )


def call(model: Module, batch: Any, inputs: Collection[Any] = ()) -> Any:
    """``model(batch)``, or ``model(**batch)`` with the keys that the forward names.

    A forward that names some and ends in ``**kwargs`` gets those of the ``inputs`` too.
    """
    if isinstance(batch, Mapping):
        named = keywords(model, batch, inputs)
        if named is not None:
            return model(**named)
    return model(batch)


def keywords(model: Module, batch: Mapping, inputs: Collection[Any] = ()) -> dict[str, Any] | None:
    """The entries of the batch that the forward names as parameters, None where it names none."""
    inner: Any = model
    while type(inner).__name__ in ("OptimizedModule", "DistributedDataParallel", "DataParallel", "_FabricModule"):
        inner = getattr(inner, "_orig_mod", None) or inner.module
    try:
        bound = isinstance(inner.forward, MethodType)
        parameters = (
            _method_parameters(inner.forward.__func__) if bound else signature(inner.forward).parameters.values()
        )
    except (TypeError, ValueError):
        return None
    if parameters and all(p.kind == p.VAR_KEYWORD for p in parameters):
        return {str(key): value for key, value in batch.items()}
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    named = {p.name: batch[p.name] for p in by_name if p.name in batch}
    if not named:
        return None
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        named |= {str(key): batch[key] for key in batch if key in inputs}
    missing = [p.name for p in by_name if p.default is p.empty and p.name not in named]
    if missing:
        raise TypeError(
            f"{type(model).__name__}.forward needs {missing}, the batch has {list(batch)}: pass "
            "predict=lambda model, batch: model(...)"
        )
    return named


@cache  # of a class's functions, which hold no model
def _method_parameters(function: Callable[..., Any]) -> Collection[Parameter]:
    return signature(MethodType(function, object())).parameters.values()


def logits(output: Any, num_classes: int | None = None) -> Tensor:
    """A tensor, ``.logits``, ``["logits"]``, ``["all"]`` (one head a modality), or the first of a tuple.

    Raises TypeError for anything else, and for a tuple in which another entry could be the logits as well, or the
    first can't be, having other than ``num_classes`` columns.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, Mapping):
        for name in ("logits", "all"):
            if isinstance(output.get(name), Tensor):
                return output[name]
    if isinstance(output, tuple | list) and output:
        if not isinstance(output[0], Tensor):
            return logits(output[0], num_classes)
        able = [i for i, entry in enumerate(output) if i == 0 or _could_be_logits(entry, output[0])]
        fit = [i for i in able if output[i].ndim < 2 or num_classes in (None, output[i].shape[-1])]
        if fit == [0]:
            return output[0]
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in output)
        why = (
            "several of which could be the logits" if 0 in fit else f"the first of which is not logits of {num_classes}"
        )
        raise TypeError(
            f"predict gave a {type(output).__name__} of {shapes}, {why}: say which, "
            f"predict=lambda model, batch: model(batch)[{fit[-1] if fit else -1}]"
        )
    held = f" with {list(output)}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"predict gave {type(output).__name__}{held}, no logits: pass predict=lambda model, batch: ... that returns "
        "a tensor, something with .logits or ['logits'], or a tuple that starts with them"
    )


def _could_be_logits(entry: Any, first: Tensor) -> bool:
    return (
        isinstance(entry, Tensor)
        and entry.is_floating_point()
        and entry.ndim >= 2
        and entry.shape[0] == first.shape[0]
        and entry.ndim in (first.ndim, 2)
    )
