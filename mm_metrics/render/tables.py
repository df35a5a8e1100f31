"""A tally's numbers as tables, each asked of it once: what console, pictures, page and loggers are handed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm_metrics import contributions, scores, words
from mm_metrics.counts.layout import OTHER_VALUE
from mm_metrics.counts.tally import Tally
from mm_metrics.render import confusion
from mm_metrics.render.confusion import Cells
from mm_metrics.render.curves import Curve
from mm_metrics.uncertainty import Contribution
from mm_metrics.verdict import Finding, QualityGate, Verdict
from mm_metrics.verdict.judge import judge

SCORES = ("accuracy", "precision", "recall", "f1")
ORDINAL = ("mae", "pearson", "acc2", "f1_acc2", "ccc", "rmse")
COALITIONS_SHOWN = 16
WORST = 20  # classes listed


class Number(NamedTuple):
    """A value with its interval: a score, or a difference that is said `per` 1, in points or its own unit."""

    value: float
    low: float = math.nan
    high: float = math.nan
    per: int = 0  # 0 of a score

    @property
    def text(self) -> str:
        """The value as it is said."""
        return words.points(self.value, self.per) if self.per else words.score(self.value)

    @property
    def interval(self) -> str:
        """The interval as it is said; empty where there is none."""
        return words.points_interval(*self[1:]) if self.per else words.interval(self.low, self.high)


class Table(NamedTuple):
    """Column names and rows of cells (`Number`, int or str); the first column names the row."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def only(self, kept: Sequence[int]) -> Table:
        """Of some columns."""
        return Table(tuple(self.columns[i] for i in kept), [tuple(row[i] for i in kept) for row in self.rows])

    @property
    def filled(self) -> Table:
        """Without the columns that hold no number in any row; all of them where none does."""
        empty = {i for row in self.rows for i in range(len(row)) if all(map(_absent, (row[i] for row in self.rows)))}
        kept = [i for i in range(len(self.columns)) if i not in empty]
        return self.only(kept) if 1 < len(kept) < len(self.columns) else self


def _absent(cell: Any) -> bool:
    return isinstance(cell, Number) and not math.isfinite(cell.value)


