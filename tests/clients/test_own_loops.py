"""Loops that people write themselves: plain PyTorch, and Fabric."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from mm_metrics import (
    CoalitionConfusionMatrix,
    ModalityAblation,
    ModalityAccuracy,
    ModalityConfusionMatrix,
    ModalityF1Score,
    ModalityRecall,
    QualityGate,
)
from tests.toys import MODALITIES, Concat, Rows, loader

NAMES = tuple(MODALITIES)


class Net(nn.Module):
    """A plain module whose forward names its inputs."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(8, 8) for name in NAMES})
        self.head = nn.Linear(24, 3)

    def forward(self, text, image, audio):
        encoded = [self.encoders[name](x) for name, x in (("text", text), ("image", image), ("audio", audio))]
        return self.head(torch.cat(encoded, -1).relu())


def zeroed(model, batch):
    """``(K, N)`` answers by hand."""
    rows = []
    for mask in range(8):
        shown = [batch[name] * (mask >> m & 1) for m, name in enumerate(NAMES)]
        with torch.no_grad():
            rows.append(model(*shown).argmax(-1))
    return torch.stack(rows)


def test_a_plain_loop_of_ten_lines():
    torch.manual_seed(0)
    model, data = Net(), Rows(n=50, missing=0.2)
    # -- the loop
    ablation = ModalityAblation(model, MODALITIES)
    seen = ModalityConfusionMatrix(NAMES, num_classes=3)
    shown = CoalitionConfusionMatrix(NAMES, num_classes=3, bootstrap=100)
    for batch in loader(data):
        logits = ablation(batch)
        seen.update(logits[-1], batch["label"], batch["presence"])
        shown.update(logits, batch["label"], batch["presence"])
    card = shown.scorecard()
    verdict = card.verdict(QualityGate())
    # -- what it gave
    whole = next(iter(loader(data, batch_size=50)))
    answers = zeroed(model, whole)
    oracle = MulticlassConfusionMatrix(3)
    assert torch.equal(seen.compute()[0], oracle(answers[-1], whole["label"]))
    has = whole["presence"][:, 2]
    assert torch.equal(seen.compute()[3], oracle(answers[-1][has], whole["label"][has]))
    for k in range(8):
        assert torch.equal(shown.compute()[k, 0], oracle(answers[k], whole["label"]))
    assert card.interval("f1")[0] < card.score("f1") < card.interval("f1")[1]
    assert set(card.contributions("f1")) == set(NAMES)
    assert verdict.level in ("good", "mixed", "bad", "undecided")
    assert ablation.encoders == {name: (f"encoders.{name}",) for name in NAMES}


def test_score_classes_in_a_collection_beside_torchmetrics_own():
    torch.manual_seed(0)
    data = next(iter(loader(Rows(n=60, missing=0.3), batch_size=60)))
    ours = {"acc": ModalityAccuracy, "rec": ModalityRecall, "f1": ModalityF1Score}
    metrics = MetricCollection({name: metric(NAMES, num_classes=3) for name, metric in ours.items()}, prefix="val/")
    logits = torch.randn(60, 3)
    for part in (slice(0, 20), slice(20, 60)):
        metrics.update(logits[part], data["label"][part], data["presence"][part])
    values = metrics.compute()
    has = data["presence"][:, 2]
    hits = logits.argmax(-1) == data["label"]
    assert float(values["val/audio/accuracy"]) == pytest.approx(float(hits[has].float().mean()))
    assert set(values) == {f"val/{at}/{score}" for at in ("all", *NAMES) for score in ("accuracy", "recall", "f1")}
    assert all(value.ndim == 0 for value in values.values())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("module", [Net, Concat])
def test_fabric(precision, module):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.seed_everything(0, verbose=False)
    plain = module()
    model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    train, val = fabric.setup_dataloaders(loader(Rows(n=40)), loader(Rows(n=40, seed=1)))
    ablation = ModalityAblation(model, MODALITIES)
    for _ in range(2):
        for batch in train:
            inputs = [batch[name] for name in NAMES] if module is Net else [batch]
            fabric.backward(nn.functional.cross_entropy(model(*inputs), batch["label"]))
            optimizer.step()
            optimizer.zero_grad()
        metric = CoalitionConfusionMatrix(NAMES, num_classes=3).to(fabric.device)
        model.train()
        for batch in val:
            metric.update(ablation(batch), batch["label"])
        assert model.training
    card = metric.scorecard()
    assert card.samples == 40
    whole = next(iter(loader(Rows(n=40, seed=1), batch_size=40)))
    model.eval()
    for name in ("none", "text", "text-image-audio"):
        shown = {key: whole[key] * (key in name.split("-")) for key in NAMES}
        with torch.no_grad():
            own = (model(**shown) if module is Net else model({**whole, **shown})).argmax(-1)
        accuracy = float((own == whole["label"]).double().mean())
        near = 1.01 / 40 if precision == "bf16-mixed" else 0  # one near tie, in batches of another size
        assert card.score("accuracy", coalition=name) == pytest.approx(accuracy, abs=near)
