"""Resume, load, copy, let go: the monitor leaves nothing in a checkpoint's weights, nor holds on to a model."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mm_metrics.callbacks import ModalityDynamics, ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, **{"num_classes": 3, "bootstrap": 0, **keywords})


def fitted(path, *callbacks, epochs=1, ckpt_path=None):
    model = seeded()
    model.head[1].p = 0.0  # Lightning's checkpoints do not hold the random stream
    run = trainer(path, *callbacks, max_epochs=epochs)
    run.fit(model, loader(), loader(Rows(seed=1)), ckpt_path=ckpt_path)
    return run


def test_a_resumed_run_continues_the_history(tmp_path):
    first = fitted(tmp_path, monitor(), epochs=2)
    first.save_checkpoint(tmp_path / "two.ckpt")
    resumed, uninterrupted = monitor(), monitor()
    fitted(tmp_path, resumed, epochs=4, ckpt_path=tmp_path / "two.ckpt")
    fitted(tmp_path, uninterrupted, epochs=4)
    assert [line["epoch"] for line in resumed.history] == [0, 1, 2, 3]
    assert resumed.history == uninterrupted.history
    assert torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]["ModalityMonitor"]["history"]


@pytest.mark.parametrize(("with_it", "then"), [(True, False), (False, True)])
def test_checkpoints_load_with_it_and_without_it(with_it, then, tmp_path):
    first = fitted(tmp_path, *[monitor()] * with_it)
    first.save_checkpoint(tmp_path / "one.ckpt")
    plain = Concat()
    plain.load_state_dict(torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"], strict=True)
    said = pytest.warns(UserWarning, match="ModalityMonitor") if with_it else contextlib.nullcontext()  # by Lightning
    with said:
        run = fitted(tmp_path, *[monitor()] * then, epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert run.current_epoch == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_monitor_can_be_copied_before_and_after_a_run(copied, tmp_path):
    watcher, data = copied(monitor()), Rows(seed=1)
    trainer(tmp_path, watcher).fit(model := seeded(), loader(), loader(data))
    again = copied(watcher)
    assert again.history == watcher.history
    assert again.scorecards["val"] == watcher.scorecards["val"]
    trainer(tmp_path, again).validate(model, loader(data), verbose=False)
    assert again.scorecards["val"] == watcher.scorecards["val"]


@pytest.mark.filterwarnings("ignore:by=")
@pytest.mark.parametrize("place", [0, 1])
def test_a_monitor_can_be_copied_in_every_hook(place, tmp_path):
    counted = []

    def copied(self, trainer, *arguments, **keywords):
        for callback in trainer.callbacks:
            if isinstance(callback, ModalityMonitor | ModalityDynamics):
                for again in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
                    assert again.state_dict().keys() == callback.state_dict().keys()
                    counted.append(again)

    hooks = {name: copied for name in dir(Callback) if name.startswith("on_") or name in ("setup", "teardown")}
    copier = type("Copier", (Callback,), hooks)()
    told = {"samples": "all", "baseline": "mean", "by": {"audio.loudness": "auto"}, "show": "auto", "report": False}
    cards = []
    for callbacks in ([], [copier]):
        watcher = monitor(presence="presence", **told)
        callbacks[place:place] = [watcher, ModalityDynamics(MODALITIES, 3, samples=8)]
        trainer(tmp_path, *callbacks, max_epochs=1).fit(
            seeded(), loader(Rows(32, missing=0.2)), loader(Rows(32, missing=0.2))
        )
        cards.append(watcher.scorecards["val"])
    assert len(counted) > 100
    assert cards[0] == cards[1]


def test_neither_model_nor_batch_outlives_the_run(tmp_path):
    seen = []

    class Watched(Concat):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            seen.append(weakref.ref(batch["text"]))

        def on_train_epoch_end(self):
            gc.collect()
            assert not [1 for batch in seen if batch() is not None]  # while it trains, no room is taken

    watcher, model = monitor(), seeded(Watched)
    trainer(tmp_path, watcher, val_check_interval=2, limit_train_batches=5).fit(model, loader(), loader())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert len(seen) > 10
    assert gone() is None
