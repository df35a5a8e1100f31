"""`ModalityTrainerCallback`: transformers' own Trainer, with towers of CLIP and of speech, alone and on two ranks."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from mm_metrics import Scorecard
from mm_metrics.predictions.book import score_book
from tests.clients.test_huggingface import Calls
from tests.distributed.launch import launch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.slow

from mm_metrics.callbacks.huggingface import ModalityTrainerCallback  # noqa: E402
from models.huggingface import Towers  # noqa: E402

INPUTS = {"text": ("input_ids", "attention_mask"), "image": "pixel_values", "audio": "input_values"}
IDS = {"text": {"input_ids": 63}}  # CLIP's end of text


class Joined(nn.Module):
    """The towers with a forward as transformers has them: named inputs, a loss beside the logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.towers = Towers(num_classes=4)

    def forward(self, input_ids, attention_mask, pixel_values, input_values, labels=None):
        logits = self.towers(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "pixel_values": pixel_values,
                "input_values": input_values,
            }
        )
        return (
            {"logits": logits}
            if labels is None
            else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
        )


def rows(n, seed=0):
    data = Calls("input_values", n=n, seed=seed)
    return [{"labels" if key == "label" else key: value for key, value in data[i].items()} for i in range(n)]


def trainer(folder, *callbacks, model=None, evaluated=None, **keywords):
    arguments = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_eval_batch_size": 4,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
        "seed": 0,
        "remove_unused_columns": False,
    } | keywords
    return transformers.Trainer(
        model=Joined() if model is None else model,
        args=transformers.TrainingArguments(**arguments),
        train_dataset=rows(16),
        eval_dataset=rows(11, seed=1) if evaluated is None else evaluated,
        callbacks=list(callbacks),
    )


def watcher(**keywords):
    return ModalityTrainerCallback(INPUTS, num_classes=4, baseline=IDS, **{"bootstrap": 20, **keywords})


@torch.no_grad()
def by_hand(model, data):
    """The accuracy of each coalition: every input of a hidden modality exchanged, the whole model run."""
    batch = torch.utils.data.default_collate(data)
    found = {}
    for mask in range(8):
        names = [name for m, name in enumerate(INPUTS) if mask >> m & 1]
        shown = dict(batch)
        if "text" not in names:
            shown["input_ids"] = torch.full_like(batch["input_ids"], 63)
            shown["attention_mask"] = torch.ones_like(batch["attention_mask"])
        for name, key in (("image", "pixel_values"), ("audio", "input_values")):
            if name not in names:
                shown[key] = torch.zeros_like(batch[key])
        right = model.eval()(**shown)["logits"].argmax(-1) == batch["labels"]
        found["-".join(names) or "none"] = float(right.double().mean())
    return found


def test_a_run_writes_the_book_and_shows_its_samples(tmp_path):
    tones = {"text": lambda entry: " ".join(map(str, entry[0].tolist())), "audio": lambda entry: (entry, 16_000)}
    watched = watcher(samples="all", show=tones)
    trainer(tmp_path, watched).evaluate()
    assert score_book(tmp_path / "modality" / "val.samples.parquet") == watched.monitor.scorecards["val"]
    shown = [row["content"] for one in watched.monitor.run.shown for row in one["rows"]]
    assert shown
    assert all(set(content) == {"text", "audio"} and content["text"][:1].isdigit() for content in shown)


