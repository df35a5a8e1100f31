"""Every baseline against the same input hidden by hand, in a model run whole and in parts."""

import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.inputs import Inputs
from tests.ablation_models import INPUTS, Concat, CrossAttention, Fused, by_hand, make_batch

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
KEYS = {name: (keys,) if isinstance(keys, str) else keys for name, keys in INPUTS.items()}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ablate(model, inputs=INPUTS, **options):
    ablation = ModalityAblation(model, inputs, **options)
    ablation.told = []
    ablation.say = ablation.told.append
    return ablation


def expect(model, batch, stand_ins, presence=None):
    """``(8, N, C)``: the model on the batch with rows exchanged for those of `stand_ins` ``{key: (N, ...)}``."""
    answers = []
    for mask in range(8):
        changed = dict(batch)
        for m, keys in enumerate(KEYS.values()):
            there = torch.ones(len(batch["label"]), dtype=torch.bool) if presence is None else presence[:, m]
            for key in keys:
                x = batch[key].clone()
                gone = ~there if mask >> m & 1 else torch.ones_like(there)
                x[gone] = stand_ins[key].expand_as(x)[gone].to(x.dtype)
                changed[key] = x
        with torch.no_grad():
            answers.append(model(changed))
    return torch.stack(answers)


def zeros(batch):
    return {key: torch.full_like(batch[key], int(key == "mask")) for keys in KEYS.values() for key in keys}


def check(ablation, model, stand_ins):
    """Three batches, the first answered by both ways, the last watched; with and without missing modalities."""
    for seed, presence in ((0, None), (1, None), (2, torch.rand(6, 3) > 0.4), (3, None)):
        batch = make_batch(seed=seed)
        if seed == 3:
            ablation.watch()
            model(batch)
            ablation.unwatch()
        expected = expect(model, batch, zeros(batch) | stand_ins(batch, presence), presence)
        torch.testing.assert_close(ablation(batch, presence), expected, **CLOSE)
    assert set(ablation.encoders) == set(INPUTS)


@pytest.mark.parametrize("kind", [Concat, CrossAttention])
@pytest.mark.parametrize(
    ("baseline", "stand_ins"),
    [
        ("zero", lambda batch, presence: {}),
        (0, lambda batch, presence: {"mask": torch.zeros_like(batch["mask"])}),
        ({"audio": -1.5}, lambda batch, presence: {"waveform": torch.full((16,), -1.5)}),
        ({"waveform": -1.5}, lambda batch, presence: {"waveform": torch.full((16,), -1.5)}),
        (
            {"text": {"tokens": torch.arange(7)}, "image": torch.ones(3, 6, 6)},
            lambda batch, presence: {"tokens": torch.arange(7), "pixels": torch.ones(3, 6, 6)},
        ),
        ({"image": lambda x: x.flip(-1) * 2}, lambda batch, presence: {"pixels": batch["pixels"].flip(-1) * 2}),
        ({"image": lambda x: x.mean(0)}, lambda batch, presence: {"pixels": batch["pixels"].mean(0)}),
        ({"image": lambda x: x[1:2] * 3}, lambda batch, presence: {"pixels": batch["pixels"][1] * 3}),
        (
            {"text": "zero", "image": lambda x: -x, "audio": "shuffle"},
            lambda batch, presence: {"pixels": -batch["pixels"], "waveform": batch["waveform"].roll(SHIFT, 0)},
        ),
        (
            {"text": {"tokens": "shuffle"}},  # of the modality's keys only one moves
            lambda batch, presence: {"tokens": batch["tokens"].roll(SHIFT, 0)},
        ),
    ],
)
def test_baselines(kind, baseline, stand_ins):
    if baseline == 0 and kind is CrossAttention:
        pytest.skip("a wholly closed mask is NaN in this model")
    model = kind().eval()
    if baseline == 0:
        model.text.forward = lambda tokens, mask: nn.Module.__call__(model.text.embedding, tokens) * mask.unsqueeze(-1)
    check(ablate(model, baseline=baseline), model, stand_ins)


# the shift that a seed of 0 gives for six samples
SHIFT = ModalityAblation(nn.Identity(), INPUTS)._baselines._shift(6)


@pytest.mark.parametrize("kind", [Concat, CrossAttention])
def test_shuffle_shows_another_samples_input(kind):
    model = kind().eval()
    ablation = ablate(model, baseline="shuffle")
    assert 0 < SHIFT < 6
    check(
        ablation,
        model,
        lambda batch, presence: {key: batch[key].roll(SHIFT, 0) for keys in KEYS.values() for key in keys},
    )
    assert not ablation.told
    ablation(make_batch(N=1))
    assert len([message for message in ablation.told if "no other" in message]) == 1


def test_the_shift_hangs_on_the_seed_and_moves_every_sample():
    shifts = [ModalityAblation(nn.Identity(), INPUTS, seed=seed)._baselines._shift(6) for seed in range(40)]
    assert set(shifts) == {1, 2, 3, 4, 5}