class Tables:
    """What is shown of one tally: made once, filled as it is read, and handed from one reader to the next.

    `verdict` is the default gate's unless given; `samples` are what to look at next, as the monitor gathers them;
    `name` is the stage's, where several are shown.

    >>> from mm_metrics import ModalityConfusionMatrix
    >>> metric = ModalityConfusionMatrix(("text",), num_classes=2)
    >>> metric.update(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 1]))
    >>> Tables(metric.scorecard()).scores.rows[0][:2]
    ('all', 3)
    """

    def __init__(
        self, card: Tally, verdict: Verdict | None = None, samples: Iterable[Mapping[str, Any]] = (), name: str = ""
    ) -> None:
        self.card, self.name, self.samples = card, words.clean(name), [dict(entry) for entry in samples]
        self.modalities, self.names, self.kind = card.modalities, card.names, card.kind
        empty = f"/{OTHER_VALUE}"  # as where all values of a column are named
        self.slices = tuple(s for s in card.slices if not s.endswith(empty) or card.support(s))
        self.score = card.headline  # what tables and pictures are about
        self._verdict = verdict
        self._estimates: dict[tuple[str, str, str], Number] = {}
        self._confusions: dict[str, Tensor | None] = {}

    @cached_property
    def verdict(self) -> Verdict:
        """What the gate says."""
        return judge(self.card, QualityGate()) if self._verdict is None else self._verdict

    @property
    def weak(self) -> str:
        """The slice that the verdict's first finding of a modality is about, else all."""
        found = (f.modality for f in self.verdict.findings if f.modality in self.slices)
        return next(found, "all")

    def estimate(self, score: str, coalition: str | None = None, slice: str = "all") -> Number:
        """A score with its interval."""
        if coalition is None and self.card.partial:
            return Number(math.nan, math.nan, math.nan)
        key = (score, coalition or self.card.whole, slice)
        if key not in self._estimates:
            self._estimates[key] = Number(*self.card.estimate(*key))
        return self._estimates[key]

    @cached_property
    def supports(self) -> dict[str, int]:
        """Samples that count in each slice."""
        return {slice: self.card.support(slice) for slice in self.slices}

    @cached_property
    def folded(self) -> tuple[str, ...]:
        """Slices that are the whole, sample for sample: what is said of all is said of them."""
        whole = self.supports["all"]
        return tuple(name for name in self.modalities if whole and self.supports[name] == whole)

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """The slices that say something of their own."""
        return tuple(slice for slice in self.slices if slice not in self.folded)

    @cached_property
    def scores(self) -> Table:
        """The scores of the whole and of every modality's slice, with the samples behind."""
        shown = slice_scores(self.card)
        rows = [(name, n, *(self.estimate(s, slice=name) for s in shown)) for name, n in self.supports.items()]
        return Table(("slice", "samples", *map(words.heading, shown)), rows)

    @property
    def distinct_scores(self) -> Table:
        """The same of the slices that are not the whole."""
        return self.scores._replace(rows=[row for row in self.scores.rows if row[0] in self.distinct])

    @cached_property
    def coalitions(self) -> list[str]:
        """Names of the coalitions counted, the largest first."""
        modalities = self.card.layout.modalities
        masks = [modalities.mask(name) for name in self.card.coalitions]  # less the model's own, unhidden answers
        return [modalities.name(mask) for mask in sorted(masks, key=lambda mask: (-mask.bit_count(), mask))]

    @cached_property
    def telling(self) -> list[str]:
        """All of them up to sixteen; beyond, those of all, all but one, one and none."""
        if len(self.coalitions) <= COALITIONS_SHOWN:
            return self.coalitions
        sizes = (0, 1, len(self.modalities) - 1, len(self.modalities))
        return [name for name in self.coalitions if self.card.layout.modalities.mask(name).bit_count() in sizes]

    def shown(self, names: Sequence[str]) -> Tensor:
        """``(len(names), M)`` bool: which modalities the coalitions of these names show."""
        modalities = self.card.layout.modalities
        return torch.as_tensor(modalities.table([modalities.mask(name) for name in names]))

    def coalition_scores(self, names: Sequence[str]) -> Table:
        """The headline score and accuracy of coalitions."""
        scores = tuple(dict.fromkeys((self.score, "accuracy")))
        rows = [(name, *(self.estimate(score, name) for score in scores)) for name in names]
        return Table(("shown", *map(words.heading, scores)), rows)

    @cached_property
    def majority(self) -> float:
        """What guessing the majority would score."""
        return self.card.majority(self.score)

    @cached_property
    def gains(self) -> dict[str, Contribution]:
        """What each modality gives; empty where one coalition was counted."""
        return self.card.contributions(self.score) if len(self.coalitions) > 1 else {}

    @cached_property
    def contributions(self) -> Table:
        """Drop, gain alone and Shapley value of every modality, in the headline score's unit."""
        return gains(self.gains, self.score)

    @cached_property
    def interactions(self) -> Table:
        """The Shapley interaction of every pair of modalities, the largest first; no rows where not counted."""
        parts = torch.stack(self.card.apply(contributions.shapley_interactions, self.score), dim=-1)  # (M, M, 3)
        rows = []
        for i, j in combinations(range(len(self.modalities)), 2):
            value, low, high = parts[i, j].tolist()
            if math.isfinite(value):
                pair = f"{self.modalities[i]} × {self.modalities[j]}"
                rows.append((pair, Number(value, low, high, words.per(self.score))))
        return Table(("pair", "interaction"), sorted(rows, key=lambda row: -abs(row[1].value)))

    @cached_property
    def together(self) -> Table:
        """Cooperation and interaction share (InterSHAP) of all modalities, where the coalitions counted tell them."""
        rows = []
        for name, function, per in (
            ("Cooperation (SHAPE)", contributions.cooperation, words.per(self.score)),
            ("Interaction share (InterSHAP)", contributions.interaction_share, 0),
        ):
            value, low, high = (float(part) for part in self.card.apply(function, self.score))
            if math.isfinite(value):
                rows.append((name, Number(value, low, high, per)))
        return Table(("measure", "value"), rows)

    @cached_property
    def further(self) -> Table:
        """The scores that a confusion does not tell, of every slice that says something of its own."""
        scores = (*self.card.further, *_asked(self.card))
        rows = [(name, *(self.estimate(score, slice=name) for score in scores)) for name in self.distinct]
        return Table(("slice", *map(words.heading, scores)), rows if scores else [])

    def curves(self, field: str, make: Callable[..., Curve], slices: int = 5) -> dict[str, Curve]:
        """A curve for each slice, the classes, or labels, pooled: of histograms ("curves") or of confidence ("levels").

        None of them where the field was not kept.
        """
        if self.card.partial or not getattr(self.card.layout, field):
            return {}
        row, made = self.card.row(None), {}
        for slice in self.distinct[:slices]:
            replicates = self.card.replicate_field(f"replicate_{field}", slice)
            parts = None if replicates is None else replicates[:, row].sum(1)
            made[slice] = make(self.card.field(field, slice)[row].sum(0), parts)
        return {name: curve for name, curve in made.items() if len(curve.x)}

    def confusion(self, slice: str) -> Tensor | None:
        """``(C, C)``, multilabel ``(L, 2, 2)``, of a slice; None where matrices were not kept."""
        if slice not in self._confusions:
            try:
                self._confusions[slice] = self.card.confusion(self.card.whole, slice)
            except ValueError:
                self._confusions[slice] = None
        return self._confusions[slice]

    @cached_property
    def drawn(self) -> list[int]:
        """The classes, or labels, that confusions show; those that findings name come first where there is no room."""
        named = {f.class_name for f in self.verdict.findings}
        first = [i for i, name in enumerate(self.names) if name in named]
        counts = self.confusion("all")
        return [] if counts is None else confusion.chosen(counts, self.kind.by_label, first)

    def cells(self, slice: str = "all") -> Cells | None:
        """A slice's confusion to draw; None where matrices were not kept."""
        counts = self.confusion(slice)
        return None if counts is None else confusion.cells(counts, self.names, self.kind.by_label, self.drawn)

    def confusion_table(self, slice: str = "all") -> Table:
        """The numbers that are drawn; where classes are many the largest errors, one a row."""
        part, counts = self.cells(slice), self.confusion(slice)
        if part is None or counts is None:
            return Table(("actual",), [])
        if part.omitted and not self.kind.by_label:
            rows = confusion.largest_errors(counts, self.names)
            return Table(("actual", "taken for", "samples", "of"), rows)
        return Table(
            ("actual", *part.columns),
            [(name, *map(int, row)) for name, row in zip(part.rows, part.counts.tolist(), strict=True)],
        )

    def worst_classes(self, slice: str = "all", most: int = WORST) -> Table:
        """The classes, or labels, of lowest recall that occur in a slice, the worst first."""
        shown = ("recall", "precision", "f1")
        columns = [self.card.class_estimates(score, self.card.whole, slice) for score in shown]
        sums = self.card.sums(self.card.whole, slice).actual
        support = sums[:, 1] if self.kind.by_label else sums[0]
        rows: list[tuple[Any, ...]] = [
            (words.clean(name), int(n), *(Number(*column[name]) for column in columns))
            for name, n in zip(self.names, support.tolist(), strict=True)
            if n
        ]
        worst = sorted(rows, key=lambda row: row[2].value)[:most]
        return Table((self.kind.noun, "samples", *map(words.label, shown)), worst)

    @cached_property
    def findings(self) -> list[tuple[Finding, ...]]:
        """The verdict's findings in its order; three or more classes, or slices, that fail alike are one group."""
        groups: dict[object, list[Finding]] = {}
        for f in self.verdict.findings:
            alike = f.kind, f.level, f.score, f.threshold, f.class_name is None
            groups.setdefault(alike if f.score in (*SCORES, "unbalanced") else id(f), []).append(f)
        return [part for g in groups.values() for part in ([tuple(g)] if len(g) > 2 else [(f,) for f in g])]

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """What was run, as (what, value)."""
        card, many = self.card, len(self.names)
        facts = {
            "modalities": ", ".join(card.modalities),
            "task": f"{card.task}, {many:,} {self.kind.noun if many == 1 else self.kind.nouns}",
            "samples": f"{card.samples:,}",
            "coalitions": f"{len(card.coalitions)} of {2 ** len(card.modalities)}",
            "bootstrap replicates": str(card.layout.R),
            "bootstrap seed": str(card.seed),
        }
        for key, value in card.info.items():
            facts[words.clean(key).replace("_", " ")] = words.fact(value)
        return list(facts.items())


