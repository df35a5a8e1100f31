"""Scores against scikit-learn, torchmetrics and fairlearn, and the laws they obey."""

import warnings

import numpy as np
import pandas
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional as tm
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mm_metrics import ModalityConfusionMatrix, scores

SKLEARN = {
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "f1": sk.f1_score,
    "jaccard": sk.jaccard_score,
}
TORCHMETRICS = {
    "accuracy": tm.classification.multiclass_accuracy,
    "precision": tm.classification.multiclass_precision,
    "recall": tm.classification.multiclass_recall,
    "f1": tm.classification.multiclass_f1_score,
    "specificity": tm.classification.multiclass_specificity,
    "jaccard": tm.classification.multiclass_jaccard_index,
}
confusions = st.integers(2, 5).flatmap(lambda C: arrays(np.int64, (C, C), elements=st.integers(0, 9)))


def labels(seed: int, C: int, N: int = 60, absent: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions where the last `absent` classes never occur and one occurs on one side only."""
    random = np.random.default_rng(seed)
    target = random.integers(0, C - absent, N)
    prediction = np.where(random.random(N) < 0.6, target, random.integers(0, C - absent, N))
    if seed % 2:
        target[target == 0] = 1
    return target, prediction


def confusion(target, prediction, C: int) -> torch.Tensor:
    return torch.as_tensor(sk.confusion_matrix(target, prediction, labels=range(C)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("absent", [0, 2])
def test_as_scikit_learn_has_it(seed, absent):
    C = 3 + seed % 4
    target, prediction = labels(seed, C, absent=min(absent, C - 2))
    counts = confusion(target, prediction, C)
    seen = sorted({*target, *prediction})  # scikit-learn's own default: classes on neither side are left out
    for name, reference in SKLEARN.items():
        for average in ("macro", "micro", "weighted", None):
            classes = range(C) if average is None else seen
            expected = reference(target, prediction, labels=classes, average=average, zero_division=0)
            ours = getattr(scores, name)(counts, average)
            np.testing.assert_allclose(ours, expected, atol=1e-12, err_msg=f"{name} {average}")
    beta = sk.fbeta_score(target, prediction, beta=0.5, labels=seen, average="macro", zero_division=0)
    np.testing.assert_allclose(scores.fbeta(counts, 0.5), beta)
    np.testing.assert_allclose(scores.accuracy(counts), sk.accuracy_score(target, prediction))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        np.testing.assert_allclose(scores.balanced_accuracy(counts), sk.balanced_accuracy_score(target, prediction))
    np.testing.assert_allclose(scores.matthews(counts), sk.matthews_corrcoef(target, prediction), atol=1e-12)
    np.testing.assert_allclose(scores.cohen_kappa(counts), sk.cohen_kappa_score(target, prediction), atol=1e-12)
    np.testing.assert_array_equal(scores.support(counts, "none"), np.bincount(target, minlength=C))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", TORCHMETRICS)
def test_as_torchmetrics_has_it(seed, name):
    C = 3 + seed % 3
    target, prediction = map(torch.as_tensor, labels(seed, C, absent=seed % 2))
    counts = confusion(target, prediction, C)
    for average in ("macro", "micro", "weighted", "none"):
        expected = TORCHMETRICS[name](prediction, target, num_classes=C, average=average)
        torch.testing.assert_close(getattr(scores, name)(counts, average).float(), expected, msg=f"{average}")


@pytest.mark.parametrize("seed", range(4))
def test_binary_reads_class_one(seed):
    target, prediction = labels(seed, 2)
    target[:5] = 0
    counts = confusion(target, prediction, 2).unsqueeze(0)
    for name, reference in SKLEARN.items():
        np.testing.assert_allclose(scores.score(name, counts, "binary"), reference(target, prediction, zero_division=0))
    expected = tm.classification.binary_specificity(torch.as_tensor(prediction), torch.as_tensor(target))
    np.testing.assert_allclose(scores.score("specificity", counts, "binary"), expected, rtol=1e-6)
    np.testing.assert_allclose(scores.score("accuracy", counts, "binary"), sk.accuracy_score(target, prediction))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
def test_multilabel_is_class_one_of_each_label(seed, average):
    random = np.random.default_rng(seed)
    L = 4
    target, prediction = random.random((2, 50, L)) < 0.4
    target[:, 0] = False  # a label without positives
    counts = torch.as_tensor(sk.multilabel_confusion_matrix(target, prediction))
    for name, reference in SKLEARN.items():
        expected = reference(target, prediction, average=None if average == "none" else average, zero_division=0)
        np.testing.assert_allclose(scores.score(name, counts, "multilabel", average), expected, err_msg=name)
    pair = torch.as_tensor(prediction).long(), torch.as_tensor(target).long()
    for name in ("accuracy", "specificity"):
        reference = getattr(tm.classification, f"multilabel_{name}")
        ours = scores.score(name, counts, "multilabel", average).float()
        if name == "accuracy" and average == "weighted":
            continue  # torchmetrics weighs each label's accuracy by its positives, as we do: below
        torch.testing.assert_close(ours, reference(*pair, num_labels=L, average=average), msg=name)
    weighted = tm.classification.multilabel_accuracy(*pair, num_labels=L, average="weighted")
    torch.testing.assert_close(scores.score("accuracy", counts, "multilabel", "weighted").float(), weighted)
    assert scores.score("accuracy", counts, "multilabel") == (target == prediction).mean()


@pytest.mark.parametrize("seed", range(3))
def test_by_group_as_fairlearn_has_it(seed):
    """A sample may have several modalities, a group of fairlearn's only one value: one frame for each modality."""
    random = np.random.default_rng(seed)
    names = ("text", "image", "audio")
    target, prediction = labels(seed, 4, N=200)
    presence = random.random((200, 3)) < [0.9, 0.5, 0.1]
    metric = ModalityConfusionMatrix(names, num_classes=4)
    metric.update(*map(torch.as_tensor, (prediction, target, presence)))
    counts = metric.compute()
    functions = {
        "accuracy": sk.accuracy_score,
        "matthews": sk.matthews_corrcoef,
        "cohen_kappa": sk.cohen_kappa_score,
        "balanced_accuracy": lambda y, p: sk.recall_score(y, p, average="macro", labels=np.unique(y)),
        "f1": lambda y, p: sk.f1_score(y, p, average="macro", zero_division=0),
    }
    for m, name in enumerate(names):
        frame = MetricFrame(
            metrics=functions, y_true=target, y_pred=prediction, sensitive_features=presence[:, m].astype(int)
        )
        for score in functions:
            ours = getattr(scores, score)(counts)
            np.testing.assert_allclose(ours[0], frame.overall[score], err_msg=score)
            np.testing.assert_allclose(ours[1 + m], frame.by_group[score][1], err_msg=f"{name} {score}")


@pytest.mark.parametrize("seed", range(3))
def test_slices_of_columns_as_fairlearn_has_them_cell_by_cell(seed):
    random = np.random.default_rng(seed)
    target, prediction = labels(seed, 3, N=400)
    values = {"language": np.array(["de", "en", "sw"]), "channel": np.array(["0", "1"])}
    features = {name: told[random.integers(len(told), size=400)] for name, told in values.items()}
    metric = ModalityConfusionMatrix(("text",), num_classes=3, by={name: list(told) for name, told in values.items()})
    metric.update(torch.tensor(prediction), torch.tensor(target), by={name: list(of) for name, of in features.items()})
    card = metric.scorecard()
    functions = {
        "accuracy": sk.accuracy_score,
        "recall": lambda y, p: sk.recall_score(y, p, average="macro", labels=np.union1d(y, p), zero_division=0),
        "f1_weighted": lambda y, p: sk.f1_score(y, p, average="weighted", zero_division=0),
        "matthews": sk.matthews_corrcoef,
    }
    crossed = MetricFrame(
        metrics=functions, y_true=target, y_pred=prediction, sensitive_features=pandas.DataFrame(features)
    )
    for score in functions:
        for (language, channel), value in crossed.by_group[score].items():
            slice = (f"language/{language}", f"channel/{channel}")
            assert card.score(score, slice=slice) == pytest.approx(value), (score, slice)
    for column, feature in features.items():
        frame = MetricFrame(metrics=functions, y_true=target, y_pred=prediction, sensitive_features=feature)
        for score in functions:
            for value, wanted in frame.by_group[score].items():
                assert card.score(score, slice=f"{column}/{value}") == pytest.approx(wanted), (score, value)
            found = card.disparity(score, column)
            assert found.difference.value == pytest.approx(frame.difference()[score])
            if frame.group_min()[score] >= 0:  # a ratio of scores below 0 is none
                assert found.ratio.value == pytest.approx(frame.ratio()[score], nan_ok=True)


def test_a_slice_without_samples_is_nan_with_support_0():
    counts = torch.zeros(2, 1, 3, 3, dtype=torch.int64)
    counts[1, 0, 1, 1] = 1
    for task, part in (("multiclass", counts), ("binary", counts[..., :2, :2]), ("multilabel", counts[..., :2, :2])):
        for name in scores.SCORES:
            averages = ("default",) if name in scores.WHOLE else ("default", "macro", "micro", "weighted", "none")
            for average in averages:
                value = scores.score(name, part, task, average)
                assert value[0].isnan().all(), (task, name, average)
                if name != "cohen_kappa":  # chance alone agrees fully on one class
                    assert not value[1].isnan().any(), (task, name, average)
    assert scores.support(counts).tolist() == [[0], [1]]


def test_no_aggregate_over_slices_counts_an_empty_one_as_0():
    counts = torch.zeros(2, 3, 3, dtype=torch.int64)
    counts[0] = torch.eye(3)
    assert scores.f1(counts).nanmean() == 1
    assert scores.f1(counts).mean().isnan()


def test_one_sum_goes_for_another():
    """Replicates keep the sums alone: every score must need nothing else."""
    counts = confusion(*labels(5, 4), 4).unsqueeze(0)
    for name in scores.SCORES:
        torch.testing.assert_close(
            scores.score(name, scores.class_sums(counts)), scores.score(name, counts), rtol=0, atol=0, equal_nan=True
        )


def test_leading_axes_are_kept():
    counts = torch.stack([confusion(*labels(seed, 4), 4) for seed in range(6)]).view(2, 3, 4, 4)
    for name in (*scores.AVERAGED, *scores.WHOLE):
        function = getattr(scores, name)
        torch.testing.assert_close(function(counts)[1, 2], function(counts[1, 2]), rtol=0, atol=0)
    assert scores.f1(counts, "none").shape == (2, 3, 4)
    assert scores.f1(counts).dtype == torch.float64


@settings(deadline=None)
@given(confusions, st.randoms(use_true_random=False))
def test_classes_have_no_order(counts, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    counts = torch.as_tensor(counts)
    permuted = counts[order][:, order]
    for name in (*scores.AVERAGED, *scores.WHOLE):
        function = getattr(scores, name)
        torch.testing.assert_close(function(permuted), function(counts), equal_nan=True, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scores.f1(permuted, "none"), scores.f1(counts, "none")[order], equal_nan=True)


@settings(deadline=None)
@given(confusions, st.integers(2, 50))
def test_a_score_does_not_depend_on_how_often_the_data_is_counted(counts, times):
    counts = torch.as_tensor(counts)
    for name in (*scores.AVERAGED, *scores.WHOLE):
        function = getattr(scores, name)
        torch.testing.assert_close(function(counts * times), function(counts), equal_nan=True, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(confusions)
def test_scores_stay_in_their_range(counts):
    counts = torch.as_tensor(counts)
    for name in (*scores.AVERAGED, *scores.WHOLE):
        value = getattr(scores, name)(counts)
        low = -1 if name in ("matthews", "cohen_kappa") else 0
        assert value.isnan() or low - 1e-12 <= value <= 1 + 1e-12, name
        assert value.isnan() == (counts.sum() == 0) or name == "cohen_kappa"


@settings(max_examples=30, deadline=None)
@given(confusions)
def test_an_all_right_confusion_scores_1(counts):
    counts = torch.as_tensor(np.diag(np.diag(counts)))
    if counts.sum() == 0:
        return
    for name in scores.AVERAGED:
        if name != "specificity" or (counts.diagonal() > 0).sum() > 1:
            assert getattr(scores, name)(counts) == 1, name


def test_counts_beyond_float32_are_exact():
    counts = torch.tensor([[2**40 + 1, 1], [0, 0]])
    assert scores.accuracy(counts) == (2**40 + 1) / (2**40 + 2) != 1


def test_what_is_not_known_is_refused():
    for call in (
        lambda: scores.f1(torch.zeros(3)),
        lambda: scores.f1(torch.zeros(2, 3)),
        lambda: scores.f1(torch.zeros(3, 3), "samples"),
        lambda: scores.f1(torch.zeros(3, 3), "binary"),
        lambda: scores.score("auroc", torch.zeros(1, 3, 3)),
        lambda: scores.score("f1", torch.zeros(1, 3, 3), average="mean"),
    ):
        with pytest.raises(ValueError, match=r"expected|not known|average='binary'"):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_integers_are_counted_in_doubles_whatever_the_default_is(dtype):
    counts = torch.tensor([[2**25 + 1, 3], [2**24 + 1, 2**25 + 7]])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        value = float(scores.f1(counts, "binary"))
    finally:
        torch.set_default_dtype(before)
    hit, false, missed = counts[1, 1].item(), counts[0, 1].item(), counts[1, 0].item()
    assert value == 2 * hit / (2 * hit + false + missed)


@pytest.mark.parametrize("seed", range(4))
def test_matthews_with_answers_that_are_no_class(seed):
    target, prediction = labels(seed, 4, absent=1)  # class 3 is in no target: what falls there is no class
    prediction[:7] = 3
    sums = scores.class_sums(confusion(target, prediction, 4))
    real = scores.ClassSums(*(part[:-1] for part in sums))
    assert float(scores.matthews(real)) == pytest.approx(sk.matthews_corrcoef(target, prediction))
    assert float(scores.cohen_kappa(real)) == pytest.approx(sk.cohen_kappa_score(target, prediction))