def test_shuffle_needs_no_baseline_run():
    model = Concat().eval()
    runs = []
    model.image.register_forward_hook(lambda *_: runs.append(1))  # later it would be looked at anew
    ablation = ablate(model, baseline="shuffle")
    ablation(make_batch())
    runs.clear()
    ablation(make_batch(seed=1))
    assert len(runs) == 1


def test_mean_of_the_batch_and_of_the_training_batches():
    model = Concat().eval()

    def means(batch, presence):
        there = torch.ones(6, 3, dtype=torch.bool) if presence is None else presence
        return {"pixels": batch["pixels"][there[:, 1]].mean(0), "waveform": batch["waveform"][there[:, 2]].mean(0)}

    ablation = ablate(model, baseline="mean")
    check(ablation, model, means)

    assert ablation.wants_means
    train = [make_batch(N, seed=10 + N) for N in (4, 7)]
    for batch in train:
        ablation.add_to_means(batch)
    ablation.use_means()
    kept = {key: torch.cat([batch[key] for batch in train]).mean(0) for key in ("pixels", "waveform")}
    assert set(ablation.means) == set(kept)
    for key, mean in kept.items():
        torch.testing.assert_close(ablation.means[key].float(), mean)
    check(ablation, model, lambda batch, presence: kept)
    ablation.means = {"pixels": torch.ones(3, 6, 6)}
    check(ablation, model, lambda batch, presence: means(batch, presence) | {"pixels": torch.ones(3, 6, 6)})


def test_means_over_ranks_and_uneven_lengths():
    ablations = [ablate(Concat(), baseline="mean") for _ in range(2)]
    batches = [make_batch(N, seed=N) for N in (3, 5)]
    for ablation, batch in zip(ablations, batches, strict=True):
        ablation.add_to_means(batch)
    ablations[1].add_to_means(make_batch() | {"waveform": torch.randn(6, 20)})
    sent = []
    ablations[0].use_means(lambda tensor: (sent.append(tensor), tensor)[1])
    received = iter(sent)
    shapes = []

    def all_reduce(tensor):
        other = next(received)
        shapes.append((tensor.shape, other.shape))
        return tensor + other

    ablations[1].use_means(all_reduce)
    assert set(ablations[1].means) == {"pixels"}  # the waveforms differ in length
    assert all(mine == theirs for mine, theirs in shapes)


def test_only_mean_wants_means():
    assert not ablate(Concat()).wants_means
    assert ablate(Concat(), baseline={"image": {"pixels": "mean"}}).wants_means


