"""The verdict on answers of which only right and wrong is known: a gate that asks for accuracy and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import QualityGate, Rule, Verdict


def judge(card: Scorecard, gate: QualityGate, **context: Any) -> Verdict:
    """The verdict by the accuracy bars of `gate`; without what guessing would score, which no judge's marks tell."""
    asked = _AccuracyGate(**{field.name: getattr(gate, field.name) for field in fields(gate)})
    verdict = asked.judge(card, **context)
    notes = [note for note in verdict.notes if "accuracy nan" not in note]
    return replace(verdict, notes=(*notes, "Only accuracy is judged: the answers are marked right or wrong."))


class _AccuracyGate(QualityGate):
    def __eq__(self, other: object) -> bool:
        """Equal bars are equal, so that the default is called the default."""
        return isinstance(other, QualityGate) and all(
            getattr(self, field.name) == getattr(other, field.name) for field in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    def _of_slice(self, card: Scorecard, slice: str) -> Iterator[Rule]:
        return (rule for rule in super()._of_slice(card, slice) if rule.score == "accuracy")

    def _of_classes(self, card: Scorecard) -> tuple[list[Rule], list[Rule]]:
        return [], []
