"""`show=`: the page shows the worst samples of each finding, whatever they hold and wherever they come from."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from mm_metrics import CoalitionConfusionMatrix, ModalityAblation
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.callbacks.contents import Contents
from mm_metrics.callbacks.samples import SampleTracker
from mm_metrics.callbacks.truth import Rows
from mm_metrics.render import page
from mm_metrics.render.samples import Sound
from tests.toys import trainer

KEYS = {"text": "words", "image": "pixels", "audio": "wave"}
HOSTILE = "<script>alert(1)</script>"


class Media(Dataset):
    """Words, a picture and a second of sound each; the class is told by the picture's mean alone."""

    def __init__(self, n: int = 60, classes: int = 3, **odd: object) -> None:
        generator = torch.Generator().manual_seed(n)
        self.label = torch.randint(classes, (n,), generator=generator)
        self.pixels = torch.rand(n, 3, 12, 10, generator=generator) / 2 + self.label.reshape(-1, 1, 1, 1) / 6
        self.wave = torch.sin(torch.arange(1600) / 8).repeat(n, 1) * torch.rand(n, 1, generator=generator)
        self.odd = odd

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict:
        row = {"words": f"{HOSTILE} {i}", "pixels": self.pixels[i], "wave": self.wave[i], "label": self.label[i]}
        return row | {key: value(i) if callable(value) else value for key, value in self.odd.items()}