class StandsIn(Fused):
    """Has its own stand-in for what is missing, and reads it from the presence entry."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.missing = nn.Parameter(torch.randn(3, 8))

    def forward(self, batch):
        there = batch["presence"]
        if self.form == "mapping":
            there = torch.stack([there[name] for name in INPUTS], 1)
        features = torch.where(there.bool().unsqueeze(-1), torch.stack(self.encode(batch), 1), self.missing)
        return self.head(features.flatten(1))


@pytest.mark.parametrize("form", ["bool", "int", "mapping"])
@pytest.mark.parametrize("baseline", ["zero", "presence"])
def test_a_models_own_stand_in_is_used(form, baseline):
    model = StandsIn(form).eval()
    ablation = ablate(model, baseline=baseline, presence="presence")

    def with_presence(batch, presence):
        if form == "mapping":
            return batch | {"presence": {name: presence[:, m] for m, name in enumerate(INPUTS)}}
        return batch | {"presence": presence.int() if form == "int" else presence}

    for seed in range(4):
        presence = torch.ones(6, 3, dtype=torch.bool) if seed in (0, 3) else torch.rand(6, 3) > 0.4
        batch = with_presence(make_batch(seed=seed), presence)
        if seed > 1:
            ablation.watch()
            model(batch)
            ablation.unwatch()
        found = ablation(batch)
        for mask in range(8):
            shown = presence & torch.tensor([bool(mask >> m & 1) for m in range(3)])
            with torch.no_grad():
                torch.testing.assert_close(found[mask], model(with_presence(make_batch(seed=seed), shown)), **CLOSE)
    assert ablation.encoders == {name: (name,) for name in INPUTS}


def test_presence_by_hand_takes_the_place_of_the_batchs():
    model = StandsIn("bool").eval()
    ablation = ablate(model, presence="presence")
    mine = torch.rand(6, 3) > 0.5
    for seed in range(2):
        batch = make_batch(seed=seed) | {"presence": torch.ones(6, 3, dtype=torch.bool)}
        replaced = batch | {"presence": mine}
        assert torch.equal(ablation(batch, mine), ablation(replaced))
        torch.testing.assert_close(
            ablation(batch, {name: mine[:, m] for m, name in enumerate(INPUTS)}), ablation(replaced)
        )
        ablation.watch()
        model(replaced)
        ablation.unwatch()
        torch.testing.assert_close(ablation(replaced, torch.ones_like(mine)), ablation(batch))


def test_encoders_that_read_the_presence_are_not_split_from_it():
    class Reads(Fused):
        class Masked(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, waveform, there):
                return self.inner(waveform) * there.unsqueeze(-1) + 1

        def __init__(self):
            super().__init__()
            self.audio = self.Masked(self.audio)

        def forward(self, batch):
            there = batch["presence"]
            audio = self.audio(batch["waveform"], there[:, 2])
            text = self.text(batch["tokens"], batch["mask"]).mean(1)
            return self.head(torch.cat([text, self.image(batch["pixels"]), audio], -1))

    model = Reads().eval()
    ablation = ablate(model, presence="presence")
    for seed in range(3):
        batch = make_batch(seed=seed) | {"presence": torch.rand(6, 3) > 0.3}
        found = ablation(batch)
        for mask in range(8):
            shown = batch["presence"] & torch.tensor([bool(mask >> m & 1) for m in range(3)])
            changed = by_hand(lambda b: model(b | {"presence": shown}), batch, INPUTS, batch["presence"])  # noqa: B023
            torch.testing.assert_close(found[mask], changed[mask], **CLOSE)
    assert ablation.encoders["audio"] == ("audio.inner",)


def test_encoders_that_read_what_belongs_to_no_modality_are_not_split_from_it():
    class Scaled(Fused):
        class Inner(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, tokens, mask, label):
                return (self.inner(tokens, mask) + 1) * (1 + label)[:, None, None]

        def __init__(self):
            super().__init__()
            self.text = self.Inner(self.text)

        def forward(self, batch):
            text = self.text(batch["tokens"], batch["mask"], batch["label"]).mean(1)
            return self.head(torch.cat([text, self.image(batch["pixels"]), self.audio(batch["waveform"])], -1))

    model = Scaled().eval()
    ablation = ablate(model)
    for seed in range(3):
        batch = make_batch(seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert ablation.encoders == {"text": ("text.inner",), "image": ("image",), "audio": ("audio",)}


def test_padding_masks_of_torch_are_opened_by_false():
    class Padded(Fused):
        def forward(self, batch):
            text = self.text(batch["tokens"], ~batch["padding_mask"]).mean(1)
            return self.head(torch.cat([text, self.image(batch["pixels"]), self.audio(batch["waveform"])], -1))

    model = Padded().eval()
    ablation = ablate(model, INPUTS | {"text": ("tokens", "padding_mask")})
    for seed in range(2):
        batch = make_batch(seed=seed)
        batch["padding_mask"] = ~batch["mask"]
        found = ablation(batch)
        assert found.isfinite().all()
        plain = by_hand(Concat.forward.__get__(model), batch, INPUTS)
        torch.testing.assert_close(found, plain, **CLOSE)
    assert len([message for message in ablation.told if "padding mask as torch has them" in message]) == 1


def test_integers_shown_as_zero_are_said_once():
    ablation = ablate(Concat().eval())
    for seed in range(3):
        ablation(make_batch(seed=seed))
    told = [message for message in ablation.told if "may be a word" in message]
    assert len(told) == 1
    assert "baseline={'text': {'tokens': ids}}" in told[0]


def test_what_is_wrong_is_refused_with_what_would_be_right():
    model = Concat().eval()
    with pytest.raises(ValueError, match="baseline='average' is not known: one of"):
        ModalityAblation(model, INPUTS, baseline="average")
    with pytest.raises(ValueError, match="baseline names \\['video'\\]: the modalities and their keys are"):
        ModalityAblation(model, INPUTS, baseline={"video": 0})
    with pytest.raises(ValueError, match="name that entry by presence="):
        ModalityAblation(model, INPUTS, baseline={"text": "presence"})
    with pytest.raises(ValueError, match=r"baseline\['text'\] names \['word'\]: the keys of text are"):
        ablate(model, baseline={"text": {"word": 0}})(make_batch())
    with pytest.raises(ValueError, match=r"baseline of 'waveform' has shape \(3,\), one sample has \(16,\)"):
        ablate(model, baseline={"audio": torch.zeros(3)})(make_batch())
    with pytest.raises(ValueError, match="presence holds values other than 0 and 1"):
        ablate(model)(make_batch(), torch.full((6, 3), 2))
    with pytest.raises(ValueError, match=r"presence has shape \(6, 2\), expected \(6, 3\)"):
        ablate(model)(make_batch(), torch.ones(6, 2, dtype=torch.bool))


def test_inputs_that_are_wrong_are_refused():
    with pytest.raises(TypeError, match="inputs maps each modality to its keys"):
        Inputs(["text"])
    with pytest.raises(ValueError, match=r"names \['tokens'\] more than once"):
        Inputs({"text": "tokens", "image": ("tokens", "pixels")})
    with pytest.raises(ValueError, match="presence says what is there"):
        Inputs({"text": "tokens"}, presence="tokens")
    with pytest.raises(ValueError, match=r"inputs\['text'\] is empty"):
        Inputs({"text": ()})
