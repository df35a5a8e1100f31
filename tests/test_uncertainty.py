"""Resampling weights, intervals and paired tests: against scipy, and by coverage of known truths."""

import math
import time

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from mm_metrics import CoalitionConfusionMatrix, contributions, moments, quantiles, scores, uncertainty
from mm_metrics.uncertainty import poisson_weights, stream_key
from scripts import coverage as coverage_script


def test_weights_are_poisson_1():
    weights = poisson_weights(torch.arange(50_000), 20, stream_key(0)).double()
    n = weights.numel()
    assert abs(weights.mean() - 1) < 4 / n**0.5
    assert abs(weights.var() - 1) < 4 * (3 / n) ** 0.5  # the variance of (w - 1)**2 is 3
    seen = np.bincount(weights.long().flatten(), minlength=7)
    expected = scipy.stats.poisson.pmf(np.arange(7), 1) * n
    np.testing.assert_allclose(seen[:5], expected[:5], rtol=0.03)


def test_weights_are_independent_over_samples_replicates_seeds_shards_and_ranks():
    n = 40_000
    w = poisson_weights(torch.arange(n), 12, stream_key(0)).double()
    columns = [*w.T, w[:, 0].roll(1), w[:, 0].roll(2), w[:, 5].roll(256)]
    for key in (stream_key(1), stream_key(0, shard=1), stream_key(0, rank=1), stream_key(0, 1, 1), stream_key(-1)):
        columns.append(poisson_weights(torch.arange(n), 1, key)[:, 0].double())
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlation.abs().max() < 4.5 / n**0.5
    high = poisson_weights(torch.arange(n) + 2**40, 1, stream_key(0))[:, 0].double()
    assert torch.corrcoef(torch.stack([w[:, 0], high]))[0, 1].abs() < 4.5 / n**0.5


def test_keys_do_not_collide():
    keys = {stream_key(seed, shard, rank) for seed in range(20) for shard in range(20) for rank in range(20)}
    assert len(keys) == 8000
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert stream_key(2**70) == stream_key(2**70)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 30), st.integers(-(2**63), 2**63 - 1))
def test_a_weight_depends_on_the_sample_the_replicate_and_the_key_alone(index, R, key):
    alone = poisson_weights(torch.tensor([index]), R, key)
    among = poisson_weights(torch.tensor([3, index, 5]), R + 7, key)
    assert torch.equal(alone[0], among[1, :R])


def test_no_random_stream_moves():
    before = torch.random.get_rng_state()
    poisson_weights(torch.arange(100), 50, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_as_scipy_has_it(case, confidence):
    hits, n = case
    low, high = uncertainty.wilson(hits, n, confidence)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert float(low) == pytest.approx(expected.low, abs=1e-12)
    assert float(high) == pytest.approx(expected.high, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1200), st.floats(0.5, 0.9999))
def test_students_t_as_scipy_has_it(df, confidence):
    quantile = quantiles.t_quantile(confidence, df)
    assert quantile == pytest.approx(scipy.stats.t.ppf(0.5 + confidence / 2, df), rel=1e-5)
    assert quantiles.t_share(quantile, df) == pytest.approx(confidence, abs=1e-3 if df > 1000 else 1e-6)
    assert quantiles.t_quantile(confidence, df + 0.9) == quantile


