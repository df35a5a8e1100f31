"""Two processes show the samples that one shows, with what they hold; where nobody numbers them, by process."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mm_metrics.callbacks import ModalityMonitor
from tests.distributed.launch import launch
from tests.test_show import KEYS, Endless, Media, Watching
from tests.toys import trainer

pytestmark = pytest.mark.slow


def validate(rank: int, world_size: int, folder: Path) -> list[list[dict]]:
    """What is shown of 61 samples that are numbered, and of a stream that each process reads whole."""
    found = []
    for data in (Media(61), Endless()):
        watcher = ModalityMonitor(KEYS, num_classes=3, bootstrap=0, baseline={"text": ""}, report=False, show="auto")
        run = trainer(folder, watcher, devices=world_size, strategy="ddp" if world_size > 1 else "auto")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.validate(Watching(), DataLoader(data, 8), verbose=False)
        found.append(watcher.run.shown)
    return found


def test_two_processes_show_what_one_shows(tmp_path):
    (alone, stream), both = validate(0, 1, tmp_path / "one"), launch(2, validate, tmp_path / "two")
    for numbered, _ in both:
        assert [(one["message"], one["of"]) for one in numbered] == [(one["message"], one["of"]) for one in alone]
        for one, other in zip(numbered, alone, strict=True):
            for row, same in zip(one["rows"], other["rows"], strict=True):
                content, wanted = row.pop("content"), same.pop("content") if "content" in same else {}
                assert {**row, "place": 0} == {**same, "place": 0}
                if wanted:
                    assert content["text"] == wanted["text"]
                    assert np.array_equal(content["image"], wanted["image"])
                    assert np.array_equal(content["audio"].first, wanted["audio"].first)
    streamed = both[0][1]
    assert [one["of"] for one in streamed] == [2 * one["of"] for one in stream]
    assert {str(row["number"]).split(" of ")[1] for row in streamed[0]["rows"]} == {"process 0", "process 1"}
    assert all(row["content"]["text"].endswith(f" {str(row['number']).split()[0]}") for row in streamed[0]["rows"])
