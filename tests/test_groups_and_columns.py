"""Groups, columns and answers that are no class: counted as a loop over the samples counts them, and additive."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, ModalityRecall, Scorecard
from mm_metrics.uncertainty import poisson_weights, stream_key

N, NAMES = 300, ("text", "audio")
LANGUAGES = ["de", "en", "sw", "??"]


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(0)
    return {
        "preds": torch.randint(3, (4, N), generator=random),
        "target": torch.randint(3, (N,), generator=random),
        "presence": torch.rand(N, 2, generator=random) < 0.6,
        "language": torch.randint(4, (N,), generator=random),
        "channel": torch.randint(3, (N,), generator=random),
        "speaker": torch.randint(40, (N,), generator=random),
    }


def made(data, names=True, rows=slice(None), **more):
    more = {"by": {"language": LANGUAGES[:3], "channel": 2}, "bootstrap": 30, **more}
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, **more)
    language = data["language"][rows]
    by = {
        "language": [LANGUAGES[i] for i in language] if names else torch.where(language < 3, language, 7),
        "channel": data["channel"][rows],
    }
    metric.update(
        data["preds"][:, rows],
        data["target"][rows],
        data["presence"][rows],
        torch.arange(N)[rows],
        by=by,
    )
    return metric


@pytest.mark.parametrize("max_bytes", [2**28, 120_000])
def test_every_slice_of_a_column_is_its_samples_counted_alone(data, max_bytes):
    with pytest.warns(UserWarning, match="max_bytes") if max_bytes < 2**28 else nullcontext():
        metric = made(data, max_bytes=max_bytes)
    card = metric.scorecard()
    assert card.slices == (
        "all",
        "text",
        "audio",
        "language/de",
        "language/en",
        "language/sw",
        "language/other",
        "channel/0",
        "channel/1",
        "channel/other",
    )
    codes = {"language": LANGUAGES[:3], "channel": ["0", "1"]}
    for name in card.slices[3:]:
        column, value = name.split("/")
        known = codes[column]
        rows = data[column] == known.index(value) if value in known else data[column] >= len(known)
        for k, coalition in enumerate(card.coalitions):
            right = data["preds"][k][rows] == data["target"][rows]
            assert card.score("accuracy", coalition, name) == pytest.approx(float(right.float().mean()))
        both = rows & data["presence"][:, 1]
        expected = np.zeros((3, 3), dtype=int)
        np.add.at(expected, (data["target"][both].numpy(), data["preds"][3][both].numpy()), 1)
        if card.layout.full:
            assert card.confusion("all", (name, "audio")).tolist() == expected.tolist()
    if card.layout.replicate_slices:  # the interval of a value is that of its samples alone, under the same numbers
        rows = data["language"] == 1
        alone = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=30)
        alone.update(data["preds"][:, rows], data["target"][rows], data["presence"][rows], torch.arange(N)[rows])
        for slice, there in (("language/en", "all"), (("language/en", "audio"), "audio")):
            assert card.interval("f1", slice=slice) == pytest.approx(alone.scorecard().interval("f1", slice=there))


def test_codes_and_names_of_a_column_are_the_same_and_shards_add_up(data):
    whole = made(data).scorecard()
    assert torch.equal(made(data, names=False).counts, whole.counts)
    parts = [made(data, rows=slice(start, start + 100)).scorecard() for start in (0, 100, 200)]
    assert parts[0] + parts[1] + parts[2] == whole
    assert Scorecard.from_json(whole.to_json()) == whole


def test_a_column_of_a_metric_class_is_in_its_value(data):
    metric = ModalityRecall(NAMES, num_classes=3, by={"channel": 3})
    metric.update(data["preds"][3], data["target"], by={"channel": data["channel"]})
    values = metric.compute()
    rows = data["channel"] == 2
    recalls = [float((data["preds"][3][rows & (data["target"] == c)] == c).float().mean()) for c in range(3)]
    assert float(values["channel/2/recall"]) == pytest.approx(np.mean(recalls))
    assert values["channel/other/recall"].isnan()


@pytest.mark.parametrize(
    ("by", "given"),
    [
        ({"language": ["de", "de"]}, None),
        ({"language": []}, None),
        ({"language": "de"}, None),
        ({"a/b": 3}, None),
        ({"a": 80, "b": 80}, None),
        ({"language": 2}, {}),
        ({"language": 2}, {"speaker": torch.zeros(4, dtype=torch.long)}),
        ({"language": 2}, {"language": torch.zeros(3, dtype=torch.long)}),
        ({"language": 2}, {"language": torch.zeros(4)}),
        ({"language": 2}, {"language": "abcd"}),
        (None, {"language": torch.zeros(4, dtype=torch.long)}),
    ],
)
def test_columns_that_do_not_fit_are_refused(by, given):
    def count():
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3, by=by)
        metric.update(torch.zeros(4, 4, dtype=torch.long), torch.zeros(4, dtype=torch.long), by=given)

    with pytest.raises((ValueError, TypeError), match="by"):
        count()


@pytest.mark.parametrize("kind", ["integers", "strings", "array"])
def test_groups_are_counted_and_weigh_as_one(data, kind):
    numbers = data["speaker"]
    group = {"integers": numbers, "strings": [f"speaker {n}" for n in numbers], "array": numbers.numpy()}[kind]
    cards = []
    for rows in (slice(0, 130), slice(130, N)):
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=30)
        metric.update(data["preds"][:, rows], data["target"][rows], data["presence"][rows], group=group[rows])
        cards.append(metric.scorecard())
    card = Scorecard.from_json((cards[0] + cards[1]).to_json())
    assert card.grouped
    assert card.groups() == len(set(numbers.tolist()))
    assert card.groups(slice="audio") == len(set(numbers[data["presence"][:, 1]].tolist()))
    if kind == "integers":
        weights = poisson_weights(numbers, 30, stream_key(0)).long()
        right = (data["preds"][3] == data["target"]).long()
        hits = card.replicate_sums().hits[:, 3].sum((-1, -2))
        assert hits.tolist() == (weights * right[:, None]).sum(0).tolist()


def test_many_groups_are_counted_within_a_few():
    random = np.random.default_rng(0)
    for many in (91, 400, 1500):
        names = [f"clip {n}" for n in random.permutation(many)] * 2
        metric = ModalityConfusionMatrix(("text",), num_classes=2, bootstrap=20)
        labels = torch.zeros(len(names), dtype=torch.long)
        metric.update(labels, labels, group=names)
        assert abs(metric.scorecard().groups() - many) <= (0 if many < 500 else 8)


def test_without_groups_every_sample_is_its_own(data):
    card = made(data).scorecard()
    assert not card.grouped
    assert card.groups() == N
    metric = made(data)
    with pytest.raises(ValueError, match="group came with some"):
        metric.update(
            data["preds"],
            data["target"],
            group=data["speaker"],
            by={"language": data["language"], "channel": data["channel"]},
        )


def test_an_answer_of_minus_one_is_a_miss_and_no_prediction():
    metric = ModalityConfusionMatrix(("text",), num_classes=2, bootstrap=20)
    metric.update(torch.tensor([0, -1, 1, -1]), torch.tensor([0, 0, 1, 1]), torch.tensor([[1], [1], [1], [0]]))
    card = Scorecard.from_json(metric.scorecard().to_json())
    assert (card.score("accuracy"), card.score("precision"), card.score("recall")) == (0.5, 1.0, 0.5)
    assert card.score("accuracy", slice="text") == pytest.approx(2 / 3)
    assert (card.outside(), card.support(), card.support("text")) == (2, 4, 3)
    assert card.confusion().tolist() == [[1, 0], [0, 1]]
    spread = card.replicate_sums()
    assert (spread.actual.sum(-1) >= spread.predicted.sum(-1)).all()


@pytest.mark.parametrize("numbered", [True, False])
def test_shards_of_the_same_groups_add_up_and_the_same_samples_do_not(numbered):
    random = torch.Generator().manual_seed(3)
    preds, other, target = torch.randint(3, (3, 400), generator=random)
    group = torch.arange(400) % 20

    def card(rows, preds=preds):
        metric = ModalityConfusionMatrix(NAMES, num_classes=3, bootstrap=30)
        for part in rows.split(70):
            metric.update(preds[part], target[part], index=part if numbered else None, group=group[part])
        return metric.scorecard()

    whole, order = card(torch.arange(400)), torch.randperm(400, generator=random)
    both = card(order[:150]) + card(order[150:])
    assert both == whole
    assert both.groups() == 20
    with pytest.raises(ValueError, match="same samples"):
        whole + card(order, other)
    if numbered:  # rows that one side skipped hide nothing, and one sample of each is no copy of another
        with pytest.raises(ValueError, match="same samples"):
            whole + card(order[40:], other)
        for i in range(0, 40, 2):
            card(order[i : i + 1]) + card(order[i + 1 : i + 2])


def test_a_number_twice_in_a_batch_is_refused_unless_it_stands_for_groups(data):
    index = torch.arange(N) // 2
    for metric in (
        ModalityRecall(NAMES, num_classes=3),
        ModalityConfusionMatrix(NAMES, num_classes=3, bootstrap=20),
    ):
        with pytest.raises(ValueError, match=r"index has 0 more than once.*group="):
            metric.update(data["preds"][0], data["target"], index=index)
        assert int(metric.counts.sum()) == 0
        metric.update(data["preds"][0], data["target"], index=index, group=index)
        metric.reset()
        metric.update(data["preds"][0], data["target"], index=torch.where(index > 0, torch.arange(N), -1))  # copies
    with pytest.raises(ValueError, match="index has 0"):
        CoalitionConfusionMatrix(NAMES, num_classes=3).update(data["preds"], data["target"], index=index)
