"""How sure a number is: resampling weights from a hash, intervals, paired tests. Pure functions.

The bootstrap is Poisson's (Chamandy et al. 2012): replicate r counts a sample w times, w ~ Poisson(1), drawn not from
a random stream but from a hash of (seed, shard, sample number, r). So every rank, every coalition and every model that
sees the sample gives it the same weights: sums add up over shards in any order, and differences are paired.
"""

from __future__ import annotations

import math
from itertools import accumulate
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from mm_metrics.quantiles import normal_quantile as normal_quantile
from mm_metrics.quantiles import t_quantile as t_quantile
from mm_metrics.quantiles import t_share as t_share

_TO_INT64 = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
# Poisson(1) in 4,096 equally likely draws, 1509 of them 0, 1503 of them 1, and so on: rounded so that mean and
# variance are exactly 1. From these draws on the weight is at least 1, 2, …
_POISSON_STEPS = tuple(accumulate((1509, 1503, 754, 252, 63, 13)))
_POISSON: dict[torch.device, Tensor] = {}  # the weight of each draw
_DRAW_BITS = 12
_DRAWS_PER_HASH = 5


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float


class Contribution(NamedTuple):
    """What one modality gives: lost without it, gained with it alone, its fair share."""

    drop: Estimate
    unimodal_gain: Estimate
    shapley: Estimate


def stream_key(seed: int, shard: int = 0, rank: int = 0) -> int:
    """A signed 64-bit key of one stream of sample numbers.

    >>> stream_key(0) == stream_key(0), stream_key(0) == stream_key(0, shard=1)
    (True, False)
    """
    key = 0
    for part in (seed, shard, rank):
        key = _mixed((key + part + _GOLDEN) % _TO_INT64)
    return _signed(key)


