"""The ablation leaves no trace: weights, buffers, modes, RNG, hooks, the batch and the module's own attributes."""

import copy
import io
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from mm_metrics.ablation import ModalityAblation
from tests.ablation_models import INPUTS, Concat, Fused, Joined, Layers, make_batch


class Restless(Fused):
    """Counts in buffers, draws numbers, changes its batch, and keeps its last features, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("rebound", torch.zeros(2))
        self.register_buffer("table", torch.zeros(600, 600))  # too large to copy for every batch
        self.last = torch.zeros(1)
        self.frozen = nn.BatchNorm1d(24)
        self.raise_at = None

    def forward(self, batch):
        self.calls += 1
        self.rebound = self.rebound + 1
        self.table[0, 0] += 1
        if self.raise_at is not None and int(self.calls) >= self.raise_at:
            raise RuntimeError("out of luck")
        features = torch.cat(self.encode(batch), -1)
        self.last, self.new = features, features * 2
        batch["pixels"].mul_(2)
        batch.pop("label")
        noise = torch.rand(1) * 0 + random.random() * 0 + np.random.rand() * 0
        return self.head(self.frozen(features)) + noise


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Restless()
    model.train()
    model.frozen.eval()
    model.image[1].eval()
    model.audio.requires_grad_(False)
    return model


def hook_tables(model):
    tables = [name for name in vars(hooks) if name.startswith("_global") and isinstance(getattr(hooks, name), dict)]
    found = {name: list(getattr(hooks, name)) for name in tables}
    for name, part in model.named_modules():
        found |= {(name, key): list(value) for key, value in vars(part).items() if "hooks" in key and value is not None}
    return found


def state(model, batch):
    """Everything that must be as before, by value and by identity."""
    return {
        "weights": {name: (id(x), x.clone(), x.requires_grad) for name, x in model.named_parameters()},
        "buffers": {name: (id(x), x.clone()) for name, x in model.named_buffers()},
        "modes": {name: part.training for name, part in model.named_modules()},
        "attributes": {name: sorted(vars(part)) for name, part in model.named_modules()},
        "last": (id(getattr(model, "last", None)), getattr(model, "last", torch.zeros(1)).clone()),
        "hooks": hook_tables(model),
        "batch": {key: (id(x), x.clone()) for key, x in batch.items()},
        "grads": [x.grad is None for x in model.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def assert_same(before, after, where=""):
    if isinstance(before, torch.Tensor):
        assert torch.equal(before, after), where
    elif isinstance(before, dict):
        assert list(before) == list(after), where
        for key in before:
            assert_same(before[key], after[key], f"{where}/{key}")
    elif isinstance(before, tuple) and any(isinstance(part, torch.Tensor) for part in before):
        for a, b in zip(before, after, strict=True):
            assert_same(a, b, where)
    else:
        assert before == after, where


def ablate(model, **options):
    ablation = ModalityAblation(model, INPUTS, **options)
    ablation.told = []
    ablation.say = ablation.told.append
    return ablation


@pytest.mark.parametrize("encoders", ["auto", None])
@pytest.mark.parametrize("baseline", ["zero", "shuffle", "mean", {"image": lambda x: x.mul_(0)}])
def test_all_is_as_before(model, encoders, baseline):
    ablation = ablate(model, encoders=encoders, baseline=baseline)
    for seed in range(3):
        batch = make_batch(seed=seed)
        before = state(model, batch)
        ablation(batch, torch.rand(6, 3, generator=torch.Generator().manual_seed(seed)) > 0.3)
        ablation.predict(batch)
        assert_same(before, state(model, batch))


@pytest.mark.parametrize("encoders", ["auto", None])
def test_all_is_as_before_when_the_model_raises_in_any_replay(model, encoders):
    ablation = ablate(model, encoders=encoders)
    raised = 0
    for answered in (False, True):
        if answered:
            model.raise_at = None
            ablation(make_batch())
        for at in range(1, 10):
            model.raise_at = at
            batch = make_batch(seed=at)
            before = state(model, batch)
            try:
                ablation(batch)
            except RuntimeError as error:
                assert "out of luck" in str(error)  # noqa: PT017
                raised += 1
            assert_same(before, state(model, batch))
    assert raised >= 8  # the first time it takes eight forward passes at least


def test_all_is_as_before_when_the_user_interrupts():
    class Interrupted(Concat):
        def __init__(self):
            super().__init__()
            self.left = [100]

        def forward(self, batch):
            self.left[0] -= 1
            if self.left[0] < 0:
                raise KeyboardInterrupt
            return super().forward(batch)

    model = Interrupted().train()
    ablation = ablate(model)
    ablation(make_batch())
    for left in range(3):
        batch = make_batch(T=4 + left, seed=left)  # a pass for the encoders, one for the baseline, one for the rest
        before = state(model, batch)
        model.left[0] = left
        with pytest.raises(KeyboardInterrupt):
            ablation(batch)
        assert_same(before, state(model, batch))


@pytest.mark.parametrize("kind", [Concat, Layers, Joined])
def test_watching_changes_nothing_that_the_user_sees(kind):
    torch.manual_seed(0)
    model = kind().eval()
    inputs = INPUTS if kind is not Joined else {"text": "tokens", "audio": "waveform"}
    ablation = ModalityAblation(model, inputs)
    ablation.say = lambda message: None
    plain = [model(make_batch(seed=seed)) for seed in range(3)]
    for seed in range(3):
        batch = make_batch(seed=seed)
        before = state(model, batch)
        ablation.watch()
        assert pickle.dumps(model.state_dict())
        assert "forward" not in vars(model)
        own = model(batch)
        ablation.unwatch()
        assert torch.equal(own, plain[seed])
        assert_same(before, state(model, batch))
        ablation(batch)
        ablation.forget()
    assert not ablation._whole.recorder.records


def test_a_step_that_raises_while_watched_leaves_nothing(model):
    ablation = ablate(model)
    ablation(make_batch())
    before = hook_tables(model)
    ablation.watch()
    model.raise_at = 0
    with pytest.raises(RuntimeError, match="out of luck"):
        model(make_batch())
    ablation.watch()
    ablation.unwatch()
    ablation.unwatch()
    assert hook_tables(model) == before


def test_the_model_can_be_copied_and_pickled_during_and_after(model):
    ablation = ablate(model)
    sizes = []
    for act in (lambda: None, lambda: ablation(make_batch()), ablation.watch, ablation.unwatch):
        act()
        file = io.BytesIO()
        torch.save(model, file)
        sizes.append(len(file.getvalue()))
        copied = copy.deepcopy(model)
        assert copied.state_dict().keys() == model.state_dict().keys()
    assert len(set(sizes)) == 1


def test_the_fused_path_of_transformer_layers_stays_on():
    class Fast(Fused):
        def __init__(self):
            super().__init__()
            self.text = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, batch):
            text = self.text(batch["waveform"].unflatten(1, (2, 8))).mean(1)
            return self.head(torch.cat([text, self.image(batch["pixels"]), text], -1))

    torch.manual_seed(0)
    model = Fast().eval()
    ablation = ModalityAblation(model, {"text": "waveform", "image": "pixels"})
    ablation(make_batch())
    with torch.no_grad():
        plain = model(make_batch(seed=1))
        ablation.watch()
        watched = model(make_batch(seed=1))
        ablation.unwatch()
    assert torch.equal(plain, watched)


def test_gradients_go_on_as_before():
    torch.manual_seed(0)
    model = Concat().eval()
    ablation = ablate(model)
    batch = make_batch()
    ablation(batch)
    ablation.watch()
    loss = model(batch).square().sum()
    ablation.unwatch()
    found = ablation(batch)
    assert found.grad_fn is None
    assert all(
        tensor.grad_fn is None for one in ablation._whole.recorder.records.values() for tensor in _tensors(one.output)
    )
    loss.backward()
    assert all(x.grad is not None for x in model.parameters())


def _tensors(output):
    from mm_metrics.ablation.batch import tensors

    return tensors(output).values()


def test_memory_does_not_grow():
    import gc

    torch.manual_seed(0)
    model = Concat().eval()
    ablation = ablate(model)

    def count():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for seed in range(30):
        batch = make_batch(T=3 + seed % 5, seed=seed)
        ablation.watch()
        model(batch)
        ablation.unwatch()
        ablation(batch)
        ablation.predict(batch)
        ablation.forget()
        del batch
        if seed % 10 == 9:
            counts.append(count())
    assert counts[1] == counts[2]


class Module(Concat):
    """Logs in its forward, as a LightningModule may."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log(self, name, value):
        self.logged.append(name)

    log_dict = log

    def forward(self, batch):
        self.log("mean", batch["pixels"].mean())
        return super().forward(batch)


def test_a_lightning_module_logs_nothing_in_a_replay():
    from lightning.pytorch import LightningModule

    class Logs(LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = Concat()
            self.seen = []

        def log(self, name, value, **_):
            self.seen.append(name)

        def forward(self, batch):
            self.log("pixels", batch["pixels"].mean())
            return self.inner(batch)

    model = Logs()
    ablate(model)(make_batch())
    assert model.seen == []
    model(make_batch())
    assert model.seen == ["pixels"]
    plain = Module()
    ablate(plain)(make_batch())
    assert plain.logged == []  # what a `log` that is not Lightning's keeps is put back
    plain(make_batch())
    assert plain.logged == ["mean"]


def test_a_plain_number_that_the_model_counts_is_as_before():
    class Counts(Concat):
        count = 0

        def forward(self, batch):
            self.count += 1
            return super().forward(batch)

    model = Counts()
    ablate(model, encoders=None)(make_batch())
    assert model.count == 0
    assert "count" not in vars(model)
