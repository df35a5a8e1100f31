"""`ModalityDynamics`: its numbers by hand, whom it names and whom it leaves in peace, and that it leaves no trace."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.metrics import log_loss
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, IterableDataset, RandomSampler, SubsetRandomSampler

from mm_metrics import ModalityAblation
from mm_metrics.callbacks import ModalityDynamics, truth
from mm_metrics.callbacks.gradients import EncoderGradients
from mm_metrics.callbacks.learning import Seen, Thresholds, findings, seen
from mm_metrics.callbacks.subset import FixedSubset
from mm_metrics.counts.labels import Reader
from mm_metrics.modalities import Modalities
from tests.distributed.launch import launch
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer

pytestmark = [
    # Lightning 2.6 asks torch 2.13's pytree in a way that torch has renamed.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    # The data lie in memory: workers would only copy them.
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    # Small data: fewer batches than the logging interval.
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
]


def evidence(*args, shuffle: bool = False, **keywords):
    return loader(Evidence(*args, **keywords), batch_size=50, shuffle=shuffle)


def dynamics(**keywords) -> ModalityDynamics:
    return ModalityDynamics(MODALITIES, **{"num_classes": 3, **keywords})


class Evidence(Dataset):
    """Labels that `told` modalities tell clearly; ``noise`` in audio is another for every sample, as an identity is."""

    def __init__(self, n: int, seed: int, told=("text", "image"), noise: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.label = torch.randint(3, (n,), generator=generator)
        signal = nn.functional.one_hot(self.label, 64).float()
        self.inputs = {
            name: 3.0 * signal * (name in told) + 0.3 * torch.randn(n, 64, generator=generator) * (name in told)
            for name in MODALITIES
        }
        self.inputs["audio"] = self.inputs["audio"] + noise * torch.randn(n, 64, generator=generator)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {**{name: value[i] for name, value in self.inputs.items()}, "label": self.label[i]}


class Memory(Concat):
    """Encoders wide enough to learn 200 identities by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)) for name in MODALITIES}
        )


# What the numbers are


def test_gradients_and_learning_speed_by_hand(tmp_path):
    class Plain(Concat):
        def __init__(self) -> None:
            super().__init__()
            self.head[1] = nn.Identity()  # instead of dropout

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    watcher, data = dynamics(), Rows(n=48)
    trainer(tmp_path, watcher, max_epochs=2).fit(seeded(Plain), loader(data), loader(Rows(seed=1)))

    model = seeded(Plain).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms, speed = {name: [] for name in MODALITIES}, dict.fromkeys(MODALITIES, 0.0)
    after = []
    for _ in range(2):
        for batch in loader(data):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), batch["label"]).backward()
            for name in MODALITIES:
                encoder = model.encoders[name]
                gradient = torch.cat([p.grad.flatten() for p in encoder.parameters()]).norm().item()
                weight = torch.cat([p.detach().flatten() for p in encoder.parameters()]).norm().item()
                norms[name].append(gradient)
                speed[name] += gradient**2 / weight**2
            optimizer.step()
        after.append(dict(speed))
    for epoch, row in enumerate(watcher.history):
        for name in MODALITIES:
            assert row[f"dynamics/{name}/gradient_norm"] == pytest.approx(
                np.mean(norms[name][3 * epoch :][:3]), rel=1e-5
            )
            assert row[f"dynamics/{name}/learning_speed"] == pytest.approx(after[epoch][name], rel=1e-5)
            others = [after[epoch][other] for other in MODALITIES if other != name]
            ratio = math.log(after[epoch][name] / np.mean(others))
            assert row[f"dynamics/{name}/relative_learning_speed"] == pytest.approx(ratio, rel=1e-5)


def model(batch):
    return model(batch)


