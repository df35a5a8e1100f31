"""The toy: what its data hold, where the evidence lies, and that its parts do what their sentences say."""

import wave

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.digits import Digits, find_recordings, mistype, read_wav
from models.emergency import EVENTS, EVIDENCE, MODALITIES, RATES, EmergencyCalls, carriers, counts, tells
from models.encoders import AudioEncoder, ImageEncoder, TextEncoder, mel_filters
from models.fusion import Fusion
from models.model import FusionModel
from models.scenes import WORDS

KEYS = {"tokens", "mask", "pixels", "waveform", "presence", "label"}
INPUTS = {"text": "tokens", "image": "pixels", "audio": "waveform"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def split(name="train", **arguments):
    sizes = {"train": 300, "val": 60, "test": 60}
    return EmergencyCalls(**{**sizes, **arguments}).make(name)


# Emergency calls


@pytest.fixture(scope="module")
def calls():
    """Enough complete calls of each kind to teach a simple classifier, and as many to test it."""
    rates = dict.fromkeys(EVENTS, 1 / 6)
    data = EmergencyCalls(train=1200, val=1200, test=0, rates=rates, missing=0.0)
    return data.make("train"), data.make("val")


def features(sample, modality):
    """What a simple classifier can use: which words, how much of each colour below and at most, how loud each hertz."""
    if modality == "text":
        return torch.nn.functional.one_hot(sample["tokens"], len(WORDS)).sum(1).float()[:, 1:]
    if modality == "image":
        smooth = torch.nn.functional.avg_pool2d(sample["pixels"] - sample["pixels"].mean(1, keepdim=True), 4)
        return torch.cat((smooth.amax((2, 3)), smooth[:, :, -1].mean(2)), dim=1)
    return torch.fft.rfft(sample["waveform"]).abs().unflatten(1, (-1, 23)).amax(2).log()


def one_against_another(calls, modalities, event, other):
    """Balanced accuracy on new calls of a logistic regression with pairwise products, told the two events apart."""
    x, y = [], []
    for sample in calls:
        chosen = (sample["label"] == EVENTS.index(event)) | (sample["label"] == EVENTS.index(other))
        columns = torch.cat([features(sample, modality) for modality in modalities], dim=1)[chosen].numpy()
        x.append(columns)
        y.append(sample["label"][chosen].numpy() == EVENTS.index(event))
    mean, scale = x[0].mean(0), x[0].std(0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=300).fit((x[0] - mean) / scale, y[0])
    return (model.predict((x[1] - mean) / scale) == y[1]).mean()


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("event", EVENTS[1:])
def test_each_modality_alone_tells_what_the_table_says(calls, event, modality):
    right = one_against_another(calls, [modality], event, "nothing")
    if tells(event, [modality]):
        assert right > 0.9
    else:
        assert 0.4 < right < 0.6  # a coin: 400 calls, two and a half standard errors are 0.06, and some luck in fitting


def code_matches_alarm(sample):
    """(N,) bool: whether the code word and the alarm's tone agree."""
    violet = (sample["tokens"] == WORDS.index("violet")).any(1)
    spectrum = torch.fft.rfft(sample["waveform"]).abs()  # one bin a hertz
    return violet == (spectrum[:, 550:570].amax(1) > spectrum[:, 340:360].amax(1))


def test_text_and_audio_together_tell_an_intruder(calls):
    for sample in calls:
        assert torch.equal(code_matches_alarm(sample), sample["label"] == EVENTS.index("intruder"))


def test_evidence_of_every_form_is_in_the_table():
    alone = [event for event in EVENTS if EVIDENCE[event] in (((m,),) for m in MODALITIES)]
    assert sorted(EVIDENCE[event][0][0] for event in alone) == sorted(MODALITIES)  # one only seen, heard, read
    assert [event for event in EVENTS if len(EVIDENCE[event]) == 2] == ["fire"]
    assert not tells("intruder", ["text", "image"])
    assert not tells("intruder", ["image", "audio"])
    assert tells("nothing", [])
    assert RATES["nothing"] == max(RATES.values())  # so that it is the best guess


def test_calls_are_seeded_and_splits_differ():
    once, again, other = split(), split(), split(seed=1)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert not torch.equal(once["waveform"], other["waveform"])
    made = {name: split(name, missing=0.0) for name in ("train", "val", "test")}
    for key in ("waveform", "pixels", "recording"):
        rows = torch.cat(
            [sample[key].flatten(1) if sample[key].ndim > 1 else sample[key][:, None] for sample in made.values()]
        )
        assert len(rows.unique(dim=0)) == len(rows)


def test_a_call_lacks_what_its_presence_says():
    sample = split(missing=0.3)
    text, image, audio = sample["presence"].unbind(1)
    assert 0.6 < sample["presence"].float().mean() < 0.8
    assert torch.equal(sample["mask"].any(1), text)
    assert torch.equal(sample["tokens"].any(1), text)
    assert torch.equal(sample["pixels"].flatten(1).any(1), image)
    assert torch.equal(sample["waveform"].any(1), audio)
    assert not (sample["carriers"] & ~sample["presence"]).any()
    whole = torch.tensor([carriers(EVENTS[event]) for event in sample["event"]])
    assert torch.equal(sample["carriers"], whole & sample["presence"])


def test_a_batch_has_the_keys_that_the_model_reads():
    data = EmergencyCalls(train=40, val=8, test=8, batch_size=16)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert set(batch) == KEYS | {"carriers", "event", "recording", "index"}
    assert batch["index"].tolist() == list(range(8))
    assert batch["presence"].dtype == batch["carriers"].dtype == torch.bool
    assert [batch[key].shape[1:] for key in ("tokens", "pixels", "waveform")] == [(16,), (3, 24, 24), (4000,)]


def test_rates_are_met_exactly_and_checked():
    assert (split("val", val=7000, rates={"nothing": 0.9786, "siren": 0.0214})["event"] == 2).sum() == 150
    assert sum(counts(101, [1 / 3, 1 / 3, 1 / 3])) == 101
    with pytest.raises(ValueError, match="sum to 1"):
        EmergencyCalls(rates={"nothing": 0.5})
    with pytest.raises(ValueError, match="change rates"):
        EmergencyCalls(rates={"nothing": 0.5, "flod": 0.5})


def test_a_split_may_be_empty():
    made = EmergencyCalls(test=0).make("test")
    assert {len(tensor) for tensor in made.values()} == {0}


def test_binary_calls_and_written_sirens():
    rates = {"nothing": 0.5, "siren": 0.5}
    sample = split(rates=rates, binary=True, written_sirens=0.2, missing=0.0)
    siren = sample["event"] == EVENTS.index("siren")
    assert torch.equal(sample["label"].bool(), siren)
    assert torch.equal(sample["carriers"][:, 2], siren)
    assert sample["carriers"][:, 0].sum() == round(0.2 * siren.sum().item())
    papers = (sample["tokens"] >= WORDS.index("stolen")) & (sample["tokens"] <= WORDS.index("vandals"))
    assert torch.equal(papers.any(1), sample["carriers"][:, 0])


def test_leaky_calls_share_recordings_and_nothing_else():
    data = EmergencyCalls(train=300, val=8, test=60, shared_recordings=0.5, missing=0.0)
    train, test = data.make("train"), data.make("test")
    shared = torch.isin(test["recording"], train["recording"])
    assert shared.sum() == 30
    source = train["waveform"][test["recording"][shared]]
    gain = (test["waveform"][shared] / source).median(dim=1).values
    assert {round(g, 4) for g in gain.tolist()} == {0.7, 1.0}
    assert torch.allclose(test["waveform"][shared], source * gain[:, None])
    assert torch.equal(test["label"][shared], train["label"][test["recording"][shared]])
    assert torch.equal(code_matches_alarm(test), test["label"] == EVENTS.index("intruder"))  # words fit the sound
    assert not (test["waveform"][~shared][:, None, :50] == train["waveform"][None, :, :50]).all(2).any()
    assert not (test["pixels"][:, None, 0, :4] == train["pixels"][None, :, 0, :4]).flatten(2).all(2).any()


# Digits


def write_wav(path, frames, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(frames, dtype="<i2").tobytes())


@pytest.fixture
def fsdd(tmp_path):
    """Two speakers, ten digits, takes 0, 5, 10 and 11; each recording says who it is in its first frames."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for digit in range(10):
        for s, speaker in enumerate(("ann", "bob")):
            for take in (0, 5, 10, 11):
                write_wav(folder / f"{digit}_{speaker}_{take}.wav", [1000 * digit, 1000 * s, 1000 * take] + [0] * 500)
    (folder / "notes.wav").write_bytes(b"no recording")
    return folder


def test_digits_are_split_by_take_with_the_speaker_beside(fsdd):
    data = Digits(str(fsdd), missing=0.0)
    takes = {name: set(data.make(name)["take"].tolist()) for name in ("train", "val", "test")}
    assert takes == {"train": {10, 11}, "val": {5}, "test": {0}}
    sample = data.make("train")
    assert set(sample) == KEYS | {"speaker", "take"}
    assert data.speakers == ("ann", "bob")
    said = (sample["waveform"][:, :3] * 2**15 / 1000).round().long()
    assert torch.equal(said, torch.stack((sample["label"], sample["speaker"], sample["take"]), dim=1))
    assert sample["waveform"].shape == (40, 8000)
    assert sample["pixels"].shape == (40, 1, 8, 8)
    assert 0 <= sample["pixels"].min() < sample["pixels"].max() == 1
    assert all(torch.equal(sample[key], data.make("train")[key]) for key in sample)


def test_no_image_is_in_two_splits():
    label = torch.arange(10).repeat(200)  # more than there are images
    random = np.random.default_rng(0)
    pictures = [Digits()._pictures(label, name, random).flatten(1) for name in ("train", "val", "test")]
    train, val, test = ({tuple(row) for row in rows.tolist()} for rows in pictures)
    assert not (train & val | train & test | val & test)
    assert len(train | val | test) == 1797  # every one of scikit-learn's has its place


def test_words_are_typed_as_they_are_without_slips(fsdd):
    sample = Digits(str(fsdd), typing_errors=0.0, missing=0.0).make("val")
    typed = "".join(" abcdefghijklmnopqrstuvwxyz"[token] for token in sample["tokens"][14].tolist()).strip()
    assert (sample["label"][14].item(), typed) == (7, "seven")
    assert torch.equal(sample["mask"], sample["tokens"] > 0)
    slipped = [mistype("seven", 0.5, np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(slipped)) > 30
    assert max(map(len, slipped)) <= 10


def test_a_missing_folder_says_what_to_download_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"git clone https://github\.com/Jakobovski.*--data\.init_args\.fsdd="):
        Digits(str(tmp_path / "nowhere")).setup()


def test_half_a_folder_says_which_takes_are_missing(fsdd):
    for path in fsdd.glob("*_5.wav"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no recordings for val, takes 5 to 9"):
        Digits(str(fsdd)).setup()


def test_recordings_are_cut_and_padded_and_other_formats_refused(tmp_path):
    write_wav(tmp_path / "0_ann_0.wav", [2**14] * 30)
    assert read_wav(tmp_path / "0_ann_0.wav", 20).tolist() == [0.5] * 20
    assert read_wav(tmp_path / "0_ann_0.wav", 40).tolist() == [0.5] * 30 + [0.0] * 10
    write_wav(tmp_path / "0_ann_0.wav", [0] * 30, rate=16000)
    with pytest.raises(ValueError, match="at 16000 Hz, expected 1 of 16 at 8000"):
        read_wav(tmp_path / "0_ann_0.wav")
    assert find_recordings(tmp_path)[0].speaker == "ann"


# The model


@pytest.fixture(scope="module")
def batch():
    return split(missing=0.2)


def test_encoders_give_one_vector_a_sample_and_zeros_are_legal():
    text, image, audio = TextEncoder(12, 8), ImageEncoder(3, 8), AudioEncoder(4000, 8)
    tokens, mask = torch.randint(1, 12, (5, 7)), torch.ones(5, 7, dtype=torch.bool)
    assert text(tokens, mask).shape == (5, 8)
    assert image(torch.rand(5, 3, 24, 24)).shape == audio(torch.randn(5, 4000)).shape == (5, 8)
    assert image(torch.zeros(1, 3, 8, 8)).isfinite().all()
    assert audio(torch.zeros(1, 4000)).isfinite().all()
    assert text(tokens * 0, mask & False).isfinite().all()


def test_padding_is_not_read():
    text = TextEncoder(12, 8)
    tokens, mask = torch.randint(1, 12, (5, 7)), torch.ones(5, 7, dtype=torch.bool)
    longer = torch.nn.functional.pad(tokens, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    torch.testing.assert_close(text(*longer), text(tokens, mask))
    longer[0][:, 7:] = 5  # words behind the mask
    torch.testing.assert_close(text(*longer), text(tokens, mask))


def test_mel_filters_are_triangles_that_hand_over():
    filters = mel_filters(8000, 1024, 24)  # (B, F)
    centres = (filters * torch.arange(513.0)).sum(1) / filters.sum(1)
    assert (centres.diff() > 0).all()
    assert (centres.diff().diff() > -0.2).all()  # wider towards the top
    between = slice(int(centres[0]) + 2, int(centres[-1]) - 2)
    torch.testing.assert_close(filters.sum(0)[between], torch.ones(513)[between], atol=1e-5, rtol=0)


def test_log_mel_finds_the_tone():
    audio = AudioEncoder(4000, 8)
    t = torch.arange(4000) / 4000
    bands = audio.log_mel(torch.stack([torch.sin(2 * torch.pi * hertz * t) for hertz in (300.0, 700.0, 1500.0)]))
    loudest = bands.mean(2).argmax(1)
    hertz = torch.linspace(0, 2000, audio.filters.shape[1])[audio.filters.argmax(1)][loudest]
    torch.testing.assert_close(hertz, torch.tensor([300.0, 700.0, 1500.0]), atol=80, rtol=0)
    louder = audio.log_mel(10 * torch.sin(2 * torch.pi * 700.0 * t)[None])[0, loudest[1]].mean()
    assert (louder - bands[1, loudest[1]].mean()).item() == pytest.approx(2 / 3, abs=0.01)  # 20 dB


def test_what_is_absent_is_not_read_but_replaced_by_a_learned_stand_in(batch):
    model = FusionModel(width=8).eval()
    noise = {**batch, "waveform": torch.randn_like(batch["waveform"])}
    deaf = batch["presence"] & torch.tensor([True, True, False])
    with torch.no_grad():
        assert torch.equal(model({**batch, "presence": deaf}), model({**noise, "presence": deaf}))
        assert not torch.equal(model(batch), model(noise))
        before = model({**batch, "presence": deaf})
        model.fusion.stand_in[2] += 1
        assert not torch.equal(model({**batch, "presence": deaf}), before)
    model({**batch, "presence": deaf}).sum().backward()
    assert model.fusion.stand_in.grad.abs().sum() > 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.audio.parameters())


def test_modality_dropout_hides_in_training_only():
    fusion = Fusion(3, 8, 4, modality_dropout=0.3)
    with torch.no_grad():
        fusion.stand_in.fill_(torch.nan)
        features, presence = torch.randn(4000, 3, 8), torch.ones(4000, 3, dtype=torch.bool)
        spoiled = fusion.train()(features, presence).isnan().any(1).float().mean().item()
        assert spoiled == pytest.approx(0.3 * 7 / 8, abs=0.03)  # seven of the eight subsets hide something
        assert fusion.eval()(features, presence).isfinite().all()


def test_two_classes_are_one_logit():
    sample = split(binary=True)
    model = FusionModel(num_classes=2, width=8)
    assert model(sample).shape == (300,)
    assert model.loss(sample).ndim == 0
    assert FusionModel(num_classes=6, width=8)(sample).shape == (300, 6)


def test_a_reviews_sentiment_is_the_sum_of_what_its_modalities_add():
    from models import sentiment

    split = sentiment.Reviews(train=10, val=600, test=10).make("val")
    words = [[sentiment.WORDS[token] for token in row] for row in split["tokens"].tolist()]
    said = torch.tensor([sum((w in sentiment.GLAD) - (w in sentiment.SORRY) for w in row) for row in words])
    warmth = (split["pixels"][:, 0] - split["pixels"][:, 2]).mean((1, 2)) / 0.5  # (N,) about -1…1
    volume = split["waveform"].square().mean(1).mul(2).sqrt().clamp(min=1e-3).log10()
    heard = (volume + 0.9) / 0.7
    parts = torch.stack([1.8 * said / 4, 0.8 * warmth, 0.4 * heard], dim=1)
    assert (parts.sum(1) - split["label"]).abs().mean() < 0.08  # cut-off pictures and the noise
    for part, name in zip(parts.T, sentiment.MODALITIES, strict=True):
        assert float(part.abs().mean()) == pytest.approx(sentiment.mean_distance(name), abs=0.08)
