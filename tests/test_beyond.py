"""Rankings, calibration, losses, top-k and ordinal scores against scikit-learn, torchmetrics and plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, QualityGate, Scorecard, scores, words
from mm_metrics.logging import logged_keys, summary_keys
from mm_metrics.ranking import RANKINGS, bin_of
from mm_metrics.render import page

EXACT = ("brier", "log_loss", "calibration_error")


def by_class(seed, N=300, C=4, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (N,), generator=random)
    logits = 2 * torch.randn(N, C, generator=random) + 2 * torch.nn.functional.one_hot(target, C)
    return logits.to(dtype), target


def card_of(preds, target, scores, presence=None, **more):
    metric = ModalityConfusionMatrix(("text", "audio"), scores=scores, **more)
    metric.update(preds, target, presence)
    return Scorecard.from_json(metric.scorecard().to_json())


@pytest.mark.parametrize("as_probabilities", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_multiclass_scores_are_those_of_the_libraries(as_probabilities, dtype):
    logits, target = by_class(0, dtype=dtype)
    preds = logits.softmax(-1) if as_probabilities else logits
    p = preds.float() if as_probabilities else preds.float().softmax(-1)
    scores = ("auroc", "average_precision", *EXACT, "top2", "eer")
    presence = torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) < 0.7
    card = card_of(preds, target, scores, presence, num_classes=4, bootstrap=20)
    for slice, rows in (("all", slice_of(300)), ("audio", presence[:, 1])):
        q, y = p[rows], target[rows]
        for average in ("macro", "weighted"):
            ours, bound = (
                card.score("auroc", slice=slice, average=average),
                card.bound("auroc", slice=slice, average=average),
            )
            theirs = tm.multiclass_auroc(q, y, 4, average=average)
            assert abs(ours - float(theirs)) <= bound + 1e-6
            assert bound < 0.01
        assert abs(card.score("average_precision", slice=slice) - float(tm.multiclass_average_precision(q, y, 4))) <= (
            card.bound("average_precision", slice=slice) + 1e-6
        )
        error = tm.multiclass_calibration_error(q, y, 4, n_bins=15)
        assert card.score("calibration_error", slice=slice) == pytest.approx(
            float(error), abs=2e-3 if dtype != torch.float32 else 1e-5
        )
        assert card.bound("brier", slice=slice) == 0
        hot = torch.nn.functional.one_hot(y, 4)
        assert card.score("brier", slice=slice) == pytest.approx(
            float(((q - hot) ** 2).sum(-1).mean()), abs=1e-2 if dtype != torch.float32 else 1e-5
        )
        top = sk.top_k_accuracy_score(y.numpy(), q.numpy(), k=2, labels=range(4))
        assert card.score("top2", slice=slice) == pytest.approx(top, abs=0.03 if dtype != torch.float32 else 0)
        if dtype == torch.float32:
            assert card.score("log_loss", slice=slice) == pytest.approx(
                sk.log_loss(y, q.double() / q.double().sum(-1, keepdim=True), labels=range(4)), abs=1e-5
            )
    low, high = card.interval("auroc", slice="audio")
    assert low <= card.score("auroc", slice="audio") <= high
    assert np.isnan(card.class_scores("auroc")["0"]) == np.False_


def slice_of(n):
    return torch.ones(n, dtype=torch.bool)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([-3.0, -1.0, 0.0, 0.01, 0.5, 0.5001, 2.0, 40.0, -40.0])),
        min_size=2,
        max_size=60,
    ),
    st.sampled_from([16, 64, 512]),
)
def test_no_ranking_lies_outside_its_bound_with_ties_single_classes_and_clipped_scores(rows, bins):
    """The exact scores of the clipped values, and of any order within a bin, lie in value ± bound."""
    y = np.array([label for label, _ in rows])
    z = np.clip(np.array([score for _, score in rows]), -16, 16)
    counts = np.zeros((2, bins), dtype=np.int64)
    np.add.at(counts, (y, bin_of(torch.tensor(z), bins).numpy()), 1)
    found = {name: function(torch.from_numpy(counts)) for name, function in RANKINGS.items()}
    if y.min() == y.max():
        assert np.isnan(float(found["auroc"].value))
        assert np.isnan(float(found["eer"].value))
    if y.max() == 1:
        exact = sk.average_precision_score(y, z)
        assert abs(float(found["average_precision"].value) - exact) <= float(found["average_precision"].bound) + 1e-9
    if y.min() < y.max():
        assert abs(float(found["auroc"].value) - sk.roc_auc_score(y, z)) <= float(found["auroc"].bound) + 1e-9
        false, true, _ = sk.roc_curve(y, z, drop_intermediate=False)
        gap = (1 - true) - false  # falls along the curve; the crossing of the two rates, interpolated
        after = int(np.argmax(gap <= 0))
        if gap[after] == 0:
            error = false[after]
        else:
            part = gap[after - 1] / (gap[after - 1] - gap[after])
            error = false[after - 1] + part * (false[after] - false[after - 1])
        assert abs(float(found["eer"].value) - error) <= float(found["eer"].bound) + 1e-9


@pytest.mark.parametrize("from_logits", [False, True])
def test_rare_positives_of_many_labels(from_logits):
    random = torch.Generator().manual_seed(3)
    target = (torch.rand(4000, 3, generator=random) < torch.tensor([0.003, 0.1, 0.0])).long()
    logits = torch.randn(4000, 3, generator=random) + 1.5 * target - 3
    preds = logits if from_logits else logits.sigmoid()
    card = card_of(
        preds,
        target,
        ("auroc", "average_precision", "dprime", *EXACT),
        task="multilabel",
        num_labels=3,
        bins=1024,
        from_logits=from_logits,
        bootstrap=20,
    )
    assert card.threshold("recall", 0.9, label=1) == card.threshold("recall", 0.9, label="1") is not None
    for label in (0, 1):
        ours = card.class_scores("auroc")[str(label)]
        exact = sk.roc_auc_score(target[:, label], logits[:, label])
        assert abs(ours - exact) < 0.002
        precision = sk.average_precision_score(target[:, label], logits[:, label])
        assert card.class_scores("average_precision")[str(label)] == pytest.approx(precision, abs=0.03)
    assert np.isnan(card.class_scores("auroc")["2"])
    p = logits.sigmoid()
    assert card.score("brier") == pytest.approx(float(((p - target) ** 2).mean()), abs=1e-5)
    error = np.mean(
        [float(tm.binary_calibration_error(p[:, i].contiguous(), target[:, i], n_bins=15)) for i in range(3)]
    )
    assert card.score("calibration_error") == pytest.approx(error, abs=1e-5)


def test_the_threshold_of_a_recall_scores_what_it_says():
    random = torch.Generator().manual_seed(4)
    target = (torch.rand(500, generator=random) < 0.3).long()
    p = (torch.randn(500, generator=random) + 1.5 * target).sigmoid()
    card = card_of(p, target, ("auroc",), task="binary")
    point = card.threshold("recall", at_least=0.9)
    positive = p.double() >= point.threshold
    assert point.recall == pytest.approx(float(positive[target == 1].double().mean()))
    assert point.precision == pytest.approx(float(target[positive].double().mean()))
    assert point.recall >= 0.9
    precise = card.threshold("precision", at_least=0.8)
    assert precise.precision >= 0.8
    assert card.threshold("precision", at_least=1.01) is None


def test_coalitions_modalities_and_shards():
    logits, target = by_class(5, N=240)
    shown = torch.stack([torch.zeros_like(logits), logits / 2 + 1, -logits, logits])
    presence = torch.rand(240, 2, generator=torch.Generator().manual_seed(6)) < 0.7

    def made(rows):
        metric = CoalitionConfusionMatrix(
            ("text", "audio"), num_classes=4, scores=("auroc", "brier", "calibration_error", "top3"), bootstrap=40
        )
        metric.update(shown[:, rows], target[rows], presence[rows], index=torch.arange(240)[rows])
        return metric.scorecard()

    card = made(slice(0, 240))
    assert made(slice(0, 70)) + made(slice(70, 240)) == card
    theirs = tm.multiclass_auroc(shown[2].softmax(-1), target, 4)
    assert card.score("auroc", coalition="audio") == pytest.approx(
        float(theirs), abs=card.bound("auroc", "audio") + 1e-6
    )
    drops = card.contributions("auroc")
    assert drops["text"].drop.value == pytest.approx(card.score("auroc") - card.score("auroc", "audio"))
    assert drops["text"].drop.low < drops["text"].drop.value < drops["text"].drop.high


def test_a_name_may_carry_its_average():
    logits, target = by_class(7)
    card = card_of(logits, target, ("auroc",), num_classes=4, bootstrap=30)
    for score in ("f1", "precision", "auroc"):
        for average in ("weighted", "micro", "macro"):
            assert card.score(f"{score}_{average}") == card.score(score, average=average)
            assert card.interval(f"{score}_{average}") == card.interval(score, average=average)
    assert card.score("balanced_accuracy") == pytest.approx(card.score("recall"))
    with pytest.raises(ValueError, match="score 'f2'"):
        card.score("f2")
    with pytest.raises(ValueError, match="scores="):
        card.score("brier")


def test_the_interval_of_an_auroc_covers_it_and_is_no_wider_than_it_need_be():
    """Two normal distributions 1.2 apart; the standard error of Hanley and McNeil (1982)."""
    true, covered, widths = 0.5 * (1 + math.erf(0.6)), 0, []
    q1, q2 = true / (2 - true), 2 * true**2 / (1 + true)
    for seed in range(80):
        random = torch.Generator().manual_seed(seed)
        target = torch.arange(300) % 10 < 3  # 90 of 300
        score = torch.randn(300, generator=random) + 1.2 * target
        metric = ModalityConfusionMatrix(
            ("text",), task="binary", from_logits=True, scores=("auroc",), bootstrap=200, seed=seed
        )
        metric.update(score, target.long(), index=torch.arange(300))
        low, high = metric.scorecard().interval("auroc")
        covered += low <= true <= high
        widths.append(high - low)
    error = math.sqrt((true * (1 - true) + 89 * (q1 - true**2) + 209 * (q2 - true**2)) / (90 * 210))
    assert 72 <= covered  # 90% of 80: at 95% fewer come once in 40 times
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.2)


# Ordinal


def emotions(seed, N=400):
    random = np.random.default_rng(seed)
    y = np.round(random.uniform(-3, 3, N) * 5) / 5
    p = y + random.normal(0, 1, N)
    edge = [(0.0, -0.0), (-0.0, 0.1), (0.5, 0.5), (1.5, 2.5), (-2.5, -1.5), (2.6, 5.0), (-3.0, -7.0), (0.2, 0.0)]
    return np.array([*p, *(b for _, b in edge)], np.float32), np.array([*y, *(a for a, _ in edge)], np.float32)


def test_sentiment_is_scored_as_the_fields_scripts_score_it():
    """Formulas written down anew from the definitions, in numpy, halves rounded to even."""
    p, y = emotions(0)
    card = card_of(torch.tensor(p), torch.tensor(y), (), task="ordinal", edges="mosi", bootstrap=30)
    assert card.score("mae") == pytest.approx(np.abs(p - y).mean(), abs=1e-6)
    assert card.score("rmse") == pytest.approx(np.sqrt(((p - y) ** 2).mean()), abs=1e-6)
    assert card.score("pearson") == pytest.approx(np.corrcoef(p, y)[0, 1], abs=1e-5)
    for name, edge in (("acc7", 3), ("acc5", 2)):
        right = np.round(np.clip(p, -edge, edge)) == np.round(np.clip(y, -edge, edge))
        assert card.score(name) == pytest.approx(right.mean())
    assert card.score("accuracy") == pytest.approx(card.score("acc7"))
    assert card.score("acc2") == pytest.approx(((p >= 0) == (y >= 0)).mean())
    assert card.score("f1_acc2") == pytest.approx(sk.f1_score(y >= 0, p >= 0, average="weighted"))
    kept = y != 0
    assert card.score("acc2_nonzero") == pytest.approx(((p > 0) == (y > 0))[kept].mean())
    assert card.score("f1_nonzero") == pytest.approx(sk.f1_score((y > 0)[kept], (p > 0)[kept], average="weighted"))
    gap = 2 * np.cov(p, y, bias=True)[0, 1] / (p.var() + y.var() + (p.mean() - y.mean()) ** 2)
    assert card.score("ccc") == pytest.approx(gap, abs=1e-5)
    assert card.names == ("-3", "-2", "-1", "0", "1", "2", "3")
    for score in ("mae", "pearson", "ccc", "acc2", "f1_nonzero"):
        low, high = card.interval(score)
        assert low < card.score(score) < high


def test_edges_cut_a_scale_into_classes_and_shards_add_up():
    p, y = emotions(1)
    edges = (-1.0, 0.5)

    def made(rows):
        metric = CoalitionConfusionMatrix(("text", "audio"), task="ordinal", edges=edges, bootstrap=30)
        shown = torch.tensor(np.stack([0 * p, p / 2, -p, p]))[:, rows]
        metric.update(shown.unsqueeze(-1), torch.tensor(y)[rows].unsqueeze(-1), index=torch.arange(len(p))[rows])
        return metric.scorecard()

    card = made(slice(None))
    assert made(slice(0, 100)) + made(slice(100, None)) == card
    cut = np.digitize(p, edges)
    assert card.score("accuracy") == pytest.approx((cut == np.digitize(y, edges)).mean())
    assert card.score("mae", "audio") == pytest.approx(np.abs(-p - y).mean(), abs=1e-6)
    drop = card.contributions("mae")["text"].drop  # what is lost: a lower error is better
    assert drop.value == pytest.approx(card.score("mae", "audio") - card.score("mae"), abs=1e-9)
    assert drop.low < drop.value < drop.high


@pytest.mark.parametrize(
    ("arguments", "preds", "target", "match"),
    [
        ({"edges": "mosi"}, [float("nan")], [0.0], "preds holds nan"),
        ({"edges": "mosi"}, [0.0], [2000.0], "target holds 2000"),
        ({"edges": (1.0, 0.0)}, None, None, "edges"),
        ({"edges": ()}, None, None, "edges"),
        ({}, None, None, "edges"),
        ({"edges": "mosi", "scores": ("auroc",)}, None, None, "ordinal"),
        ({"edges": "mosi", "scores": ("aurok",)}, None, None, "aurok"),
    ],
)
def test_what_is_no_ordinal_task_is_refused(arguments, preds, target, match):
    def count():
        metric = ModalityConfusionMatrix(("text",), task="ordinal", **arguments)
        metric.update(torch.tensor(preds), torch.tensor(target))

    with pytest.raises(ValueError, match=match):
        count()


@pytest.mark.parametrize("M", [2, 5])
@pytest.mark.parametrize("at_once", [1, 2**21])
def test_replicates_of_a_slice_are_those_of_its_samples_alone(M, at_once, monkeypatch):
    """With five modalities cells are slices, not patterns; one coalition at a time lets a misplaced axis broadcast."""
    monkeypatch.setattr("mm_metrics.counts.replicates._SUMS_AT_ONCE", at_once)
    random = torch.Generator().manual_seed(8)
    names, N = tuple(f"m{i}" for i in range(M)), 60
    logits, target, index = (
        torch.randn(N, 3, generator=random),
        torch.randint(3, (N,), generator=random),
        torch.arange(N),
    )
    presence = torch.rand(N, M, generator=random) < 0.6
    shown = torch.stack([-logits, logits / 2, logits])
    coalitions = ["none", names[0], "all"]

    def made(rows):
        metric = CoalitionConfusionMatrix(
            names, num_classes=3, coalitions=coalitions, bootstrap=10, scores=("auroc", "brier", "calibration_error")
        )
        metric.update(shown[:, rows], target[rows], presence[rows], index[rows])
        return metric.scorecard()

    card = made(slice(None))
    assert card.layout.patterns is (M <= 4)
    for name in ("replicates", "replicate_curves", "replicate_levels", "replicate_totals"):
        for m, modality in enumerate(names):
            alone = made(presence[:, m])
            assert torch.equal(card.replicate_field(name, modality), alone.replicate_field(name)), (name, modality)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_an_interval_holds_its_value_and_stays_where_the_score_can_be(task):
    """Of a model that is surely wrong Brier exceeds 1 and d' is negative; AUROC of equal scores is bounded alone."""
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2 if task == "binary" else 3, (200,), generator=random)
    logits = 0.3 * torch.randn(200, 3, generator=random)
    logits[torch.arange(200), (target + 1) % 3] += 4
    wrong = (torch.randn(200, generator=random) - target).sigmoid() if task == "binary" else logits
    names = ("auroc", "average_precision", "eer", "dprime", "brier", "log_loss", "calibration_error")
    for preds in (wrong, torch.full_like(wrong, 0.3)):
        card = card_of(preds, target, names, task=task, bootstrap=50, num_classes=None if task == "binary" else 3)
        for name in (*names, "matthews", "cohen_kappa"):
            (low, high), (least, most) = card.interval(name), scores.extent(name)
            assert least <= low <= card.score(name) <= high <= most or math.isnan(card.score(name)), name