def test_losses_discrepancy_and_utilisation_by_hand(tmp_path):
    data, held, model = Rows(n=60), Rows(n=50, seed=1), seeded()
    watcher = dynamics()
    trainer(tmp_path, watcher, max_epochs=3).fit(model, loader(data, shuffle=True), loader(held))
    row, first = watcher.history[-1], watcher.history[0]
    for split, rows in (("train", data), ("val", held)):
        batch = next(iter(loader(rows, batch_size=len(rows))))
        logits = ModalityAblation(model, MODALITIES, encoders=None)(batch).double()
        label = batch["label"]
        accuracy = (logits.argmax(-1) == label).double().mean(1)
        likely = [logits[1 << m].softmax(-1)[torch.arange(len(label)), label].sum() for m in range(3)]
        for m, name in enumerate(MODALITIES):
            alone = logits[1 << m].softmax(-1)
            assert row[f"dynamics/{name}/loss/{split}"] == pytest.approx(log_loss(label, alone), rel=1e-5)
            assert row[f"dynamics/{name}/accuracy/{split}"] == pytest.approx(float(accuracy[1 << m]))
            share = (accuracy[7] - accuracy[7 ^ 1 << m]) / accuracy[7]
            assert row[f"dynamics/{name}/conditional_utilisation/{split}"] == pytest.approx(float(share), abs=1e-9)
            others = sum(likely[i] for i in range(3) if i != m) / 2
            if split == "train":
                assert row[f"dynamics/{name}/discrepancy"] == pytest.approx(float(likely[m] / others), rel=1e-5)
    for name in MODALITIES:
        o = [r[f"dynamics/{name}/loss/val"] - r[f"dynamics/{name}/loss/train"] for r in (first, row)]
        g = [r[f"dynamics/{name}/loss/val"] for r in (first, row)]
        ratio = abs((o[1] - o[0]) / (g[0] - g[1]))
        assert row[f"dynamics/{name}/overfitting_to_generalisation"] == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_right_and_likely_in_other_tasks(task):
    torch.manual_seed(0)
    shape = (4, 40) if task == "binary" else (4, 40, 3)
    preds, target = torch.randn(shape), torch.randint(2, shape[1:])
    target[:5] = -1
    reading = Reader(task, num_labels=3 if task == "multilabel" else None, from_logits=True, ignore_index=-1)
    told = seen(Modalities(("text", "audio")), range(4), reading, [truth.Rows(preds, target)])
    kept = target[5:]
    assert told.right[:, :5].isnan().all()
    for k in range(4):
        p = preds[k, 5:].double().sigmoid()
        hits = ((p > 0.5) == kept.bool()).double()
        loss = nn.functional.binary_cross_entropy(p, kept.double())
        assert float(told.accuracy()[k]) == pytest.approx(float(hits.mean()))
        assert float(-told.likelihood[k, 5:].mean()) == pytest.approx(float(loss))
    as_probabilities = Reader(task, num_labels=reading.num_labels, ignore_index=-1)
    same = seen(told.modalities, range(4), as_probabilities, [truth.Rows(preds.double().sigmoid(), target)])
    assert torch.allclose(same.likelihood, told.likelihood, equal_nan=True)


def test_what_is_absent_does_not_count(tmp_path):
    data, model, watcher = Rows(n=60, missing=0.4), seeded(), dynamics(presence="presence")
    trainer(tmp_path, watcher).fit(model, loader(data), loader(data))
    batch = next(iter(loader(data, batch_size=60)))
    logits = ModalityAblation(model, MODALITIES, encoders=None, presence="presence")(batch)
    has = data.presence[:, 2]
    right = (logits[4].argmax(-1) == data.label)[has].double().mean()
    assert watcher.history[-1]["dynamics/audio/accuracy/train"] == pytest.approx(float(right))


def test_a_gradient_that_is_not_finite_is_left_out():
    encoder = nn.Linear(2, 2, bias=False)
    gradients = EncoderGradients({"text": [encoder]}, {"text": 1.0})
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for value in (3.0, math.inf, math.nan):
        encoder.weight.grad = torch.full((2, 2), value)
        gradients.add(optimizer)
    pull = gradients.read()["text"]
    assert pull.gradient_norm == pytest.approx(6.0)
    assert pull.learning_speed == pytest.approx(1.0 + 36 / encoder.weight.norm().item() ** 2)
    gradients.restart()
    assert math.isnan(gradients.read()["text"].gradient_norm)
    assert gradients.read()["text"].learning_speed == pull.learning_speed


def test_an_optimizer_answers_for_its_own_parameters_alone():
    mine, other = nn.Linear(2, 2), nn.Linear(2, 2)
    for module in (mine, other):
        for p in module.parameters():
            p.grad = torch.ones_like(p)
    gradients = EncoderGradients({"text": [mine], "audio": [other]})
    gradients.add(torch.optim.SGD(mine.parameters(), lr=0.1))
    assert list(gradients.read()) == ["text"]


