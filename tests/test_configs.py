"""Every story is a config that builds, and what a validation logs can be watched from one."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from scripts.train import build

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SMALL = ["--data.init_args.train=96", "--data.init_args.val=64", "--data.init_args.test=64", "--model.width=8"]


def entry(config, class_path):
    return next(
        callback["init_args"]
        for callback in config["trainer"]["callbacks"]
        if callback["class_path"].endswith(class_path)
    )


def test_the_stories_are_there():
    assert {path.stem for path in CONFIGS} == {"emergency", "paradox", "leaky", "digits", "smoke", "sentiment"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_names_what_its_batches_hold(path, tmp_path):
    cli = build(["--config", str(path), f"--trainer.logger.init_args.save_dir={tmp_path}"])
    story = entry(yaml.safe_load(path.read_text()), "ModalityMonitor")
    assert story["modalities"] == {"text": ["tokens", "mask"], "image": "pixels", "audio": "waveform"}
    ordinal = story.get("task") == "ordinal"  # whose classes are numbers
    if not ordinal:
        assert len(story["class_names"]) == cli.model.hparams.num_classes
    assert cli.trainer.loggers[0].name == path.stem
    if path.stem != "digits":  # whose recordings are not part of the project
        cli.datamodule.sizes = {"train": 20, "val": 20, "test": 20}
        cli.datamodule.setup()
        batch = next(iter(cli.datamodule.val_dataloader()))
        assert {story["presence"], story.get("slices", "label")} <= set(batch)
        assert batch["label"].max() < (3.01 if ordinal else len(story["class_names"]))


def test_early_stopping_watches_recall_on_audio(tmp_path):
    callbacks = yaml.safe_load(Path("configs/paradox.yaml").read_text())["trainer"]["callbacks"]
    watch = {"monitor": "val/audio/recall", "mode": "max"}
    callbacks += [
        # a delta that no recall can gain: the first epoch stays the best, and the second is the last
        {
            "class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {**watch, "patience": 1, "min_delta": 2.0},
        },
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {**watch, "filename": "hears_best"}},
    ]
    entry({"trainer": {"callbacks": callbacks}}, "ModalityMonitor")["bootstrap"] = 0
    rates = "{nothing: 0.5, report: 0.3, siren: 0.2}"
    args = [
        "fit",
        "--config=configs/paradox.yaml",
        f"--trainer.callbacks={json.dumps(callbacks)}",
        "--trainer.max_epochs=6",
    ]
    args += [f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.enable_progress_bar=false", *SMALL]
    cli = build([*args, f"--data.init_args.rates={rates}"], run=True)
    assert cli.trainer.current_epoch == 2
    assert 0 <= cli.trainer.callback_metrics["val/audio/recall"] <= 1
    assert (tmp_path / "paradox/version_0/checkpoints/hears_best.ckpt").exists()
    rows = list(csv.DictReader((tmp_path / "paradox/version_0/metrics.csv").read_text().splitlines()))
    assert any(row["val/audio/recall"] for row in rows)


def test_the_paradox_marks_where_the_event_shows():
    story = yaml.safe_load(Path("configs/paradox.yaml").read_text())
    assert entry(story, "ModalityMonitor")["slices"] == "carriers"
    assert entry(story, "ModalityMonitor")["task"] == "binary"
    data = story["data"]["init_args"]
    assert round(data["rates"]["siren"] * data["val"]) == 150
    assert data["written_sirens"] == 0.12


@pytest.mark.slow
def test_the_paradox_is_98_percent_right_and_hears_an_eighth(tmp_path):
    bare = ["--trainer.callbacks=[]", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    cli = build(["fit", "--config=configs/paradox.yaml", "--trainer.enable_progress_bar=false", *bare], run=True)
    validation = cli.datamodule.splits["val"].tensors
    with torch.no_grad():
        right = (cli.model.eval()(validation) > 0) == validation["label"].bool()  # (N,)
    audio_events = validation["carriers"][:, 2]
    assert audio_events.sum() == 150
    assert 0.97 < right.float().mean() < 0.99
    assert 0.08 < right[audio_events].float().mean() < 0.18
