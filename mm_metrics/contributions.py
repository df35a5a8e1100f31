"""A score per coalition to a number per modality: linear maps over ``values`` of shape ``(K, ...)``.

``values[k]`` is a score with only coalition ``k`` shown. By default ``K = 2**M`` in index order; otherwise
``coalitions``, a ``(K, M)`` bool table, says which were counted. What a table does not allow comes out NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor


def leave_one_out(values: Tensor, coalitions: object = None) -> Tensor:
    """The drop: what is lost without each modality, v(all) - v(all without m). ``(K, ...)`` to ``(M, ...)``.

    With the baseline ``"shuffle"`` this is the perceptual score of Gat et al. (2021).

    >>> leave_one_out(torch.tensor([0.1, 0.5, 0.1, 0.9]))  # none, first, second, both
    tensor([0.8000, 0.4000], dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    M = table.shape[1]
    alone = np.eye(M, dtype=bool)
    return _difference(values, table, np.ones((M, M), bool), ~alone)


def unimodal_gain(values: Tensor, coalitions: object = None, empty: Tensor | float | None = None) -> Tensor:
    """What each modality gives alone, v({m}) - v(none). ``(K, ...)`` to ``(M, ...)``.

    `empty` stands in for v(none) where the table lacks it: the majority class's share, say (Hu et al. 2022).

    >>> unimodal_gain(torch.tensor([0.1, 0.5, 0.1, 0.9]))
    tensor([0.4000, 0.0000], dtype=torch.float64)
    """
    values, table = _checked(values, coalitions, empty)
    M = table.shape[1]
    return _difference(values, table, np.eye(M, dtype=bool), np.zeros((M, M), bool))


def shapley_values(values: Tensor, coalitions: object = None) -> Tensor:
    """Each modality's fair share; they sum to v(all) - v(none). ``(K, ...)`` to ``(M, ...)``.

    Exact with all coalitions (Shapley 1953). From a sampled table the part that single modalities and all but one tell
    of is taken out first, and of the rest each stratum (size, with or without m) is the mean of what was sampled, as in
    stratified SVARM (Kolpaczki et al. 2024): unbiased where the table comes from
    `mm_metrics.modalities.sampled_coalitions`, and exact where modalities only add up.

    >>> shapley_values(torch.tensor([0.0, 0.4, 0.2, 1.0]))
    tensor([0.6000, 0.4000], dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    return _apply(_shapley_map(table), values)


def shapley_error(values: Tensor, coalitions: object = None) -> Tensor:
    """The standard error that sampling coalitions adds to each Shapley value, 0 with all. ``(K, ...)`` to ``(M, ...)``.

    Within a stratum the variance of the mean of a sample without replacement (Cochran 1977, eq. 2.20).

    >>> shapley_error(torch.tensor([0.0, 0.4, 0.2, 1.0]))
    tensor([0., 0.], dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    M = table.shape[1]
    values = values - _apply(table.astype(float) @ _additive_map(table), values)
    variance = torch.zeros((M, *values.shape[1:]), dtype=values.dtype, device=values.device)
    for m, size, _, rows in _strata(table):
        stratum, whole = values[torch.as_tensor(rows)], math.comb(M - 1, size)
        if 1 < len(stratum) < whole:
            variance[m] += stratum.var(0) / len(stratum) * (1 - len(stratum) / whole)
        elif len(stratum) < whole:
            variance[m] = torch.nan
    return variance.sqrt() / M


def shapley_interactions(values: Tensor, coalitions: object = None) -> Tensor:
    """Pairwise Shapley interactions (Grabisch and Roubens 1999), diagonal 0. ``(K, ...)`` to ``(M, M, ...)``.

    Positive where two modalities give more together than each adds alone, negative where they repeat each other.

    >>> shapley_interactions(torch.tensor([0.0, 0.0, 0.0, 1.0]))[0, 1]  # neither alone tells
    tensor(1., dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    M = table.shape[1]
    rows = [_interaction_row(table, i, j) for i in range(M) for j in range(M)]
    return _apply(np.stack(rows), values).reshape(M, M, *values.shape[1:])


def cooperation(values: Tensor, coalitions: object = None, empty: Tensor | float | None = None) -> Tensor:
    """SHAPE's cooperation: v(all) - v(none) less what each modality gives alone. ``(K, ...)`` to ``(...)``.

    Hu et al. (2022); `empty` as in `unimodal_gain`.

    >>> cooperation(torch.tensor([0.0, 0.4, 0.2, 1.0]))
    tensor(0.4000, dtype=torch.float64)
    """
    values, table = _checked(values, coalitions, empty)
    M = table.shape[1]
    whole = _difference(values, table, np.ones((1, M), bool), np.zeros((1, M), bool))[0]
    return whole - unimodal_gain(values, table).sum(0)


def interaction_share(values: Tensor, coalitions: object = None) -> Tensor:
    """InterSHAP: the share of the model's behaviour that needs modalities together, 0…1. ``(K, ...)`` to ``(...)``.

    Of the matrix with half of each interaction off the diagonal and the rest of the Shapley value on it, the absolute
    sum off the diagonal over that of all (Wenderoth et al., AAAI 2025). NaN where no coalition makes a difference.

    >>> interaction_share(torch.tensor([0.5, 0.5, 0.5, 1.0]))  # XOR: only together
    tensor(1., dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    off = shapley_interactions(values, table) / 2
    on = shapley_values(values, table) - off.sum(1)
    together, alone = off.abs().sum((0, 1)), on.abs().sum(0)
    rounding = 1e-12 * values.abs().amax(0)  # a share of nothing but rounding errors would be any number
    return torch.where(together + alone > rounding, together / (together + alone), torch.nan)


def weights(function: Callable[..., Tensor], coalitions: object) -> Tensor | None:
    """What each coalition's score weighs in a linear function of this module, ``(..., K + 1)``; None for a ratio.

    The last is the weight of ``empty``, where that stands in for a coalition that the table lacks.

    >>> table = np.array([[False, False], [True, False], [False, True], [True, True]])
    >>> weights(leave_one_out, table)[1].tolist()
    [0.0, -1.0, 0.0, 1.0, 0.0]
    """
    if function not in (leave_one_out, unimodal_gain, shapley_values, shapley_interactions, cooperation):
        return None
    K = len(np.asarray(coalitions))
    unit = torch.eye(K + 1, dtype=torch.float64)
    if function in (unimodal_gain, cooperation):
        return function(unit[:-1], coalitions, empty=unit[-1])
    return function(unit[:-1], coalitions)


def conditional_utilisation(values: Tensor, coalitions: object = None) -> Tensor:
    """The share of the whole score that is lost without each modality (Wu et al. 2022). ``(K, ...)`` to ``(M, ...)``.

    With two modalities the difference of the two is their d_util.

    >>> conditional_utilisation(torch.tensor([0.1, 0.5, 0.1, 0.8]))
    tensor([0.8750, 0.3750], dtype=torch.float64)
    """
    values, table = _checked(values, coalitions)
    whole = _difference(values, table, np.ones((1, table.shape[1]), bool), None)
    return leave_one_out(values, table) / whole


def modality_confusion(hit_patterns: Tensor, coalitions: object = None) -> Tensor:
    """The share of samples right with m alone and wrong with all (VGGSounder's μ, ICCV 2025), ``(1 + M, ...)``.

    ``hit_patterns`` ``(2**K, ...)`` counts samples by which coalitions get them right, bit k for coalition k. Row 0 is
    the share that every modality alone gets right and all together wrong; row 1 + m is modality m's. Needs each
    modality alone and all: ValueError otherwise.

    >>> patterns = torch.zeros(16, dtype=torch.int64)  # K = 4: none, first, second, both
    >>> patterns[0b0010], patterns[0b1110] = 1, 3
    >>> modality_confusion(patterns)
    tensor([0.0000, 0.2500, 0.0000], dtype=torch.float64)
    """
    patterns = torch.as_tensor(hit_patterns).double()
    K = patterns.shape[0].bit_length() - 1
    _, table = _checked(torch.zeros(K), coalitions)
    M = table.shape[1]
    wanted = [_find(table, row) for row in (*np.eye(M, dtype=bool), np.ones(M, bool))]
    if None in wanted:
        raise ValueError("modality_confusion needs every modality alone and all together among the coalitions")
    right = torch.as_tensor(np.arange(2**K)[:, None] >> np.array(wanted) & 1).bool()  # (2**K, M + 1)
    alone, wrong = right[:, :-1], ~right[:, -1:]
    events = torch.cat([alone.all(1, keepdim=True), alone], dim=1) & wrong
    return torch.tensordot(events.double().T, patterns, dims=1) / patterns.sum(0)


def relative_robustness(scores: Tensor, levels: Tensor) -> Tensor:
    """The area under a score against noise level, ``(T, ...)`` to ``(...)`` (MultiBench, Liang et al. 2021).

    >>> relative_robustness(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 1.0]))
    tensor(0.7500, dtype=torch.float64)
    """
    return torch.trapezoid(torch.as_tensor(scores).double(), torch.as_tensor(levels).double(), dim=0)


def effective_robustness(scores: Tensor, reference: Tensor, levels: Tensor | None = None) -> Tensor:
    """How far a score stays above a late-fusion reference, less their gap without noise, ``(T, ...)`` to ``(...)``.

    Summed over the levels of noise, as MultiBench's code does; with `levels` the area, as `relative_robustness`.

    >>> effective_robustness(torch.tensor([1.0, 0.8]), torch.tensor([0.9, 0.5]))
    tensor(0.2000, dtype=torch.float64)
    >>> effective_robustness(torch.tensor([1.0, 0.8]), torch.tensor([0.9, 0.5]), torch.tensor([0.0, 1.0]))
    tensor(0.1000, dtype=torch.float64)
    """
    above = torch.as_tensor(scores).double() - torch.as_tensor(reference).double()
    above = above - above[0]
    return above.sum(0) if levels is None else relative_robustness(above, levels)


def _checked(values: object, coalitions: object, empty: object = None) -> tuple[Tensor, np.ndarray]:
    values = torch.as_tensor(values)
    values = values.to(torch.float64 if values.device.type != "mps" else torch.float32)
    if values.ndim == 0:
        raise ValueError("values is a single number: one score for each of K coalitions, (K, ...)")
    K = values.shape[0]
    if coalitions is None:
        M = K.bit_length() - 1
        if K != 2**M or K < 2:
            raise ValueError(f"values holds {K} coalitions, not 2**M: say which with coalitions=, a (K, M) bool table")
        table = (np.arange(K)[:, None] >> np.arange(M) & 1).astype(bool)
    else:
        table = np.asarray(coalitions)
        if table.dtype != bool or table.ndim != 2 or len(table) != K:
            raise ValueError(f"coalitions is a ({K}, M) bool table, got {table.dtype} of shape {table.shape}")
    if empty is not None and _find(table, np.zeros(table.shape[1], bool)) is None:
        row = torch.as_tensor(empty, dtype=values.dtype, device=values.device).expand(values.shape[1:])
        values = torch.cat([values, row.unsqueeze(0)])
        table = np.concatenate([table, np.zeros((1, table.shape[1]), bool)])
    return values, table


def _find(table: np.ndarray, row: np.ndarray) -> int | None:
    at = np.flatnonzero((table == row).all(1))
    return int(at[0]) if len(at) else None


def _difference(values: Tensor, table: np.ndarray, plus: np.ndarray, minus: np.ndarray | None) -> Tensor:
    """v(plus[i]) - v(minus[i]) for each row i; NaN where the table lacks one of the two."""

    def look_up(row: np.ndarray) -> Tensor:
        at = _find(table, row)
        return torch.full_like(values[0], torch.nan) if at is None else values[at]

    first = torch.stack([look_up(row) for row in plus])
    return first if minus is None else first - torch.stack([look_up(row) for row in minus])


def _apply(weights: np.ndarray, values: Tensor) -> Tensor:
    # A coalition with weight 0 may score NaN without spoiling the sum, which a plain matrix product would let it do.
    W = torch.as_tensor(weights, device=values.device, dtype=values.dtype)
    used = torch.as_tensor((np.nan_to_num(weights, nan=1.0) != 0).any(0), device=values.device)
    return torch.tensordot(W[:, used], values[used], dims=1)


def _shapley_map(table: np.ndarray) -> np.ndarray:
    """``(M, K)``: phi = map @ values."""
    K, M = table.shape
    strata = np.zeros((M, K))
    for m, _, sign, rows in _strata(table):
        strata[m, rows] += sign / (M * max(rows.sum(), 1))
        strata[m] += 0.0 if rows.any() else np.nan
    if K == 2**M:
        return strata
    additive = _additive_map(table)
    weights = additive + strata - strata @ table @ additive
    everything, nothing = _find(table, np.ones(M, bool)), _find(table, np.zeros(M, bool))
    if everything is not None and nothing is not None:  # what is missing from the sum is shared equally
        missing = -weights.sum(0)
        missing[everything] += 1
        missing[nothing] -= 1
        weights = weights + missing / M
    return weights


def _strata(table: np.ndarray) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Each modality, a number of others, whether it is shown with them (1) or not (-1), and the rows of that kind."""
    M = table.shape[1]
    for m, size, sign in product(range(M), range(M), (-1, 1)):
        yield m, size, sign, (table[:, m] == (sign > 0)) & (table.sum(1) - table[:, m] == size)


def _additive_map(table: np.ndarray) -> np.ndarray:
    """``(M, K)``: each modality's mean of gain alone and drop; zeros where the table does not give all of them.

    A control variate: these coalitions are in every sampled table, so taking their part out of the game and adding its
    known Shapley value leaves the estimate unbiased.
    """
    K, M = table.shape
    weights = np.zeros((M, K))
    for m, alone in enumerate(np.eye(M, dtype=bool)):
        rows = [_find(table, row) for row in (alone, np.zeros(M, bool), np.ones(M, bool), ~alone)]
        if None in rows:
            return np.zeros((M, K))
        for row, sign in zip(rows, (1, -1, 1, -1), strict=True):
            weights[m, row] += sign / 2
    return weights


def _interaction_row(table: np.ndarray, i: int, j: int) -> np.ndarray:
    """``(K,)``: I_ij = row @ values."""
    K, M = table.shape
    row = np.zeros(K)
    if i == j:
        return row
    size = table.sum(1) - table[:, i] - table[:, j]
    for s, a, b in product(range(M - 1), (False, True), (False, True)):
        stratum = (size == s) & (table[:, i] == a) & (table[:, j] == b)
        if not stratum.any():
            return np.full(K, np.nan)
        row[stratum] += (1 if a == b else -1) / ((M - 1) * stratum.sum())
    return row
