"""Thresholds that validation chooses for the test, and files that take them over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import Tensor, nn

from mm_metrics import CoalitionConfusionMatrix, Scorecard
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.ranking import best, edges, just_below

from .toys import MODALITIES, Concat, Rows, loader, seeded, trainer


class Events(Rows):
    """Rare events, a label or several, whose probabilities lie far below .5."""

    def __init__(self, n=300, labels=0, seed=0, offset=0.0):
        super().__init__(n, 2, seed=seed)
        draw = torch.rand(n, max(labels, 1), generator=torch.Generator().manual_seed(seed))
        self.event = (draw < 0.2).long()
        self.inputs["text"][:, : max(labels, 1)] += 2.0 * self.event + offset
        self.labels = labels

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {**super().__getitem__(i), "label": self.event[i] if self.labels else self.event[i, 0]}


class Shy(Concat):
    """Logits that order events well and are all below 0."""

    def __init__(self, labels=1):
        super().__init__()
        self.labels, self.shift = labels, nn.Parameter(torch.tensor(-6.0))

    def forward(self, batch):
        found = batch["text"][:, : self.labels] + self.shift
        return found if self.labels > 1 else found[:, 0]

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self(batch), batch["label"].float())

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    test_step = validation_step


def rows(data):
    return loader(data, batch_size=100)


def monitor(labels=0, **keywords):
    task = {"task": "multilabel", "num_labels": labels} if labels else {"task": "binary"}
    return ModalityMonitor(MODALITIES, **task, threshold="val", report=False, ablation=None, bootstrap=50, **keywords)


def answers(data, model):
    with torch.no_grad():
        return model(dict(data.inputs)).numpy()


@pytest.mark.parametrize("labels", [0, 3])
def test_the_test_is_cut_where_validation_was_best_and_validation_at_a_half(tmp_path, labels):
    watcher, model = monitor(labels), seeded(Shy, labels=max(labels, 1))
    run, val, test = trainer(tmp_path, watcher), Events(labels=labels, seed=1), Events(labels=labels, seed=2)
    run.validate(model, rows(val), verbose=False)
    run.test(model, rows(test), verbose=False)
    logits, truth = (part.reshape(len(val), -1) for part in (answers(val, model), val.event.numpy()))
    inner = edges(512)[1:-1].numpy()
    told = watcher.scorecards["test"].info["threshold"]
    own = np.array([np.log(one / (1 - one)) for one in told["values"]])
    for i, cut in enumerate(own):
        every = logits[:, i] >= np.log(inner / (1 - inner))[:, None]  # (B, N)
        hits = (every & (truth[:, i] == 1)).sum(1)
        wanted = (2 * hits / (every.sum(1) + truth[:, i].sum())).max()
        assert f1_score(truth[:, i], logits[:, i] >= cut - 1e-6) == pytest.approx(wanted)
    tested = answers(test, model).reshape(len(test), -1) >= own - 1e-6
    wanted = f1_score(test.event.numpy(), tested, average="macro" if labels else "binary")
    assert watcher.scorecards["test"].score("f1") == pytest.approx(wanted)
    assert wanted > 0.5
    assert watcher.scorecards["val"].score("recall") < 0.1
    assert watcher.scorecards["val"].info["threshold"] == {"values": [0.5]}
    said = {stage: " ".join(watcher.verdicts[stage].notes) for stage in ("val", "test")}
    assert "was not chosen" in said["val"]
    assert "F1 was best in the validation of epoch 0" in said["test"]


@pytest.mark.filterwarnings("ignore:Be aware")
def test_a_checkpoint_carries_what_its_own_validation_chose(tmp_path):
    keeper = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    watcher, model = monitor(), seeded(Shy)
    run = trainer(tmp_path, watcher, keeper, enable_checkpointing=True, max_epochs=2)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=20.0)
    run.fit(model, rows(Events(seed=0)), rows(Events(seed=1)))
    last = dict(watcher.thresholds.chosen)
    paths = [tmp_path / f"epoch={i}.ckpt" for i in (0, 1)]
    kept = [torch.load(path, weights_only=True)["callbacks"]["ModalityMonitor"] for path in paths]
    assert kept[0]["threshold"]["epoch"] == 0
    assert kept[1]["threshold"] == last
    assert kept[0]["threshold"]["values"] != last["values"]
    run.test(model, rows(Events(seed=2)), ckpt_path=paths[0], verbose=False)
    assert watcher.scorecards["test"].info["threshold"] == kept[0]["threshold"]
    fresh = monitor()  # another process
    run = trainer(tmp_path, fresh)
    run.test(seeded(Shy), rows(Events(seed=2)), ckpt_path=paths[1], verbose=False)
    assert fresh.scorecards["test"].info["threshold"] == last


def test_without_a_validation_of_these_weights_the_test_is_cut_at_a_half_and_says_so(tmp_path):
    watcher, data = monitor(), rows(Events(seed=2))
    with pytest.warns(UserWarning, match="so the test is cut at .5"):
        trainer(tmp_path, watcher).test(seeded(Shy), data, verbose=False)
    run = trainer(tmp_path, other := monitor())
    run.validate(seeded(Shy), rows(Events(seed=1)), verbose=False)
    with pytest.warns(UserWarning, match="so the test is cut at .5"):
        run.test(seeded(Shy), data, verbose=False)  # another module
    assert other.scorecards["test"].info["threshold"] == {"values": [0.5]}


def test_a_test_of_what_has_chosen_says_that_it_is_too_good(tmp_path):
    watcher, model = monitor(), seeded(Shy)
    run = trainer(tmp_path, watcher)
    for step in (run.validate, run.test):
        step(model, rows(Events(seed=1)), verbose=False)
    assert watcher.scorecards["test"].info["threshold"]["same_samples"] is True
    run.test(model, rows(Events(seed=2)), verbose=False)
    assert "same_samples" not in watcher.scorecards["test"].info["threshold"]


def test_a_label_that_validation_never_saw_stays_at_a_half(tmp_path):
    val = Events(labels=3, seed=1)
    val.event[:, 1] = 0
    watcher, model = monitor(3), seeded(Shy, labels=3)
    run = trainer(tmp_path, watcher)
    with pytest.warns(UserWarning, match="not both answers of 1, so"):
        run.validate(model, rows(val), verbose=False)
    values = watcher.thresholds.chosen["values"]
    assert values[1] == 0.5
    assert values[0] < 0.1 > values[2]


def test_only_tasks_with_a_threshold_choose_one():
    with pytest.raises(ValueError, match="threshold='val'"):
        ModalityMonitor(MODALITIES, num_classes=3, threshold="val")


@pytest.mark.parametrize("score", ["f1", "accuracy", "balanced_accuracy"])
def test_the_best_edge_against_every_edge(score):
    random = np.random.default_rng(0)
    for _ in range(20):
        counts = torch.tensor(random.integers(0, 4, (2, 16)) * random.integers(0, 2, (2, 16)))
        counts[:, 3] += 1
        values = np.repeat(np.tile(edges(16)[:-1].numpy(), 2), counts.flatten().numpy())
        truth = np.repeat([0, 1], counts.sum(1).numpy())
        of = {"f1": f1_score, "accuracy": lambda y, p: (y == p).mean(), "balanced_accuracy": balanced_accuracy_score}[
            score
        ]
        every = [of(truth, values >= cut) for cut in edges(16)[:-1].numpy()]
        assert of(truth, values >= best(counts, score)) == pytest.approx(max(every))


def test_half_precision_lies_on_edges_and_counts_as_the_histogram_has_it():
    logits = (torch.randint(-60, 60, (500,), generator=torch.Generator().manual_seed(0)) / 16).to(torch.bfloat16)
    target = (torch.arange(500) % 3 == 0).long()
    first = CoalitionConfusionMatrix(("text",), task="binary", from_logits=True, scores=("auroc",), coalitions=["all"])
    first.update(logits.unsqueeze(0), target)
    point = first.scorecard().threshold("recall", 0.7)
    second = CoalitionConfusionMatrix(
        ("text",), task="binary", from_logits=True, threshold=just_below(point.threshold), coalitions=["all"]
    )
    second.update(logits.unsqueeze(0), target)
    card: Scorecard = second.scorecard()
    assert card.score("recall") == pytest.approx(point.recall)
    assert card.score("precision") == pytest.approx(point.precision)