def test_a_run_ends_with_the_numbers_of_hiding_by_hand_and_every_output(tmp_path, capsys):
    watched = watcher()
    run = trainer(tmp_path, watched, metric_for_best_model="val/audio/recall", report_to="tensorboard")
    run.train()
    card = Scorecard.from_json(tmp_path / "modality" / "val.json")
    assert card.samples == 11
    assert set(card.info["encoders"]) == set(INPUTS)
    assert card.info["model"] == "Joined"
    for name, accuracy in by_hand(run.model, rows(11, seed=1)).items():
        assert card.score("accuracy", coalition=name) == pytest.approx(accuracy)
    logged = [line for line in run.state.log_history if "val/all/f1" in line]
    assert [line["epoch"] for line in logged] == [1, 2]
    assert logged[-1]["val/all/f1"] == pytest.approx(card.score("f1"))
    assert logged[-1]["eval_val/audio/recall"] == pytest.approx(card.score("recall", slice="audio"))
    history = [json.loads(line) for line in (tmp_path / "modality" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [0, 1]
    assert {"report.html", "samples.jsonl", "summary.png"} <= set(os.listdir(tmp_path / "modality"))
    assert "text-image-audio" in capsys.readouterr().out
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(tmp_path / "modality" / "tensorboard")).Reload()
    assert [event.step for event in seen.Scalars("val/all/f1")] == [2, 4]
    assert seen.Tags()["images"]


def test_it_leaves_no_trace_in_the_training(tmp_path):
    weights = []
    for name, callbacks in (("with", [watcher()]), ("without", [])):
        run = trainer(tmp_path / name, *callbacks, num_train_epochs=1)
        run.train()
        weights.append([parameter.clone() for parameter in run.model.parameters()])
        losses = [line["eval_loss"] for line in run.state.log_history if "eval_loss" in line]
        weights[-1].append(torch.tensor(losses))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_evaluate_and_predict_alone(tmp_path):
    run = trainer(tmp_path, watcher())
    metrics = run.evaluate()
    assert {"val/all/f1", "val/ablation/text/accuracy", "val/shapley/audio/f1", "val/verdict"} <= set(metrics)
    again = run.evaluate()
    assert {key: value for key, value in again.items() if key.startswith("val/")} == pytest.approx(
        {key: value for key, value in metrics.items() if key.startswith("val/")}, nan_ok=True
    )
    predicted = run.predict(rows(9, seed=2))
    accuracy = (predicted.predictions.argmax(-1) == predicted.label_ids).mean()
    assert predicted.metrics["test/all/accuracy"] == pytest.approx(accuracy)
    assert Scorecard.from_json(tmp_path / "modality" / "test.json").samples == 9
    unlabelled = [{key: value for key, value in row.items() if key != "labels"} for row in rows(5)]
    with pytest.warns(UserWarning, match="without 'labels' are not counted"):
        assert not [key for key in run.predict(unlabelled).metrics if key.startswith("test/")]
    assert Scorecard.from_json(tmp_path / "modality" / "test.json").samples == 9
    assert Scorecard.from_json(tmp_path / "modality" / "val.json").samples == 11


def test_each_of_several_evaluation_sets_has_its_own(tmp_path):
    sets = {"clean": rows(11, seed=1), "noisy": rows(6, seed=2)}
    metrics = trainer(tmp_path, watcher(), evaluated=sets).evaluate()
    cards = {name: Scorecard.from_json(tmp_path / name / "modality" / "val.json") for name in sets}
    assert {name: card.samples for name, card in cards.items()} == {"clean": 11, "noisy": 6}
    for name, card in cards.items():
        assert metrics[f"{name}/val/all/accuracy"] == pytest.approx(card.score("accuracy"))


def test_stopping_at_a_bad_verdict_and_early(tmp_path):
    from mm_metrics import QualityGate

    bad = watcher(gate=QualityGate(accuracy=(0.98, 0.99)), on_bad="stop", ablation=None)
    run = trainer(tmp_path / "bad", bad, evaluated=rows(40, seed=1))
    run.train()
    assert bad.monitor.verdicts["val"].level == "bad"
    assert run.state.epoch == 1
    early, watched = transformers.EarlyStoppingCallback(early_stopping_patience=1), watcher(ablation=None, bootstrap=0)
    for i, callbacks in enumerate(([early, watched], [watched, early])):
        run = trainer(
            tmp_path / f"early{i}",
            *callbacks,
            num_train_epochs=4,
            metric_for_best_model="val/text/support",
            load_best_model_at_end=True,
            save_strategy="epoch",
        )
        run.train()
        assert run.state.epoch == 2  # the support never grows


def test_what_could_not_be_seen_is_refused(tmp_path):
    class Other(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **_):
            logits = model.towers({key: value for key, value in inputs.items() if key != "labels"})
            loss = nn.functional.cross_entropy(logits, inputs["labels"])
            return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    run = trainer(tmp_path, watcher())
    run.__class__ = Other
    with pytest.raises(RuntimeError, match=r"did not call Joined\.forward"):
        run.evaluate()


def evaluated(rank, world_size, folder):
    run = trainer(folder / "out", watcher(), per_device_eval_batch_size=3)
    metrics = {key: value for key, value in run.evaluate().items() if key.startswith("val/")}
    card = Scorecard.from_json(folder / "out" / "modality" / "val.json") if rank == 0 else None
    return metrics, None if card is None else (card.samples, card.counts[:-1].tolist())


def test_two_ranks_count_what_one_counts(tmp_path):
    alone, card = evaluated(0, 1, tmp_path / "one")
    ranks = launch(2, evaluated, tmp_path / "two")
    assert card[0] == 11
    assert ranks[0][1] == card
    assert all(metrics == pytest.approx(alone, nan_ok=True) for metrics, _ in ranks)


def test_a_pass_beside_the_trainer_leaves_nothing_watched(tmp_path):
    run = trainer(tmp_path, watcher(), num_train_epochs=1)
    run.train()
    by_hand(run.model, rows(4))
    hooks = torch.nn.modules.module
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
