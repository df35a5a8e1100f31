"""Findings beside the rules: modalities unused or dominant, weak slices, too much confidence, leaks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mm_metrics.counts.tally import Tally
from mm_metrics.counts.weak import PROPOSED
from mm_metrics.moments import LEVELS, SCALE
from mm_metrics.uncertainty import Estimate, difference_interval
from mm_metrics.verdict import sentences
from mm_metrics.verdict.gate import QualityGate
from mm_metrics.verdict.rules import Finding


def explanations(card: Tally, gate: QualityGate) -> Iterator[Finding]:
    """What the contributions, columns and confidences say; it explains a level and sets none."""
    if card.layout.by and card.layout.R and card.layout.replicate_slices:
        yield from weak_slices(card, gate)
    if "calibration_error" in card.further:
        yield from _overconfident(card, gate.confidence)
    if len(card.modalities) < 2 or len(card.coalitions) < 2 or not card.layout.R or not card.knows("f1"):
        return
    score = card.headline
    for name in card.modalities:
        own = card.contributions(score, slice=name, confidence=gate.confidence)[name]
        bounds = (own.drop.low, own.drop.high, own.unimodal_gain.low, own.unimodal_gain.high)
        if all(-gate.unused <= bound <= gate.unused for bound in bounds):
            message = sentences.unused(name, own, score)
            yield Finding("unused_modality", name, score, *own.drop, gate.unused, message)
    shares = card.contributions(score, confidence=gate.confidence)
    total = sum(share.shapley.value for share in shares.values())
    for name, share in shares.items():
        if total > gate.unused and share.shapley.low > gate.dominant * total:
            message = sentences.dominant(name, share.shapley, total, score)
            yield Finding("dominant_modality", name, score, *share.shapley, gate.dominant * total, message)


def weak_slices(card: Tally, gate: QualityGate, by: Sequence[str] = (), level: str = "mixed") -> Iterator[Finding]:
    """Slices whose weakness holds on the half that did not propose them; those in a column, or value, of `by` alone.

    Raises ValueError for a column, or a value, that is not there, and where none were counted.
    """
    if strange := [name for name in by if not any(f"{slice}/".startswith(f"{name}/") for slice in card.slices)]:
        there = ", ".join(slice for slice in card.slices if "/" in slice) or "none: by={...} of the metric counts some"
        raise ValueError(f"by={strange[0]!r} is no column or value of the slices, {there}")
    score = "f1" if card.kind.by_label else "accuracy"
    for weak in card.weak_slices(score, PROPOSED if by else 3, confidence=gate.confidence):
        if not by or any(f"{part}/".startswith(f"{name}/") for name in by for part in weak.slice):
            message = sentences.weak(weak, score)
            yield Finding("weak_slice", weak.name, score, *weak.estimate, math.nan, message, level)


def leaks(rows: Iterable[Mapping[str, Any]], split: str | None, where: str) -> list[Finding]:
    """What an earlier split shares with `split`, and where that is not known with any, for `judge` to count in.

    `rows` are those of ``Leakage.summary``, `where` names what holds them.
    """
    return [
        Finding("leakage", row["modality"], "share", row["share"], math.nan, math.nan, 0.0, sentences.leak(row, where))
        for row in rows
        if row["splits"][0] != row["splits"][1] and split in (None, row["splits"][1]) and row["count"]
    ]


def _overconfident(card: Tally, confidence: float) -> Iterator[Finding]:
    """Modalities without which the model's confidence surely exceeds its accuracy, by more than with all."""
    spread = card.replicate_field("replicate_levels")  # (R, K, H, LEVELS, 3)
    if spread is None:
        return
    excess, replicates = (_excess(levels, card.kind.by_class) for levels in (card.field("levels"), spread))
    for m, name in enumerate(card.modalities):
        without = card.layout.modalities.name(card.layout.modalities.full & ~(1 << m))
        if len(card.modalities) < 2 or without not in card.coalitions:
            continue
        row, whole = card.row(without), card.row(None)
        ends = [
            difference_interval(part[..., row], many, card.support(coalition=without), confidence, card.clusters())
            for part, many in (
                (excess, replicates[:, row]),
                (excess - excess[whole], replicates[:, row] - replicates[:, whole]),
            )
        ]
        if all(float(low) > 0 for low, _ in ends):
            estimate = Estimate(float(excess[row]), *map(float, ends[0]))
            message = sentences.overconfident(name, estimate)
            yield Finding("overconfident", name, "calibration_error", *estimate, 0.0, message)


def _excess(levels: Tensor, by_class: bool) -> Tensor:
    """``(..., H, LEVELS, 3)`` to ``(...)``: mean confidence less the share of hits.

    Levels of a probability that something is there are as sure as they lie above one half or below; what lies in the
    middle level, within 1/30 of one half, is sure of nothing and left out.
    """
    count, hits, confidence = levels.double().sum(-3).unbind(-1)  # (..., LEVELS) each
    side = torch.ones(LEVELS) if by_class else (torch.arange(LEVELS) - (LEVELS - 1) // 2).sign()
    return (side * (confidence / SCALE - hits)).sum(-1) / (side.abs() * count).sum(-1)
