"""Counts against a loop over the samples, in every layout; no stall; the size rule; load."""

import contextlib
import itertools
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix
from mm_metrics.counts.add import add
from mm_metrics.counts.labels import Reader
from mm_metrics.counts.layout import Layout
from mm_metrics.counts.plan import plan
from mm_metrics.counts.truth import Truth
from mm_metrics.modalities import Modalities
from mm_metrics.uncertainty import poisson_weights

KINDS = ("multiclass", "binary", "multilabel")


def case(seed: int, M: int = 3, N: int = 40, R: int = 0, kind: str = "multiclass", masks=None, **task):
    """A layout and labels with ignored samples, absent modalities and unanswered samples."""
    random = torch.Generator().manual_seed(seed)
    modalities = Modalities(f"m{i}" for i in range(M))
    reader = Reader(kind, 4 if kind == "multiclass" else None, 3 if kind == "multilabel" else None, **task)
    masks = tuple(range(2**M)) if masks is None else masks
    layout, _ = plan(modalities, reader, masks, R)
    shape = (N, 3) if kind == "multilabel" else (N,)
    preds = torch.randint(reader.C, (len(masks), *shape), generator=random)
    target = torch.randint(reader.C, shape, generator=random)
    if reader.ignore_index is not None:
        target[torch.rand(shape, generator=random) < 0.2] = reader.ignore_index
    presence = torch.rand(N, M, generator=random) < 0.6
    return layout, reader, preds, target, presence


def counted_by_loop(layout, reader, preds, target, presence, weights=None):
    """``(K, S, L, C, C)``, and the class sums of each replicate, the slow and obvious way."""
    K, S, L, C = layout.K, layout.S, layout.L, layout.C
    confusion = torch.zeros(K, S, L, C, C, dtype=torch.int64)
    R = 0 if weights is None else weights.shape[1]
    sums = torch.zeros(3, R, K, S, L, C, dtype=torch.int64)
    for k, n, label in itertools.product(range(K), range(len(target)), range(L)):
        t = int(target.reshape(-1, L)[n, label])
        p = int(preds.reshape(K, -1, L)[k, n, label])
        if t == reader.ignore_index:
            continue
        for s in range(S):
            if s == 0 or presence[n, s - 1]:
                confusion[k, s, label, t, p] += 1
                for r in range(R):
                    w = int(weights[n, r])
                    sums[0, r, k, s, label, t] += w * (t == p)
                    sums[1, r, k, s, label, p] += w
                    sums[2, r, k, s, label, t] += w
    return confusion, sums


