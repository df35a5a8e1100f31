"""Batches of any form: paths, absent modalities, texts, lists of one tensor a sample, packed sequences, other axes."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.batch import read_key
from tests.ablation_models import INPUTS, Concat, CrossAttention, by_hand, make_batch

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ablate(model, inputs=INPUTS, **options):
    ablation = ModalityAblation(model, inputs, **options)
    ablation.told = []
    ablation.say = ablation.told.append
    return ablation


@pytest.mark.parametrize("kind", [Concat, CrossAttention])
@pytest.mark.parametrize("attributes", [False, True])
def test_a_key_may_be_a_path(kind, attributes):
    class Holder:
        def __init__(self, **entries):
            vars(self).update(entries)

    model = kind().eval()

    def predict(model, batch):
        inner = batch["inputs"]
        text = vars(inner["text"]) if attributes else inner["text"]
        return model({**text, "pixels": inner["seen"][0], "waveform": batch["wave.form"], "label": None})

    paths = {"text": ("inputs.text.tokens", "inputs.text.mask"), "image": "inputs.seen.0", "audio": "wave.form"}
    ablation = ablate(model, paths, predict=predict, presence="meta.there")
    for seed in range(3):
        plain, there = make_batch(seed=seed), torch.rand(6, 3) > 0.3
        text = {"tokens": plain["tokens"], "mask": plain["mask"]}
        batch = {
            "inputs": {"text": Holder(**text) if attributes else text, "seen": (plain["pixels"], 3)},
            "wave.form": plain["waveform"],
            "meta": {"there": there},
        }
        torch.testing.assert_close(ablation(batch), by_hand(model, plain, INPUTS, there), **CLOSE)
    assert set(ablation.encoders) == set(INPUTS)
    assert read_key(batch, "inputs.seen.1") == 3
    with pytest.raises(KeyError, match=r"'inputs.sound' is not in the batch"):
        read_key(batch, "inputs.sound")


class Lacks(nn.Module):
    """Takes whichever modalities there are."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean
        self.layers = nn.ModuleDict({"image": nn.Linear(4, 3), "audio": nn.Linear(5, 3), "text": nn.Linear(6, 3)})

    def forward(self, batch):
        there = [x for x in self.layers if batch.get(x) is not None and len(batch[x])]
        found = torch.stack([self.layers[name](batch[name]) for name in there])
        return found.mean(0) if self.mean else found.tanh().sum(0)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("presence", [None, "there"])
@pytest.mark.parametrize("gone", ["missing", None, [], torch.zeros(0, 5)], ids=["missing", "None", "empty", "no rows"])
@pytest.mark.parametrize("first", [True, False])
def test_a_modality_that_is_not_there_is_absent(mean, presence, gone, first):
    model = Lacks(mean).eval()
    names = {"image": "image", "audio": "audio", "text": "text"}
    ablation = ablate(model, names, presence=presence)
    for seed in range(4):
        torch.manual_seed(seed)
        batch = {"image": torch.randn(6, 4), "audio": torch.randn(6, 5), "text": torch.randn(6, 6)}
        absent = (seed % 2 == 0) == first
        there = torch.rand(6, 3) > 0.2
        if presence:
            batch["there"] = there
        if absent:
            batch["audio"] = gone
            if isinstance(gone, str):
                del batch["audio"]
        found = ablation(batch)
        for mask in range(8):
            hidden = dict(batch)
            for m, name in enumerate(names):
                if not (absent and name == "audio"):
                    shown = (there[:, m] if presence else torch.ones(6, dtype=torch.bool)) & bool(mask >> m & 1)
                    hidden[name] = batch[name] * shown.unsqueeze(1)
            with torch.no_grad():
                torch.testing.assert_close(found[mask], model(hidden), **CLOSE)
        expected = there if presence else torch.ones(6, 3, dtype=torch.bool)
        expected = expected & torch.tensor([True, not absent, True])
        told = ablation.presence(batch)
        assert (
            told is None
            if expected.all() and not presence
            else torch.equal(told if told is not None else torch.ones(6, 3, dtype=torch.bool), expected)
        )


def test_a_key_that_was_never_there_is_a_typing_error_where_it_could_mean_something():
    with pytest.raises(KeyError, match=r"inputs\['audio'\]: 'sound' is not in the batch"):
        ablate(Concat().eval(), INPUTS | {"audio": "sound"})(make_batch())
    with pytest.raises(KeyError, match="'none' is not in the batch"):
        ablate(Concat().eval(), {"audio": "none"})({"label": torch.zeros(3)})


