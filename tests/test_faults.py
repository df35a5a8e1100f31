"""Things break: disks, files, loggers, people. Training goes on, and nothing half done is left behind as if whole."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from pyarrow.parquet import ParquetWriter

from mm_metrics import ModalityConfusionMatrix, Scorecard
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.files import write_whole
from mm_metrics.predictions.book import score_book
from tests.distributed.launch import exit_code
from tests.toys import MODALITIES, Rows, loader, seeded, trainer, without_dropout


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20, **keywords)


def test_a_full_disk_costs_one_warning_a_file_and_no_training(tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mm_metrics.files.tempfile.mkstemp", full)
    watcher = monitor()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, watcher, max_epochs=3)
        run.fit(seeded(), loader(), loader())
    said = [str(warning.message) for warning in caught if "No space left" in str(warning.message)]
    assert run.current_epoch == 3
    assert len(watcher.history) == 3
    assert said
    assert len(said) == len(set(said))
    assert all("training goes on" in sentence for sentence in said)


FILES = ("val.json", "history.jsonl", "samples.jsonl", ".val.samples.0.parquet")


@pytest.mark.filterwarnings("ignore:isinstance")
@pytest.mark.parametrize("fails", ["device", "write_table", "close", "replace"])
def test_a_disk_that_fills_up_costs_the_book_and_nothing_else(fails, tmp_path, monkeypatch):
    folder, close, replace = tmp_path / "modality", ParquetWriter.close, os.replace
    folder.mkdir()
    (folder / "val.samples.parquet").write_text("of an earlier epoch")

    def full(one, *others):
        if fails == "close":
            close(one)
        if fails == "replace" and Path(others[0]).suffix != ".parquet":
            return replace(one, *others)
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "device":
        for name in FILES:
            (folder / name).symlink_to("/dev/full")
    elif fails == "replace":
        monkeypatch.setattr("mm_metrics.predictions.book.os.replace", full)
    else:
        monkeypatch.setattr(ParquetWriter, fails, full)
    watcher = monitor(samples="all", report=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, watcher, max_epochs=1 if fails == "device" else 2, num_sanity_val_steps=0)
        run.fit(seeded(), loader(), loader())
    said = [str(warning.message) for warning in caught if "No space left" in str(warning.message)]
    lost = set(FILES[:3]) if fails == "device" else set()
    assert {Path(one.split(" could not")[0]).name for one in said} == lost | {"val.samples.parquet"}
    assert len(said) == len(lost) + 1
    assert len(watcher.history) == run.current_epoch
    assert watcher.scorecards["val"].samples == 70
    assert {path.name for path in folder.iterdir()} == set(FILES[:3])


def test_outputs_that_are_links_stay_links(tmp_path):
    names = ("val.json", "val.samples.parquet")
    (tmp_path / "modality").mkdir()
    for name in names:
        (tmp_path / "modality" / name).symlink_to(f"../other {name}")
    trainer(tmp_path, monitor(samples="all", report=False)).validate(seeded(), loader(), verbose=False)
    assert all((tmp_path / "modality" / name).is_symlink() for name in names)
    assert score_book(tmp_path / f"other {names[1]}") == Scorecard.from_json(tmp_path / f"other {names[0]}")


def test_an_output_folder_that_cannot_be_made(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    run = trainer(tmp_path, monitor(output_dir=str(blocked)), max_epochs=1)
    with pytest.warns(UserWarning, match="could not be written"):
        run.fit(seeded(), loader(), loader())
    assert run.current_epoch == 1


def test_a_logger_whose_pictures_fail_is_said_and_the_page_still_comes(tmp_path):
    class Broken(CSVLogger):
        def log_image(self, *arguments, **keywords):
            raise ConnectionError("the logging service is away")

        log_table = log_image

    run = trainer(tmp_path, monitor(), logger=Broken(tmp_path), max_epochs=1, log_every_n_steps=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(seeded(), loader(), loader())
    assert run.current_epoch == 1
    assert list(tmp_path.rglob("report.html"))
    assert any("logging service is away" in str(warning.message) for warning in caught)


def test_ctrl_c_in_a_validation_leaves_the_module_clean(tmp_path):
    class Impatient(Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            if batch_idx == 2 and not trainer.sanity_checking:
                raise KeyboardInterrupt

    model = seeded()
    run = trainer(tmp_path, monitor(samples="all"), Impatient(), max_epochs=2, num_sanity_val_steps=0)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run.fit(model, loader(), loader())
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # no epoch was whole


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    target = tmp_path / "card.json"
    write_whole(target, "first")
    monkeypatch.setattr("mm_metrics.files.os.replace", lambda *names: (_ for _ in ()).throw(OSError("pulled out")))
    with pytest.raises(OSError, match="pulled out"):
        write_whole(target, "second")
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_checkpoint_holds_plain_python_and_goes_on(tmp_path):
    whole = trainer(tmp_path / "whole", first := monitor(), max_epochs=4, enable_checkpointing=False)
    whole.fit(without_dropout(), loader(), loader())
    half = trainer(tmp_path / "half", monitor(), max_epochs=2)
    half.fit(model := without_dropout(), loader(), loader())
    half.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)  # refuses anything but tensors and plain Python
    assert set(state["state_dict"]) == set(model.state_dict())
    resumed = trainer(tmp_path / "resumed", second := monitor(), max_epochs=4)
    resumed.fit(without_dropout(), loader(), loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert second.history == first.history
    assert second.scorecards["val"] == first.scorecards["val"]


class Killer(Callback):
    def on_validation_batch_end(self, trainer, *arguments, **keywords):
        if trainer.current_epoch == 2 and arguments[3] == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(folder, kill, resume):
    warnings.simplefilter("ignore")
    keeper = ModelCheckpoint(folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False)
    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20)
    run = Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watcher, keeper, *[Killer()] * kill],
    )
    run.fit(without_dropout(), loader(), loader(), ckpt_path=folder / "last.ckpt" if resume else None)


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert exit_code(fit, whole, False, False) == 0
    assert exit_code(fit, killed, True, False) == -signal.SIGKILL
    after_the_kill = Scorecard.from_json(killed / "modality" / "val.json")
    assert after_the_kill.info["epoch"] == 1  # the last whole epoch; nothing of the third
    assert not (killed / "modality" / "report.html").exists()
    assert exit_code(fit, killed, False, True) == 0
    for name in ("history.jsonl", "samples.jsonl"):
        assert (killed / "modality" / name).read_text() == (whole / "modality" / name).read_text()
    cards = [Scorecard.from_json(run / "modality" / "val.json") for run in (whole, killed)]
    assert cards[0] == cards[1]


def test_hostile_names_stay_inside_the_folder_and_stay_text(tmp_path):
    names = ["<script>alert(1)</script>", "../../etc/passwd", "a\x00b\nc"]
    watcher = ModalityMonitor(
        MODALITIES, num_classes=3, class_names=names, bootstrap=20, output_dir=str(tmp_path / "out")
    )
    trainer(tmp_path, watcher, max_epochs=1).fit(seeded(), loader(), loader())
    page = (tmp_path / "out" / "modality" / "report.html").read_text()
    assert "<script" not in page
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} <= {tmp_path / "out" / "modality"}


def test_a_scorecard_cut_anywhere_is_refused_in_one_sentence(tmp_path):
    metric = ModalityConfusionMatrix(("text", "audio"), num_classes=3, bootstrap=10)
    metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    text = metric.scorecard().to_json()
    for cut in range(1, len(text) - 1, 7):
        with pytest.raises(ValueError, match="scorecard"):
            Scorecard.from_json(text[:cut])
    content = json.loads(text)
    for field in content:
        with pytest.raises(ValueError, match="scorecard"):
            Scorecard.from_json(json.dumps({key: value for key, value in content.items() if key != field}))


@pytest.mark.slow
def test_fifty_epochs_without_growth(tmp_path):
    import gc

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    def megabytes() -> float:
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - of_files) * resource.getpagesize() / 2**20

    class Census(Callback):
        def __init__(self):
            self.found, self.resident = [], []

        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch % 10 == 9:
                self.found.append(tensors())
                self.resident.append(megabytes())

    census = Census()
    run = trainer(tmp_path, monitor(), census, max_epochs=50, limit_train_batches=1, limit_val_batches=2)
    run.fit(seeded(), loader(Rows(n=32)), loader(Rows(n=32)))
    assert max(census.found[1:]) - min(census.found[1:]) <= 10, census.found
    # Memory comes and goes in steps; what grows by 20 MB from the tenth epoch to the last grows by 10 between these.
    assert min(census.resident[-2:]) - max(census.resident[:2]) < 10, census.resident
