"""Whether two cards count the same samples, told from their bootstrap weights, and in groups from marks."""

from __future__ import annotations

import hashlib

import torch

from mm_metrics.counts.counted import Counted

SAME = 0.5  # of the samples, beyond chance: from here on two cards are of one data set
_ENOUGH, _MANY = 30, 100  # replicates


def share_samples(first: Counted, second: Counted) -> bool:
    """Whether most samples of one card are in the other too, so that a sum would count them twice.

    Weights of samples in groups are their groups', which shards may share: there the marks tell too, the counts of the
    bits of the samples' mixed numbers, or without numbers whether each group has as many samples in both.
    """
    if overlap(first, second) <= SAME or not (first.grouped and second.grouped and first.layout.group_cells):
        return overlap(first, second) > SAME
    marks, tables = ([card.layout.view(card.counts, name) for card in (first, second)] for name in ("marks", "groups"))
    if not (marks[0].any() and marks[1].any()):
        return torch.equal(*tables)
    a, b = (
        2 * mark - int(card.layout.view(card.counts, "samples"))
        for mark, card in zip(marks, (first, second), strict=True)
    )
    return float(2 * (a * b).sum() / (a.square().sum() + b.square().sum())) > SAME


def share_numbers(first: Counted, second: Counted) -> bool:
    """Whether most numbers of one card's samples are in the other too, whatever their targets.

    Each replicate weighs a number alike, so that the weight of all samples varies as one. Of samples in groups the
    groups' numbers are that, which shards may share. Fewer than `_ENOUGH` replicates tell nothing, and below `_MANY`
    all numbers have to be the same.

    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> def card(start):
    ...     metric = CoalitionConfusionMatrix(("text",), num_classes=2, coalitions=["all"], bootstrap=100)
    ...     target = torch.randint(2, (50,))
    ...     metric.update(target[None], target, index=torch.arange(50) + start)
    ...     return metric.scorecard()
    >>> share_numbers(card(0), card(0)), share_numbers(card(0), card(50))
    (True, False)
    """
    sums = [card.replicate_sums() for card in (first, second)]
    if first.grouped or second.grouped or sums[0] is None or sums[1] is None or first.layout.R < _ENOUGH:
        return False
    a, b = (
        part.actual[:, card.row(card.sampled), 0].sum(-1).double()  # (R,)
        for part, card in zip(sums, (first, second), strict=True)
        if part is not None
    )
    spread = float(a.var() + b.var())
    share = 1 - float((a - b).var()) / spread if spread else 0.0
    return torch.equal(a, b) or (first.layout.R >= _MANY and share > SAME)


def fingerprint(card: Counted) -> str:
    """One text for all cards of the same samples, numbers and classes, whatever was predicted; "" without any."""
    sums = card.replicate_sums()
    if sums is None:
        return ""
    return hashlib.sha256(sums.actual[:, card.row(card.sampled)].numpy().tobytes()).hexdigest()[:32]


def overlap(first: Counted, second: Counted) -> float:
    """How much of two cards is the same samples: 1 all, 0 or less no more than chance; 0 without replicates.

    A sample weighs the same in replicate r wherever it is counted. So class sizes vary alike over the replicates in as
    far as they are made of the same samples: their covariance over their variance is the share that both have. Rows
    that one side skipped lower it by little. Cards that number other samples alike agree by chance where the labels
    do; that is taken off, as Cohen's kappa does.

    >>> from mm_metrics import CoalitionConfusionMatrix
    >>> def card(start):
    ...     metric = CoalitionConfusionMatrix(("text",), num_classes=2, coalitions=["all"], bootstrap=100)
    ...     metric.update(torch.zeros(1, 50, dtype=torch.int64), torch.arange(50) % 2, index=torch.arange(50) + start)
    ...     return metric.scorecard()
    >>> overlap(card(0), card(4)) > 0.5, overlap(card(0), card(50)) < 0.5
    (True, True)
    """
    sums = [card.replicate_sums() for card in (first, second)]
    if first.seed != second.seed or sums[0] is None or sums[1] is None:
        return 0.0
    size = min(len(part.actual) for part in sums if part is not None)  # a weight does not hang on how many there are
    a, b = (
        part.actual[:size, card.row(card.sampled)].flatten(1).double()  # (R, L * C)
        for part, card in zip(sums, (first, second), strict=True)
        if part is not None
    )
    if a.shape != b.shape or not a.any():
        return 0.0
    if torch.equal(a, b):
        return 1.0
    if size < _ENOUGH:
        return 0.0
    share = 1 - float((a - b).var(0).sum() / (a.var(0).sum() + b.var(0).sum()))
    totals = [card.sums(card.sampled).actual for card in (first, second)]  # (L, C) each
    whole = totals[0].sum(-1, keepdim=True).clamp(min=1)
    chance = float((2 * totals[0] * totals[1] / whole).sum() / (totals[0] + totals[1]).sum())
    return (share - chance) / (1 - chance) if chance < 1 else share
