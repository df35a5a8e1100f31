"""Through a Trainer without `predict`: however a model takes its batch, and whatever it returns."""

from __future__ import annotations

import dataclasses
from collections import UserDict

import pytest
import torch
from torch.utils.data import default_collate

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


@dataclasses.dataclass
class Output:
    loss: torch.Tensor
    logits: torch.Tensor


def model_output(logits):
    return pytest.importorskip("transformers").utils.ModelOutput(loss=logits.sum(), logits=logits)


def batch_encoding(rows):
    return pytest.importorskip("transformers").BatchEncoding(default_collate(rows))


OUTPUTS = {
    "tensor": lambda logits: logits,
    "dict": lambda logits: {"loss": logits.sum(), "logits": logits},
    "ModelOutput": model_output,
    "dataclass": lambda logits: Output(logits.sum(), logits),
    "tuple": lambda logits: (logits, logits.sum()),
    "tuple of an output": lambda logits: (Output(logits.sum(), logits), None),
}
BATCHES = {
    "dict": default_collate,
    "BatchEncoding": batch_encoding,
    "UserDict": lambda rows: UserDict(default_collate(rows)),
}


class Answers(Concat):
    """`Concat`, its answer wrapped in an output."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, batch):
        return self.wrap(super().forward(batch))

    def validation_step(self, batch, batch_idx):
        self.again(batch)

    def again(self, batch):
        return self(batch)


class Named(Answers):
    """The same, whose forward names its inputs, one of them with a default."""

    def forward(self, text, image, audio=None, *, scale=1.0):
        return super().forward({"text": text, "image": image, "audio": audio * scale})

    def again(self, batch):
        return self(batch["text"], batch["image"], audio=batch["audio"])


class Spread(Answers):
    """The same, which takes whatever the batch has."""

    def forward(self, **batch):
        return super().forward(batch)

    def again(self, batch):
        return self(**batch)


class NamedAndSpread(Answers):
    """The same, which names one input and takes the other modalities' with it, and nothing else."""

    def forward(self, text, **others):
        assert set(others) == {"image", "audio"}
        return super().forward({"text": text, **others})

    def again(self, batch):
        return self(batch["text"], image=batch["image"], audio=batch["audio"])


def counted(tmp_path, model, collate=default_collate, **keywords):
    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, **keywords)
    data = loader(Rows(n=40, seed=1), collate_fn=collate)
    trainer(tmp_path, watcher).validate(model, data, verbose=False)
    return watcher.scorecards["val"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return counted(tmp_path_factory.mktemp("plain"), seeded())


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_a_model_returns(output, expected, tmp_path):
    assert counted(tmp_path, seeded(Answers, wrap=OUTPUTS[output])) == expected


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("forward", [Answers, Named, Spread, NamedAndSpread])
def test_how_a_model_takes_its_batch(forward, batch, expected, tmp_path):
    card = counted(tmp_path, seeded(forward, wrap=OUTPUTS["dict"]), BATCHES[batch])
    assert card == expected
    assert set(card.info["encoders"]) == set(MODALITIES)


def test_a_models_own_method_by_predict(expected, tmp_path):
    class Silent(Concat):
        forward = None

        def answer(self, batch):
            return Concat.forward(self, batch)

        def validation_step(self, batch, batch_idx):
            self.answer(batch)

    card = counted(tmp_path, seeded(Silent), predict=lambda model, batch: model.answer(batch))
    assert card == expected


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (lambda self, words: words, r"does not take this batch \(dict\) as it is .*: pass predict=lambda model, batch"),
        (lambda self, text, sound: text, r"forward needs \['sound'\], the batch has .*: pass predict=lambda model"),
        (lambda self, batch: None, "predict gave NoneType, no logits: pass predict=lambda model, batch"),
        (
            lambda self, batch: {"scores": batch["text"]},
            r"predict gave dict with \['scores'\], no logits: pass predict",
        ),
        (lambda self, batch: batch["text"].mean(0), r"logits of shape \(8,\) for 16 samples: their axis is first"),
    ],
)
def test_a_first_batch_that_goes_wrong_says_what_to_pass(forward, told, tmp_path):
    class Wrong(Concat):
        def validation_step(self, batch, batch_idx):
            Concat.forward(self, batch)

    Wrong.forward = forward
    if "does not take" in told:
        Wrong.forward = lambda self, words: words + 1
    with pytest.raises((TypeError, ValueError), match=told):
        counted(tmp_path, seeded(Wrong))


def test_hiding_that_makes_the_model_answer_nan_is_told_from_a_model_that_does(tmp_path):
    class Direction(Concat):
        def forward(self, batch):
            unit = {name: batch[name] / batch[name].norm(dim=-1, keepdim=True) for name in MODALITIES}
            return super().forward(unit)

    told = r"NaN when it is shown only none, and does not when it is shown all: .*baseline='zero'.*give another"
    with pytest.raises(ValueError, match=told):
        counted(tmp_path, seeded(Direction))
    counted(tmp_path, seeded(Direction), baseline="shuffle")

    class Broken(Concat):
        def forward(self, batch):
            return super().forward(batch) * float("nan")

    with pytest.raises(ValueError, match="NaN or infinity came out of the model"):
        counted(tmp_path, seeded(Broken))


class Prepares(Concat):
    """Its step scales the batch before it calls forward, and logs."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        inputs = {name: batch[name] * 3 - 1 for name in MODALITIES}
        logits = self(inputs)
        self.log("right", (logits.argmax(1) == batch["label"]).float().mean(), on_epoch=True)
        return self.wrap(logits)


@pytest.mark.parametrize("wrap", ["tensor", "dict", "preds"])
def test_the_modules_own_step_answers(wrap, tmp_path):
    forms = {
        "tensor": lambda logits: logits,
        "dict": lambda logits: {"loss": logits.sum(), "logits": logits},
        "preds": lambda logits: {"preds": logits, "loss": 0},
    }
    model = seeded(Prepares)
    model.wrap = forms[wrap]
    data = loader(Rows(n=40, seed=1))
    plain = trainer(tmp_path).validate(model, data, verbose=False)[0]
    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, predict="step")
    run = trainer(tmp_path, watcher)
    assert run.validate(model, data, verbose=False)[0]["right"] == plain["right"]
    assert run.callback_metrics["val/all/accuracy"].item() == pytest.approx(plain["right"], abs=1e-6)
    card = watcher.scorecards["val"]
    for name in MODALITIES:  # hidden by hand
        batch = _whole(data)
        shown = {key: batch[key] if key == name else torch.zeros_like(batch[key]) for key in MODALITIES}
        with torch.no_grad():
            logits = model.eval()({key: value * 3 - 1 for key, value in shown.items()})
        assert card.score("accuracy", coalition=name) == pytest.approx(
            (logits.argmax(1) == batch["label"]).float().mean().item()
        )


def _whole(data):
    return default_collate([data.dataset[i] for i in range(len(data.dataset))])


def test_a_step_that_returns_no_logits_is_told_what_to_return(tmp_path):
    with pytest.raises(TypeError, match=r"validation_step gave NoneType, .*: return them as a tensor, or in {'loss'"):
        counted(tmp_path, seeded(), predict="step")


def test_a_frozen_part_stays_frozen(tmp_path):
    model = seeded()
    model.encoders["audio"].requires_grad_(False)
    model.head[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counted(tmp_path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.head] == [False, True, True]