def zeros(layout: Layout) -> torch.Tensor:
    return torch.zeros(layout.size, dtype=torch.int64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ignore_index", [None, -1, 1])
def test_counts_are_those_of_a_loop(kind, ignore_index):
    layout, reader, preds, target, presence = case(1, M=2, R=3, kind=kind, ignore_index=ignore_index)
    index = torch.arange(40) * 7
    expected, sums = counted_by_loop(layout, reader, preds, target, presence, poisson_weights(index, 3, 11))
    layouts = {
        replace(layout, patterns=patterns, full=full, replicate_slices=slices)
        for patterns in (True, False)
        for full in (True, False)
        for slices in (True, False)
    }
    for other in layouts:
        counts = zeros(other)
        add(counts, other, reader.read(preds, target), Truth(target, presence, index), key=11)
        confusion = other.confusion(counts)
        assert torch.equal(confusion, expected if other.full else expected[-1:])
        for ours, theirs in zip(
            other.class_sums(counts),
            (expected.diagonal(dim1=-2, dim2=-1), expected.sum(-2), expected.sum(-1)),
            strict=True,
        ):
            assert torch.equal(ours, theirs)
        replicates = other.view(counts, "replicates").permute(5, 0, 4, 1, 2, 3).unbind(4)  # (R, K, S, L, C) each
        for ours, theirs in zip(replicates, sums, strict=True):
            assert torch.equal(ours, theirs if other.replicate_slices else theirs[:, :, :1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [0, 9])
def test_hits_are_those_of_a_loop_as_patterns_and_as_pairs(kind, limit, monkeypatch):
    monkeypatch.setattr("mm_metrics.counts.layout._HIT_PATTERNS_UP_TO", limit)
    layout, reader, preds, target, presence = case(2, M=2, kind=kind, ignore_index=-1)
    answered = torch.rand(4, 40, generator=torch.Generator().manual_seed(3)) < 0.9
    for other in (layout, replace(layout, patterns=False)):
        counts = zeros(other)
        add(counts, other, reader.read(preds, target), Truth(target, presence), counted=answered)
        hits = other.hits(counts)
        hits = other.by_slice(hits.unsqueeze(0))[0] if other.hit_patterns else hits
        expected = torch.zeros_like(hits)
        for n in range(40):
            kept = target.reshape(40, -1)[n] != -1
            if not kept.any() or not answered[:, n].all():
                continue
            right = (preds.reshape(4, 40, -1)[:, n] == target.reshape(40, -1)[n])[:, kept].all(1)
            for s in range(3):
                if s and not presence[n, s - 1]:
                    continue
                if limit:
                    expected[s, sum(int(bit) << k for k, bit in enumerate(right))] += 1
                    continue
                for i, j in itertools.product(range(4), repeat=2):
                    expected[s, i, j] += right[i] and (i == j or not right[j])
        assert torch.equal(hits, expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 40), max_size=3), st.sampled_from(KINDS), st.randoms())
def test_batches_of_any_size_in_any_order_add_up(seed, cuts, kind, random):
    layout, reader, preds, target, presence = case(seed, M=2, R=5, kind=kind, ignore_index=-1)
    index = torch.arange(40) + seed
    whole = zeros(layout)
    add(whole, layout, reader.read(preds, target), Truth(target, presence, index), key=1)
    parts = list(itertools.pairwise([0, *sorted(cuts), 40]))
    random.shuffle(parts)
    counts = zeros(layout)
    for a, b in parts:
        add(
            counts,
            layout,
            reader.read(preds[:, a:b], target[a:b]),
            Truth(target[a:b], presence[a:b], index[a:b]),
            key=1,
        )
    assert torch.equal(counts[:-1], whole[:-1])  # the last cell is where nothing counts
    order = torch.tensor(random.sample(range(40), 40))
    permuted = zeros(layout)
    add(
        permuted,
        layout,
        reader.read(preds[:, order], target[order]),
        Truth(target[order], presence[order], index[order]),
        key=1,
    )
    assert torch.equal(permuted, whole)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.permutations(range(3)))
def test_slices_and_coalitions_have_no_place(seed, order):
    """Renaming modalities renames the slices and coalitions, and changes no number."""
    layout, reader, preds, target, presence = case(seed)
    counts, renamed = zeros(layout), zeros(layout)
    add(counts, layout, reader.read(preds, target), Truth(target, presence))
    old = [sum(1 << order[i] for i in range(3) if mask >> i & 1) for mask in range(8)]
    add(renamed, layout, reader.read(preds[old], target), Truth(target, presence[:, list(order)]))
    slices = [0, *(1 + m for m in order)]
    assert torch.equal(layout.confusion(renamed), layout.confusion(counts)[old][:, slices])


