"""Two cards: paired where they saw the same samples, honest where they did not."""

import math

import numpy as np
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix
from mm_metrics.counts import replicates
from mm_metrics.counts.compare import Comparison
from mm_metrics.uncertainty import poisson_weights, stream_key
from mm_metrics.verdict.regression import changes

NAMES = ("text", "audio")


def card(accuracy: float, seed: int, n: int = 400, start: int = 0, data: int = 0, **more):
    """Two models with the same `data` meet the same difficulties, and differ by `seed` in a few samples."""
    shared = torch.Generator().manual_seed(data)
    target = torch.randint(3, (n,), generator=shared)
    difficulty = torch.rand(n, generator=shared)
    own = torch.Generator().manual_seed(seed)
    luck = torch.where(torch.rand(n, generator=own) < 0.9, difficulty, torch.rand(n, generator=own))
    preds = torch.where(luck < accuracy, target, (target + 1) % 3)
    metric = CoalitionConfusionMatrix(NAMES, **({"num_classes": 3, "bootstrap": 200, "coalitions": ["all"]} | more))
    metric.update(preds.unsqueeze(0), target, index=torch.arange(n) + start)
    return metric.scorecard()


def union(value):
    confusion = value.confusion()
    return (confusion.sum(0) + confusion.sum(1) - confusion.diagonal()).tolist()


def width(comparison, score="accuracy"):
    low, high = comparison.interval(score)
    return high - low


def test_the_same_samples_are_paired_and_narrower():
    paired = card(0.85, 1) - card(0.8, 2)
    unpaired = card(0.85, 1, data=1, start=10_000) - card(0.8, 2)
    assert paired.paired
    assert not unpaired.paired
    assert width(paired) < 0.75 * width(unpaired)
    both = [card(0.85, 1).interval("accuracy"), card(0.8, 2).interval("accuracy")]
    apart = math.hypot(*(high - low for low, high in both))
    assert width(unpaired) == pytest.approx(apart, rel=0.15)


def test_the_paired_interval_is_that_of_the_differences():
    new, old = card(0.85, 1), card(0.8, 2)
    assert (new - old).score("accuracy") == new.score("accuracy") - old.score("accuracy")
    assert (new - old).estimate("f1")[0] == new.score("f1") - old.score("f1")
    spread = new.replicate_scores("f1") - old.replicate_scores("f1")
    low, high = (new - old).interval("f1")
    sizes = [min(part[c] for part in (union(new), union(old))) for c in range(3)]  # one more sample of each class
    n = 1 / math.hypot(*(1 / 3 / (size + 2) for size in sizes)) - 2
    seen, least = n / (n + 2) * float(spread.std()), math.sqrt(2) / (n + 2)  # two samples more that disagree
    assert (high - low) / 2 == pytest.approx(1.96 * math.hypot(seen, least), rel=1e-3)
    assert (old - new).interval("f1") == pytest.approx((-high, -low))


def test_a_card_against_itself_is_no_difference():
    value = card(0.85, 1)
    low, high = (value - value).interval("accuracy")
    assert (value - value).score("accuracy") == 0
    assert -low == high == pytest.approx(1.96 * 2**0.5 / 402, rel=1e-3)  # Bonett and Price of no discordant pair


def test_rows_that_one_side_skipped_do_not_unpair_the_rest():
    whole, n = card(0.85, 1), 400
    target = torch.randint(3, (n,), generator=torch.Generator().manual_seed(0))
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=200, coalitions=["all"])
    kept = torch.arange(n) % 50 != 7  # 8 rows could not be read
    metric.update(target[kept].unsqueeze(0), target[kept], index=torch.arange(n)[kept])
    paired, perfect = whole - metric.scorecard(), width(whole - card(1.1, 3))
    assert paired.paired
    assert width(paired) == pytest.approx(perfect, rel=0.1)


def test_other_samples_of_the_same_numbers_are_not_paired():
    assert not (card(0.85, 1) - card(0.85, 1, data=1)).paired
    assert not (card(0.85, 1, n=60) - card(0.85, 1, n=60, data=1)).paired


