"""What torchmetrics promises of a metric, held by ours."""

import pickle

import pytest
import torch
from torchmetrics import BootStrapper, MetricCollection, MetricTracker

from mm_metrics import (
    CoalitionConfusionMatrix,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityPrecision,
    ModalityRecall,
)

NAMES = ("text", "audio")
SCORES = (ModalityAccuracy, ModalityPrecision, ModalityRecall, ModalityF1Score)
CLASSES = (ModalityConfusionMatrix, CoalitionConfusionMatrix, *SCORES)


def batch(kind, n=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    shape = (4, n) if kind is CoalitionConfusionMatrix else (n,)
    preds, target = torch.randint(3, shape, generator=random), torch.randint(3, (n,), generator=random)
    return preds, target, torch.rand(n, 2, generator=random) < 0.6


def filled(kind, seed=0, **more):
    metric = kind(NAMES, num_classes=3, **more)
    metric.update(*batch(kind, seed=seed))
    return metric


def same(first, second):
    if isinstance(first, dict):
        assert list(first) == list(second)
        return all(same(first[key], second[key]) for key in first)
    return torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))


@pytest.fixture(params=CLASSES, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def test_forward_gives_the_batch_and_keeps_the_whole(kind):
    metric, whole = kind(NAMES, num_classes=3), kind(NAMES, num_classes=3)
    for seed in range(3):
        assert same(metric(*batch(kind, seed=seed)), filled(kind, seed).compute())
        whole.update(*batch(kind, seed=seed))
    assert same(metric.compute(), whole.compute())


def test_forward_does_not_restart_the_sample_numbers():
    updated, forwarded = (CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=10) for _ in range(2))
    for seed in range(3):
        updated.update(*batch(CoalitionConfusionMatrix, seed=seed))
        forwarded(*batch(CoalitionConfusionMatrix, seed=seed))
    assert updated.scorecard() == forwarded.scorecard()
    updated.reset()
    for seed in range(3):
        updated.update(*batch(CoalitionConfusionMatrix, seed=seed))
    assert updated.scorecard() == forwarded.scorecard()


def test_reset_clone_pickle(kind):
    metric = filled(kind)
    value = metric.compute()
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert same(copy.compute(), value)
        copy.update(*batch(kind, seed=1))
        assert same(metric.compute(), value)
        assert not same(copy.compute(), value)
    metric.reset()
    assert metric.counts.sum() == 0
    assert not metric.update_called
    metric.update(*batch(kind))
    assert same(metric.compute(), value)


def test_state_dict_is_empty_unless_persistent_and_loads(kind):
    metric = filled(kind)
    assert metric.state_dict() == {}
    metric.persistent(True)
    state = metric.state_dict()
    assert len(state) == 1
    other = kind(NAMES, num_classes=3)
    other.persistent(True)
    other.load_state_dict(state)
    other._update_count = 1
    assert same(other.compute(), metric.compute())
    stranger = kind(("text", "image"), num_classes=3)
    stranger.persistent(True)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        stranger.load_state_dict(state)


def test_merge_state_adds_a_metric_or_its_state(kind):
    whole = filled(kind)
    whole.update(*batch(kind, seed=1))
    for incoming in (filled(kind, 1), filled(kind, 1).metric_state):
        metric = filled(kind)
        metric.merge_state(incoming)
        assert same(metric.compute(), whole.compute())
    fresh = kind(NAMES, num_classes=3)
    fresh.merge_state(filled(kind))
    assert same(fresh.compute(), filled(kind).compute())
    for stranger in (kind(NAMES, num_classes=4), {}, {"counts": 1}, 5):
        with pytest.raises(ValueError, match="same arguments"):
            metric.merge_state(stranger)