class Watching(LightningModule):
    """Answers by the picture, the sound, and how long the words are."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes, bias=False)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, batch: dict) -> Tensor:
        wave = batch["wave"].float().nan_to_num().flatten(1).abs().mean(1)
        pixels = batch["pixels"].float().nan_to_num(0.0, 1.0, 0.0).flatten(1).mean(1)
        words = torch.tensor([sum(map(ord, word)) % 5 / 4 for word in batch["words"]])
        return self.head(torch.stack([pixels, 2 * wave, words], dim=1) * 6 - 2)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self(batch)


def run(
    tmp_path, data=None, keys=KEYS, loader=None, model=None, stage="validate", **keywords
) -> tuple[ModalityMonitor, str]:
    arguments = {"num_classes": 3, "baseline": {"text": ""}, "report": False, "bootstrap": 10, **keywords}
    watcher = ModalityMonitor(keys, output_dir=str(tmp_path), **arguments)
    loader = DataLoader(data or Media(), batch_size=16) if loader is None else loader
    trainer(tmp_path, watcher).validate(model or Watching(), loader, verbose=False)
    report = tmp_path / "modality" / "report.html"
    if not arguments["report"]:
        page.write(report, watcher.scorecards, shown=watcher.run.shown)
    return watcher, report.read_text()


def shown(watcher: ModalityMonitor) -> dict:
    return {(one["kind"], one["class"] or one["modality"]): one for one in watcher.run.shown}


def test_the_page_shows_the_worst_by_themselves(tmp_path):
    _, html = run(tmp_path, show="auto", report=True)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.count('<img src="data:image/png') >= 10
    assert html.count("<audio controls") >= 10
    assert re.search(r"10 of \d+ shown", html)
    assert len(html) < 5_000_000


def test_without_show_numbers_and_answers_alone(tmp_path):
    watcher, html = run(tmp_path, report=True)
    assert "alert(1)" not in html
    assert "<img" not in html
    for one in watcher.run.shown:
        assert all(row["content"] is None for row in one["rows"])
    assert "The samples behind it" in html


def test_the_worst_are_the_most_confident_and_wrong(tmp_path):
    data, model = Media(n=130), Watching()
    watcher, _ = run(tmp_path, data=data, model=model)
    batch = next(iter(DataLoader(data, batch_size=130)))
    logits = ModalityAblation(model, KEYS, baseline={"text": ""}, encoders=None)(batch)
    sure, said = logits.softmax(-1).max(-1)
    sure = sure.round(decimals=4)
    right = said == batch["label"]
    wanted = {("missed", "all"): (~right[7], sure[7])}
    for m, name in enumerate(KEYS):
        without = 7 ^ 1 << m
        wanted["missed", name] = wanted["missed", "all"]
        wanted["right_only_with", name] = (right[7] & ~right[without], sure[without])
        wanted["right_only_without", name] = (right[without] & ~right[7], sure[7])
    for c in range(3):
        wanted["missed_class", str(c)] = (~right[7] & (batch["label"] == c), sure[7])
        wanted["taken_for", str(c)] = (~right[7] & (said[7] == c), sure[7])
    found = shown(watcher)
    card, of_classes = watcher.scorecards["val"], set()
    for f in watcher.verdicts["val"].findings:
        if f.class_name:
            precision, recall = (card.class_scores(score)[f.class_name] for score in ("precision", "recall"))
            of_classes.add((f.score == "precision" or (f.score != "recall" and precision < recall), f.class_name))
    assert (
        {(kind == "taken_for", c) for kind, c in found if kind in ("missed_class", "taken_for")} == of_classes != set()
    )
    assert ("missed", "all") in found
    assert len(found) >= 4
    for kind, one in found.items():
        flags, surest = wanted[kind]
        numbers = sorted(flags.nonzero().flatten().tolist(), key=lambda n: (-surest[n].item(), n))
        assert one["of"] == len(numbers)
        assert [row["number"] for row in one["rows"]] == numbers[:10]
        for row in one["rows"]:
            n = row["number"]
            assert (row["target"], row["prediction"]) == (str(data.label[n].item()), str(said[7, n].item()))
            names = ["none", "text", "image", "text-image", "audio", "text-audio", "image-audio"]
            assert row["coalitions"] == {name: str(said[k, n].item()) for k, name in enumerate(names)}


def contents(watcher: ModalityMonitor) -> list[dict]:
    return [row["content"] or {} for one in watcher.run.shown for row in one["rows"]]


def test_functions_get_one_samples_entry(tmp_path):
    data, seen = Media(), []

    def words(entry: str) -> str:
        seen.append(entry)
        return entry.upper()

    watcher, html = run(
        tmp_path,
        data,
        show={"text": words, "image": lambda x: x.movedim(0, 2), "audio": lambda x: (x, torch.tensor(800))},
    )
    assert all(isinstance(entry, str) for entry in seen)
    assert "&lt;SCRIPT&gt;ALERT(1)" in html
    for one in watcher.run.shown:
        for row in one["rows"]:
            n, content = row["number"], row["content"]
            assert content["text"].endswith(f" {n}")
            assert np.array_equal(content["image"], (255 * data.pixels[n].movedim(0, 2).numpy()).astype(np.uint8))
            assert content["audio"].rate == 800
            assert content["audio"].seconds == 2
            assert abs(content["audio"].first - 32767 * data.wave[n, :800].numpy()).max() < 2


@pytest.mark.parametrize(
    ("odd", "kinds"),
    [
        ({"wave": torch.full((1600,), torch.nan)}, {"audio": Sound}),
        ({"wave": torch.full((1, 1600), 3.0)}, {"audio": Sound}),
        ({"wave": torch.randint(-9000, 9000, (1600,), dtype=torch.int16)}, {"audio": Sound}),
        ({"wave": torch.randn(2, 1600).bfloat16()}, {"audio": None}),
        ({"wave": torch.zeros(7)}, {"audio": None}),
        ({"pixels": torch.randn(3, 9, 9) * 40}, {"image": np.ndarray}),
        ({"pixels": torch.randint(255, (9, 9, 3), dtype=torch.uint8)}, {"image": np.ndarray}),
        ({"pixels": torch.full((1, 9, 9), torch.inf).half()}, {"image": np.ndarray}),
        ({"pixels": torch.rand(4, 3, 9, 9)}, {"image": None}),
        ({"words": ""}, {"text": str}),
        ({"words": "\x00\x1b[31m‮" + HOSTILE * 999}, {"text": str}),
    ],
    ids=range(11),
)
@pytest.mark.filterwarnings("ignore:.* holds integers")
def test_odd_entries_are_shown_or_left_out(tmp_path, odd, kinds):
    watcher, html = run(tmp_path, Media(n=20, **odd), show="auto")
    assert "<script" not in html
    assert "\x1b" not in html
    found = contents(watcher)
    assert found
    for content in found:
        for modality, kind in kinds.items():
            assert isinstance(content[modality], kind) if kind else modality not in content


def test_functions_that_fail_are_said_and_end_nothing(tmp_path):
    show = {"text": lambda x: x.missing, "image": lambda x: np.zeros((2, 3, 4, 5)), "audio": lambda x: None}
    with pytest.warns(UserWarning, match=r"show\['text'\] raised AttributeError"):
        watcher, html = run(tmp_path, show=show)
    assert {tuple(content) for content in contents(watcher)} == {("text", "image")}
    assert "ndarray is not shown" in html


@pytest.mark.parametrize("show", ["all", {"text": 3}, [len], {"speech": str}])
def test_a_show_that_is_none_is_refused(show):
    with pytest.raises((TypeError, ValueError), match="show"):
        ModalityMonitor(KEYS, num_classes=3, show=show)


class Endless(IterableDataset):
    """The rows without a length."""

    def __iter__(self):
        data = Media()
        return (data[i] for i in range(len(data)))


@pytest.mark.filterwarnings("ignore:.*shuffl", "ignore:.* holds integers")
@pytest.mark.parametrize("how", ["shuffled", "iterable", "workers", "several keys", "absent", "popped", "nested"])
def test_contents_are_the_samples_own_wherever_they_come_from(tmp_path, how):
    data, keys, model = Media(), dict(KEYS), Watching()
    loader = DataLoader(
        Endless() if how == "iterable" else data, 16, shuffle=how == "shuffled", num_workers=how == "workers"
    )
    show = {"text": str, "image": lambda entry: entry, "audio": lambda entry: (entry, 800)}
    if how == "several keys":
        keys["image"] = ("pixels", "label")
        show["image"] = lambda entry: entry[0]
    if how == "absent":
        data = Media(wave=None)
        loader = DataLoader(
            data,
            16,
            collate_fn=lambda rows: default_collate([{k: v for k, v in row.items() if k != "wave"} for row in rows]),
        )
        model.forward = lambda batch: Watching.forward(model, {**batch, "wave": torch.zeros(len(batch["label"]), 2)})
    if how == "popped":
        model.validation_step = lambda batch, batch_idx: batch.clear()
    if how == "nested":
        keys = {name: f"inputs.{key}" for name, key in KEYS.items()}
        loader = DataLoader(
            data, 16, collate_fn=lambda rows: {"inputs": (batch := default_collate(rows)), "label": batch["label"]}
        )
        model.forward = lambda batch: Watching.forward(model, batch["inputs"])
    watcher, _ = run(tmp_path, data, keys, loader, model, show=show)
    found = contents(watcher)
    assert found
    for content in found:
        n = int(content["text"].split()[-1])  # the shuffled sample's own number
        assert np.array_equal(content["image"], (255 * data.pixels[n].movedim(0, 2).numpy()).astype(np.uint8))
        if how == "absent":
            assert "audio" not in content
        else:
            assert abs(content["audio"].first - 32767 * data.wave[n, :800].numpy()).max() < 2


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("mm_metrics.callbacks.contents.MOST_HELD", 20_000)
    _, html = run(tmp_path, Media(n=100), show="auto")
    assert "too large to be kept" in html
    held = []
    monkeypatch.setattr("mm_metrics.callbacks.contents.MOST_HELD", 2**27)
    taken = Contents.settle
    monkeypatch.setattr(Contents, "settle", lambda self: (taken(self), held.append((len(self.kept), self.held))))
    run(tmp_path, Media(n=400), show="auto")
    assert max(n for n, _ in held) <= 100
    assert max(size for _, size in held) <= 100 * 9_000


@pytest.mark.filterwarnings("ignore:.*ckpt_path")
def test_two_monitors_and_a_resumed_run(tmp_path):
    first = ModalityMonitor(KEYS, num_classes=3, name="one", show="auto", baseline={"text": ""}, bootstrap=10)
    second = ModalityMonitor(KEYS, num_classes=3, name="two", baseline={"text": ""}, bootstrap=10)
    loader = DataLoader(Media(), batch_size=16)
    model = Trained()
    run_ = trainer(tmp_path, first, second, max_epochs=1)
    run_.fit(model, loader, loader)
    run_.save_checkpoint(tmp_path / "last.ckpt")
    folder = tmp_path / "modality"
    assert "<img" in (folder / "one" / "report.html").read_text()
    assert "<img" not in (folder / "two" / "report.html").read_text()
    again = copy.deepcopy(first)
    trainer(tmp_path / "b", again, max_epochs=2).fit(model, loader, loader, ckpt_path=tmp_path / "last.ckpt")
    assert "<img" in (tmp_path / "b" / "modality" / "one" / "report.html").read_text()


class Trained(Watching):
    """With what a fit needs."""

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch), batch["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def tracked(task: str, order: Tensor, together: int, each: int = 1) -> list[dict]:
    """What is kept of 300 samples that come in an order, so many together."""
    generator = torch.Generator().manual_seed(4)
    arguments = {"num_labels": 3} if task == "multilabel" else {} if task == "binary" else {"num_classes": 3}
    metric = CoalitionConfusionMatrix(("text", "audio"), task=task, from_logits=True, by={"where": 2}, **arguments)
    shape = (4, 300 * each, *([] if task == "binary" else [3]))
    preds = (2 * torch.randn(shape, generator=generator)).round(decimals=1)  # many are equally sure
    target = torch.randint(
        2 if task != "multiclass" else 3, shape[1:] if task == "multilabel" else shape[1:2], generator=generator
    )
    where, slices = torch.arange(300) % 3, torch.rand(300, 2, generator=generator) < 0.7
    tracker = SampleTracker(metric)
    for numbers in order.split(together):
        at = (numbers[:, None] * each + torch.arange(each)).flatten()
        every = numbers.repeat_interleave(each)
        rows = Rows(preds[:, at], target[at], slices[every], None, every, None, {"where": where[every]}, each, every)
        tracker.update(metric.reader.read(rows.preds, rows.target), (0, 1, 2, 3), 3, rows)
    return tracker.gathered(("a", "b", "c"), 3, lambda *kind: True)


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "binary"])
def test_neither_order_nor_how_many_are_looked_at_together_changes_what_is_kept(task, each):
    if task != "multiclass" and each > 1:
        return
    generator = torch.Generator().manual_seed(0)
    whole = tracked(task, torch.arange(300), 300, each)
    assert len(whole) > 5
    for together in (1, 23, 100):
        assert tracked(task, torch.randperm(300, generator=generator), together, each) == whole
    by_value = {one["modality"]: one["of"] for one in whole if one["kind"] == "missed"}
    assert by_value["all"] == sum(by_value[f"where/{value}"] for value in ("0", "1", "other"))
    if task == "binary":  # every answer is right, a miss or a false alarm
        generator = torch.Generator().manual_seed(4)
        preds = (2 * torch.randn(4, 300, generator=generator)).round(decimals=1)
        wrong = (preds[3] > 0).long() != torch.randint(2, (300,), generator=generator)
        alarms = {one["modality"]: one["of"] for one in whole if one["kind"] == "false_alarm"}
        assert alarms["all"] + by_value["all"] == wrong.sum()
        assert alarms["all"] == (wrong & (preds[3] > 0)).sum()
        assert 0 < alarms["text"] < alarms["all"]
    if task == "multiclass" and each == 1:
        for kind in ("missed_class", "taken_for"):
            assert by_value["all"] == sum(one["of"] for one in whole if one["kind"] == kind)


@pytest.mark.parametrize("together", [300, 23])
def test_on_a_scale_the_largest_error_comes_first(together):
    generator = torch.Generator().manual_seed(4)
    preds, target = 3 * torch.randn(4, 300, generator=generator), 3 * torch.randn(300, generator=generator)
    preds[3, 5], target[5], preds[2, 5] = -2.0, 12.0, torch.nan  # numbers that are none must not be seen in these
    metric = CoalitionConfusionMatrix(("text", "audio"), task="ordinal", edges=(-1, 1))
    tracker = SampleTracker(metric)
    for at in torch.randperm(300, generator=generator).split(together):
        counted = torch.ones(4, len(at), dtype=torch.bool)
        counted[2] = at != 5
        rows = Rows(preds[:, at], target[at], None, counted, at, None, None, 1, at)
        labels = metric.reader.read(rows.answers, rows.target)
        tracker.update(labels, (0, 1, 2, 3), 3, rows)
    first = tracker.gathered(("low", "middle", "high"), 3, lambda *kind: True)[0]
    error = (preds[3] - target).abs()
    assert first["samples"] == error.argsort(descending=True)[:50].tolist()
    assert (first["of"], first["message"]) == (300, "largest errors")
    for row in first["rows"]:
        n = row["number"]
        assert (row["target"], row["prediction"]) == (f"{target[n]:.3g}", f"{preds[3, n]:.3g}")
        same = [((preds[k, n] >= e) == (target[n] >= e)) for k in range(4) for e in (-1, 1)]
        right = {name for k, name in enumerate(("none", "text", "audio", "text-audio")) if all(same[2 * k : 2 * k + 2])}
        assert set(row["right"]) == right
    (odd,) = (row for row in first["rows"] if row["number"] == 5)
    assert set(odd["coalitions"]) == {"none", "text"}


def test_rows_of_a_unit_say_why_nothing_of_them_is_shown(tmp_path):
    data = Media(video=lambda i: i // 3)
    data.label = data.label[torch.arange(60) // 3]
    watcher, html = run(tmp_path, data, show="auto", unit="video", report=True)
    assert watcher.run.shown
    assert {part.why for content in contents(watcher) for part in content.values()} == {
        "not kept: rows of one unit are pooled"
    }
    assert "rows of one unit are pooled" in html
