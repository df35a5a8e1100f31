"""A steady batch goes down the list of rooms, and from file to file no oftener than it has to."""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

import mm_metrics
from mm_metrics import CoalitionConfusionMatrix, ModalityAblation
from mm_metrics.callbacks import ModalityMonitor
from scripts.benchmarks.steady import NAMES, Sleeper, _batches
from tests.test_imports import MAY, module, room

ROOT = str(Path(mm_metrics.__file__).parent)
INPUTS = {name: name for name in NAMES}


@contextmanager
def route():
    """Two counters of moves, from module to module: direct calls, and those that go through others' code."""
    direct, through = Counter(), Counter()

    def see(frame, event, arg):
        home = frame.f_code.co_filename
        if event != "call" or not home.startswith(ROOT):
            return
        caller = near = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(ROOT):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != home:
            move = module(Path(caller.f_code.co_filename)), module(Path(home))
            (direct if caller is near else through)[move] += 1

    sys.setprofile(see)
    try:
        yield direct, through
    finally:
        sys.setprofile(None)


def climbs(moves):
    """How often a file calls one of a room that it may not import from: a room above its own."""
    return {move: n for move, n in moves.items() if room(move[1]) not in MAY[room(move[0])]}


def by_metric():
    ablation = ModalityAblation(
        Sleeper().eval(), INPUTS, presence="has", encoders={name: f"encoders.{name}" for name in NAMES}
    )
    metric = CoalitionConfusionMatrix(NAMES, num_classes=10, bootstrap=200)
    for batch in _batches(6, 10):
        with torch.inference_mode(), route() as moves:
            metric.update(ablation(batch), batch["label"], batch["has"], batch["index"])
    return moves


def by_trainer(tmp_path):
    class Watching(ModalityMonitor):
        def on_validation_batch_start(self, *args):
            self.route = route()
            self.moves = self.route.__enter__()
            super().on_validation_batch_start(*args)

        def on_validation_batch_end(self, *args):
            super().on_validation_batch_end(*args)
            self.route.__exit__(None, None, None)

    monitor = Watching(INPUTS, num_classes=10, presence="has", bootstrap=200, report=False, output_dir=str(tmp_path))
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(accelerator="cpu", devices=1, callbacks=[monitor], **quiet)
    trainer.validate(Sleeper(), DataLoader(_batches(6, 10), batch_size=None), verbose=False)
    return monitor.moves


@pytest.mark.filterwarnings("ignore:.*num_workers")
@pytest.mark.parametrize(("way", "most"), [("metric", 155), ("trainer", 179)])
def test_a_steady_batch_moves_little_between_files_and_does_not_climb(way, most, tmp_path):
    direct, through = by_metric() if way == "metric" else by_trainer(tmp_path)
    assert direct.total() <= most, direct.most_common(30)
    assert climbs(direct + through) == {}
