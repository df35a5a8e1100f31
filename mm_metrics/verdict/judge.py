"""Scorecard to good, mixed, bad or undecided, with reasons: what accuracy hides, in one sentence.

A rule is a score of the whole, of a modality's slice or of a class against two bars. Its point estimate answers bad,
mixed or good; it answers undecided where its interval reaches from good into bad, or where too little stands behind it.
The first of bad, undecided, mixed, good that any rule gives is the level. It is firm where intervals leave no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from mm_metrics import scores
from mm_metrics.counts.tally import Tally
from mm_metrics.ranking import RANKINGS
from mm_metrics.uncertainty import Estimate, difference_interval, holm, known, least_size, p_below, samples_needed
from mm_metrics.verdict import sentences
from mm_metrics.verdict.explain import explanations
from mm_metrics.verdict.gate import QualityGate
from mm_metrics.verdict.rules import LEVELS, Finding, Need, Rule, Verdict

_OF_CLASSES = ("precision", "recall", "f1")
_CLASSES_ASKED_UP_TO = 20
_WORST_LISTED = 5


def judge(card: Tally, gate: QualityGate, extra: Iterable[Finding] = ()) -> Verdict:
    """The verdict on what was counted; `extra` findings (leakage, what a training run showed) count with their level.

    Raises ValueError where `gate` names a slice, class or score that is not there.
    """
    gate.check_names(card.slices, card.names)
    for score in gate.scores:
        card.named(score)  # which refuses one that the counts do not tell
    extra = list(extra)
    if card.partial:
        level = min(("undecided", *(finding.level for finding in extra)), key=LEVELS.index)
        return Verdict(level, False, tuple(extra), sentences.partial(level, card), ())
    default = not gate.given
    if default and card.kind.ordinal and {"acc2", "f1_acc2"} <= set(card.further):  # the best hit few of seven classes
        gate = replace(gate, acc2=gate.accuracy, f1_acc2=gate.f1)
    asked = gate
    rules, listed = _rules(card, asked)
    if gate.family_wise:
        asked = replace(gate, confidence=1 - (1 - gate.confidence) / max(len(rules), 1))
        rules, listed = _rules(card, asked)
    level = min((*(rule.level for rule in rules), *(finding.level for finding in extra)), key=LEVELS.index)
    found: list[tuple[Finding, Rule | None]] = [
        (_finding(rule, card, gate), rule) for rule in (*rules, *listed) if rule.level != "good"
    ]
    found += [(finding, None) for finding in extra]
    found.sort(key=lambda pair: (LEVELS.index(pair[0].level), pair[0].kind != "accuracy_paradox"))
    known = {(finding.kind, finding.modality) for finding in extra}
    found += [(f, None) for f in explanations(card, asked) if (f.kind, f.modality) not in known]
    firm = _firm(level, rules, extra)
    advice = None if firm else _advice(level, rules, asked)
    return Verdict(
        level,
        firm,
        tuple(finding for finding, _ in found),
        sentences.headline(level, card, found, rules[0]),
        tuple(sentences.notes(card, gate, default, level, firm, advice, any(not rule.known for rule in rules))),
    )


def _rules(card: Tally, gate: QualityGate) -> tuple[list[Rule], list[Rule]]:
    """Rules that set the level, and rules that are only listed."""
    asked = [score for score in gate.asked(card.kind.ordinal) if card.knows(score)]
    rules = [rule for slice in _distinct_slices(card, gate, asked) for rule in _slice_rules(card, gate, asked, slice)]
    of_classes, listed = _class_rules(card, gate, [score for score in asked if score in _OF_CLASSES])
    return rules + of_classes, listed


def _distinct_slices(card: Tally, gate: QualityGate, asked: Sequence[str]) -> Iterator[str]:
    """The whole, and every slice that is not the same samples under the same bars as one before.

    A column's value of few samples, as ``language/other`` may be, is asked about only where it has a bar of its own.
    """
    seen: list[list[object]] = []
    for slice in card.slices:
        if "/" in slice and not gate.names(slice) and card.support(slice) < gate.min_support:
            continue
        question: list[object] = [part.tolist() for part in card.sums(None, slice)]
        question += [
            (gate.bars(score, slice), score in card.further and card.score(score, slice=slice)) for score in asked
        ]
        if question not in seen:
            seen.append(question)
            yield slice


def _slice_rules(card: Tally, gate: QualityGate, asked: Sequence[str], slice: str) -> Iterator[Rule]:
    support, groups = card.support(slice), card.clusters(slice)
    behind = Need(support, gate.min_support) if groups is None else Need(groups, gate.min_support, "groups")
    needs = dict.fromkeys((*asked, "unbalanced"), behind)
    counts = dict.fromkeys(needs, support)
    if card.kind.positive and not behind.thin and not card.judged:
        hits, predicted, actual = (int(part[0, 1]) for part in card.sums(None, slice))
        needs["recall"] = Need(actual, gate.min_positives, "events")
        needs["precision"] = Need(predicted, gate.min_positives, "positive answers")
        needs["f1"] = Need(actual + predicted - hits, gate.min_positives, "events and positive answers")
        needs["unbalanced"] = min(needs["recall"], needs["precision"])
        needs |= dict.fromkeys(RANKINGS, needs["recall"])
        counts = {score: actual if score in (*_OF_CLASSES, *RANKINGS, "unbalanced") else support for score in counts}
    for score in asked:
        bars = gate.bars(score, slice)
        if math.isnan(bars[1]) or (score == "accuracy" and card.kind.by_label):
            continue  # labels are mostly zeros: always saying no scores well
        estimate = card.estimate(score, slice=slice, confidence=gate.confidence)
        yield Rule(score, slice, None, estimate, bars, counts[score], needs[score], groups)
    if "recall" in asked:
        gap = _gaps(card, gate, slice, "default")[0]
        yield Rule(
            "unbalanced", slice, None, gap, (gate.gap, gate.gap), counts["unbalanced"], needs["unbalanced"], groups
        )


def _gaps(card: Tally, gate: QualityGate, slice: str, average: str) -> list[Estimate]:
    """How far precision and recall lie apart, of the whole or of each class, with the replicates' interval."""
    both, sums = ("precision", "recall"), card.sums(None, slice)
    behind = [scores.behind(score, sums, card.kind, average) for score in both]
    values = [scores.score(score, sums, card.kind, average).flatten() for score in both]  # (C,), of the whole (1,)
    gap = (values[0] - values[1]).abs()
    first, second = (known(card.replicate_scores(score, None, slice, average), gap) for score in both)
    total = torch.stack([least_size(part.weights, part.sizes).flatten() for part in behind]).amin(0)
    spread = (first - second).reshape(-1, len(gap))  # (R, C)
    low, high = difference_interval(gap, spread, total, gate.confidence, card.clusters(slice))
    ends = torch.stack([gap, low.clamp(min=0), high.clamp(max=1)], dim=1)
    return [Estimate(*row) for row in ends.tolist()]


