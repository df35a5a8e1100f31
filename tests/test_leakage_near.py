"""Near copies: planted ones are found and attributed, distinct texts, pictures and recordings are left in peace."""

import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import lfilter, resample_poly
from sklearn.datasets import load_digits, load_sample_images

from mm_metrics.leakage import find_leakage
from mm_metrics.leakage.near import audio, image, text
from scripts import near_pairs

FSDD = Path(__file__).resolve().parents[2] / "shared" / "data" / "fsdd" / "recordings"
SYLLABLES = ("ba", "ker", "lo", "min", "u", "ras", "se", "tol", "vi", "zum")
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def find(train, test, modality, **arguments):
    splits = {"train": [{modality: x} for x in train], "test": [{modality: x} for x in test]}
    return find_leakage(splits, [modality], target=None, progress=False, **arguments)


def near(found):
    """Later samples with a near copy, and whether the pair listed first for each is the planted one."""
    return {j: i for f in found.findings if f.kind == "near" for i, j in reversed(f.pairs)}


# --- text -----------------------------------------------------------------------------------------------------------


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 20)) for _ in range(count)]


def reworded(sentence, changes, seed):
    rng, words = np.random.default_rng(seed), sentence.split()
    for place in rng.choice(20, changes, replace=False):
        words[place] = str(rng.choice([word for word in WORDS if word != words[place]]))
    return " ".join(words)


@pytest.mark.parametrize(
    "change",
    [
        lambda s, n: s.upper(),
        lambda s, n: "  " + s.replace(" ", ",\t ") + "!",
        lambda s, n: reworded(s, 1, n),
        lambda s, n: reworded(s, 2, n),
        lambda s, n: reworded(s, 1, n).title() + ".",
    ],
)
def test_changed_texts_are_found(change):
    train, test = sentences(400, 0), sentences(200, 1)
    for n in range(40):
        test[5 * n] = change(train[n], n)
    found = near(find(train, test, "text"))
    assert found == {5 * n: n for n in range(40)}


def test_changed_tokens_are_found():
    rng = np.random.default_rng(0)
    train, test = (torch.from_numpy(rng.integers(1, 5000, (300, 20))) for _ in range(2))
    test[:50] = train[100:150]
    test[torch.arange(50), torch.from_numpy(rng.integers(0, 20, 50))] = 4999
    assert near(find(train, test, "text")) == {n: 100 + n for n in range(50)}


UTTERANCES = [  # as people say them; each line's are alike, and no copies
    ("You like it?", "You like it right?"),
    ("I don't know.", "I don't know why."),
    ("Oh my God!", "Oh my God, Ross!"),
    ("What are you doing?", "What are you doing here?"),
    (
        "I am so sorry, I did not mean to hurt you that evening.",
        "I am so sorry, I did not mean to hurt him that evening.",
    ),
    ("It costs 3.5 dollars.", "It costs 35 dollars."),
    ("Meet me at 10:30", "Meet me at 103:0"),
    ("+1", "-1"),
    ("Yes 😀", "Yes 😡"),
    ("...", "!!!"),
    ("कि", "की"),
    ("a man talks while a dog barks in the distance", "a man talks while a dog howls in the distance"),
    ("two dogs run across a green field", "two dogs run across a green yard"),
    ("我喜欢这个", "我喜欢那个"),
    ("A present?", "A present."),
    ("“Cigars?”", "cigars!"),
    ("你好吗？", "你好吗。"),
    ("What?!", "What--"),
]
SAID_AGAIN = [
    ("Yeah.", "yeah!"),
    ("I don't know.", "I dont know"),
    ("OK, fine.", "Ok fine"),
    ("Well-known", "well known"),
    ("«Straße»", "STRASSE"),
    ("café", "cafe\u0301."),
    ("ｆｕｌｌ width", "full width"),
    ("It costs 3.5 $", "it costs  3.5 $!"),
    ("我喜欢这个。", "我喜欢这个"),
    ("Where are you?", "where are you"),
    ("WHAT?!", "“What?”"),
    ("I'm in...", "Im in!"),
]


def test_short_texts_are_copies_only_where_their_letters_are_equal():
    train, test = zip(*UTTERANCES, strict=True)
    assert find(train, test, "text").findings == ()
    train, test = zip(*SAID_AGAIN, strict=True)
    assert near(find(train, test, "text")) == {n: n for n in range(len(SAID_AGAIN))}


