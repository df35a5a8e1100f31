"""Ranks that see nothing, or the same as another, and processes that hand their cards to the one they came from."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.callbacks.ranks import shared
from tests.distributed.launch import launch
from tests.toys import MODALITIES, Concat, Rows, loader, seeded

pytestmark = pytest.mark.slow


class Quiet(Concat):
    def __init__(self):
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch)


class Heads(Quiet):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in MODALITIES})

    def by_head(self, batch):
        heads = {name: self.heads[name](batch[name]) for name in MODALITIES}
        return {**heads, "all": sum(heads.values())}


class Split(Quiet):
    """The head's columns and the next layer's rows lie on two ranks, which are given the same samples."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(24, 6), nn.ReLU(), nn.Linear(6, 3))

    def configure_model(self):
        if self.device_mesh is not None:
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize_module(self.head, self.device_mesh["tensor_parallel"], plan)


class Shared(DDPStrategy):
    """Every rank is given the same data, as under tensor parallelism."""

    @property
    def distributed_sampler_kwargs(self):
        return {"num_replicas": 1, "rank": 0}


def validated(folder, model, loaders, devices=1, strategy="auto", split=True, **keywords):
    monitor = ModalityMonitor(MODALITIES, bootstrap=20, report=False, **keywords)
    Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[monitor],
        use_distributed_sampler=split,
    ).validate(model, loaders, verbose=False)
    return monitor


def by_head(model, batch):
    return model.by_head(batch)


def odd(rank: int, world_size: int, folder: Path) -> list[str]:
    """What a rank ends with: the other without batches, with heads and without, and both with the same data.

    Lightning leaves out a rank that has no batch of any loader, so it is the second loader that is empty.
    """
    data = [loader(Rows(n=8)), loader(Rows(n=0 if rank else 43, seed=1), batch_size=8)]
    cards = []
    for model, keywords in ((seeded(Quiet), {}), (seeded(Heads), {"predict": by_head})):
        monitor = validated(folder, model, data, 2, "ddp", split=False, **keywords)
        cards.append(monitor.scorecards["val_1"].counts)
    same = validated(folder, seeded(Quiet), loader(Rows(n=43, seed=1), batch_size=8), 2, Shared(), num_classes=3)
    cards.append(same.scorecards["val"].counts)
    tensor = ModelParallelStrategy(1, 2, process_group_backend="gloo")
    model = seeded(Split)
    split = validated(folder, model, loader(Rows(n=43, seed=1), batch_size=8), 2, tensor)
    assert model.head[0].weight.to_local().shape == (3, 24)  # half of it
    cards.append(split.scorecards["val"].counts)
    return cards


def test_a_rank_without_batches_and_ranks_with_the_same(tmp_path):
    data = loader(Rows(n=43, seed=1), batch_size=8)
    plain, heads, split = (
        validated(tmp_path, seeded(model), data, **keywords).scorecards["val"]
        for model, keywords in ((Quiet, {}), (Heads, {"predict": by_head}), (Split, {}))
    )
    for cards in launch(2, odd, tmp_path):
        for found, expected in zip(cards, (plain, heads, plain, split), strict=True):
            layout = expected.layout
            assert torch.equal(layout.view(found, "confusion"), layout.view(expected.counts, "confusion"))
            assert int(layout.view(found, "samples")) == 43


@pytest.mark.filterwarnings("ignore")  # a fork inherits that warnings are errors, Lightning's own too
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_cards_come_back_from_other_processes(strategy, tmp_path):
    data = loader(Rows(n=43, seed=1), batch_size=8)
    spawned = validated(tmp_path, seeded(Quiet), data, 2, strategy, num_classes=3)
    alone = validated(tmp_path, seeded(Quiet), data, num_classes=3)
    assert spawned.scorecards["val"] == alone.scorecards["val"]
    assert spawned.verdicts["val"].level == alone.verdicts["val"].level


def blind(rank: int, world_size: int, folder: Path, which: int | None):
    """What `shared` says where one rank does not see what rank zero writes."""
    dist.init_process_group("gloo")
    exists = Path.exists
    with mock.patch.object(Path, "exists", lambda path: rank != which and exists(path)):
        try:
            return shared(folder / str(rank) / "deep")
        except ValueError as error:
            return str(error)


@pytest.mark.parametrize("which", [None, 0, 1])
def test_a_book_needs_a_folder_that_all_ranks_see(which, tmp_path):
    first, second = launch(2, blind, tmp_path, which)
    assert first == second
    folder = tmp_path / "0" / "deep"
    assert (first == folder) is (which is None)
    assert list(folder.iterdir()) == []  # no mark is left
    assert which is None or f"rank {which} does not see" in first
