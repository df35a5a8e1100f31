"""`log_card`: one scorecard in every target, read back by that target's own reader; and the loops that it is for."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mm_metrics import CoalitionConfusionMatrix, ModalityAblation, QualityGate
from mm_metrics.logging import log_card, logged_keys, summary_keys
from mm_metrics.render import charts
from tests.render_cards import card
from tests.toys import MODALITIES, Concat, Rows, loader

CARD = card(bootstrap=20, absent=("audio",))  # audio has no sample: some values are NaN
PICTURES = {f"val/modality/{name}" for name in ("confusions", "coalitions", "contributions")}
KEYS = ("val/all/f1", "val/all/accuracy", "val/text/recall", "val/image/f1", "val/drop/text/f1", "val/verdict")


def expected(kept=None, **keywords):
    values = logged_keys(CARD, CARD.verdict(**keywords), "val")
    return {key: value for key, value in values.items() if key in (kept or summary_keys(CARD, "val"))}


def same(read, wanted):
    assert set(read) == set(wanted)
    assert {key: read[key] for key in wanted} == pytest.approx(wanted, nan_ok=True, abs=1e-6)
    assert set(KEYS) <= set(read)
    assert math.isnan(read["val/audio/f1"])


def rows(path):
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def numbers(row):
    return {key: float(value) for key, value in row.items() if "/" in key}


def test_csv_has_a_row_a_step_whatever_was_logged_before(tmp_path):
    path = tmp_path / "deep" / "scores.csv"
    log_card(path, CARD, "val", 3)
    log_card(str(path), CARD, "val", 4, log="all")
    log_card(path, CARD, "test", 4)
    log_card(path, CARD, "test", 4)  # the same again adds nothing
    third, fourth = rows(path)
    assert (third["step"], fourth["step"]) == ("3", "4")
    same(numbers(third), expected())
    everything = logged_keys(CARD, CARD.verdict(), "val")
    assert len(everything) > 2 * len(expected())
    both = everything | {f"test{key[3:]}": value for key, value in expected().items()}
    same(numbers(fourth), both)
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column step"):
        log_card(foreign, CARD, "val", 3)
    assert foreign.read_text() == "a,b\n1,2\n"


def test_intervals_go_where_their_key_goes(tmp_path):
    log_card(tmp_path / "a.csv", CARD, "val", 0, log_intervals=True)
    read = rows(tmp_path / "a.csv")[0]
    low, high = CARD.interval("f1")
    assert (float(read["val/all/f1/low"]), float(read["val/all/f1/high"])) == pytest.approx((low, high))
    assert not [key for key in read if key.startswith("val/shapley")]


def test_the_verdict_is_the_gates(tmp_path):
    bars = {name: QualityGate(accuracy=pair) for name, pair in {"low": (0.01, 0.02), "high": (0.98, 0.99)}.items()}
    for name, gate in bars.items():
        log_card(tmp_path / f"{name}.csv", CARD, "val", 0, gate=gate)
        assert float(rows(tmp_path / f"{name}.csv")[0]["val/verdict"]) == CARD.verdict(gate).number
    assert CARD.verdict(bars["low"]).number != CARD.verdict(bars["high"]).number


@pytest.mark.parametrize("package", ["lightning.pytorch", "lightning.fabric"])
def test_lightnings_csv_logger_is_written_at_once(package, tmp_path):
    logger = pytest.importorskip(f"{package}.loggers").CSVLogger(tmp_path)
    log_card(logger, CARD, "val", 3)
    row = rows(next(tmp_path.rglob("metrics.csv")))[0]
    assert row["step"] == "3"
    same(numbers(row), expected())
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("kind", ["writer", "pytorch", "fabric"])
def test_tensorboard(kind, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    if kind == "writer":
        target = writer = SummaryWriter(tmp_path)
    else:
        target = pytest.importorskip(f"lightning.{kind}.loggers").TensorBoardLogger(tmp_path)
        writer = target.experiment
    log_card(target, CARD, "val", 7, figures=kind == "writer")
    writer.close()
    seen = EventAccumulator(str(writer.log_dir), size_guidance={"images": 0}).Reload()
    read = {key: seen.Scalars(key)[0] for key in seen.Tags()["scalars"] if key.startswith("val/")}
    assert {event.step for event in read.values()} == {7}
    same({key: event.value for key, event in read.items()}, expected())
    assert set(seen.Tags()["images"]) == (PICTURES if kind == "writer" else set())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # mlflow's own
@pytest.mark.parametrize("kind", ["module", "run", "client"])
def test_mlflow(kind, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3 asks for consent to its file store
    mlflow.set_tracking_uri(f"file:{tmp_path / 'runs'}")
    client = mlflow.MlflowClient()
    run = mlflow.start_run()
    try:
        target = {"module": mlflow, "run": run, "client": (client, run.info.run_id)}[kind]
        log_card(target, CARD, "val", 7, figures=kind != "run")
        assert mlflow.active_run().info.run_id == run.info.run_id
        read = client.get_run(run.info.run_id).data.metrics
        same(read, expected())
        assert {client.get_metric_history(run.info.run_id, key)[0].step for key in read} == {7}
    finally:
        mlflow.end_run()
    assert bool(list(tmp_path.rglob("confusions_0000007.png"))) == (kind != "run")


class Run:
    """As a run of Weights & Biases takes numbers: what belongs to a step before its own is dropped."""

    __module__ = "wandb.sdk.wandb_run"

    def __init__(self, step: int = 0) -> None:
        self.step, self.rows = step, {}

    def log(self, values, step=None):
        step = self.step if step is None else step
        if step >= self.step:
            self.step = step
            self.rows.setdefault(step, {}).update(values)


def test_weights_and_biases_drops_no_number_of_an_earlier_step():
    late, early = Run(step=900), Run()
    log_card(late, CARD, "val", 7, figures=False)
    log_card(early, CARD, "val", 7, figures=False)
    assert list(late.rows) == [900]
    assert late.rows[900].pop("val/step") == 7
    same(late.rows[900], expected())
    same(early.rows[7], expected())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # wandb starts a service and warns of what it finds
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(TypeError, match=r"wandb\.init\(\)"):
        log_card(wandb, CARD, "val", 7)
    run = wandb.init(mode="offline", dir=tmp_path)
    run.log({"loss": 1.0}, step=9)
    log_card(wandb, CARD, "val", 7)
    run.log({"loss": 0.5}, step=20)  # a row is closed by the next one
    read = {key: run.summary[key] for key in expected()}
    same({key: float(value) for key, value in read.items()}, expected())
    assert run.summary["val/step"] == 7
    run.finish()
    wandb.teardown()  # its settings would stay for whoever logs next in this process
    assert len(list(tmp_path.rglob("media/images/**/*.png"))) == 3
    assert len(list(tmp_path.rglob("*.table.json"))) == 1


def test_what_takes_no_numbers_is_refused():
    for nothing in (3, None, SimpleNamespace()):
        with pytest.raises(TypeError, match="takes no numbers"):
            log_card(nothing, CARD, "val", 0)
    with pytest.raises(ValueError, match="log='most'"):
        log_card("a.csv", CARD, "val", 0, log="most")


def test_no_picture_is_drawn_for_what_takes_none(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "drawn", lambda _: pytest.fail("drawn"))
    log_card(tmp_path / "a.csv", CARD, "val", 0)


# -- the loops that it is for


def counted(answer):
    """A scorecard of forty samples, as a loop makes it."""
    metric = CoalitionConfusionMatrix(tuple(MODALITIES), num_classes=3, bootstrap=20)
    for batch in loader(Rows(n=40, seed=1)):
        metric.update(answer(batch), batch["label"])
    return metric.scorecard()


def learned(model, optimizer, batches, backward):
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        backward(nn.functional.cross_entropy(model(batch), batch["label"]))
        optimizer.step()


def watched(path, epochs=2):
    """What the loop wrote, of which the last row is what its model gives."""
    lines = rows(path)
    assert [line["step"] for line in lines] == [str(epoch) for epoch in range(epochs)]
    return numbers(lines[-1])


def test_a_loop_of_ones_own(tmp_path):
    torch.manual_seed(0)
    model = Concat()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ablation = ModalityAblation(model, MODALITIES)
    for epoch in range(2):
        learned(model, optimizer, loader(Rows(n=40)), torch.Tensor.backward)
        log_card(tmp_path / "scores.csv", counted(ablation), "val", epoch)
    assert watched(tmp_path / "scores.csv")["val/all/f1"] == pytest.approx(counted(ablation).score("f1"))


def test_fabric(tmp_path):
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger

    fabric = Fabric(accelerator="cpu", devices=1, loggers=CSVLogger(tmp_path))
    fabric.seed_everything(0, verbose=False)
    plain = Concat()
    model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    batches = fabric.setup_dataloaders(loader(Rows(n=40)))
    ablation = ModalityAblation(model, MODALITIES)
    for epoch in range(2):
        learned(model, optimizer, batches, fabric.backward)
        log_card(fabric, counted(ablation), "val", epoch)
    path = next(tmp_path.rglob("metrics.csv"))
    assert watched(path)["val/all/f1"] == pytest.approx(counted(ablation).score("f1"))


def test_accelerate(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerate.utils.set_seed(0)
    accelerator.init_trackers("run")
    model = Concat()
    model, optimizer, batches = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.1), loader(Rows(n=40))
    )
    ablation = ModalityAblation(model, MODALITIES)
    for epoch in range(2):
        learned(model, optimizer, batches, accelerator.backward)
        log_card(accelerator, counted(ablation), "val", epoch, figures=epoch == 1)
    accelerator.end_training()
    seen = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    events = seen.Scalars("val/all/f1")
    assert [event.step for event in events] == [0, 1]
    assert events[-1].value == pytest.approx(counted(ablation).score("f1"))
    assert set(seen.Tags()["images"]) == PICTURES


@pytest.mark.parametrize("kind", ["csv", "own"])
def test_a_tracker_of_accelerate_that_we_do_not_know(kind, tmp_path):
    own = SimpleNamespace(rows=[], log=lambda values, step: own.rows.append((step, values)))
    target = type("Accelerator", (), {"__module__": "accelerate.accelerator", "trackers": [own]})()
    log_card(target if kind == "own" else own, CARD, "val", 5)
    assert own.rows[0][0] == 5
    same(own.rows[0][1], expected())
