"""In a Trainer: models that change from epoch to epoch or within the step, against a black box at each validation."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


class Warms(Concat):
    """From the second epoch on another way past the encoders is open, by a gate, and by a flag of the epoch."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.around = nn.Linear(8, 3)

    def on_train_epoch_end(self):
        self.gate.data.fill_(2.0 * self.current_epoch)

    def forward(self, batch):
        out = super().forward(batch)
        return out + self.gate * self.around(batch["image"]) if self.gate > 0 else out


class Switches(Concat):
    """From the second epoch on the text's sign decides, read by its mask."""

    on = False

    def on_train_epoch_end(self):
        self.on = True

    def forward(self, batch):
        out = super().forward(batch)
        return out * (batch["text"].sum(1, keepdim=True) > 0) + batch["audio"][:, :3] if self.on else out


class BlackBox(Callback):
    """Hides inputs by hand in a copy of the model, at each validation, and compares what the monitor counted."""

    def __init__(self, monitor, data):
        self.monitor, self.data, self.seen = monitor, data, 0

    def on_validation_end(self, run, module):
        if run.sanity_checking:
            return
        self.seen += 1
        card = self.monitor.scorecards["val"]
        model = copy.copy(module).eval()
        for flags in itertools.product((0, 1), repeat=3):
            batch = {name: x * flag for (name, x), flag in zip(self.data.inputs.items(), flags, strict=True)}
            with torch.no_grad():
                right = (model(batch).argmax(1) == self.data.label).float().mean().item()
            name = "-".join(n for n, flag in zip(MODALITIES, flags, strict=True) if flag) or "none"
            assert card.score("accuracy", coalition="all" if all(flags) else name) == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("kind", [Warms, Switches])
@pytest.mark.parametrize("sanity", [0, 2])
def test_a_model_that_changes_between_validations_is_counted_right_in_each(kind, sanity, tmp_path, recwarn):
    data = Rows(n=70, seed=2)
    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, report=False, on_bad="warn")
    box = BlackBox(monitor, data)
    run = trainer(tmp_path, monitor, box, max_epochs=3, num_sanity_val_steps=sanity)
    run.fit(seeded(kind), loader(Rows(seed=1)), loader(data))
    assert box.seen == 3


class Averages(Concat):
    """Its step swaps in averaged weights, predicts, and swaps its own back."""

    def validation_step(self, batch, batch_idx):
        own = {name: x.detach().clone() for name, x in self.named_parameters()}
        for x in self.parameters():
            x.data.mul_(-1.5)
        logits = self(batch)
        for name, x in self.named_parameters():
            x.data.copy_(own[name])
        self.log("right", (logits.argmax(1) == batch["label"]).float().mean(), on_epoch=True)
        return {"logits": logits}


class Pointers(Averages):
    """The same by exchanging the tensors themselves."""

    def validation_step(self, batch, batch_idx):
        own = {name: x.data for name, x in self.named_parameters()}
        for x in self.parameters():
            x.data = x.data * -1.5
        logits = self(batch)
        for name, x in self.named_parameters():
            x.data = own[name]
        self.log("right", (logits.argmax(1) == batch["label"]).float().mean(), on_epoch=True)
        return logits


@pytest.mark.parametrize("kind", [Averages, Pointers])
def test_weights_swapped_in_the_step(kind, tmp_path):
    data = loader(Rows(n=70, seed=1))
    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, predict="step")
    run = trainer(tmp_path, monitor)
    model = seeded(kind)
    run.validate(model, data, verbose=False)
    assert run.callback_metrics["val/all/accuracy"].item() == pytest.approx(
        run.callback_metrics["right"].item(), abs=1e-6
    )
    swapped = copy.deepcopy(model).eval()
    for x in swapped.parameters():
        x.data.mul_(-1.5)
    card = monitor.scorecards["val"]
    for name in MODALITIES:
        batch = {key: x * (key == name) for key, x in data.dataset.inputs.items()}
        with torch.no_grad():
            right = (swapped(batch).argmax(1) == data.dataset.label).float().mean().item()
        assert card.score("accuracy", coalition=name) == pytest.approx(right, abs=1e-6)
    plain = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0)
    with pytest.warns(UserWarning, match=r"other weights while the step ran .*predict='step'"):
        trainer(tmp_path, plain).validate(model, data, verbose=False)
    assert plain.scorecards["val"].score("accuracy", coalition="text") != card.score("accuracy", coalition="text")


def test_a_step_that_prepares_its_batch_is_said_once_in_a_run(tmp_path):
    class Scales(Concat):
        def validation_step(self, batch, batch_idx):
            self({name: batch[name] * 2 for name in MODALITIES})

    with pytest.warns(UserWarning, match="other tensors than the batch's own") as told:
        trainer(tmp_path, ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0)).validate(
            seeded(Scales), loader(), verbose=False
        )
    assert len([one for one in told if "other tensors" in str(one.message)]) == 1


@pytest.mark.parametrize("gone", ["missing", "none", "empty"])
def test_an_absent_modality_and_another_axis_in_a_run(gone, tmp_path):
    class Copes(Concat):
        def forward(self, batch):
            found = [self.encoders["text"](batch["text"]), self.encoders["image"](batch["image"].t())]
            audio = batch.get("audio")
            empty = audio is None or not len(audio)
            return self.head(
                torch.cat([*found, torch.zeros_like(found[0]) if empty else self.encoders["audio"](audio)], -1)
            )

        def validation_step(self, batch, batch_idx):
            self(batch)

    def collate(rows):
        batch = torch.utils.data.default_collate(rows)
        batch["image"] = batch["image"].t().contiguous()
        if batch["number"][0] % 32 == 0:  # every other batch of 16
            batch["audio"] = {"none": None, "empty": []}.get(gone)
            if gone == "missing":
                del batch["audio"]
        return batch

    monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, sample_axis={"image": 1})
    data = Rows(n=64, seed=1)
    trainer(tmp_path, monitor).validate(seeded(Copes), loader(data, collate_fn=collate), verbose=False)
    card = monitor.scorecards["val"]
    assert card.support(slice="all") == 64
    assert card.support(slice="audio") == 32