def test_cards_of_one_data_set_do_not_add_up():
    with pytest.raises(ValueError, match="new - old"):
        card(0.85, 1) + card(0.8, 2)
    assert (card(0.85, 1) + card(0.8, 2, start=400)).samples == 800


def test_contributions_and_classes_of_a_difference():
    def both(seed, skill):
        shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
        target = torch.randint(3, (300,), generator=shared)
        luck = torch.rand(300, generator=shared) * 0.7 + torch.rand(300, generator=own) * 0.3
        right = luck < torch.tensor([0.3, skill, 0.4, 0.9]).unsqueeze(1)
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=200)
        metric.update(torch.where(right, target, (target + 1) % 3), target, index=torch.arange(300))
        return metric.scorecard()

    new, old = both(1, 0.8), both(2, 0.4)
    difference = new - old
    for name in NAMES:
        mine, first, second = (part.contributions("f1")[name] for part in (difference, new, old))
        for part, x, y in zip(mine, first, second, strict=True):
            assert part.value == pytest.approx(x.value - y.value)
            assert part.low < part.value < part.high
    # Text alone got better, so that audio is missed less.
    assert (
        difference.contributions("f1")["text"].unimodal_gain.low
        > 0.2
        > difference.contributions("f1")["audio"].drop.high
    )
    values = difference.class_estimates("recall", coalition="text")
    for name, part in values.items():
        assert part.value == pytest.approx(
            new.class_scores("recall", "text")[name] - old.class_scores("recall", "text")[name]
        )
        assert 0 < part.low < part.high <= 1
    assert "What each modality gives more" in difference.table()


def test_seeds_that_differ_widen_a_difference():
    news, olds = [card(0.8, seed) for seed in (1, 2, 3)], [card(0.8, seed) for seed in (4, 5)]
    several = Comparison(news[0], olds[0], tuple(news[1:]), tuple(olds[1:]))
    assert several.paired
    values = [[part.score("accuracy") for part in side] for side in (news, olds)]
    assert several.score("accuracy") == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    spare = (2 * np.var(values[0], ddof=1) + np.var(values[1], ddof=1)) / 3 * (1 / 3 + 1 / 2)
    spread = [np.mean([part.replicate_scores("accuracy").numpy() for part in side], axis=0) for side in (news, olds)]
    data = np.var(spread[0] - spread[1], ddof=1) * (400 / 402) ** 2 + 2 / 402**2
    assert several.difference("accuracy").error == pytest.approx((spare + data) ** 0.5)
    assert several.difference("accuracy").freedom == pytest.approx((spare + data) ** 2 / (spare**2 / 3))


def test_another_seed_is_not_paired():
    assert not (card(0.8, 1) - reseeded()).paired


def reseeded():
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=200, coalitions=["all"], seed=5)
    target = torch.randint(3, (400,), generator=torch.Generator().manual_seed(0))
    metric.update(target.unsqueeze(0), target, index=torch.arange(400))
    return metric.scorecard()


def test_fewer_replicates_on_one_side_still_pair():
    few, many = card(0.85, 1, bootstrap=100), card(0.8, 2)
    assert (few - many).paired
    assert width(few - many) == pytest.approx(width(card(0.85, 1) - many), rel=0.35)


def test_without_replicates_no_interval():
    comparison = card(0.85, 1, bootstrap=0) - card(0.8, 2)
    assert all(map(math.isnan, comparison.interval("f1")))
    assert not math.isnan(comparison.score("f1"))


def test_other_classes_do_not_compare():
    metric = CoalitionConfusionMatrix(NAMES, num_classes=4)
    with pytest.raises(ValueError, match="classes"):
        card(0.8, 1) - metric.scorecard()
    with pytest.raises(ValueError, match="modalities"):
        card(0.8, 1) - CoalitionConfusionMatrix(("text",), num_classes=3).scorecard()


