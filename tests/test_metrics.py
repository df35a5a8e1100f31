"""The classes against torchmetrics' own, slice by slice."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import classification as tm

from mm_metrics import (
    CoalitionConfusionMatrix,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityPrecision,
    ModalityRecall,
)

NAMES = ("text", "image", "audio")
OURS = {
    "Accuracy": ModalityAccuracy,
    "Precision": ModalityPrecision,
    "Recall": ModalityRecall,
    "F1Score": ModalityF1Score,
}
KEYS = {"Accuracy": "accuracy", "Precision": "precision", "Recall": "recall", "F1Score": "f1"}


def batches(seed: int, shape: tuple, C: int, scores: bool, ignore_index: int | None):
    random = torch.Generator().manual_seed(seed)
    for n in (17, 1, 30):
        target = torch.randint(C, (n, *shape), generator=random)
        if ignore_index is not None and ignore_index < 0:
            target[torch.rand(target.shape, generator=random) < 0.2] = ignore_index
        preds = torch.randint(C, (n, *shape), generator=random)
        if scores:
            preds = torch.rand((n, *shape, C) if C > 2 else (n, *shape), generator=random)
        yield preds, target, torch.rand(n, 3, generator=random) < torch.tensor([0.9, 0.4, 0.2])


def same_per_slice(ours, peer, data, key):
    """Our one metric against one of torchmetrics' for each slice."""
    peers = [peer.clone() for _ in range(4)]
    for preds, target, presence in data:
        ours.update(preds, target, presence)
        for s, other in enumerate(peers):
            rows = torch.ones(len(target), dtype=torch.bool) if s == 0 else presence[:, s - 1]
            if rows.any():
                other.update(preds[rows], target[rows])
    values = ours.compute()
    for s, (name, other) in enumerate(zip(ours.slices, peers, strict=True)):
        value = values[s] if isinstance(values, torch.Tensor) else values[f"{name}/{key}"]
        torch.testing.assert_close(value, other.compute(), msg=f"{name} {key}")


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("ignore_index", [None, -1])
def test_multiclass(name, average, scores, ignore_index):
    arguments = {"num_classes": 5, "average": average, "ignore_index": ignore_index}
    peer = getattr(tm, f"Multiclass{name}")(**arguments)
    data = batches(len(average), (), 5, scores, ignore_index)
    same_per_slice(OURS[name](NAMES, **arguments), peer, data, KEYS[name])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("ignore_index", [None, -1])
def test_binary(name, threshold, scores, ignore_index):
    arguments = {"threshold": threshold, "ignore_index": ignore_index}
    peer = getattr(tm, f"Binary{name}")(**arguments)
    same_per_slice(
        OURS[name](NAMES, task="binary", **arguments), peer, batches(1, (), 2, scores, ignore_index), KEYS[name]
    )


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("ignore_index", [None, -1])
def test_multilabel(name, average, scores, ignore_index):
    arguments = {"num_labels": 4, "average": average, "ignore_index": ignore_index}
    peer = getattr(tm, f"Multilabel{name}")(**arguments)
    data = batches(2, (4,), 2, scores, ignore_index)
    same_per_slice(OURS[name](NAMES, task="multilabel", **arguments), peer, data, KEYS[name])


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("ignore_index", [None, -1, 1])
def test_confusion_matrices(scores, ignore_index):
    for kind, task, shape, C in (
        ("Multiclass", {"num_classes": 5}, (), 5),
        ("Binary", {}, (), 2),
        ("Multilabel", {"num_labels": 3}, (3,), 2),
    ):
        if kind == "Binary" and ignore_index == 1:
            continue
        peer = getattr(tm, f"{kind}ConfusionMatrix")(ignore_index=ignore_index, **task)
        ours = ModalityConfusionMatrix(NAMES, task=kind.lower(), ignore_index=ignore_index, **task)
        same_per_slice(ours, peer, batches(3, shape, C, scores, ignore_index), "confusion")


