"""Entries that are files: whatever the container and the codec, a copy under another name is found."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from mm_metrics.leakage import find_leakage, from_files
from tests.test_leakage_files import noise

soundfile = pytest.importorskip("soundfile")


def sound(seed):
    return np.convolve(noise(seed, 6000), np.ones(6) / 2, mode="same").astype(np.float32)


def picture(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((60, 72), Image.Resampling.BICUBIC))


def write_sound(path, seed, **how):
    soundfile.write(path, np.round(sound(seed) * 32767).astype(np.int16), 8000, **how)  # floats are rounded otherwise


def write_picture(path, seed, **how):
    Image.fromarray(picture(seed)).save(path, **how)


def write_bytes(path, seed):
    Path(path).write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(seed).bytes(3000))


CODECS = {
    "wav": (write_sound, {}),
    "flac": (write_sound, {}),
    "aiff": (write_sound, {}),
    "caf": (write_sound, {}),
    "ogg": (write_sound, {"format": "OGG", "subtype": "VORBIS"}),
    "opus": (write_sound, {"format": "OGG", "subtype": "OPUS"}),
    "mp3": (write_sound, {}),
    "png": (write_picture, {}),
    "jpg": (write_picture, {}),
    "bmp": (write_picture, {}),
    "tiff": (write_picture, {}),
    "gif": (write_picture, {}),
    "webp": (write_picture, {"quality": 80}),
    "jp2": (write_picture, {}),
    "npy": (lambda path, seed: np.save(path, sound(seed)), {}),
    "npz": (lambda path, seed: np.savez(path, a=sound(seed), b=seed), {}),
    "pt": (lambda path, seed: torch.save({"clip": torch.from_numpy(sound(seed)), "rate": 8000}, path), {}),
    "txt": (lambda path, seed: Path(path).write_text(f"The words of clip {seed} are long gone."), {}),
    "mp4": (write_bytes, {}),
    "webm": (write_bytes, {}),
    "m4a": (write_bytes, {}),
    "bin": (write_bytes, {}),
}
BY_BYTES = ("mp4", "webm", "m4a", "bin")


def write(path, ending, seed):
    how, options = CODECS[ending]
    how(path, seed, **options)


def manifests(folder, names):
    """Split → names of files, each in a manifest that names them in column ``clip``."""
    files = {}
    for split, clips in names.items():
        files[split] = folder / f"{split}.csv"
        files[split].write_text("clip,label\n" + "".join(f"{clip},0\n" for clip in clips))
    return files


@pytest.mark.parametrize("ending", CODECS)
def test_the_same_file_under_another_name_is_found(tmp_path, ending):
    """Six files a split, other names, one of them the same."""
    if ending == "jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow writes no JPEG 2000")
    (tmp_path / "media").mkdir()
    names = {"train": [], "test": []}
    for n in range(6):
        for split, seed in (("train", n), ("test", 4 if n == 2 else 50 + n)):
            names[split].append(f"media/{split}_{n}.{ending}")
            write(tmp_path / names[split][-1], ending, seed)
    found = from_files(manifests(tmp_path, names), {"x": "clip"}, near=False, progress=False)
    assert [(f.kind, f.pairs) for f in found.findings] == [("exact", ((4, 2),))]
    how = "bytes" if ending in BY_BYTES else "content"
    assert {(row.split, row.how, row.count) for row in found.compared} == {("train", how, 6), ("test", how, 6)}
    assert f"Compared x: 12 files by {how}." in str(found)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("wav", "flac", "exact"),
        ("wav", "aiff", "exact"),
        ("flac", "caf", "exact"),
        ("wav", "npy", "near"),
        ("wav", "ogg", "near"),
        ("flac", "mp3", "near"),
        ("ogg", "opus", "near"),
        ("png", "bmp", "exact"),
        ("png", "tiff", "exact"),
        ("png", "jpg", "near"),
        ("jpg", "webp", "near"),
        ("bmp", "gif", "near"),
    ],
)
def test_the_same_content_in_another_container_is_found(tmp_path, one, other, kind):
    for n in range(4):
        write(tmp_path / f"a{n}.{one}", one, n)
        write(tmp_path / f"b{n}.{other}", other, 3 if n == 1 else 60 + n)
    names = {"train": [f"a{n}.{one}" for n in range(4)], "test": [f"b{n}.{other}" for n in range(4)]}
    found = from_files(manifests(tmp_path, names), {"x": "clip"}, progress=False)
    assert [(f.kind, f.pairs) for f in found.findings] == [(kind, ((3, 1),))]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_manifest_says_the_same(tmp_path, ending):
    """Rows with files, texts, groups and labels: the answer does not depend on what holds them."""
    pandas = pytest.importorskip("pandas")
    for n in range(4):
        write(tmp_path / f"a{n}.flac", "flac", n)
        write(tmp_path / f"b{n}.mp3", "mp3", 3 if n == 1 else 60 + n)
    rows = {
        "train": pandas.DataFrame(
            {
                "clip": [f"a{n}.flac" for n in range(4)],
                "said": ["one", "two", "three", None],
                "y": [0, 1, 2, 3],
                "who": [7.0, 8.0, None, 9.0],
            }
        ),
        "test": pandas.DataFrame(
            {
                "clip": [f"b{n}.mp3" for n in range(4)],
                "said": ["one", "four", "Two.", "six"],
                "y": [1, 1, 1, None],
                "who": ["10", " 9", "8", ""],
            }
        ),
    }
    files = {}
    for split, table in rows.items():
        files[split] = tmp_path / f"{split}{ending}"
        if ending == ".csv":
            table.to_csv(files[split], index=False)
        elif ending == ".jsonl":
            table.to_json(files[split], orient="records", lines=True)
        else:
            table.to_parquet(files[split])
    found = from_files(files, {"audio": "clip", "text": "said"}, "who", target="y", progress=False)
    assert {(f.kind, f.modality): f.pairs for f in found.findings} == {
        ("near", "audio"): ((3, 1),),
        ("exact", "text"): ((0, 0),),
        ("near", "text"): ((1, 2),),
        ("label_conflict", "text"): ((0, 0),),
        ("group", "who"): ((3, 1), (1, 2)),
    }
    assert found == find_leakage(
        files, {"audio": "clip", "text": "said"}, "who", target="y", presence=None, progress=False
    )


def test_tables_are_read_as_their_files():
    """Of pandas and pyarrow; what pandas puts where there is nothing is nothing."""
    pandas = pytest.importorskip("pandas")
    arrow = pytest.importorskip("pyarrow")
    train = {"said": ["one", None, "three"], "y": [1, 1, 2], "who": ["7", None, "8"]}
    test = {"said": ["six", None, "three"], "y": [1, 3, 3], "who": [8.0, None, 9.0]}
    answers = [
        find_leakage({"train": form(train), "test": form(test)}, ["said"], "who", target="y", progress=False)
        for form in (pandas.DataFrame, arrow.table, lambda table: [dict(zip(table, r)) for r in zip(*table.values())])  # noqa: B905
    ]
    assert {(f.kind, f.pairs) for f in answers[0].findings} == {
        ("exact", ((2, 2),)),
        ("label_conflict", ((2, 2),)),
        ("group", ((2, 0),)),
    }
    assert answers[1] == answers[2] == answers[0]


def test_what_is_compared_for_exact_copies_only_is_said(tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path / name, "png", 1)
    write(tmp_path / "c.mp4", "mp4", 1)
    frames = {"x": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]}
    found = find_leakage({"train": [frames], "test": [frames]}, ["x"], target=None, progress=False, batched=False)
    assert "x: exact copies only;" in " ".join(found.notes)
    mixed = {"train": [{"x": tmp_path / "a.png"}, {"x": tmp_path / "c.mp4"}], "test": [{"x": tmp_path / "b.png"}]}
    assert "x: exact copies only of 1 of 3;" in " ".join(find_leakage(mixed, ["x"], progress=False).notes)


def test_several_manifests_are_one_split(tmp_path):
    write(tmp_path / "a.flac", "flac", 1)
    (tmp_path / "far").mkdir()
    shutil.copy(tmp_path / "a.flac", tmp_path / "far" / "b.flac")
    one, other = tmp_path / "one.csv", tmp_path / "far" / "other.csv"  # each names files from its own folder
    one.write_text("clip\na.flac\n")
    other.write_text("clip\nb.flac\n")
    found = from_files({"train": [one, other]}, ["clip"], near=False, progress=False)
    assert [(f.splits, f.pairs) for f in found.findings] == [(("train", "train"), ((0, 1),))]


def test_samples_may_hold_paths_bytes_and_mappings(tmp_path):
    """What data sets hold: a string, a Path, bytes, Hugging Face's mappings, the frames of a video."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / f"{name}.flac", "flac", seed)
        write(tmp_path / f"{name}.png", "png", seed)
    a, b, c = (str(tmp_path / f"{name}.flac") for name in "abc")
    frames = [[str(tmp_path / f"{x}.png") for x in pair] for pair in ("ac", "bc", "ca")]
    forms = [
        b,
        Path(b),
        Path(b).read_bytes(),
        {"path": b, "bytes": None},
        {"path": None, "bytes": Path(b).read_bytes()},
        {"array": soundfile.read(b, dtype="float32")[0], "sampling_rate": 8000, "path": "gone.flac"},
    ]
    for form in forms:
        splits = {"train": [{"x": c}, {"x": a}], "test": [{"x": form}]}
        found = find_leakage(splits, ["x"], target=None, near=False, progress=False)
        assert [f.pairs for f in found.findings] == [((1, 0),)], form
    splits = {"train": [{"x": frames[0]}], "test": [{"x": frames[2]}, {"x": frames[1]}]}
    found = find_leakage(splits, ["x"], target=None, near=False, progress=False, batched=False)
    assert [f.pairs for f in found.findings] == [((0, 1),)]
    assert str(found).endswith("Compared x: 3 files by content.")


