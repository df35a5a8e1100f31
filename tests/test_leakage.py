"""Exact copies, groups and label conflicts; how splits are read; the value that comes back."""

import json
import random
import re
from decimal import Decimal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from mm_metrics.leakage import Compared, Finding, Leakage, find_leakage
from mm_metrics.leakage.inputs import digest, plain

KEYS = {"text": ("tokens", "mask"), "image": "pixels", "audio": "waveform"}


def sample(seed, label=None, speaker=None):
    """One sample of noise, of its own length of sound."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "tokens": torch.randint(1, 1000, (12,), generator=generator),
        "mask": torch.arange(12) < 8 + seed % 4,
        "pixels": torch.rand(3, 8, 8, generator=generator),
        "waveform": torch.randn(100 + seed % 7, generator=generator),
        "label": seed % 5 if label is None else label,
        "speaker": f"s{seed // 10}" if speaker is None else speaker,
    }


class Samples(Dataset):
    """A map-style data set of a list; what torch's own would be."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i]


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def planted():
    """40 train, 20 validation, 30 test samples, and what was copied between them."""
    train, val, test = ([sample(s) for s in range(first, first + n)] for first, n in ((0, 40), (100, 20), (200, 30)))
    test[3]["tokens"], test[3]["mask"] = train[17]["tokens"], train[17]["mask"]
    test[5]["pixels"] = train[2]["pixels"].clone()
    test[6]["pixels"] = train[2]["pixels"].clone()
    test[9]["waveform"] = val[4]["waveform"].numpy().astype(np.float64)
    val[0]["waveform"], val[0]["label"] = train[7]["waveform"], 4
    test[11]["speaker"] = test[12]["speaker"] = train[25]["speaker"]
    return {"train": train, "val": val, "test": test}


def told(found):
    return {(f.kind, f.modality, f.splits): f.pairs for f in found.findings}


def find(splits, modalities=KEYS, **arguments):
    return find_leakage(splits, modalities, **{"near": False, "progress": False, **arguments})


