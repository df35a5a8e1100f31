"""Numbers of samples on several ranks: each sample once, whatever copies a sampler adds."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics.sampler import GlobalIndex, numbered
from tests.distributed.launch import launch
from tests.toys import MODALITIES, Rows, loader, seeded

CPU = torch.device("cpu")


class Ordered(BatchSampler):
    """A batch sampler of the user's, which Lightning makes anew around a distributed sampler."""


class Reversed(BatchSampler):
    """One that changes the order."""

    def __iter__(self):
        return iter([batch[::-1] for batch in super().__iter__()])


class Runs(DistributedSampler):
    """One that gives each rank a run of samples."""

    def __iter__(self):
        return iter(range(self.rank * self.num_samples, min((self.rank + 1) * self.num_samples, len(self.dataset))))


class InTurn(DistributedSampler):
    """One of the user's that deals as torch does."""


def of_torch(n, batch, ranks, drop_last):
    for rank in range(ranks):
        sampler = DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=drop_last)
        yield DataLoader(range(n), batch, sampler=sampler)


def of_accelerate(n, batch, ranks, split, even):
    prepare = pytest.importorskip("accelerate.data_loader").prepare_data_loader
    for rank in range(ranks):
        yield prepare(
            DataLoader(range(n), batch), CPU, ranks, rank, split_batches=split, even_batches=even, put_on_device=False
        )


@pytest.mark.parametrize("n", [1, 2, 10, 23, 24])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(
    "how", [(of_torch, False), (of_torch, True), *((of_accelerate, s, e) for s in (False, True) for e in (False, True))]
)
def test_each_sample_has_its_number_once_and_copies_have_none(n, ranks, how):
    make, *arguments = how
    found = []
    for part in make(n, 6, ranks, *arguments):
        for batch, index in numbered(part):
            assert len(batch) == len(index)
            real = index >= 0
            assert torch.equal(batch[real], index[real])  # of range(n) the sample is its number
            found += index[real].tolist()
    dropped = n % ranks if arguments == [True] and make is of_torch else 0
    assert sorted(found) == list(range(n - dropped))


def test_copies_are_known_and_what_cannot_be_seen_through_is_said():
    said: list[str] = []
    numbers = []
    for part in of_torch(10, 3, 3, drop_last=False):
        index = GlobalIndex(part, part.sampler.rank, 3, said.append)
        for size in (3, 1):
            found, n = index(size, CPU)
            assert found is not None
            assert len(found) == n
            numbers += found.tolist()
    assert sorted(numbers) == list(range(10))
    assert said == []
    index = GlobalIndex(DataLoader(range(10)), 0, 3, said.append)
    assert index(4, CPU) == (None, 4)
    assert "use DistributedSampler" in said[0]
    for kind, known in ((Ordered, True), (Reversed, False)):
        batches = kind(DistributedSampler(range(10), 3, 0, shuffle=False), 2, drop_last=False)
        index = GlobalIndex(DataLoader(range(10), batch_sampler=batches), 0, 3, said.append)
        assert index.known is known
    for kind, known in ((InTurn, True), (Runs, False)):
        index = GlobalIndex(DataLoader(range(10), sampler=kind(range(10), 3, 1, shuffle=False)), 1, 3, said.append)
        assert index.known is known


class Stream(IterableDataset):
    """Samples without numbers."""

    def __iter__(self):
        return iter(range(3))


def test_a_loader_whose_samples_have_no_numbers_is_refused():
    for part in (DataLoader(Stream()), DataLoader(range(3), batch_size=None)):
        with pytest.raises(ValueError, match="no batch sampler"):
            next(numbered(part))
    rank = DistributedSampler(range(10), 3, 0, shuffle=False)
    with pytest.raises(ValueError, match="use DistributedSampler"):
        next(numbered(DataLoader(range(10), batch_sampler=Reversed(rank, 2, drop_last=False))))
    with pytest.warns(UserWarning, match="shuffle=False"):
        assert next(numbered(DataLoader(range(3), 2, shuffle=True)))[1].tolist() == [0, 1]


def test_numbering_moves_no_random_stream():
    data = DataLoader(range(5), 2, shuffle=True)
    torch.manual_seed(0)
    plain = [batch.tolist() for batch in data]
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="shuffles"):
        assert [batch.tolist() for batch, _ in numbered(data)] == plain


@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_sample_of_no_number_is_as_if_it_had_not_come(ignore_index, multilabel):
    arguments = {"task": "multilabel", "num_labels": 3} if multilabel else {"num_classes": 3}
    generator = torch.Generator().manual_seed(0)
    preds = torch.randint(2 if multilabel else 3, (4, 50, *[3] * multilabel), generator=generator)
    target = torch.randint(2 if multilabel else 3, preds.shape[1:], generator=generator)
    presence = torch.rand(50, 2, generator=generator) < 0.7
    index = torch.arange(50)
    real = index % 7 != 0
    every, some = (
        CoalitionConfusionMatrix(("a", "b"), bootstrap=20, ignore_index=ignore_index, **arguments) for _ in range(2)
    )
    every.update(preds, target, presence, torch.where(real, index, -1))
    some.update(preds[:, real], target[real], presence[real], index[real])
    assert torch.equal(every.counts[:-1], some.counts[:-1])  # the last cell is a spare
    assert every.scorecard().samples == int(real.sum())


def evaluated(rank, world_size, folder):
    """What a loop of one's own with DistributedSampler ends with on each rank."""
    data = Rows(n=43, missing=0.2, seed=1)
    sampler = DistributedSampler(data, world_size, rank, shuffle=False) if world_size > 1 else SequentialSampler(data)
    if world_size > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    model = seeded().eval()
    metric = CoalitionConfusionMatrix(tuple(MODALITIES), num_classes=3, bootstrap=20, coalitions="leave_one_out")
    with torch.no_grad():
        for batch, index in numbered(loader(data, batch_size=8, sampler=sampler)):
            logits = model(batch)
            metric.update({"all": logits, "text-image": logits.flip(-1)}, batch["label"], batch["presence"], index)
    card = metric.scorecard()
    if world_size > 1:
        torch.distributed.destroy_process_group()
    return card.samples, card.counts[:-1].tolist()  # the last cell is a spare


@pytest.mark.slow
def test_two_ranks_count_what_one_counts_to_the_last_integer(tmp_path):
    alone = evaluated(0, 1, tmp_path)
    assert alone[0] == 43
    assert launch(2, evaluated, tmp_path) == [alone, alone]
