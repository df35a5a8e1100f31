"""The ablation of a model in parts against the same model run whole on hidden inputs, and what it costs."""

import dataclasses
import warnings

import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.predict import call, logits
from tests.ablation_models import (
    INPUTS,
    Batch,
    Concat,
    CrossAttention,
    Frames,
    Fused,
    Gated,
    Joined,
    Keywords,
    Late,
    Layers,
    Runs,
    by_hand,
    hidden,
    make_batch,
)

MODELS = [Concat, Keywords, Gated, CrossAttention, Late, Layers, Frames]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def ablate(model, inputs=INPUTS, **options):
    """An ablation that collects what it says in ``.told``."""
    ablation = ModalityAblation(model, inputs, **options)
    ablation.told = []
    ablation.say = ablation.told.append
    return ablation


def answer(model):
    return lambda batch: logits(call(model, batch))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", MODELS)
def test_parts_answer_as_the_whole(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed, N, T in ((0, 6, 7), (1, 6, 7), (2, 3, 4), (3, 1, 7), (4, 9, 2)):
        batch = make_batch(N, T, seed)
        torch.testing.assert_close(ablation(batch), by_hand(answer(model), batch, INPUTS), **CLOSE)
    assert set(ablation.encoders) == set(INPUTS)
    assert not [message for message in ablation.told if "hidden and" in message]


@pytest.mark.parametrize("kind", MODELS)
def test_a_missing_modality_is_a_hidden_one(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed in range(3):
        batch = make_batch(seed=seed)
        presence = torch.rand(6, 3) > 0.4
        torch.testing.assert_close(ablation(batch, presence), by_hand(answer(model), batch, INPUTS, presence), **CLOSE)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_watching_the_users_forward_gives_the_same(kind, context):
    model = kind().eval()
    ablation = ablate(model)
    with context():
        for seed in range(3):
            batch = make_batch(seed=seed)
            ablation.watch()
            own = answer(model)(batch)
            ablation.unwatch()
            found = ablation(batch)
            assert not found.requires_grad
            torch.testing.assert_close(found, by_hand(answer(model), batch, INPUTS), **CLOSE)
            assert torch.equal(ablation.predict(batch), own)


def test_encoders_run_once_a_batch_and_once_for_the_baseline():
    model = Concat().eval()
    runs = Runs(model, "text", "image", "audio", "head")
    ablation = ablate(model)
    ablation(make_batch(seed=0))
    runs.take()
    ablation(make_batch(seed=1))
    assert runs.take() == {"text": 1, "image": 1, "audio": 1, "head": 2}  # its own pass, seven in one larger batch
    ablation(make_batch(T=5, seed=2))  # another shape of the text: its baseline once more, and that alone
    assert runs.take() == {"text": 2, "image": 1, "audio": 1, "head": 2}
    ablation(make_batch(T=5, seed=3))
    assert runs.take() == {"text": 1, "image": 1, "audio": 1, "head": 2}
    ablation(make_batch(N=1, T=5, seed=3))
    assert runs.take() == {"text": 1, "image": 1, "audio": 1, "head": 2}


class Rows:
    """How many rows a module is given."""

    def __init__(self, module):
        self.seen = []
        module.register_forward_pre_hook(lambda module, args: self.seen.append(len(args[0])))


@pytest.mark.parametrize("kind", MODELS)
def test_of_a_large_first_batch_some_rows_are_answered_both_ways(kind):
    model = kind().eval()
    batch = make_batch(N=80)
    reference = by_hand(answer(model), batch, INPUTS)
    ablation = ablate(model)
    rows = Rows(model.text.embedding)
    torch.testing.assert_close(ablation(batch), reference, **CLOSE)
    assert ablation.encoders.keys() == set(INPUTS)
    assert sum(rows.seen) < 3 * 80  # both ways it would be 8 * 80 and more
    rows.seen.clear()
    ablation(make_batch(N=80, seed=1))
    assert rows.seen == [80]


def test_rows_that_look_at_each_other_are_answered_both_ways_all():
    class Centred(Concat):
        def forward(self, batch):
            return super().forward(batch) - batch["waveform"].mean()

    model, batch = Centred().eval(), make_batch(N=80)
    rows = Rows(model.text.embedding)
    ablation = ablate(model)
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert sum(rows.seen) > 8 * 80
    batch = make_batch(N=80, seed=1)
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


def test_several_rows_a_sample_have_their_baseline_encoded_for_one_sample():
    model = Frames().eval()
    rows = Rows(model.image)  # before the first batch: what comes later changes the model, which is looked at anew
    ablation = ablate(model)
    ablation(make_batch(N=12))
    ablation.forget()
    rows.seen.clear()
    ablation(make_batch(N=12, seed=1))
    assert sorted(rows.seen) == [2, 24]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_fusion_that_begins_to_write_into_what_it_is_given(context, monkeypatch):
    class Halves(Concat):
        begun = False

        def encode(self, batch):
            self.features = super().encode(batch)
            if self.begun:
                self.features[1].mul_(0.5)
            return self.features

    model = Halves().eval()
    with context():
        ablation = ablate(model)
        ablation(make_batch())
        monkeypatch.setattr("mm_metrics.ablation.split.CHUNK_BYTES_CPU", 1)  # one coalition at a time
        model.begun = True
        for seed in (1, 2):
            batch = make_batch(seed=seed)
            if seed == 2:
                ablation.watch()
            model(batch)
            ablation.unwatch()
            own = model.features[1]
            before = own.clone()
            answer = ablation(batch)
            torch.testing.assert_close(answer, by_hand(model, batch, INPUTS), **CLOSE)
            assert torch.equal(own, before)


def test_a_watched_batch_runs_no_encoder_again():
    model = Concat().eval()
    runs = Runs(model, "text", "image", "audio", "head")
    ablation = ablate(model)
    ablation(make_batch())
    batch = make_batch(seed=1)
    ablation.watch()
    model(batch)
    ablation.unwatch()
    runs.take()
    ablation(batch)
    assert runs.take() == {"text": 0, "image": 0, "audio": 0, "head": 1}
    ablation.predict(batch)
    assert sum(runs.take().values()) == 0
    presence = torch.ones(6, 3, dtype=torch.bool)
    presence[0, 2] = False
    ablation(batch, presence)
    assert runs.take() == {"text": 0, "image": 0, "audio": 0, "head": 1}


def test_a_model_in_one_piece_costs_one_forward_less_than_there_are_coalitions():
    model = Joined().eval()
    runs = Runs(model, "net")
    inputs = {"text": "tokens", "audio": "waveform"}
    ablation = ablate(model, inputs)
    ablation(make_batch())
    assert [m for m in ablation.told if "hidden and the whole model runs 4 times" in m]
    assert ablation.encoders == {}
    batch = make_batch(seed=1)
    runs.take()
    ablation.watch()
    model(batch)
    ablation.unwatch()
    found = ablation(batch)
    assert runs.take() == {"net": 4}
    assert torch.equal(found, by_hand(model, batch, inputs))
    told = len(ablation.told)
    ablation(make_batch(seed=2))
    assert runs.counts["net"] == 4 + 4
    assert len(ablation.told) == told


def test_the_baseline_is_encoded_anew_when_weights_change():
    model = Concat().eval()
    ablation = ablate(model)
    batch = make_batch()
    ablation(batch)
    runs = Runs(model, "text", "image")
    with torch.no_grad():
        model.image[0].weight.mul_(1.3)
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    runs.take()
    ablation(batch)
    model.image[0].weight.data.mul_(1.3)  # unseen by versions
    ablation(batch)
    assert runs.take() == {"text": 2, "image": 3}
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    model.image[1].running_mean += 0.5
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


@pytest.mark.parametrize("few", [0, 2**14], ids=["sums of bits", "all bytes"])
def test_what_was_kept_serves_only_the_tensors_it_was_made_from(few, monkeypatch):
    monkeypatch.setattr("mm_metrics.ablation.stamps.FEW", few)
    model = Concat().eval()
    ablation = ablate(model)
    ablation(make_batch())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            batch = make_batch(seed=1)
            ablation.watch()
            model(batch | {"pixels": batch["pixels"] + 1})  # a step that prepares its batch
            ablation.unwatch()
            torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
            assert torch.equal(ablation.predict(batch), model(batch))
            ablation.watch()
            model(batch)
            ablation.unwatch()
            batch["waveform"].mul_(2)  # the same tensor, other values
            torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
            ablation.watch()
            model(batch)
            ablation.unwatch()
            other = make_batch(seed=2)
            torch.testing.assert_close(ablation(other), by_hand(model, other, INPUTS), **CLOSE)


def test_what_was_kept_in_training_mode_does_not_serve():
    model = Concat().train()
    ablation = ablate(model)
    ablation(make_batch())
    batch = make_batch(seed=1)
    ablation.watch()
    model(batch)
    ablation.unwatch()
    found = ablation(batch)
    assert model.training
    torch.testing.assert_close(found, by_hand(model.eval(), batch, INPUTS), **CLOSE)


def test_what_was_kept_under_another_precision_does_not_serve():
    model = Concat().eval()
    ablation = ablate(model)
    ablation(make_batch())
    batch = make_batch(seed=1)
    ablation.watch()
    with torch.autocast("cpu", torch.bfloat16):
        model(batch)
    ablation.unwatch()
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    with torch.autocast("cpu", torch.bfloat16):
        found = ablation(batch)
        torch.testing.assert_close(found, by_hand(model, batch, INPUTS), rtol=3e-2, atol=3e-2)


def test_a_step_that_calls_the_encoders_itself_is_watched_too():
    model = Concat().eval()
    runs = Runs(model, "text", "image", "audio", "head")
    ablation = ablate(model)
    ablation(make_batch())
    runs.take()
    batch = make_batch(seed=1)
    ablation.watch()
    model.image(batch["pixels"]), model.audio(batch["waveform"]), model.text(batch["tokens"], batch["mask"])
    ablation.unwatch()
    found = ablation(batch)
    assert runs.take() == {"text": 1, "image": 1, "audio": 1, "head": 1}
    torch.testing.assert_close(found, by_hand(model, batch, INPUTS), **CLOSE)


class SharedEncoder(Fused):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(16, 8), nn.Tanh())
        self.mix = nn.Linear(16, 5)

    def forward(self, batch):
        left, right = self.shared(batch["left"]), self.shared(batch["right"])
        return self.mix(torch.cat([left, right], -1)) + self.shared(batch["left"] * batch["right"])[:, :5]


def test_one_encoder_serves_two_modalities():
    model = SharedEncoder().eval()
    inputs = {"left": "left", "right": "right"}
    runs = Runs(model, "shared", "mix")
    ablation = ablate(model, inputs)
    for seed in range(3):
        torch.manual_seed(seed)
        batch = {"left": torch.randn(4, 16), "right": torch.randn(4, 16), "label": torch.zeros(4)}
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, inputs), **CLOSE)
        runs.take()
        ablation.watch()
        model(batch)
        ablation.unwatch()
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, inputs), **CLOSE)
    assert ablation.encoders == {"left": ("shared",), "right": ("shared",)}