class Reads(nn.Module):
    """Embeds words of a list of str; beside them a tensor."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.embedding, self.image = nn.Embedding(50, 4), nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, batch):
        rows = [
            self.embedding(torch.tensor([0, *(hash_of(word) for word in text.split())])).sum(0)
            for text in batch["words"]
        ]
        text, image = torch.stack(rows), self.image(batch["pixels"])
        return self.head(text * image if self.fused else text + image)


def hash_of(word):
    return sum(map(ord, word)) % 50


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "baseline",
    ["zero", {"text": "a given text"}, {"text": "shuffle"}, {"text": lambda texts: [t[::-1] for t in texts]}],
)
def test_lists_of_str_are_hidden_by_a_text(fused, baseline):
    model = Reads(fused).eval()
    ablation = ablate(model, {"text": "words", "image": "pixels"}, baseline=baseline)
    for seed, there in ((0, None), (1, None), (2, torch.rand(4, 2) > 0.4)):
        torch.manual_seed(seed)
        texts = [f"word{seed} number {i} {i * seed}" for i in range(4)]
        batch = {"words": texts, "pixels": torch.randn(4, 3), "label": torch.arange(4)}
        found = ablation(batch, there)
        other = {
            "zero": [""] * 4,
            "a given text": ["a given text"] * 4,
            "shuffle": [texts[(i - SHIFT) % 4] for i in range(4)],
        }.get(
            baseline if isinstance(baseline, str) else baseline["text"] if isinstance(baseline["text"], str) else "",
            [t[::-1] for t in texts],
        )
        for mask in range(4):
            has = torch.ones(4, 2, dtype=torch.bool) if there is None else there
            words = [t if mask & 1 and has[i, 0] else o for i, (t, o) in enumerate(zip(texts, other, strict=True))]
            pixels = batch["pixels"] * (has[:, 1] & bool(mask & 2)).unsqueeze(1)
            with torch.no_grad():
                torch.testing.assert_close(found[mask], model(batch | {"words": words, "pixels": pixels}), **CLOSE)
        assert batch["words"] is texts
        assert "lists of str" in ablation.plan


SHIFT = ModalityAblation(nn.Identity(), {"text": "words"})._baselines._shift(4)


class Clips(nn.Module):
    """One tensor a sample in a list, of any length."""

    def __init__(self, order):
        super().__init__()
        self.clip, self.image, self.order = nn.Linear(3, 4), nn.Linear(3, 4), order

    def forward(self, batch):
        clips = torch.stack([self.clip(clip).sum(0) for clip in batch["clips"]])
        return clips * self.image(batch["pixels"]) if self.order else clips + self.image(batch["pixels"])


@pytest.mark.parametrize("order", [True, False])
def test_one_tensor_a_sample_in_a_list_is_hidden_by_sample(order):
    model = Clips(order).eval()
    for inputs in ({"video": "clips", "image": "pixels"}, {"image": "pixels"}):
        ablation = ablate(model, inputs)
        for seed, there in ((0, None), (1, None), (2, torch.rand(4, 2) > 0.4), (3, None)):
            torch.manual_seed(seed)
            lengths = [4, 4, 4, 4] if seed == 1 else [4, 2, 5, 1 + seed]  # of four samples some have four frames
            batch = {
                "clips": [torch.randn(n, 3) for n in lengths],
                "pixels": torch.randn(4, 3),
                "label": torch.arange(4),
            }
            there = None if len(inputs) == 1 else there
            found = ablation(batch, there)
            for mask in range(2 ** len(inputs)):
                has = torch.ones(4, 2, dtype=torch.bool) if there is None else there
                flags = dict(zip(inputs, [bool(mask >> m & 1) for m in range(len(inputs))], strict=True))
                clips = [x * (flags.get("video", True) and bool(has[i, 0])) for i, x in enumerate(batch["clips"])]
                pixels = batch["pixels"] * (has[:, len(inputs) - 1] & flags["image"]).unsqueeze(1)
                with torch.no_grad():
                    torch.testing.assert_close(found[mask], model({"clips": clips, "pixels": pixels}), **CLOSE)


class Packed(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.rnn, self.image, self.last = nn.GRU(3, 4, batch_first=True), nn.Linear(3, 4), last

    def forward(self, batch):
        out, state = self.rnn(batch["speech"])
        speech = state[0] if self.last else pad_packed_sequence(out, batch_first=True)[0].sum(1)
        return speech * self.image(batch["pixels"])


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_packed_sequences_are_hidden_by_sample_and_nested_tensors_refused(last, ordered):
    model = Packed(last).eval()
    ablation = ablate(model, {"speech": "speech", "image": "pixels"})
    lengths = torch.tensor([5, 4, 2, 1] if ordered else [2, 5, 1, 4])
    for seed, there in ((0, None), (1, torch.rand(4, 2) > 0.4)):
        torch.manual_seed(seed)
        padded, pixels = torch.randn(4, 5, 3), torch.randn(4, 3)

        def packed(x):
            return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)

        batch = {"speech": packed(padded), "pixels": pixels, "label": torch.arange(4)}
        found = ablation(batch, there)
        for mask in range(4):
            has = torch.ones(4, 2, dtype=torch.bool) if there is None else there
            shown = padded * (has[:, 0] & bool(mask & 1))[:, None, None]
            image = pixels * (has[:, 1] & bool(mask & 2)).unsqueeze(1)
            with torch.no_grad():
                torch.testing.assert_close(found[mask], model({"speech": packed(shown), "pixels": image}), **CLOSE)
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged)
    with pytest.raises(TypeError, match=r"inputs\['speech'\].*name padded tensors"):
        ablation({"speech": nested, "pixels": pixels[:2]})
    with pytest.raises(ValueError, match="baseline='mean' can't be made of 'speech'"):
        ablate(model, {"speech": "speech"}, baseline="mean")(batch)


class TimeFirst(Concat):
    def forward(self, batch):
        return super().forward(batch | {"waveform": batch["waveform"].view(16, -1).t()})


@pytest.mark.parametrize("baseline", ["zero", "shuffle", "mean", {"audio": torch.ones(16)}])
def test_an_axis_of_samples_that_is_not_the_first(baseline):
    model = TimeFirst().eval()
    ablation = ablate(model, sample_axis={"audio": 1}, baseline=baseline)
    usual = ablate(Concat().eval(), baseline=baseline, encoders=None)
    usual.model.load_state_dict(model.state_dict())
    for seed, there in ((0, None), (1, torch.rand(6, 3) > 0.4)):
        plain = make_batch(seed=seed)
        batch = plain | {"waveform": plain["waveform"].t().contiguous()}
        torch.testing.assert_close(ablation(batch, there), usual(plain, there), **CLOSE)
    with pytest.raises(ValueError, match=r"sample_axis=.modality: axis"):
        ablate(model)(batch)
    with pytest.raises(ValueError, match="sample_axis="):
        ablate(model, sample_axis={"sound": 1})