def test_a_copy_is_found_behind_many_questions_of_its_letters():
    asked = ["Okay" + "?" * n for n in range(1, 15)]
    assert near(find([*asked, "Okay."], ["okay!"], "text")) == {0: 14}


def test_a_chorus_sung_more_often_is_no_copy():
    line = "hey mister what are you going to do to make our dreams come true "
    assert find([line * 2], [line * 3 + "oh", line * 6], "text").findings == ()
    assert near(find([line * 2], ["Well, " + line * 2], "text")) == {0: 0}


def test_descriptions_of_one_scene_by_several_people_are_no_copies():
    """Long captions of one clip, each in its own words; and copies of each with two words changed, which are."""
    captions = [
        "several people are chatting as police sirens wail loudly and a heavy lorry speeds up before a man makes an "
        "announcement over the speakers",
        "a heavy lorry is speeding up while police sirens wail and several people chat, then a man is making an "
        "announcement over a speaker",
        "police sirens are wailing and a heavy lorry drives by as several people are chatting and a man then makes an "
        "announcement over the speakers",
    ]
    assert find(captions, within=True, test=[], modality="text").findings == ()
    changed = [caption.replace("several", "many").replace("man ", "woman ").upper() + "." for caption in captions]
    assert near(find(captions, changed, "text")) == {0: 0, 1: 1, 2: 2}


def test_near_copies_within_a_split():
    texts = sentences(30, 0)
    texts[20], texts[25], texts[28] = texts[3].upper(), reworded(texts[7], 1, 0), texts[3].upper()
    found = find(texts, [], "text", within=True)
    assert {(f.kind, f.splits): f.pairs for f in found.findings} == {
        ("exact", ("train", "train")): ((20, 28),),
        ("near", ("train", "train")): ((3, 20), (7, 25)),
    }


def test_pairs_are_listed_to_be_judged(tmp_path, capsys):
    (tmp_path / "lines.csv").write_text(
        "line\nYes.\nYes.\nyes!\nNo\n" + "".join(f"{s}\n{s}!\n" for s in sentences(2, 0))
    )
    near_pairs.main([str(tmp_path / "lines.csv"), "--column", "line"])
    said = capsys.readouterr().out
    assert "8 texts, 7 different, 3 near pairs" in said
    assert "under 20 words: 1 pairs\n  'Yes.'\n  'yes!'\n" in said


def test_similarity_is_jaccards():
    texts = sentences(60, 2)
    pairs = [(s, reworded(s, n % 12, n)) for n, s in enumerate(texts)]
    pairs += [(" ".join(sentences(40, n)), " ".join(sentences(40, n)[: 30 + n])) for n in range(3)]  # beyond the sketch
    one, other = (text.describe(list(side), [None] * len(pairs)) for side in zip(*pairs, strict=True))
    found = text.similarity(one, other)
    for (a, b), similarity in zip(pairs, found, strict=True):
        first, second = ({f" {x} "[i : i + 5] for i in range(len(x) - 2)} for x in (a, b))
        exact = len(first & second) / len(first | second)
        assert similarity == pytest.approx(exact, abs=1e-9 if len(first | second) < 256 else 0.1)


# --- pictures -------------------------------------------------------------------------------------------------------