def test_an_embedding_with_sparse_gradients():
    dense, sparse = nn.Embedding(9, 4), nn.Embedding(9, 4, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    found = []
    for table in (dense, sparse):
        table(torch.tensor([1, 1, 2])).square().sum().backward()
        gradients = EncoderGradients({"text": [table]})
        gradients.add(torch.optim.SGD(table.parameters(), lr=0.1))
        found.append(gradients.read()["text"])
    assert found[0] == pytest.approx(found[1])


# Whom it names


def test_a_memorised_modality_is_named_with_its_epoch(tmp_path):
    watcher = dynamics()
    run = trainer(tmp_path, watcher, max_epochs=15)
    run.fit(seeded(Memory), evidence(200, 0, (), shuffle=True), evidence(300, 1, ()))
    overfit = [f for f in watcher.findings if f.kind == "overfit_modality"]
    assert [f.modality for f in overfit] == ["audio"]
    (found,) = overfit
    assert found.level == "mixed"
    assert found.threshold < found.low < found.value < found.high
    began = watcher.began["overfit_modality", "audio"]
    assert 0 < began < 14
    assert f"since epoch {began}" in found.message
    gap = [r["dynamics/audio/accuracy/train"] - r["dynamics/audio/accuracy/val"] for r in watcher.history]
    assert gap[began] > gap[0]
    assert {f.level for f in watcher.findings if f is not found} == {"good"}
    row = watcher.history[-1]
    assert row["dynamics/audio/overfitting_to_generalisation"] > 1
    assert row["dynamics/audio/discrepancy"] > 2


@pytest.mark.slow
def test_memorising_beside_a_true_signal_is_named(tmp_path):
    train, held = Evidence(200, 0, told=("text",)), Evidence(300, 1, told=("text",))
    for data in (train, held):  # a third of the labels are wrong, and only identities tell which
        generator = torch.Generator().manual_seed(5)
        wrong = torch.rand(len(data), generator=generator) < 0.5
        data.label = torch.where(wrong, torch.randint(3, (len(data),), generator=generator), data.label)
    watcher = dynamics()
    loaders = loader(train, batch_size=50, shuffle=True), loader(held, batch_size=50)
    trainer(tmp_path, watcher, max_epochs=25).fit(seeded(Memory), *loaders)
    assert [f.modality for f in watcher.findings if f.kind == "overfit_modality"] == ["audio"]


def test_a_model_that_generalises_is_left_in_peace(tmp_path):
    told = ("text", "image", "audio")
    watcher = dynamics()
    run = trainer(tmp_path, watcher, max_epochs=15)
    run.fit(seeded(Memory), evidence(200, 0, told, shuffle=True), evidence(300, 1, told))
    assert watcher.findings == []
    assert watcher.history[-1]["dynamics/text/accuracy/val"] > 0.9


def test_one_modality_that_carries_all_is_dominant_and_the_others_unused(tmp_path):
    watcher = dynamics()
    run = trainer(tmp_path, watcher, max_epochs=10)
    run.fit(
        seeded(Memory),
        evidence(200, 0, ("text",), noise=0.0, shuffle=True),
        evidence(300, 1, ("text",), noise=0.0),
    )
    kinds = {(f.kind, f.modality) for f in watcher.findings}
    assert kinds == {("dominant_modality", "text"), ("unused_modality", "image"), ("unused_modality", "audio")}


def test_noise_is_not_called_overfitting():
    """Two samples of the same: with three modalities asked about, one side of 5% in all is 2.5%."""
    generator = torch.Generator().manual_seed(0)
    modalities, named = Modalities(("text", "image", "audio")), 0

    def sample(n: int) -> Seen:
        chance = torch.tensor([0.3, 0.5, 0.4, 0.6, 0.35, 0.55, 0.5, 0.7], dtype=torch.float64)
        right = (torch.rand(8, n, generator=generator, dtype=torch.float64) < chance[:, None]).double()
        return Seen(
            modalities, tuple(range(8)), right, right.log(), torch.ones(n, 3, dtype=torch.bool), torch.zeros(n).double()
        )

    for _ in range(500):
        bars = Thresholds(gap=0.0, overfit=1.0)  # any gap at all
        named += any(f.kind == "overfit_modality" for f in findings(sample(60), sample(60), bars))
    assert named <= 500 * 0.05


def test_thresholds_are_arguments(tmp_path):
    watcher = dynamics()
    trainer(tmp_path, watcher, max_epochs=10).fit(seeded(Memory), evidence(150, 0, ()), evidence(150, 1, ()))
    rule = {f.kind: f for f in watcher.findings}["overfit_modality"]
    both = seen_of(watcher)
    kinds = {
        bars: {f.kind for f in findings(*both, Thresholds(**dict([bars])))}
        for bars in (
            ("gap", rule.low + 1e-6),
            ("gap", rule.low - 1e-6),
            ("overfit", 0.0),
            ("dominant", 1.0),
            ("unused", 0.0),
        )
    }
    assert ["overfit_modality" in found for found in kinds.values()] == [False, True, False, True, True]
    assert "dominant_modality" not in kinds["dominant", 1.0]
    assert "unused_modality" not in kinds["unused", 0.0]
    assert "unused_modality" in kinds["dominant", 1.0]


def seen_of(watcher):
    """What the callback saw at the end."""
    module = watcher._prober.ablation.model
    return [watcher._seen(module.trainer, module, subset) for subset in (watcher._train, watcher._val)]


# No trace


class Restless(Rows):
    """Every read moves the global streams, a generator of its own, a counter and a cache."""

    def __init__(self, **keywords) -> None:
        super().__init__(**keywords)
        self.own, self.reads, self.cache = np.random.default_rng(0), 0, {}

    def __getitem__(self, i):
        self.reads += 1
        self.cache[i] = self.reads
        row = super().__getitem__(i)
        shift = torch.rand(()) + np.random.rand() + random.random() + self.own.random() + 0.01 * self.reads
        return {**row, "audio": row["audio"] + 0.1 * float(shift)}


class Diary(Concat):
    """Notes which samples it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []

    def training_step(self, batch, batch_idx):
        self.order += batch["number"].tolist()
        return super().training_step(batch, batch_idx)


def trained(tmp_path, callbacks, workers=0, ckpt=None, **keywords):
    model = seeded(Diary)
    if workers:
        keywords = {"num_sanity_val_steps": 0, **keywords}
    loaders = [
        loader(Restless(n=70, seed=s), shuffle=s == 0, num_workers=workers, persistent_workers=False) for s in (0, 1)
    ]
    run = trainer(tmp_path, *callbacks, **{"max_epochs": 3, **keywords})
    run.fit(model, *loaders, ckpt_path=ckpt)
    return (
        run,
        model,
        (
            model.state_dict(),
            run.optimizers[0].state_dict(),
            torch.get_rng_state(),
            np.random.get_state()[1],
            random.getstate(),
            model.order,
            loaders[0].dataset.own.bit_generator.state,
            loaders[0].dataset.reads,
            sorted(loaders[0].dataset.cache.items()),
            [module.training for module in model.modules()],
        ),
    )


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b))


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5},
        {"val_check_interval": 2, "num_sanity_val_steps": 0},
        pytest.param({"workers": 2}, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulated and clipped", "validated within the epoch", "two workers"],
)
def test_what_is_learned_is_the_same_bit_for_bit(tmp_path, keywords):
    without, with_it = (trained(tmp_path, callbacks, **keywords)[2] for callbacks in ([], [dynamics()]))
    assert all(same(a, b) for a, b in zip(without, with_it, strict=True))


def test_the_state_restored_is_checked_at_all(tmp_path):
    class Careless(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.train_dataloader.dataset[0]

    without, with_it = (trained(tmp_path, callbacks)[2] for callbacks in ([], [Careless()]))
    assert not all(same(a, b) for a, b in zip(without, with_it, strict=True))


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning")  # that is what is tried
def test_a_resumed_run_learns_the_same_and_goes_on_with_its_history(tmp_path):
    run, _, _ = trained(tmp_path, [first := dynamics()], max_epochs=2)
    run.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    results = []
    for callbacks in ([], [again := dynamics()]):
        seeded(Diary)
        results.append(trained(tmp_path, callbacks, max_epochs=4, ckpt=tmp_path / "half.ckpt")[2])
    assert all(same(a, b) for a, b in zip(*results, strict=True))
    assert [row["epoch"] for row in again.history] == [0, 1, 2, 3]
    assert again.history[:2] == first.history
    speeds = [row["dynamics/text/learning_speed"] for row in again.history]
    assert speeds == sorted(speeds)
    assert speeds[1] < speeds[2]


def test_findings_survive_a_checkpoint(tmp_path):
    watcher = dynamics()
    train = Evidence(60, 0, told=())
    trainer(tmp_path, watcher, max_epochs=5).fit(seeded(Memory), loader(train), loader(Evidence(200, 1, told=())))
    again = dynamics()
    again.load_state_dict(copy.deepcopy(watcher.state_dict()))
    assert (again.findings, again.began, again.history) == (watcher.findings, watcher.began, watcher.history)
    assert again.findings


class _Looks(TorchDispatchMode):
    """Counts the operations that fetch a value from a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "_to_copy", "equal.default")):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def test_training_steps_fetch_nothing_from_the_device(tmp_path):
    class Guarded(ModalityDynamics):
        looks = _Looks()
        steps = 0

        def on_before_optimizer_step(self, *args):
            Guarded.steps += 1
            with self.looks:
                super().on_before_optimizer_step(*args)

        def on_train_batch_start(self, *args):
            with self.looks:
                super().on_train_batch_start(*args)

    watcher = Guarded(MODALITIES, num_classes=3)
    trainer(tmp_path, watcher).fit(seeded(), loader(), loader())
    assert watcher.history[-1]["dynamics/text/gradient_norm"] > 0
    assert Guarded.steps == 10
    assert [name for name in watcher.looks.names if "_to_copy" not in name] == []
    with watcher.looks:
        torch.ones(1).item()
    assert watcher.looks.names[-1] == "aten._local_scalar_dense.default"