class ByNumber:
    """A data set that is none of torch's: samples by number, and how many."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i] if i < len(self) else pytest.fail("asked beyond the end")


def test_a_data_set_need_not_be_one_of_torchs():
    splits = planted()
    assert find({name: ByNumber(samples) for name, samples in splits.items()}) == find(splits)


def test_planted_copies_are_found_and_attributed():
    found = find(planted(), group="speaker")
    assert {key: pairs for key, pairs in told(found).items() if key[0] != "label_conflict"} == {
        ("exact", "text", ("train", "test")): ((17, 3),),
        ("exact", "image", ("train", "test")): ((2, 5), (2, 6)),
        ("exact", "audio", ("val", "test")): ((4, 9),),
        ("exact", "audio", ("train", "val")): ((7, 0),),
        ("group", "speaker", ("train", "test")): ((20, 11),),
    }
    assert found.touched("train") == []
    assert found.touched("test", kinds="exact") == [3, 5, 6, 9]
    assert found.touched("test", kinds=("exact",), modalities="image") == [5, 6]
    assert found.touched("test") == [3, 5, 6, 9, 11, 12]
    group = next(f for f in found.findings if f.kind == "group")
    assert (group.count, group.share, group.samples) == (1, 1 / 4, (11, 12))
    exact = next(f for f in found.findings if f.kind == "exact" and f.modality == "image")
    assert (exact.count, exact.share) == (2, 2 / 30)


def test_conflicts_are_equal_inputs_under_different_labels():
    train = [sample(1, label=0), sample(1, label=1), sample(2, label=0), sample(3, label=None), sample(4, label=3)]
    train[3]["label"] = None
    test = [sample(1, label=0), sample(2, label=0), sample(2, label=2), sample(3, label=1), sample(4, label=3.0)]
    found = find({"train": train, "test": test}, {"audio": "waveform"})
    assert told(found)["label_conflict", "audio", ("train", "test")] == ((1, 0), (2, 2))
    assert found.touched("test", kinds="exact") == [0, 1, 2, 3, 4]


def test_disjoint_data_has_no_findings():
    splits = {"train": [sample(s) for s in range(200)], "test": [sample(s) for s in range(200, 300)]}
    found = find(splits, group="speaker")
    assert found.findings == ()
    assert found.touched("test") == []
    assert found.without("test").all()
    assert str(found).splitlines()[0] == "Nothing shared between train, test."


@pytest.mark.parametrize("copies", [1, 3, 10])
def test_counts_grow_with_the_copies(copies):
    splits = {"train": [sample(s) for s in range(50)], "test": [sample(s) for s in range(100, 120)]}
    splits["test"] += splits["train"][:copies]
    found = find(splits, {"image": "pixels"})
    (exact,) = found.findings
    assert (exact.count, exact.share) == (copies, copies / (20 + copies))


def test_the_order_of_samples_only_renames_them():
    splits = planted()
    order = {name: np.random.default_rng(1).permutation(len(part)) for name, part in splits.items()}
    shuffled = {name: [part[i] for i in order[name]] for name, part in splits.items()}
    found, again = find(splits, group="speaker"), find(shuffled, group="speaker")
    assert [(f.kind, f.modality, f.splits, f.count, f.share) for f in found.findings] == [
        (f.kind, f.modality, f.splits, f.count, f.share) for f in again.findings
    ]
    for name in splits:
        assert sorted(order[name][again.touched(name)].tolist()) == found.touched(name)


def test_swapping_the_splits_finds_the_same_pairs():
    splits = planted()
    there = told(find(splits))
    back = told(find(dict(reversed(splits.items()))))
    assert {(k, m, (b, a)): tuple(sorted((j, i) for i, j in pairs)) for (k, m, (a, b)), pairs in back.items()} == {
        key: tuple(sorted(pairs)) for key, pairs in there.items()
    }


def collate_lists(samples):
    """A custom collation, with padding that depends on who else is in the batch."""
    longest = max(len(s["waveform"]) for s in samples)
    return {
        **{key: torch.stack([s[key] for s in samples]) for key in ("tokens", "mask", "pixels")},
        "waveform": torch.stack(
            [
                torch.nn.functional.pad(torch.as_tensor(s["waveform"]).float(), (0, longest - len(s["waveform"])))
                for s in samples
            ]
        ),
        "label": torch.tensor([s["label"] for s in samples]),
        "speaker": [s["speaker"] for s in samples],
    }


@pytest.mark.parametrize(
    "wrap",
    [
        Samples,
        Stream,
        iter,
        lambda part: DataLoader(Samples(part), batch_size=7, shuffle=True, collate_fn=collate_lists),
        lambda part: DataLoader(Samples(part), batch_size=64, shuffle=True),
        lambda part: DataLoader(Samples(part), batch_size=None, shuffle=True),
        lambda part: DataLoader(Stream(part), batch_size=5, collate_fn=collate_lists),
        lambda part: (collate_lists(part[i : i + 9]) for i in range(0, len(part), 9)),
        lambda part: [collate_lists(part)],
        lambda part: collate_lists(part),
        lambda part: DataLoader(Samples(part), batch_size=4, sampler=SubsetRandomSampler(range(len(part)))),
        lambda part: DataLoader(Samples(part), batch_sampler=[[i] for i in range(len(part))], collate_fn=collate_lists),
    ],
)
def test_the_same_whatever_the_samples_come_in(wrap):
    splits = planted()
    found = find({name: wrap(part) for name, part in splits.items()}, group="speaker")
    assert found == find(splits, group="speaker")


@pytest.mark.slow
def test_workers_change_nothing():
    splits = planted()
    loaders = {name: DataLoader(Samples(part), batch_size=4, num_workers=2) for name, part in splits.items()}
    assert find(loaders, group="speaker") == find(splits, group="speaker")


def test_a_subset_sampler_keeps_the_other_split_out():
    """One data set, two samplers: reading the whole of it would find everything leaked."""
    data = Samples([sample(s) for s in range(30)])
    first, last = (
        DataLoader(data, batch_size=4, sampler=SubsetRandomSampler(part)) for part in (range(20), range(20, 30))
    )
    found = find({"train": first, "test": last})
    assert found.findings == ()
    assert found.sizes == {"train": 20, "test": 10}


def test_tuples_and_attributes():
    pixels = torch.rand(6, 3, 8, 8)
    train, test = TensorDataset(pixels[:4], torch.arange(4)), TensorDataset(pixels[3:], torch.arange(3))
    assert told(find({"train": train, "test": test}, {"image": 0}, target=1))["exact", "image", ("train", "test")] == (
        (3, 0),
    )

    class Record:
        def __init__(self, row):
            self.picture = row

    parts = {"train": [Record(row) for row in pixels[:4]], "test": [Record(row) for row in pixels[3:]]}
    assert find(parts, {"image": "picture"}).touched("test") == [0]


class Augmented(Samples):
    def __getitem__(self, i):
        noise = random.random() + np.random.rand() + torch.rand(())  # what an augmentation draws
        return {**self.samples[i], "pixels": self.samples[i]["pixels"] + noise}


def test_samples_that_change_when_read_again_are_said():
    """A copy in the test split is no copy of an augmented sample; the answer says so."""
    samples = [sample(s) for s in range(12)]
    still = Samples(samples)
    for train in (
        Augmented(samples),
        DataLoader(Augmented(samples), batch_size=4, shuffle=True),
        DataLoader(Augmented(samples), batch_size=4, collate_fn=collate_lists),
    ):
        found = find({"train": train, "test": still}, {"image": "pixels"})
        assert any(note.startswith("train: read again") for note in found.notes)
    for train in (still, DataLoader(still, batch_size=4, shuffle=True), Stream(samples), iter(samples)):
        assert not any("read again" in note for note in find({"train": train, "test": still}, KEYS).notes)


def test_no_stream_of_random_numbers_moves():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state().tolist()
    loader = DataLoader(Augmented([sample(s) for s in range(9)]), batch_size=4, shuffle=True, generator=generator)
    custom = DataLoader(
        Samples([sample(s) for s in range(9)]),
        batch_sampler=torch.utils.data.BatchSampler(
            torch.utils.data.RandomSampler(range(9), generator=generator), 4, drop_last=False
        ),
        generator=generator,
    )
    find({"train": loader, "test": [sample(20)]}, {"image": "pixels"})
    find({"train": custom, "test": [sample(20)]}, {"image": "pixels"})
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert state == generator.get_state().tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1.5, 2.5]), torch.tensor([1.5, 2.5], dtype=torch.float16)),
        (np.array([1.5, 2.5]), torch.tensor([1.5, 2.5], dtype=torch.bfloat16)),
        ([0.1, 0.2], torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)),
        (np.array([0.0, 1.0]), np.array([-0.0, 1.0])),
        ([3, 4], torch.tensor([3, 4], dtype=torch.uint8)),
        ("cafe\u0301", "caf\u00e9"),
        (["help", "fire"], "help fire"),
        (
            np.arange(48, dtype=np.int32).reshape(4, 4, 3),
            Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)),
        ),
        (np.arange(16).reshape(4, 4), Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))),
        (np.arange(12).reshape(3, 4).T, np.ascontiguousarray(np.arange(12).reshape(3, 4).T)),
    ],
)
def test_the_same_input_in_other_clothes_has_the_same_digest(one, other):
    assert (digest(plain(one)) == digest(plain(other))).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
        (np.arange(3), np.arange(3.0)),
        ("a", "A"),
        (np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2))),
    ],
)
def test_another_input_has_another_digest(one, other):
    assert (digest(plain(one)) != digest(plain(other))).any()


@pytest.mark.parametrize(
    "spelling",
    [
        12,
        12.0,
        "12",
        " 12",
        "12.0",
        np.int64(12),
        np.float32(12),
        torch.tensor(12),
        torch.tensor([12.0]),
        ["12"],
        b"12",
        Decimal("12.0"),
        "7|12",
        ["12", "7"],
        (12, 7),
        torch.tensor([7, 12]),
        "[7, 12]",
        "['12', '7']",
        "['7' '12']",
        "[ 7 12]",
        '["7", 12.0]',
        "[12]",
    ],
)
def test_a_group_is_one_however_it_is_written(spelling):
    train, test = [{"x": "a", "who": 12}], [{"x": "b", "who": "11"}, {"x": "c", "who": spelling}, {"x": "d", "who": ""}]
    (group,) = find({"train": train, "test": test}, ["x"], group="who").findings
    assert (group.kind, group.count, group.samples, group.pairs) == ("group", 1, (1,), ((0, 1),))
    assert group.share == (1 / 3 if "7" in str(spelling) else 1 / 2)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (3, " 3.0", True),
        (np.float32(3.14), "3.14", True),
        (True, "True", True),
        (b"fire", "fire ", True),
        (["fire", "flood"], "flood|fire", True),
        ([5, 3], {3, 5}, True),
        ([5, 3], "[3, 5]", True),
        (["fire", "flood"], "['flood', 'fire']", True),
        ("[0, 1, 0]", [0, 1, 0], True),
        ("[0, 1]", "[1, 0]", False),
        ("[noise]", "[laughter]", False),
        ("[3", "3", False),
        (["fire"], "fire", True),
        ([0, 1, 0], torch.tensor([0.0, 1.0, 0.0]), True),
        (torch.tensor([0.2, 0.8]), [0.2, 0.8], True),
        (1, 2, False),
        ("fire", "Fire", False),
        ([0, 1, 0], [1, 0, 0], False),
        ([], ["fire"], False),
        ([0.2, 0.8], [0.8, 0.2], False),
        (torch.tensor([3, 5]), torch.tensor([5, 3]), False),
        (None, "fire", None),
        ("", "fire", None),
        (float("nan"), 3, None),
        ([None], "fire", None),
    ],
)
def test_labels_conflict_where_they_are_others(one, other, equal):
    """Of the last four one is unknown, which is no conflict."""
    for a, b in ((one, other), (other, one)):
        found = find({"train": [{"x": "a", "label": a}], "test": [{"x": "a", "label": b}]}, ["x"])
        assert [f.kind for f in found.findings] == ["exact"] + ["label_conflict"] * (equal is False)


def test_copies_within_a_split():
    train = [sample(1), sample(2), sample(1), sample(3), sample(1, label=4), sample(2)]
    alone = find({"train": train}, {"audio": "waveform"}, group="speaker")
    assert told(alone) == {
        ("exact", "audio", ("train", "train")): ((0, 2), (0, 4), (2, 4), (1, 5)),
        ("label_conflict", "audio", ("train", "train")): ((0, 4),),
    }
    assert alone.touched("train") == [2, 4, 5]
    assert alone.findings[0].share == 3 / 6
    assert "within train" in str(alone)
    splits = {"train": train, "test": [sample(9), sample(9), sample(3)]}
    apart, both = find(splits, {"audio": "waveform"}), find(splits, {"audio": "waveform"}, within=True)
    assert set(told(both)) - set(told(apart)) == {*told(alone), ("exact", "audio", ("test", "test"))}
    assert find({"train": train}, {"audio": "waveform"}, within=False).findings == ()
    # what is not touched holds every input once
    kept = [train[i] for i in np.flatnonzero(alone.without("train"))]
    assert find({"train": kept}, {"audio": "waveform"}).findings == ()


def test_copies_within_are_those_of_every_pair():
    """Against all pairs, looked at one by one."""
    rng = np.random.default_rng(0)
    codes, labels = rng.integers(0, 12, 40), rng.integers(0, 2, 40)
    found = find({"a": [{"x": f"t{c}", "label": int(y)} for c, y in zip(codes, labels, strict=True)]}, ["x"])
    same = [(i, j) for j in range(40) for i in range(j) if codes[i] == codes[j]]
    exact, conflict = found.findings
    assert exact.pairs == tuple(same)
    assert set(conflict.samples) == {j for i, j in same if labels[i] != labels[j]}


def test_nothing_is_not_shared():
    empty = {
        "tokens": torch.zeros(12, dtype=torch.long),
        "mask": torch.zeros(12, dtype=torch.bool),
        "pixels": torch.ones(3, 8, 8),
        "waveform": torch.zeros(50),
        "label": 0,
    }
    absent = {**sample(1), "presence": torch.tensor([True, False, True])}
    train, test = [empty, absent, {"label": 1}], [empty, absent, {"label": 1}, {**empty, "pixels": None}]
    found = find({"train": train, "test": test})
    assert {(f.modality, f.kind): f.pairs for f in found.findings} == {
        ("text", "exact"): ((1, 1),),
        ("audio", "exact"): ((1, 1),),
    }
    assert "Not compared, as absent or constant in image: 3 of train, 4 of test." in found.notes


def test_an_input_under_its_mask_is_the_input():
    train, test = [sample(8)], [sample(8)]
    test[0]["tokens"] = torch.where(test[0]["mask"], test[0]["tokens"], 77)
    assert find({"train": train, "test": test}, {"text": ("tokens", "mask")}).touched("test") == [0]
    assert find({"train": train, "test": test}, {"text": "tokens"}).touched("test") == []


def test_pairs_are_bounded_and_counts_are_not():
    same = sample(1)
    found = find({"train": [same] * 60, "test": [same] * 1500}, {"audio": "waveform"})
    (exact,) = found.findings
    assert exact.count == 1500
    assert len(exact.samples) == 1500
    assert len(exact.pairs) == 1000
    assert exact.pairs[:12] == (*((i, 0) for i in range(10)), (0, 1), (1, 1))


def test_the_table_fits_80_columns():
    found = find(
        {"a_rather_long_name_of_a_split": [sample(s) for s in range(99)], "test": [sample(s) for s in range(99)]}
    )
    assert max(map(len, str(found).splitlines())) <= 80
    assert "exact" in str(found)
    assert "100.0%" in str(found)


def test_groups_are_said_to_be_groups():
    told = str(find(planted(), group="speaker")).replace("\n", " ")
    assert "The row of speaker counts groups: 1 group of test (25.0%), with 2 of its" in told
    assert "counts groups" not in str(find(planted()))


def test_the_help_names_what_near_is():
    from mm_metrics.leakage.near import audio, image, text

    said = re.search(r"near: look(.|\n)*?target:", find_leakage.__doc__).group()
    assert re.findall(r"\d+\.?\d*", said) == [
        str(number) for number in (text.LONG, text.SIMILARITY, image.LIKENESS, audio.LIKENESS)
    ]


def test_json_brings_back_what_was_written(tmp_path):
    found = find(planted(), group="speaker", within=True)
    assert found.compared[0] == Compared("text", "train", "value", 40)
    found.to_json(tmp_path / "leakage.json")
    assert Leakage.from_json(tmp_path / "leakage.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["leakage.json"]
    assert found.summary()[0] == {
        "kind": "exact",
        "modality": "audio",
        "splits": ["train", "val"],
        "count": 1,
        "share": 0.05,
        "pairs": [[7, 0]],
    }
    json.dumps(found.summary())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="other"), "format"),
        (lambda c: c.update(version=2), "version is 2"),
        (lambda c: c.pop("sizes"), "sizes"),
        (lambda c: c["sizes"].update(test=-1), "counts"),
        (lambda c: c["findings"][0].update(kind="<b>"), "kind"),
        (lambda c: c["findings"][0].update(modality=3), "modality"),
        (lambda c: c["findings"][0].update(splits=["test", "train"]), "earlier one first"),
        (lambda c: c["findings"][0].update(splits=["train", "other"]), "two of"),
        (lambda c: c["findings"][0].update(count=7), "count"),
        (lambda c: c["findings"][0].update(count=True), "count"),
        (lambda c: c["findings"][0].update(share=0.9), "share"),
        (lambda c: c["findings"][0].update(pairs=[[0, 999]]), "pairs"),
        (lambda c: c["findings"][0].update(pairs=[[0]]), "unpack"),
        (lambda c: c["findings"][0].update(pairs=[[0, 0]] * 1001), "at most 1000"),
        (lambda c: c["findings"][0].update(samples=[0, 0]), "in order"),
        (lambda c: c["findings"][0].update(samples=["0"]), "sample numbers"),
        (lambda c: c.update(findings=3), "iterable"),
        (lambda c: c["compared"][0].update(count=-1), "count"),
        (lambda c: c["compared"][0].update(how="by eye"), "compared"),
        (lambda c: c["compared"][0].update(split="other"), "split"),
    ],
)
def test_a_file_is_not_trusted(tmp_path, change, said):
    path = tmp_path / "leakage.json"
    find(planted(), group="speaker").to_json(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"is no mm_metrics.leakage file of version 1: .*{said}"):
        Leakage.from_json(path)


def test_a_file_without_what_was_compared_still_reads(tmp_path):
    path = tmp_path / "leakage.json"
    found = find(planted())
    found.to_json(path)
    content = json.loads(path.read_text())
    del content["compared"]
    path.write_text(json.dumps(content))
    assert Leakage.from_json(path).findings == found.findings


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": NaN}', "[" * 100_000])
def test_what_is_no_file_of_ours_is_said(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"is no mm_metrics.leakage file"):
        Leakage.from_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"splits": [1, 2]}, r"splits is a mapping .* got list"),
        ({"splits": {}}, r"splits is a mapping of names to data.* got an empty one"),
        ({"splits": {"train": [sample(1)], "test": 3}}, r"a split is a data set, .* got int"),
        (
            {"modalities": {"audio": "wavform"}},
            r"'wavform', which no sample of split 'train' has.*did you mean 'waveform'",
        ),
        ({"group": "patient"}, r"group reads 'patient', which no sample"),
        ({"modalities": {"all": "pixels"}}, r"'all' is not usable"),
        ({"kinds": {"audio": "sound"}}, r"kinds\['audio'\]='sound'"),
        ({"near": ("smell",)}, r"near=\['smell'\]"),
        (
            {"splits": {"train": [{**sample(1), "pixels": object()}], "test": []}},
            r"sample 0, modality 'image': .*object",
        ),
        ({"splits": {"train": [{**sample(1), "presence": torch.ones(2)}], "test": []}}, r"presence 'presence' has 2"),
    ],
)
def test_what_is_wrong_is_said(arguments, said):
    splits = arguments.pop("splits", {"train": [sample(1)], "test": [sample(2)]})
    with pytest.raises((ValueError, TypeError), match=said):
        find(splits, arguments.pop("modalities", KEYS), **arguments)


def test_unknown_split_or_kind():
    found = Leakage((Finding("exact", "text", ("train", "test"), 1, 1.0, ((0, 0),), (0,)),), {"train": 1, "test": 1})
    with pytest.raises(ValueError, match=r"split 'tset' is not one of \('train', 'test'\)"):
        found.touched("tset")
    with pytest.raises(ValueError, match=r"kind 'same' is not one of"):
        found.without("test", kinds="same")


def test_empty_splits():
    assert find({"train": [], "test": [sample(1)]}).findings == ()
    assert find({"train": [sample(1)], "test": []}).sizes == {"train": 1, "test": 0}