def poisson_weights(index: Tensor, replicates: int, key: int) -> Tensor:
    """``(N,)`` int64 sample numbers to ``(N, R)`` uint8 bootstrap weights, Poisson(1) each; no RNG stream moves.

    Replicate r's weights do not depend on how many replicates there are.

    >>> poisson_weights(torch.tensor([7, 8, 7]), 6, stream_key(0))[0].tolist()
    [2, 2, 0, 0, 0, 1]
    """
    blocks = torch.arange(-(-replicates // _DRAWS_PER_HASH), device=index.device) * _signed(_GOLDEN)
    hashed = _splitmix(_splitmix(index + key).unsqueeze(-1) + blocks)  # (N, blocks)
    shifts = torch.arange(_DRAWS_PER_HASH, device=index.device) * _DRAW_BITS
    draws = (hashed.unsqueeze(-1) >> shifts) & (2**_DRAW_BITS - 1)  # (N, blocks, draws)
    if index.device not in _POISSON:  # made on the device: to copy a table there would be a stall
        every = torch.arange(2**_DRAW_BITS, device=index.device)
        _POISSON[index.device] = torch.stack([every >= step for step in _POISSON_STEPS]).sum(0, dtype=torch.uint8)
    return _POISSON[index.device].index_select(0, draws.flatten()).view(draws.shape).flatten(1)[:, :replicates]


def mixed_numbers(numbers: Tensor) -> Tensor:
    """Sample or group numbers to 64 well mixed bits each, int64 of the same shape.

    >>> int(mixed_numbers(torch.tensor([1]))[0]) == int(mixed_numbers(torch.tensor([1, 2]))[0])
    True
    """
    return _splitmix(numbers + _signed(_GOLDEN))


def wilson(hits: Tensor | float, total: Tensor | float, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """The interval of a proportion ``hits / total`` (Wilson 1927); NaN for no samples. ``total`` may be fractional.

    >>> [round(float(bound), 4) for bound in wilson(18, 150)]
    [0.0773, 0.1817]
    """
    hits, total = torch.as_tensor(hits).double(), torch.as_tensor(total).double()
    z2 = normal_quantile(confidence) ** 2
    share = hits / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = (z2 * (share * (1 - share) / total + z2 / (4 * total**2))).clamp(min=0).sqrt() / (1 + z2 / total)
    low = torch.where(hits <= 0, 0.0, centre - half)
    high = torch.where(hits >= total, 1.0, centre + half)
    return torch.where(total > 0, low, torch.nan), torch.where(total > 0, high, torch.nan)


def score_interval(
    value: Tensor,
    replicates: Tensor,
    total: Tensor | float,
    confidence: float = 0.95,
    low: float = 0.0,
    groups: int | None = None,
    reach: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The interval of a score in `low` … 1 from its bootstrap replicates ``(R, ...)``, over `total` samples.

    Wilson's, with the number of samples that would give a proportion the standard error seen: unlike the percentile
    bootstrap it does not collapse where no replicate differs, nor leave the range, and at R=200 it does not hang on
    the five outermost replicates (the effective sample size of Korn and Graubard 1998). `total` is that of
    `effective_size`. Of `groups` the replicates resample those, Student's t stands in, and where nothing was seen to
    vary a group counts as one. It is no narrower than the `reach` below and above of `mean_reach`, shares of the range.
    """
    value, total = torch.as_tensor(value).double(), torch.as_tensor(total).double()
    share = ((value - low) / (1 - low)).clamp(0, 1)
    variance = _variance(replicates, groups) / (1 - low) ** 2
    blind = total if groups is None else total.clamp(max=groups)
    effective = torch.where(variance > 0, share * (1 - share) / variance, blind)
    # A proportion at 0 or 1 has no spread to learn from; more than twice the samples seen is chance.
    effective = torch.where(effective > 0, effective, blind).clamp(max=2 * total if groups is None else total)
    if groups is not None:
        effective = effective * (normal_quantile(confidence) / t_quantile(confidence, groups - 1)) ** 2
    bounds = wilson(share * effective, effective, confidence)
    if reach is not None:
        bounds = torch.minimum(bounds[0], share - reach[0]), torch.maximum(bounds[1], share + reach[1])
    keep = value.isnan() | variance.isnan()
    below, above = (torch.where(keep, torch.nan, bound.clamp(0, 1) * (1 - low) + low) for bound in bounds)
    return below, above


def difference_interval(
    value: Tensor,
    replicates: Tensor,
    total: Tensor | float,
    confidence: float = 0.95,
    groups: int | None = None,
    unit: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The interval of a paired difference from its bootstrap replicates ``(R, ...)``, over `total` samples.

    Normal, or Student's t for what `groups` vary by; `total` and `unit` as in `difference_variance`.
    """
    variance, blind = difference_variance(replicates, total, groups, unit)
    seen = t_quantile(confidence, None if groups is None else groups - 1) ** 2 * variance
    half = (seen + normal_quantile(confidence) ** 2 * blind).sqrt()
    return torch.as_tensor(value).double() - half, torch.as_tensor(value).double() + half


def difference_variance(
    replicates: Tensor, total: Tensor | float, groups: int | None = None, unit: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """The variance of a paired difference that ``(R, ...)`` replicates show, and what none of them knows: ``(...)``.

    As of the `total` samples of `least_size` and two more that disagree, one each way (Bonett and Price 2012), by a
    `unit` of the score, since what no replicate shows is not certain; of `groups` one of both is a whole one, and below
    5 samples one more is enough.

    >>> [round(float(part), 4) for part in difference_variance(torch.tensor([0.1, 0.3]), 48)]
    [0.0184, 0.0008]
    """
    total, variance = torch.as_tensor(total).double(), _variance(replicates, groups)
    few = total if groups is None else total.clamp(max=groups)
    if groups is None:
        variance = variance * (1 - 2 / (total + 2)) ** 2
    return variance, unit**2 * torch.maximum(2 / ((total + 2) * (few + 2)), 1 / (total * few))


def difference_error(replicates: Tensor, total: Tensor | float, groups: int | None = None) -> Tensor:
    """The standard error of a paired difference, ``(R, ...)`` to ``(...)``: the root of both parts of its variance.

    >>> difference_error(torch.zeros(200), 48)
    tensor(0.0283, dtype=torch.float64)
    """
    return sum(difference_variance(replicates, total, groups), torch.zeros(())).sqrt()


def known(replicates: Tensor | None, value: Tensor) -> Tensor:
    """Replicates of a value ``(...)``, ``(R, ...)``; where none were kept one that is NaN, which leads to no interval.

    >>> known(None, torch.tensor(0.5))
    tensor([nan])
    """
    return value.new_full((1, *value.shape), torch.nan) if replicates is None else replicates


def effective_size(weights: Tensor, sizes: Tensor) -> Tensor:
    """Samples of one proportion as uncertain as a mean of proportions, ``(..., P)`` twice to ``(...)``.

    ``1 / Σ w² / n``: of a macro mean ``C² / Σ 1 / n``, so that a class of three samples keeps it as open as it is.

    >>> effective_size(torch.tensor([0.5, 0.5]), torch.tensor([297.0, 3.0]))
    tensor(11.8800)
    """
    return 1 / (weights**2 / sizes).sum(-1)


def mean_reach(
    weights: Tensor, ratios: Tensor, sizes: Tensor, confidence: float = 0.95, harmonic: bool = False
) -> tuple[Tensor, Tensor]:
    """How far below and above a mean of proportions, each ``(..., P)``, the truth may lie if they are independent.

    The root of the summed squares of what Wilson's intervals of each reach (MOVER: Zou and Donner 2008): a class of
    which all three samples are right is not certain, and no replicate knows it. A `harmonic` one is F1 of `sizes`
    that are predicted, actual or both, so 2J/(1 + J) of Jaccard's proportion J of them.

    >>> below, _ = mean_reach(torch.tensor([0.5, 0.5]), torch.tensor([0.9, 1.0]), torch.tensor([297.0, 3.0]))
    >>> round(float(below), 3)
    0.281
    """
    shares = ratios / (2 - ratios) if harmonic else ratios
    ends = [2 * end / (1 + end) if harmonic else end for end in wilson(shares * sizes, sizes, confidence)]
    below, above = ((weights * (ratios - end)).square().sum(-1).sqrt() for end in ends)
    return below, above


def least_size(weights: Tensor, sizes: Tensor) -> Tensor:
    """Samples of one proportion whose difference is as open as that of a mean of them, ``(..., P)`` to ``(...)``.

    By what `difference_variance` adds: the sum over the proportions of w² times their own.

    >>> least_size(torch.tensor([0.5, 0.5]), torch.tensor([297.0, 3.0]))
    tensor(6.4844)
    """
    added = (weights**2 * torch.maximum(2 / (sizes + 2) ** 2, 1 / sizes**2)).sum(-1)
    return torch.maximum((2 / added).sqrt() - 2, 1 / added.sqrt())


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value that two right/wrong series on the same samples are equally good (McNemar 1947).

    The arguments count the samples that only the first, only the second gets right.

    >>> round(mcnemar(3, 15), 4)
    0.0075
    """
    n, k = first_only + second_only, min(first_only, second_only)
    i = torch.arange(max(0, k - 40 * math.isqrt(n) - 40), k + 1, dtype=torch.float64)  # farther is nothing to add
    log = math.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1) - n * math.log(2)
    return min(1.0, 2 * float(log.exp().sum()))


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm 1979), in the order given.

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def p_below(estimate: Estimate, bar: float, confidence: float = 0.95) -> float:
    """The two-sided p-value that a proportion lies at `bar`, by the Wilson interval it has; 1 at or above the bar.

    The confidence at which the interval's upper bound would be the bar; 1 where there is no interval.

    >>> low, high = map(float, wilson(35, 100))
    >>> round(p_below(Estimate(0.35, low, high), 0.5), 4)
    0.0027
    """
    value, _, high = estimate
    if not (value < bar < 1 and value < high < 1):
        return 1.0
    total = normal_quantile(confidence) ** 2 * high * (1 - high) / (high - value) ** 2
    return 1 - t_share((bar - value) / math.sqrt(bar * (1 - bar) / total), None)


def samples_needed(
    value: float, low: float, high: float, threshold: float, samples: int, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """About how many samples would, in `power` of new draws, bring `threshold` outside an interval as ``low … high``.

    `samples` gave that one, of `confidence`; a width shrinks with the root of the number. None where the value lies on
    the threshold: no number settles that.

    >>> samples_needed(0.875, 0.82, 0.92, threshold=0.85, samples=200)
    1978
    """
    gap = abs(value - threshold)
    reach = (value - low) if threshold < value else (high - value)
    if not gap > 0 or not math.isfinite(reach):
        return None
    reach *= 1 + NormalDist().inv_cdf(power) / normal_quantile(confidence)
    return max(samples, math.ceil(samples * (reach / gap) ** 2))


def _variance(replicates: Tensor, groups: int | None = None) -> Tensor:
    """Over the first axis, leaving out replicates that are NaN because they drew none of a slice's samples."""
    replicates = torch.as_tensor(replicates).double()
    seen = ~replicates.isnan()
    n = seen.sum(0)
    mean = replicates.nan_to_num().sum(0) / n
    squares = torch.where(seen, (replicates - mean) ** 2, 0.0).sum(0)
    variance = torch.where(n > 1, squares / (n - 1), torch.nan)
    if groups is None:
        return variance
    return variance * groups / (groups - 1) if groups > 1 else torch.full_like(variance, torch.nan)


def _splitmix(x: Tensor) -> Tensor:
    """splitmix64's finaliser (Steele et al. 2014) on int64, whose products wrap as unsigned ones do."""
    for shift, factor in _MIX:
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    # int64's >> carries the sign along; the mask takes it off again.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: int) -> int:  # the same of a plain number: a tensor's would have to be waited for
    for shift, factor in _MIX:
        x = (x ^ x >> shift) * factor % _TO_INT64
    return x ^ x >> 31


def _signed(x: int) -> int:
    return x - _TO_INT64 if x >= _TO_INT64 // 2 else x
