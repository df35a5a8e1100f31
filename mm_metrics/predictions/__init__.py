"""Predictions of any system, from files or blocks of rows, to scorecards."""

from mm_metrics.predictions.scoring import Predictions, Scored

__all__ = ["Predictions", "Scored"]