@pytest.mark.parametrize(
    "name",
    [
        "{folder}/a clip.flac",
        "file://{folder}/a%20clip.flac",
        "file:{folder}/a%20clip.flac",
        "FILE://localhost{folder}/a clip.flac",
        "~/a clip.flac",
        "link.flac",
        "  ./a clip.flac\n",
        "far/../a clip.flac",
        "cafe\u0301.flac",
        "caf\u00e9.flac",
        "plain",
    ],
)
def test_a_file_is_found_however_its_path_is_written(tmp_path, monkeypatch, name):
    """As an entry in memory, and from a manifest's folder, which is not the program's."""
    (tmp_path / "far").mkdir()
    write(tmp_path / "a clip.flac", "flac", 1)
    for copy in ("b.flac", "caf\u00e9.flac", "plain"):
        shutil.copy(tmp_path / "a clip.flac", tmp_path / copy)
    (tmp_path / "link.flac").symlink_to("a clip.flac")
    monkeypatch.setenv("HOME", str(tmp_path))
    name = name.format(folder=tmp_path)
    files = {split: tmp_path / f"{split}.jsonl" for split in ("train", "test")}
    for path, clip in zip(files.values(), ("b.flac", name), strict=True):
        path.write_text(json.dumps({"clip": clip}) + "\n")
    assert from_files(files, ["clip"], near=False, progress=False).touched("test") == [0]
    monkeypatch.chdir(tmp_path)
    splits = {"train": [{"clip": "b.flac"}], "test": [{"clip": name}]}
    assert find_leakage(splits, ["clip"], target=None, near=False, progress=False).touched("test") == [0]


