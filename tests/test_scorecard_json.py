"""A scorecard as JSON: fits its published schema, comes back as it was, and nothing damaged or hostile comes back."""

import base64
import hashlib
import json
import tracemalloc
import zlib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mm_metrics
from mm_metrics import CoalitionConfusionMatrix, Scorecard
from mm_metrics.modalities import UNHIDDEN
from mm_metrics.predictions import Predictions

SCHEMA = json.loads((Path(mm_metrics.__file__).parent / "scorecard.schema.json").read_text(encoding="utf-8"))
FIELDS = SCHEMA["required"]
ROWS = {"target": ["a", "b", "b", "a"], "prediction": ["a", "b", "a", "a"], "prediction_text": ["b", "b", "a", "?"]}


def made(task="multiclass", **more) -> Scorecard:
    sizes = {"multiclass": {"num_classes": 3}, "binary": {}, "multilabel": {"num_labels": 2}}[task]
    metric = CoalitionConfusionMatrix(("text", "audio"), task=task, bootstrap=5, **sizes, **more)
    shape = (40, 2) if task == "multilabel" else (40,)
    draw = torch.Generator().manual_seed(0)
    top = 3 if task == "multiclass" else 2
    K = len(metric.layout.masks)
    preds, target = (torch.randint(top, size, generator=draw) for size in ((K, *shape), shape))
    metric.update(preds, target, torch.rand(40, 2, generator=draw) < 0.5)
    return metric.scorecard(model="toy", epoch=3)


CARDS = {
    "multiclass": lambda: made(),
    "binary": lambda: made("binary"),
    "multilabel": lambda: made("multilabel", class_names=("smoke", "ä\n<b>")),
    "no bootstrap": lambda: made(coalitions=["all"]),
    "slices": lambda: made(max_bytes=9000),
    "nothing hidden": lambda: made(coalitions=["text", "all", UNHIDDEN]),
    "stray answers": lambda: Predictions(("text", "audio"), classes=("a", "b")).score_rows(ROWS),
    "binary, stray": lambda: Predictions(("text", "audio"), "binary", ("a", "b")).score_rows(ROWS),
    "multilabel, stray": lambda: Predictions(("text", "audio"), "multilabel", ("a", "b")).score_rows(ROWS),
    "judged": lambda: Predictions(("text",), correct="ok").score_rows({"ok": [1, 0, 1]}),
}


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads(CARDS["stray answers"]().to_json())


@pytest.mark.filterwarnings("ignore:max_bytes=9000")
@pytest.mark.parametrize("name", CARDS)
def test_a_card_fits_the_schema_and_comes_back_as_it_was(name, tmp_path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    card = CARDS[name]()
    jsonschema.validate(json.loads(card.to_json(tmp_path / "card.json")), SCHEMA)
    back = Scorecard.from_json(tmp_path / "card.json")
    assert back == card
    assert type(back) is type(card)
    assert back.to_json() == card.to_json()
    assert (back.names, back.parts, back.info) == (card.names, card.parts, card.info)


def test_the_counts_are_where_the_schema_says():
    content = json.loads(made().to_json())
    counts = np.frombuffer(zlib.decompress(base64.b64decode(content["counts"])), "<i8")
    K, G, L, C = len(content["coalitions"]), 4, content["num_labels"], content["num_classes"]
    confusion = counts[: K * G * L * C * C].reshape(K, G, L, C, C)
    assert content["layout"] == {
        "patterns": True,
        "replicate_slices": True,
        "full": True,
        "last": True,
        "found": False,
        "answers": True,
        "by": [],
        "curves": 0,
        "bins": 0,
        "levels": 0,
        "sums": [],
        "group_cells": 8192,
        "ties": False,
        "marks": 64,
        "spread_bins": 64,
    }
    assert np.array_equal(confusion[-1].sum(0)[0], made().confusion().numpy())
    with_audio = confusion[1, [g for g in range(G) if g >> 1 & 1]].sum(0)[0]
    assert np.array_equal(with_audio, made().confusion(content["coalitions"][1], "audio").numpy())
    hits = counts[confusion.size + K * G * C :][: G * 2**K].reshape(G, 2**K)
    assert hits.sum() == counts[-2] == 40


WRONG = (None, True, -1, 2.5, 2**70, "x", "", [], [1], ["x"], {}, {"a": 1}, [[]], float("nan"))


@pytest.mark.parametrize("field", FIELDS)
def test_a_changed_field_is_refused_or_another_valid_card(field, card):
    """What the schema refuses the reader refuses: no field's type is taken on trust."""
    for wrong in WRONG:
        changed = {**card, field: wrong}
        valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(changed)
        try:
            read = Scorecard.from_json(json.dumps(changed))
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 500  # noqa: PT017
            continue
        assert valid, (field, wrong)
        assert field in ("seed", "shards", "parts", "info", "class_names"), (field, wrong)
        read.score("f1")
    without = {name: value for name, value in card.items() if name != field}
    with pytest.raises(ValueError, match=f"'{field}'|version None"):
        Scorecard.from_json(json.dumps(without))


def repacked(content: dict, counts: np.ndarray, **more) -> str:
    """As a forger would: with the right checksum."""
    raw = counts.astype("<i8").tobytes()
    packed = base64.b64encode(zlib.compress(raw)).decode()
    return json.dumps({**content, "counts": packed, "sha256": hashlib.sha256(raw).hexdigest(), **more})


def unpacked(content: dict) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(content["counts"])), "<i8").copy()


