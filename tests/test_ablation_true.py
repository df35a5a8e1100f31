"""What was proved once is not trusted for ever: models that change, branch or mask, against inputs hidden by hand."""

import copy
import random
from collections import Counter, deque

import numpy as np
import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.verify import agree
from tests.ablation_models import INPUTS, Concat, CrossAttention, Fused, Gated, Joined, Runs, by_hand, make_batch

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ablate(model, inputs=INPUTS, **options):
    ablation = ModalityAblation(model, inputs, **options)
    ablation.told = []
    ablation.say = ablation.told.append
    return ablation


def black_box(model, batch, inputs=INPUTS, presence=None):
    """A fresh copy of the model for each coalition: whatever one run leaves behind can't reach another."""
    return by_hand(lambda hidden: copy.deepcopy(model)(hidden), batch, inputs, presence)


# 1 · the check can fail


@pytest.mark.parametrize("masked", [-1e9, torch.finfo(torch.float32).min, float("-inf"), 1e4])
def test_a_masked_or_shifted_class_makes_no_answer_agree(masked):
    logits = torch.randn(4, 8, 5)
    logits[..., 2] = masked
    wrong = logits.clone()
    wrong[1, :, 0] += 1e-3
    assert agree(logits.clone(), logits)
    assert agree(logits - 1e-7 * logits.where(logits.isfinite(), 0), logits)
    assert not agree(wrong, logits)
    small = logits.clone()
    small[..., 1] *= 1e-4  # a class that varies little is measured by itself
    wrong = small.clone()
    wrong[0, 0, 1] += 1e-6
    assert not agree(wrong, small)


def test_another_decision_is_no_rounding():
    logits = torch.randn(3, 6, 4).bfloat16()
    logits[..., 3] = 20
    other = logits.clone()
    other[0, 0, 1] = 20.5
    assert not agree(other, logits)
    assert agree(logits * 1.001, logits)
    labels = torch.randint(3, (3, 6))
    assert agree(labels.clone(), labels)
    assert not agree(labels.flip(1) + 1, labels)


class Hides(Concat):
    """The text's encoder reads a byte of the pixels that no one sees; a class is masked."""

    class Peeks(nn.Module):
        def __init__(self, inner, shelf):
            super().__init__()
            self.inner, self.shelf = inner, shelf

        def forward(self, tokens, mask):
            return self.inner(tokens, mask) * (1 + self.shelf[0])

    masked = False

    def __init__(self):
        super().__init__()
        self.shelf = [0]
        self.text = self.Peeks(self.text, self.shelf)
        self.gate = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        self.shelf[0] = batch["pixels"].untyped_storage()[3] * float(self.gate)
        logits = super().forward(batch)
        return logits.index_fill(1, torch.tensor(2), -1e9) if self.masked else logits