# Which samples


def test_the_samples_are_few_fixed_and_spread(tmp_path):
    data, told = Rows(n=500), []
    subset = FixedSubset(40, seed=0, say=told.append)
    run = trainer(tmp_path, max_epochs=1)
    model = seeded()
    run.fit(model, loader(data), loader())
    assert subset.read(loader(data))
    batches = list(subset.batches(run, model))
    numbers = torch.cat([batch["number"] for batch in batches])
    assert [len(batch["number"]) for batch in batches] == [14, 13, 13]
    assert numbers.unique().tolist() == numbers.tolist()
    assert numbers.max() > 400
    assert told == []
    other = FixedSubset(40, seed=0, say=told.append)
    other.read(loader(data, batch_size=40, shuffle=True))
    assert torch.equal(next(other.batches(run, model))["number"], numbers)


class Stream(IterableDataset):
    def __iter__(self):
        rows = Rows(n=64)
        return (rows[i] for i in range(64))


def test_a_stream_gives_its_first_batches(tmp_path):
    watcher = dynamics(samples=20)
    with pytest.warns(UserWarning, match="Stream is read in order alone: the first 20 samples"):
        trainer(tmp_path, watcher).fit(seeded(), loader(Stream()), loader(Stream()))
    assert watcher._train.kept == 32
    row = watcher.history[-1]
    assert row["dynamics/text/gradient_norm"] > 0
    assert {"dynamics/text/loss/train", "dynamics/text/loss/val"} <= set(row)