def test_a_large_batch_is_counted_in_parts(monkeypatch):
    layout, reader, preds, target, presence = case(4, R=4)
    index = torch.arange(40)
    whole, parts = zeros(layout), zeros(layout)
    add(whole, layout, reader.read(preds, target), Truth(target, presence, index))
    monkeypatch.setattr("mm_metrics.counts.add._CELLS_AT_ONCE", 60)
    monkeypatch.setattr("mm_metrics.counts.replicates._AT_ONCE", 3)
    add(parts, layout, reader.read(preds, target), Truth(target, presence, index))
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scores", ["labels", "scores"])
def test_the_deferred_path_counts_the_same_and_marks_the_bad(kind, scores):
    layout, reader, preds, target, presence = case(5, R=6, kind=kind, ignore_index=-1)
    if scores == "scores":
        random = torch.Generator().manual_seed(5)
        preds = torch.rand((*preds.shape, 4) if kind == "multiclass" else preds.shape, generator=random)
    index = torch.arange(40)
    eager, deferred = zeros(layout), zeros(layout)
    add(eager, layout, reader.read(preds, target), Truth(target, presence, index))
    add(deferred, layout, reader.read(preds, target, eager=False), Truth(target, presence, index), eager=False)
    assert torch.equal(eager[:-1], deferred[:-1])

    preds, target, presence = preds.clone(), target.clone(), presence.long()
    target[3:5] = 0  # what ignore_index leaves out may hold anything
    preds[0, 3] = float("nan") if scores == "scores" else 9
    preds[1, 4] = float("inf") if scores == "scores" else -9
    target[5], target[6], presence[7, 0], presence[8, 1] = 9, -9, 2, -1
    marked, expected = zeros(layout), zeros(layout)
    add(marked, layout, reader.read(preds, target, eager=False), Truth(target, presence, index), eager=False)
    assert layout.view(marked, "refused").tolist() == [2, 2, 2]
    good = torch.tensor([0, 1, 2, *range(9, 40)])
    add(expected, layout, reader.read(preds[:, good], target[good]), Truth(target[good], presence[good], index[good]))
    for name in set(layout.fields) - {"refused", "samples", "spare"}:
        assert torch.equal(layout.view(marked, name), layout.view(expected, name)), name


def test_float_targets_that_are_no_class_are_marked():
    reader = Reader("binary")
    labels = reader.read(torch.tensor([[0.2, 0.3, 0.4, 0.5]]), torch.tensor([0.0, 1.0, 0.5, 2.0]), eager=False)
    assert labels.bad_target.tolist() == [False, False, True, True]
    reader = Reader("multilabel", num_labels=2, ignore_index=-1)
    labels = reader.read(torch.rand(1, 2, 2), torch.tensor([[0.0, -1.0], [float("nan"), 1.0]]), eager=False)
    assert labels.bad_target.tolist() == [False, True]


class NoStall(TorchDispatchMode):
    """Raises on what makes the host wait for a device, and on what moves data between two."""

    WAITS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "is_nonzero", "item", "_unique2", "equal")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.WAITS, f"{function} makes the host wait"
        if name in ("index", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), f"{function} makes the host wait"
        result = function(*args, **(kwargs or {}))
        copies = name in ("_to_copy", "copy_")  # elsewhere a number may stay with the host: it is sent as an argument
        tensors = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor) and (x.ndim or copies)]
        assert len({x.device for x in tensors}) <= 1, f"{function} moves data between devices"
        return result


def elsewhere(value):
    """A tensor on a device where nobody can look at values: torch refuses it there just as a stall would show."""
    if isinstance(value, dict):
        return {key: elsewhere(part) for key, part in value.items()}
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


UPDATES = {
    "logits": {},
    "labels": {"labels": True},
    "ignore_index": {"ignore_index": -1},
    "replicates": {"bootstrap": 20},
    "binary": {"task": "binary"},
    "binary logits": {"task": "binary", "from_logits": True},
    "multilabel": {"task": "multilabel", "num_labels": 3, "ignore_index": -1, "bootstrap": 20},
    "thresholds": {"task": "multilabel", "num_labels": 3, "threshold": (0.2, 0.5, 0.7)},
    "integer presence": {"integers": True},
    "presence by name": {"by_name": True, "integers": True},
    "some coalitions": {"some": True, "bootstrap": 20},
    "answered": {"answered": True, "bootstrap": 20},
    "index": {"bootstrap": 20, "index": True},
    "reduced": {"bootstrap": 60, "max_bytes": 150_000, "num_classes": 40},
    "pairs of hits": {"coalitions": list(range(16)), "M": 4, "bootstrap": 5},
    "many modalities": {"M": 5, "coalitions": "leave_one_out", "bootstrap": 5},
}


