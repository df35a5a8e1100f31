"""The commands, run as somebody would run them, on the smallest story."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm_metrics import Scorecard
from scripts import ablate
from scripts.train import build


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A run of the smallest story: its folder."""
    folder = tmp_path_factory.mktemp("runs")
    args = ["fit", "--config=configs/smoke.yaml", f"--trainer.logger.init_args.save_dir={folder}"]
    build([*args, "--trainer.enable_progress_bar=false"], run=True)
    return folder / "smoke" / "version_0"


def test_a_run_leaves_its_scorecard_report_and_checkpoint(smoke):
    assert Scorecard.from_json(smoke / "modality" / "val.json").samples == 128
    assert "<html" in next(smoke.rglob("report.html")).read_text()[:200]
    assert (smoke / "checkpoints" / "model.ckpt").exists()


def test_a_checkpoint_loads_with_weights_only(smoke):
    saved = torch.load(smoke / "checkpoints" / "model.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["width"] == 16


def test_ablate_agrees_with_the_monitor(smoke, capsys):
    checkpoint = smoke / "checkpoints" / "model.ckpt"
    card = ablate.main([str(checkpoint), "--config", "configs/smoke.yaml"])
    monitored = Scorecard.from_json(smoke / "modality" / "val.json")
    for coalition in ("none", "text", "image-audio", "text-image-audio"):
        assert torch.equal(card.confusion(coalition), monitored.confusion(coalition))
    assert card.contributions("accuracy")["audio"].shapley.value == pytest.approx(
        monitored.contributions("accuracy")["audio"].shapley.value
    )
    said = capsys.readouterr().out
    assert "Shapley" in said
    assert str(checkpoint.with_name("scorecard.json")) in said
    assert Scorecard.from_json(checkpoint.with_name("scorecard.json")).samples == 128


def test_ablate_takes_another_split_and_keys_of_the_config(smoke, tmp_path):
    checkpoint = str(smoke / "checkpoints" / "model.ckpt")
    output = ["--output", str(tmp_path / "card.json")]
    card = ablate.main([checkpoint, "--config=configs/smoke.yaml", "--split=test", "--data.init_args.test=40", *output])
    assert card.samples == Scorecard.from_json(tmp_path / "card.json").samples == 40


def test_ablate_without_a_monitor_says_what_to_add(smoke, capsys):
    with pytest.raises(SystemExit):
        ablate.main(
            [str(smoke / "checkpoints" / "model.ckpt"), "--config=configs/smoke.yaml", "--trainer.callbacks=[]"]
        )
    assert "has no ModalityMonitor" in capsys.readouterr().err


def test_help_teaches():
    # from another folder, as a command of its own: finds the toy beside it
    script = Path(ablate.__file__).resolve()
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=script.root
    )
    assert "--config" in done.stdout
    assert "Shapley" in done.stdout
    assert "configs/emergency.yaml" in done.stdout
