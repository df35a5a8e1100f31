"""Scorecard to good, mixed, bad or undecided, with reasons: what accuracy hides, in one sentence.

A rule is a score of the whole, of a modality's slice or of a class against two bars. Its point estimate answers bad,
mixed or good; it answers undecided where its interval reaches from good into bad, or where too few samples stand
behind it. The first of bad, undecided, mixed, good that any rule gives is the level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mm_metrics import wording
from mm_metrics.rules import LEVELS, Bars, Rule
from mm_metrics.scorecard import Estimate, Scorecard
from mm_metrics.uncertainty import samples_needed, score_interval, wilson

_CLASSES_ASKED_UP_TO = 20
_WORST_LISTED = 5
_FAR = 100  # times the samples that there are: no advice

Threshold = float | Bars | Mapping[str, float | Bars]


class Finding(NamedTuple):
    """One thing that the verdict found; `modality` is a slice's name, "all" for the whole."""

    kind: str
    modality: str
    score: str
    value: float
    low: float
    high: float
    threshold: float
    message: str
    level: str = "mixed"
    class_name: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a scorecard.

    `level` is good, mixed, bad or undecided; `firm` is False where an interval reaches the next level; `findings` come
    worst first; `headline` is one sentence and `notes` say whose bar it is and what guessing would score.
    """

    level: str
    firm: bool
    findings: tuple[Finding, ...]
    headline: str
    notes: tuple[str, ...]

    @property
    def number(self) -> int:
        """2 good, 1 mixed, 0 bad, -1 undecided, as ``{stage}/verdict`` logs it."""
        return {"good": 2, "mixed": 1, "bad": 0, "undecided": -1}[self.level]

    def __str__(self) -> str:
        lines = [self.headline, *(f"- {finding.message}" for finding in self.findings), *self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class QualityGate:
    """The bars a scorecard is held to. Thresholds are fractions, ``(bad, good)``; one number is the good bar.

    Each of `accuracy`, `precision`, `recall` and `f1` may be a mapping by modality (or ``"all"``), with the default
    for what it leaves out. No threshold adapts itself. The defaults are the project's own; they suit no task in
    particular. Raises ValueError for thresholds out of 0…1 or in the wrong order.

    >>> from mm_metrics import ModalityConfusionMatrix
    >>> import torch
    >>> metric = ModalityConfusionMatrix(("text",), task="binary")
    >>> target = torch.tensor([1] * 100 + [0] * 100)
    >>> metric.update(torch.tensor([1] * 85 + [0] * 15 + [1] * 10 + [0] * 90), target)
    >>> verdict = metric.scorecard().verdict()
    >>> verdict.level, verdict.firm
    ('good', False)
    >>> metric.scorecard().verdict(QualityGate(recall={"text": (0.9, 0.95)})).level
    'bad'
    """

    accuracy: Threshold = (0.70, 0.85)
    precision: Threshold = (0.50, 0.80)
    recall: Threshold = (0.50, 0.80)
    f1: Threshold = (0.0, 0.80)
    gap: float = 0.30
    min_support: int = 30
    min_positives: int = 10
    critical: Sequence[str] = ()
    unused: float = 0.02
    dominant: float = 0.80
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Check every threshold."""
        for score in ("accuracy", "precision", "recall", "f1"):
            value = getattr(self, score)
            for name, entry in value.items() if isinstance(value, Mapping) else [("all", value)]:
                bad, good = _bars(entry, _default(score))
                if not (0 <= bad <= good <= 1):
                    raise ValueError(f"{score}={entry!r} for {name!r}: expected (bad, good) with 0 <= bad <= good <= 1")
        for name in ("gap", "unused", "dominant"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a fraction in 0…1")

    def bars(self, score: str, slice: str) -> Bars:
        """``(bad, good)`` of a score on a slice."""
        value = getattr(self, score)
        if isinstance(value, Mapping):
            value = value.get(slice, _default(score))
        return _bars(value, _default(score))

    def judge(self, card: Scorecard, extra: Iterable[Finding] = ()) -> Verdict:
        """The verdict on a scorecard; `extra` findings (leakage, what a training run showed) count with their level."""
        self._check_names(card)
        rules = [rule for slice in self._distinct_slices(card) for rule in self._of_slice(card, slice)]
        class_rules, listed = self._of_classes(card)
        rules += class_rules
        extra = list(extra)
        level = min((*(rule.level for rule in rules), *(finding.level for finding in extra)), key=LEVELS.index)
        findings = [self._finding(rule, card) for rule in rules if rule.level != "good"]
        findings += [self._finding(rule, card) for rule in listed if rule.level != "good"] + extra
        findings.sort(key=lambda finding: (LEVELS.index(finding.level), finding.kind != "accuracy_paradox"))
        said = {(finding.kind, finding.modality) for finding in extra}
        findings += [found for found in self._of_modalities(card) if (found.kind, found.modality) not in said]
        firm = self._firm(level, rules, extra)
        return Verdict(
            level,
            firm,
            tuple(findings),
            wording.headline(level, card, findings),
            tuple(self._notes(card, level, firm, rules)),
        )

    def _check_names(self, card: Scorecard) -> None:
        for score in ("accuracy", "precision", "recall", "f1"):
            value = getattr(self, score)
            unknown = set(value) - set(card.slices) if isinstance(value, Mapping) else set()
            if unknown:
                raise ValueError(f"{score} has bars for {sorted(unknown)}, the scorecard's slices are {card.slices}")
        unknown = set(map(str, self.critical)) - set(card.names)
        if unknown:
            raise ValueError(f"critical names {sorted(unknown)}, the scorecard's classes are {card.names[:20]}")

    def _distinct_slices(self, card: Scorecard) -> Iterator[str]:
        """The whole, and every modality's slice that is not the same samples under the same bars as one before."""
        seen: list[list[object]] = []
        for slice in card.slices:
            question: list[object] = [part.tolist() for part in card._sums(None, slice)]
            question += [self.bars(score, slice) for score in ("accuracy", "precision", "recall", "f1")]
            if question not in seen:
                seen.append(question)
                yield slice

    def _of_slice(self, card: Scorecard, slice: str) -> Iterator[Rule]:
        support = card.support(slice)
        thin = f"{support} of {self.min_support} samples" if support < self.min_support else ""
        values = {}
        for score in ("accuracy", "precision", "recall", "f1"):
            estimate = card.estimate(score, slice=slice, confidence=self.confidence)
            values[score] = estimate.value
            if score == "accuracy" and card.task == "multilabel":
                continue  # mostly zeros: always saying no scores well
            too_few = thin
            if score == "recall" and card.task == "binary" and not thin:
                positives = wording.events(card, slice)
                too_few = f"{positives} of {self.min_positives} events" if positives < self.min_positives else ""
            yield Rule(score, slice, None, estimate, self.bars(score, slice), support, too_few)
        yield self._balance(values, slice, None, support, thin)

    def _balance(self, values: dict[str, float], slice: str, class_name: str | None, support: int, thin: str) -> Rule:
        gap = abs(values["precision"] - values["recall"])
        return Rule(
            "unbalanced", slice, class_name, Estimate(gap, math.nan, math.nan), (self.gap, self.gap), support, thin
        )

    def _of_classes(self, card: Scorecard) -> tuple[list[Rule], list[Rule]]:
        """Rules that set the level, and rules that are only listed."""
        if card.task == "binary":  # the whole is the positive class
            return [], []
        sums = card._sums(None, "all")
        if card.task == "multilabel":
            hits, predicted, actual = (part[:, 1].tolist() for part in sums)
        else:
            hits, predicted, actual = (part[0].tolist() for part in sums)
        support = card.support()
        thin = f"{support} of {self.min_support} samples" if support < self.min_support else ""
        f1 = card.replicate_scores("f1", average="none")
        rules: dict[str, list[Rule]] = {}
        for c, name in enumerate(card.names):
            if not predicted[c] and not actual[c]:
                continue
            few = f"{actual[c]} of {self.min_positives} samples" if actual[c] < self.min_positives else ""
            ratios = {"precision": (hits[c], predicted[c]), "recall": (hits[c], actual[c])}
            estimates = {
                score: Estimate(part / whole if whole else 0.0, *map(float, wilson(part, whole, self.confidence)))
                for score, (part, whole) in ratios.items()
            }
            value = 2 * hits[c] / (predicted[c] + actual[c])
            bounds = (math.nan, math.nan)
            if f1 is not None:
                low, high = score_interval(value, f1[:, c], actual[c] or 1, self.confidence)
                bounds = (float(low), float(high))
            estimates["f1"] = Estimate(value, *bounds)
            rules[name] = [
                Rule(score, "all", name, estimate, self.bars(score, "all"), actual[c], thin or few)
                for score, estimate in estimates.items()
            ]
            values = {score: estimate.value for score, estimate in estimates.items()}
            rules[name].append(self._balance(values, "all", name, actual[c], thin or few))
        if len(card.names) <= _CLASSES_ASKED_UP_TO:
            return [rule for group in rules.values() for rule in group], []
        recalls = {name: group[1] for name, group in rules.items() if actual[card.names.index(name)]}
        worst = sorted(recalls, key=lambda name: recalls[name].estimate.value)
        sure = self._surely_bad({name: (hits[c], actual[c]) for c, name in enumerate(card.names) if name in recalls})
        setting = {*map(str, self.critical), *sure}
        asked = [rule for name in rules if name in map(str, self.critical) for rule in rules[name]]
        asked += [recalls[name] for name in sure if name not in map(str, self.critical)]
        return asked, [recalls[name] for name in worst[:_WORST_LISTED] if name not in setting]

    def _surely_bad(self, recalls: dict[str, tuple[int, int]]) -> list[str]:
        """Classes whose recall's upper bound stays below the bad bar, adjusted by Holm for how many are asked."""
        bad, _ = self.bars("recall", "all")
        enough = {name: counts for name, counts in recalls.items() if counts[1] >= self.min_positives}
        order = sorted(enough, key=lambda name: float(wilson(*enough[name], self.confidence)[1]))
        sure = []
        for rank, name in enumerate(order):
            adjusted = 1 - (1 - self.confidence) / (len(order) - rank)
            if float(wilson(*enough[name], adjusted)[1]) >= bad:
                break
            sure.append(name)
        return sure

    def _of_modalities(self, card: Scorecard) -> Iterator[Finding]:
        """What the contributions say; it explains a level and sets none."""
        if len(card.modalities) < 2 or len(card.coalitions) < 2 or not card.layout.R:
            return
        for name in card.modalities:
            own = card.contributions("f1", slice=name, confidence=self.confidence)[name]
            bounds = (own.drop.low, own.drop.high, own.unimodal_gain.low, own.unimodal_gain.high)
            if all(-self.unused <= bound <= self.unused for bound in bounds):
                yield Finding(
                    "unused_modality", name, "f1", *own.drop, self.unused,
                    f"{name} is not used: without it F1 loses {wording.points(own.drop)} points on the samples that "
                    f"have it, and alone it gives {wording.points(own.unimodal_gain)}; is its encoder trained at all?",
                )  # fmt: skip
        shares = card.contributions("f1", confidence=self.confidence)
        total = sum(share.shapley.value for share in shares.values())
        for name, share in shares.items():
            if total > self.unused and share.shapley.low > self.dominant * total:
                yield Finding(
                    "dominant_modality", name, "f1", *share.shapley, self.dominant * total,
                    f"{name} carries {share.shapley.value / total:.0%} of what the model knows (Shapley value "
                    f"{wording.points(share.shapley)} of {100 * total:.0f} points of F1): the others are hardly used",
                )  # fmt: skip

    def _finding(self, rule: Rule, card: Scorecard) -> Finding:
        level, (bad, good) = rule.level, rule.bars
        paradox = (
            rule.score == "recall" and level == "bad" and (rule.slice != "all" or rule.class_name is not None)
            and card.task != "multilabel" and card.score("accuracy") > self.bars("accuracy", "all")[1]
        )  # fmt: skip
        kind = "accuracy_paradox" if paradox else "unbalanced" if rule.score == "unbalanced" else f"low_{rule.score}"
        threshold = bad if level == "bad" else good
        message = wording.finding(rule, card, paradox)
        return Finding(kind, rule.slice, rule.score, *rule.estimate, threshold, message, level, rule.class_name)

    def _firm(self, level: str, rules: list[Rule], extra: list[Finding]) -> bool:
        if level == "undecided":
            return False
        fixed = [finding.level for finding in extra]
        worst = min((*(rule.worst for rule in rules if not rule.thin), *fixed), key=LEVELS.index, default=level)
        best = min((*(rule.best for rule in rules if not rule.thin), *fixed), key=LEVELS.index, default=level)
        return worst == best == level

    def _notes(self, card: Scorecard, level: str, firm: bool, rules: list[Rule]) -> Iterator[str]:
        default = self == QualityGate()
        whose = "mm_metrics' default" if default else "the one that was given"
        accuracy, recall = self.bars("accuracy", "all"), self.bars("recall", "all")
        yield (
            f"The bar is {whose} (good above accuracy {accuracy[1]:.2f} and recall {recall[1]:.2f}, bad below "
            f"{accuracy[0]:.2f} and {recall[0]:.2f}); set yours with QualityGate(recall={{...: (bad, good)}})."
        )
        guess = "always saying no to every label" if card.task == "multilabel" else "guessing the majority class"
        if card.support():
            yield f"For comparison, {guess} would score accuracy {card.majority('accuracy'):.2f}."
        if not card.layout.R:
            yield "Without bootstrap= only plain proportions have intervals."
        if level != "undecided" and firm:
            return
        needed = [needs for rule in rules if (needs := _needed(rule, self)) is not None]
        state = "Undecided" if level == "undecided" else "Not firm: an interval reaches the next level"
        if needed and max(needed) <= _FAR * max(card.support(), 1):
            yield f"{state}; about {max(needed):,} samples like these would settle it."
        else:
            yield f"{state}; a value lies almost on its bar, and no number of samples that is at hand settles that."


def _needed(rule: Rule, gate: QualityGate) -> int | None:
    """Samples of the rule's slice that would settle it; None where it is settled, or can't be."""
    value, low, high = rule.estimate
    if rule.thin:
        have, want = (int(word) for word in rule.thin.split()[:3:2])
        return math.ceil(rule.support * want / have) if have else max(want, gate.min_support)
    needs = [samples_needed(value, low, high, bar, rule.support) for bar in rule.bars if low <= bar <= high]
    return max((need for need in needs if need is not None), default=None)


def _default(score: str) -> Any:
    return QualityGate.__dataclass_fields__[score].default


def _bars(value: Any, default: Bars) -> Bars:
    """``(bad, good)`` from a pair, or from the good bar alone, which the default's bad bar never exceeds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(default[0], float(value)), float(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return float(value[0]), float(value[1])
    raise ValueError(f"threshold {value!r}: expected a fraction, or a pair (bad, good)")
