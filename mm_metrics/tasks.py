"""What a task is: one value that knows what scores are of, what a plain proportion is, and the nouns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OTHER = "(other)"  # the name of a last class, or label, for answers that are none
JUDGED = ("correct", OTHER)  # the only class of answers that a judge marked: of scores, accuracy alone is known
LOWER_IS_BETTER = ("mae", "rmse", "brier", "log_loss", "calibration_error", "eer")
EXTENTS = {  # the least and the most that a score can be; 0 and 1 where it is not here
    **dict.fromkeys(("matthews", "cohen_kappa", "pearson", "ccc"), (-1.0, 1.0)),
    **dict.fromkeys(("mae", "rmse", "log_loss"), (0.0, math.inf)),
    "brier": (0.0, 2.0),  # the sum over the classes, as Brier (1950) has it
    "dprime": (-math.inf, math.inf),
}
Sums = tuple["Tensor", "Tensor", "Tensor"]  # hits, predictions and actual samples, each (..., L, C)


@dataclass(frozen=True)
class Task:
    """How a task's counts are read; how its predictions and targets are, `mm_metrics.counts.labels` says.

    >>> task_of("binary").positive, task_of("multilabel").noun, task_of("multiclass").default_average("f1")
    (True, 'label', 'macro')
    """

    name: str
    by_label: bool = False  # a decision for each label: targets (N, L), C = 2
    positive: bool = False  # scores are of class 1 alone
    ordinal: bool = False  # numbers that edges cut into classes
    noun: str = "class"
    nouns: str = "classes"

    @property
    def by_class(self) -> bool:
        """Whether a sample is of one of C classes that are all alike."""
        return not (self.by_label or self.positive or self.ordinal)

    def default_average(self, score: str) -> str:
        """What ``average="default"`` means for a score: accuracy counts all alike, others are means over classes."""
        return "micro" if score == "accuracy" else "binary" if self.positive else "macro"

    def proportion(self, score: str, sums: Sums, average: str | None) -> tuple[float, float] | None:
        """``(hits, total)`` where a score is a plain proportion of independent samples, else None.

        `sums` are ``(L, C)`` each.
        """
        if self.by_label:  # a sample's labels go together
            return None
        hits, predicted, actual = (part[..., 0, :] for part in sums)
        if score == "accuracy" and average in ("default", "micro", "weighted", "binary"):
            return float(hits.sum()), float(actual.sum())
        if not self.positive or average not in ("default", "binary"):
            return None
        if score == "recall":
            return float(hits[1]), float(actual[1])
        if score == "precision":
            return float(hits[1]), float(predicted[1])
        if score == "specificity":  # not called positive is not yet called negative, where there are other answers
            negatives = float(actual[0])
            return negatives - float(predicted[1] - hits[1]), negatives
        return None


TASKS = {
    task.name: task
    for task in (
        Task("multiclass"),
        Task("binary", positive=True),
        Task("multilabel", by_label=True, noun="label", nouns="labels"),
        Task("ordinal", ordinal=True),
    )
}


def task_of(name: str) -> Task:
    """The task of that name; ValueError for another."""
    if name not in TASKS:
        raise ValueError(f"task={name!r} is not known: one of {', '.join(map(repr, TASKS))}")
    return TASKS[name]
