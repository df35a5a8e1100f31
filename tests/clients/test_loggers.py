"""Pictures in each logger's own files, read back by that logger's own reader."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger

from mm_metrics.render import loggers
from tests.render_cards import card

pytestmark = pytest.mark.slow
NAMES = ("confusions", "coalitions", "contributions")


def looks_drawn(png: bytes) -> bool:
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    return min(image.size) > 100 and len(image.getcolors(maxcolors=1 << 24)) > 20


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    loggers.send([logger], card(), "val", 7, tmp_path)
    logger.experiment.close()
    seen = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert set(seen.Tags()["images"]) == {f"val/modality/{name}" for name in NAMES}
    event = seen.Images("val/modality/coalitions")[0]
    assert event.step == 7
    assert looks_drawn(event.encoded_image_string)


def shown() -> list[dict]:
    """The samples of a finding: words, a picture and a sound, one of them without."""
    tone = (np.sin(np.arange(16_000) / 9), 16_000)
    content = {"text": "a <b>siren</b>", "image": np.full((20, 30, 3), 200, np.uint8), "audio": tone}
    row = {"number": 7, "target": "siren", "prediction": "rain", "coalitions": {"audio": "siren"}, "content": content}
    return [{"message": "events missed", "of": 30, "rows": [row, row | {"number": 8}, row | {"content": None}]}]


def test_samples_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    loggers.send_samples([logger, object()], shown(), "val", 7)
    logger.experiment.close()
    seen = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "audio": 0}).Reload()
    tags = seen.Tags()
    assert set(tags["images"]) == {"val/modality/samples/events_missed/image"}
    assert set(tags["audio"]) == {"val/modality/samples/events_missed/audio"}
    image = seen.Images(tags["images"][0])[0]
    assert (image.height, image.width) == (20, 2 * (30 + 4))
    assert seen.Audio(tags["audio"][0])[0].length_frames == 2 * (16_000 + 4_000)
    told = str(seen.Tensors("val/modality/samples/events_missed/answers/text_summary"))
    assert "7 was siren, said rain" in told
    assert "8 was siren" in told


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # mlflow's own
def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3 asks for consent to its file store
    logger = MLFlowLogger("experiment", tracking_uri=f"file:{tmp_path / 'runs'}")
    loggers.send([logger], card(), "val", 7, tmp_path)
    files = {path.name: path for path in (tmp_path / "runs").rglob("modality/val/*")}
    assert set(files) == {*(f"{name}_0000007.png" for name in NAMES), "scores_0000007.json"}
    assert all(looks_drawn(path.read_bytes()) for name, path in files.items() if name.endswith("png"))
    table = json.loads(files["scores_0000007.json"].read_text())
    row = dict(zip(table["columns"], table["data"][3], strict=True))
    assert row["slice"] == "audio"
    assert row["recall"] == pytest.approx(card().score("recall", slice="audio"))


@pytest.fixture
def wandb_logger(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "offline")  # whatever another test has told wandb before
    return lambda: WandbLogger(save_dir=tmp_path, offline=True)


@pytest.mark.filterwarnings("ignore")  # wandb starts a service and warns of what it finds
@pytest.mark.parametrize("beside", [[], [CSVLogger]])
def test_every_run_of_wandb_has_a_folder_of_its_own(beside, tmp_path, wandb_logger):
    from mm_metrics.callbacks import ModalityMonitor
    from tests.toys import MODALITIES, loader, seeded, trainer

    for _ in range(2):
        first = wandb_logger()
        watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, ablation=None, report=False)
        run = trainer(tmp_path, watcher, logger=[first, *(one(tmp_path) for one in beside)])
        run.validate(seeded(), loader(), verbose=False)
        first.experiment.finish()
        assert len(list(tmp_path.rglob(f"{first.version}/modality/val.json"))) == 1
    assert len(list(tmp_path.rglob("val.json"))) == 2


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, wandb_logger):
    logger = wandb_logger()
    loggers.send([logger], card(), "val", 7, tmp_path)
    loggers.send_samples([logger], shown(), "val", 7)
    logger.experiment.finish()
    files = [path for path in tmp_path.rglob("media/**/*") if path.is_file()]
    pictures = [path for path in files if path.suffix == ".png"]
    charts = {name: [path for path in pictures if name in path.name] for name in NAMES}
    assert all(looks_drawn(path.read_bytes()) for name in NAMES for path in charts[name])
    assert all(charts.values())
    told = {
        path.name.split("_")[0]: json.loads(path.read_text()) for path in files if path.name.endswith(".table.json")
    }
    assert [row[0] for row in told["scores"]["data"]] == list(card().slices)
    columns, rows = told["samples"]["columns"], told["samples"]["data"]
    assert columns == ["finding", "sample", "target", "prediction", "shown audio", "text", "image", "audio"]
    assert [row[1:] for row in rows] == [
        [n, "siren", "rain", "siren", "a <b>siren</b>", "Image", "Audio"] for n in "78"
    ]
    staged = [path.read_bytes()[:4] for path in (tmp_path / "data").rglob("staging/*")]  # a table's media
    assert b"RIFF" in staged
    assert b"\x89PNG" in staged


def test_the_few_keys_bring_their_bounds(tmp_path):
    from mm_metrics.callbacks import ModalityMonitor
    from tests.toys import MODALITIES, loader, seeded, trainer

    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, log_intervals=True)
    trainer(tmp_path, watcher, logger=CSVLogger(tmp_path)).validate(seeded(), [loader(), loader()], verbose=False)
    with open(next(tmp_path.rglob("metrics.csv")), newline="") as file:
        columns = set(next(csv.reader(file)))
    for key in ("all/f1", "audio/recall", "drop/text/f1"):
        for suffix in ("", "/dataloader_idx_1"):
            assert {f"val/{key}{end}{suffix}" for end in ("", "/low", "/high")} <= columns
    assert not [column for column in columns if "shapley" in column or "ablation" in column]
