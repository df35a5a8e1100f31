"""The value in the middle: it adds up, refuses what does not belong together, and answers as its counts say."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_metrics import CoalitionConfusionMatrix, Scorecard, contributions, scores
from mm_metrics.modalities import UNHIDDEN

NAMES = ("text", "audio")


def data(seed=0, n=30, C=3):
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (n,), generator=random)
    preds = torch.where(torch.rand(4, n, generator=random) < 0.6, target, torch.randint(C, (4, n), generator=random))
    return preds, target, torch.rand(n, 2, generator=random) < 0.6, torch.arange(n) + 1000 * seed


def card(seed=0, n=30, numbered=True, **more) -> Scorecard:
    metric = CoalitionConfusionMatrix(NAMES, **({"num_classes": 3, "bootstrap": 20} | more))
    preds, target, presence, index = data(seed, n)
    metric.update(preds, target, presence, index if numbered else None)
    return metric.scorecard()


def made_with_seed(seed: int) -> Scorecard:
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=20, seed=seed)
    metric.update(*data(1))
    return metric.scorecard()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=3), st.randoms(), st.sampled_from([0, 7]))
def test_shards_add_up_to_the_whole_in_any_order(cuts, random, R):
    preds, target, presence, index = data()
    cards = []
    for i, (a, b) in enumerate(itertools.pairwise([0, *sorted(cuts), 30])):
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=R, shard=i)
        metric.update(preds[:, a:b], target[a:b], presence[a:b], None if R == 0 else index[a:b])
        cards.append(metric.scorecard())
    whole = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=R)
    whole.update(preds, target, presence, index)
    random.shuffle(cards)
    total = cards[0]
    for part in cards[1:]:
        total = total + part
    if R == 0:
        assert total == whole.scorecard()
    assert torch.equal(total.confusion("text", "audio"), whole.scorecard().confusion("text", "audio"))


def test_sum_is_commutative_and_associative_and_keeps_its_terms():
    a, b, c = card(0), card(1), card(2)
    before = a.to_json()
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a.to_json() == before
    assert hash(a + b) == hash(b + a)
    assert (a + b).samples == 60


def test_intervals_of_shards_are_those_of_the_whole():
    preds, target, presence, index = data(n=60)
    parts = []
    for rows in (slice(0, 20), slice(20, 60)):
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=20)
        metric.update(preds[:, rows], target[rows], presence[rows], index[rows])
        parts.append(metric.scorecard())
    whole = card(0, 60)
    assert parts[0] + parts[1] == whole
    assert (parts[0] + parts[1]).interval("f1", slice="audio") == whole.interval("f1", slice="audio")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: made_with_seed(1), "seed"),
        (lambda: card(1, num_classes=4), "classes"),
        (lambda: card(1, bootstrap=10), "replicates"),
        (lambda: card(1, class_names=("a", "b", "c")), "class names"),
        (lambda: card(0), "twice"),
        (lambda: Scorecard.from_json(card(0).to_json()), "twice"),
        (lambda: card(0) + card(1), "twice"),
        (lambda: 5, "unsupported operand"),
    ],
)
def test_what_does_not_belong_together_is_refused(other, what):
    with pytest.raises((ValueError, TypeError), match=what):
        card(0) + other()


def test_other_modalities_coalitions_and_tasks_are_refused():
    def made(names=NAMES, **more):
        metric = CoalitionConfusionMatrix(names, **({"num_classes": 2} | more))
        return metric.scorecard()

    for other in (made(("text", "image")), made(("audio", "text")), made(coalitions=["all"]), made(task="binary")):
        with pytest.raises(ValueError, match="different"):
            made() + other


def test_without_an_index_shards_must_differ():
    with pytest.raises(ValueError, match="shard=0, shard=1"):
        card(0, numbered=False) + card(1, numbered=False)
    total = card(0, numbered=False) + card(1, numbered=False, shard=1)
    assert total.shards == (0, 1)
    with pytest.raises(ValueError, match="shard"):
        total + card(2, numbered=False, shard=1)


def test_equal_counts_of_different_shards_add_up():
    metrics = [CoalitionConfusionMatrix(NAMES, num_classes=2, shard=i) for i in range(2)]
    for metric in metrics:
        metric.update(torch.ones(4, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    assert (metrics[0].scorecard() + metrics[1].scorecard()).samples == 6


def test_a_card_of_nothing_adds_nothing():
    empty = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=20).scorecard()
    assert card(0, numbered=True) + Scorecard(**{**vars_of(empty), "shards": ()}) == card(0)
    nothing = CoalitionConfusionMatrix(NAMES, num_classes=3).scorecard()
    assert (nothing + nothing).samples == 0
    assert math.isnan(nothing.score("f1"))


def vars_of(value: Scorecard) -> dict:
    return {name: getattr(value, name) for name in ("layout", "task", "counts", "seed", "class_names", "info")}


def test_equality_is_of_counts_not_of_info():
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3)
    metric.update(*data()[:3])
    assert metric.scorecard(model="a") == metric.scorecard(model="b")
    assert metric.scorecard() != 5
    assert card(0) != card(1)
    other = CoalitionConfusionMatrix(NAMES, num_classes=3, shard=1)
    other.update(*data(1)[:3])
    both = metric.scorecard(model="a", data="x") + other.scorecard(model="a", data="y")
    assert both.info == {"model": "a"}


def test_it_answers_as_its_counts_say():
    preds, target, presence, _ = data()
    value = card()
    assert value.modalities == NAMES
    assert value.slices == ("all", "text", "audio")
    assert value.coalitions == ("none", "text", "audio", "text-audio")
    rows = {"all": torch.ones(30, dtype=torch.bool), "text": presence[:, 0], "-audio": ~presence[:, 1]}
    for (slice, row), (k, coalition) in itertools.product(rows.items(), enumerate(value.coalitions)):
        confusion = torch.zeros(3, 3, dtype=torch.int64)
        for t, p in zip(target[row].tolist(), preds[k][row].tolist(), strict=True):
            confusion[t, p] += 1
        assert torch.equal(value.confusion(coalition, slice), confusion)
        assert value.support(slice) == row.sum()
        for name in scores.SCORES:
            assert value.score(name, coalition, slice) == float(scores.score(name, confusion.unsqueeze(0)))
        expected = dict(zip("012", scores.f1(confusion, "none").tolist(), strict=True))
        assert value.class_scores("f1", coalition, slice) == expected
        low, high = value.interval("f1", coalition, slice)
        assert low <= value.score("f1", coalition, slice) <= high
        assert value.estimate("f1", coalition, slice) == (value.score("f1", coalition, slice), low, high)


def test_names_may_be_typed_in_any_order_and_wrong_ones_are_refused():
    value = card()
    assert value.score("f1", coalition="audio-text") == value.score("f1", coalition="all") == value.score("f1")
    for call in (
        lambda: value.score("f1", coalition="smell"),
        lambda: value.score("f1", slice="smell"),
        lambda: value.score("f2"),
        lambda: value.score("f1", average="none"),
        lambda: value.score("f1", average="x"),
    ):
        with pytest.raises(ValueError, match=r"smell|f2|class_scores|average"):
            call()


def test_contributions_are_those_of_its_scores():
    value = card(n=200)
    v, replicates = value.coalition_scores("f1")
    assert replicates.shape == (4, 20)
    for m, (name, contribution) in enumerate(value.contributions("f1").items()):
        assert name == NAMES[m]
        for field, function in zip(
            contribution,
            (contributions.leave_one_out, contributions.unimodal_gain, contributions.shapley_values),
            strict=True,
        ):
            assert field.value == pytest.approx(float(function(v)[m]))
            assert field.low < field.value < field.high
    total = sum(c.shapley.value for c in value.contributions("f1", slice="audio").values())
    assert total == pytest.approx(value.score("f1", slice="audio") - value.score("f1", "none", "audio"))


def test_discordant_mcnemar_and_modality_confusion_by_the_samples():
    preds, target, presence, _ = data()
    value, right = card(), preds == target
    audio = presence[:, 1]
    assert value.discordant("text", "all", "audio") == (
        int((right[1] & ~right[3] & audio).sum()),
        int((~right[1] & right[3] & audio).sum()),
    )
    assert value.discordant("all", "all") == (0, 0)
    assert 0 <= value.mcnemar("text", "all", "audio") <= 1
    assert value.modality_confusion("audio")["text"] == pytest.approx(
        float((right[1] & ~right[3] & audio).sum() / audio.sum())
    )


def test_of_several_labels_a_sample_is_right_where_any_that_it_has_is_found():
    random = torch.Generator().manual_seed(0)
    target, preds = torch.randint(2, (300, 4), generator=random), torch.randint(2, (4, 300, 4), generator=random)
    metric = CoalitionConfusionMatrix(NAMES, task="multilabel", num_labels=4)
    metric.update(preds, target)
    found = ((preds == 1) & (target == 1)).any(-1)  # (K, N)
    value = metric.scorecard()
    assert value.modality_confusion()["text"] == pytest.approx(float((found[1] & ~found[3]).double().mean()))
    assert Scorecard.from_json(value.to_json()).modality_confusion() == value.modality_confusion()
    exact = (preds == target).all(-1)
    assert value.discordant("text", "all") == (int((exact[1] & ~exact[3]).sum()), int((~exact[1] & exact[3]).sum()))


def test_the_majority_is_what_guessing_scores():
    _, target, presence, _ = data()
    counts = target[presence[:, 1]].bincount()
    assert card().majority(slice="audio") == int(counts.max()) / int(counts.sum())


def test_the_models_own_predictions_stand_beside_the_coalitions():
    preds, target, presence, index = data()
    names = [UNHIDDEN, "none", "text", "audio", "all"]
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, coalitions=names, bootstrap=20)
    rows = dict(zip(("none", "text", "audio", "text-audio"), preds, strict=True))
    metric.update(rows | {UNHIDDEN: target}, target, presence, index)
    value = metric.scorecard()
    assert value.score("accuracy") == 1
    assert value.score("accuracy", "all") == card().score("accuracy")
    for name, contribution in card().contributions("f1").items():
        assert value.contributions("f1")[name].shapley.value == pytest.approx(contribution.shapley.value)
        assert value.contributions("f1")[name].drop == pytest.approx(contribution.drop)
    assert value.modality_confusion() == card().modality_confusion()
    assert Scorecard.from_json(value.to_json()) == value


def test_multilabel_hits_are_exact_matches():
    metric = CoalitionConfusionMatrix(NAMES, task="multilabel", num_labels=2, bootstrap=20)
    target = torch.tensor([[1, 0], [1, 1], [0, 0]])
    preds = torch.stack([target ^ 1, target, torch.tensor([[1, 0], [1, 0], [0, 0]]), target])
    metric.update(preds, target, index=torch.arange(3))
    value = metric.scorecard()
    assert value.discordant("text", "audio") == (1, 0)
    assert value.score("accuracy", "audio") == pytest.approx(5 / 6)
    assert value.confusion("audio").shape == (2, 2, 2)
    assert list(value.class_scores("f1")) == ["0", "1"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_every_card_that_can_be_counted_can_be_read_again(draw):
    def of(*choices):
        return draw.draw(st.sampled_from(choices))

    task, M, R, N, V = (
        of("multiclass", "binary", "multilabel", "ordinal"),
        of(1, 2, 3),
        of(0, 20),
        of(0, 1, 80),
        of(0, 2, 3),
    )
    logits = {"multiclass": ("auroc", "top2"), "ordinal": ("mae", "pearson")}.get(task, ("auroc", "dprime"))
    further = of((), logits[:1], logits, () if task == "ordinal" else ("calibration_error", "brier", "log_loss"))
    sizes = {"multiclass": {"num_classes": 4}, "multilabel": {"num_labels": 3}, "ordinal": {"edges": [-0.5, 0.5]}}
    more = {"task": task, "by": {"c": V} if V else None, "scores": further, "from_logits": True, "bootstrap": R}
    metric = CoalitionConfusionMatrix(("a", "b", "c")[:M], **more, **sizes.get(task, {}), ignore_index=of(None, 1))
    random = torch.Generator().manual_seed(draw.draw(st.integers(0, 99)))
    shape = {"multiclass": (4,), "multilabel": (3,)}.get(task, ())
    target = torch.randint(2, (N, *shape) if task == "multilabel" else (N,), generator=random)
    presence = of(None, torch.rand(N, M, generator=random) < 0.7, torch.zeros(N, M, dtype=torch.bool))
    metric.update(
        torch.randn(2**M, N, *shape, generator=random),
        target,
        presence,
        of(None, torch.arange(N)),
        of(None, torch.arange(N) // 3),
        {"c": torch.randint(V, (N,), generator=random)} if V else None,
        counted=of(None, torch.rand(2**M, N, generator=random) < 0.8),
    )
    card = metric.scorecard()
    again = Scorecard.from_json(card.to_json())
    assert again == card
    assert again.parts == card.parts


@pytest.mark.parametrize("changed", [0, 4])
def test_a_model_that_reads_what_presence_calls_absent_is_said_to(changed):
    preds, target, presence, index = data()
    preds = torch.cat([preds, preds[-1:]])
    preds[-1, :changed] = torch.where(
        preds[-1, :changed] == target[:changed], (target[:changed] + 1) % 3, target[:changed]
    )
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3, coalitions=["none", *NAMES, "all", UNHIDDEN], bootstrap=20)
    metric.update(preds, target, presence, index)
    said = [note for note in metric.scorecard().verdict().notes if "absent" in note]
    assert [f" {changed} are right or wrong" in note for note in said] == [True] * (changed > 0)


def test_values_of_a_column_that_never_come_are_said():
    for values in (2, ["DE", "EN"]):
        metric = CoalitionConfusionMatrix(("a",), num_classes=2, by={"language": values, "kind": ["x"]})
        metric.update(
            torch.zeros(2, 2, dtype=torch.long), torch.tensor([0, 1]), by={"language": ["de", "en"], "kind": ["x", "y"]}
        )
        with pytest.warns(UserWarning, match="language"):
            metric.scorecard()


def test_json_round_trip(tmp_path):
    value = card(class_names=("a", "b", "c"))
    text = value.to_json(tmp_path / "card.json")
    for source in (text, tmp_path / "card.json", str(tmp_path / "card.json")):
        again = Scorecard.from_json(source)
        assert again == value
        assert again.parts == value.parts
        assert again.interval("f1") == value.interval("f1")
    assert json.loads(text)["modalities"] == list(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_in_one_sentence(data_):
    text = card().to_json()
    cut = data_.draw(st.integers(0, len(text) - 1))
    damaged = data_.draw(st.sampled_from([text[:cut] or "{", text[:cut] + "\x00" + text[cut + 1 :]]))
    said = None
    try:
        again = Scorecard.from_json("{" + damaged.lstrip("{"))
    except ValueError as error:
        said = str(error)
    assert "scorecard" in said if said else again == card()
