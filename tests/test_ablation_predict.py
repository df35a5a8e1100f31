"""How a batch goes into a model, how its logits come out, and what is said where they don't."""

from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.batch import read_key
from mm_metrics.ablation.predict import call, logits
from tests.ablation_models import INPUTS, Concat, make_batch


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, left, right=None, *, scale=1.0):
        return self.net(left + (0 if right is None else right)) * scale


class Anything(Named):
    def forward(self, **inputs):
        return super().forward(inputs["left"], inputs.get("right"))


def test_a_mapping_is_spread_over_the_keywords_that_the_forward_names():
    left, right = torch.randn(2, 4), torch.randn(2, 4)
    for batch in ({"left": left, "right": right, "label": 1}, UserDict(left=left, right=right, label=1)):
        for model in (Named(), Anything()):
            assert torch.equal(call(model, batch), model.net(left + right))
    assert torch.equal(call(model, {"left": left}), model.net(left))
    with pytest.raises(TypeError, match=r"Named.forward needs \['left'\], the batch has \['right'\]: pass predict="):
        call(Named(), {"right": right})


def test_a_forward_that_names_no_key_takes_the_batch():
    class Whole(nn.Module):
        def forward(self, batch):
            return batch["left"]

    assert call(Whole(), {"left": 3}) == 3
    assert call(nn.Identity(), (1, 2)) == (1, 2)


def test_a_glimpse_is_of_two_samples_unless_they_cannot_stand_for_the_batch():
    class Sizes(Concat):
        output, least = staticmethod(lambda logits: logits), 1

        def forward(self, batch):
            logits = super().forward(batch)
            if len(logits) < self.least:
                raise ValueError("too few")
            return self.output(logits)

    model = Sizes().eval()
    ablation = ModalityAblation(model, INPUTS)
    assert len(ablation.glimpse(make_batch(N=6))) == 2
    model.output = lambda logits: {"all": logits}  # heads are to be looked at whole
    assert len(ablation.glimpse(make_batch(N=6))["all"]) == 6
    model.output, model.least = lambda logits: logits, 3
    assert len(ablation.glimpse(make_batch(N=6))) == 6
    model.least = 7
    with pytest.raises(ValueError, match="too few"):
        ablation.glimpse(make_batch(N=6))


def test_a_forward_of_any_arguments_takes_the_batch():
    class Any(nn.Module):
        def forward(*args, **kwargs):
            return len(args), list(kwargs)

    class Own(nn.Module):
        pass

    own = Own()
    own.forward = lambda left, right=2: left + right
    assert call(Any(), {"left": 3}) == (2, [])
    assert call(own, {"left": 3, "label": 1}) == 5


def test_logits_are_found_in_what_a_model_returns():
    x = torch.ones(2)
    for output in (
        x,
        {"logits": x},
        SimpleNamespace(logits=x, loss=0),
        (x, "loss"),
        [x],
        ({"logits": x}, 1),
        {"all": x},
    ):
        assert logits(output) is x
    with pytest.raises(TypeError, match=r"predict gave dict with \['scores'\], no logits"):
        logits({"scores": x})
    with pytest.raises(TypeError, match="predict gave NoneType, no logits"):
        logits(None)


@pytest.mark.parametrize(
    ("inputs", "batch", "told"),
    [
        (
            {"text": "words"},
            make_batch(),
            r"inputs\['text'\]: 'words' is not in the batch \(dict\), which has \['tokens', ",
        ),
        ({"text": 9}, tuple(make_batch().values()), r"9 is not in the batch \(tuple\), which has \[0, 1, 2, 3, 4\]"),
        ({"text": "words"}, SimpleNamespace(**make_batch()), r"which has \['tokens', 'mask'"),
    ],
)
def test_a_wrong_key_is_answered_with_those_that_are_there(inputs, batch, told):
    ablation = ModalityAblation(Concat(), inputs)
    for error in (KeyError, ValueError):
        with pytest.raises(error, match=told):
            ablation(batch)


def test_wrong_keys_elsewhere():
    batch = make_batch()
    with pytest.raises(KeyError, match=r"presence 'there' is not in the batch \(dict\), which has"):
        ModalityAblation(Concat(), INPUTS, presence="there")(batch)
    with pytest.raises(KeyError, match=r"key 'target' is not in the batch \(dict\), which has \['tokens'"):
        read_key(batch, "target")
    assert read_key((5, 6), -1) == 6
    assert read_key(SimpleNamespace(a=torch.ones(1), b=2), "b") == 2


def test_a_model_that_does_not_take_the_batch_is_told_what_to_pass():
    batch = tuple(make_batch().values())
    with pytest.raises(TypeError, match=r"Concat does not take this batch \(tuple\).*pass predict=lambda model, batch"):
        ModalityAblation(Concat(), {"image": 2})(batch)
    with pytest.raises(TypeError, match="pass predict=lambda model, batch"):
        ModalityAblation(Named(), {"left": 0})((torch.ones(2, 4), torch.ones(2, 4), 3))


def test_an_error_of_the_model_itself_is_the_models():
    class Broken(Concat):
        def forward(self, batch):
            raise RuntimeError("the model's own")

    with pytest.raises(RuntimeError, match="the model's own"):
        ModalityAblation(Broken(), {"image": "pixels"})(make_batch())


def test_what_can_not_be_hidden_is_refused():
    batch = make_batch()
    with pytest.raises(TypeError, match=r"inputs\['text'\]: 'words' holds no tensor in this batch"):
        ModalityAblation(Concat(), {"text": "words"})(batch | {"words": [1] * 6})
    with pytest.raises(ValueError, match=r"first axis is the samples, equally many.*pixels \(6, 3, 6, 6\)"):
        ModalityAblation(Concat(), {"image": "pixels", "audio": "waveform"})(batch | {"waveform": torch.ones(5, 16)})
    with pytest.raises(ValueError, match=r"logits of shape \(5,\) for 6 samples"):
        ModalityAblation(Concat(), {"image": "pixels"}, predict=lambda model, batch: torch.zeros(5))(batch)
    with pytest.raises(TypeError, match=r"model is a torch.nn.Module, got function: give the function as predict="):
        ModalityAblation(lambda batch: batch, INPUTS)
    with pytest.raises(TypeError, match="predict is a function of model and batch, got str"):
        ModalityAblation(Concat(), INPUTS, predict="forward")


def test_predict_may_take_the_batch_alone_and_be_wrapped():
    model = Concat().eval()
    batch = make_batch()
    with torch.no_grad():
        expected = model(batch).softmax(-1)
    for predict in (lambda batch: model(batch).softmax(-1), lambda model, batch: model(batch).softmax(-1)):
        ablation = ModalityAblation(model, {"image": "pixels"}, predict=predict)
        assert torch.equal(ablation(batch)[-1], expected)
        assert torch.equal(ablation.predict(batch), expected)
        ablation.wrap(lambda predict: lambda model, batch: predict(model, batch) + 1)
        torch.testing.assert_close(ablation.predict(batch), expected + 1)


def test_one_head_a_modality_is_handed_on():
    model = Concat().eval()
    heads = ModalityAblation(
        model, {"image": "pixels"}, predict=lambda model, batch: {"all": model(batch), "image": -model(batch)}
    )
    batch = make_batch()
    raw = heads.raw(batch)
    assert set(raw) == {"all", "image"}
    assert torch.equal(heads.predict(batch), raw["all"])
    heads.watch()
    with torch.no_grad():
        model(batch)
    heads.unwatch()
    assert torch.equal(heads.raw(batch)["image"], raw["image"])
