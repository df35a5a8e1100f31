"""Ranks that see nothing, or the same as another, and processes that hand their cards to the one they came from."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, Subset

from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.callbacks.ranks import shared
from mm_metrics.predictions.book import BookWriter, score_book
from tests.distributed.launch import launch
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer

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
    run = trainer(folder, monitor, devices=devices, strategy=strategy, use_distributed_sampler=split)
    run.validate(model, loaders, verbose=False)
    return monitor


class Still(Quiet):
    """Learns nothing, so that a run has one card however many ranks train."""

    def training_step(self, batch, batch_idx):
        return 0.0 * sum(parameter.sum() for parameter in self.parameters())


class Leaves(Callback):
    """Saves after a step, and ends the run."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def part_of_a_run(rank: int, world_size: int, folder: Path, leaves: int | None) -> tuple:
    """The epochs and the card of a run that leaves after so many steps, or goes on where that one left."""
    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, report=False, samples="all")
    callbacks, path = [monitor, *([] if leaves is None else [Leaves(leaves, folder / "left.ckpt")])], None
    if leaves is None:
        path = folder / "left.ckpt"
    run = trainer(folder, *callbacks, max_epochs=3, devices=world_size, strategy="ddp" if world_size > 1 else "auto")
    data = loader(Rows(n=43, seed=1), batch_size=8)
    run.fit(seeded(Still), data, loader(Rows(n=43, seed=1), batch_size=8), ckpt_path=path, weights_only=True)
    return [line["epoch"] for line in monitor.history], tuple(monitor.scorecards["val"].counts.tolist())


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("within", [False, True])
def test_a_run_goes_on_with_more_or_fewer_ranks(before, after, within, tmp_path):
    steps = {1: 6, 2: 3}[before]  # of an epoch
    first = launch(before, part_of_a_run, tmp_path, steps + (2 if within else steps))
    then = launch(after, part_of_a_run, tmp_path, None)
    assert {card for _, card in first} == {card for _, card in then}
    assert [epochs for epochs, _ in first] == [[0, 1]] * before
    # An epoch that was left at its last step is not validated again, as without any callback.
    assert [epochs for epochs, _ in then] == [[0, 1, 2] if within else [0, 2]] * after
    assert score_book(tmp_path / "modality" / "val.samples.parquet").samples == 43


class Changing(DataLoader):
    """From the second epoch on the first batch has no label."""

    epoch = 0

    def __iter__(self):
        self.epoch += 1
        for i, batch in enumerate(super().__iter__()):
            yield {name: value for name, value in batch.items() if self.epoch == 1 or i or name != "label"}


def one_rank_fails(rank: int, world_size: int, folder: Path) -> tuple:
    """What both ranks end with where the second has bad batches and a full disk."""
    full = mock.Mock(side_effect=OSError("full")) if rank else BookWriter
    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, report=False, samples="all")
    run = trainer(folder, monitor, devices=2, strategy="ddp", use_distributed_sampler=False, num_sanity_val_steps=0)
    data = Subset(Rows(n=44, seed=1), range(rank, 44, 2))
    with mock.patch("mm_metrics.callbacks.book.BookWriter", full):
        run.fit(seeded(Still), DataLoader(data, batch_size=8), (Changing if rank else DataLoader)(data, batch_size=8))
    return [line["val/refused"] for line in monitor.history], monitor.scorecards["val"].samples


def test_what_one_rank_can_not_do_ends_neither(tmp_path):
    assert launch(2, one_rank_fails, tmp_path) == [([0, 8], 36)] * 2
    assert not list(tmp_path.rglob("*.parquet"))


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