def _class_rules(card: Tally, gate: QualityGate, asked: Sequence[str]) -> tuple[list[Rule], list[Rule]]:
    """Rules that set the level, and rules that are only listed."""
    if card.kind.positive or not asked:  # the whole is the positive class
        return [], []
    hits, predicted, actual = ((part[:, 1] if card.kind.by_label else part[0]).tolist() for part in card.sums())
    groups, critical = card.clusters(), set(map(str, gate.critical))
    behind = Need(card.support(), gate.min_support) if groups is None else Need(groups, gate.min_support, "groups")
    estimates = {score: list(card.class_estimates(score, confidence=gate.confidence).values()) for score in asked}
    if "recall" in asked:
        estimates["unbalanced"] = _gaps(card, gate, "all", "none")
    bars = {score: gate.bars(score, "all") for score in asked} | {"unbalanced": (gate.gap, gate.gap)}
    rules: dict[str, list[Rule]] = {}
    for c, name in enumerate(card.names):
        if not actual[c] and name not in critical:  # its false alarms are misses of the others
            continue
        needs = {
            "recall": Need(actual[c], gate.min_positives, "samples of it"),
            "precision": Need(predicted[c], gate.min_positives, "answers of it"),
            "f1": Need(actual[c] + predicted[c] - hits[c], gate.min_positives, "samples and answers of it"),
        }
        needs["unbalanced"] = min(needs["recall"], needs["precision"])
        rules[name] = [
            Rule(score, "all", name, values[c], bars[score], actual[c], behind if behind.thin else needs[score], groups)
            for score, values in estimates.items()
        ]
    if len(card.names) <= _CLASSES_ASKED_UP_TO:
        return [rule for group in rules.values() for rule in group], []
    recalls = {name: rule for name, group in rules.items() for rule in group if rule.score == "recall"}
    worst = sorted(recalls, key=lambda name: recalls[name].estimate.value)
    sure = _surely_bad([rule for rule in recalls.values() if not rule.behind.thin], gate)
    deciding = [rule for name in rules if name in critical for rule in rules[name]]
    deciding += [recalls[name] for name in sure if name not in critical]
    return deciding, [recalls[name] for name in worst[:_WORST_LISTED] if name not in {*critical, *sure}]


