"""A model whose forward waits for the other ranks: each rank runs it as often, whatever its own batches look like."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from tests.distributed.launch import launch
from tests.distributed.test_odd_ranks import Heads, Quiet, by_head, validated
from tests.toys import MODALITIES, Rows, loader, seeded

pytestmark = pytest.mark.slow
WAIT = datetime.timedelta(seconds=30)
TURNS: list[int] = []  # one a forward; outside the model, which is as before after each


def meet(batch):
    """Wait for the other ranks, and see that they are at the same forward of the same batch."""
    TURNS.append(0)
    if dist.is_initialized():
        low, high = (torch.tensor([len(TURNS), int(batch["turn"][0])]) for _ in range(2))
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        assert torch.equal(low, high), f"forwards and batches from {low.tolist()} to {high.tolist()}"


class Meets(Quiet):
    def forward(self, batch):
        meet(batch)
        there = {name: batch.get(name, torch.zeros(len(batch["label"]), 8)) for name in MODALITIES}
        return super().forward(there)


class MeetsByHead(Heads):
    def by_head(self, batch):
        meet(batch)
        return super().by_head(batch)

    def forward(self, batch):
        return self.by_head(batch)["all"]


SIZES = ((8, 8, 3, 8, 6), (5, 8, 8, 1, 8), (7, 1, 8, 8, 2))


def batches(rank, forms):
    """A rank's own: other sizes, one without audio, NaN in one."""
    found, start = [], 100 * rank
    for turn, n in enumerate(SIZES[rank]):
        data = Rows(n=400, seed=1)
        batch = next(iter(loader(data, batch_size=400)))
        batch = {name: value[start : start + n] for name, value in batch.items()}
        batch["turn"] = torch.full((n,), turn)
        if forms and (rank, turn) in ((1, 1), (0, 3)):
            del batch["audio"]
        if (rank, turn) == (0, 1):
            batch["text"][0] = torch.nan
        found.append(batch)
        start += n
    return found


WAYS = {
    "parts": (Meets, {}),
    "whole": (Meets, {"encoders": None, "max_batches": 3}),
    "some": (Meets, {"ablation": ["text", "text-audio"], "num_classes": 3, "presence": "presence"}),
    "heads": (MeetsByHead, {"predict": by_head}),
}


def cards(rank: int, world_size: int, folder: Path, alone: bool = False):
    found = {}
    TURNS.clear()
    for way, (model, keywords) in WAYS.items():
        ranks = range(world_size) if alone else [rank]
        mine = [batch for one in ranks for batch in batches(one, way != "heads")]
        strategy = "auto" if alone else DDPStrategy(process_group_backend="gloo", timeout=WAIT)
        data = DataLoader(mine, batch_size=None)
        found[way] = validated(folder, seeded(model), data, 1 if alone else world_size, strategy, False, **keywords)
    return {way: (one.scorecards["val"].layout, one.scorecards["val"].counts) for way, one in found.items()}


@pytest.mark.filterwarnings("ignore")  # what is said of odd batches is tested elsewhere
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_meet_in_the_same_forward(tmp_path, world_size):
    expected = cards(0, world_size, tmp_path / "alone", alone=True)
    for found in launch(world_size, cards, tmp_path):
        for way, (layout, counts) in found.items():
            for field in ("confusion", "samples"):
                if way != "whole":  # there each rank ablates three batches of its own
                    mine, reference = layout.view(counts, field), expected[way][0].view(expected[way][1], field)
                    assert torch.equal(mine, reference), (way, field)
