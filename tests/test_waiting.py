"""Batches that wait are counted as those that do not: one card, to the last integer, whatever is wrong with some."""

from __future__ import annotations

import warnings

import pytest
import torch
from pyarrow.parquet import read_table
from torch import nn

from mm_metrics.callbacks import ModalityMonitor, waiting
from tests.pretend import pretending, to_device
from tests.toys import MODALITIES, Concat, trainer

N, C = 9, 3


class Batches(nn.Module):
    """Batches of 1 to 9 samples, made anew each time; `spoil` changes some of them."""

    def __init__(self, spoil, n: int = 20) -> None:
        super().__init__()
        self.spoil, self.n = spoil, n

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for i in range(self.n):
            size = 1 + i % N
            batch = {name: torch.randn(size, 8, generator=generator) for name in MODALITIES}
            batch |= {
                "label": torch.randint(C, (size,), generator=generator),
                "presence": torch.rand(size, 3, generator=generator) < 0.8,
                "speaker": [f"s{int(k)}" for k in torch.randint(4, (size,), generator=generator)],
                "language": torch.randint(2, (size,), generator=generator),
            }
            self.spoil(i, batch)
            yield batch


class Model(Concat):
    """Answers NaN where text is, as the toy does where a batch is spoilt."""

    def validation_step(self, batch, batch_idx):
        self(batch)


class Overwritten(Model):
    """Answers into one buffer, and overwrites the batch after its step, as static graphs and own loaders do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("answer", torch.zeros(N, C), persistent=False)

    def forward(self, batch):
        logits = super().forward(batch)
        return self.answer[: len(logits)].copy_(logits)

    def on_validation_batch_end(self, outputs, batch, batch_idx, dataloader_idx=0):
        self.last = getattr(self, "batch", None)
        if self.last is not None:
            for entry in self.last.values():
                entry.reverse() if isinstance(entry, list) else entry.zero_()
        self.batch = batch


class Sequences(Model):
    """Three positions a sample."""

    def forward(self, batch):
        return super().forward(batch).unsqueeze(1) + torch.arange(3.0)[:, None] * batch["text"][:, None, :C]


def nan(i, batch):
    if i % 7 == 3:
        batch["text"][0] = torch.nan


def labels(i, batch):
    nan(i, batch)
    if i % 5 == 4:
        batch["label"][-1] = 7


def lengths(i, batch):
    """Too many speakers in one batch and as many too few in the next would fit each other."""
    if i % 10 == 4:
        batch["speaker"] = batch["speaker"] + ["s9"]
    if i % 10 == 5:
        batch["speaker"] = batch["speaker"][1:]


def forms(i, batch):
    if i % 4 == 3:
        batch["language"] = batch["language"].tolist()
    if i % 8 == 7:
        batch["label"] = batch["label"].to(torch.int32)


def longer(i, batch):
    batch["label"] = batch["label"].unsqueeze(1).repeat(1, 3)


CASES = {
    "answers that are NaN": (Model, nan, {}),
    "labels out of range": (Model, labels, {"scores": ("auroc",)}),
    "lists of another length": (Model, lengths, {"group": "speaker"}),
    "forms that differ": (Model, forms, {"group": "speaker", "by": {"language": 2}}),
    "buffers used again": (Overwritten, lambda i, batch: None, {"group": "speaker", "by": {"language": 2}}),
    "buffers used again, and no ablation": (Overwritten, lambda i, batch: None, {"max_batches": 3}),
    "several positions": (Sequences, longer, {"group": "speaker"}),
    "the first batches alone": (Model, nan, {"max_batches": 11}),
    "slices by cut points": (Model, nan, {"by": {"audio.loudness": "auto", "language": 2}}),
}


def seen(folder, model, spoil, keywords, device=lambda thing: thing):
    """The card's counts, its notes, what was said, and the samples behind findings."""
    watcher = ModalityMonitor(
        MODALITIES, C, **{"presence": "presence", "bootstrap": 20, "report": False, "output_dir": folder, **keywords}
    )
    torch.manual_seed(0)
    run, net = trainer(folder, watcher), device(model().eval())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(net, Batches(lambda i, batch: spoil(i, batch)), verbose=False)
    said = sorted(str(warning.message) for warning in caught)
    samples = next(iter(folder.rglob("samples.jsonl"))).read_text()
    return watcher.scorecards["val"], said, samples


def together(monkeypatch, *arguments, sizes=(0, 64), **keywords):
    """What is seen where each batch is counted by itself, and where many wait."""
    folder, *rest = arguments
    found = []
    for rows in sizes:
        monkeypatch.setattr(waiting, "ROWS", rows)
        made = folder / f"run{rows}"
        made.mkdir()
        card, said, samples = seen(made, *rest, **keywords)
        book = next(iter(made.rglob("*.samples.parquet")), None)
        rows_of_book = None if book is None else read_table(book).to_pylist()
        found.append((card, [text.replace(made.name, "run") for text in said], samples, str(rows_of_book)))
    return found


@pytest.mark.parametrize("case", CASES)
def test_waiting_changes_nothing(case, tmp_path, monkeypatch):
    model, spoil, keywords = CASES[case]
    keywords = {**keywords, "samples": "all"}
    (alone, *beside), (waited, *after) = together(monkeypatch, tmp_path, model, spoil, keywords)
    assert torch.equal(alone.counts, waited.counts)
    assert alone.info.get("refused") == waited.info.get("refused")
    assert beside == after
    assert alone.samples > 50


def test_waiting_changes_nothing_on_an_accelerator(tmp_path, monkeypatch):
    def spoil(i, batch):
        labels(i, batch)
        batch.update({name: to_device(entry) for name, entry in batch.items() if isinstance(entry, torch.Tensor)})

    with pretending():
        (alone, *beside), (waited, *after) = together(monkeypatch, tmp_path, Model, spoil, {}, device=to_device)
    assert torch.equal(alone.counts, waited.counts)
    assert alone.info["refused"] == waited.info["refused"] > 0
    assert beside == after


def test_small_batches_are_counted_as_one(tmp_path, monkeypatch):
    from mm_metrics.metrics import CoalitionConfusionMatrix

    counted = []
    count = CoalitionConfusionMatrix.count
    monkeypatch.setattr(
        CoalitionConfusionMatrix,
        "count",
        lambda self, preds, *rest, **kw: counted.append(preds.shape[1]) or count(self, preds, *rest, **kw),
    )
    seen(tmp_path, Model, lambda i, batch: None, {})
    assert counted == [1, sum(1 + i % N for i in range(1, 20))]
    counted.clear()
    seen(tmp_path / "raise", Model, lambda i, batch: None, {"on_bad_values": "raise"})
    assert len(counted) == 20