def slice_scores(card: Tally) -> tuple[str, ...]:
    """What tables list of a slice: accuracy, precision, recall, F1 and the headline; of numbers four of their own."""
    if not card.kind.ordinal:
        return tuple(dict.fromkeys((*SCORES, card.headline)))
    return tuple(dict.fromkeys((*{card.headline} & set(card.further), *(s for s in ORDINAL if s in card.further))))[:4]


def _asked(card: Tally) -> list[str]:
    """Scores of the confusion that were asked for by name, beside those that tables list."""
    given = card.info.get("scores")  # which may come from anywhere
    known = {*scores.SCORES, *(f"{name}_{how}" for name in scores.AVERAGED for how in ("macro", "micro", "weighted"))}
    listed = slice_scores(card)
    return [name for name in sorted(known) if name not in listed and isinstance(given, list) and name in given]


def of(card: Tally | Tables, verdict: Verdict | None = None, samples: Any = None, name: str = "") -> Tables:
    """The tables of a tally; tables that were made before are handed on as they are."""
    return card if isinstance(card, Tables) else Tables(card, verdict, samples or (), name)


def gains(given: Mapping[str, Contribution], score: str) -> Table:
    """Drop, gain alone and Shapley value of every modality in a score's unit; of two cards, what they differ by."""
    rows = [(name, *(Number(*part, words.per(score)) for part in parts)) for name, parts in given.items()]
    return Table(("modality", "drop without it", "gain alone", "Shapley value"), rows)


def history_keys(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that hold numbers in any epoch, in order of appearance."""
    keys = {key: None for row in history for key, value in row.items() if isinstance(value, int | float)}
    return [key for key in keys if key not in ("epoch", "step")]
