"""Every code block of the README runs, and what it names is there."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mm_metrics.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


class Calls(Dataset):
    """Twenty-four calls in the README's format."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(i)
        draw = {name: torch.randn(8, generator=generator) for name in ("tokens", "pixels", "waveform")}
        told = {"label": i % 6, "presence": [True, i % 3 > 0, i % 2 > 0], "language": i % 2, "speaker": i // 4}
        return {**draw, **{name: torch.tensor(value) for name, value in told.items()}}


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`ModelCheckpoint`.*")  # Lightning's hint on its own default
def test_python_blocks_run_in_the_order_they_stand(tmp_path, monkeypatch):
    from tests.toys import Concat

    class Model(Concat):
        def __init__(self):
            super().__init__(num_classes=6)

        def forward(self, batch):
            return super().forward({"text": batch["tokens"], "image": batch["pixels"], "audio": batch["waveform"]})

    monkeypatch.chdir(tmp_path)
    names = {
        "model": Model(),
        "train_set": Calls(),
        "test_set": Calls(),
        "train_loader": DataLoader(Calls(), batch_size=8),
        "val_loader": DataLoader(Calls(), batch_size=8),
    }
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) >= 4
    for code in blocks:
        exec(compile(code, "README.md", "exec"), names)
    assert names["trainer"].current_epoch == 2
    assert names["leaks"].findings[0].kind == "exact"
    module = names["Tagger"](names["model"])
    logged = names["Trainer"](logger=False, enable_checkpointing=False).validate(module, names["val_loader"])[0]
    assert {"val/all/f1", "val/audio/recall"} <= set(logged)
    assert names["ablation"].encoders == {name: (f"encoders.{name}",) for name in ("text", "image", "audio")}
    assert names["card"].groups() == 6
    assert "language/de" in names["card"].slices
    assert (tmp_path / "scores.csv").read_text().startswith("step,val/all/accuracy")
    assert list(tmp_path.rglob("report.html"))


def commands():
    for language, code in BLOCKS:
        if language == "bash":
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield words


def test_commands_name_targets_files_and_options_that_are_there(tmp_path, monkeypatch, capsys):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    seen = set()
    for words in commands():
        seen.add(words[0])
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "python":
            assert (ROOT / words[1]).exists()
            configs = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
            assert configs
            assert all((ROOT / config).exists() for config in configs)
    assert seen == {"make", "python", "mm-metrics"}


def test_the_commands_on_prediction_files_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["target", "prediction", "presence_text", "presence_image", "presence_audio"]
    with open("predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([f"class{i % 3}", f"class{i % 3}", 1, 1, i % 2] for i in range(300))
    codes = SimpleNamespace(seen=[])
    for words in commands():
        if words[0] != "mm-metrics":
            continue
        if "last.json" in words:
            Path("last.json").write_text(Path("card.json").read_text())
        try:
            codes.seen.append(main(words[1:]) or 0)
        except SystemExit as stop:
            codes.seen.append(stop.code or 0)
    assert codes.seen == [0, 0, 0, 0, 0]
    assert Path("report.html").exists()


def test_what_the_readme_points_to_is_there():
    for path in re.findall(r"`((?:configs|scripts|tests)/[\w./]+)`", README) + re.findall(
        r"!\[[^\]]*\]\(([^)]+)\)", README
    ):
        assert (ROOT / path).exists(), path