@pytest.mark.parametrize("what", UPDATES)
@pytest.mark.filterwarnings("ignore:max_bytes")  # the reduced layout says what it leaves out
def test_an_update_never_waits_for_the_device(what, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no device meta
    arguments = dict(UPDATES[what])
    switches = {
        key: arguments.pop(key, False) for key in ("labels", "integers", "by_name", "some", "answered", "index")
    }
    names = tuple(f"m{i}" for i in range(arguments.pop("M", 3)))
    N, kind = 16, arguments.get("task", "multiclass")
    if kind == "multiclass":
        arguments.setdefault("num_classes", 5)
    metric = CoalitionConfusionMatrix(names, validate_args=False, **arguments)
    K, C = metric.layout.K, arguments.get("num_classes", 2)
    shape = (N, 3) if kind == "multilabel" else (N,)
    preds = torch.zeros(K, *shape, dtype=torch.int64)
    if not switches["labels"]:
        preds = torch.zeros(K, *shape, C) if kind == "multiclass" else torch.zeros(K, *shape)
    presence = torch.ones(N, len(names), dtype=torch.int64 if switches["integers"] else torch.bool)
    inputs = {"preds": preds, "target": torch.zeros(shape, dtype=torch.int64), "presence": presence}
    if switches["some"]:
        inputs["preds"] = dict.fromkeys(metric.coalitions[1:4], preds[0])
    if switches["by_name"]:
        inputs["presence"] = dict(zip(names, presence.T, strict=True))
    if switches["answered"]:
        inputs["counted"] = torch.ones(K, N, dtype=torch.bool)
    if switches["index"]:
        inputs["index"] = torch.arange(N)
    inputs = {key: elsewhere(value) for key, value in inputs.items()}
    setattr(metric, metric._state, elsewhere(metric.counts))
    with NoStall():
        metric.update(**inputs)
    assert metric.counts.device.type == "meta"


def test_the_watch_for_waiting_can_fail():
    logits, target = elsewhere(torch.zeros(1, 4, 3)), elsewhere(torch.zeros(4, dtype=torch.int64))
    for bad in (
        lambda: Reader(num_classes=3).read(logits, target, eager=True),
        lambda: target[target > 0],
        lambda: logits.cpu(),
        lambda: target + torch.arange(4),
        lambda: torch.tensor([1, 2]).to(target.device),
        lambda: torch.tensor(1).to(target.device),
        lambda: torch.bincount(target),
        lambda: target.max().item(),
    ):
        with (
            pytest.raises((AssertionError, RuntimeError), match=r"makes the host wait|moves data|meta"),
            NoStall(),
        ):
            bad()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("what", ["logits", "ignore_index", "replicates", "multilabel"])
def test_an_update_never_waits_for_a_real_device(what):
    arguments = {"num_classes": 5, **UPDATES[what]}
    if "task" in arguments:
        arguments.pop("num_classes")
    metric = CoalitionConfusionMatrix(("a", "b"), validate_args=False, **arguments).to("cuda")
    shape = (64, 3) if what == "multilabel" else (64,)
    target = torch.zeros(shape, dtype=torch.int64, device="cuda")
    preds = torch.rand(4, *shape, *(() if what == "multilabel" else (5,)), device="cuda")
    presence = torch.ones(64, 2, dtype=torch.bool, device="cuda")
    metric.update(preds, target, presence)
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(preds, target, presence)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(metric.counts[metric.layout.fields["samples"][0]]) == 128


def core(layout, reader, counts, preds, target, presence, index):
    add(counts, layout, reader.read(preds, target, eager=False), Truth(target, presence, index), key=1, eager=False)
    return counts


@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler warns of Python's ast
def test_the_core_compiles_as_one_graph(backend):
    torch._dynamo.reset()
    layout, reader, preds, target, presence = case(6, M=2, R=8)
    scores = torch.nn.functional.one_hot(preds, 4).float()
    inputs = (scores, target, presence, torch.arange(40))
    expected = core(layout, reader, zeros(layout), *inputs)
    compiled = torch.compile(core, fullgraph=True, backend=backend)
    assert torch.equal(compiled(layout, reader, zeros(layout), *inputs), expected)


def planned(C, K_of, R, max_bytes, M=3):
    modalities = Modalities(f"m{i}" for i in range(M))
    return plan(modalities, Reader(num_classes=C), modalities.masks(K_of), R, max_bytes)


def test_the_size_rule_step_by_step():
    """First replicates keep the whole only, then they are fewer, then sums stand for matrices."""
    seen = []
    for max_bytes in np.geomspace(40_000_000, 450_000, 60).astype(int):
        layout, said = planned(100, "all", 200, int(max_bytes))
        assert 8 * layout.size <= max_bytes
        steps = (not layout.replicate_slices, layout.R < 200, not layout.full)
        assert len(said) == sum(steps)
        assert [("whole" in s, "replicates are kept" in s, "sums" in s) for s in said] == [
            tuple(i == j for j in range(3)) for i in range(3) if steps[i]
        ]
        seen.append(steps)
    assert seen[0] == (False, False, False)
    assert (True, False, False) in seen
    assert (True, True, False) in seen
    assert seen[-1][0]
    assert seen[-1][2]
    with pytest.raises(ValueError, match="max_bytes=1000 is too little"):
        planned(100, "all", 200, 1000)


def test_527_labels_under_8_coalitions_keep_their_histograms_and_intervals():
    modalities = Modalities(("text", "image", "audio"))
    reader = Reader("multilabel", num_labels=527)
    layout, said = plan(modalities, reader, range(8), 200, curves=527)
    assert 8 * layout.size <= 2**28
    assert (layout.bins, layout.replicate_bins, layout.full) == (256, 32, True)
    assert 50 <= layout.R < 200
    assert len(said) == 3  # replicates of the whole alone, fewer of them, fewer bins
    layout, said = plan(modalities, reader, range(8), 0, curves=527)
    assert (layout.bins, layout.full, said) == (512, True, [])


@pytest.mark.filterwarnings("ignore:max_bytes")
def test_a_reduced_buffer_scores_the_same():
    random = torch.Generator().manual_seed(0)
    preds, target = torch.randint(50, (8, 300), generator=random), torch.randint(50, (300,), generator=random)
    presence = torch.rand(300, 3, generator=random) < 0.5
    cards = []
    for max_bytes in (2**28, 750_000):
        metric = CoalitionConfusionMatrix(("a", "b", "c"), num_classes=50, bootstrap=60, max_bytes=max_bytes)
        metric.update(preds, target, presence)
        cards.append(metric.scorecard())
    rich, poor = cards
    assert rich.layout.full
    assert not poor.layout.full
    for score, coalition, slice in itertools.product(
        ("accuracy", "f1", "matthews"), ("none", "a-c", "all"), ("all", "b")
    ):
        assert poor.score(score, coalition, slice) == rich.score(score, coalition, slice)
    assert poor.interval("f1", "a-c") == rich.interval("f1", "a-c")
    assert torch.equal(poor.confusion(), rich.confusion())
    with pytest.raises(ValueError, match="max_bytes"):
        poor.confusion("a-c")
    with pytest.raises(ValueError, match="max_bytes"):
        metric.compute()


def test_1000_classes_by_8_coalitions_fit_and_work():
    with pytest.warns(UserWarning, match="max_bytes=") as said:
        metric = CoalitionConfusionMatrix(("a", "b", "c"), num_classes=1000, bootstrap=200)
    assert 1 <= len(said) <= 3
    assert metric.counts.nbytes <= 256 * 2**20
    target = torch.arange(64) * 15
    metric.update(target.expand(8, 64), target, torch.ones(64, 3, dtype=torch.bool))
    card = metric.scorecard()
    assert card.score("f1") == 1
    assert card.support("b") == 64
    assert card.interval("accuracy")[0] > 0.9
    # Of 64 classes with one sample each as many again may not have been seen (Chao 1984): nothing is known of those.
    low, high = card.interval("f1")
    assert low == pytest.approx(0.5, abs=0.05)
    assert high == 1


def test_12_modalities_work():
    names = [f"m{i}" for i in range(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = CoalitionConfusionMatrix(names, num_classes=5, bootstrap=50)
    assert metric.layout.K == 134
    shown = torch.as_tensor(metric.modalities.table(metric.layout.masks))
    target = torch.arange(60) % 5
    needs = torch.arange(60) % 12  # which modality tells of a sample
    preds = torch.where(shown[:, needs], target, (target + 1) % 5)
    metric.update(preds, target)
    contribution = metric.scorecard().contributions("accuracy")
    for name in names:
        assert contribution[name].shapley.value == pytest.approx(1 / 12)
        assert contribution[name].drop.value == pytest.approx(1 / 12)
        assert contribution[name].shapley.low < 1 / 12 < contribution[name].shapley.high


def test_batches_of_one_count_as_one_batch():
    _, _, preds, target, presence = case(7)
    arguments = {"num_classes": 4, "bootstrap": 10}
    one, many = (CoalitionConfusionMatrix(("a", "b", "c"), **arguments) for _ in range(2))
    one.update(preds, target, presence)
    for n in range(40):
        many.update(preds[:, n : n + 1], target[n : n + 1], presence[n : n + 1])
    assert one.scorecard() == many.scorecard()


@pytest.mark.slow
def test_ten_million_samples_in_one_metric():
    random = torch.Generator().manual_seed(0)
    target = torch.randint(10, (10_000_000,), generator=random)
    presence = torch.rand(10_000_000, 3, generator=random) < 0.5
    metric = ModalityConfusionMatrix(("a", "b", "c"), num_classes=10)
    start = time.perf_counter()
    metric.update(target, target, presence)
    assert time.perf_counter() - start < 30
    compute = metric.compute()
    assert compute[0].diagonal().sum() == 10_000_000
    np.testing.assert_array_equal(compute[2].diagonal(), np.bincount(target[presence[:, 1]], minlength=10))


class Rounding(TorchDispatchMode):
    """Rounds the factors of every float32 product to 10 bits, as TF32 does, whatever switch turned it on."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"):
            self.products += 1
            args = tree_map(self.rounded, args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(x):
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float32:
            return x
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_no_rounded_product_changes_a_count_or_an_interval():
    def counted():
        generator = torch.Generator().manual_seed(0)
        metric = CoalitionConfusionMatrix(tuple("abcdef"), num_classes=5, bootstrap=50, scores=("auroc", "brier"))
        for _ in range(2):
            preds, target = torch.randn(64, 300, 5, generator=generator), torch.randint(5, (300,), generator=generator)
            metric.update(preds, target, torch.rand(300, 6, generator=generator) < 0.7)
        card = metric.scorecard()
        return metric.counts, card.interval("f1"), card.contributions("f1")

    counts, *estimates = counted()
    with Rounding() as rounding:
        x = torch.full((2, 2), 1 + 2**-12)
        assert (x @ x == 2).all()  # what lies below ten bits is gone
        met = rounding.products
        again, *others = counted()
    assert rounding.products > met  # there is a product, and it is of zeros and ones
    assert torch.equal(counts, again)
    assert estimates == others