def test_scores_that_are_all_equal_order_nothing_and_nothing_is_hidden():
    """As those of a model that is shown nothing: every library says prevalence, half the pairs, half the errors."""
    random = torch.Generator().manual_seed(5)
    target = (torch.rand(300, 3, generator=random) < 0.1).long()
    logits = torch.randn(4, 300, 3, generator=random) + 2 * target
    logits[0] = torch.tensor([0.3, -2.0, -0.0])
    logits[0, ::2, 2] = 0.0
    presence = torch.rand(300, 2, generator=random) < 0.7
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), task="multilabel", num_labels=3, from_logits=True, scores=("auroc",), bootstrap=50
    )
    for rows in torch.arange(300).split(70):
        metric.update(logits[:, rows], target[rows], presence[rows], index=rows)
    card = Scorecard.from_json(metric.scorecard().to_json())
    for slice, rows in (("all", slice_of(300)), ("audio", presence[:, 1])):
        exact = sk.average_precision_score(target[rows], logits[0][rows])
        for name, value in (("auroc", 0.5), ("eer", 0.5), ("dprime", 0.0), ("average_precision", exact)):
            assert card.score(name, "none", slice) == pytest.approx(value)
            assert card.bound(name, "none", slice) == 0
    low, high = card.interval("average_precision", "none")
    assert low < card.score("average_precision", "none") < high < 0.2
    assert card.bound("average_precision", "text") > 0
    exact = [sk.average_precision_score(target, logits[card.row(name)]) for name in card.coalitions]
    ours = card.contributions("average_precision")
    for m, name in enumerate(card.modalities):
        drop, gain = exact[3] - exact[3 ^ 1 << m], exact[1 << m] - exact[0]
        for estimate, value in zip(ours[name], (drop, gain, (drop + gain) / 2), strict=True):
            assert abs(estimate.value - value) < 0.01
            assert estimate.low < value < estimate.high