HOSTILE = {
    "a negative count": (lambda counts: np.where(np.arange(len(counts)) == 3, -1, counts), {}, "outside 0"),
    "a count that overflows": (lambda counts: counts + 2**62, {}, "outside 0"),
    "too few counts": (lambda counts: counts[:-1], {}, "do not fit"),
    "too many counts": (lambda counts: np.append(counts, 0), {}, "do not fit"),
    "samples of (other)": (lambda counts: counts + 1, {}, r"'\(other\)' has samples"),
    "more classes": (lambda counts: counts, {"num_classes": 2**39}, "names 3 classes"),
    "more labels": (lambda counts: counts, {"num_labels": 2**39}, "num_labels"),
    "more replicates": (lambda counts: counts, {"bootstrap": 2**39}, "more than"),
    "three classes in two": (lambda counts: counts, {"task": "binary", "class_names": ["a", "b", "c"]}, "has 2"),
    "a doubled coalition": (lambda counts: counts, {"coalitions": ["text", "all", "audio-text"]}, "holds one twice"),
    "an unknown coalition": (lambda counts: counts, {"coalitions": ["text", "video"]}, "not made of"),
    "a modality that is a path": (lambda counts: counts, {"modalities": ["../../x", "audio"]}, "not usable"),
    "half a letter": (lambda counts: counts, {"class_names": ["\ud800", "b", "c"]}, "surrogates"),
    "a version to come": (lambda counts: counts, {"version": 3}, "version 3, this library reads versions up to 2"),
    "another format": (lambda counts: counts, {"format": "x"}, "not a scorecard"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_forged_card_is_refused(name, card):
    change, more, said = HOSTILE[name]
    with pytest.raises(ValueError, match=said):
        Scorecard.from_json(repacked(card, change(unpacked(card)), **more))


CONTRADICTIONS = {
    "fewer samples than answers": ("samples", lambda field: field.fill_(1)),
    "more compared than seen": ("hits", lambda field: field.add_(1000)),
    "refused samples": ("refused", lambda field: field.add_(1)),
    "replicates with more hits than samples": ("replicates", lambda field: field[:, :, 0].add_(1000)),
    "replicates with more predictions than samples": ("replicates", lambda field: field[:, :, 1].add_(1000)),
}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_parts_that_contradict_each_other_are_refused(name, task):
    card, (field, change) = made(task), CONTRADICTIONS[name]
    content = json.loads(card.to_json())
    counts = card.counts.clone()
    change(card.layout.view(counts, field))
    with pytest.raises(ValueError, match=r"damaged scorecard: (?!its counts)"):
        Scorecard.from_json(repacked(content, counts.numpy()))


@pytest.mark.filterwarnings("ignore:max_bytes=9000")
def test_a_slice_is_no_larger_than_the_whole():
    """Or what lies outside it would have fewer than no samples."""
    card = made(max_bytes=9000)
    assert not card.layout.patterns
    counts = card.counts.clone()
    card.layout.view(counts, "confusion")[:, 1] += 100
    with pytest.raises(ValueError, match="a slice holds more samples than the whole"):
        Scorecard.from_json(repacked(json.loads(card.to_json()), counts.numpy()))


@pytest.mark.parametrize("levels", [100, 600, 5000])
def test_deep_info_is_refused(levels, card):
    text = json.dumps({**card, "info": {"a": "HERE"}}).replace('"HERE"', "[" * levels + "]" * levels)
    with pytest.raises(ValueError, match=r"scorecard: (info is no object|no valid JSON)"):
        Scorecard.from_json(text)


def test_a_small_file_unpacks_to_no_gigabytes(card):
    many = {"num_classes": 7000, "class_names": None, "coalitions": ["all"], "bootstrap": 0}
    with pytest.raises(ValueError, match=r"bytes would unpack to 1\.5 GiB"):
        Scorecard.from_json(json.dumps({**card, **many}))


def test_a_flipped_bit_changes_no_count(card):
    packed = bytearray(base64.b64decode(card["counts"]))
    noticed = 0
    for at in range(len(packed)):
        flipped = packed.copy()
        flipped[at] ^= 1
        try:
            read = Scorecard.from_json(json.dumps({**card, "counts": base64.b64encode(flipped).decode()}))
        except ValueError:
            noticed += 1
            continue
        assert read == Scorecard.from_json(json.dumps(card))
    assert noticed >= len(packed) - 6  # all but zlib's own header and checksum


def test_a_bomb_is_unpacked_no_further_than_its_layout_says(card):
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(512)) + bomb.flush()  # 512 MiB of zeros
    text = json.dumps({**card, "counts": base64.b64encode(packed).decode()})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="do not fit"):
            Scorecard.from_json(text)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_a_truncated_file_is_refused(card, tmp_path):
    text = json.dumps(card)
    for end in range(0, len(text), 37):
        (tmp_path / "card.json").write_text(text[:end])
        with pytest.raises(ValueError, match=r"card\.json"):
            Scorecard.from_json(tmp_path / "card.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{}", "{" + "1" * 5000 + "}"])
def test_text_that_is_no_card_is_refused(text, tmp_path):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match="is not a scorecard"):
        Scorecard.from_json(tmp_path / "card.json")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), keep=st.integers(0, 2000))
def test_random_bytes_are_refused(content, keep, card, tmp_path):
    (tmp_path / "card.json").write_bytes(json.dumps(card).encode()[:keep] + content)
    with pytest.raises(ValueError, match=r"card\.json"):
        Scorecard.from_json(tmp_path / "card.json")