def test_wilson_of_nothing_is_nan():
    assert all(bound.isnan() for bound in uncertainty.wilson(0, 0))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_as_scipy_has_it(b, c):
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert uncertainty.mcnemar(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_millions_takes_no_time():
    start = time.perf_counter()
    p = uncertainty.mcnemar(4_000_000, 4_003_000)
    assert time.perf_counter() - start < 20
    assert p == pytest.approx(math.erfc(3000 / 8_003_000**0.5 / 2**0.5), rel=0.01)
    assert uncertainty.mcnemar(10, 100_000) == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_its_definition(p_values):
    """The adjusted value is the smallest level at which the step-down procedure rejects."""
    adjusted = uncertainty.holm(p_values)
    n, order = len(p_values), np.argsort(p_values, kind="stable")
    for rank, i in enumerate(order):
        steps = [min(1.0, (n - r) * p_values[order[r]]) for r in range(rank + 1)]
        assert adjusted[i] == pytest.approx(max(steps))
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_holm_of_nothing():
    assert uncertainty.holm([]) == []


def test_samples_needed_settles_it_in_80_percent_of_new_draws():
    generator = np.random.default_rng(0)
    for hits, n, threshold in ((170, 200, 0.80), (170, 200, 0.88), (45, 50, 0.8), (300, 400, 0.7)):
        low, high = map(float, uncertainty.wilson(hits, n))
        needed = uncertainty.samples_needed(hits / n, low, high, threshold, n)
        for times, least, most in ((1, 0.73, 1.0), (0.5, 0.0, 0.7)):
            size = round(needed * times)
            if size <= n:
                continue
            lows, highs = uncertainty.wilson(torch.as_tensor(generator.binomial(size, hits / n, 4000)), size)
            settled = float(((lows > threshold) | (highs < threshold)).double().mean())
            assert least <= settled <= most, (hits, n, threshold, times, settled)
    assert uncertainty.samples_needed(0.8, 0.7, 0.9, 0.8, 100) is None
    assert uncertainty.samples_needed(0.8, math.nan, math.nan, 0.7, 100) is None
    assert uncertainty.samples_needed(0.9, 0.85, 0.95, 0.5, 100) == 100  # settled already


def test_a_confidence_that_is_none_is_refused():
    for confidence in (0, 1, 95, -0.5):
        with pytest.raises(ValueError, match=r"0\.95"):
            uncertainty.wilson(1, 2, confidence)


def test_replicates_without_samples_are_left_out():
    replicates = torch.tensor([0.4, 0.6, math.nan, 0.5])
    low, high = uncertainty.score_interval(0.5, replicates, 50)
    expected = uncertainty.score_interval(0.5, replicates[[0, 1, 3]], 50)
    assert (low, high) == expected
    assert all(x.isnan() for x in uncertainty.score_interval(math.nan, replicates, 0))
    assert all(x.isnan() for x in uncertainty.score_interval(0.5, torch.tensor([math.nan, 0.5]), 3))


def test_an_interval_of_a_perfect_score_is_no_point():
    low, high = uncertainty.score_interval(1.0, torch.ones(200), 50)
    assert (float(low), float(high)) == pytest.approx((float(uncertainty.wilson(50, 50)[0]), 1.0))
    low, high = uncertainty.difference_interval(0.0, torch.zeros(200), 50)
    assert -0.06 < low < -0.02 < 0.02 < high < 0.06


# Coverage: a population of which every expected score is known.
C, SHARES = 3, torch.tensor([0.5, 0.3, 0.2]).double()
RIGHT = torch.tensor(  # (K, C): how often each coalition gets a class right: none, text, audio, both
    [[0.5, 0.3, 0.2], [0.8, 0.5, 0.3], [0.5, 0.6, 0.4], [0.9, 0.75, 0.6]]
).double()


def population() -> torch.Tensor:
    """``(K, 1, C, C)`` the expected confusion; a miss goes to either other class alike."""
    miss = (1 - RIGHT) / (C - 1)
    rates = miss.unsqueeze(-1).expand(-1, C, C).clone()
    rates.diagonal(dim1=1, dim2=2).copy_(RIGHT)
    return (rates * SHARES.unsqueeze(-1)).unsqueeze(1)


def sample(n: int, seed: int, bootstrap: int = 200):
    """A scorecard of `n` samples; coalitions share a sample's difficulty, as real ones do."""
    random = torch.Generator().manual_seed(seed)
    target = torch.multinomial(SHARES, n, replacement=True, generator=random)
    difficulty = torch.rand(n, generator=random).double()
    own = torch.rand(4, n, generator=random).double()
    luck = torch.where(torch.rand(4, n, generator=random) < 0.7, difficulty, own)
    wrong = (target + 1 + torch.randint(0, C - 1, (4, n), generator=random)) % C
    preds = torch.where(luck < RIGHT[:, target], target, wrong)
    metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=C, bootstrap=bootstrap)
    metric.update(preds, target, index=torch.arange(n) + seed * n)
    return metric.scorecard()


