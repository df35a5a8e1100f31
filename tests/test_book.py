"""The book of samples: the very card comes back from it, whatever the task, in shards, and it is written whole."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.truth import Rows
from mm_metrics.modalities import UNHIDDEN
from mm_metrics.predictions import book as books


class OneProcess:
    """A trainer of one process, or of several that are played one after the other."""

    is_global_zero = True

    def __init__(self, world_size=1):
        self.world_size = world_size


def batches(task, seed=0, N=70):
    random = torch.Generator().manual_seed(seed)
    L = 3 if task == "multilabel" else 1
    for start in range(0, 3 * N, N):
        shape = {"multiclass": (4, N, 3), "binary": (4, N), "multilabel": (4, N, L)}[task]
        target = torch.randint(3 if task == "multiclass" else 2, (N, L) if L > 1 else (N,), generator=random)
        yield {
            "preds": 3 * torch.randn(shape, generator=random),
            "target": target,
            "presence": torch.rand(N, 2, generator=random) < 0.7,
            "index": torch.arange(start, start + N),
            "group": torch.randint(9, (N,), generator=random),
            "counted": torch.rand(4, N, generator=random) < 0.9,
        }


def metric_of(task, **more):
    sizes = {"multiclass": {"num_classes": 3}, "binary": {}, "multilabel": {"num_labels": 3}}[task]
    logits = {} if task == "multiclass" else {"from_logits": True}
    return CoalitionConfusionMatrix(("text", "audio"), task=task, bootstrap=20, **sizes, **logits, **more)


def write(folder, metric, rows, rank=0, group=False, counted=False):
    book = Book(folder, "val", rank, metric, print)
    for row in rows:
        given = {"group": row["group"]} if group else {}
        answered = row["counted"] if counted else None
        labels = metric.count(row["preds"], row["target"], row["presence"], row["index"], **given, counted=answered)
        rows = Rows(row["preds"], row["target"], row["presence"], answered, row["index"], **given)
        book.add(metric.layout.masks, rows, labels)
    return book


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("group", [False, True])
def test_a_book_gives_the_streamed_card_to_the_last_integer(task, group, tmp_path, monkeypatch):
    monkeypatch.setattr(books, "ROWS", 100)
    metric = metric_of(task)
    write(tmp_path, metric, batches(task), group=group, counted=True).finish(OneProcess())
    path = tmp_path / "val.samples.parquet"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert books.score_book(path) == metric.scorecard()
    table = parquet.read_table(path)
    assert {
        "index",
        "group",
        "target",
        "prediction",
        "presence_text",
        "prediction_text",
        "true_probability_none",
    } <= set(table.column_names)
    assert table.num_rows == 210


def test_true_probabilities_are_the_models():
    metric = metric_of("multiclass")
    (row, *_) = batches("multiclass")
    labels = metric.count(row["preds"], row["target"])
    from mm_metrics.counts.measure import true_probability

    expected = row["preds"].softmax(-1)[:, torch.arange(70), row["target"]]
    np.testing.assert_allclose(true_probability(metric.reader, row["preds"], labels), expected, rtol=1e-5)


def test_shards_of_several_ranks_are_one_book(tmp_path):
    whole, parts = metric_of("multiclass"), list(batches("multiclass"))
    for row in parts:
        whole.update(row["preds"], row["target"], row["presence"], row["index"])
    first = write(tmp_path, metric_of("multiclass"), parts[:1], rank=0)
    second = write(tmp_path, metric_of("multiclass"), parts[1:], rank=1)
    follower = OneProcess(2)
    follower.is_global_zero = False
    second.finish(follower)
    first.finish(OneProcess(2))
    assert books.score_book(tmp_path / "val.samples.parquet") == whole.scorecard()


def test_ignored_samples_names_and_the_models_own_answers_come_back(tmp_path):
    names = ["none", "text", "audio", "all", UNHIDDEN]
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), num_classes=3, bootstrap=20, ignore_index=-100, coalitions=names, class_names=("a", "b", "c")
    )
    (row, *_) = batches("multiclass")
    preds = torch.cat([row["preds"], row["preds"][-1:].flip(-1)])
    target = row["target"].clone()
    target[::7] = -100
    labels = metric.count(preds, target, row["presence"], row["index"])
    book = Book(tmp_path, "val", 0, metric, print)
    book.add(metric.layout.masks, Rows(preds, target, row["presence"], numbers=row["index"]), labels)
    book.finish(OneProcess())
    assert books.score_book(tmp_path / "val.samples.parquet") == metric.scorecard()


def test_what_is_no_book_is_refused(tmp_path):
    import pyarrow as pa

    parquet.write_table(pa.table({"target": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no book"):
        books.score_book(tmp_path / "a.parquet")


def test_columns_and_ordinal_numbers_come_back(tmp_path):
    random = torch.Generator().manual_seed(0)
    metric = CoalitionConfusionMatrix(
        ("text", "audio"), task="ordinal", edges="mosi", bootstrap=20, by={"language": ["de", "en"], "channel": 2}
    )
    target, preds = 3 * torch.randn(50, generator=random), 3 * torch.randn(4, 50, generator=random)
    by = {"language": ["de", "en", "sw", "??", "en"] * 10, "channel": torch.arange(50) % 3}
    labels = metric.count(preds, target, index=torch.arange(50), by=by)
    book = Book(tmp_path, "val", 0, metric, print)
    book.add(metric.layout.masks, Rows(preds, target, numbers=torch.arange(50), by=by), labels)
    book.finish(OneProcess())
    card = books.score_book(tmp_path / "val.samples.parquet")
    assert card == metric.scorecard()
    assert card.score("mae", slice="language/other") > 0
