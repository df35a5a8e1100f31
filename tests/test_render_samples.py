"""The samples that the page shows: content decodes to what was given, stays text, and stays within its room."""

from __future__ import annotations

import base64
import io
import re
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from mm_metrics import ModalityConfusionMatrix
from mm_metrics.render import page, samples
from tests.render_cards import HOSTILE, paradox

RATE = 16_000


def row(number: object = 7, **content: object) -> dict:
    said = {"text-image-audio": "nothing", "audio": "siren"}
    return {"number": number, "target": "siren", "prediction": "nothing", "coalitions": said, "content": content}


def one(**content: object) -> samples.Content:
    (part,) = samples.shown([{"message": "m", "of": 5, "rows": [row(**content)]}])
    return part.samples[0].contents[0]


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_an_image_comes_back_and_a_large_one_as_means():
    small = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(decoded(one(image=small).image))))
    assert np.array_equal(shown, small)
    large = np.zeros((400, 640, 3), np.uint8)
    large[:200] = 200
    shown = np.asarray(Image.open(io.BytesIO(decoded(one(image=large).image))))
    assert max(shown.shape) <= 160
    assert (shown[0].mean(), shown[-1].mean()) == (200, 0)
    assert decoded(one(image=(png := decoded(one(image=small).image))).image) == png


def test_a_second_of_sound_can_be_played():
    sound = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE) * 0.5
    content = one(audio=(sound, RATE))
    with wave.open(io.BytesIO(decoded(content.sound))) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (RATE, RATE, 1)
        heard = np.frombuffer(file.readframes(RATE), "<i2") / 32767
    assert np.abs(heard - sound[:RATE]).max() < 1e-4
    assert "3.0 seconds" in content.wave
    with wave.open(io.BytesIO(decoded(one(audio=(np.ones(48_000), 48_000)).sound))) as file:
        assert file.getnframes() / file.getframerate() == 1


@pytest.mark.parametrize(
    ("value", "rate"),
    [([], RATE), ([np.nan] * 500, RATE), ([np.inf, -np.inf], RATE), ([1e30] * 10, 8000), ([0.0] * 5, 0)],
)
def test_odd_sound_is_shown_or_refused_and_never_raises(value, rate):
    content = one(audio=(np.array(value, dtype=np.float32), rate))
    assert bool(content.sound) != bool(content.missing)
    assert "nan" not in content.wave


def test_what_is_no_content_is_said():
    assert one(video=object()).missing == "object is not shown"
    assert one(image=b"GIF89a").missing
    assert one(text="a" * 5000).text.endswith(" …")


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("words", str),
        (torch.zeros(3, 8, 8), np.ndarray),
        (torch.randn(1, 8, 8), np.ndarray),
        (np.zeros((8, 8, 3), np.uint8), np.ndarray),
        (torch.zeros(RATE), tuple),
        (torch.zeros(1, RATE), tuple),
        (torch.zeros(12), type(None)),
        (torch.zeros(500, dtype=torch.int64), type(None)),
        (torch.zeros(5, 8, 8), type(None)),
        (torch.zeros(()), type(None)),
        (torch.zeros(40, 80), type(None)),
    ],
    ids=range(11),
)
def test_only_what_is_plainly_one_thing_is_taken_by_itself(entry, kind):
    assert type(samples.plain(entry)) is kind
    if kind is not type(None):
        content = one(it=samples.plain(entry))
        assert content.text or content.image or content.sound


def test_the_page_says_how_many_of_how_many_and_names_stay_text(tmp_path):
    rows = [row(i, text=HOSTILE) for i in range(25)]
    rows[0] |= {"target": HOSTILE, "prediction": HOSTILE, "coalitions": {HOSTILE: HOSTILE}}
    found = [{"message": HOSTILE, "of": 134, "rows": rows}]
    html = page.write(tmp_path / "page.html", paradox(), shown=found).read_text()
    assert "10 of 134 shown" in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 13
    assert "<script" not in html
    assert html.count("<q>") == 10
    assert re.search(r'class="right".*?audio</span> siren', html)
    assert re.search(r'class="wrong".*?text-image-audio</span> nothing', html)


def test_the_page_stays_below_five_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    content = {f"image{i}": noise for i in range(9)}
    found = [{"message": str(i), "of": 10, "rows": [row(j, **content) for j in range(10)]} for i in range(2)]
    path = page.write(tmp_path / "page.html", paradox(), shown=found)
    assert 3_000_000 < path.stat().st_size < 5_000_000
    assert "contents are left out" in path.read_text()


def test_content_is_off_unless_it_is_given(tmp_path):
    html = page.write(tmp_path / "page.html", paradox(), shown=[{"message": "m", "of": 1, "rows": [row()]}]).read_text()
    assert "<img" not in html
    assert "<audio" not in html
    assert "was <b>siren</b>, said <b>nothing</b>" in html


def test_on_a_scale_the_page_speaks_of_errors(tmp_path):
    metric = ModalityConfusionMatrix(("text",), task="ordinal", edges=(-1, 1))
    metric.update(torch.tensor([0.4, 2.0]), torch.tensor([1.3, 2.5]))
    said = row() | {"target": "1.3", "prediction": "0.4", "coalitions": {"a": "1.1", "b": "1.3"}, "right": ["a"]}
    found = [{"message": "largest errors", "of": 2, "rows": [said]}]
    html = page.write(tmp_path / "page.html", metric.scorecard(), shown=found).read_text()
    assert "1 of 2 shown, the largest error first" in html
    assert "was <b>1.3</b>, said <b>0.4</b>" in html
    assert re.findall(r'<li class="(right|wrong)">', html) == ["right", "wrong"]
