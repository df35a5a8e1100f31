"""Every bad input is refused with one clear sentence and adds nothing, or is legal and right."""

import numpy as np
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityAccuracy, ModalityConfusionMatrix, ModalityF1Score

NAN, INF = float("nan"), float("inf")
LOGITS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 2, 0]])
LABELS, TARGET = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 2])
PRESENCE = torch.ones(4, 2, dtype=torch.bool)


def with_row(row):
    return torch.cat([LOGITS[:3], torch.tensor([row])])


REFUSED = {
    "NaN row": (with_row([NAN, 0.0, 0.0]), TARGET, PRESENCE, "preds"),
    "NaN beside a winner": (with_row([5.0, NAN, 0.0]), TARGET, PRESENCE, "preds"),
    "infinite row": (with_row([INF, 0.0, 0.0]), TARGET, PRESENCE, "preds"),
    "row of minus infinity": (with_row([-INF, -INF, -INF]), TARGET, PRESENCE, "preds"),
    "label too large": (torch.tensor([0, 1, 2, 3]), TARGET, PRESENCE, "preds holds 3, expected .*0…2"),
    "label negative": (torch.tensor([0, 1, 2, -2]), TARGET, PRESENCE, "preds holds -2, expected .*0…2"),
    "target too large": (LABELS, torch.tensor([0, 1, 2, 3]), PRESENCE, "target holds 3, expected 0…2"),
    "labels that start at 1": (LABELS, TARGET + 1, PRESENCE, "target holds 3.*labels start at 0: use target - 1"),
    "target with a column": (LABELS, TARGET.unsqueeze(-1), PRESENCE, "expected .4,..*target.squeeze"),
    "target negative": (LABELS, torch.tensor([0, 1, 2, -100]), PRESENCE, "target holds -100.*ignore_index=-100"),
    "target too large, logits": (LOGITS, torch.tensor([0, 1, 2, 3]), PRESENCE, "target holds 3"),
    "float labels": (LABELS.float(), TARGET, PRESENCE, "preds of shape .* is torch.float32"),
    "float target": (LABELS, TARGET.float(), PRESENCE, "target is torch.float32.*ordinal"),
    "bool labels": (LABELS > 0, TARGET, PRESENCE, "preds .*torch.bool"),
    "complex": (LABELS.to(torch.complex64), TARGET, PRESENCE, "preds is torch.complex64"),
    "one-hot target": (LABELS, torch.eye(3, dtype=torch.int64)[TARGET], PRESENCE, "target.argmax"),
    "one-hot predictions": (torch.eye(3, dtype=torch.int64)[LABELS], TARGET, PRESENCE, "integers of two axes"),
    "transposed logits": (LOGITS.T, TARGET[:3], PRESENCE[:3], "transposed"),
    "too many columns": (torch.zeros(4, 5), TARGET, PRESENCE, "num_classes=3"),
    "three axes": (torch.zeros(4, 3, 2), TARGET, PRESENCE, "preds has shape"),
    "wrong N in target": (LABELS, TARGET[:3], PRESENCE, "target has shape .3,., expected .4,."),
    "wrong N in presence": (LABELS, TARGET, PRESENCE[:3], "presence has shape"),
    "0-dim predictions": (torch.tensor(1), torch.tensor(1), None, "preds"),
    "0-dim target": (LABELS, torch.tensor(1), None, "target has shape"),
    "numpy predictions": (LABELS.numpy(), TARGET, PRESENCE, "preds is a tensor, got ndarray"),
    "numpy target": (LABELS, TARGET.numpy(), PRESENCE, "target is a tensor, got ndarray"),
    "list": ([0, 1, 2, 1], TARGET, PRESENCE, "preds is a tensor, got list"),
    "no predictions": (None, TARGET, PRESENCE, "preds is a tensor, got NoneType"),
    "no target": (LABELS, None, PRESENCE, "target is a tensor, got NoneType"),
    "float presence": (LABELS, TARGET, PRESENCE.float(), "presence is bool or integer"),
    "presence of 2": (LABELS, TARGET, PRESENCE.long() * 2, "presence holds 2, expected 0 or 1"),
    "presence of -1": (LABELS, TARGET, -PRESENCE.long(), "presence holds -1"),
    "presence as numpy": (LABELS, TARGET, PRESENCE.numpy(), "presence is a bool tensor.*ndarray"),
    "presence transposed": (LABELS, TARGET, PRESENCE.T, "presence has shape"),
    "a modality too many": (LABELS, TARGET, dict.fromkeys("abc", PRESENCE[:, 0]), "presence"),
    "a modality missing": (LABELS, TARGET, {"a": PRESENCE[:, 0]}, "presence names"),
    "another device": (LABELS.to("meta"), TARGET, PRESENCE, "target is on cpu|on meta"),
    "presence on another device": (LABELS, TARGET, PRESENCE.to("meta"), "presence is on meta"),
}


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("what", REFUSED)
def test_refused_and_nothing_counted(what, validate_args):
    preds, target, presence, match = REFUSED[what]
    metric = ModalityConfusionMatrix(("a", "b"), num_classes=3, validate_args=validate_args)
    metric.update(LABELS, TARGET, PRESENCE)
    before = metric.counts.clone()
    for call in (metric.update, metric):
        with pytest.raises((TypeError, ValueError), match=match) as error:
            call(preds, target, presence)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 330
        assert torch.equal(metric.counts, before)
    metric.update(LABELS, TARGET, PRESENCE)  # as good as new
    assert metric.compute()[0].sum() == 8
    assert metric._to_sync
    assert not metric._is_synced


