"""Scorecard to good, mixed, bad or undecided, with reasons: what accuracy hides, in one sentence.

A rule is a score of the whole, of a modality's slice or of a class against two bars. Its point estimate answers bad,
mixed or good; it answers undecided where its interval reaches from good into bad, or where too few samples stand
behind it. The first of bad, undecided, mixed, good that any rule gives is the level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from mm_metrics.counts.tally import Tally
from mm_metrics.uncertainty import Estimate, samples_needed, score_interval, wilson
from mm_metrics.verdict import sentences
from mm_metrics.verdict.gate import SCORES, QualityGate
from mm_metrics.verdict.rules import LEVELS, Finding, Need, Rule, Verdict

_CLASSES_ASKED_UP_TO = 20
_WORST_LISTED = 5


def judge(card: Tally, gate: QualityGate, extra: Iterable[Finding] = ()) -> Verdict:
    """The verdict on what was counted; `extra` findings (leakage, what a training run showed) count with their level.

    Raises ValueError where `gate` names a slice or class that is not there.
    """
    gate.check_names(card.slices, card.names)
    rules = [rule for slice in _distinct_slices(card, gate) for rule in _slice_rules(card, gate, slice)]
    class_rules, listed = _class_rules(card, gate)
    rules += class_rules
    extra = list(extra)
    level = min((*(rule.level for rule in rules), *(finding.level for finding in extra)), key=LEVELS.index)
    found: list[tuple[Finding, Rule | None]] = [
        (_finding(rule, card, gate), rule) for rule in (*rules, *listed) if rule.level != "good"
    ]
    found += [(finding, None) for finding in extra]
    found.sort(key=lambda pair: (LEVELS.index(pair[0].level), pair[0].kind != "accuracy_paradox"))
    known = {(finding.kind, finding.modality) for finding in extra}
    found += [(f, None) for f in _modality_findings(card, gate) if (f.kind, f.modality) not in known]
    firm = _firm(level, rules, extra)
    return Verdict(
        level,
        firm,
        tuple(finding for finding, _ in found),
        sentences.headline(level, card, found),
        tuple(sentences.notes(card, gate, level, firm, [_needed(rule, gate) for rule in rules])),
    )


def _distinct_slices(card: Tally, gate: QualityGate) -> Iterator[str]:
    """The whole, and every modality's slice that is not the same samples under the same bars as one before."""
    seen: list[list[object]] = []
    for slice in card.slices:
        question: list[object] = [part.tolist() for part in card.sums(None, slice)]
        question += [gate.bars(score, slice) for score in SCORES]
        if question not in seen:
            seen.append(question)
            yield slice


def _slice_rules(card: Tally, gate: QualityGate, slice: str) -> Iterator[Rule]:
    support = card.support(slice)
    behind = Need(support, gate.min_support)
    values = {}
    for score in filter(card.knows, SCORES):
        estimate = card.estimate(score, slice=slice, confidence=gate.confidence)
        values[score] = estimate.value
        if score == "accuracy" and card.kind.by_label:
            continue  # mostly zeros: always saying no scores well
        events = score == "recall" and card.kind.positive and not behind.thin
        what = Need(card.positives(slice), gate.min_positives, "events") if events else behind
        yield Rule(score, slice, None, estimate, gate.bars(score, slice), support, what)
    if "precision" in values:
        yield _balance(values, gate, slice, None, support, behind)


def _balance(
    values: dict[str, float], gate: QualityGate, slice: str, class_name: str | None, support: int, behind: Need
) -> Rule:
    gap = Estimate(abs(values["precision"] - values["recall"]), math.nan, math.nan)
    return Rule("unbalanced", slice, class_name, gap, (gate.gap, gate.gap), support, behind)