@pytest.mark.parametrize("sampler", [SubsetRandomSampler, RandomSampler])
def test_samples_that_a_sampler_leaves_out_are_never_looked_at(tmp_path, sampler):
    watcher, data = dynamics(samples=20), Rows(n=60)
    with pytest.warns(UserWarning, match=f"{sampler.__name__} may leave samples"):
        trainer(tmp_path, watcher).fit(seeded(), loader(data, sampler=sampler(range(30))), loader(Rows(seed=1)))
    assert all(batch["number"].max() < 30 for batch in watcher._train._seen)


def test_only_what_is_trained_on_where_the_order_is_fixed(tmp_path):
    watcher = dynamics()
    trainer(tmp_path, watcher, limit_train_batches=2).fit(seeded(), loader(Rows(n=200)), loader())
    assert sum(len(batch["number"]) for batch in watcher._train._host) == 32


# Runs of every kind


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`:UserWarning")  # without a loader, on purpose
def test_without_validation_the_training_side_is_measured(tmp_path):
    watcher = dynamics()
    run = trainer(tmp_path, watcher, max_epochs=2)
    run.fit(seeded(), loader())
    assert [row["epoch"] for row in watcher.history] == [0, 1]
    keys = watcher.history[-1]
    assert "dynamics/text/gradient_norm" in keys
    assert not [key for key in keys if key.endswith("/val") or "overfitting" in key]
    assert set(keys) - {"epoch"} <= set(run.callback_metrics)


def test_several_validation_loaders_and_epochs_between(tmp_path):
    watcher = dynamics(every_n_epochs=2)
    run = trainer(tmp_path, watcher, max_epochs=5)
    run.fit(seeded(), loader(), [loader(Rows(seed=1)), loader(Rows(n=20, seed=2))])
    assert [row["epoch"] for row in watcher.history] == [0, 2, 4]
    assert sum(len(batch["number"]) for batch in watcher._val._host) == 70
    assert set(watcher.history[-1]) - {"epoch"} <= set(run.callback_metrics)


def test_validations_within_an_epoch_leave_one_row(tmp_path):
    watcher = dynamics()
    trainer(tmp_path, watcher, val_check_interval=2).fit(seeded(), loader(), loader())
    assert [row["epoch"] for row in watcher.history] == [0, 1]


def test_a_quick_run_and_one_that_only_validates(tmp_path):
    watcher = dynamics()
    trainer(tmp_path, watcher, fast_dev_run=True).fit(seeded(), loader(), loader())
    assert len(watcher.history) == 1
    other = dynamics()
    trainer(tmp_path, other).validate(seeded(), loader(), verbose=False)
    assert other.history == []


def test_a_second_run_begins_anew(tmp_path):
    watcher = dynamics()
    for _ in range(2):
        trainer(tmp_path, watcher, max_epochs=1).fit(seeded(), loader(), loader())
    (row,) = watcher.history
    fresh = dynamics()
    trainer(tmp_path, fresh, max_epochs=1).fit(seeded(), loader(), loader())
    assert fresh.history == [row]


def test_values_can_be_watched(tmp_path):
    stopper = EarlyStopping(monitor="dynamics/audio/loss/val", mode="max", min_delta=9.0, patience=1)
    run = trainer(tmp_path, stopper, dynamics(), max_epochs=9)
    run.fit(seeded(), loader(), loader())
    assert run.current_epoch == 2


def test_findings_are_ready_whoever_asks_first(tmp_path):
    class Early(Callback):
        def __init__(self, watcher):
            self.watcher, self.seen = watcher, []

        def on_validation_epoch_end(self, trainer, pl_module):
            self.seen.append((self.watcher.measure(trainer, pl_module), len(self.watcher.history)))

    watcher = dynamics()
    early = Early(watcher)
    trainer(tmp_path, early, watcher, max_epochs=3, num_sanity_val_steps=0).fit(seeded(), loader(), loader())
    assert [rows for _, rows in early.seen] == [1, 2, 3]
    assert early.seen[-1][0] is watcher.findings


def test_the_users_key_stays_the_users(tmp_path):
    class Own(Concat):
        def validation_step(self, batch, batch_idx):
            self.log("dynamics/text/discrepancy", 0.5)

    run = trainer(tmp_path, dynamics())
    with pytest.warns(UserWarning, match="dynamics/text/discrepancy is logged by the model itself"):
        run.fit(seeded(Own), loader(), loader())
    assert float(run.callback_metrics["dynamics/text/discrepancy"]) == 0.5


class Heads(Concat):
    """Late fusion: one answer per modality and their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in MODALITIES})

    def forward(self, batch):
        answers = {name: self.heads[name](self.encoders[name](batch[name])) for name in MODALITIES}
        return sum(answers.values())

    def by_head(self, batch):
        answers = {name: self.heads[name](self.encoders[name](batch[name])) for name in MODALITIES}
        return {**answers, "all": sum(answers.values())}


def test_heads_are_taken_as_they_are(tmp_path):
    data, model = Rows(n=60), seeded(Heads)
    watcher = dynamics(predict=lambda module, batch: module.by_head(batch))
    trainer(tmp_path, watcher).fit(model, loader(data), loader(Rows(seed=1)))
    batch = next(iter(loader(data, batch_size=60)))
    model.eval()
    with torch.no_grad():
        heads = model.by_head(batch)
    likely = {name: heads[name].softmax(-1)[torch.arange(60), batch["label"]].sum() for name in MODALITIES}
    row = watcher.history[-1]
    ratio = 2 * likely["text"] / (likely["image"] + likely["audio"])
    assert row["dynamics/text/discrepancy"] == pytest.approx(float(ratio), rel=1e-5)
    assert row["dynamics/text/gradient_norm"] > 0
    assert "dynamics/text/conditional_utilisation/train" not in row


@pytest.mark.slow
def test_heads_that_memorise_are_named(tmp_path):
    class Wide(Heads):
        def __init__(self) -> None:
            super().__init__()
            self.encoders = Memory().encoders

    watcher = dynamics(predict=lambda module, batch: module.by_head(batch))
    trainer(tmp_path, watcher, max_epochs=15).fit(
        seeded(Wide), evidence(200, 0, (), shuffle=True), evidence(300, 1, ())
    )
    assert [f.modality for f in watcher.findings if f.kind == "overfit_modality"] == ["audio"]


def test_encoders_named_by_hand_none_and_not_found(tmp_path):
    named = dynamics(encoders={"text": "encoders.text", "audio": ["encoders.audio.0"]})
    with pytest.warns(UserWarning, match="no encoder of image was found"):
        trainer(tmp_path, named).fit(seeded(), loader(), loader())
    assert "dynamics/audio/gradient_norm" in named.history[-1]
    assert "dynamics/image/gradient_norm" not in named.history[-1]
    silent = dynamics(encoders=None)
    trainer(tmp_path, silent).fit(seeded(), loader(), loader())
    assert "dynamics/text/loss/val" in silent.history[-1]
    assert not [key for key in silent.history[-1] if "gradient" in key]


def test_manual_optimisation_in_low_precision_with_a_mean_for_a_baseline(tmp_path):
    class Manual(Concat):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    watcher = dynamics(baseline="mean")
    trainer(tmp_path, watcher, precision="bf16-mixed").fit(seeded(Manual), loader(), loader())
    row = watcher.history[-1]
    assert row["dynamics/text/gradient_norm"] > 0
    assert all(math.isfinite(value) for value in row.values())


def test_a_model_that_answers_nan_is_no_reason_to_stop(tmp_path):
    class Broken(Concat):
        def forward(self, batch):
            return super().forward(batch) * math.nan

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    watcher = dynamics()
    trainer(tmp_path, watcher).fit(seeded(Broken), loader(), loader())
    assert watcher.findings == []
    assert [row["epoch"] for row in watcher.history] == [0, 1]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"samples": 1}, "samples=1"),
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"overfit": 1.5}, "overfit=1.5: expected a fraction"),
        ({"task": "ranking"}, "task='ranking' is not known"),
        ({"task": "multilabel", "num_classes": None}, "num_labels=None"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_training(keywords, message):
    with pytest.raises(ValueError, match=message):
        dynamics(**keywords)


def test_modalities_are_a_mapping():
    with pytest.raises(TypeError, match="modalities maps names to keys"):
        ModalityDynamics(["text"])


def fitted_on_ranks(rank, world_size, folder):
    """What a rank ends with, with dynamics and without."""
    told = {}
    for name, watched in (("with", [dynamics(samples=40)]), ("without", [])):
        run, model = trainer(folder / name, *watched, devices=world_size, strategy="ddp"), seeded()
        run.fit(model, loader(Rows(n=84), shuffle=True), loader(Rows(n=51, seed=1)))
        told[name] = {
            "weights": {key: value.tolist() for key, value in model.state_dict().items()},
            "logged": {key: float(value) for key, value in run.callback_metrics.items() if "dynamics" in key},
            "history": [one.history for one in watched],
            "numbers": [batch["number"].tolist() for one in watched for batch in one._train._host],
        }
    return told


@pytest.mark.slow
def test_two_ranks_say_the_same_and_learn_the_same(tmp_path):
    ranks = launch(2, fitted_on_ranks, tmp_path)
    first, second = (rank["with"] for rank in ranks)
    assert first["history"] == second["history"]
    assert first["logged"] == second["logged"]
    assert len(first["logged"]) > 20
    assert first["weights"] == ranks[0]["without"]["weights"]
    alone = FixedSubset(40, 0, print)
    alone.read(loader(Rows(n=84)))
    assert first["numbers"] == second["numbers"] == [batch["number"].tolist() for batch in alone._host]
