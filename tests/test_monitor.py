"""`ModalityMonitor`: its keys, its files, its manners, and the mistakes of a new user's first five minutes."""

from __future__ import annotations

import json
import math
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from mm_metrics import ModalityAblation, QualityGate, Scorecard
from mm_metrics.callbacks import BadVerdictError, ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


def monitor(**keywords):
    arguments = {"num_classes": 3, "bootstrap": 50, **keywords}
    return ModalityMonitor(MODALITIES, **arguments)


def expected_keys(stage="val"):
    keys = {
        f"{stage}/{slice}/{score}"
        for slice in ("all", *MODALITIES)
        for score in ("accuracy", "precision", "recall", "f1")
    }
    keys |= {f"{stage}/{name}/support" for name in MODALITIES} | {f"{stage}/verdict", f"{stage}/refused"}
    keys |= {f"{stage}/class/{c}/{score}" for c in range(3) for score in ("precision", "recall", "f1")}
    coalitions = ("none", "text", "image", "text-image", "audio", "text-audio", "image-audio", "text-image-audio")
    keys |= {f"{stage}/ablation/{coalition}/{score}" for coalition in coalitions for score in ("accuracy", "f1")}
    return keys | {
        f"{stage}/{kind}/{name}/{score}"
        for kind in ("drop", "shapley")
        for name in MODALITIES
        for score in ("accuracy", "f1")
    }


def test_every_key_of_the_table_reaches_the_callback_metrics(tmp_path):
    run = trainer(tmp_path, monitor())
    run.fit(seeded(), loader(), loader(Rows(seed=1)))
    assert {key for key in run.callback_metrics if key.startswith("val/")} == expected_keys()


def test_numbers_against_scikit_learn_and_the_ablation_by_hand(tmp_path):
    data = Rows(n=90, missing=0.3, seed=1)
    watcher, model = monitor(presence="presence"), seeded()
    run = trainer(tmp_path, watcher)
    run.fit(model, loader(), loader(data))
    batch = next(iter(loader(data, batch_size=90)))
    model.eval()
    with torch.no_grad():
        own = model(batch).argmax(-1)
    shown = ModalityAblation(model, MODALITIES, presence="presence", encoders=None)(batch).argmax(-1)
    label, has = batch["label"], batch["presence"]
    logged = {key: float(value) for key, value in run.callback_metrics.items()}
    assert logged["val/all/accuracy"] == pytest.approx(accuracy_score(label, own))
    assert logged["val/audio/f1"] == pytest.approx(f1_score(label[has[:, 2]], own[has[:, 2]], average="macro"))
    assert logged["val/audio/support"] == int(has[:, 2].sum())
    assert logged["val/ablation/text-audio/accuracy"] == pytest.approx(accuracy_score(label, shown[0b101]))
    drop = accuracy_score(label, shown[7]) - accuracy_score(label, shown[0b110])
    assert logged["val/drop/text/accuracy"] == pytest.approx(drop)
    fair = sum(logged[f"val/shapley/{name}/f1"] for name in MODALITIES)
    assert fair == pytest.approx(logged["val/ablation/text-image-audio/f1"] - logged["val/ablation/none/f1"], abs=1e-6)
    card = watcher.scorecards["val"]
    assert card.score("accuracy") == pytest.approx(logged["val/all/accuracy"])
    assert Scorecard.from_json(tmp_path / "modality" / "val.json") == card


