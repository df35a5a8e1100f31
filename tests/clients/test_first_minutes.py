"""A new user's first five minutes: what goes wrong is said in one sentence, with what to write instead."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from torch import nn

from mm_metrics import QualityGate
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.extras import install
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


class Silent(Concat):
    """Takes labels of any form."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch)


def validated(tmp_path, data=None, model=None, **keywords):
    watcher = ModalityMonitor(**{"modalities": MODALITIES, "num_classes": 3, "bootstrap": 0, **keywords})
    data = Rows() if data is None else data
    trainer(tmp_path, watcher).validate(model or seeded(Silent), loader(data), verbose=False)
    return watcher


def rows(**changes):
    data = Rows()
    for name, change in changes.items():
        setattr(data, name, change(getattr(data, name)))
    return data


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"modalities": ["text", "image"]}, r"got list: write {\"text\": \(\"tokens\", \"mask\"\)"),
        ({"gate": {"accuracy": (0.5, 0.6)}}, r"gate is a QualityGate, got dict: write QualityGate\("),
        ({"task": "regression"}, "task='regression' is not known: one of 'multiclass', 'binary', 'multilabel'"),
        ({"task": "multilabel", "num_classes": None}, "num_labels=None: task='multilabel' needs an integer"),
        ({"num_classes": 1}, "num_classes=1: task='multiclass' needs an integer of 2 or more"),
        ({"bootstrap": -1}, "bootstrap=-1: a number of replicates"),
        ({"ablation": ["text", "sound"]}, "coalition 'sound' is not made of .*'text', 'image', 'audio'"),
    ],
)
def test_arguments_are_refused_where_they_are_typed(keywords, told):
    with pytest.raises((TypeError, ValueError), match=told):
        ModalityMonitor(**{"modalities": MODALITIES, "num_classes": 3, **keywords})


@pytest.mark.parametrize(
    ("data", "keywords", "told"),
    [
        ({"label": lambda y: y + 1}, {"on_bad_values": "raise"}, r"target holds 3, expected 0…2: \d+ of 16"),
        ({"label": lambda y: nn.functional.one_hot(y, 3)}, {}, r"one-hot targets are read by target.argmax\(-1\)"),
        ({"label": lambda y: y.float()}, {}, r"target is torch.float32: .*task='ordinal'"),
        ({"label": lambda y: y[:, None]}, {}, r"target has shape \(16, 1\), expected \(16,\)"),
        ({"presence": lambda p: p.float()}, {"presence": "presence"}, r"got torch.float32: use presence.bool\(\)"),
        ({"presence": lambda p: p[:, :2]}, {"presence": "presence"}, r"shape \(16, 2\), expected \(16, 3\)"),
        ({}, {"presence": "there"}, "'there' is not in the batch .*'presence'"),
        ({}, {"num_classes": None, "class_names": ["a", "b"]}, "class_names holds 2 names, expected 3"),
        ({}, {"encoders": {"text": "enc"}}, r"encoders\['text'\]='enc' is no module of the model: it has"),
        ({}, {"baseline": "noise"}, "baseline='noise' is not known: one of"),
    ],
)
def test_a_first_batch_that_does_not_fit(data, keywords, told, tmp_path):
    with pytest.raises((TypeError, ValueError, KeyError), match=told):
        validated(tmp_path, rows(**data), **keywords)


def test_labels_instead_of_logits_need_the_number_of_classes(tmp_path):
    class Labels(Silent):
        def forward(self, batch):
            return super().forward(batch).argmax(-1)

    with pytest.raises(ValueError, match=r"no logits \(N, C\) to read it off: .*num_classes=…"):
        validated(tmp_path, model=seeded(Labels), num_classes=None)
    assert validated(tmp_path, model=seeded(Labels)).scorecards["val"].samples == 70


def test_a_column_of_logits_and_a_vector_are_one_in_a_binary_task(tmp_path):
    class Column(Silent):
        def forward(self, batch):
            return super().forward(batch)[:, :1]

    class Vector(Column):
        def forward(self, batch):
            return super().forward(batch)[:, 0]

    cards = [
        validated(tmp_path, Rows(num_classes=2), seeded(kind), task="binary", num_classes=None).scorecards["val"]
        for kind in (Column, Vector)
    ]
    assert cards[0] == cards[1]


def test_without_the_extras_a_run_still_ends_well(tmp_path, monkeypatch, capsys):
    for name in ("jinja2", "matplotlib", "PIL"):
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(UserWarning, match=re.escape(install("pillow"))):
        validated(tmp_path)
    assert (tmp_path / "modality" / "val.json").is_file()
    printed = capsys.readouterr().out
    assert "val.json" in printed
    assert "text-image-audio" in printed


def test_each_loader_has_a_summary_of_its_own(tmp_path):
    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, gate=QualityGate())
    trainer(tmp_path, watcher).validate(seeded(Silent), [loader(), loader(Rows(seed=1))], verbose=False)
    pictures = sorted(path.name for path in (tmp_path / "modality").glob("*.png"))
    assert pictures == ["summary.png", "summary_val_1.png"]


def test_no_gradient_and_no_graph_are_left_behind(tmp_path):
    model = seeded(Silent)
    validated(tmp_path, model=model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