def test_counts_stay_int64_whatever_the_dtype(kind):
    value = filled(kind).compute()
    for convert in (
        lambda m: m.half(),
        lambda m: m.double(),
        lambda m: m.float(),
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu"),
        lambda m: m.type(torch.bfloat16),
        lambda m: torch.nn.ModuleList([m]).half()[0],
        lambda m: m.set_dtype(torch.float16),
    ):
        metric = convert(filled(kind))
        assert metric.counts.dtype == torch.int64
        if not isinstance(value, dict):
            assert same(metric.compute(), value)
    scores = filled(ModalityF1Score).set_dtype(torch.float64).compute()
    assert scores["all/f1"].dtype == torch.float64
    assert filled(ModalityF1Score).set_dtype(torch.half).compute()["all/f1"].dtype == torch.half
    many = filled(ModalityConfusionMatrix).set_dtype(torch.half)
    zeros = torch.zeros(70_000, dtype=torch.int64)
    many.update(zeros, zeros)
    assert many.compute()[0, 0, 0] >= 70_000


def test_flags():
    for kind in CLASSES:
        assert kind.is_differentiable is False
        assert kind.full_state_update is False
        assert kind.higher_is_better is (True if kind in SCORES else None)


def test_compute_gives_copies(kind):
    metric = filled(kind)
    first, second = metric.compute(), metric.compute()
    assert same(first, second)
    for value in first.values() if isinstance(first, dict) else [first]:
        value.fill_(-7)
    assert same(metric.compute(), second)
    card = filled(CoalitionConfusionMatrix).scorecard()
    card.confusion().fill_(-7)
    assert card.confusion().min() >= 0


def test_a_scorecard_is_a_value_that_later_updates_do_not_change():
    metric = filled(CoalitionConfusionMatrix)
    card = metric.scorecard()
    text = card.to_json()
    metric.update(*batch(CoalitionConfusionMatrix, seed=1))
    assert card.to_json() == text


def test_compute_before_update_warns_and_is_nan():
    with pytest.warns(UserWarning, match="before the ``update``"):
        values = ModalityF1Score(NAMES, num_classes=3).compute()
    assert all(value.isnan() for value in values.values())


@pytest.mark.filterwarnings("ignore:`torch.jit")  # what torchmetrics' harness still calls, on its way out since 2.13
@pytest.mark.filterwarnings("ignore:This property will be removed:DeprecationWarning")  # torchmetrics' own
def test_scripting_as_torchmetrics_own_harness_does_it(kind):
    torch.jit.script(kind(NAMES, num_classes=3, **({"bootstrap": 5} if kind is CoalitionConfusionMatrix else {})))


def groups_of(*metrics, update=None):
    collection = MetricCollection({str(i): metric for i, metric in enumerate(metrics)})
    collection.update(*(update or batch(type(metrics[0]))))
    return collection, list(collection.compute_groups.values())


def test_scores_of_equal_arguments_share_one_update():
    metrics = [kind(NAMES, num_classes=3) for kind in SCORES]
    collection, groups = groups_of(*metrics)
    assert groups == [["0", "1", "2", "3"]]
    collection.update(*batch(ModalityAccuracy, seed=1))
    values = collection.compute()
    for kind in SCORES:
        alone = filled(kind)
        alone.update(*batch(kind, seed=1))
        for key, value in alone.compute().items():
            assert torch.equal(values[key], value)
    collection.reset()
    assert collection["3"].counts.sum() == 0


@pytest.mark.parametrize(
    "other",
    [
        {"average": "micro"},
        {"average": None},
        {"ignore_index": -1},
        {"seed": 1},
        {"shard": 1},
        {"bootstrap": 5},
        {"validate_args": False},
        {"from_logits": True},
        {"threshold": 0.3},
        {"modalities": ("text", "image")},
        {"modalities": ("audio", "text")},
        {"num_classes": 4},
        {"class_names": ("a", "b", "c")},
        {"coalitions": ["text"]},
        {"max_bytes": 2**20},
    ],
    ids=str,
)
def test_metrics_that_differ_in_any_argument_are_never_merged(other):
    arguments = {"modalities": NAMES, "num_classes": 3}
    _, groups = groups_of(ModalityF1Score(**arguments), ModalityF1Score(**(arguments | other)))
    assert len(groups) == 2