def test_summary_sends_fourteen_lines_and_all_sends_everything(tmp_path):
    for log, number in (("summary", 14), ("all", len(expected_keys()))):
        logger = CSVLogger(tmp_path, name=log)
        trainer(tmp_path, monitor(log=log), logger=logger, log_every_n_steps=1).fit(seeded(), loader(), loader())
        header = (tmp_path / log / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
        assert len([key for key in header if key.startswith("val/")]) == number


def test_intervals_are_logged_when_asked_for(tmp_path):
    run = trainer(tmp_path, monitor(log_intervals=True))
    run.fit(seeded(), loader(), loader())
    logged = run.callback_metrics
    for key in ("val/all/f1", "val/audio/recall", "val/drop/text/f1", "val/ablation/none/accuracy"):
        assert logged[f"{key}/low"] <= logged[key] <= logged[f"{key}/high"]


def test_the_users_key_stays_the_users(tmp_path):
    class Own(Concat):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/all/accuracy", 0.123)

    run = trainer(tmp_path, monitor())
    with pytest.warns(UserWarning, match="val/all/accuracy is logged by the model itself"):
        run.fit(seeded(Own), loader(), loader())
    assert float(run.callback_metrics["val/all/accuracy"]) == pytest.approx(0.123)


def test_values_move_from_epoch_to_epoch(tmp_path):
    watcher = monitor()
    run = trainer(tmp_path, watcher, max_epochs=4)
    run.fit(seeded(), loader(), loader())
    accuracies = [line["val/all/accuracy"] for line in watcher.history]
    assert len(accuracies) == 4
    assert len(set(accuracies)) > 1
    assert float(run.callback_metrics["val/all/accuracy"]) == pytest.approx(accuracies[-1])
    lines = [json.loads(line) for line in (tmp_path / "modality" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]


def test_early_stopping_and_checkpoints_on_a_modality(tmp_path):
    class NeverBetter(EarlyStopping):
        pass

    stopper = NeverBetter(monitor="val/audio/recall", mode="max", min_delta=2.0, patience=1)
    keeper = ModelCheckpoint(
        tmp_path, monitor="val/drop/text/f1", mode="max", filename="best", auto_insert_metric_name=False
    )
    run = trainer(tmp_path, stopper, monitor(), keeper, max_epochs=9, enable_checkpointing=True)
    run.fit(seeded(), loader(), loader())
    assert run.current_epoch == 2
    assert (tmp_path / "best.ckpt").exists()


def test_an_empty_slice_that_somebody_watches_is_said(tmp_path):
    data = Rows()
    data.presence[:, 2] = False
    stopper = EarlyStopping(monitor="val/audio/recall", mode="max", check_finite=True)
    run = trainer(tmp_path, monitor(presence="presence"), stopper, max_epochs=3)
    with pytest.warns(UserWarning, match=r"EarlyStopping\(monitor='val/audio/recall', check_finite=False\) goes on"):
        run.fit(seeded(), loader(), loader(data))
    assert math.isnan(run.callback_metrics["val/audio/recall"])
    assert run.callback_metrics["val/audio/support"] == 0


def test_several_loaders_are_never_mixed(tmp_path):
    first, second = Rows(n=40, seed=1), Rows(n=30, seed=2)
    watcher = monitor()
    run = trainer(tmp_path, watcher)
    run.fit(seeded(), loader(), [loader(first), loader(second)])
    keys = {key for key in run.callback_metrics if key.startswith("val/")}
    assert keys == expected_keys() | {f"{key}/dataloader_idx_1" for key in expected_keys()}
    assert watcher.scorecards["val"].samples == 40
    assert watcher.scorecards["val_1"].samples == 30
    assert (tmp_path / "modality" / "val_1.json").exists()


def test_validate_and_test_alone(tmp_path, capsys):
    run, watcher = trainer(tmp_path, watcher := monitor()), watcher
    model = seeded()
    run.validate(model, loader(), verbose=False)
    run.test(model, loader(Rows(seed=3)), verbose=False)
    assert set(watcher.scorecards) == {"val", "test"}
    assert {key for key in run.callback_metrics if key.startswith("test/")} == expected_keys("test")
    assert (tmp_path / "modality" / "report.html").read_text().count("<html") == 1
    printed = capsys.readouterr().out
    assert "text-image-audio" in printed
    assert "report.html" in printed


def test_a_card_is_written_once_a_validation(tmp_path, monkeypatch):
    written, write = [], Scorecard.to_json
    monkeypatch.setattr(Scorecard, "to_json", lambda card, path=None: written.append(card) or write(card, path))
    run = trainer(tmp_path, ModalityMonitor(MODALITIES, num_classes=3, report=False))
    run.validate(seeded(), loader(Rows(n=30)), verbose=False)
    assert len(written) == 1


def test_sanity_check_counts_nothing(tmp_path):
    watcher = monitor()
    trainer(tmp_path, watcher, max_epochs=1, num_sanity_val_steps=2).fit(seeded(), loader(), loader())
    assert watcher.scorecards["val"].samples == 70
    assert len(watcher.history) == 1


def test_ablation_every_few_epochs_and_on_few_batches(tmp_path):
    watcher = monitor(every_n_epochs=2, max_batches=2)
    run = trainer(tmp_path, watcher, max_epochs=2)
    run.fit(seeded(), loader(), loader())
    assert "val/drop/text/f1" in watcher.history[0]
    assert "val/drop/text/f1" not in watcher.history[1]
    assert watcher.scorecards["val"].samples == 70


def test_max_batches_governs_the_ablation_alone(tmp_path):
    watcher = monitor(max_batches=2)
    trainer(tmp_path, watcher).fit(seeded(), loader(), loader())
    card = watcher.scorecards["val"]
    assert card.support() == 70
    assert card.support(coalition="text") == 32


def test_heads_of_late_fusion_are_coalitions_of_one(tmp_path):
    class Heads(Concat):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in MODALITIES})

        def per_modality(self, batch):
            heads = {name: self.heads[name](batch[name]) for name in MODALITIES}
            return {"all": torch.stack(list(heads.values())).mean(0), **heads}

    data = Rows(n=100, missing=0.3, seed=4)
    watcher = monitor(predict=lambda model, batch: model.per_modality(batch), presence="presence")
    model = seeded(Heads)
    trainer(tmp_path, watcher).fit(model, loader(), loader(data))
    card = watcher.scorecards["val"]
    assert card.support() == 100
    assert card.support(coalition="audio") == int(data.presence[:, 2].sum())
    batch = next(iter(loader(data, batch_size=100)))
    with torch.no_grad():
        audio = model.eval().per_modality(batch)["audio"].argmax(-1)
    has = batch["presence"][:, 2]
    assert card.score("accuracy", coalition="audio") == pytest.approx(accuracy_score(batch["label"][has], audio[has]))