def test_equal_models_rarely_fall_against_each_other():
    """Two models of accuracy .75 whose errors correlate by .3 within each of 30 speakers, asked 12 questions."""
    random, flagged, n = np.random.default_rng(0), 0, 300
    for _ in range(25):
        target, presence = torch.tensor(random.integers(0, 3, n)), torch.tensor(random.random((n, 2)) < 0.7)
        sides = []
        for _ in range(2):
            luck = 0.45**0.5 * np.repeat(random.normal(size=n // 10), 10) + 0.55**0.5 * random.normal(size=n)
            metric = ModalityConfusionMatrix(NAMES, num_classes=3, bootstrap=100)
            preds = torch.where(torch.tensor(luck) < 0.674, target, (target + 1) % 3)
            metric.update(preds, target, presence, index=torch.arange(n), group=torch.arange(n) // 10)
            sides.append(metric.scorecard())
        flagged += any(change.fell for change in changes(sides[0] - sides[1]))
    assert flagged <= 2


@pytest.mark.slow
def test_paired_differences_hold_the_truth():
    held = 0
    for seed in range(200):
        low, high = (card(0.85, 2 * seed + 1, data=seed) - card(0.8, 2 * seed, data=seed)).interval("accuracy")
        held += low <= 0.05 <= high
    assert 0.92 <= held / 200 <= 0.985


def test_replicates_of_slices_beyond_patterns_are_each_coalitions_own(monkeypatch):
    """Five modalities: cells are slices, and where a sample counts must not be taken for an axis of coalitions."""
    monkeypatch.setattr(replicates, "_SUMS_AT_ONCE", 1)  # one coalition at a time, as large layouts are
    random = torch.Generator().manual_seed(0)
    names = tuple("abcde")
    target, presence = torch.randint(3, (50,), generator=random), torch.rand(50, 5, generator=random) < 0.5
    metric = CoalitionConfusionMatrix(names, num_classes=3, bootstrap=20, coalitions="leave_one_out")
    preds = torch.randint(3, (len(metric.coalitions), 50), generator=random)
    metric.update(preds, target, presence, index=torch.arange(50))
    weights = poisson_weights(torch.arange(50), 20, stream_key(0)).double()  # (N, R)
    for slice, inside in (("all", torch.ones(50)), ("b", presence[:, 1]), ("e", presence[:, 4])):
        expected = torch.einsum("kn,n,nr->rk", (preds == target).double(), inside.double(), weights)
        assert torch.equal(metric.scorecard().replicate_sums(slice).hits.sum((-1, -2)), expected.long())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_class_difference_is_as_exact_as_the_scores_whatever_the_default_dtype(dtype):
    new, old = card(0.8, 1), card(0.7, 2)
    expected = {name: new.class_scores("f1")[name] - old.class_scores("f1")[name] for name in new.names}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = {name: estimate.value for name, estimate in (new - old).class_estimates("f1").items()}
    finally:
        torch.set_default_dtype(before)
    assert found == pytest.approx(expected, abs=1e-12)


def test_differences_of_an_unbounded_score_in_groups_have_an_interval_or_none():
    random = torch.Generator().manual_seed(8)
    target = torch.randint(3, (60,), generator=random)

    def card():
        metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=3, bootstrap=40, scores=("auroc", "dprime"))
        logits = torch.randn(4, 60, 3, generator=random) + torch.nn.functional.one_hot(target, 3)
        metric.update(logits, target, index=torch.arange(60), group=torch.arange(60) % 7)
        return metric.scorecard()

    new, old = card(), card()
    for of_modality in (new - old).contributions("dprime").values():
        for estimate in of_modality:
            assert not estimate.low > estimate.value
            assert not estimate.value > estimate.high
    for estimate in (new - old).class_estimates("dprime").values():
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("groups", [None, 3])
def test_an_infinite_difference_has_an_open_interval(groups):
    def card(scores, target):
        metric = CoalitionConfusionMatrix(
            ("text", "audio"), task="binary", coalitions=["all"], scores=("dprime",), bootstrap=50
        )
        group = None if groups is None else torch.arange(len(target)) % groups
        metric.update(scores[None], target, index=torch.arange(len(target)), group=group)
        return metric.scorecard()

    target = torch.arange(30) % 2
    apart, mixed = card(target * 0.6 + 0.2, target), card(torch.linspace(0.1, 0.9, 30), target)
    found = (apart - mixed).estimate("dprime")
    assert (found.value, found.low, found.high) == (math.inf, -math.inf, math.inf)