LEGAL = {
    "an empty batch": (LABELS[:0], TARGET[:0], PRESENCE[:0], 0),
    "an empty batch of logits": (LOGITS[:0], TARGET[:0], None, 0),
    "minus infinity that loses": (with_row([-INF, 0.0, 1.0]), TARGET, PRESENCE, 4),
    "half precision": (LOGITS.half(), TARGET, PRESENCE, 4),
    "bfloat16": (LOGITS.bfloat16(), TARGET, PRESENCE, 4),
    "float64": (LOGITS.double(), TARGET, PRESENCE, 4),
    "huge logits": (LOGITS * 1e38, TARGET, PRESENCE, 4),
    "small integers": (LABELS.to(torch.uint8), TARGET.to(torch.int8), PRESENCE.to(torch.uint8), 4),
    "unsigned 16": (LABELS.to(torch.uint16), TARGET.to(torch.int16), PRESENCE, 4),
    "not contiguous": (LOGITS.T.contiguous().T, TARGET, PRESENCE.T.contiguous().T, 4),
    "with a gradient": (LOGITS.clone().requires_grad_(), TARGET, PRESENCE, 4),
    "presence by name": (LABELS, TARGET, {"b": PRESENCE[:, 1], "a": PRESENCE[:, 0].long()}, 4),
    "no presence": (LABELS, TARGET, None, 4),
}


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("what", LEGAL)
def test_legal_and_right(what, validate_args):
    preds, target, presence, N = LEGAL[what]
    metric = ModalityConfusionMatrix(("a", "b"), num_classes=3, validate_args=validate_args)
    metric.update(preds, target, presence)
    confusion = metric.compute()
    winner = preds if preds.ndim == 1 else preds.float().argmax(-1)
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for t, p in zip(target.tolist(), winner.tolist(), strict=True):
        expected[t, p] += 1
    assert expected.sum() == N
    assert torch.equal(confusion, expected.expand(3, 3, 3))


def test_all_samples_absent_count_in_all_only():
    metric = ModalityConfusionMatrix(("a", "b"), num_classes=3)
    metric.update(LABELS, TARGET, ~PRESENCE)
    assert metric.compute().sum((1, 2)).tolist() == [4, 0, 0]
    score = ModalityF1Score(("a", "b"), num_classes=3)
    score.update(LABELS, TARGET, ~PRESENCE)
    assert score.compute()["a/f1"].isnan()


def test_all_ignored_is_nan():
    score = ModalityAccuracy(("a", "b"), num_classes=3, ignore_index=-100)
    score.update(LOGITS, torch.full((4,), -100), PRESENCE)
    assert all(value.isnan() for value in score.compute().values())


@pytest.mark.parametrize(
    ("arguments", "preds", "target", "match"),
    [
        ({"task": "binary"}, torch.tensor([2.0, -1.0]), torch.tensor([1, 0]), "from_logits=True"),
        ({"task": "binary"}, torch.tensor([0.5, NAN]), torch.tensor([1, 0]), "preds holds nan"),
        ({"task": "binary", "from_logits": True}, torch.tensor([0.5, NAN]), torch.tensor([1, 0]), "NaN"),
        ({"task": "binary"}, torch.tensor([0.5, 0.1]), torch.tensor([1, 2]), "target holds 2"),
        ({"task": "binary"}, torch.tensor([0.5, 0.1]), torch.tensor([1.0, 0.5]), r"target holds 0\.5"),
        ({"task": "binary"}, torch.tensor([1, 2]), torch.tensor([1, 0]), "preds holds 2"),
        ({"task": "binary"}, torch.zeros(2, 3), torch.tensor([1, 0]), "binary"),
        ({"task": "multilabel", "num_labels": 2}, torch.zeros(2, 3), torch.zeros(2, 2), "num_labels=2"),
        ({"task": "multilabel", "num_labels": 2}, torch.zeros(2, 2), torch.zeros(2), "target has shape"),
        ({"task": "multilabel", "num_labels": 2}, torch.zeros(2, 2) - 3, torch.zeros(2, 2), "from_logits=True"),
        ({"task": "multilabel", "num_labels": 2}, torch.zeros(2, 2), torch.zeros(2, 2) + NAN, "target holds nan"),
    ],
)
@pytest.mark.parametrize("validate_args", [True, False])
def test_other_tasks_refuse_too(arguments, preds, target, match, validate_args):
    metric = ModalityConfusionMatrix(("a",), validate_args=validate_args, **arguments)
    with pytest.raises((TypeError, ValueError), match=match):
        metric.update(preds, target)
    assert metric.counts.sum() == 0


