"""Weak slices are found where they were planted, and hardly ever where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mm_metrics import ModalityConfusionMatrix

LANGUAGES, CHANNELS = 4, 5


def card(seed, N=2000, weak=None, grouped=False, drop=0.25):
    random = np.random.default_rng(seed)
    language, channel = random.integers(LANGUAGES, size=N), random.integers(CHANNELS, size=N)
    speaker = random.integers(N // 10, size=N)
    presence = torch.tensor(random.random((N, 2)) < 0.8)
    chance = np.full(N, 0.85)
    if grouped:
        chance = chance - 0.3 * (random.random(N // 10) < 0.3)[speaker]
    if weak is not None:
        chance = chance - drop * weak(language, channel, presence.numpy())
    target = torch.tensor(random.integers(2, size=N))
    right = torch.tensor(random.random(N) < chance)
    metric = ModalityConfusionMatrix(
        ("text", "audio"), num_classes=2, bootstrap=100, by={"language": LANGUAGES, "channel": CHANNELS}
    )
    metric.update(
        torch.where(right, target, 1 - target),
        target,
        presence,
        torch.arange(N),
        by={"language": torch.tensor(language), "channel": torch.tensor(channel)},
        group=torch.tensor(speaker) if grouped else None,
    )
    return metric.scorecard()


@pytest.mark.parametrize(
    ("weak", "names"),
    [
        (lambda language, channel, presence: language == 2, {"language/2"}),
        (lambda language, channel, presence: (language == 1) & (channel == 3), {"language/1", "channel/3"}),
        (lambda language, channel, presence: (channel == 0) & presence[:, 1], {"channel/0", "audio"}),
    ],
)
def test_a_planted_weak_slice_is_found(weak, names):
    found = 0
    for seed in range(3):
        slices = card(seed, 4000, weak, drop=0.35).weak_slices("accuracy", 5)
        assert all(s.difference.high < 0 and s.p_value <= 0.05 for s in slices)
        found += any(set(s.slice) & names for s in slices)
    assert found == 3


@pytest.mark.parametrize("grouped", [False, True])
def test_none_is_found_where_there_is_none(grouped):
    alarms = sum(bool(card(seed, 1000, grouped=grouped).weak_slices("accuracy")) for seed in range(16))
    assert alarms <= 3  # at most 5% are due; 4 of 16 would come once in 150 times


def test_the_largest_difference_between_values():
    tally = card(0, weak=lambda language, channel, presence: language == 2)
    gap = tally.disparity("accuracy", "language")
    scores = [tally.score("accuracy", slice=f"language/{i}") for i in range(LANGUAGES)]
    assert gap.difference.value == pytest.approx(max(scores) - min(scores))
    assert gap.ratio.value == pytest.approx(min(scores) / max(scores))
    assert gap.worst == "language/2"
    assert 0 < gap.difference.low < gap.difference.value < gap.difference.high
    with pytest.raises(ValueError, match="column 'sex'"):
        tally.disparity("accuracy", "sex")


def test_without_columns_there_are_no_weak_slices():
    metric = ModalityConfusionMatrix(("text",), num_classes=2, bootstrap=20)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="by="):
        metric.scorecard().weak_slices("accuracy")
