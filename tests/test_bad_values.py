"""Samples that cannot be scored do not end a training: they are misses of their class, or apart, and always said."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pyarrow.parquet import read_table
from sklearn.metrics import accuracy_score, recall_score
from torch import nn
from torch.utils._pytree import tree_map

from mm_metrics import ModalityConfusionMatrix
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.callbacks.refused import Refused
from mm_metrics.callbacks.truth import Rows as Answers
from tests.pretend import OnDevice, pretending, to_device
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, **{"num_classes": 3, "bootstrap": 20, "report": False, **keywords})


class Odd(Concat):
    """Answers NaN to every tenth sample."""

    def forward(self, batch):
        return torch.where((batch["number"] % 10 == 3).unsqueeze(-1), torch.nan, super().forward(batch))

    def validation_step(self, batch, batch_idx):
        self(batch)
        batch.pop("label")


class OddSteps(Odd):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch)


def validated(tmp_path, watcher, model, loaders):
    run = trainer(tmp_path, watcher)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(model, loaders, verbose=False)
    said = [str(warning.message) for warning in caught if "could not be scored" in str(warning.message)]
    return run, said


def answers(model, data):
    batch = next(iter(loader(data, batch_size=len(data))))
    with torch.no_grad():
        return model.eval()(batch)


def test_nan_is_a_miss_and_a_target_out_of_range_stands_apart(tmp_path):
    data, watcher, model = Rows(seed=1), monitor(), seeded(Odd)
    data.label[5] = 9
    run, said = validated(tmp_path, watcher, model, loader(data))
    card, logits = watcher.scorecards["val"], answers(model, data)
    kept = torch.arange(70) != 5
    given = torch.where(logits.isnan().any(-1), 3, logits.argmax(-1))
    assert (card.samples, card.outside(), card.info["refused"]) == (69, 7, 8)
    assert run.callback_metrics["val/refused"] == 8
    assert card.score("accuracy") == pytest.approx(accuracy_score(data.label[kept], given[kept]))
    recall = recall_score(data.label[kept], given[kept], labels=range(3), average="macro")
    assert card.score("recall") == pytest.approx(recall)
    assert len(said) == 1
    assert "8 of 70" in said[0]
    assert "batch 0 (samples 5): no class or number" in said[0]


def test_what_one_loader_refused_is_not_said_of_another(tmp_path):
    watcher = monitor()
    validated(tmp_path, watcher, seeded(OddSteps), [loader(), loader(Rows(n=3))])
    assert [card.info.get("refused") for card in watcher.scorecards.values()] == [7, None]


def test_raise_stops_at_the_first(tmp_path):
    with pytest.raises(ValueError, match="2 of 16 samples have no finite largest score"):  # of 8 coalitions as one
        trainer(tmp_path, monitor(on_bad_values="raise")).validate(seeded(Odd), loader(), verbose=False)


@pytest.mark.parametrize(("shift", "told"), [(1, True), (0, False)])
def test_labels_that_start_at_one_are_said_to(shift, told, tmp_path):
    """One label that is the number of classes is an error of its own, where others are 0."""
    data, watcher = Rows(seed=1), monitor()
    data.label += shift
    data.label[5] = 3
    _, said = validated(tmp_path, watcher, seeded(OddSteps), loader(data))
    assert len(said) == 1
    assert ("use target - 1" in said[0]) == told


def test_labels_of_a_binary_task_that_start_at_one_are_said_to():
    refused, metric = Refused(), ModalityConfusionMatrix(MODALITIES, task="binary", from_logits=True)
    logits, target = torch.randn(1, 6), torch.tensor([1, 2] * 3)
    good, _ = refused.take(0, (7,), 7, Answers(logits, target), metric.reader, False)
    metric.update(logits[0, good], target[good])
    assert good.tolist() == [True, False] * 3
    assert "some are 2: labels start at 0: use target - 1" in refused.sentence("val", 0, metric.scorecard())


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_other_tasks(task, tmp_path):
    class Task(Concat):
        def forward(self, batch):
            logits = super().forward(batch)
            logits = logits[:, 0] if task == "binary" else logits
            odd = batch["number"] % 10 == 3
            return torch.where(odd if task == "binary" else odd.unsqueeze(-1), torch.nan, logits)

        def validation_step(self, batch, batch_idx):
            self(batch)

    class Data(Rows):
        def __getitem__(self, i):
            label = nn.functional.one_hot(self.label[i], 3)
            return {**super().__getitem__(i), "label": label[0] if task == "binary" else label}

    sizes = {"binary": {}, "multilabel": {"num_labels": 3}}[task]
    watcher = monitor(task=task, num_classes=None, **sizes)
    model, data = seeded(Task), Data(seed=1)
    validated(tmp_path, watcher, model, loader(data))
    logits = answers(model, data)
    target = torch.stack([data[i]["label"] for i in range(70)])
    right = ((logits > 0) == target.bool()) & ~logits.isnan()
    assert watcher.scorecards["val"].score("accuracy") == pytest.approx(float(right.double().mean()))
    assert watcher.scorecards["val"].samples == 70


def test_a_stand_in_that_breaks_the_model_is_no_miss(tmp_path):
    class Divides(Concat):
        def forward(self, batch):
            late = (batch["number"] >= 16).unsqueeze(-1)
            return super().forward(batch) + torch.where(late, 0 / batch["text"].abs().sum(-1, keepdim=True), 0)

        def validation_step(self, batch, batch_idx):
            self(batch)

    watcher = monitor(encoders=None)
    with pytest.warns(UserWarning, match="answers NaN when it is shown only none"):
        trainer(tmp_path, watcher).validate(seeded(Divides), loader(), verbose=False)
    card = watcher.scorecards["val"]
    assert card.support(coalition="none") == 16
    assert card.support(coalition="text") == 70
    assert card.outside() == 0


def test_batches_that_hold_nothing_or_something_else(tmp_path):
    batches = list(loader(Rows(seed=1)))
    empty = {name: value[:0] for name, value in batches[0].items()}
    other = {name: value for name, value in batches[1].items() if name != "audio"}

    class Steps(Concat):
        def validation_step(self, batch, batch_idx):
            pass

    watcher, model = monitor(encoders=None), seeded(Steps)
    loaders = torch.utils.data.DataLoader([batches[0], empty, other, *batches[2:]], batch_size=None)
    run, said = validated(tmp_path, watcher, model, loaders)
    assert watcher.scorecards["val"].samples in (54, 70)  # 70: an absent modality is one that is not present
    if watcher.scorecards["val"].samples == 54:
        assert run.callback_metrics["val/refused"] == 16
        assert "batch 2" in said[0]
    with pytest.raises(KeyError):  # at once, where nothing was counted yet
        validated(tmp_path, monitor(target="nothing"), model, loader())


class Changing(torch.utils.data.DataLoader):
    """Rows whose first batch has no label in the second epoch, and none that is a class in the third."""

    epoch = -1

    def __iter__(self):
        self.epoch += 1
        for i, batch in enumerate(super().__iter__()):
            if self.epoch == 1 and i == 0:
                del batch["label"]
            if self.epoch == 2:
                batch["label"] = batch["label"].float()
            yield batch


@pytest.mark.parametrize("num_classes", [3, None])
def test_an_epoch_that_begins_with_a_bad_batch_ends_no_training(num_classes, tmp_path):
    class Writes(Concat):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch)
            if "label" in batch:
                batch["label"].zero_()  # what a step writes into a batch is not what was true

    watcher, data = monitor(num_classes=num_classes, samples="all"), Rows(seed=1)
    run = trainer(tmp_path, watcher, max_epochs=4, num_sanity_val_steps=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(model := seeded(Writes), loader(), [loader(), Changing(data, batch_size=16)])
    assert sum("could not be scored" in str(warning.message) for warning in caught) == 2
    assert [line["val/refused/dataloader_idx_1"] for line in watcher.history] == [0, 16, 70, 0]
    right = accuracy_score(data.label, answers(model, data).argmax(-1))
    assert watcher.scorecards["val_1"].score("accuracy") == pytest.approx(right)


def test_answers_of_minus_one_are_misses(tmp_path):
    class Says(Concat):
        def labels(self, batch):
            return torch.where(batch["number"] % 7 == 0, -1, self(batch).argmax(-1))

    for how in ("count", "raise"):
        watcher, model, data = (
            monitor(predict=lambda m, batch: m.labels(batch), on_bad_values=how),
            seeded(Says),
            Rows(),
        )
        run, said = validated(tmp_path, watcher, model, loader(data))
        given = torch.where(torch.arange(70) % 7 == 0, -1, answers(model, data).argmax(-1))
        card = watcher.scorecards["val"]
        assert card.score("accuracy") == pytest.approx(accuracy_score(data.label, given))
        assert card.outside() == 10
        assert run.callback_metrics["val/refused"] == 0
        assert said == []


def test_every_epoch_says_its_own(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, watcher := monitor(), max_epochs=2).fit(seeded(Odd), loader(), loader(Rows(seed=1)))
    said = [str(w.message) for w in caught if "could not be scored" in str(w.message)]
    assert [text.split(":")[0] for text in said] == ["val, epoch 0", "val, epoch 1"]
    assert [line["val/refused"] for line in watcher.history] == [7, 7]


class OddThere(Odd):
    device = torch.device("cuda:0")  # type: ignore[assignment]


def on_host(value):
    return value.inner if isinstance(value, OnDevice) else value


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("scores", [("accuracy",), ("auroc",)])
def test_an_accelerator_refuses_the_same_and_does_not_wait_for_it(ignored, scores, tmp_path, monkeypatch):
    monkeypatch.setattr("mm_metrics.callbacks.book.on_their_way", lambda columns: (tree_map(on_host, columns), None))
    data = Rows(n=96, seed=1)
    data.label[5], data.label[40], data.label[13], data.label[14] = 9, -3, -100, -100
    if not ignored:
        data.label[13:15] = 7
    batches, cards, books = list(loader(data)), [], []
    run = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0, testing=False, is_global_zero=True)
    run.strategy = SimpleNamespace(barrier=lambda name: None)
    run.sanity_checking, run.val_dataloaders, run.num_val_batches = False, batches, [len(batches)]
    run.precision_plugin = SimpleNamespace(forward_context=nullcontext)
    for kind, moved in ((Odd, lambda thing: thing), (OddThere, to_device)):
        counter = monitor(ignore_index=-100 if ignored else None, scores=scores).counter
        counter.books = tmp_path / kind.__name__
        counter.books.mkdir()
        with pretending() as log, torch.no_grad():
            model = moved(seeded(kind).eval())
            counter.begin(run)
            for i, batch in enumerate(map(moved, batches)):
                counter.watch(batch, i, 0)
                model(batch)
                counter.unwatch()
                log.waits.clear()
                counter.count(run, model, batch, i, 0)
                assert i == 0 or len(log.waits) <= 1, (
                    log.waits
                )  # the one of the ablation, for a batch that is as it was
            cards += [(card, refused) for _, _, card, refused in counter.cards(run, model)]
        books.append(read_table(counter.books / "val.samples.parquet").sort_by("index"))
    (here, noted), (there, noted_there) = cards
    assert (here, noted) == (there, noted_there)
    assert str(books[0].to_pydict()) == str(books[1].to_pydict())  # where NaN is NaN
    assert books[0].num_rows == here.samples
    assert noted.samples == (11 if ignored else 13)
    assert noted.unknown == (2 if ignored else 4)
    assert here.samples == 96 - noted.unknown
