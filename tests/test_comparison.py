"""Two cards: paired where they saw the same samples, honest where they did not."""

import math

import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix

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
    assert (high - low) / 2 == pytest.approx(1.96 * math.hypot(float(spread.std()), 1 / 400), rel=1e-3)
    assert (old - new).interval("f1") == pytest.approx((-high, -low))


def test_a_card_against_itself_is_no_difference():
    value = card(0.85, 1)
    low, high = (value - value).interval("f1")
    assert (value - value).score("f1") == 0
    assert low < 0 < high < 0.01


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


@pytest.mark.slow
def test_paired_differences_hold_the_truth():
    held = 0
    for seed in range(200):
        low, high = (card(0.85, 2 * seed + 1, data=seed) - card(0.8, 2 * seed, data=seed)).interval("accuracy")
        held += low <= 0.05 <= high
    assert 0.92 <= held / 200 <= 0.985
