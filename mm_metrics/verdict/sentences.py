"""The sentences of a verdict: what a manager reads. Written once, from fields, and never read by code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm_metrics import words
from mm_metrics.counts.tally import Tally
from mm_metrics.counts.weak import WeakSlice
from mm_metrics.tasks import LOWER_IS_BETTER
from mm_metrics.uncertainty import Contribution, Estimate
from mm_metrics.verdict.gate import QualityGate
from mm_metrics.verdict.rules import imprecise

if TYPE_CHECKING:
    from mm_metrics.verdict.rules import Finding, Rule

_FAR = 100  # times the samples that there are: no advice


def finding(rule: Rule, card: Tally, paradox: bool) -> str:
    """What a rule that is not good found, in one sentence."""
    gap = rule.score == "unbalanced"
    bad, good = ((_in_points if gap else words.score)(bar) for bar in rule.bars)
    what = measured(rule, card)
    if rule.level == "undecided":
        have, need, unit = rule.behind
        open_ = f"its interval reaches {f'below the bar for bad, {bad}' if gap else 'from good into bad'}"
        why = f"only {have:,} of {need:,} {unit}" if rule.behind.thin else open_
        return f"{what} cannot be judged: {why}"
    if gap:
        return f"{what} is above {bad} points, so one is bought with the other: {_balance(rule, card)}"
    if paradox:
        return f"{what}, below {bad}: overall accuracy {words.score(card.score('accuracy'))} hides it"
    above, below = ("below", "above") if rule.lower else ("above", "below")
    if rule.level == "bad":
        return f"{what}, {below} {bad}, the bar for bad"
    return f"{what}, not {above} {good}, the bar for good"


def _balance(rule: Rule, card: Tally) -> str:
    """What moves precision against recall: a threshold, where there is one."""
    if card.kind.positive or card.kind.by_label:
        return "look at the decision threshold"
    if rule.class_name is None:
        return "look at which classes are answered too often, and at class weights"
    if imprecise(card, rule.slice, rule.class_name):
        return "it is answered too often: look at what is taken for it, and at class weights"
    return "it is answered too rarely: look at what it is taken for, and at class weights"


def measured(rule: Rule, card: Tally) -> str:
    """What a rule measured, where and on how much: ``audio recall 0.12 [.08, .18] on 150 audio events``."""
    return f"{_subject(rule, card)}{words.label(rule.score)} {_value(rule)}{_on(rule, card)}"


def _value(rule: Rule) -> str:
    """What was measured, never rounded to the bar that it missed; a gap is a difference, in points."""
    value, low, high = rule.estimate
    if rule.score == "unbalanced":
        return f"{_in_points(value)} points {words.points_interval(low, high)}".rstrip()
    return words.estimate(rule.estimate, unlike=rule.bars[0 if rule.level == "bad" else 1])


def _in_points(gap: float) -> str:
    return words.points(gap).lstrip("+")


def headline(level: str, card: Tally, found: Sequence[tuple[Finding, Rule | None]], first: Rule) -> str:
    """The verdict in one line; `first` is the rule that was asked first."""
    worst, rule = next(((found, rule) for found, rule in found if found.level == level), (None, None))
    if level == "good" or worst is None:
        score = first.score if card.kind.ordinal else "accuracy"
        said = f"{words.label(score)} {words.estimate(card.estimate(score))}"
        return f"{level.upper()}: {said} on {_samples(card.support())}, and nothing hides behind it."
    if worst.kind == "accuracy_paradox" and rule is not None:
        overall = words.score(card.score("accuracy"))
        return f"{level.upper()}: {measured(rule, card)}. Overall accuracy {overall} hides it."
    return f"{level.upper()}: {worst.message}."


def partial(level: str, card: Tally) -> str:
    """That the answers which a verdict is about were not counted."""
    there = ", ".join(card.coalitions)
    return f"{level.upper()}: what the model answers with all modalities was not counted, only {there}."


def notes(
    card: Tally,
    gate: QualityGate,
    default: bool,
    level: str,
    firm: bool,
    advice: tuple[Rule, int] | None,
    unknown: bool,
) -> Iterator[str]:
    """Whose bar it is, what guessing would score, what the intervals rest on, and what would settle what is open."""
    if not card.other and (none := card.outside()):
        yield f"{none:,} of {card.support():,} answers ({none / card.support():.1%}) are no class, and count as misses."
    yield _bars(gate, card.kind.ordinal, default)
    if card.support() and not card.judged:
        guess = "always saying no to every label" if card.kind.by_label else "guessing the majority class"
        yield f"For comparison, {guess} would score accuracy {words.score(card.majority('accuracy'))}."
    if cut := _cut(card.info.get("threshold")):
        yield cut
    if not card.layout.R:
        yield "Without bootstrap= only plain proportions have intervals."
    elif not card.layout.replicate_slices:
        yield "Of slices only plain proportions have intervals, as max_bytes= holds no more."
    if not firm:
        state = "Undecided" if level == "undecided" else "Not firm: an interval reaches the next level"
        if advice is not None and advice[1] <= _FAR * max(advice[0].groups or advice[0].support, 1):
            yield f"{state}; about {_more(*advice, card)} would settle it in 8 of 10 new draws."
        elif level != "undecided" and unknown:
            yield "Not firm: not every score has an interval."
        else:
            yield f"{state}; no reasonable number of samples would settle it."
    if card.support():
        groups = card.clusters()
        if groups == 0:
            yield "Samples come in groups, which only bootstrap= can count: there are no intervals."
        elif groups is not None:
            yield f"{_samples(card.support())} in {words.count(groups, 'group')}: intervals count groups."
        elif not card.grouped:
            known = card.info.get("unused_group")
            name = words.clean(known)
            which = f"share {name!r}, which was there, say so with group={name!r}"
            which = "are of one speaker or video, say so with group=" if known is None else which
            yield f"Samples are taken as independent: where several {which}."
    if apart := _answered_apart(card):
        yield apart
    if changed := _seen_though_absent(card):
        yield changed
    if card.judged:
        yield "Only accuracy is judged: the answers are marked right or wrong."


def _cut(threshold: Any) -> str:
    """Where probabilities were cut, and what chose it, in the words of a card that may come from anywhere."""
    match threshold:
        case {"values": [float(), *_] as values, "score": str(score), **more} if all(
            isinstance(value, float) for value in values
        ):
            low, high = (words.score(end) for end in (min(values), max(values)))
            at = f"at {low}" if len(values) == 1 else f"label by label, at {low} to {high}"
            bar = more.get("at_least")
            how = f"reaches {words.score(bar)}" if isinstance(bar, float) else "was best"
            where = words.clean(more["file"]) if "file" in more else f"the validation of epoch {more.get('epoch')}"
            end = ", and these are the same samples: the scores are too good" if more.get("same_samples") else ""
            return f"Probabilities are cut {at}, where {words.label(words.clean(score))} {how} in {where}{end}."
        case {"values": [float(), *_]}:
            return "Probabilities are cut at .5, which was not chosen; what validation chooses is for the test."
    return ""


def _more(rule: Rule, count: int, card: Tally) -> str:
    """So many more of what a rule counts, in two digits."""
    digits = 10 ** max(0, len(str(count)) - 2)
    number = f"{-(-count // digits) * digits:,} more"
    if rule.groups is not None:
        return f"{number} groups"
    if rule.class_name is not None:
        return f"{number} {words.plural(count, 'sample')} of {card.kind.noun} {words.clean(rule.class_name)}"
    if rule.score != "accuracy" and card.kind.positive:
        where = "" if rule.slice == "all" else f"{rule.slice} "
        return f"{number} {where}{words.plural(count, 'event')}"
    which = "like these" if rule.slice == "all" else f"with {rule.slice}"
    return f"{number} {words.plural(count, 'sample')} {which}"


def _answered_apart(card: Tally) -> str:
    """That coalitions answered different samples, and how many they share; nothing where they did not."""
    numbers = card.answered()
    answered = {int(numbers[card.row(name)]) for name in card.coalitions if card.support("all", name)}
    if len(answered) < 2:
        return ""
    shared = card.shared()
    how_many = "" if shared is None else f", and share {shared:,} of {card.support():,}"
    return (
        f"The coalitions did not answer the same samples{how_many}: drops, gains and Shapley values are over "
        "those that both did, where presence tells which, and else are left out."
    )


def _seen_though_absent(card: Tally) -> str:
    """That the model answers otherwise once what presence calls absent is hidden; nothing where it does not."""
    full = card.layout.modalities.name(card.layout.modalities.full)
    changed = sum(card.discordant(card.whole, full)) if full in card.coalitions and card.whole != full else 0
    if not changed:
        return ""
    return (
        f"Of {_samples(card.support())} {changed:,} are right or wrong otherwise once what presence calls absent is "
        "hidden, so the model reads it all the same: drops, gains and Shapley values start from the hidden ones."
    )


def _bars(gate: QualityGate, ordinal: bool, default: bool) -> str:
    """The bars that were given, else the default ones."""
    said = []
    for score in gate.given:
        value = getattr(gate, score)
        above, below = ("below", "above") if score in LOWER_IS_BETTER else ("above", "below")
        for slice in value if isinstance(value, Mapping) else ("",):
            bad, good = gate.bars(score, slice)
            never = "" if math.isinf(bad) else f" and bad {below} {words.score(bad)}"
            said.append(f"{slice} {words.label(score)} good {above} {words.score(good)}{never}".lstrip())
    if said:
        alone = gate.asked(ordinal) == gate.given
        others = "no other score has a bar" if alone else "all others are mm_metrics' default"
        whose = "mm_metrics' default bars" if default else "The bars that were given"
        return f"{whose}: {'; '.join(said)}; {others}."
    accuracy, recall = (tuple(map(words.score, gate.bars(score, "all"))) for score in ("accuracy", "recall"))
    return (
        f"The bar is mm_metrics' default (good above accuracy {accuracy[1]} and recall {recall[1]}, bad below "
        f"{accuracy[0]} and {recall[0]}); set yours with QualityGate(recall={{...: (bad, good)}})."
    )


def unused(name: str, given: Contribution, score: str) -> str:
    """A modality that gives nothing."""
    lost, alone = (words.points_estimate(part, words.per(score)) for part in (given.drop, given.unimodal_gain))
    return (
        f"{name} is not used: on the samples that have it, what is lost without it is {lost} {words.unit(score)}, and "
        f"alone it gives {alone}; is its encoder trained at all?"
    )


def dominant(name: str, shapley: Estimate, total: float, score: str) -> str:
    """A modality that carries nearly all."""
    value, whole = words.points_estimate(shapley, words.per(score)), words.points(total, words.per(score))
    share = f"{name} carries {shapley.value / total:.0%} of what the model knows"
    return f"{share} (Shapley value {value} of {whole} {words.unit(score)}): the others are hardly used"


def memorised(name: str, learned: Estimate, held: Estimate) -> str:
    """A modality whose worth on training samples does not carry over to validation."""
    return (
        f"{name} is memorised: on training samples it gives {words.points_estimate(learned)} points of accuracy, on "
        f"validation samples {words.points_estimate(held)}; look in it for what identifies a sample"
    )


def weak(slice: WeakSlice, score: str) -> str:
    """A slice that is weaker than the whole, on the half of the data that did not propose it."""
    return (
        f"{slice.name} is weak: {words.label(score)} {words.estimate(slice.estimate)} on {_samples(slice.support)}, "
        f"{words.points_estimate(slice.difference)} points against all, on the half of the data that did not propose it"
    )


def leak(row: Mapping[str, Any], where: str) -> str:
    """Samples of a split that an earlier one holds too."""
    (earlier, later), counted = (
        row["splits"],
        words.count(row["count"], "group" if row["kind"] == "group" else "sample"),
    )
    return (
        f"{row['modality']}: {counted} of {later} ({row['share']:.1%}) are shared with {earlier} "
        f"({row['kind'].replace('_', ' ')}), so its scores are too good; see {where}"
    )


def overconfident(name: str, excess: Estimate) -> str:
    """A modality without which the model is surer than right."""
    above = words.points_estimate(excess).lstrip("+")
    return f"without {name} the model is surer than it is right: its confidence is {above} points above its accuracy"


def _samples(number: int) -> str:
    return words.count(number, "sample")


def _subject(rule: Rule, card: Tally) -> str:
    if rule.class_name is not None:
        return f"{card.kind.noun} {rule.class_name!r} "
    return "overall " if rule.slice == "all" else f"{rule.slice} "


def _on(rule: Rule, card: Tally) -> str:
    groups = f" in {words.count(rule.groups, 'group')}" if rule.groups else ""
    if rule.class_name is not None:
        return f" on {_samples(rule.support)} of it{groups}"
    if rule.slice == "all":
        return f" on {_samples(card.support())}{groups}"
    if rule.score == "recall" and card.kind.positive:
        return f" on {words.count(rule.support, f'{rule.slice} event')}{groups}"
    return f" on {_samples(card.support(rule.slice))} with {rule.slice}{groups}"