def test_confusion_matrices_of_coalitions_and_of_slices_are_never_merged():
    one = CoalitionConfusionMatrix(NAMES, num_classes=3, coalitions=["all"])
    assert one.layout == ModalityConfusionMatrix(NAMES, num_classes=3).layout
    assert one._state != ModalityConfusionMatrix(NAMES, num_classes=3)._state


def test_a_tracker_keeps_the_best_epoch():
    tracker = MetricTracker(MetricCollection([ModalityAccuracy(NAMES, num_classes=3)]), maximize=True)
    for epoch in range(3):
        tracker.increment()
        _, target, presence = batch(ModalityAccuracy)
        wrong = (target + 1) % 3
        tracker.update(torch.where(torch.arange(12) < 4 * epoch, target, wrong), target, presence)
    best, step = tracker.best_metric(return_step=True)
    assert step["all/accuracy"] == 2
    assert best["all/accuracy"] == pytest.approx(8 / 12)


def test_bootstrapper_takes_a_score_as_a_tensor():
    """Its own bootstrap needs tensors; `bootstrap=` gives intervals without it."""
    torch.manual_seed(0)
    wrapped = BootStrapper(
        ModalityConfusionMatrix(NAMES, num_classes=3), num_bootstraps=5, mean=False, std=False, raw=True
    )
    wrapped.update(*batch(ModalityConfusionMatrix))
    assert wrapped.compute()["raw"].shape == (5, 3, 3, 3)


def test_inference_mode_no_grad_and_grad_mix(kind):
    metric, plain = kind(NAMES, num_classes=3), kind(NAMES, num_classes=3)
    modes = (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode, torch.enable_grad)
    for round_ in range(2):
        for seed, mode in enumerate(modes):
            with mode():
                if round_:
                    metric(*batch(kind, seed=seed))
                else:
                    metric.update(*batch(kind, seed=seed))
            plain.update(*batch(kind, seed=seed))
        with torch.inference_mode():
            assert same(metric.compute(), plain.compute())
            metric.reset()
        plain.reset()
    metric.update(*batch(kind))


def test_a_metric_made_in_inference_mode_counts_outside_it(kind):
    with torch.inference_mode():
        metric = kind(NAMES, num_classes=3)
    metric.update(*batch(kind))
    assert same(metric.compute(), filled(kind).compute())


def test_deterministic_algorithms_and_autocast(kind):
    value = filled(kind).compute()
    torch.use_deterministic_algorithms(True)
    try:
        assert same(filled(kind).compute(), value)
    finally:
        torch.use_deterministic_algorithms(False)
    more = {"bootstrap": 10} if kind is CoalitionConfusionMatrix else {}
    plain = filled(kind, **more).counts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(filled(kind, **more).counts, plain)


def test_no_random_stream_moves_and_inputs_are_untouched(kind):
    inputs = batch(kind)
    copies = [part.clone() for part in inputs]
    before = torch.random.get_rng_state()
    metric = kind(NAMES, num_classes=3, bootstrap=10)
    metric(*inputs)
    metric.compute()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_a_refused_forward_loses_nothing(kind):
    metric = filled(kind)
    before = metric.compute()
    preds, target, presence = batch(kind)
    with pytest.raises(ValueError, match="target holds 7"):
        metric(preds, target + 7 - target, presence)
    assert same(metric.compute(), before)
    assert metric._to_sync
    assert metric._should_unsync
    assert not metric._is_synced


def test_plot(kind):
    pytest.importorskip("matplotlib")
    figures = pytest.importorskip("mm_metrics.render.figures")
    if not hasattr(figures, "plot_metric"):
        pytest.skip("plot_metric is not there yet")
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = filled(kind).plot()
    assert figure is not None
    assert axes is not None
    pyplot.close(figure)


def test_arithmetic_composition_still_works():
    difference = filled(ModalityConfusionMatrix) + filled(ModalityConfusionMatrix, 1)
    both = filled(ModalityConfusionMatrix).compute() + filled(ModalityConfusionMatrix, 1).compute()
    assert torch.equal(difference.compute(), both)
