"""The sentences of a verdict: what a manager reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mm_metrics.scorecard import Estimate, Scorecard

if TYPE_CHECKING:
    from mm_metrics.rules import Rule
    from mm_metrics.verdict import Finding


def finding(rule: Rule, card: Scorecard, paradox: bool) -> str:
    """What a rule that is not good found, in one sentence."""
    bad, good = rule.bars
    named = {"f1": "F1", "unbalanced": "gap between precision and recall"}.get(rule.score, rule.score)
    what = f"{_subject(rule)}{named} {estimate(rule.estimate)}{_on(rule, card)}"
    if rule.level == "undecided":
        why = f"only {rule.thin}" if rule.thin else "its interval reaches from good into bad"
        return f"{what} cannot be judged: {why}"
    if rule.score == "unbalanced":
        return f"{what} is above {bad:.2f}, so one is bought with the other: look at the decision threshold"
    if paradox:
        return f"{what}, below {bad:.2f}: overall accuracy {card.score('accuracy'):.2f} hides it"
    if rule.level == "bad":
        return f"{what}, below {bad:.2f}, the bar for bad"
    return f"{what}, not above {good:.2f}, the bar for good"


def headline(level: str, card: Scorecard, findings: list[Finding]) -> str:
    """The verdict in one line."""
    worst = next((found for found in findings if found.level == level), None)
    overall = card.score("accuracy")
    if level == "good" or worst is None:
        accuracy = estimate(card.estimate("accuracy"))
        return f"{level.upper()}: accuracy {accuracy} on {card.support():,} samples, and nothing hides behind it."
    if worst.kind == "accuracy_paradox":
        return f"{level.upper()}: {worst.message.split(', below')[0]}. Overall accuracy {overall:.2f} hides it."
    return f"{level.upper()}: {worst.message}."


def _subject(rule: Rule) -> str:
    if rule.class_name is not None:
        return f"class {rule.class_name!r} "
    return "overall " if rule.slice == "all" else f"{rule.slice} "


def _on(rule: Rule, card: Scorecard) -> str:
    if rule.class_name is not None:
        return f" on {rule.support:,} samples of it"
    if rule.slice == "all":
        return f" on {rule.support:,} samples"
    if rule.score == "recall" and card.task == "binary":
        return f" on {events(card, rule.slice):,} {rule.slice} events"
    return f" on {rule.support:,} samples with {rule.slice}"


def events(card: Scorecard, slice: str) -> int:
    """Actual positives of a binary task on a slice."""
    return int(card._sums(None, slice).actual[0, 1])


def estimate(number: Estimate) -> str:
    """A score as ``0.12 [.07, .19]``; without an interval where there is none.

    >>> estimate(Estimate(0.12, 0.07, 0.19)), estimate(Estimate(1.0, 0.9, 1.0))
    ('0.12 [.07, .19]', '1.00 [.90, 1.00]')
    """
    if math.isnan(number.value):
        return "not defined"
    if math.isnan(number.low):
        return f"{number.value:.2f}"
    low, high = (f"{bound:.2f}".replace("0.", ".", 1) for bound in (number.low, number.high))
    return f"{number.value:.2f} [{low}, {high}]"


def points(number: Estimate) -> str:
    """A difference of scores in points: ``-4.0 [-6.0, -2.0]``.

    >>> points(Estimate(-0.04, -0.06, -0.02))
    '-4.0 [-6.0, -2.0]'
    """
    return f"{100 * number.value:+.1f} [{100 * number.low:+.1f}, {100 * number.high:+.1f}]"