def _surely_bad(recalls: Sequence[Rule], gate: QualityGate) -> list[str]:
    """Classes whose recall is surely below the bad bar, adjusted by Holm for how many are asked."""
    adjusted = holm([p_below(rule.estimate, rule.bars[0], gate.confidence) for rule in recalls])
    return [str(rule.class_name) for rule, p in zip(recalls, adjusted, strict=True) if p < 1 - gate.confidence]


def _finding(rule: Rule, card: Tally, gate: QualityGate) -> Finding:
    level, (bad, good) = rule.level, rule.bars
    hidden = rule.score == "recall" and level == "bad" and (rule.slice != "all" or rule.class_name is not None)
    paradox = hidden and not card.kind.by_label and card.score("accuracy") > gate.bars("accuracy", "all")[1]
    kind = "accuracy_paradox" if paradox else "unbalanced" if rule.score == "unbalanced" else f"low_{rule.score}"
    threshold = bad if level == "bad" else good
    message = sentences.finding(rule, card, paradox)
    return Finding(kind, rule.slice, rule.score, *rule.estimate, threshold, message, level, rule.class_name)


def _firm(level: str, rules: Sequence[Rule], extra: Sequence[Finding]) -> bool:
    """Whether every value in the intervals would give the level; what has no interval is sure of nothing."""
    fixed = [finding.level for finding in extra]
    if level == "undecided":
        return False
    if level == "bad":
        return "bad" in fixed or any(rule.surely("bad") for rule in rules)
    none_worse = all(rule.known and "bad" not in rule.ends for rule in rules)
    if level == "mixed":
        return none_worse and ("mixed" in fixed or any(rule.surely("mixed") for rule in rules))
    return all(rule.surely("good") for rule in rules)


def _advice(level: str, rules: Sequence[Rule], gate: QualityGate) -> tuple[Rule, int] | None:
    """The rule that keeps the level open, and how many more of what it counts would settle it in 8 of 10 new draws.

    One surely bad rule is enough, so of bad ones the one that is settled soonest; else the one that is settled last.
    """
    answers = [rule for rule in rules if rule.level == level]
    if level == "bad":
        wanted, best = answers, min
    elif level == "undecided":
        wanted, best = answers, max
    else:
        wanted, best = [rule for rule in rules if rule.known and "bad" in rule.ends], max
        if not wanted and level == "mixed":
            wanted, best = answers, min
        wanted = wanted or list(rules)
    needed = [(rule, _times(rule, gate)) for rule in wanted if not rule.surely(level)]
    settled = [(rule, times) for rule, times in needed if times is not None]
    if not settled or (best is max and len(settled) < len(needed)):
        return None
    rule, times = best(settled, key=lambda pair: pair[1])
    return rule, max(1, math.ceil((times - 1) * (rule.support if rule.groups is None else rule.groups)))


def _times(rule: Rule, gate: QualityGate) -> float | None:
    """How many times what stands behind a rule it would take to settle it; None where that can't be told."""
    if rule.behind.thin:
        return rule.behind.need / rule.behind.have if rule.behind.have else None
    value, low, high = rule.estimate
    have = 10**6  # in units fine enough that rounding up is none
    needs = [samples_needed(value, low, high, bar, have, gate.confidence) for bar in rule.bars if low <= bar <= high]
    if not needs or None in needs:
        return None
    return max(need for need in needs if need is not None) / have