class Outputs(Fused):
    """Encoders that return a dict, a dataclass and a tuple; the fusion writes into each of them."""

    @dataclasses.dataclass
    class Out:
        features: torch.Tensor
        name: str = "image"

    class TextOut(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, tokens, mask):
            hidden = self.inner(tokens, mask)
            return {"hidden": hidden, "pooled": hidden.mean(1), "none": None}

    class ImageOut(TextOut):
        def forward(self, pixels):
            return Outputs.Out(self.inner(pixels))

    class AudioOut(TextOut):
        def forward(self, waveform):
            return self.inner(waveform), (torch.ones(3), 7)

    def __init__(self):
        super().__init__()
        self.text, self.image, self.audio = (
            self.TextOut(self.text),
            self.ImageOut(self.image),
            self.AudioOut(self.audio),
        )

    def forward(self, batch):
        text, image = self.text(batch["tokens"], batch["mask"]), self.image(batch["pixels"])
        audio, (scale, _) = self.audio(batch["waveform"])
        text["pooled"] = text["pooled"] / 2
        text["pooled"].add_(1)
        image.features = image.features * 2
        audio.mul_(scale[0] + 1)
        return self.head(torch.cat([text["pooled"], image.features, audio], -1))


def test_encoders_may_return_anything_and_the_fusion_may_write_into_it():
    model = Outputs().eval()
    ablation = ablate(model)
    for seed in range(3):
        batch = make_batch(seed=seed)
        if seed:
            ablation.watch()
            model(batch)
            ablation.unwatch()
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert ablation.encoders == {name: (name,) for name in INPUTS}


