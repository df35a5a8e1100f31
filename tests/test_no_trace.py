"""Nothing changes: a run with the callbacks is bit for bit the run without them."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from mm_metrics.callbacks import ModalityDynamics, ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer

BY_HAND = {name: f"encoders.{name}" for name in MODALITIES}


class Noisy(Concat):
    """Draws from every random stream, counts its forwards in a buffer, logs what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forwards", torch.zeros((), dtype=torch.int64))
        self.seen: list[int] = []
        self.logged: list[float] = []

    def forward(self, batch):
        self.forwards += 1
        return super().forward(batch) + 0.01 * torch.randn(1)

    def training_step(self, batch, batch_idx):
        self.seen += batch["number"].tolist()
        loss = super().training_step(batch, batch_idx) * (1 + 0.01 * random.random()) + 0.01 * float(np.random.rand())
        self.logged.append(float(loss.detach()))
        return loss

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("draw", torch.rand(()))


def fitted(tmp_path, *callbacks, frozen=False):
    model = seeded(Noisy)
    if frozen:
        model.head[0].eval()  # a BatchNorm that stays frozen
    run = trainer(tmp_path, *callbacks, max_epochs=3)
    run.fit(model, loader(Rows(seed=1), shuffle=True), loader(Rows(seed=2)))
    optimizer = run.optimizers[0].state_dict()
    streams = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    logs = {key: value for key, value in run.callback_metrics.items() if key in ("train_loss", "val_loss", "draw")}
    return model, optimizer, streams, logs


def assert_equal(left, right):
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20)],
        lambda: [ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, encoders=None, baseline="shuffle")],
        lambda: [ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, baseline="mean", presence="presence")],
        lambda: [ModalityDynamics(MODALITIES, num_classes=3, samples=16, encoders=BY_HAND)],
    ],
    ids=["monitor", "hidden inputs", "means", "dynamics"],
)
# The model draws noise in its forward, so whole and parts differ, which is said.
@pytest.mark.filterwarnings("ignore:the parts of Noisy give other logits")
def test_a_fit_is_bit_for_bit_the_fit_without(tmp_path, callbacks):
    plain, optimizer, streams, logs = fitted(tmp_path / "plain")
    watched, watched_optimizer, watched_streams, watched_logs = fitted(tmp_path / "watched", *callbacks())
    assert_equal(dict(plain.state_dict()), dict(watched.state_dict()))  # weights and buffers, the counter among them
    assert_equal(optimizer, watched_optimizer)
    assert_equal(streams, watched_streams)
    assert_equal(logs, watched_logs)
    assert plain.seen == watched.seen
    assert plain.logged == watched.logged


def test_modes_hooks_and_the_module_itself_are_as_before(tmp_path):
    model = seeded()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    trainer(tmp_path, ModalityMonitor(MODALITIES, num_classes=3)).validate(model, loader(), verbose=False)
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == hooks
    after = {name: set(vars(module)) for name, module in model.named_modules()}
    own = {name for name in after[""] if name.startswith("_")}  # Lightning's own attributes of the module
    assert {k: v - own for k, v in after.items()} == {k: v - own for k, v in before.items()}
    assert not any("forward" in vars(module) for module in model.modules())
    assert set(model.state_dict()) == set(seeded().state_dict())
    copy.deepcopy(model)


@pytest.mark.parametrize("failing_call", [1, 3, 5, 8, 12])
def test_a_forward_that_raises_in_the_middle_leaves_nothing_behind(tmp_path, failing_call):
    class Fragile(Concat):
        armed, calls = True, 0

        def forward(self, batch):
            if self.armed:
                self.calls += 1
                if self.calls == failing_call:
                    raise RuntimeError("the model fell over")
            return super().forward(batch)

    model = seeded(Fragile)
    model.head[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    monitor = ModalityMonitor(MODALITIES, num_classes=3, encoders=None)
    with pytest.raises(RuntimeError, match="fell over"):
        trainer(tmp_path, monitor).validate(model, loader(), verbose=False)
    model.armed = False
    assert_equal(dict(state), dict(model.state_dict()))
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())
    assert nn.Module.__getattribute__(model, "training") in (True, False)
    assert {name for name, module in model.named_modules() if module.training} <= {n for n, on in modes.items() if on}