def test_a_model_with_a_masked_class_is_not_split_where_it_must_not_be():
    model = Hides().eval()
    model.masked = True
    ablation = ablate(model)
    for seed in range(2):
        batch = make_batch(seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert ablation.encoders == {}
    assert "give other logits" in ablation.plan


# 2 · the model may change after the check


class ReZero(Concat):
    """A residual way from the raw pixels past the encoders, closed when it was followed."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))
        self.around = nn.Linear(108, 5)

    def forward(self, batch):
        out = super().forward(batch)
        return out + self.gate * self.around(batch["pixels"].flatten(1)) if self.gate != 0 else out


class Curriculum(Gated):
    """Another head, another number of encoder calls, and another mask from the third epoch on."""

    epoch = 0

    def forward(self, batch):
        out = super().forward(batch)
        if self.epoch >= 3:
            seen = (batch["waveform"].abs().sum(1, keepdim=True) > 0).float()
            out = out * (1 + seen) + batch["pixels"].mean((1, 2, 3)).unsqueeze(1)
        return out


def open_gate(model):
    with torch.no_grad():
        model.gate.fill_(1.0)


def open_gate_unseen(model):
    model.gate.data.fill_(1.0)


def later(model):
    model.epoch = 3


CHANGES = [(Hides, open_gate), (Hides, open_gate_unseen), (ReZero, open_gate), (ReZero, open_gate_unseen)]
CHANGES += [(Curriculum, later)]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_a_model_that_changes_is_compared_again(kind, change, begins, watched):
    model = kind().eval()
    if kind is Hides:
        model.gate.data.zero_()
    ablation = ablate(model)

    def validation(seed):
        if begins:
            ablation.begin()
        for batch in (make_batch(seed=seed), make_batch(N=16, seed=seed + 1), make_batch(N=3, seed=seed + 2)):
            if watched:
                ablation.watch()
                with torch.no_grad():
                    model(batch)
                ablation.unwatch()
            torch.testing.assert_close(ablation(batch), black_box(model, batch), **CLOSE)

    validation(0)
    assert ablation.encoders
    change(model)
    validation(10)
    validation(20)


def test_with_verify_0_only_the_first_batch_is_compared():
    model = Concat().eval()
    for verify, more in ((0, 0), (1, 5), (2, 0)):
        ablation = ablate(model, verify=verify)
        ablation.begin()
        ablation(make_batch(N=80))
        ablation.begin()
        runs = Runs(model, "text")
        ablation(make_batch(N=80, seed=1))
        assert runs.take()["text"] == 1 + more
        ablation(make_batch(N=80, seed=2))
        assert runs.take()["text"] == 1
    with pytest.raises(ValueError, match="verify=-1"):
        ablate(model, verify=-1)


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("kind", [Concat, CrossAttention])
def test_weights_swapped_while_the_step_runs_serve_no_coalition(kind, unseen):
    model = kind().eval()
    ablation = ablate(model)
    ablation(make_batch())
    averaged = {name: x.detach() * 1.3 for name, x in model.named_parameters()}
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        own = {name: x.detach().clone() for name, x in model.named_parameters()}
        ablation.watch()
        with torch.no_grad():
            for name, x in model.named_parameters():
                (x.data if unseen else x).copy_(averaged[name])
            step = model(batch)
            for name, x in model.named_parameters():
                (x.data if unseen else x).copy_(own[name])
        ablation.unwatch()
        torch.testing.assert_close(ablation(batch), black_box(model, batch), **CLOSE)
        assert torch.equal(ablation.predict(batch), step)  # the validation's own answer is the step's
    assert len([message for message in ablation.told if "other weights while the step ran" in message]) == 1


class SwapsInForward(Concat):
    """Swaps weights in its forward, and breaks in between in batches of two or three, as they are followed."""

    pointers, breaks = False, False

    def forward(self, batch):
        own = [(x, x.data) if self.pointers else (x, x.detach().clone()) for x in self.parameters()]
        for x in self.parameters():
            if self.pointers:
                x.data = x.data * 1.5
            else:
                x.data.mul_(1.5)
        if self.breaks and len(batch["label"]) in (2, 3):
            raise ArithmeticError("too few")
        out = super().forward(batch)
        for x, value in own:
            if self.pointers:
                x.data = value
            else:
                x.data.copy_(value)
        return out


@pytest.mark.parametrize("pointers", [False, True])
@pytest.mark.parametrize("breaks", [False, True])
def test_weights_swapped_in_the_forward_are_swapped_back_whatever_ends_it(pointers, breaks):
    model = SwapsInForward().eval()
    model.pointers, model.breaks = pointers, breaks
    before = {name: (x.data_ptr(), x.detach().clone()) for name, x in model.named_parameters()}
    ablation = ablate(model)
    for seed, (N, T) in enumerate(((6, 7), (6, 5), (6, 4))):
        batch = make_batch(N, T, seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
        for name, x in model.named_parameters():
            assert x.data_ptr() == before[name][0]
            assert torch.equal(x, before[name][1])


class BySize(Concat):
    """Behaves otherwise in batches of more than ten, in its encoder or behind it."""

    inside = True

    class Sized(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixels):
            return self.inner(pixels) * (1 if len(pixels) <= 10 else -1) + 1

    def __init__(self):
        super().__init__()
        self.image = self.Sized(self.image)

    def forward(self, batch):
        if not self.inside:
            self.image.forward = self.image.inner
        out = super().forward(batch)
        return out if self.inside or len(out) <= 10 else out.flip(1) * 2


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("sizes", [(6, 6, 3, 16, 16, 4), (16, 16, 6, 6), (2, 30, 5)])
def test_behaviour_that_depends_on_the_batchs_size(inside, sizes):
    model = BySize().eval()
    model.inside = inside
    ablation = ablate(model)
    for seed, N in enumerate(sizes):
        batch = make_batch(N=N, seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


# 3 · inputs that were not read when the model was followed


class ReadsLater(Concat):
    """From the second batch on, and in some batches only, the raw waveform, a mask of it, or a residual is read."""

    way = "none"

    def forward(self, batch):
        out = super().forward(batch)
        x = batch["waveform"]
        if batch["flag"] == 0 or self.way == "none":
            return out
        if self.way == "raw":
            return out + x[:, :5]
        if self.way == "mask":
            return out * (x.abs().sum(1, keepdim=True) == 0)
        return out + batch["pixels"].flatten(1)[:, :5] * x[:, :5]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("way", ["raw", "mask", "residual"])
def test_a_hidden_input_is_hidden_whether_or_not_it_was_read(way, watched):
    model = ReadsLater().eval()
    model.way = way
    ablation = ablate(model)
    for seed in range(4):
        batch = make_batch(seed=seed) | {"flag": int(seed > 1)}
        if watched:
            ablation.watch()
            with torch.no_grad():
                model(batch)
            ablation.unwatch()
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


# 4 · rows are rows


@pytest.mark.parametrize("kind", [Concat, CrossAttention])
@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e30])
def test_an_odd_row_reaches_no_other(kind, baseline, odd):
    model = kind().eval()
    ablation = ablate(model, baseline=baseline)
    ablation(make_batch())
    for seed, row in ((1, 0), (2, 3)):
        batch = make_batch(seed=seed)
        clean = by_hand(model, batch, INPUTS)
        batch["pixels"][row] = odd
        found = ablation(batch)
        others = [i for i in range(6) if i != row]
        if baseline == "zero":
            torch.testing.assert_close(found[:, others], clean[:, others], **CLOSE)
        else:
            assert found[:, others].isfinite().all()


class Sizes(Concat):
    """Its encoder gives lengths and flags beside the features, other ones when it is hidden."""

    class Lengths(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, waveform):
            loud = float(waveform.abs().sum()) > 0
            return {"features": self.inner(waveform), "scale": 3 if loud else 1, "sizes": [len(waveform), int(loud)]}

    def __init__(self):
        super().__init__()
        self.audio = self.Lengths(self.audio)

    def encode(self, batch):
        out = self.audio(batch["waveform"])
        text = self.text(batch["tokens"], batch["mask"]).mean(1)
        return [text, self.image(batch["pixels"]), out["features"] * out["scale"] + out["sizes"][1]]


class Trims(Concat):
    """Its text encoder cuts what is padded in the whole batch: other lengths when it is hidden."""

    class Trimming(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, tokens, mask):
            longest = int((tokens != 0).any(0).sum()) or 1
            return self.inner(tokens[:, :longest], mask[:, :longest])

    def __init__(self):
        super().__init__()
        self.text = self.Trimming(self.text)


@pytest.mark.parametrize("kind", [Sizes, Trims])
def test_what_leaves_an_encoder_beside_rows_belongs_to_its_own_way(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed in range(4):
        batch = make_batch(seed=seed)
        batch["tokens"][:, 3 + seed :] = 0
        presence = torch.rand(6, 3) > 0.4 if seed == 3 else None
        torch.testing.assert_close(ablation(batch, presence), by_hand(model, batch, INPUTS, presence), **CLOSE)


class Prototypes(Concat):
    """Scores against one row a class that the batch brings along, as many as samples now and then."""

    def forward(self, batch):
        return torch.cat(self.encode(batch), -1) @ batch["prototypes"].t()


@pytest.mark.parametrize("sizes", [(5, 5, 7), (7, 5, 7, 5), (5, 16, 5)])
def test_prototypes_as_many_as_samples(sizes):
    model, prototypes = Prototypes().eval(), torch.randn(5, 24)
    ablation = ablate(model)
    for seed, N in enumerate(sizes):
        batch = make_batch(N=N, seed=seed) | {"prototypes": prototypes}
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)


# 5 · the step's own tensors


@pytest.mark.parametrize("sizes", [(6, 6, 6), (1, 64, 64, 64), (2, 64, 3, 64)])
def test_a_step_that_prepares_its_batch_is_said_once(sizes):
    for prepare, said in (
        (lambda batch: batch, 0),
        (lambda batch: batch | {"pixels": batch["pixels"] * 2}, 1),
        (lambda batch: batch | {"waveform": batch["waveform"][:, :16]}, 0),
        (lambda batch: {key: x.flip(1) if key == "pixels" else x for key, x in batch.items()}, 1),
    ):
        model = Concat().eval()
        ablation = ablate(model)
        for seed, N in enumerate(sizes):
            batch = make_batch(N=N, seed=seed)
            ablation.watch()
            model(prepare(batch))
            ablation.unwatch()
            ablation(batch)
        assert len([message for message in ablation.told if "other tensors than the batch's own" in message]) == said


# 6 · any exception in the parts


class Breaks(Gated):
    """Its fusion can't take larger batches, or its encoder single rows, from a certain batch on."""

    armed = False

    def forward(self, batch):
        if self.armed and len(batch["label"]) not in (6, 1):
            raise ZeroDivisionError("not that many")
        return super().forward(batch)


class Squeezes(Concat):
    """Breaks on one row."""

    def encode(self, batch):
        text, image, audio = super().encode(batch)
        return [text, image, audio.squeeze()] if len(audio) > 1 else [text, image, audio]


@pytest.mark.parametrize("kind", [Breaks, Squeezes])
def test_whatever_goes_wrong_in_the_parts_the_run_goes_on(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed, N in enumerate((6, 6, 6, 1)):
        model.armed = seed > 1
        batch = make_batch(N=N, seed=seed)
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    if kind is Breaks:
        assert "ZeroDivisionError" in " ".join(ablation.told) + ablation.plan


class Squeezed(Concat):
    def forward(self, batch):
        return super().forward(batch).squeeze()


class SqueezedBinary(Gated):
    def forward(self, batch):
        return super().forward(batch)[:, :1].squeeze()


@pytest.mark.parametrize("kind", [Squeezed, SqueezedBinary])
def test_a_last_batch_of_one_whose_answer_is_squeezed(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed, N in enumerate((6, 6, 1)):
        batch = make_batch(N=N, seed=seed)
        expected = by_hand(model, batch, INPUTS)
        torch.testing.assert_close(ablation(batch), expected.unsqueeze(1) if N == 1 else expected, **CLOSE)


# 7 · no trace, also of plain Python


class Meter:
    def __init__(self):
        self.sum, self.log = 0.0, []


OUTSIDE = nn.BatchNorm1d(16)


class Remembers(Concat):
    """Keeps lists, mappings, counters, generators, a lazy buffer, a cache by sample, and calls a module outside it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("lazy", None)
        self.unset = None
        self.cache, self.counter, self.recent = {}, Counter(), deque(maxlen=3)
        self.list, self.numbers, self.meter = [], np.zeros(2), Meter()
        self.random, self.numpy, self.torch = random.Random(1), np.random.default_rng(1), torch.Generator()
        self.register_buffer("written", torch.zeros(3))

    def forward(self, batch):
        if self.lazy is None:
            self.lazy = torch.arange(16.0)
        self.unset = batch["label"]
        self.counter["calls"] += 1
        self.recent.append(float(batch["waveform"].sum()))
        self.list.append(1)
        self.numbers += 1
        self.meter.sum += 1
        self.meter.log.append(2)
        self.written.data.add_(1)
        self.random.random(), self.numpy.random(), torch.rand(1, generator=self.torch)
        features = []
        for i, key in enumerate(batch["key"]):
            if key not in self.cache:
                self.cache[key] = batch["waveform"][i] * 2
            features.append(self.cache[key])
        batch = batch | {"waveform": OUTSIDE(torch.stack(features)) + self.lazy * 0}
        return super().forward(batch)


def state(model):
    return {
        "lazy": model.lazy,
        "unset": model.unset,
        "cache": {key: x.tolist() for key, x in model.cache.items()},
        "counter": dict(model.counter),
        "recent": list(model.recent),
        "list": list(model.list),
        "numbers": model.numbers.tolist(),
        "meter": (model.meter.sum, list(model.meter.log)),
        "random": model.random.getstate(),
        "numpy": model.numpy.bit_generator.state,
        "torch": model.torch.get_state().tolist(),
        "written": model.written.tolist(),
        "outside": (OUTSIDE.running_mean.tolist(), OUTSIDE.num_batches_tracked.item(), OUTSIDE.training),
    }


@pytest.mark.parametrize("encoders", ["auto", None])
def test_no_trace_of_plain_python_and_no_poisoned_cache(encoders):
    model = Remembers().eval()
    OUTSIDE.train()
    ablation = ablate(model, encoders=encoders)
    for seed in range(4):
        batch = make_batch(seed=seed) | {"key": [f"{seed}/{i}" for i in range(6)]}
        before = state(model)
        reference = by_hand(lambda hidden: _fresh(model)(hidden), batch, INPUTS)
        for _ in range(2):
            torch.testing.assert_close(ablation(batch), reference, **CLOSE)
            assert state(model) == before
        if seed == 2:
            model(batch)  # the user's own run is the user's own business
    assert model.lazy is not None


def _fresh(model):
    made = copy.deepcopy(model)
    made.torch = torch.Generator()

    def run(batch):
        kept = {key: x.clone() for key, x in OUTSIDE.state_dict().items()}
        out = made(batch)
        OUTSIDE.load_state_dict(kept)
        return out

    return run


def test_metrics_that_the_module_holds_are_untouched():
    from torchmetrics.classification import MulticlassAccuracy

    class Measures(Concat):
        def __init__(self):
            super().__init__()
            self.right = MulticlassAccuracy(5)

        def forward(self, batch):
            out = super().forward(batch)
            self.right.update(out, batch["label"])
            return out

    model = Measures().eval()
    model(make_batch())
    before = model.right.compute(), model.right._update_count
    ablation = ablate(model)
    for seed in range(3):
        ablation(make_batch(seed=seed))
        assert (model.right.compute(), model.right._update_count) == before


# 8 · a tuple's logits


def test_a_tuple_in_which_several_could_be_the_logits_is_refused():
    x, features, attention = torch.zeros(6, 5), torch.zeros(6, 8), torch.zeros(6, 2, 7, 7)
    for output, num_classes, told in (
        (
            (x, features),
            None,
            r"tuple of \(6, 5\), \(6, 8\), several .*predict=lambda model, batch: model\(batch\)\[1\]",
        ),
        ((features, x), 5, r"first of which is not logits of 5.*model\(batch\)\[1\]"),
        ([x, x.clone()], 5, r"list of .*several"),
        ((torch.zeros(6, 7, 8), x), None, "several"),
    ):
        ablation = ablate(Concat().eval(), predict=lambda model, batch, output=output: output)
        ablation.num_classes = num_classes
        with pytest.raises(TypeError, match=told):
            ablation(make_batch())
    for output, num_classes in (((x, features), 5), ((x, attention), None), ((x, features.long()), None)):
        ablation = ablate(Concat().eval(), predict=lambda model, batch, output=output: output)
        ablation.num_classes = num_classes
        assert torch.equal(ablation(make_batch())[-1], x)


# 9 · what the model can't take when hidden


class Packs(Concat):
    def forward(self, batch):
        packed = nn.utils.rnn.pack_padded_sequence(
            batch["waveform"].unflatten(1, (-1, 4)), batch["lengths"].cpu(), batch_first=True, enforce_sorted=False
        )
        audio = self.audio.rnn(packed)[1][0]
        text = self.text(batch["tokens"], batch["mask"]).mean(1)
        return self.head(torch.cat([text, self.image(batch["pixels"]), audio], -1))


class Placeholders(Concat):
    """Wants an image placeholder, id 7, in the text of every sample."""

    def forward(self, batch):
        if not (batch["tokens"] == 7).any(1).all():
            raise ValueError("image features and image tokens do not match")
        return super().forward(batch)


def test_what_can_not_be_taken_names_coalition_stand_in_and_line():
    inputs = INPUTS | {"audio": ("waveform", "lengths")}
    batch = make_batch() | {"lengths": torch.tensor([4, 1, 2, 3, 4, 2])}
    model = Packs().eval()
    with pytest.raises(RuntimeError, match=r"shown only none .*lengths is 0 throughout.*{'lengths': 'keep'}"):
        ablate(model, inputs)(batch)
    ablation = ablate(model, inputs, baseline={"audio": {"lengths": "keep"}})
    for _ in range(2):
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert not [message for message in ablation.told if "lengths" in message and "word" in message]

    batch = make_batch()
    batch["tokens"][:, 2] = 7
    model = Placeholders().eval()
    with pytest.raises(RuntimeError, match=r"shown only none .*do not match.*tokens is 0 throughout.*baseline="):
        ablate(model)(batch)
    from mm_metrics.ablation import keeping

    ablation = ablate(model, baseline={"text": {"tokens": keeping(7)}})
    for _ in range(2):
        found = ablation(batch)
        kept = batch | {
            "tokens": batch["tokens"].where(batch["tokens"] == 7, 0),
            "mask": torch.ones_like(batch["mask"]),
        }
        torch.testing.assert_close(found[6], by_hand(model, kept, {"none": "label"})[-1], **CLOSE)


def test_an_error_that_is_not_the_hidings_is_the_models_own():
    class Broken(Concat):
        def forward(self, batch):
            raise LookupError("the model's own")

    with pytest.raises(LookupError, match=r"^the model's own"):
        ablate(Broken(), predict=lambda model, batch: model(batch))(make_batch())


# 10 · cheap where it can be


class SharedNorm(Fused):
    """One norm for all, also behind the fusion, and a tower that reads prompts beside the text; modules made anew."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.register_buffer("prompts", torch.randint(1, 30, (3, 7)))

    def forward(self, batch):
        prompts = self.text(self.prompts, torch.ones(3, 7, dtype=torch.bool)).mean((0, 1))
        features = [nn.Tanh()(self.norm(x)) for x in self.encode(batch)]
        fused = nn.Softmax(dim=-1)(self.norm(sum(features) + prompts))
        return self.head(torch.cat([fused, *features[1:]], -1))


class Rewrites(Concat):
    """Puts other entries into an encoder's output object after the call."""

    class Out(dict):
        pass

    class Gives(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixels):
            return Rewrites.Out(features=self.inner(pixels))

    def __init__(self):
        super().__init__()
        self.image = self.Gives(self.image)

    def encode(self, batch):
        image = self.image(batch["pixels"])
        text = self.text(batch["tokens"], batch["mask"]).mean(1)
        image["features"] = image["features"] * 2 + text
        image["more"] = batch["pixels"]
        return [text, image["features"], self.audio(batch["waveform"])]


@pytest.mark.parametrize("kind", [SharedNorm, Rewrites])
def test_encoders_are_found_where_modules_are_shared_made_anew_or_outputs_rewritten(kind):
    model = kind().eval()
    ablation = ablate(model)
    for seed in range(3):
        batch = make_batch(seed=seed)
        if seed == 2:
            ablation.watch()
            with torch.no_grad():
                model(batch)
            ablation.unwatch()
        torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    assert set(ablation.encoders) == set(INPUTS)
    runs = Runs(model, "image", "audio")
    ablation(make_batch(seed=4))
    assert runs.take() == {"image": 1, "audio": 1}


class OnlyText(Concat):
    """Image and audio are mixed before any module."""

    def forward(self, batch):
        text = self.text(batch["tokens"], batch["mask"]).mean(1)
        mixed = batch["pixels"] * batch["waveform"][:, :1, None, None] + batch["waveform"].mean()
        return self.head(torch.cat([text, self.image(mixed), text], -1))


def test_the_plan_says_what_is_kept_and_why_not():
    model = OnlyText().eval()
    ablation = ablate(model)
    assert "no batch" in ablation.plan
    batch = make_batch()
    torch.testing.assert_close(ablation(batch), by_hand(model, batch, INPUTS), **CLOSE)
    lines = ablation.plan.splitlines()
    assert [line.split(":")[0] for line in lines] == list(INPUTS)
    assert lines[0] == "text: kept at text"
    assert all("not kept" in line for line in lines[1:])
    joined = ablate(Joined().eval(), {"text": "tokens", "audio": "waveform"})
    joined(make_batch())
    assert joined.plan.count("no module of Joined depends on one modality alone") == 2


class Random(Concat):
    def forward(self, batch):
        return nn.functional.dropout(super().forward(batch), 0.3, training=True)


class Trivial(Concat):
    """Its encoders do next to nothing beside what lies behind them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.LayerNorm(16)
        self.body = nn.Sequential(nn.Linear(16 + 7, 400), nn.ReLU(), nn.Linear(400, 400), nn.Linear(400, 5))

    def forward(self, batch):
        return self.body(torch.cat([self.scale(batch["waveform"]), batch["tokens"].float()], -1))


def test_a_random_model_is_called_random_and_encoders_that_do_nothing_are_not_kept():
    random_one = ablate(Random().eval())
    random_one(make_batch())
    assert "random" in random_one.plan
    ablation = ablate(Trivial().eval(), {"text": "tokens", "audio": "waveform"})
    ablation(make_batch())
    assert ablation.encoders == {}
    assert "cost more to keep than to run" in ablation.plan
