"""Predictions of any system, from files, blocks of rows or a cluster, to scorecards.

>>> from mm_metrics.predictions import Predictions
>>> how = Predictions(("text", "audio"), classes=("flood", "siren"), bootstrap=0)
>>> card = how.score_rows({"target": ["flood", "siren"], "prediction": ["flood", "flood"]})
>>> card.score("accuracy")
0.5
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_metrics.predictions.options import Options
    from mm_metrics.predictions.score import Predictions, Scored, score_blocks

__all__ = ["Options", "Predictions", "Scored", "score_blocks"]


def __getattr__(name: str) -> Any:
    # Options alone must not wait seconds for torch: the command line's help is made from them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{'options' if name == 'Options' else 'score'}"), name)
    globals()[name] = value
    return value
