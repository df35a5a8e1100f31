"""Several monitors in a Trainer, sequences, maps, and rows that are one sample: against the same by hand."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningModule
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, **{"num_classes": 3, "bootstrap": 20, "report": False, **keywords})


class Quiet(Concat):
    def validation_step(self, batch, batch_idx):
        self(batch)


def whole(data):
    return next(iter(loader(data, batch_size=len(data))))


def test_two_monitors_with_names_and_a_target_that_is_a_function(tmp_path):
    first = monitor(name="emotion")
    second = monitor(target=lambda batch: 2 - batch["label"])
    run = trainer(tmp_path, first, second, max_epochs=1)
    run.fit(model := seeded(), loader(), loader(data := Rows(seed=1)))
    given = model.eval()(whole(data)).argmax(-1)
    assert float(run.callback_metrics["emotion/val/all/accuracy"]) == pytest.approx(accuracy_score(data.label, given))
    assert float(run.callback_metrics["val/all/accuracy"]) == pytest.approx(accuracy_score(2 - data.label, given))
    assert (tmp_path / "modality" / "emotion" / "val.json").is_file()
    assert (tmp_path / "modality" / "val.json").is_file()
    run.save_checkpoint(tmp_path / "both.ckpt")
    again = monitor(name="emotion")
    trainer(tmp_path, again, monitor(), max_epochs=2).fit(
        seeded(), loader(), loader(data), ckpt_path=tmp_path / "both.ckpt"
    )
    assert again.history[0] == first.history[0]
    assert len(again.history) == 2


def test_two_without_a_name_are_refused_in_our_words(tmp_path):
    run = trainer(tmp_path, monitor(), monitor())
    with pytest.raises(ValueError, match="name='emotion'"):
        run.validate(seeded(), loader(), verbose=False)
    with pytest.raises(ValueError, match="name='a/b'"):
        monitor(name="a/b")


class Tagger(Quiet):
    """Five answers a sample, from the first three inputs."""

    def forward(self, batch):
        logits = super().forward(batch)
        return torch.stack([logits.roll(i, -1) for i in range(5)], dim=1)  # (N, 5, 3)


class Tagged(Rows):
    def __getitem__(self, i):
        label = torch.tensor([(int(self.label[i]) + shift) % 3 for shift in range(5)])
        label[4] = -100
        return {**super().__getitem__(i), "label": label}


@pytest.mark.parametrize("form", ["sequence", "map"])
def test_positions_count_in_the_samples_that_they_are_of(form, tmp_path):
    class Mapper(Tagger):
        def forward(self, batch):
            return super().forward(batch).transpose(1, 2).reshape(-1, 3, 5, 1)

    class Maps(Tagged):
        def __getitem__(self, i):
            row = super().__getitem__(i)
            return {**row, "label": row["label"].reshape(5, 1)}

    model, data = (seeded(Tagger), Tagged(seed=1)) if form == "sequence" else (seeded(Mapper), Maps(seed=1))
    watcher = monitor(ignore_index=-100)
    trainer(tmp_path, watcher).validate(model, loader(data), verbose=False)
    batch = whole(data)
    with torch.no_grad():
        logits = model.eval()(batch)
    given = logits.argmax(-1) if form == "sequence" else logits.argmax(1)
    kept = batch["label"] != -100
    card = watcher.scorecards["val"]
    assert card.score("accuracy") == pytest.approx(accuracy_score(batch["label"][kept], given[kept]))
    assert card.support() == 280


class Clips(Rows):
    def __getitem__(self, i):
        return {**super().__getitem__(i), "label": self.label[i // 4 * 4], "video": f"v{i // 4}"}


def test_rows_of_a_unit_are_one_sample_whose_logits_are_summed(tmp_path):
    watcher, model, data = monitor(unit="video", presence="presence"), seeded(Quiet), Clips(n=72, missing=0.3, seed=2)
    trainer(tmp_path, watcher).validate(model, loader(data, batch_size=7), verbose=False)
    batch = whole(data)
    with torch.no_grad():
        summed = model.eval()(batch).reshape(18, 4, 3).sum(1)
    card, target = watcher.scorecards["val"], batch["label"][::4]
    assert (card.samples, card.support()) == (18, 18)
    assert card.score("accuracy") == pytest.approx(accuracy_score(target, summed.argmax(-1)))
    assert card.support("audio") == int(data.presence[:, 2].reshape(18, 4).any(1).sum())
    other = monitor(unit="video", presence="presence")
    trainer(tmp_path, other).validate(model, loader(data, batch_size=72), verbose=False)
    assert other.scorecards["val"] == card


def test_rows_of_a_unit_with_two_targets_are_refused(tmp_path):
    class Torn(Clips):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "label": torch.tensor(i % 3)}

    with pytest.raises(ValueError, match="rows of different targets"):
        trainer(tmp_path, monitor(unit="video")).validate(seeded(Quiet), loader(Torn()), verbose=False)


def test_a_monitor_is_pickled_at_any_time_and_starts_clean_in_another_trainer(tmp_path):
    class Pickles(Quiet):
        def validation_step(self, batch, batch_idx):
            self(batch)
            copies.append(pickle.loads(pickle.dumps(watcher)))

    copies, watcher = [], monitor()
    run = trainer(tmp_path, watcher, max_epochs=1, num_sanity_val_steps=0)
    run.fit(model := seeded(Pickles), loader(), loader())
    run.test(model, loader(), verbose=False)
    assert len(copies) == 5
    assert set(watcher.scorecards) == {"val", "test"}
    trainer(tmp_path, watcher).validate(seeded(), loader(), verbose=False)
    assert set(watcher.scorecards) == set(watcher.verdicts) == {"val"}
    assert watcher.history == []


def test_a_card_names_the_checkpoint_that_was_tested(tmp_path):
    run = trainer(tmp_path, watcher := monitor(report=True), max_epochs=1)
    run.fit(model := seeded(), loader(), loader())
    run.save_checkpoint(tmp_path / "some.ckpt")
    trainer(tmp_path / "later", watcher).test(model, loader(), ckpt_path=tmp_path / "some.ckpt", verbose=False)
    assert watcher.scorecards["test"].info["checkpoint"].endswith("some.ckpt")
    assert (tmp_path / "later" / "modality" / "report.html").exists()
    assert not (tmp_path / "later" / "modality" / "history.jsonl").exists()


def test_without_a_report_the_end_of_a_run_prints_and_draws_nothing(tmp_path, capsys):
    trainer(tmp_path, monitor()).validate(seeded(), loader(), verbose=False)
    assert "report.html" not in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "modality").iterdir()} == {"val.json", "samples.jsonl"}


def test_few_bytes_keep_less_and_say_so(tmp_path):
    with pytest.warns(UserWarning, match="max_bytes=30000: "):
        trainer(tmp_path, monitor(max_bytes=30_000, bootstrap=200)).validate(seeded(), loader(), verbose=False)


def test_runs_of_a_logger_without_folders_have_one_each(tmp_path):
    from lightning.pytorch.loggers.logger import Logger

    class Remote(Logger):
        def __init__(self, version):
            super().__init__()
            self._version = version

        name, save_dir = "project", str(tmp_path)
        version = property(lambda self: self._version)

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, *args, **kwargs):
            pass

    for version in ("a1", 2):
        trainer(tmp_path, monitor(), logger=Remote(version)).validate(seeded(), loader(), verbose=False)
    assert (tmp_path / "project" / "a1" / "modality" / "val.json").is_file()
    assert (tmp_path / "project" / "version_2" / "modality" / "val.json").is_file()


def test_two_processes_of_one_folder_are_said(tmp_path):
    folder = tmp_path / "modality"
    folder.mkdir()
    holds = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holds, str(folder)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            with pytest.warns(UserWarning, match="another process writes to"):
                trainer(tmp_path, monitor()).validate(seeded(), loader(), verbose=False)
        finally:
            other.kill()


def test_groups_columns_scores_and_headline(tmp_path):
    class Spoken(Rows):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "speaker": f"s{i // 5}", "language": ("de", "en", "fr")[i % 3]}

    watcher = monitor(
        group="speaker",
        by={"language": ["de", "en"]},
        scores=("accuracy", "auroc", "f1_weighted"),
        headline="auroc",
        log_intervals=True,
    )
    data, model = Spoken(seed=1), seeded(Quiet)
    run = trainer(tmp_path, watcher)
    run.validate(model, loader(data), verbose=False)
    card, logged = watcher.scorecards["val"], {key: float(value) for key, value in run.callback_metrics.items()}
    with torch.no_grad():
        logits = model.eval()(whole(data))
    german = torch.arange(70) % 3 == 0
    chance = torch.softmax(logits.double(), -1)
    assert card.groups() == 14
    assert logged["val/language/de/accuracy"] == pytest.approx(
        accuracy_score(data.label[german], logits.argmax(-1)[german])
    )
    assert logged["val/language/other/support"] == 23
    expected = roc_auc_score(data.label, chance, multi_class="ovr", average="macro")
    assert logged["val/all/auroc"] == pytest.approx(expected, abs=0.02)
    assert "val/all/f1_weighted" in logged
    assert {"val/drop/text/auroc", "val/shapley/audio/auroc", "val/ablation/none/auroc"} <= set(logged)
    assert not [key for key in logged if key.startswith(("val/drop/text/f1", "val/all/recall"))]
    assert logged["val/class/0/recall/low"] <= logged["val/class/0/recall"]
    assert "unused_group" not in card.info
    plain = monitor()
    trainer(tmp_path, plain).validate(model, loader(data), verbose=False)
    assert plain.scorecards["val"].info["unused_group"] == "speaker"
    with pytest.raises(ValueError, match="scores has 'best', which is not known: one of accuracy"):
        monitor(scores=("accuracy", "best"))


def test_an_ordinal_task(tmp_path):
    class Scale(Rows):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "label": self.label[i].float() - 1}

    class Regresses(Quiet):
        def forward(self, batch):
            return super().forward(batch)[:, 0]

        def training_step(self, batch, batch_idx):
            return (self(batch) - batch["label"]).square().mean()

    watcher = monitor(task="ordinal", num_classes=None, edges=(-0.5, 0.5))
    run = trainer(tmp_path, watcher, max_epochs=1)
    data = Scale(seed=1)
    run.fit(model := seeded(Regresses), loader(Scale()), loader(data))
    with torch.no_grad():
        given = model.eval()(whole(data))
    error = float((given - (data.label - 1)).abs().mean())
    assert float(run.callback_metrics["val/all/mae"]) == pytest.approx(error, abs=1e-4)
    assert "val/all/ccc" in run.callback_metrics


def test_the_book_of_all_samples_gives_the_card_again(tmp_path):
    from mm_metrics.predictions.book import score_book

    watcher, data = monitor(samples="all", presence="presence"), Rows(missing=0.3, seed=1)
    trainer(tmp_path, watcher).validate(seeded(Quiet), loader(data), verbose=False)
    book, card = score_book(tmp_path / "modality" / "val.samples.parquet"), watcher.scorecards["val"]
    assert torch.equal(book.counts, card.counts)


def test_a_modality_that_a_batch_lacks_is_not_present(tmp_path):
    batches = list(loader(Rows(seed=1)))
    for batch in batches[:2]:
        del batch["audio"]

    class Lacks(Quiet):
        def forward(self, batch):
            return super().forward({"audio": torch.zeros_like(batch["text"]), **batch})

    watcher = monitor()
    loaders = torch.utils.data.DataLoader(batches[::-1], batch_size=None)
    trainer(tmp_path, watcher).validate(seeded(Lacks), loaders, verbose=False)
    card = watcher.scorecards["val"]
    assert (card.support(), card.support("audio"), card.info.get("refused")) == (70, 38, None)


class Words(LightningModule):
    """Reads a list of words and a picture, nested in the batch."""

    def __init__(self):
        super().__init__()
        self.image, self.out = nn.Linear(4, 8), nn.Linear(9, 2)

    def forward(self, batch):
        said = torch.tensor([[float(word == "yes")] for word in batch["inputs"]["text"]])
        return self.out(torch.cat([said, self.image(batch["inputs"]["image"])], dim=1))

    def validation_step(self, batch, batch_idx):
        self(batch)


def test_lists_of_words_by_a_path_in_a_trainer_are_hidden_by_no_word(tmp_path):
    random = torch.Generator().manual_seed(0)
    batches = [
        {
            "inputs": {"text": ["yes", "no", "yes", "so"], "image": torch.randn(4, 4, generator=random)},
            "label": torch.tensor([1, 0, 1, 0]),
        }
        for _ in range(3)
    ]
    model = seeded(Words)
    watcher = ModalityMonitor({"text": "inputs.text", "image": "inputs.image"}, num_classes=2, bootstrap=0)
    trainer(tmp_path, watcher).validate(model, DataLoader(batches, batch_size=None), verbose=False)
    hidden = [{"inputs": {**batch["inputs"], "text": [""] * 4}} for batch in batches]
    right = torch.cat([model(batch).argmax(-1) for batch in hidden]) == torch.tensor([1, 0, 1, 0] * 3)
    assert watcher.scorecards["val"].score("accuracy", coalition="image") == pytest.approx(float(right.float().mean()))