def test_on_bad_stop_and_raise(tmp_path):
    impossible = QualityGate(accuracy=(0.99, 1.0))
    run = trainer(tmp_path, monitor(gate=impossible, on_bad="stop"), max_epochs=8, min_epochs=3)
    run.fit(seeded(), loader(), loader())
    assert run.current_epoch == 3
    run = trainer(tmp_path, monitor(gate=impossible, on_bad="raise"), max_epochs=2)
    with pytest.raises(BadVerdictError, match="BAD: "):
        run.fit(seeded(), loader(), loader())
    assert (tmp_path / "modality" / "report.html").exists()


def test_probabilities_taken_for_logits_are_noticed(tmp_path):
    class Probable(Concat):
        def forward(self, batch):
            return super().forward(batch).softmax(-1)[:, 1]

        def validation_step(self, batch, batch_idx):
            self(batch)

        def training_step(self, batch, batch_idx):
            return self(batch).mean()

    data = Rows(num_classes=2)
    watcher = ModalityMonitor(MODALITIES, task="binary", bootstrap=0)
    with pytest.warns(UserWarning, match="were read as logits"):
        trainer(tmp_path, watcher, max_epochs=1).fit(seeded(Probable), loader(data), loader(data))


def test_samples_behind_the_findings(tmp_path):
    data = Rows(n=120, seed=5)
    watcher, model = monitor(), seeded()
    trainer(tmp_path, watcher).fit(model, loader(), loader(data))
    batch = next(iter(loader(data, batch_size=120)))
    sure, shown = ModalityAblation(model, MODALITIES, encoders=None)(batch).softmax(-1).max(-1)
    right = shown == batch["label"]
    ranked = [(sure[k].round(decimals=4) - 1e-7 * torch.arange(120)).argsort(descending=True) for k in range(8)]
    rows = [json.loads(line) for line in (tmp_path / "modality" / "samples.jsonl").read_text().splitlines()]
    found = {(row["kind"], row["modality"]): row["samples"] for row in rows}
    only_with_text = ranked[6][(right[7] & ~right[6])[ranked[6]]].tolist()[:50]
    only_without_audio = ranked[7][(~right[7] & right[3])[ranked[7]]].tolist()[:50]
    assert found["right_only_with", "text"] == only_with_text
    assert found.get(("right_only_without", "audio"), []) == only_without_audio