class LeavesTorch(Concat):
    """The audio goes through numpy inside its encoder, and the text's length through Python outside."""

    class Spectrum(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, waveform):
            spectrum = abs(waveform.numpy()).cumsum(-1)
            return self.inner(torch.from_numpy(spectrum).to(waveform.dtype))

    def __init__(self):
        super().__init__()
        self.audio = self.Spectrum(self.audio)

    def forward(self, batch):
        longest = int(batch["mask"].sum(1).max())
        text = self.text(batch["tokens"], batch["mask"])[:, :longest].sum(1) / longest
        return self.head(torch.cat([text, self.image(batch["pixels"]), self.audio(batch["waveform"])], -1))


def test_values_that_leave_torch_are_followed():
    model = LeavesTorch().eval()
    runs = Runs(model, "text", "audio")
    ablation = ablate(model)
    ablation(make_batch())
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        batch["mask"][:, 3 + seed :] = False
        runs.take()
        found = ablation(batch)
        assert runs.take() == {"text": 1, "audio": 1}
        torch.testing.assert_close(found, by_hand(model, batch, INPUTS), **CLOSE)
    assert ablation.encoders["audio"] == ("audio",)


class Hides(Concat):
    """A dependence that no one can see: the text's encoder reads a byte of the pixels that lies on a shelf."""

    class Peeks(nn.Module):
        def __init__(self, inner, shelf):
            super().__init__()
            self.inner, self.shelf = inner, shelf

        def forward(self, tokens, mask):
            return self.inner(tokens, mask) * (1 + self.shelf[0])

    def __init__(self):
        super().__init__()
        self.shelf = [0]
        self.text = self.Peeks(self.text, self.shelf)

    def forward(self, batch):
        self.shelf[0] = batch["pixels"].untyped_storage()[3]
        return super().forward(batch)