def test_95_percent_intervals_hold_the_truth_in_95_percent_of_400_data_sets_and_no_narrower_ones_would():
    """Each of 400 values of a column is a data set: the exact binomial bounds hold, and fail 15% narrower."""
    D, n, random = 400, 200, torch.Generator().manual_seed(0)
    target = torch.multinomial(SHARES, D * n, replacement=True, generator=random)
    difficulty, own = (torch.rand(size, D * n, generator=random).double() for size in (1, 2))
    luck = torch.where(torch.rand(2, D * n, generator=random) < 0.7, difficulty, own)
    wrong = (target + 1 + torch.randint(0, C - 1, (2, D * n), generator=random)) % C
    preds = torch.where(luck < RIGHT[1::2, target], target, wrong)
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), num_classes=C, bootstrap=200, coalitions=["text", "text-audio"], by={"set": D}
    )
    for rows in torch.arange(D * n).split(20_000):
        metric.update(preds[:, rows], target[rows], by={"set": rows // n})
    card, truth = metric.scorecard(), scores.score("f1", population())
    exact = {"f1": float(truth[3]), "accuracy": float(scores.score("accuracy", population())[3])}
    exact["drop"] = float(truth[3] - truth[1])
    least, most = scipy.stats.binom.ppf([0.005, 0.9999], D, 0.95)
    for name, value in exact.items():
        rows = []
        for slice in (f"set/{d}" for d in range(D)):
            if name == "drop":
                rows.append([part[1] for part in card.apply(contributions.leave_one_out, "f1", slice)])
            else:
                rows.append(card.estimate(name, slice=slice))
        middle, low, high = torch.tensor(rows).double().T
        for width, held in ((1.0, True), (0.85, False)):
            inside = (middle - width * (middle - low) <= value) & (value <= middle + width * (high - middle))
            assert (least <= int(inside.sum()) <= most) == held, (name, width, int(inside.sum()))


def drawn(n: int, right: list, shares: list, datasets: int = 300, per: int = 1, seed: int = 0):
    """Class sums of many data sets at once: ``(D, K, 1, C)`` and of 200 replicates ``(R, D, K, 1, C)``.

    `per` samples a group share part of their luck, so that they correlate by about .3.
    """
    random = torch.Generator().manual_seed(seed)
    right, shares = torch.tensor(right).double(), torch.tensor(shares).double()
    C, K, group = len(shares), len(right), torch.arange(n) // per
    target = torch.multinomial(shares, datasets * n, replacement=True, generator=random).view(datasets, n)

    def luck(rows: int) -> torch.Tensor:
        own, shared = (torch.randn(datasets, rows, size, generator=random) for size in (n, -(-n // per)))
        return math.sqrt(0.7) * own + math.sqrt(0.3) * shared[:, :, group]

    chance = torch.special.ndtr(math.sqrt(0.7) * luck(1) + math.sqrt(0.3) * luck(K))
    wrong = (target.unsqueeze(1) + 1 + torch.randint(0, C - 1, (datasets, K, n), generator=random)) % C
    preds = torch.where(chance < right[:, target].transpose(0, 1), target.unsqueeze(1), wrong)
    weights = torch.poisson(torch.ones(datasets, -(-n // per), 200), generator=random)[:, group]
    given, taken = one_hot(target, C).float().unsqueeze(1).expand(-1, K, -1, -1), one_hot(preds, C).float()
    parts = (given * taken, taken, given)
    sums = scores.ClassSums(*(part.sum(2).double().unsqueeze(-2) for part in parts))
    spread = (torch.einsum("dknc,dnr->rdkc", part, weights).double().unsqueeze(-2) for part in parts)
    return sums, scores.ClassSums(*spread)


def expected(right: list, shares: list) -> torch.Tensor:
    """``(K, 1, C, C)`` of the population that `drawn` draws from."""
    right, shares = torch.tensor(right).double(), torch.tensor(shares).double()
    rates = ((1 - right) / (len(shares) - 1)).unsqueeze(-1).expand(-1, -1, len(shares)).clone()
    rates.diagonal(dim1=1, dim2=2).copy_(right)
    return (rates * shares.unsqueeze(-1)).unsqueeze(1)


COMMON = [0.5, 0.3, 0.2], [[0.5, 0.3, 0.2], [0.8, 0.5, 0.3], [0.5, 0.6, 0.4], [0.9, 0.75, 0.6]]
RARE = [0.6, 0.3, 0.06, 0.03, 0.01], [[0.5] * 5, [0.8, 0.5, 0.5, 0.3, 0.3], [0.5] * 5, [0.98, 0.97, 0.95, 0.95, 0.9]]
EVENTS = [0.97, 0.03], [[1.0, 0.0], [0.99, 0.3], [0.99, 0.2], [0.985, 0.6]]


@pytest.mark.parametrize(
    ("n", "population", "task", "per"),
    [
        (30, COMMON, "multiclass", 1),
        (200, COMMON, "multiclass", 1),
        (300, RARE, "multiclass", 1),
        (300, EVENTS, "binary", 1),
        (300, COMMON, "multiclass", 5),
        (200, COMMON, "multiclass", 20),
    ],
)
def test_intervals_hold_the_truth_of_rare_classes_few_samples_and_groups(n, population, task, per):
    shares, right = population
    truth, (sums, spread) = expected(right, shares), drawn(n, right, shares, per=per)
    groups = -(-n // per) if per > 1 else None
    for name in ("f1", "recall", "balanced_accuracy"):
        behind = scores.behind(name, sums, task)
        value, replicates = scores.score(name, sums, task), scores.score(name, spread, task)
        reach = uncertainty.mean_reach(*behind, harmonic=name == "f1")
        size = uncertainty.effective_size(behind.weights, behind.sizes)
        low, high = uncertainty.score_interval(value, replicates, size, groups=groups, reach=reach)
        held = ((low[:, -1] <= (exact := scores.score(name, truth, task))[-1]) & (exact[-1] <= high[:, -1])).double()
        assert held.mean() >= 0.89, (name, held.mean())
        drop = value[:, -1] - value[:, 1]
        total = uncertainty.least_size(behind.weights, behind.sizes).amin(-1)
        low, high = uncertainty.difference_interval(
            drop, replicates[:, :, -1] - replicates[:, :, 1], total, groups=groups
        )
        held = ((low <= exact[-1] - exact[1]) & (exact[-1] - exact[1] <= high)).double()
        assert held.mean() >= 0.9, (name, "drop", held.mean())


@pytest.mark.parametrize(("n", "share"), [(30, 0.04), (30, 0.08), (60, 0.04)])
@pytest.mark.parametrize("kept", [1, 0.9])
def test_drops_of_a_score_that_few_samples_move_hold_the_truth(n, share, kept):
    """Often no sample is right with all and wrong without; of acc2_nonzero only those `kept` count."""
    random = torch.Generator().manual_seed(0)
    counts = (torch.rand(200, n, generator=random) < kept).double()
    lost = (torch.rand(200, n, generator=random) < share) * counts
    weights = torch.poisson(torch.ones(100, 200, n), generator=random)
    replicates = (weights * lost).sum(-1) / (weights * counts).sum(-1)
    low, high = uncertainty.difference_interval(lost.sum(-1) / counts.sum(-1), replicates, n)
    assert ((low <= share) & (share <= high)).double().mean() >= 0.9


def test_three_missed_events_leave_f1_open():
    target = torch.zeros(300, dtype=torch.int64)
    target[:3] = 1
    metric = CoalitionConfusionMatrix(("text", "audio"), task="binary", bootstrap=200, coalitions=["all"])
    metric.update(torch.zeros(1, 300, dtype=torch.int64), target)
    low, high = metric.scorecard().interval("f1")
    assert (low, 0.5 < high < 0.8) == (0.0, True)


def test_multilabel_accuracy_counts_decisions():
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (500, 12), generator=random)
    preds = torch.where(torch.rand(500, 12, generator=random) < 0.9, target, 1 - target)
    metric = CoalitionConfusionMatrix(("text",), task="multilabel", num_labels=12, bootstrap=200, coalitions=["all"])
    metric.update(preds[None], target)
    low, high = metric.scorecard().interval("accuracy")
    wilson = [float(bound) for bound in uncertainty.wilson((preds == target).sum(), 6000)]
    assert high - low == pytest.approx(wilson[1] - wilson[0], rel=0.2)


def test_labels_that_were_not_seen_leave_a_mean_open():
    random = torch.Generator().manual_seed(0)
    target = (torch.rand(30, 5, generator=random) < 0.5).long()
    target[:, 3:] = 0  # of two labels there is no sample: they count 0, as torchmetrics has it
    metric = CoalitionConfusionMatrix(("text",), task="multilabel", num_labels=5, bootstrap=200, coalitions=["all"])
    metric.update(target[None], target)
    card = metric.scorecard()
    assert card.score("f1") == pytest.approx(0.6)
    low, high = card.interval("f1")
    assert 0.3 < low < 0.6
    assert high == 1


def test_contributions_stay_in_their_range():
    metric = CoalitionConfusionMatrix(("text", "audio"), task="binary", bootstrap=200)
    metric.update(torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]]), torch.tensor([1, 0]))
    card = metric.scorecard()
    for function, most in ((contributions.leave_one_out, 1), (contributions.shapley_interactions, 2)):
        value, low, high = card.apply(function, "f1")
        assert bool(((-most <= low) & (low <= value) & (value <= high) & (high <= most)).all())
    _, low, high = card.apply(contributions.interaction_share, "f1")
    assert 0 <= low <= high <= 1
    assert card.contributions("f1")["text"].drop == (1.0, pytest.approx(-1, abs=1), 1.0)


def test_paired_drops_are_narrower_than_unpaired():
    card = sample(400, 0)
    drop = card.contributions("accuracy")["audio"].drop
    whole, without = card.interval("accuracy"), card.interval("accuracy", coalition="text")
    unpaired = ((whole[1] - whole[0]) ** 2 + (without[1] - without[0]) ** 2) ** 0.5
    assert drop.high - drop.low < 0.85 * unpaired
    # And as the exact variance of paired differences has it.
    only_whole, only_without = card.discordant("all", "text")
    variance = ((only_whole + only_without) / 400 - ((only_whole - only_without) / 400) ** 2) / 400
    assert drop.high - drop.low == pytest.approx(2 * 1.96 * (variance + 1 / 400**2) ** 0.5, rel=0.15)


def test_more_confidence_is_wider():
    card = sample(200, 1)
    for score in ("accuracy", "f1", "matthews"):
        narrow, wide = card.interval(score, confidence=0.8), card.interval(score, confidence=0.99)
        assert wide[0] < narrow[0] < card.score(score) < narrow[1] < wide[1]


def test_without_bootstrap_only_proportions_have_an_interval():
    card = sample(100, 0, bootstrap=0)
    assert not any(map(math.isnan, card.interval("accuracy")))
    assert all(map(math.isnan, card.interval("f1")))
    assert all(map(math.isnan, card.contributions("f1")["text"].drop[1:]))
    assert not math.isnan(card.contributions("f1")["text"].drop.value)


@pytest.mark.parametrize(
    ("n", "per", "heavy", "slope"),
    [
        (30, 1, False, 0.9),
        (100, 1, True, 0.9),
        (100, 1, False, 0.3),
        (30, 1, False, 6.0),
        (100, 10, False, 0.9),
        (400, 10, True, 0.9),
    ],
)
def test_intervals_of_errors_and_correlations_hold_the_truth(n, per, heavy, slope):
    """300 data sets of numbers with normal or heavy errors, samples alone or in groups of ten that correlate by .3."""
    random, D = torch.Generator().manual_seed(1), 300

    def drawn(datasets, size, per):
        parts = []
        for _ in range(2):
            own, shared = (torch.randn(datasets, k, generator=random).double() for k in (size, -(-size // per)))
            together = math.sqrt(0.7) * own + math.sqrt(0.3) * shared[:, torch.arange(size) // per]
            parts.append(own if per == 1 else together)
        y, e = parts
        return slope * y + (e.sign() * e.abs() ** 1.8 if heavy else e) + 0.3, slope * y

    def sums(p, y):
        e = p - y
        return dict(zip(moments.ORDINAL, (e, e.abs(), e * e, y, p, y * p, y * y, p * p), strict=True))

    p, y = drawn(1, 400_000, 1)
    truth = moments.ordinal_scores({k: v.sum(-1) for k, v in sums(p, y).items()}, torch.tensor(400_000.0))
    p, y = drawn(D, n, per)
    value = moments.ordinal_scores({k: v.sum(-1) for k, v in sums(p, y).items()}, torch.tensor(float(n)))
    weights = torch.poisson(torch.ones(D, -(-n // per), 200), generator=random).double()[:, torch.arange(n) // per]
    spread = {k: torch.einsum("dn,dnr->rd", v, weights) for k, v in sums(p, y).items()}
    spread = moments.ordinal_scores(spread, weights.sum(1).T)
    for name, (scale, back) in {
        "mae": (torch.log, torch.exp),
        "rmse": (torch.log, torch.exp),
        "pearson": (torch.atanh, torch.tanh),
        "ccc": (torch.atanh, torch.tanh),
    }.items():
        low, high = moments.scaled_interval(value[name], spread[name], torch.tensor(n), 0.95, n // per, scale, back)
        held = ((low <= truth[name]) & (truth[name] <= high)).double().mean()
        assert 0.9 <= held <= 0.99, (name, held)


def test_an_interval_of_errors_is_in_their_unit():
    random, drops = torch.Generator().manual_seed(0), []
    y = torch.randn(30, generator=random)
    p = y + torch.tensor([[1.0], [0.8], [0.6], [0.4]]) * torch.randn(4, 30, generator=random)
    for unit in (1.0, 64.0):
        metric = CoalitionConfusionMatrix(("text", "audio"), task="ordinal", edges=(0.0,), bootstrap=100)
        metric.update(unit * p, unit * y, index=torch.arange(30))
        drops.append(torch.tensor(metric.scorecard().contributions("mae")["audio"].drop) / unit)
    torch.testing.assert_close(*drops, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("p", "y", "group"),
    [
        ([0.5], [1.0], None),
        ([1.0, -2.0], [1.0, -2.0], None),
        ([0.0] * 5, [1.0, 2.0, 0.0, -1.0, 3.0], None),
        ([1.5, 2.5, 0.5], [1.0, 2.0, 0.0], None),
        ([0.1, 2.0, -1.0, 0.3], [0.0, 1.5, -2.0, 0.0], [0, 0, 0, 0]),
        ([0.1, 2.0, -1.0, 0.3, 2.0], [0.0, 1.5, -2.0, 0.0, 1.0], [0, 1, 2, 2, 2]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_intervals_of_a_handful_of_numbers_are_wide_or_none(p, y, group, dtype):
    """One sample, all right, a constant answer, a constant error, one group and three of them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        metric = CoalitionConfusionMatrix(("text",), task="ordinal", edges="mosi", bootstrap=100, coalitions=["all"])
        metric.update(
            torch.tensor(p).float()[None], torch.tensor(y).float(), group=None if group is None else torch.tensor(group)
        )
        card = metric.scorecard()
        for score in card.further:
            (low, high), value = card.interval(score), card.score(score)
            if math.isnan(low + high):
                assert len(p) == 1 or math.isnan(value) or (group and len(set(group)) == 1), score
                continue
            assert low <= value <= high, score
            assert high - low > 0.05, score
    finally:
        torch.set_default_dtype(before)


def test_a_class_that_was_only_answered_leaves_macro_recall_open():
    """Its recall counts 0, as the libraries have it, and is not known: the truth may lie as far above."""
    target = torch.tensor([0, 1] * 50)
    preds = target.clone()
    preds[0] = 2
    metric = CoalitionConfusionMatrix(("text",), num_classes=3, bootstrap=100, coalitions=["all"])
    metric.update(preds[None], target)
    low, high = metric.scorecard().interval("recall")
    assert (low < 0.66 < high, high) == (True, pytest.approx(1, abs=0.01))


def test_matthews_without_a_single_event_is_open():
    metric = CoalitionConfusionMatrix(("text",), task="binary", bootstrap=100, coalitions=["all"])
    metric.update(torch.zeros(1, 30, dtype=torch.int64), torch.zeros(30, dtype=torch.int64))
    low, high = metric.scorecard().interval("matthews")
    assert low < -0.5
    assert high > 0.5


def test_a_label_that_was_not_seen_leaves_the_others_as_they_are():
    target = (torch.arange(60).unsqueeze(1) % torch.tensor([2, 3, 61]) == 1).long()
    target[:, 2] = 0
    metric = CoalitionConfusionMatrix(("text",), task="multilabel", num_labels=3, bootstrap=100, coalitions=["all"])
    metric.update(torch.where(torch.arange(60).unsqueeze(1) < 20, 0, target)[None], target)
    first, _, unseen = metric.scorecard().class_estimates("f1").values()
    assert first.high < 0.95
    assert math.isnan(unseen.value)


def held(name: str, scores: tuple[str, ...], data_sets: int = 60) -> dict[tuple[str, str], float]:
    """The coverage of each score, drop and difference in a regime of ``scripts/coverage.py``."""
    rows, _ = coverage_script.measured(coverage_script.REGIMES[name], data_sets, scores)
    return {(score, what): share for score, what, share, _, _ in rows if not math.isnan(share)}


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("binary 60, events 10%", ("matthews", "log_loss", "calibration_error", "dprime")),
        ("7 classes 30", ("average_precision", "precision", "balanced_accuracy")),
        ("5 labels 30, rarest 3%", ("matthews", "precision")),
    ],
)
def test_few_events_classes_that_are_left_out_and_scores_that_chance_raises_are_held(monkeypatch, name, scores):
    monkeypatch.setattr(coverage_script, "TRUTH_FROM", 20_000)
    for what, share in held(name, scores).items():
        assert share >= 0.88, (what, share)


def test_calibration_of_a_calibrated_model_may_be_none_and_of_another_is_not():
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, generator=random)
    target = (torch.rand(2000, generator=random) < logits.sigmoid()).long()
    metric = CoalitionConfusionMatrix(
        ("text",), task="binary", bootstrap=200, from_logits=True, scores=("calibration_error",)
    )
    metric.update(torch.stack([3 * logits, logits]), target)
    card = metric.scorecard()
    assert card.interval("calibration_error")[0] < 0.005 < card.score("calibration_error")
    assert card.interval("calibration_error", coalition="none")[0] > 0.05
    assert card.bound("calibration_error") == 0


@pytest.mark.parametrize("group", [None, torch.arange(60) // 3])
@pytest.mark.parametrize("score", ["precision", "recall", "f1", "f1_weighted", "jaccard"])
def test_a_label_that_is_never_counted_leaves_the_mean_of_the_others_its_interval(score, group):
    random = torch.Generator().manual_seed(0)
    target = torch.randint(2, (60, 3), generator=random)
    preds = torch.where(torch.rand(60, 3, generator=random) < 0.8, target, 1 - target)
    found = []
    for labels in (2, 3):
        how = {"task": "multilabel", "num_labels": labels, "bootstrap": 100, "ignore_index": -1}
        metric = CoalitionConfusionMatrix(("a", "b"), coalitions=["all"], **how)
        counted = torch.where(torch.arange(labels) < 2, target[:, :labels], -1)
        metric.update({"all": preds[:, :labels]}, counted, index=torch.arange(60), group=group)
        found.append(metric.scorecard().interval(score))
    assert found[1] == pytest.approx(found[0], abs=1e-9)


@pytest.mark.parametrize("n", [20, 50, 500])
@pytest.mark.parametrize(("task", "score"), [("binary", "f1"), ("binary", "jaccard"), ("multiclass", "f1")])
def test_one_more_error_near_the_ceiling_lowers_the_lower_end(n, task, score):
    target, lows = torch.arange(n) % 2, []
    for errors in range(5):
        size = {} if task == "binary" else {"num_classes": 2}
        metric = CoalitionConfusionMatrix(("a", "b"), task=task, coalitions=["all"], bootstrap=200, **size)
        preds = torch.where(torch.arange(n) < errors, 1 - target, target)
        metric.update({"all": preds}, target, index=torch.arange(n))
        lows.append(metric.scorecard().interval(score)[0])
    assert lows == sorted(lows, reverse=True)
