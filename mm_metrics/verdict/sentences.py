"""The sentences of a verdict: what a manager reads. Written once, from fields, and never read by code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mm_metrics import words
from mm_metrics.counts.tally import Tally
from mm_metrics.uncertainty import Contribution, Estimate
from mm_metrics.verdict.gate import QualityGate

if TYPE_CHECKING:
    from mm_metrics.verdict.rules import Finding, Rule

_FAR = 100  # times the samples that there are: no advice


def finding(rule: Rule, card: Tally, paradox: bool) -> str:
    """What a rule that is not good found, in one sentence."""
    bad, good = map(words.score, rule.bars)
    what = measured(rule, card)
    if rule.level == "undecided":
        have, need, unit = rule.behind
        why = f"only {have:,} of {need:,} {unit}" if rule.behind.thin else "its interval reaches from good into bad"
        return f"{what} cannot be judged: {why}"
    if rule.score == "unbalanced":
        return f"{what} is above {bad}, so one is bought with the other: look at the decision threshold"
    if paradox:
        return f"{what}, below {bad}: overall accuracy {words.score(card.score('accuracy'))} hides it"
    if rule.level == "bad":
        return f"{what}, below {bad}, the bar for bad"
    return f"{what}, not above {good}, the bar for good"


def measured(rule: Rule, card: Tally) -> str:
    """What a rule measured, where and on how much: ``audio recall 0.12 [.08, .18] on 150 audio events``."""
    return f"{_subject(rule)}{words.label(rule.score)} {words.estimate(rule.estimate)}{_on(rule, card)}"


def headline(level: str, card: Tally, found: Sequence[tuple[Finding, Rule | None]]) -> str:
    """The verdict in one line."""
    worst, rule = next(((found, rule) for found, rule in found if found.level == level), (None, None))
    if level == "good" or worst is None:
        accuracy = words.estimate(card.estimate("accuracy"))
        return f"{level.upper()}: accuracy {accuracy} on {card.support():,} samples, and nothing hides behind it."
    if worst.kind == "accuracy_paradox" and rule is not None:
        overall = words.score(card.score("accuracy"))
        return f"{level.upper()}: {measured(rule, card)}. Overall accuracy {overall} hides it."
    return f"{level.upper()}: {worst.message}."


def notes(card: Tally, gate: QualityGate, level: str, firm: bool, needed: Iterable[int | None]) -> Iterator[str]:
    """Whose bar it is, what guessing would score, and how many samples would settle what is open."""
    whose = "mm_metrics' default" if gate == QualityGate() else "the one that was given"
    accuracy, recall = (tuple(map(words.score, gate.bars(score, "all"))) for score in ("accuracy", "recall"))
    yield (
        f"The bar is {whose} (good above accuracy {accuracy[1]} and recall {recall[1]}, bad below "
        f"{accuracy[0]} and {recall[0]}); set yours with QualityGate(recall={{...: (bad, good)}})."
    )
    if card.support() and not card.judged:
        guess = "always saying no to every label" if card.kind.by_label else "guessing the majority class"
        yield f"For comparison, {guess} would score accuracy {words.score(card.majority('accuracy'))}."
    if not card.layout.R:
        yield "Without bootstrap= only plain proportions have intervals."
    if level == "undecided" or not firm:
        state = "Undecided" if level == "undecided" else "Not firm: an interval reaches the next level"
        most = max((need for need in needed if need is not None), default=None)
        if most is not None and most <= _FAR * max(card.support(), 1):
            yield f"{state}; about {most:,} samples like these would settle it."
        else:
            yield f"{state}; a value lies almost on its bar, and no number of samples that is at hand settles that."
    if card.judged:
        yield "Only accuracy is judged: the answers are marked right or wrong."


def unused(name: str, given: Contribution) -> str:
    """A modality that gives nothing."""
    return (
        f"{name} is not used: without it F1 loses {words.points_estimate(given.drop)} points on the samples that "
        f"have it, and alone it gives {words.points_estimate(given.unimodal_gain)}; is its encoder trained at all?"
    )


def dominant(name: str, shapley: Estimate, total: float) -> str:
    """A modality that carries nearly all."""
    return (
        f"{name} carries {shapley.value / total:.0%} of what the model knows (Shapley value "
        f"{words.points_estimate(shapley)} of {100 * total:.0f} points of F1): the others are hardly used"
    )


def _subject(rule: Rule) -> str:
    if rule.class_name is not None:
        return f"class {rule.class_name!r} "
    return "overall " if rule.slice == "all" else f"{rule.slice} "


def _on(rule: Rule, card: Tally) -> str:
    if rule.class_name is not None:
        return f" on {rule.support:,} samples of it"
    if rule.slice == "all":
        return f" on {rule.support:,} samples"
    if rule.score == "recall" and card.kind.positive:
        return f" on {card.positives(rule.slice):,} {rule.slice} events"
    return f" on {rule.support:,} samples with {rule.slice}"