def test_where_the_parts_disagree_inputs_are_hidden_and_it_is_said_once():
    model = Hides().eval()
    ablation = ablate(model)
    for seed in range(3):
        batch = make_batch(seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    told = [message for message in ablation.told if "give other logits than the whole" in message]
    assert len(told) == 1
    assert ablation.encoders == {}


class OncePerBatch(Concat):
    """Takes another way from the third batch on, with another number of encoder calls."""

    twice = False

    def forward(self, batch):
        if self.twice:
            self.image(batch["pixels"])
            return super().forward(batch | {"pixels": batch["pixels"] * 2})
        return super().forward(batch)


def test_a_model_that_takes_another_way_later_is_noticed():
    model = OncePerBatch().eval()
    ablation = ablate(model)
    ablation(make_batch())
    model.twice = True
    batch = make_batch(seed=1)
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert [message for message in ablation.told if "otherwise than when it was followed" in message]


def test_encoders_named_by_hand():
    model = Layers().eval()
    ablation = ablate(model, encoders={"image": "image.4", "audio": model.audio.rnn})
    for seed in range(2):
        batch = make_batch(seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert ablation.encoders == {"image": ("image.4",), "audio": ("audio.rnn",)}
    with pytest.raises(ValueError, match=r"encoders\['image'\]='vision' is no module"):
        ModalityAblation(model, INPUTS, encoders={"image": "vision"})
    with pytest.raises(ValueError, match="auto"):
        ModalityAblation(model, INPUTS, encoders="best")


def test_without_encoders_every_coalition_is_a_whole_forward():
    model = Concat().eval()
    runs = Runs(model, "text", "head")
    ablation = ablate(model, encoders=None)
    for seed in range(2):
        batch = make_batch(seed=seed)
        ablation.watch()
        model(batch)
        ablation.unwatch()
        runs.take()
        assert torch.equal(ablation(batch), by_hand(model, batch, INPUTS))
        assert runs.take()["head"] == 8 + 8  # ours, and those by hand
    assert not [message for message in ablation.told if "whole model" in message]


def test_a_compiled_model_is_run_whole_and_it_is_said():
    model = Concat().eval()
    compiled = torch.compile(model, backend="eager")
    ablation = ablate(compiled)
    batch = make_batch()
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    ablation(batch)
    assert len([message for message in ablation.told if "is compiled" in message]) == 1


def test_coalitions_by_name_and_their_order():
    model = Concat().eval()
    batch = make_batch()
    every = by_hand(model, batch, INPUTS)
    ablation = ablate(model, coalitions=["all", "audio-text", "none"])
    assert ablation.masks == (7, 5, 0)
    for _ in range(2):
        torch.testing.assert_close(ablation(batch), every[[7, 5, 0]], **CLOSE)


def test_twelve_modalities():
    names = [f"m{i}" for i in range(12)]

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(3, 4) for _ in names)
            self.head = nn.Linear(48, 3)

        def forward(self, batch):
            return self.head(torch.cat([part(batch[n]) for part, n in zip(self.parts, names, strict=True)], -1).tanh())

    model = Many().eval()
    ablation = ablate(model, {name: name for name in names})
    assert len(ablation.masks) == 134
    for seed in range(2):
        torch.manual_seed(seed)
        batch = {name: torch.randn(4, 3) for name in names}
        found = ablation(batch)
        for k in (0, 5, 77, 133):
            shown = {n: torch.full((4,), bool(ablation.masks[k] >> i & 1)) for i, n in enumerate(names)}
            expected = model(hidden(batch, {n: n for n in names}, shown))
            torch.testing.assert_close(found[k], expected, **CLOSE)


def test_a_large_batch_is_cut_into_pieces(monkeypatch):
    import mm_metrics.ablation.split as split

    model = Gated().eval()
    ablation = ablate(model)
    ablation(make_batch())
    runs = Runs(model, "head")
    monkeypatch.setattr(split, "CHUNK_SAMPLES", 13)
    batch = make_batch(seed=1)
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert runs.take()["head"] - 8 == 1 + 4  # seven coalitions, two at a time


def test_memory_that_runs_out_halves_the_pieces():
    class Small(Gated):
        def forward(self, batch):
            if len(batch["label"]) > 20:
                raise torch.OutOfMemoryError("no room")
            return super().forward(batch)

    model = Small().eval()
    ablation = ablate(model)
    ablation(make_batch(N=2))
    batch = make_batch()
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


class NeedsWholeBatch(Concat):
    """Its fusion knows the batch's size by heart, and its image encoder breaks on one row."""

    class Squeezed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixels):
            return self.inner(pixels).squeeze(0).flatten(1)

    def __init__(self):
        super().__init__()
        self.image = self.Squeezed(self.image)

    def forward(self, batch):
        return super().forward(batch) + torch.linspace(0, 1, len(batch["label"]))[:, None]