@pytest.mark.parametrize(
    "name",
    [
        *("clips/7", "7", "7.wav", "file://{folder}/clips/7", "gone.flac", "broken.bin", "~nobody/b.flac"),
        *("b.flac.zip/b.flac", "zip://b.flac::c.zip", "hf://d/b.flac", "ftp://a/b"),
    ],
)
def test_what_cannot_be_read_as_a_file_is_refused(tmp_path, monkeypatch, name):
    """A folder, with an ending or not; a link to nothing; a part of an archive; an address; what may not be read."""
    write(tmp_path / "b.flac", "flac", 1)
    for folder in ("clips/7", "7", "7.wav"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(tmp_path / "b.flac", tmp_path / folder)
    (tmp_path / "gone.flac").symlink_to("nowhere.flac")
    shutil.make_archive(str(tmp_path / "b.flac"), "zip", tmp_path, "b.flac")
    (tmp_path / "broken.bin").write_bytes(b"whatever")
    given = Path.open

    def opened(path, *how, **more):
        if path.name == "broken.bin":
            raise PermissionError(13, "Permission denied", str(path))
        return given(path, *how, **more)

    monkeypatch.setattr(Path, "open", opened)
    files = manifests(tmp_path, {"train": [name.format(folder=tmp_path)], "test": ["b.flac"]})
    with pytest.raises(ValueError, match=r"train.csv, line 2, column 'clip'"):
        from_files(files, ["clip"], near=False, progress=False)


def test_what_holds_nothing_is_like_nothing(tmp_path):
    """Two empty files, and two recordings without a sample, are absent, and said to be."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(0, np.float32), 8000)
    for name in ("c.mp4", "d.mp4"):
        (tmp_path / name).touch()
    files = manifests(tmp_path, {"train": ["a.wav", "c.mp4"], "test": ["b.wav", "d.mp4"]})
    found = from_files(files, ["clip"], near=False, progress=False)
    assert (found.findings, {row.how for row in found.compared}) == ((), {"nothing"})
    place = f"{tmp_path}/train.csv, line"
    assert any(f"clip: {place} 2: a.wav is empty; {place} 3: c.mp4 is empty; {tmp_path}/test" in n for n in found.notes)


@pytest.mark.parametrize(
    "cell",
    [
        "gone.flac",
        "media/gone.mp4",
        " gone.npy ",
        "/data/clips/7",
        "features/7.emb",
        "talk.wav:800:1600",
        "C:\\a\\b.mp3",
        "['a.jpg', 'b.jpg']",
        "https://example.org/a.mp3",
        "s3://bucket/key",
        "gs://b/k.png",
        "data:image/png;base64,AAAA",
        "www.example.org/a.webm?x=1",
        ["gone.jpg", "lost.jpg"],
        Path("gone"),
    ],
)
def test_what_names_a_file_that_is_not_there_is_refused(cell):
    splits = {"train": [{"x": cell}], "test": [{"x": cell}]}
    how = {"target": None, "near": False, "progress": False, "batched": False}
    with pytest.raises(ValueError, match=r"split 'train', sample 0, modality 'x': .*kinds="):
        find_leakage(splits, ["x"], **how)
    if not isinstance(cell, Path):
        letters = find_leakage(splits, ["x"], kinds={"x": "text"}, **how)
        assert letters.touched("test") == [0]
        assert [row.how for row in letters.compared] == ["text", "text"]


@pytest.mark.parametrize(
    "text",
    [
        "I love node.js",
        "Meet at 10.30",
        "in the U.S",
        "and/or",
        "yes/no.",
        "open the readme.txt",
        "see t.co/abc",
        "e.g.",
        "https://example.org is down",
        "/shrug",
        "he said: a.b/c",
        "😀",
        "wav",
        ".",
        ["I", "love", "x.py"],
        "A.b " * 5000,
    ],
)
def test_ordinary_words_are_no_paths(text):
    splits = {"train": [{"x": text}], "test": [{"x": text}]}
    assert find_leakage(splits, ["x"], target=None, near=False, progress=False, batched=False).touched("test") == [0]


def test_letters_among_files_are_refused(tmp_path):
    """One name without its ending among names of files would be compared by its letters, and never found."""
    write(tmp_path / "a.mp4", "mp4", 1)
    files = manifests(tmp_path, {"train": ["a.mp4", "b"], "test": ["a.mp4"]})
    with pytest.raises(ValueError, match=r"modality 'clip': 2 entries are paths of files and 1 name no file"):
        from_files(files, ["clip"], near=False, progress=False)
    assert from_files(files, ["clip"], near=False, progress=False, kinds={"clip": "text"}).touched("test") == [0]


def test_what_cannot_be_decoded_is_compared_by_bytes_and_said(tmp_path):
    """A damaged recording, an empty file, and a decoder that is not there."""
    write(tmp_path / "a.wav", "wav", 1)
    (tmp_path / "b.wav").write_bytes(b"RIFF, whatever it is called")
    shutil.copy(tmp_path / "b.wav", tmp_path / "c.wav")
    (tmp_path / "d.wav").write_bytes(b"")
    files = manifests(tmp_path, {"train": ["a.wav", "b.wav", "d.wav"], "test": ["c.wav", "d.wav"]})
    found = from_files(files, ["clip"], progress=False)
    assert [(f.kind, f.pairs) for f in found.findings] == [("exact", ((1, 0),))]
    assert {(row.split, row.how): row.count for row in found.compared} == {
        ("train", "content"): 1,
        ("train", "bytes"): 1,
        ("train", "nothing"): 1,
        ("test", "bytes"): 1,
        ("test", "nothing"): 1,
    }
    assert "by bytes may share what was coded another way" in " ".join(str(found).split())
    note = next(note for note in found.notes if "b.wav" in note)
    for said in ("train.csv, line 3: b", "train.csv, line 4: d", "test.csv, line 2: c", "test.csv, line 3: d"):
        assert f"{tmp_path}/{said}.wav is " in note


def test_a_picture_that_unpacks_to_gigabytes_is_named_and_compared_by_bytes(tmp_path):
    picture = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000)))):
        picture += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "bomb.png").write_bytes(picture)
    splits = {"train": [{"x": tmp_path / "bomb.png"}], "test": [{"x": {"bytes": (tmp_path / "bomb.png").read_bytes()}}]}
    found = find_leakage(splits, ["x"], target=None, near=False, progress=False)
    assert [(f.kind, f.pairs) for f in found.findings] == [("exact", ((0, 0),))]
    assert any("split 'train', sample 0: bomb.png is cut off, damaged or too large" in note for note in found.notes)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_a_file_whatever_holds_them(kind, tmp_path):
    write(tmp_path / "a.wav", "wav", 1)
    held = kind((tmp_path / "a.wav").read_bytes())
    found = find_leakage({"a": [{"x": held}], "b": [{"x": tmp_path / "a.wav"}]}, ["x"], near=False, progress=False)
    assert found.touched("b") == [0]


def test_without_decoders_bytes_are_compared(tmp_path, monkeypatch):
    for name in ("soundfile", "PIL"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for ending in ("flac", "mp4"):
        write(tmp_path / f"a.{ending}", "mp4", 1)
    files = manifests(tmp_path, {"train": ["a.flac"], "test": ["a.mp4"]})
    found = from_files(files, ["clip"], near=False, progress=False)
    assert found.touched("test") == [0]
    assert {row.how for row in found.compared} == {"bytes"}


def test_pictures_of_all_modes(tmp_path):
    """Grey as colour and a palette are the same; other transparency, more than 8 bits, later frames are not."""
    pixels = picture(1)
    images = {
        "grey": Image.fromarray(pixels).convert("L"),
        "palette": Image.fromarray(pixels).convert("P"),
        "clear": Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])),
        "veiled": Image.fromarray(np.dstack([pixels, pixels[..., 0]])),
        "deep": Image.fromarray(pixels[..., 0].astype(np.uint16) + 512),
        "deeper": Image.fromarray(pixels[..., 0].astype(np.uint16) * 2 + 512),
    }
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
    images["grey"].convert("RGB").save(tmp_path / "grey_rgb.png")
    images["palette"].convert("RGB").save(tmp_path / "palette_rgb.png")
    write(tmp_path / "plain.png", "png", 1)
    still = Image.fromarray(pixels)
    for name, frame in (("moves", 2), ("moves_otherwise", 3)):
        still.save(tmp_path / f"{name}.gif", save_all=True, append_images=[Image.fromarray(picture(frame))])

    def same(one, other):
        splits = {"train": [{"x": tmp_path / one}], "test": [{"x": tmp_path / other}]}
        return bool(find_leakage(splits, ["x"], target=None, near=False, progress=False).findings)

    assert same("grey.png", "grey_rgb.png")
    assert same("palette.png", "palette_rgb.png")
    assert same("clear.png", "plain.png")
    assert not same("veiled.png", "plain.png")
    assert not same("deep.png", "deeper.png")
    assert not same("moves.gif", "moves_otherwise.gif")


def test_a_hostile_file_harms_nobody(tmp_path):
    """Pickles are not loaded, endless files not read, huge claims not believed."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    np.save(tmp_path / "a.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    torch.save(Evil(), tmp_path / "a.pt")
    (tmp_path / "a.wav").write_bytes(
        b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\xdb\xff\xff\x7f"
        + b"ab"
    )
    for name in ("a.npy", "a.pt"):
        found = find_leakage({"train": [{"x": tmp_path / name}] * 2}, ["x"], target=None, near=False, progress=False)
        assert (found.touched("train"), found.compared[0].how) == ([1], "bytes")
    find_leakage({"train": [{"x": tmp_path / "a.wav"}] * 2}, ["x"], target=None, near=False, progress=False)
    assert not (tmp_path / "harm").exists()
    with pytest.raises(ValueError, match=r"/dev/zero"):
        find_leakage({"train": [{"x": Path("/dev/zero")}]}, ["x"], target=None, near=False, progress=False)


def test_a_json_line_may_list_frames(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        write(tmp_path / f"{name}.png", "png", seed)
    for split, frames in (("train", ["a.png", "b.png"]), ("test", ["c.png", "b.png"])):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"video": frames}) + "\n")
    files = {split: tmp_path / f"{split}.jsonl" for split in ("train", "test")}
    assert from_files(files, ["video"], near=False, progress=False).touched("test") == [0]
