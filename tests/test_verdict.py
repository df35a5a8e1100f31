"""The verdict against the source text's examples and against an independent reading of its rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, QualityGate
from mm_metrics.verdict import Finding

NAMES = ("text", "image", "audio")


def binary_card(tp, fn, fp, tn, slices=None, bootstrap=0):
    target = torch.tensor([1] * (tp + fn) + [0] * (fp + tn))
    preds = torch.tensor([1] * tp + [0] * fn + [1] * fp + [0] * tn)
    metric = ModalityConfusionMatrix(("text", "audio"), task="binary", bootstrap=bootstrap)
    metric.update(preds, target, slices)
    return metric.scorecard()


def class_card(confusion, bootstrap=0):
    confusion = np.asarray(confusion)
    rows, columns = np.indices(confusion.shape)
    target = torch.as_tensor(np.repeat(rows.ravel(), confusion.ravel()))
    preds = torch.as_tensor(np.repeat(columns.ravel(), confusion.ravel()))
    metric = ModalityConfusionMatrix(("text", "audio"), num_classes=len(confusion), bootstrap=bootstrap)
    metric.update(preds, target)
    return metric.scorecard()


def test_source_text_good_example():
    card = binary_card(85, 15, 10, 90, bootstrap=200)
    verdict = card.verdict()
    scores = [round(card.score(name), 4) for name in ("accuracy", "precision", "recall", "f1")]
    assert scores == [0.875, 0.8947, 0.85, 0.8718]
    assert (verdict.level, verdict.firm, verdict.findings, verdict.number) == ("good", False, (), 2)
    low, high = card.interval("accuracy")
    assert (round(low, 2), round(high, 2)) == (0.82, 0.91)


def test_ninety_eight_percent_accuracy_with_twelve_percent_of_the_audio_events():
    n, text_events, audio_events, heard = 7000, 700, 150, 18
    target, preds = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    target[: text_events + audio_events] = 1
    preds[: text_events + heard] = 1
    carriers = torch.zeros(n, 2, dtype=torch.bool)
    carriers[:text_events, 0] = True
    carriers[text_events : text_events + audio_events, 1] = True
    metric = ModalityConfusionMatrix(("text", "audio"), task="binary")
    metric.update(preds, target, carriers)
    verdict = metric.scorecard().verdict()
    assert verdict.level == "bad"
    assert verdict.firm
    assert (verdict.findings[0].kind, verdict.findings[0].modality) == ("accuracy_paradox", "audio")
    assert verdict.headline == (
        "BAD: audio recall 0.12 [.08, .18] on 150 audio events. Overall accuracy 0.98 hides it."
    )


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ((9, 0, 0, 500), "undecided"),  # nine events are too few to speak of recall
        ((10, 0, 0, 500), "good"),
        ((12, 0, 0, 12), "undecided"),  # 24 samples are too few for anything
        ((0, 12, 0, 12), "undecided"),
        ((60, 40, 10, 90), "mixed"),
        ((30, 70, 0, 900), "bad"),
    ],
)
def test_thin_support_and_levels(counts, level):
    assert binary_card(*counts).verdict().level == level


def independent_level(tp, fn, fp, tn):
    """The rules of the design for a binary card whose slices are all the same, read again without the library."""
    n = tp + fn + fp + tn
    if n < 30:
        return "undecided"
    accuracy = (tp + tn) / n
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0

    def wilson(k, m):
        if not m:
            return math.nan, math.nan
        z = 1.959963984540054
        p = k / m
        centre, half = p + z * z / (2 * m), z * math.sqrt(p * (1 - p) / m + z * z / (4 * m * m))
        return (centre - half) / (1 + z * z / m), (centre + half) / (1 + z * z / m)

    answers = []
    for value, (low, high), (bad, good) in (
        (accuracy, wilson(tp + tn, n), (0.70, 0.85)),
        (precision, wilson(tp, tp + fp), (0.50, 0.80)),
        (recall, wilson(tp, tp + fn), (0.50, 0.80)),
    ):
        thin = bad == 0.50 and (low, high) == wilson(tp, tp + fn) and tp + fn < 10
        if thin or (low < bad and high > good):
            answers.append("undecided")
        else:
            answers.append("bad" if value < bad else "good" if value > good else "mixed")
    answers.append("good" if f1 >= 0.80 else "mixed")
    answers.append("bad" if abs(precision - recall) > 0.30 else "good")
    return next(level for level in ("bad", "undecided", "mixed", "good") if level in answers)


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[st.integers(0, 120)] * 4).filter(lambda c: sum(c) > 0 and c[0] + c[1] > 9))
def test_against_an_independent_reading_of_the_rules(counts):
    assert binary_card(*counts).verdict().level == independent_level(*counts)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 200), st.integers(1, 200), st.integers(2, 40))
def test_firm_only_grows_with_more_of_the_same_data(tp, fn, fp, tn, times):
    small, large = binary_card(tp, fn, fp, tn), binary_card(tp * times, fn * times, fp * times, tn * times)
    if small.verdict().firm:
        assert large.verdict().firm
        assert large.verdict().level == small.verdict().level


def test_a_class_that_is_missed_is_a_paradox():
    verdict = class_card([[900, 0, 0], [0, 80, 0], [15, 0, 5]]).verdict()
    assert verdict.level == "bad"
    assert (verdict.findings[0].kind, verdict.findings[0].class_name) == ("accuracy_paradox", "2")


def test_beyond_twenty_classes_only_sure_or_critical_ones_set_the_level():
    good, shaky = np.eye(30, dtype=int) * 40, 12
    confusion = good.copy()
    confusion[3] = 0
    confusion[3, 3], confusion[3, 4] = 5, shaky - 5  # recall 0.42 on 12 samples: sure of nothing among 30 classes
    listed = class_card(confusion).verdict()
    assert listed.level == "good"
    assert [finding.class_name for finding in listed.findings] == ["3"]
    assert class_card(confusion).verdict(QualityGate(critical=["3"])).level == "bad"
    confusion[3, 3], confusion[3, 4] = 2, 38
    assert class_card(confusion).verdict().level == "bad"


def test_thresholds_per_modality_and_whose_bar_it_is():
    card = binary_card(85, 15, 10, 90)
    strict = card.verdict(QualityGate(recall={"audio": (0.86, 0.95)}))
    assert (strict.level, strict.findings[0].modality, strict.findings[0].threshold) == ("bad", "audio", 0.86)
    assert "default" in card.verdict().notes[0]
    assert "given" in strict.notes[0]
    assert "0.50" in card.verdict().notes[1]  # guessing the majority


def test_unused_and_dominant_modalities_are_named_and_set_no_level():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (2000,), generator=generator)
    guess = torch.randint(3, (2000,), generator=generator)
    rows = [target if mask & 1 else guess for mask in range(8)]  # text knows it all, image and audio nothing
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=200)
    metric.update(torch.stack(rows), target)
    verdict = metric.scorecard().verdict()
    kinds = {(finding.kind, finding.modality) for finding in verdict.findings}
    assert kinds == {("unused_modality", "image"), ("unused_modality", "audio"), ("dominant_modality", "text")}
    assert verdict.level == "good"


def test_leakage_spoils_a_good_verdict():
    leak = Finding("leakage", "audio", "share", 0.1, math.nan, math.nan, 0.0, "10% of test was heard in training")
    verdict = binary_card(850, 50, 50, 850).verdict(extra=[leak])
    assert (verdict.level, verdict.findings[0].kind) == ("mixed", "leakage")


def test_accuracy_proves_nothing_in_multilabel():
    target = torch.zeros(200, 5, dtype=torch.int64)
    target[:40, 0] = 1
    metric = ModalityConfusionMatrix(("text", "audio"), task="multilabel", num_labels=5)
    metric.update(torch.zeros_like(target), target)
    card = metric.scorecard()
    assert card.score("accuracy") > 0.95
    assert card.verdict().level == "bad"


def test_an_empty_slice_is_undecided_and_nothing_else():
    presence = torch.tensor([[True, False]] * 200)
    verdict = binary_card(85, 15, 10, 90, presence).verdict()
    assert verdict.level == "undecided"
    assert {finding.modality for finding in verdict.findings} == {"audio"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recall": (0.9, 0.5)}, "bad <= good"),
        ({"recall": "high"}, "threshold 'high'"),
        ({"accuracy": {"text": 1.5}}, "accuracy=1.5 for 'text'"),
        ({"gap": 2}, "gap=2"),
    ],
)
def test_thresholds_that_make_no_sense(arguments, words):
    with pytest.raises(ValueError, match=words):
        QualityGate(**arguments)


def test_names_that_the_card_does_not_have():
    with pytest.raises(ValueError, match="recall has bars for"):
        binary_card(85, 15, 10, 90).verdict(QualityGate(recall={"video": 0.9}))
    with pytest.raises(ValueError, match="critical names"):
        binary_card(85, 15, 10, 90).verdict(QualityGate(critical=["fire"]))
