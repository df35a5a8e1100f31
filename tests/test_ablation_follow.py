"""What each tensor depends on, followed through operations, views, writes, and the ways out of torch."""

import pytest
import torch
from torch import nn

from mm_metrics.ablation.encoders import sample_axes
from mm_metrics.ablation.trace import trace

A, B = 1, 2


def bits_of(run):
    batch = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    return trace(run, batch, {("a",): A, ("b",): B}).answer


def in_slices(batch):
    joined = torch.zeros(3, 8)
    joined[:, :4] = batch["a"]
    joined.narrow(1, 4, 4).copy_(batch["b"])
    return joined * 2


def in_a_view_made_before(batch):
    joined = torch.zeros(3, 4)
    view = joined.t()
    joined += batch["a"]
    return view


def by_number(batch):
    return torch.zeros(3) if batch["a"].sum().item() > 1e9 else torch.ones(3)


def by_branch(batch):
    return torch.zeros(3) if (batch["b"] > 1e9).any() else torch.ones(3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda batch: torch.ones(3), 0),
        (lambda batch: batch["a"], A),
        (lambda batch: batch["a"].t()[1:].reshape(-1).clone(), A),
        (lambda batch: batch["a"] @ batch["b"].t(), A | B),
        (lambda batch: torch.zeros_like(batch["a"]) + batch["b"].shape[0], A),  # by its shape alone: on the safe side
        (lambda batch: torch.cat([batch["a"], torch.ones(3, 1)], 1)[:, 4:], A),
        (lambda batch: torch.where(batch["a"] > 0, batch["b"], 0), A | B),
        (lambda batch: torch.arange(5)[batch["a"].argmax(1)], A),
        (lambda batch: torch.add(batch["a"], 1, out=torch.empty(3, 4)), A),
        (lambda batch: batch["a"].data * 1, A),
        (lambda batch: {"x": [batch["a"]], "y": (batch["b"], 1)}, A | B),
        (in_slices, A | B),
        (in_a_view_made_before, A),
        (by_number, A),
        (by_branch, B),
        (lambda batch: torch.from_numpy(batch["a"].numpy() * 2), A),
        (lambda batch: torch.tensor(batch["b"].tolist()), B),
    ],
)
def test_bits_follow_the_values(run, expected, context):
    with context():
        assert bits_of(run) == expected


def test_two_modalities_in_one_memory_are_told_apart():
    joined = torch.randn(3, 8)
    batch = {"a": joined[:, :4], "b": joined[:, 4:]}
    for name, bit in (("a", A), ("b", B)):
        with torch.no_grad():
            assert trace(lambda given: given[name] * 2, batch, {("a",): A, ("b",): B}).answer == bit  # noqa: B023


def test_calls_are_known_by_what_they_give():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, batch):
            return self.outer(self.inner(batch["a"]) + batch["b"])

    model = Model()
    with torch.no_grad():
        done = trace(model, {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}, {("a",): A, ("b",): B})
        assert [(call.module, done.bits[call]) for call in done.calls] == [
            (model, A | B),
            (model.inner, A),
            (model.outer, A | B),
        ]
        # the inner call's output takes bits of its own, and those reach the answer in place of the input's
        done = trace(model, done.batch, {("a",): A, ("b",): B}, {1: 8})
    assert done.answer == 8 | B
    assert not done.written


def test_writes_into_inputs_and_outputs_are_seen():
    def run(batch):
        batch["a"][0].mul_(2)
        return batch["a"] + layer(batch["b"]).view(-1).add_(1).view(3, 4)

    layer = nn.Linear(4, 4)
    with torch.no_grad():
        done = trace(run, {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}, {("a",): A, ("b",): B}, {0: 8})
    assert done.written == A | 8


def test_memory_that_is_freed_and_used_again_carries_nothing_over():
    def run(batch):
        for _ in range(20):
            scratch = torch.zeros(3, 4)
            scratch += batch["a"]
            del scratch
        return torch.zeros(3, 4) + batch["b"]

    with torch.no_grad():
        assert bits_of(run) == B


def test_the_axis_of_the_samples_is_the_one_that_grows():
    def axes(few, many):
        return sample_axes(torch.zeros(few), torch.zeros(many), 2, 3)

    assert axes((2, 5), (3, 5)) == {(): 0}
    assert axes((7, 2, 5), (7, 3, 5)) == {(): 1}
    assert axes((8, 5), (12, 5)) == {(): 0}  # four frames a sample
    assert axes((4,), (4,)) == {(): None}
    assert axes((2, 2), (3, 3)) is None  # each sample with each
    assert axes((4, 5), (5, 5)) is None
    assert axes((2, 1), (3,)) is None
    assert sample_axes({"x": torch.zeros(2)}, {"y": torch.zeros(3)}, 2, 3) is None