def _class_rules(card: Tally, gate: QualityGate) -> tuple[list[Rule], list[Rule]]:
    """Rules that set the level, and rules that are only listed."""
    if card.kind.positive or not card.knows("recall"):  # the whole is the positive class
        return [], []
    sums = card.sums()
    hits, predicted, actual = ((part[:, 1] if card.kind.by_label else part[0]).tolist() for part in sums)
    behind = Need(card.support(), gate.min_support)
    f1 = card.replicate_scores("f1", average="none")
    rules: dict[str, list[Rule]] = {}
    for c, name in enumerate(card.names):
        if not predicted[c] and not actual[c]:
            continue
        what = behind if behind.thin else Need(actual[c], gate.min_positives)
        ratios = {"precision": (hits[c], predicted[c]), "recall": (hits[c], actual[c])}
        estimates = {
            score: Estimate(part / whole if whole else 0.0, *map(float, wilson(part, whole, gate.confidence)))
            for score, (part, whole) in ratios.items()
        }
        value = 2 * hits[c] / (predicted[c] + actual[c])
        bounds = (math.nan, math.nan)
        if f1 is not None:
            low, high = score_interval(value, f1[:, c], actual[c] or 1, gate.confidence)
            bounds = (float(low), float(high))
        estimates["f1"] = Estimate(value, *bounds)
        rules[name] = [
            Rule(score, "all", name, estimate, gate.bars(score, "all"), actual[c], what)
            for score, estimate in estimates.items()
        ]
        values = {score: estimate.value for score, estimate in estimates.items()}
        rules[name].append(_balance(values, gate, "all", name, actual[c], what))
    if len(card.names) <= _CLASSES_ASKED_UP_TO:
        return [rule for group in rules.values() for rule in group], []
    recalls = {name: group[1] for name, group in rules.items() if actual[card.names.index(name)]}
    worst = sorted(recalls, key=lambda name: recalls[name].estimate.value)
    sure = _surely_bad({name: (hits[c], actual[c]) for c, name in enumerate(card.names) if name in recalls}, gate)
    critical = set(map(str, gate.critical))
    asked = [rule for name in rules if name in critical for rule in rules[name]]
    asked += [recalls[name] for name in sure if name not in critical]
    return asked, [recalls[name] for name in worst[:_WORST_LISTED] if name not in {*critical, *sure}]


def _surely_bad(recalls: dict[str, tuple[int, int]], gate: QualityGate) -> list[str]:
    """Classes whose recall's upper bound stays below the bad bar, adjusted by Holm for how many are asked."""
    bad, _ = gate.bars("recall", "all")
    enough = {name: counts for name, counts in recalls.items() if counts[1] >= gate.min_positives}
    order = sorted(enough, key=lambda name: float(wilson(*enough[name], gate.confidence)[1]))
    sure = []
    for rank, name in enumerate(order):
        adjusted = 1 - (1 - gate.confidence) / (len(order) - rank)
        if float(wilson(*enough[name], adjusted)[1]) >= bad:
            break
        sure.append(name)
    return sure


def _modality_findings(card: Tally, gate: QualityGate) -> Iterator[Finding]:
    """What the contributions say; it explains a level and sets none."""
    if len(card.modalities) < 2 or len(card.coalitions) < 2 or not card.layout.R or not card.knows("f1"):
        return
    for name in card.modalities:
        own = card.contributions("f1", slice=name, confidence=gate.confidence)[name]
        bounds = (own.drop.low, own.drop.high, own.unimodal_gain.low, own.unimodal_gain.high)
        if all(-gate.unused <= bound <= gate.unused for bound in bounds):
            message = sentences.unused(name, own)
            yield Finding("unused_modality", name, "f1", *own.drop, gate.unused, message)
    shares = card.contributions("f1", confidence=gate.confidence)
    total = sum(share.shapley.value for share in shares.values())
    for name, share in shares.items():
        if total > gate.unused and share.shapley.low > gate.dominant * total:
            message = sentences.dominant(name, share.shapley, total)
            yield Finding("dominant_modality", name, "f1", *share.shapley, gate.dominant * total, message)


def _finding(rule: Rule, card: Tally, gate: QualityGate) -> Finding:
    level, (bad, good) = rule.level, rule.bars
    hidden = rule.score == "recall" and level == "bad" and (rule.slice != "all" or rule.class_name is not None)
    paradox = hidden and not card.kind.by_label and card.score("accuracy") > gate.bars("accuracy", "all")[1]
    kind = "accuracy_paradox" if paradox else "unbalanced" if rule.score == "unbalanced" else f"low_{rule.score}"
    threshold = bad if level == "bad" else good
    message = sentences.finding(rule, card, paradox)
    return Finding(kind, rule.slice, rule.score, *rule.estimate, threshold, message, level, rule.class_name)


def _firm(level: str, rules: list[Rule], extra: list[Finding]) -> bool:
    if level == "undecided":
        return False
    fixed = [finding.level for finding in extra]
    worst = min((*(rule.worst for rule in rules if not rule.behind.thin), *fixed), key=LEVELS.index, default=level)
    best = min((*(rule.best for rule in rules if not rule.behind.thin), *fixed), key=LEVELS.index, default=level)
    return worst == best == level


def _needed(rule: Rule, gate: QualityGate) -> int | None:
    """Samples of the rule's slice that would settle it; None where it is settled, or can't be."""
    value, low, high = rule.estimate
    if rule.behind.thin:
        have, need, _ = rule.behind
        return math.ceil(rule.support * need / have) if have else max(need, gate.min_support)
    needs = [samples_needed(value, low, high, bar, rule.support) for bar in rule.bars if low <= bar <= high]
    return max((need for need in needs if need is not None), default=None)
