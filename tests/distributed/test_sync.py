"""One all-reduce per metric, and the same integers on 1, 2, 3 and 4 ranks."""

import tempfile
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

from mm_metrics import (
    CoalitionConfusionMatrix,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityPrecision,
    ModalityRecall,
    Scorecard,
)
from tests.distributed.launch import launch

NAMES = ("text", "image", "audio")
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "reduce",
    "gather",
    "scatter",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "reduce_scatter",
    "all_to_all",
    "send",
    "recv",
    "isend",
    "irecv",
)
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")


def data():
    random = torch.Generator().manual_seed(0)
    preds = torch.randint(4, (8, 37), generator=random)
    target = torch.randint(4, (37,), generator=random)
    return preds, target, torch.rand(37, 3, generator=random) < 0.6, torch.arange(37)


def own_share(rank: int, world: int):
    """Every world-th sample in batches of 3, so that ranks have different numbers of batches; the last has none."""
    preds, target, presence, index = data()
    busy = world - 1 if world > 2 else world
    if rank >= busy:
        return []
    mine = torch.arange(37)[rank::busy]
    return [(preds[:, i], target[i], presence[i], index[i]) for i in reversed(mine.split(3))]


def counting_collectives():
    """Patches that count every collective of torch.distributed."""
    seen: Counter = Counter()

    def counted(name):
        function = getattr(dist, name)

        def call(*args, **keywords):
            seen[name] += 1
            return function(*args, **keywords)

        return mock.patch.object(dist, name, call)

    return seen, [counted(name) for name in COLLECTIVES]


def run(rank: int, world: int, folder: Path, work):
    warnings.filterwarnings("ignore", "The ``compute`` method of metric")  # torchmetrics' word for a rank without data
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    answer = work(rank, world)
    dist.barrier()
    return answer


def on_ranks(world: int, work) -> list:
    with tempfile.TemporaryDirectory() as folder:
        return launch(world, run, Path(folder), work)


def coalition_metric(**more):
    return CoalitionConfusionMatrix(NAMES, num_classes=4, bootstrap=20, **more)


def sync_once(rank: int, world: int):
    metric = coalition_metric()
    for preds, target, presence, index in own_share(rank, world):
        metric.update(preds, target, presence, index)
    own = metric.counts.clone()
    seen, patches = counting_collectives()
    for patch in patches:
        patch.start()
    confusion = metric.compute()
    after_compute = dict(seen)
    card = metric.scorecard()
    after_card = dict(seen)
    metric.sync()
    metric.unsync()
    by_hand = dict(seen)
    mock.patch.stopall()
    same_after = torch.equal(own, metric.counts) and not metric._is_synced
    return {
        "confusion": confusion,
        "card": card.to_json(),
        "compute": after_compute,
        "both": after_card,
        "by_hand": by_hand,
        "kept": same_after,
    }


def one_process(**more):
    metric = coalition_metric(**more)
    metric.update(*data())
    return metric


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_ranks_gives_the_integers_and_intervals_of_one(world):
    alone = one_process()
    for answer in on_ranks(world, sync_once):
        assert answer["compute"] == {"all_reduce": 1}
        assert answer["both"] == {"all_reduce": 2}
        assert answer["by_hand"] == {"all_reduce": 3}
        assert answer["kept"]
        assert torch.equal(answer["confusion"], alone.compute())
        card = Scorecard.from_json(answer["card"])
        assert card == alone.scorecard()
        assert card.interval("f1", slice="audio") == alone.scorecard().interval("f1", slice="audio")


SCORES = ("auroc", "average_precision", "calibration_error", "brier", "log_loss", "top2")


def logits_of(preds):
    """Logits in steps of 1/16, so that many lie on edges of bins, whose winner is the label."""
    noise = torch.randint(32, (*preds.shape, 4), generator=torch.Generator().manual_seed(preds.shape[-1])) / 16
    return torch.nn.functional.one_hot(preds, 4) * 2.0 + noise


