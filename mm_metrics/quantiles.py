"""Student's t and the normal distribution: how much lies within, and how far out a share lies. Pure functions."""

from __future__ import annotations

import math
from statistics import NormalDist

_T_UP_TO, _EXPAND_FROM = 1000, 120  # degrees of freedom: Student's t is normal to a thousandth, and nearly so


def t_share(t: float, df: float | None) -> float:
    """How much of Student's t with `df` degrees of freedom lies within ±t; None is the normal distribution.

    In closed form (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4); a fractional `df` is rounded down.

    >>> round(t_share(2.776, 4), 3), round(t_share(1.96, None), 3)
    (0.95, 0.95)
    """
    if df is None or df > _T_UP_TO:
        return math.erf(abs(t) / math.sqrt(2))
    whole = max(1, math.floor(df))
    angle = math.atan(abs(t) / math.sqrt(whole))
    odd = whole % 2
    term = series = 1.0 if whole > 1 else 0.0
    for i in range(2 + odd, whole - 1, 2):
        term *= (i - 1) / i * math.cos(angle) ** 2
        series += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series)
    return math.sin(angle) * series


def t_quantile(confidence: float, df: float | None = None) -> float:
    """How many standard errors either way hold `confidence` of Student's t; of the normal distribution without `df`.

    >>> round(t_quantile(0.95, 4), 3), round(t_quantile(0.95), 3)
    (2.776, 1.96)
    """
    normal = normal_quantile(confidence)
    if df is None or df == math.inf:
        return normal
    whole = max(1, math.floor(df))
    if whole > _EXPAND_FROM:  # Fisher's expansion (Abramowitz and Stegun 1964, 26.7.5)
        second = (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96
        third = (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / 384
        return normal + (normal**3 + normal) / (4 * whole) + second / whole**2 + third / whole**3
    low, high = normal, 2 * normal
    while t_share(high, df) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, df) < confidence else (low, middle)
    return high


def normal_quantile(confidence: float) -> float:
    """How many standard deviations either way hold `confidence` of a normal distribution.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1: 0.95, say")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
