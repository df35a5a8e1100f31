"""The monitor in a Trainer as people run theirs: every kind of loop, precision and neighbour, with the same numbers."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    ModelSummary,
)
from sklearn.metrics import accuracy_score
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mm_metrics import Scorecard
from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "max_epochs": 1,
}


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, **{"num_classes": 3, "bootstrap": 0, **keywords})


def whole(data):
    """The data set as one batch."""
    return next(iter(loader(data, batch_size=len(data))))


@torch.no_grad()
def by_hand(model, data):
    """Accuracy under each of the eight coalitions: inputs zeroed, the whole model run."""
    model.eval()
    found = {}
    for mask in range(8):
        batch = dict(whole(data))
        for m, name in enumerate(MODALITIES):
            if not mask >> m & 1:
                batch[name] = torch.zeros_like(batch[name])
        found["-".join(name for m, name in enumerate(MODALITIES) if mask >> m & 1) or "none"] = accuracy_score(
            batch["label"], model(batch).argmax(-1)
        )
    return found


def ablated(card):
    return {name: card.score("accuracy", coalition=name) for name in card.coalitions}


# The two packages


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pytorch_lightning's own imports
def test_both_packages_trainers_and_modules(package, tmp_path):
    pl = pytest.importorskip(package)

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Concat()

        def forward(self, batch):
            return self.net(batch)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch), batch["label"])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch), batch["label"]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    pl.seed_everything(0, verbose=False)
    watcher, model, data = monitor(), Model(), Rows(seed=1)
    stopper = pl.callbacks.EarlyStopping(monitor="val/audio/recall", mode="max", patience=5)
    run = pl.Trainer(callbacks=[watcher, stopper], default_root_dir=tmp_path, **QUIET)
    run.fit(model, loader(), loader(data))
    assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, data))
    assert "val/drop/text/f1" in run.callback_metrics
    assert "val_loss" in run.callback_metrics


# Loops of every kind


def test_fast_dev_run_counts_and_writes_nothing(tmp_path):
    watcher = monitor()
    run = trainer(tmp_path, watcher, fast_dev_run=1)
    run.fit(seeded(), loader(), loader())
    assert watcher.scorecards["val"].samples == 16
    assert "val/audio/recall" in run.callback_metrics
    assert not (tmp_path / "modality").exists()


@pytest.mark.parametrize(("limit", "samples"), [(2, 32), (0.5, 32), (1.0, 70)])
def test_limit_val_batches(limit, samples, tmp_path):
    watcher = monitor()
    trainer(tmp_path, watcher, limit_val_batches=limit).fit(seeded(), loader(), loader())
    assert watcher.scorecards["val"].samples == samples


def test_several_validations_in_an_epoch_have_a_line_each(tmp_path):
    watcher, data = monitor(), Rows(seed=1)
    run = trainer(tmp_path, watcher, val_check_interval=2, max_epochs=1)
    run.fit(model := seeded(), loader(), loader(data))
    assert [(line["epoch"], line["step"]) for line in watcher.history] == [(0, 2), (0, 4)]
    lines = [json.loads(line) for line in (tmp_path / "modality" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert watcher.scorecards["val"].samples == 70
    run.validate(model, loader(data), verbose=False)
    assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, data))


def test_gradient_accumulation_and_validation_every_other_epoch(tmp_path):
    watcher, data = monitor(), Rows(seed=1)
    run = trainer(tmp_path, watcher, accumulate_grad_batches=3, check_val_every_n_epoch=2, max_epochs=4)
    run.fit(model := seeded(), loader(), loader(data))
    assert [line["epoch"] for line in watcher.history] == [1, 3]
    assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, data))


def test_predict_neither_counts_nor_changes_anything(tmp_path):
    watcher, model, data = monitor(), seeded(), Rows(seed=1)
    run = trainer(tmp_path, watcher)
    run.fit(model, loader(), loader(data))
    before = watcher.scorecards["val"], copy.deepcopy(watcher.history)
    answers = torch.cat(run.predict(model, loader(data)))
    with torch.no_grad():
        assert torch.equal(answers.argmax(-1), model.eval()(whole(data)).argmax(-1))
    assert (watcher.scorecards["val"], watcher.history) == before
    assert trainer(tmp_path, monitor()).predict(model, loader(data))  # and without any fit


def test_another_fit_begins_its_own_history(tmp_path):
    watcher, model, data = monitor(), seeded(), Rows(seed=1)
    trainer(tmp_path, watcher, max_epochs=2).fit(model, loader(), loader(data))
    trainer(tmp_path, watcher, max_epochs=1).fit(model, loader(), loader(data))
    assert [line["epoch"] for line in watcher.history] == [0]
    assert watcher.scorecards["val"].samples == 70
    assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, data))


def test_one_trainer_fits_on(tmp_path):
    watcher, model = monitor(), seeded()
    run = trainer(tmp_path, watcher, max_epochs=1)
    run.fit(model, loader(), loader())
    run.fit_loop.max_epochs = 3
    run.fit(model, loader(), loader())
    assert [line["epoch"] for line in watcher.history] == [0, 1, 2]


def test_one_monitor_over_two_models_of_different_width(tmp_path):
    watcher = monitor(num_classes=None)
    for classes in (3, 5):
        data = Rows(num_classes=classes, seed=1)
        model = seeded(num_classes=classes)
        trainer(tmp_path, watcher, max_epochs=1).fit(model, loader(data), loader(data))
        assert watcher.scorecards["val"].layout.C == classes
        assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, data))


# Several loaders


@pytest.mark.parametrize("kind", [list, dict])
def test_several_loaders_of_different_size_for_validation_and_test(kind, tmp_path):
    sets = [Rows(n=40, seed=1), Rows(n=30, seed=2), Rows(n=20, seed=3)]
    loaders = [loader(data) for data in sets]
    if kind is dict:
        loaders = dict(zip(("studio", "street", "phone"), loaders, strict=True))
    watcher, model = monitor(), seeded()
    run = trainer(tmp_path, watcher, max_epochs=1)
    run.fit(model, loader(), loaders)
    for stage in ("val", "test"):
        if stage == "test":
            run.test(model, loaders, verbose=False)
        for i, data in enumerate(sets):
            name, suffix = (stage, "") if i == 0 else (f"{stage}_{i}", f"/dataloader_idx_{i}")
            card = Scorecard.from_json(tmp_path / "modality" / f"{name}.json")
            assert card == watcher.scorecards[name]
            assert card.samples == len(data)
            expected = by_hand(model, data)
            assert ablated(card) == pytest.approx(expected)
            key = f"{stage}/ablation/text/accuracy{suffix}"
            assert float(run.callback_metrics[key]) == pytest.approx(expected["text"])


def test_training_loaders_may_be_combined(tmp_path):
    class Two(Concat):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    watcher = monitor(baseline="mean")
    with pytest.warns(UserWarning, match="training batches have other inputs .*'text' is not in the batch"):
        trainer(tmp_path, watcher).fit(seeded(Two), {"a": loader(), "b": loader()}, loader())
    assert watcher.scorecards["val"].samples == 70


def test_fewer_loaders_than_the_run_before(tmp_path):
    watcher, run = monitor(), trainer(tmp_path)
    run.callbacks.append(watcher)
    run.validate(model := seeded(), [loader(), loader()], verbose=False)
    run.validate(model, loader(), verbose=False)
    assert set(watcher.scorecards) == set(watcher.verdicts) == {"val"}


def test_the_mean_is_that_of_the_training_batches_in_a_later_test_too(tmp_path):
    watcher, model, train, val = monitor(baseline="mean"), seeded(), Rows(), Rows(n=30, seed=1)
    run = trainer(tmp_path, watcher, max_epochs=1, num_sanity_val_steps=0)
    run.fit(model, loader(train), loader(val, batch_size=7))
    run.test(model, loader(val, batch_size=11), verbose=False)
    model.eval()
    shown = {name: train.inputs[name].mean(0).expand(30, -1) for name in MODALITIES}
    for mask, coalition in ((0, "none"), (1, "text")):
        batch = {**whole(val), **{name: shown[name] for m, name in enumerate(MODALITIES) if not mask >> m & 1}}
        with torch.no_grad():
            accuracy = accuracy_score(val.label, model(batch).argmax(-1))
        assert watcher.scorecards["val"].score("accuracy", coalition=coalition) == pytest.approx(accuracy)
        assert watcher.scorecards["test"].score("accuracy", coalition=coalition) == pytest.approx(accuracy)


# Neighbours


def test_the_models_own_torchmetrics_are_untouched(tmp_path):
    class Own(Concat):
        def __init__(self):
            super().__init__()
            metrics = {"acc": MulticlassAccuracy(3, average="micro"), "f1": MulticlassF1Score(3)}
            self.metrics = MetricCollection(metrics, prefix="val_")

        def validation_step(self, batch, batch_idx):
            self.metrics.update(self(batch), batch["label"])
            self.log_dict(self.metrics, on_step=False, on_epoch=True)

    logged = []
    for callbacks in ([], [monitor()]):
        model = seeded(Own)
        run = trainer(tmp_path, *callbacks)
        run.fit(model, loader(), loader(Rows(seed=1)))
        logged.append({key: value for key, value in run.callback_metrics.items() if not key.startswith("val/")})
        assert not [key for key in model.state_dict() if "mm_metrics" in key]
    assert logged[0] == logged[1]
    assert float(run.callback_metrics["val_acc"]) == pytest.approx(float(run.callback_metrics["val/all/accuracy"]))


def test_two_callbacks_of_lightning_that_watch_a_modality(tmp_path):
    stopper = EarlyStopping(monitor="val/shapley/text/accuracy", mode="max", patience=10)
    keeper = ModelCheckpoint(tmp_path, monitor="val/image/f1", mode="max", save_top_k=1, filename="{epoch}")
    model = seeded()
    run = trainer(tmp_path, ModelSummary(max_depth=2), stopper, keeper, monitor(), enable_checkpointing=True)
    run.fit(model, loader(), loader())
    assert stopper.best_score > 0
    assert math.isfinite(keeper.best_model_score)


@pytest.mark.parametrize("finder", [LearningRateFinder, BatchSizeFinder])
def test_finders_run_beside_it(finder, tmp_path):
    class Tunable(Concat):
        learning_rate, batch_size = 0.01, 4

        def train_dataloader(self):
            return loader(batch_size=self.batch_size)

        def val_dataloader(self):
            return loader(Rows(seed=1))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.learning_rate)

    keywords = {"num_training_steps": 8} if finder is LearningRateFinder else {"max_trials": 2, "steps_per_trial": 2}
    watcher, model = monitor(), seeded(Tunable)
    trainer(tmp_path, finder(**keywords), watcher, enable_checkpointing=True, max_epochs=1).fit(model)
    assert [line["epoch"] for line in watcher.history] == [0]
    assert ablated(watcher.scorecards["val"]) == pytest.approx(by_hand(model, Rows(seed=1)))
    assert not (tmp_path / "lr_find.ckpt").exists()


def test_the_batch_size_of_a_validation_can_be_looked_for(tmp_path):
    class Tunable(Concat):
        batch_size = 3

        def val_dataloader(self):
            return loader(batch_size=self.batch_size)

    watcher, model = monitor(), seeded(Tunable)
    run = trainer(tmp_path, BatchSizeFinder(max_trials=2, steps_per_trial=2), watcher, enable_checkpointing=True)
    run.validate(model, verbose=False)
    assert model.batch_size == 4
    assert watcher.scorecards["val"].samples == 70


# Precision


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true", "64-true"])
def test_every_precision_that_a_cpu_has(precision, tmp_path):
    class Plain(Concat):
        def configure_optimizers(self):  # Adam's epsilon is 0 in half precision
            return torch.optim.SGD(self.parameters(), lr=0.05)

    watcher, model, data = monitor(), seeded(Plain), Rows(seed=1)
    run = trainer(tmp_path, watcher, precision=precision, max_epochs=1)
    run.fit(model, loader(), loader(data, batch_size=70))
    card = watcher.scorecards["val"]
    with run.precision_plugin.forward_context(), torch.no_grad():
        batch = run.precision_plugin.convert_input(whole(data))
        model.to(next(model.parameters()).dtype).eval()
        accuracy = accuracy_score(data.label, model(batch).argmax(-1))
        zero = {**batch, "text": torch.zeros_like(batch["text"])}
        without = accuracy_score(data.label, model(zero).argmax(-1))
    assert card.score("accuracy") == pytest.approx(accuracy)
    assert card.score("accuracy", coalition="image-audio") == pytest.approx(without, abs=1.5 / 70)  # one near tie
    assert run.callback_metrics["val/all/accuracy"].dtype == torch.float32