def test_nearly_equal_scores_stay_bounded_and_widen_what_is_made_of_them():
    """A model that is hardly trained puts all scores into one bin: its order is not known, and is not claimed."""
    random = torch.Generator().manual_seed(6)
    target = torch.randint(2, (200,), generator=random)
    logits = 0.01 + 1e-3 * torch.rand(4, 200, generator=random)
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), task="binary", from_logits=True, scores=("auroc",), bootstrap=50
    )
    metric.update(logits, target)
    card = metric.scorecard()
    assert card.bound("auroc", "none") == 0.5
    drop = card.contributions("auroc")["text"].drop
    assert drop.high - drop.low > 1


@pytest.mark.parametrize(
    ("task", "name"), [("multiclass", "f1_weighted"), ("binary", "balanced_accuracy"), ("multilabel", "auroc_weighted")]
)
def test_a_name_with_its_average_goes_wherever_a_name_goes(task, name, tmp_path):
    def counted(seed):
        random = torch.Generator().manual_seed(seed)
        sizes = {"binary": {}, "multilabel": {"num_labels": 3}, "multiclass": {"num_classes": 3}}[task]
        target = torch.randint(
            sizes.get("num_classes", 2), (120, 3) if task == "multilabel" else (120,), generator=random
        )
        shape = (4, 120) if task == "binary" else (4, 120, 3)
        told = torch.nn.functional.one_hot(target, 3) if task == "multiclass" else target
        metric = CoalitionConfusionMatrix(
            ("text", "audio"), task=task, scores=("auroc",), from_logits=True, bootstrap=20, **sizes
        )
        metric.update(torch.randn(shape, generator=random) + 2 * told, target, index=torch.arange(120))
        return metric.scorecard(headline=name, scores=["accuracy", name])

    new, old = counted(0), counted(1)
    value = new.score(name)
    assert new.estimate(name).low <= value <= new.estimate(name).high
    keys = logged_keys(new, new.verdict(), "val", True, ("accuracy", name), name)
    assert keys[f"val/all/{name}"] == value
    assert keys[f"val/drop/text/{name}"] == new.contributions(name)["text"].drop.value
    assert f"val/text/{name}/low" in summary_keys(new, "val", ("accuracy", name), name)
    assert (new - old).score(name) == pytest.approx(value - old.score(name))
    assert words.label(name) in new.table()
    assert words.label(name) in page.write(tmp_path / "page.html", new).read_text()
    if name in QualityGate.__dataclass_fields__:
        assert new.verdict(QualityGate(**{name: (0.99, 1.0)})).level == "bad"