def test_floats_0_and_1_are_legal_targets_in_binary_and_multilabel():
    metric = ModalityConfusionMatrix(("a",), task="binary")
    metric.update(torch.tensor([0.9, 0.2]), torch.tensor([1.0, 1.0]))
    assert metric.compute()[0].tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "num_classes=None"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"num_classes": 3, "task": "regression"}, "task='regression'"),
        ({"task": "multilabel"}, "num_labels"),
        ({"task": "binary", "num_classes": 3}, "num_classes=3"),
        ({"task": "binary", "threshold": 1.5}, "threshold"),
        ({"task": "multilabel", "num_labels": 3, "threshold": (0.1, 0.2)}, "threshold"),
        ({"num_classes": 3, "average": "samples"}, "average='samples'"),
        ({"num_classes": 3, "class_names": ["a"]}, "class_names holds 1 names, expected 3"),
        ({"num_classes": 3, "coalitions": "some"}, "coalitions='some'"),
        ({"num_classes": 3, "bootstrap": -1}, "bootstrap=-1"),
        ({"num_classes": 3, "bootstrap": 1.5}, "bootstrap"),
    ],
)
def test_arguments_that_do_not_fit(arguments, match):
    with pytest.raises((TypeError, ValueError), match=match):
        ModalityF1Score(("a", "b"), **arguments)


K4 = torch.zeros(4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("preds", "more", "match"),
    [
        (K4[:3], {}, r"expected \(4, N\)"),
        (torch.tensor(0), {}, "preds"),
        (K4.numpy(), {}, "ndarray"),
        ({"smell": K4[0]}, {}, "smell"),
        ({}, {}, "preds"),
        ({"a": K4[0], "b": K4[1, :4]}, {}, "different shape"),
        ({"a": K4[0].numpy()}, {}, "ndarray"),
        ({"a-b": K4[0], "b-a": K4[0]}, {}, "at most once"),
        (K4, {"index": torch.arange(4)}, "index has shape"),
        (K4, {"index": torch.zeros(5)}, "index is an integer"),
        (K4, {"index": list(range(5))}, "index"),
        (K4, {"index": torch.ones(5, dtype=torch.bool)}, "index"),
        (K4, {"counted": torch.ones(4, 4, dtype=torch.bool)}, "counted"),
        (K4, {"counted": [[True]]}, "counted"),
        (K4, {"counted": torch.ones(4, 5)}, "counted"),
    ],
)
def test_coalitions_that_do_not_fit(preds, more, match):
    metric = CoalitionConfusionMatrix(("a", "b"), num_classes=3, bootstrap=5)
    with pytest.raises((TypeError, ValueError), match=match):
        metric.update(preds, torch.zeros(5, dtype=torch.int64), **more)
    assert metric.counts.sum() == 0


def test_one_bad_coalition_refuses_the_whole_batch():
    metric = CoalitionConfusionMatrix(("a", "b"), num_classes=3)
    logits = torch.rand(4, 5, 3)
    logits[2, 1, 0] = NAN
    with pytest.raises(ValueError, match="1 of 5 samples"):
        metric.update(logits, torch.zeros(5, dtype=torch.int64))
    assert metric.counts.sum() == 0


def test_what_a_coalition_did_not_answer_may_hold_anything():
    metric, target = CoalitionConfusionMatrix(("a", "b"), num_classes=3), torch.zeros(5, dtype=torch.int64)
    logits = torch.rand(4, 5, 3)
    counted = torch.ones(4, 5, dtype=torch.bool)
    counted[1, 3] = False
    logits[1, 3] = NAN
    metric.update(logits, target, counted=counted)
    assert metric.compute()[:, 0].sum((-2, -1)).tolist() == [5, 4, 5, 5]


def test_what_an_accelerator_could_not_look_at_is_refused_in_compute(monkeypatch):
    """The path of another device with validate_args=False, taken here on CPU."""
    from mm_metrics.counts.labels import Reader

    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, preds, target, eager: read(self, preds, target, eager=False))
    import mm_metrics.metrics.base as counting

    add = counting.add
    monkeypatch.setattr(counting, "add", lambda *args, **keywords: add(*args, **(keywords | {"eager": False})))
    metric = ModalityConfusionMatrix(("a", "b"), num_classes=3, validate_args=False)
    metric.update(with_row([NAN, 0.0, 0.0]), torch.tensor([0, 7, 2, 1]), PRESENCE)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 samples with predictions .* 1 samples with targets .* of 4"):
            metric.compute()
    with pytest.raises(ValueError, match="refused"):
        metric.scorecard()
    metric.reset()
    metric.update(LOGITS, TARGET, PRESENCE)
    assert metric.compute()[0].sum() == 4


def test_numbers_of_numpy_are_taken_as_numbers():
    metric = ModalityConfusionMatrix(("a",), num_classes=np.int64(3).item(), bootstrap=int(np.int64(2)))
    assert metric.layout.R == 2