def test_a_fusion_that_takes_no_larger_batch_is_looped():
    model = NeedsWholeBatch().eval()
    runs = Runs(model, "image", "head")
    ablation = ablate(model)
    ablation(make_batch())
    runs.take()
    batch = make_batch(seed=1)
    found = ablation(batch)
    assert runs.take() == {"image": 2, "head": 8}
    torch.testing.assert_close(found, by_hand(model, batch, INPUTS), **CLOSE)


def test_a_model_that_says_the_same_to_all_proves_nothing_yet():
    model = Hides().eval()
    with torch.no_grad():
        model.head.weight.zero_()
    ablation = ablate(model)
    ablation(make_batch())
    nn.init.normal_(model.head.weight)
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


FORMS = {
    "dict": (dict, lambda key: key),
    "tuple": (lambda b: tuple(b.values()), lambda key: list(make_batch()).index(key)),
    "list": (lambda b: list(b.values()), lambda key: list(make_batch()).index(key) - 5),
    "NamedTuple": (lambda b: Batch(**b), lambda key: key),
    "dataclass": (lambda b: dataclasses.make_dataclass("Sample", b, frozen=True)(**b), lambda key: key),
    "object": (lambda b: type("Sample", (), {})(), lambda key: key),
}


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_every_form(form):
    make, key = FORMS[form]
    model = Concat().eval()
    inputs = {"text": (key("tokens"), key("mask")), "image": key("pixels"), "audio": (key("waveform"),)}

    def read(batch, name):
        return batch[key(name)] if isinstance(key(name), int) else getattr(batch, name, None)

    def predict(model, batch):
        named = batch if isinstance(batch, dict) else {name: read(batch, name) for name in make_batch()}
        return model(named)

    ablation = ablate(model, inputs, predict=predict)
    for seed in range(3):
        plain = make_batch(seed=seed)
        batch = make(plain)
        if form == "object":
            vars(batch).update(plain)
        ablation.watch()
        model(plain)
        ablation.unwatch()
        torch.testing.assert_close(ablation(batch), by_hand(model, plain, INPUTS), **CLOSE)
    assert set(ablation.encoders) == set(INPUTS)


def test_a_key_may_hold_a_mapping():
    model = Concat().eval()

    def predict(batch):
        return model({**batch["text"], **batch["rest"]})

    ablation = ablate(model, {"text": "text", "image": "rest"}, predict=predict)
    for seed in range(2):
        flat = make_batch(seed=seed)
        batch = {
            "text": {"tokens": flat["tokens"], "mask": flat["mask"]},
            "rest": {"pixels": flat["pixels"], "waveform": flat["waveform"]},
        }
        expected = by_hand(model, flat, {"text": ("tokens", "mask"), "image": ("pixels", "waveform")})
        torch.testing.assert_close(ablation(batch), expected, **CLOSE)


def test_it_speaks_by_warnings_unless_told_otherwise():
    ablation = ModalityAblation(Concat().eval(), INPUTS)
    with pytest.warns(UserWarning, match="'tokens' holds integers"):
        ablation(make_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ablation(make_batch())