def test_a_threshold_for_each_label():
    random = torch.Generator().manual_seed(0)
    preds, target = torch.rand(60, 3, generator=random), torch.randint(2, (60, 3), generator=random)
    thresholds = (0.2, 0.5, 0.9)
    ours = ModalityConfusionMatrix(NAMES, task="multilabel", num_labels=3, threshold=thresholds)
    ours.update(preds, target)
    logits = ModalityConfusionMatrix(NAMES, task="multilabel", num_labels=3, threshold=thresholds, from_logits=True)
    logits.update(preds.logit(), target)
    for label, threshold in enumerate(thresholds):
        peer = tm.BinaryConfusionMatrix(threshold=threshold)
        expected = peer(preds[:, label], target[:, label])
        assert torch.equal(ours.compute()[0, label], expected)
        assert torch.equal(logits.compute()[0, label], expected)


def test_two_columns_are_binary_scores():
    scores = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    target = torch.tensor([0, 1])
    for from_logits, preds in ((False, scores), (True, scores.log())):
        metric = ModalityConfusionMatrix(NAMES, task="binary", from_logits=from_logits)
        metric.update(preds, target)
        assert metric.compute()[0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("eager", [None, False])
def test_two_columns_that_say_nothing_are_refused(eager):
    target = torch.tensor([0, 1])
    for from_logits, preds in (
        (True, [[math.inf, math.inf], [0.0, 1.0]]),
        (True, [[-math.inf, -math.inf], [0.0, 1.0]]),
        (False, [[0.9, 0.8], [0.3, 0.7]]),
        (False, [[0.1, 0.2], [0.3, 0.7]]),
    ):
        metric = ModalityConfusionMatrix(NAMES, task="binary", from_logits=from_logits, validate_args=eager)
        with pytest.raises(ValueError, match="pred"):
            (metric.update(torch.tensor(preds), target), metric.compute())
    metric = ModalityConfusionMatrix(NAMES, task="binary", from_logits=True)
    metric.update(torch.tensor([[math.inf, 0.0], [-math.inf, math.inf]]), target)
    assert metric.compute()[0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_threshold_is_not_rounded_to_half_precision(dtype):
    logits = torch.linspace(-3, 3, 4001).to(dtype)
    metric = ModalityConfusionMatrix(NAMES, task="binary", from_logits=True, threshold=0.3)
    metric.update(logits, torch.ones(4001, dtype=torch.int64))
    assert int(metric.compute()[0, 1, 1]) == int((logits.double() > math.log(0.3 / 0.7)).sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_each_coalition_is_its_own_confusion_matrix(seed):
    random = torch.Generator().manual_seed(seed)
    preds, target = torch.rand(8, 20, 3, generator=random), torch.randint(3, (20,), generator=random)
    presence = torch.rand(20, 3, generator=random) < 0.5
    together = CoalitionConfusionMatrix(NAMES, num_classes=3)
    together.update(preds, target, presence)
    by_name = CoalitionConfusionMatrix(NAMES, num_classes=3)
    by_name.update({name: preds[k] for k, name in reversed(list(enumerate(together.coalitions)))}, target, presence)
    one_by_one = CoalitionConfusionMatrix(NAMES, num_classes=3)
    for k, name in enumerate(together.coalitions):
        one_by_one.update({"-".join(reversed(name.split("-"))): preds[k]}, target, presence)
    for k in range(8):
        alone = ModalityConfusionMatrix(NAMES, num_classes=3)
        alone.update(preds[k], target, presence)
        for metric in (together, by_name, one_by_one):
            assert torch.equal(metric.compute()[k], alone.compute())
    assert together.scorecard() == by_name.scorecard()
    assert one_by_one.scorecard().samples == 20


def test_coalitions_that_were_not_given_score_nan():
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3)
    metric.update({"text": torch.tensor([0, 1])}, torch.tensor([0, 2]))
    card = metric.scorecard()
    assert card.score("accuracy", "text") == 0.5
    assert torch.tensor(card.score("accuracy", "all")).isnan()


def test_unanswered_samples_count_for_nobody():
    counted = torch.tensor([[True, False], [True, True]])
    metric = CoalitionConfusionMatrix(("a",), num_classes=2)
    metric.update(torch.tensor([[0, 0], [0, 1]]), torch.tensor([0, 1]), counted=counted)
    assert metric.compute()[:, 0].sum((1, 2)).tolist() == [1, 2]
    assert metric.scorecard().discordant("none", "all") == (0, 0)