# The first five minutes of a new user


def failing(tmp_path, model=None, **keywords):
    trainer(tmp_path, ModalityMonitor(**{"modalities": MODALITIES, "num_classes": 3, **keywords})).fit(
        model or seeded(), loader(), loader()
    )


def test_wrong_batch_key_lists_those_that_are_there(tmp_path):
    with pytest.raises(KeyError, match=r"'sound' is not in the batch.*'text', 'image', 'audio', 'label'"):
        failing(tmp_path, modalities={"text": "text", "audio": "sound"})
    with pytest.raises(KeyError, match=r"'target' is not in the batch.*'label'.*: target= names another"):
        failing(tmp_path, target="target")


def test_a_forward_that_does_not_take_the_batch(tmp_path):
    class Three(Concat):
        def forward(self, words, picture, sound):
            return super().forward({"text": words, "image": picture, "audio": sound})

        def validation_step(self, batch, batch_idx):
            self(batch["text"], batch["image"], batch["audio"])

    with pytest.raises(TypeError, match="predict="):
        failing(tmp_path, seeded(Three))


def test_logits_of_the_wrong_width(tmp_path):
    with pytest.raises(ValueError, match=r"num_classes=5: expected"):
        failing(tmp_path, num_classes=5)


def test_class_names_that_do_not_match():
    with pytest.raises(ValueError, match="class_names holds 2 names, expected 3"):
        ModalityMonitor(MODALITIES, num_classes=3, class_names=["a", "b"])


def test_a_model_that_returns_a_tuple(tmp_path):
    class Pair(Concat):
        def forward(self, batch):
            return super().forward(batch), torch.zeros(1)

        def validation_step(self, batch, batch_idx):
            self(batch)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch)[0], batch["label"])

    failing(tmp_path, seeded(Pair))


def test_no_validation_loader(tmp_path):
    class OnlyTrains(Concat):
        validation_step = None

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, monitor()).fit(seeded(), loader())
    assert any("no validation loader" in str(warning.message) for warning in caught)


def test_num_classes_is_read_off_the_logits(tmp_path):
    watcher = monitor(num_classes=None)
    trainer(tmp_path, watcher).fit(seeded(), loader(), loader())
    assert watcher.scorecards["val"].layout.C == 3


@pytest.mark.parametrize("num_classes", [3, None])
def test_what_max_bytes_leaves_out_is_said_once(num_classes, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, monitor(num_classes=num_classes, max_bytes=20_000, bootstrap=500, report=False))
        run.fit(seeded(), loader(), [loader(), loader()])
        run.test(seeded(), loader(), verbose=False)
    said = [str(one.message) for one in caught if "max_bytes" in str(one.message)]
    assert len(said) == len(set(said)) > 0


def test_an_ablation_that_is_not_known():
    with pytest.raises(ValueError, match="'most' is not known: 'all', 'leave_one_out'"):
        ModalityMonitor(MODALITIES, num_classes=3, ablation="most")


@pytest.mark.parametrize("keywords", [{"on_bad": "shout"}, {"log": "some"}, {"every_n_epochs": 0}])
def test_arguments_are_checked_before_training(keywords):
    with pytest.raises(ValueError, match=str(next(iter(keywords)))):
        ModalityMonitor(MODALITIES, num_classes=3, **keywords)
