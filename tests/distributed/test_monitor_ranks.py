"""Same numbers everywhere: one, two, three or four processes give the same scorecard, counts and intervals."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mm_metrics import Scorecard
from mm_metrics.callbacks import ModalityMonitor
from tests.distributed.launch import launch
from tests.toys import MODALITIES, Rows, loader, seeded, trainer

pytestmark = pytest.mark.slow


class Ordered(BatchSampler):
    """A batch sampler of the user's, which Lightning makes anew around a distributed sampler."""


def validate(
    rank: int, world_size: int, folder: Path, strategy: str, how: str, num_nodes: int = 1
) -> tuple[str, dict[str, float], list[str]]:
    """A validation of 43 samples, which no world size here divides."""
    data = Rows(n=43, missing=0.2, seed=1)
    if how == "batch_sampler":
        loaders = DataLoader(data, batch_sampler=Ordered(SequentialSampler(data), 8, drop_last=False))
    else:
        loaders = loader(data, batch_size=8)
    by = {"audio.loudness": "auto", "missing": "auto"}
    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=40, presence="presence", by=by)
    run = trainer(folder, monitor, devices=world_size, num_nodes=num_nodes, strategy=strategy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(seeded(), loaders, verbose=False)
    logged = {key: float(value) for key, value in run.callback_metrics.items() if key != "val_loss"}
    said = [str(warning.message) for warning in caught if "self.log('val/" in str(warning.message)]
    return monitor_card(run), logged, said


def monitor_card(run: Trainer) -> str:
    """The scorecard as JSON, without what was run."""
    monitor = next(callback for callback in run.callbacks if isinstance(callback, ModalityMonitor))
    content = json.loads(monitor.scorecards["val"].to_json())
    return json.dumps({key: value for key, value in content.items() if key != "info"})


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        one[key] == other[key] or (one[key] != one[key] and other[key] != other[key]) for key in one
    )


def one_process(tmp_path: Path, how: str = "sampler") -> tuple[str, dict[str, float], list[str]]:
    return validate(0, 1, tmp_path / "one", "auto", how)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return one_process(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_any_number_of_ranks_counts_the_same(tmp_path, alone, world_size):
    ranks = launch(world_size, validate, tmp_path, "ddp", "sampler")
    for card, logged, said in ranks:
        assert card == alone[0]
        assert same(logged, alone[1])
        assert said == []
    assert Scorecard.from_json(tmp_path / "modality" / "val.json").samples == 43


def test_a_batch_sampler_on_two_ranks(tmp_path, alone):
    card, logged, _ = launch(2, validate, tmp_path, "ddp", "batch_sampler")[0]
    assert card == alone[0]
    assert same(logged, alone[1])
