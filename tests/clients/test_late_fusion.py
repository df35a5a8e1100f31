"""Late fusion: one head a modality, whose own answers go in as the coalitions of one, without any ablation."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch import nn

from mm_metrics import CoalitionConfusionMatrix
from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer

NAMES = tuple(MODALITIES)


class Heads(Concat):
    """A head a modality; the whole is the mean of those whose modality is there."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(8, num_classes) for name in NAMES})
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        heads = {name: self.heads[name](self.encoders[name](batch[name])) for name in NAMES}
        has = batch["presence"].T.unsqueeze(-1)  # (M, N, 1)
        whole = (torch.stack(list(heads.values())) * has).sum(0) / has.sum(0).clamp(min=1)
        return {"all": whole, **heads}

    def training_step(self, batch, batch_idx):
        return sum(nn.functional.cross_entropy(head, batch["label"]) for head in self(batch).values())

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch)["all"], batch["label"]))


def without_audio(n=100, share=0.3, seed=4):
    data = Rows(n=n, seed=seed)
    data.presence[:, 2] = torch.rand(n, generator=torch.Generator().manual_seed(seed)) >= share
    return data


def whole(data):
    return next(iter(loader(data, batch_size=len(data))))


@torch.no_grad()
def answers(model, data):
    return {name: head.argmax(-1) for name, head in model.eval()(whole(data)).items()}


@pytest.fixture
def run(tmp_path):
    data = without_audio()
    watcher = ModalityMonitor(MODALITIES, num_classes=3, presence="presence", bootstrap=100)
    model = seeded(Heads)
    fit = trainer(tmp_path, watcher)
    fit.fit(model, loader(), loader(data))
    return watcher.scorecards["val"], model, data, fit


def test_a_head_counts_only_where_its_modality_is(run):
    card, model, data, _ = run
    given, has = answers(model, data), data.presence[:, 2]
    assert 15 < int((~has).sum()) < 45
    assert card.coalitions == ("text", "image", "audio", "text-image-audio")
    for name in ("text", "image", "all"):
        expected = confusion_matrix(data.label, given[name], labels=range(3))
        assert torch.equal(torch.as_tensor(card.confusion(name)), torch.as_tensor(expected))
    heard = confusion_matrix(data.label[has], given["audio"][has], labels=range(3))
    assert torch.equal(torch.as_tensor(card.confusion("audio")), torch.as_tensor(heard))
    assert card.support(coalition="audio") == card.support("audio", coalition="text") == int(has.sum())
    silent = card.confusion("text", slice="-audio")
    expected = confusion_matrix(data.label[~has], given["text"][~has], labels=range(3))
    assert torch.equal(torch.as_tensor(silent), torch.as_tensor(expected))
    assert card.support("-audio", coalition="audio") == 0


def test_its_keys(run):
    _, model, data, fit = run
    given, has = answers(model, data), data.presence[:, 2]
    logged = {key: float(value) for key, value in fit.callback_metrics.items()}
    assert logged["val/all/accuracy"] == pytest.approx(accuracy_score(data.label, given["all"]))
    assert logged["val/audio/f1"] == pytest.approx(f1_score(data.label[has], given["all"][has], average="macro"))
    assert logged["val/ablation/audio/accuracy"] == pytest.approx(accuracy_score(data.label[has], given["audio"][has]))
    assert logged["val/audio/support"] == int(has.sum())


def test_a_confident_head_of_an_absent_modality_is_never_heard(tmp_path):
    class Loud(Heads):
        def forward(self, batch):
            heads = super().forward(batch)
            absent = ~batch["presence"][:, 2:]
            return {**heads, "audio": torch.where(absent, float("nan"), heads["audio"])}

    data = without_audio()
    cards = []
    for kind in (Heads, Loud):
        watcher = ModalityMonitor(MODALITIES, num_classes=3, presence="presence", bootstrap=0)
        trainer(tmp_path, watcher).validate(seeded(kind), loader(data), verbose=False)
        cards.append(watcher.scorecards["val"])
    assert cards[0] == cards[1]


def test_nothing_is_ablated(tmp_path):
    model = seeded(Heads)
    watcher = ModalityMonitor(MODALITIES, num_classes=3, presence="presence", bootstrap=0)
    trainer(tmp_path, watcher).validate(model, loader(without_audio(n=64)), verbose=False)
    assert watcher.scorecards["val"].info["ablation"] == "heads"
    assert model.calls <= 4 + 2  # the user's own serve us too, but for the first batch


def test_heads_without_a_whole(tmp_path):
    data = without_audio()
    model = seeded(Heads)

    def predict(model, batch):
        return {name: head for name, head in model(batch).items() if name != "all"}

    watcher = ModalityMonitor(MODALITIES, num_classes=3, presence="presence", bootstrap=0, predict=predict)
    run = trainer(tmp_path, watcher)
    with pytest.warns(UserWarning, match="heads for text, image, audio and no 'all'.* NaN: return {'all': fused"):
        run.validate(model, loader(data), verbose=False)
    logged, has = run.callback_metrics, data.presence[:, 2]
    heard = answers(model, data)["audio"][has]
    assert float(logged["val/ablation/audio/accuracy"]) == pytest.approx(accuracy_score(data.label[has], heard))
    assert math.isnan(logged["val/all/accuracy"])


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        (lambda x: {"all": x, "text": x, "sound": x}, "coalition 'sound' is not made of .*'text', 'image', 'audio'"),
        (lambda x: {"all": x, "text": x[:, :2]}, r"heads of different shape, {'all': \(16, 3\), 'text': \(16, 2\)}"),
    ],
)
def test_heads_that_go_wrong(heads, told, tmp_path):
    watcher = ModalityMonitor(
        MODALITIES, num_classes=3, bootstrap=0, predict=lambda model, batch: heads(model(batch)["all"])
    )
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, watcher).validate(seeded(Heads), loader(), verbose=False)


def test_binary_heads(tmp_path):
    class Two(Heads):
        def forward(self, batch):
            return {name: head.squeeze(-1) for name, head in super().forward(batch).items()}

        def validation_step(self, batch, batch_idx):
            self(batch)

    data = Rows(n=60, num_classes=2, missing=0.3, seed=2)
    watcher = ModalityMonitor(MODALITIES, task="binary", presence="presence", bootstrap=0)
    model = seeded(Two, num_classes=1)
    trainer(tmp_path, watcher).validate(model, loader(data), verbose=False)
    has = data.presence[:, 1]
    with torch.no_grad():
        seen = model.eval()(whole(data))["image"][has] > 0
    card = watcher.scorecards["val"]
    assert card.score("accuracy", coalition="image") == pytest.approx(accuracy_score(data.label[has], seen))


def test_the_same_in_a_plain_loop():
    data, model = without_audio(), seeded(Heads).eval()
    metric = CoalitionConfusionMatrix(NAMES, num_classes=3)
    for batch in loader(data):
        with torch.no_grad():
            heads = {name: head.argmax(-1) for name, head in model(batch).items()}
        has = batch["presence"]
        heard = torch.stack([has[:, 0], has[:, 1], has[:, 2], torch.ones_like(has[:, 0])])
        metric.update(heads, batch["label"], has, counted=heard)
    card, there, given = metric.scorecard(), data.presence[:, 2], answers(model, data)
    assert card.support(coalition="audio") == int(there.sum())
    assert card.score("accuracy", coalition="audio") == pytest.approx(
        accuracy_score(data.label[there], given["audio"][there])
    )