def count_scores(rank: int, world: int):
    preds, target, presence, index = data()
    metric, logits = coalition_metric(scores=SCORES), logits_of(preds)
    for _, _, _, mine in own_share(rank, world):
        metric.update(logits[:, mine], target[mine], presence[mine], index[mine])
    return metric.scorecard().to_json()


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_beyond_the_confusion_are_the_integers_of_one_rank(world):
    preds, target, presence, index = data()
    metric = coalition_metric(scores=SCORES)
    metric.update(logits_of(preds), target, presence, index)
    alone = metric.scorecard()
    assert len(alone.further) >= len(SCORES)
    for card in map(Scorecard.from_json, on_ranks(world, count_scores)):
        assert card == alone
        assert card.interval("auroc") == alone.interval("auroc")


def refuses(rank: int, world: int):
    metric = coalition_metric(validate_args=False)
    metric.update(*data())
    if rank == 0:
        metric.layout.view(metric.counts, "refused")[0] += 2
    said = []
    for call in (metric.compute, metric.compute, metric.scorecard):
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    metric.reset()
    for preds, target, presence, index in own_share(rank, world):
        metric.update(preds, target, presence, index)
    return said, metric.compute()


def collection(rank: int, world: int):
    classes = (ModalityAccuracy, ModalityPrecision, ModalityRecall, ModalityF1Score)
    metrics = MetricCollection([*(kind(NAMES, num_classes=4) for kind in classes), ModalityConfusionMatrix(NAMES, 4)])
    if rank == 0:  # the other never updates, so it never forms compute groups
        preds, target, presence, _ = data()
        metrics.update(preds[-1], target, presence)
    seen, patches = counting_collectives()
    for patch in patches:
        patch.start()
    values = metrics.compute()
    mock.patch.stopall()
    return values, dict(seen)


def on_step(rank: int, world: int):
    metric = ModalityConfusionMatrix(NAMES, 4, dist_sync_on_step=True)
    preds, target, presence, _ = data()
    batch = metric(preds[-1], target, presence)
    refused = False
    try:
        metric(preds[-1] + 9, target, presence)
    except ValueError:
        refused = True
    return batch, metric.compute(), refused, metric.counts.sum()


def numbered_by_itself(rank: int, world: int):
    metric = coalition_metric()
    for preds, target, presence, _ in own_share(rank, world):
        metric.update(preds, target, presence)
    return metric.counts, metric.scorecard().to_json()


def several(rank: int, world: int):
    """Several questions on one launch, as launching takes most of the time."""
    works = (refuses, collection, on_step, numbered_by_itself)
    return {work.__name__: work(rank, world) for work in works}


@pytest.fixture(scope="module")
def answers():
    return on_ranks(2, several)


def test_samples_refused_on_one_rank_are_refused_on_all(answers):
    for answer in answers:
        said, after_reset = answer["refuses"]
        assert len(said) == 3
        assert all("2 samples with predictions" in text and "of 74" in text for text in said)
        assert torch.equal(after_reset, one_process().compute())


def test_a_collection_does_not_hang_where_a_rank_saw_nothing(answers):
    preds, target, presence, _ = data()
    f1 = ModalityF1Score(NAMES, num_classes=4)
    f1.update(preds[-1], target, presence)
    for answer in answers:
        values, seen = answer["collection"]
        assert seen == {"all_reduce": 5}
        assert values["ModalityConfusionMatrix"].sum(-1)[0].sum() == 37
        for key, value in f1.compute().items():
            assert torch.equal(values[key], value)


def test_forward_syncs_each_step_where_asked(answers):
    preds, target, presence, _ = data()
    alone = ModalityConfusionMatrix(NAMES, 4)
    alone.update(preds[-1], target, presence)
    for answer in answers:
        batch, total, refused, own = answer["on_step"]
        assert refused
        assert torch.equal(batch, 2 * alone.compute())
        assert torch.equal(total, 2 * alone.compute())
        assert own == alone.counts.sum()


def test_without_an_index_ranks_do_not_share_weights(answers):
    (first, card), (second, _) = (answer["numbered_by_itself"] for answer in answers)
    layout = coalition_metric().layout
    assert not torch.equal(layout.view(first, "replicates"), layout.view(second, "replicates"))
    alone, card = one_process().scorecard(), Scorecard.from_json(card)
    assert torch.equal(card.confusion("text"), alone.confusion("text"))
    assert card.interval("f1") == pytest.approx(alone.interval("f1"), abs=0.1)
    assert card.interval("f1") != alone.interval("f1")
