"""The commands, run as somebody would run them, on the smallest story."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import auc

from mm_metrics import Scorecard, contributions
from models.emergency import EVENTS, MODALITIES, RATES, tells
from scripts import ablate
from scripts.robustness import STRENGTHS
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


def test_noise_in_one_modality_lowers_the_score(smoke, capsys, tmp_path):
    checkpoint = str(smoke / "checkpoints" / "model.ckpt")
    ablate.main([checkpoint, "--config=configs/smoke.yaml", "--noise", "--output", str(tmp_path / "card.json")])
    table = capsys.readouterr().out.split("relative robustness\n")[1].splitlines()
    rows = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in table[:3]}
    assert set(rows) == {"text", "image", "audio"}
    assert len({row[0] for row in rows.values()}) == 1  # without noise they are one model
    for row in rows.values():
        area = auc(STRENGTHS, row[:-1])
        assert row[-1] == pytest.approx(area, abs=0.02)


def test_ablate_without_a_monitor_says_what_to_add(smoke, capsys):
    with pytest.raises(SystemExit):
        ablate.main(
            [str(smoke / "checkpoints" / "model.ckpt"), "--config=configs/smoke.yaml", "--trainer.callbacks=[]"]
        )
    assert "has no ModalityMonitor" in capsys.readouterr().err


@pytest.mark.slow
def test_help_teaches():
    # from another folder, as a command of its own: finds the toy beside it
    script = Path(ablate.__file__).resolve()
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=script.root
    )
    assert "--config" in done.stdout
    assert "Shapley" in done.stdout
    assert "configs/emergency.yaml" in done.stdout


@pytest.mark.slow
def test_contributions_are_what_the_table_of_evidence_says(tmp_path):
    small = ["--data.init_args.train=3000", "--data.init_args.val=1000", "--trainer.max_epochs=6"]
    quiet = ["--trainer.enable_progress_bar=false", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    config = "--config=configs/emergency.yaml"
    cli = build(["fit", config, "--trainer.callbacks=[]", *small, *quiet], run=True)
    checkpoint = cli.trainer.checkpoint_callback.best_model_path
    card = ablate.main([checkpoint, config, "--data.init_args.missing=0", "--data.init_args.val=1000"])

    def told(coalition):
        return [tells(event, coalition.split("-")) for event in EVENTS]

    for coalition in card.coalitions[:8]:
        recall = card.class_scores("recall", coalition=coalition)
        for event, known in zip(EVENTS, told(coalition), strict=True):
            if event != "nothing":  # which is also the guess where something is hidden
                assert recall[event] > 0.85 if known else recall[event] < 0.3, (coalition, event)

    rates = torch.tensor(list(RATES.values()))
    ideal = torch.stack([(torch.tensor(told(coalition)) * rates).sum() for coalition in card.coalitions[:8]])  # (K,)
    measured = card.contributions("accuracy")
    for m, modality in enumerate(MODALITIES):
        drop, shapley = contributions.leave_one_out(ideal)[m], contributions.shapley_values(ideal)[m]
        assert measured[modality].drop.value == pytest.approx(drop.item(), abs=0.06)
        assert measured[modality].shapley.value == pytest.approx(shapley.item(), abs=0.06)
