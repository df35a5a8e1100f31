"""`show=`: the page shows the worst samples of each finding, whatever they hold and wherever they come from."""

from __future__ import annotations

import re

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mm_metrics import ModalityAblation
from mm_metrics.callbacks import ModalityMonitor
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
        self.head = nn.Linear(3, classes)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, batch: dict) -> Tensor:
        wave = batch["wave"].float().nan_to_num().flatten(1).abs().mean(1)
        pixels = batch["pixels"].float().nan_to_num().flatten(1).mean(1)
        words = torch.tensor([sum(map(ord, word)) % 5 / 4 for word in batch["words"]])
        return self.head(torch.stack([pixels, 2 * wave, words], dim=1) * 6 - 2)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self(batch)


def run(
    tmp_path, data=None, keys=KEYS, loader=None, model=None, stage="validate", **keywords
) -> tuple[ModalityMonitor, str]:
    watcher = ModalityMonitor(keys, num_classes=3, output_dir=str(tmp_path), baseline={"text": ""}, **keywords)
    loader = DataLoader(data or Media(), batch_size=16) if loader is None else loader
    trainer(tmp_path, watcher).validate(model or Watching(), loader, verbose=False)
    folder = tmp_path / "modality" / (keywords.get("name") or "")
    return watcher, (folder / "report.html").read_text()


def shown(watcher: ModalityMonitor) -> dict:
    return {(one["kind"], one["modality"]): one for one in watcher.run.shown}


def test_the_page_shows_the_worst_by_themselves(tmp_path, recwarn):
    _, html = run(tmp_path, show="auto")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.count('<img src="data:image/png') >= 10
    assert html.count("<audio controls") >= 10
    assert re.search(r"10 of \d+ shown", html)
    assert len(html) < 5_000_000


def test_without_show_numbers_and_answers_alone(tmp_path):
    watcher, html = run(tmp_path)
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
    found = shown(watcher)
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