def texture(seed, side=72):
    """Colour noise whose power falls with the square of the frequency, as that of photographs does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 1 / side
    waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, side, side))) / frequency**1.3).real
    waves = waves[:1] + 0.3 * waves
    return np.clip(127 + 45 * waves / waves.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def photographs():
    """Windows of two photographs that do not overlap, without those of clear sky and blurred ground."""
    windows = [
        picture[y : y + 80, x : x + 80]
        for picture in load_sample_images().images
        for y in range(0, 400, 80)
        for x in range(0, 640, 80)
    ]
    return [window for window in windows if np.abs(np.diff(window.astype(int), axis=0)).mean() > 4]


def jpeg(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def resized(picture, factor):
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((round(width * factor), round(height * factor))))


def cropped(picture, left, top, right, bottom):
    height, width = picture.shape[:2]
    return picture[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


CHANGES = {
    "jpeg 90": lambda p: jpeg(p, 90),
    "jpeg 50": lambda p: jpeg(p, 50),
    "half": lambda p: resized(p, 0.5),
    "double": lambda p: resized(p, 2),
    "brighter": lambda p: np.clip(p * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda p: (p * 0.8).astype(np.uint8),
    "crop": lambda p: cropped(p, 0.05, 0.05, 0.05, 0.05),
    "corner": lambda p: cropped(p, 0.05, 0.05, 0, 0),
    "several": lambda p: jpeg(resized(cropped(p * 0.85, 0.03, 0, 0, 0.02).astype(np.uint8), 0.7), 75),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_found(change):
    train, test = [texture(n) for n in range(300)], [texture(1000 + n) for n in range(150)]
    for n in range(40):
        test[3 * n] = CHANGES[change](train[2 * n])
    found = near(find(train, test, "image"))
    missed = [n for n in range(40) if found.get(3 * n) != 2 * n]
    assert len(missed) <= 1
    assert set(found) <= {3 * n for n in range(40)}


@pytest.mark.parametrize("change", ["jpeg 50", "half", "darker", "crop"])
def test_changed_photographs_are_found_and_their_neighbours_are_not(change):
    photos = photographs()
    found = find(photos, [CHANGES[change](photo) for photo in photos], "image")
    pairs = [pair for f in found.findings for pair in f.pairs]
    assert all(i == j for i, j in pairs)
    assert len(photos) >= 30
    assert len(pairs) >= 0.95 * len(photos)


def test_pictures_may_be_floats_or_have_their_channels_first():
    train = [texture(n) for n in range(40)]
    floats = [jpeg(p, 80).transpose(2, 0, 1).astype(np.float32) / 255 for p in train]
    assert near(find(train, floats, "image")) == {n: n for n in range(40)}
    normalised = [torch.from_numpy(p) * 4 - 2 for p in floats]
    assert near(find(train, normalised, "image")) == {n: n for n in range(40)}


@pytest.mark.parametrize("side", [8, 28, 32])
def test_distinct_digits_are_no_copies(side):
    digits = [Image.fromarray((digit * 15).astype(np.uint8)).resize((side, side)) for digit in load_digits().images]
    found = find(digits[:1000], digits[1000:], "image")
    assert {f.kind for f in found.findings} <= {"exact"}


def test_a_paler_digit_is_a_copy():
    digits = (load_digits().images / 16).astype(np.float32)
    found = near(find(digits[:1000], digits[900:1000] * 0.8, "image"))
    assert found == {n: 900 + n for n in range(100)}


# --- recordings -----------------------------------------------------------------------------------------------------


def spoken(seed, rate=8000):
    """Half a second of a buzzing voice through two resonances, with breath; no two the same."""
    rng = np.random.default_rng(seed)
    T = int(rate * rng.uniform(0.35, 0.8))
    t = np.arange(T) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6)))
    wave = np.sign(np.sin(np.cumsum(2 * np.pi * pitch / rate))) + 0.3 * rng.standard_normal(T)
    for hertz in (rng.uniform(300, 800), rng.uniform(900, 2200)):
        wave = lfilter([1], [1, -1.9 * np.cos(2 * np.pi * hertz / rate), 0.9], wave)
    swell = np.interp(t, np.linspace(0, t[-1], 7), [0.02, *rng.uniform(0.2, 1, 5), 0.02])
    return (0.4 * wave * swell / np.abs(wave * swell).max()).astype(np.float32)


SOUNDS = {
    "louder": lambda w: np.clip(2 * w, -1, 1),
    "softer": lambda w: np.round(0.5 * w * 32768) / 32768,
    "inverted": lambda w: -w,
    "there and back": lambda w: resample_poly(resample_poly(w, 2, 1), 1, 2),
    "twice the rate": lambda w: resample_poly(w, 2, 1),
    "50 ms later": lambda w: np.concatenate([np.zeros(400), w]),
    "an odd shift": lambda w: np.concatenate([np.zeros(123), w])[:-37],
    "without the beginning": lambda w: w[len(w) // 10 :],
    "without the end": lambda w: w[: -len(w) // 10],
    "several": lambda w: 0.6 * np.concatenate([np.zeros(131), resample_poly(resample_poly(w, 2, 1), 1, 2)[200:]]),
}


@pytest.mark.parametrize("change", SOUNDS)
def test_changed_recordings_are_found(change):
    train, test = [spoken(n) for n in range(120)], [spoken(1000 + n) for n in range(60)]
    for n in range(30):
        test[2 * n] = SOUNDS[change](train[3 * n]).astype(np.float32)
    found = near(find(train, test, "audio"))
    missed = [n for n in range(30) if found.get(2 * n) != 3 * n]
    assert len(missed) <= (3 if change == "twice the rate" else 1)  # that it was resampled is not said
    assert set(found) <= {2 * n for n in range(30)}


def test_a_known_rate_brings_recordings_together():
    train = [{"audio": spoken(n), "hertz": 8000} for n in range(30)]
    test = [{"audio": resample_poly(sample["audio"], 441, 160).astype(np.float32), "hertz": 22050} for sample in train]
    splits = {"train": train, "test": test}
    told = near(find_leakage(splits, ["audio"], target=None, progress=False, sample_rate="hertz"))
    assert len(told) >= 29
    assert all(i == j for i, j in told.items())
    assert near(find_leakage(splits, ["audio"], target=None, progress=False)) == {}


def test_the_same_alarm_in_another_street_is_no_copy():
    t = np.arange(8000) / 8000
    alarm = 0.4 * np.sin(2 * np.pi * 880 * t)
    streets = [alarm + 0.1 * np.random.default_rng(n).standard_normal(8000) for n in range(80)]
    assert find(streets[:50], streets[50:], "audio").findings == ()
    # not for want of candidates: laid over each other at the best lag they do not agree either
    waves = audio.describe(streets, [None] * 80)["wave"][:, 0].astype(np.float32)
    whole = np.tile((0, audio.LENGTH), (40, 1))
    assert audio.likeness(waves[:40], whole, waves[40:], whole).max() < 0.6


def test_another_take_agrees_little_with_the_first():
    """The same voice at the same moments, its pitch two percent higher: much of a spectrum is shared, no waveform."""
    takes = [spoken(n) for n in range(40)]
    again = [resample_poly(take, 50, 51) for take in takes]
    assert find(takes, again, "audio").findings == ()
    one, other = (audio.describe(part, [None] * 40) for part in (takes, again))
    like = audio.likeness(*(part[field][:, 0] for part in (one, other) for field in ("wave", "support")))
    assert like.max() < audio.LIKENESS - 0.1


def recordings():
    found = {}
    for path in sorted(FSDD.glob("*.wav")):
        with wave.open(str(path)) as file:
            found[path.stem] = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not FSDD.is_dir(), reason="the Free Spoken Digit Dataset is not beside the project")
def test_takes_of_one_word_by_one_speaker_are_no_copies():
    """3,000 real recordings: none is invented, and planted ones are found among them."""
    takes = recordings()
    test = {name: wave for name, wave in takes.items() if int(name.rsplit("_", 1)[1]) < 5}
    train = [wave for name, wave in takes.items() if name not in test]
    assert find(train, list(test.values()), "audio").findings == ()

    planted, rng = list(test.values()), np.random.default_rng(0)
    chosen = rng.choice(len(train), 200, replace=False)
    for n, i in enumerate(chosen):
        change = SOUNDS[list(SOUNDS)[n % len(SOUNDS)]]
        planted.append((change(train[i] / 32768) * 32767).astype(np.int16))
    found = find(train, planted, "audio")
    touched = found.touched("test")
    assert len(touched) >= 196
    assert min(touched) >= len(test)
    assert all(near(found)[len(test) + n] == chosen[n] for n in range(200) if len(test) + n in touched)


# --- laws -----------------------------------------------------------------------------------------------------------


def planted():
    """Samples of three modalities, ten of the later split changed copies in one modality each."""
    train = [{"text": s, "image": texture(n), "audio": spoken(n)} for n, s in enumerate(sentences(60, 0))]
    test = [{"text": s, "image": texture(500 + n), "audio": spoken(500 + n)} for n, s in enumerate(sentences(40, 1))]
    for n in range(10):
        test[n]["text"] = train[10 + n]["text"].upper()
        test[10 + n]["image"] = jpeg(train[20 + n]["image"], 70)
        test[20 + n]["audio"] = train[30 + n]["audio"] * 0.7
    return {"train": train, "test": test}


def test_each_copy_is_laid_to_its_modality():
    found = find_leakage(planted(), ["text", "image", "audio"], target=None, progress=False)
    assert {(f.kind, f.modality): f.samples for f in found.findings} == {
        ("near", "text"): tuple(range(10)),
        ("near", "image"): tuple(range(10, 20)),
        ("near", "audio"): tuple(range(20, 30)),
    }
    only = find_leakage(planted(), ["text", "image", "audio"], near=["image"], target=None, progress=False)
    assert [f.modality for f in only.findings] == ["image"]


def test_order_and_direction_only_rename():
    splits, keys = planted(), ["text", "image", "audio"]
    order = {name: np.random.default_rng(3).permutation(len(part)) for name, part in splits.items()}
    found = find_leakage(splits, keys, target=None, progress=False)
    mixed = {name: [part[i] for i in order[name]] for name, part in splits.items()}
    again = find_leakage(mixed, keys, target=None, progress=False)
    back = find_leakage(dict(reversed(splits.items())), keys, target=None, progress=False)
    for f, g, h in zip(found.findings, again.findings, back.findings, strict=True):
        assert sorted((order["train"][i], order["test"][j]) for i, j in g.pairs) == sorted(f.pairs)
        assert sorted((i, j) for j, i in h.pairs) == sorted(f.pairs)


def test_blocks_are_only_a_matter_of_memory(monkeypatch):
    whole = find_leakage(planted(), ["text", "image", "audio"], target=None, progress=False)
    monkeypatch.setattr("mm_metrics.leakage.near.kinds.BLOCK", 7)
    monkeypatch.setattr("mm_metrics.leakage.lookup.CHUNK", 50)
    assert find_leakage(planted(), ["text", "image", "audio"], target=None, progress=False) == whole


def test_an_exact_copy_is_not_also_a_near_one():
    train, test = sentences(50, 0), sentences(50, 1)
    test[3], test[4], test[5], test[6] = train[7], train[7], train[8].upper(), train[8].upper()
    found = find(train, test, "text")
    assert [(f.kind, f.samples) for f in found.findings] == [("exact", (3, 4)), ("near", (5, 6))]


def test_more_copies_more_found():
    train, counts = [texture(n) for n in range(60)], []
    for copies in (0, 5, 20, 60):
        test = [jpeg(p, 80) for p in train[:copies]] + [texture(900 + n) for n in range(20)]
        counts.append(sum(f.count for f in find(train, test, "image").findings))
    assert counts == [0, 5, 20, 60]


@pytest.mark.parametrize("part", [text, image, audio])
def test_what_is_kept_of_a_sample_is_small(part):
    assert part.RECORD.itemsize < 6000


def test_odd_inputs_do_no_harm():
    for modality, odd in {
        "text": ["", "a", "\ud800x", "。、"],
        "image": [
            np.zeros((1, 5)) + np.arange(5),
            np.full((40, 40), np.nan),
            np.arange(3 * 300).reshape(3, 300, 1) % 7,
        ],
        "audio": [np.float32([1, 2]), np.full(5000, np.inf), np.random.default_rng(0).standard_normal((2, 6000))],
    }.items():
        found = find(odd, odd[::-1], modality, kinds={modality: modality})
        assert {f.kind for f in found.findings} == {"exact"}


def test_a_missing_extra_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    monkeypatch.delitem(sys.modules, "mm_metrics.leakage.near.text")
    with pytest.raises(ImportError, match="near copies need datasketch: pip install "):
        find(["a"], ["b"], "text")
    assert find(["a"], ["a"], "text", near=False).touched("test") == [0]


def test_one_kind_a_modality():
    with pytest.raises(
        ValueError, match=r"split 'test', sample 0, modality 'audio': read as audio, got shape \(3, 4, 5\)"
    ):
        find([np.zeros(9)], [np.zeros((3, 4, 5))], "audio")
    clip = np.zeros((3, 4, 5, 6)) + np.arange(6)
    found = find([clip], [clip], "video", batched=False)
    assert found.touched("test") == [0]
    assert "video: exact copies only" in str(found)
