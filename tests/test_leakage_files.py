"""Splits from manifests, and the script that checks a LightningDataModule."""

import csv
import gzip
import json
import sys
import wave

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import DemoModel
from lightning.pytorch.utilities import CombinedLoader
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.cli import REFUSED, main
from mm_metrics.leakage import Leakage, find_leakage, from_files
from scripts.check_leakage import check
from tests.toys import MODALITIES, loader, seeded, trainer


def write_wav(path, samples, rate=8000, width=2):
    """Samples in −1…1, (T,) or (T, channels), as integers of ``width`` bytes."""
    whole = np.round(np.asarray(samples) * (2 ** (8 * width - 1) - 1)).astype("<i4")
    data = (whole + 128).astype(np.uint8) if width == 1 else whole[..., None].view(np.uint8)[..., :width]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if whole.ndim == 1 else whole.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(data).tobytes())


def noise(seed, T=4000):
    swell = 0.1 + np.sin(np.linspace(0, 3 + seed % 3, T)) ** 2
    return 0.3 * swell * np.random.default_rng(seed).uniform(-1, 1, T)


def manifests(folder, ending=".csv"):
    """Six rows each; the later one's row 2 has the earlier one's sound, row 3 its picture, row 4 its words."""
    (folder / "media").mkdir()
    files = {}
    for split, first in (("train", 0), ("test", 100)):
        rows = []
        for n in range(6):
            source = {2: ("wav", 4), 3: ("png", 5), 4: ("txt", 0)}.get(n) if split == "test" else None
            seed = {kind: source[1] if source and source[0] == kind else first + n for kind in ("wav", "png", "txt")}
            write_wav(folder / "media" / f"{split}{n}.wav", noise(seed["wav"]))
            pixels = np.random.default_rng(seed["png"]).integers(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "media" / f"{split}{n}.png")
            words = " ".join(np.random.default_rng(seed["txt"]).permutation(list("abcdefghij")))
            rows.append({"said": f"call {words}", "heard": f"media/{split}{n}.wav", "seen": f"media/{split}{n}.png"})
            rows[-1] |= {"label": n % 2, "caller": f"c{first + n}"}
        rows[5] |= {"heard": "", "caller": ""}
        files[split] = folder / f"{split}{ending}"
        with files[split].open("w", newline="") as file:
            if ending == ".csv":
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return files


COLUMNS = {"text": "said", "audio": "heard", "image": "seen"}


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_manifests_are_read_and_compared(tmp_path, ending):
    found = from_files(manifests(tmp_path, ending), COLUMNS, group="caller", progress=False)
    assert {(f.kind, f.modality): f.pairs for f in found.findings if f.kind != "label_conflict"} == {
        ("exact", "audio"): ((4, 2),),
        ("exact", "image"): ((5, 3),),
        ("exact", "text"): ((0, 4),),
    }
    assert "Not compared, as absent or constant in audio: 1 of train, 1 of test." in found.notes


def test_manifests_are_read_as_files_of_predictions_are(tmp_path, monkeypatch):
    """Packed, with a byte order mark and empty lines; and CSV without pyarrow."""
    rows = "said\tlabel\none call\t1\n\ntwo calls\t0\n"
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(rows.encode("utf-8-sig")))
    (tmp_path / "b.CSV").write_text('\ufefflabel,said\n1,"two calls"\n', encoding="utf-8")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = from_files({"a": tmp_path / "a.tsv.gz", "b": tmp_path / "b.CSV"}, ["said"], near=False, progress=False)
    assert {f.kind: f.pairs for f in found.findings} == {"exact": ((1, 0),), "label_conflict": ((1, 0),)}


@pytest.mark.parametrize(("rate", "width", "channels"), [(16000, 2, 1), (8000, 1, 1), (8000, 3, 1), (11025, 4, 2)])
def test_a_recording_saved_another_way_is_a_near_copy(tmp_path, rate, width, channels):
    from scipy.signal import resample_poly

    sound = np.convolve(noise(0, 6000), np.ones(6) / 2, mode="same")
    write_wav(tmp_path / "a.wav", sound)
    again = resample_poly(sound, rate // 25, 8000 // 25)
    write_wav(tmp_path / "b.wav", again if channels == 1 else np.stack([again] * channels, axis=1), rate, width)
    files = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    for (_, path), name in zip(files.items(), "ab", strict=True):
        path.write_text(f"sound,label\n{name}.wav,0\n")
    found = from_files(files, ["sound"], progress=False)
    assert [(f.kind, f.pairs) for f in found.findings] == [("near", ((0, 0),))]


def test_a_text_that_looks_like_a_path_may_be_one(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text\nthe file is called siren.wav\n")
    files = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    assert from_files(files, ["text"], kinds={"text": "text"}, near=False, progress=False).touched("test") == [0]
    with pytest.raises(ValueError, match=r"train.csv, line 2, column 'text': .*siren.wav"):
        from_files(files, ["text"], near=False, progress=False)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.txt", "", r"x.txt: a file is read by its suffix, one of .csv, .*.parquet"),
        ("x.csv", "other\n1\n", r"modality 'text' reads 'said', which no sample of split 'train' has"),
        ("x.jsonl", "{]\n", r"x.jsonl, line 1: it is no JSON"),
        ("x.jsonl", "[1]\n", r"x.jsonl, line 1: it is a list, expected an object"),
        ("x.csv", b"said\n\xff\xfe\n", r"x.csv, line 2: column 'said' is not UTF-8"),
        ("x.jsonl", b'{"said": "\xff"}\n', r"x.jsonl, line 1: column 'said' is not UTF-8"),
        ("x.csv", "said\nmissing.png\n", r"x.csv, line 2, column 'said': .*missing.png"),
        ("x.csv", "said,label\na, b,1\n", r"x.csv, line 2: it has 3 fields, the header 2"),
        ("x.csv", "said,label\na\n", r"x.csv, line 2: it has 1 fields, the header 2"),
        ("x.csv", "said,said\na,b\n", r"names a column twice"),
        ("x.parquet", b"PAR1 and no more", r"x.parquet can't be read"),
        ("lost.csv", None, r"lost.csv: there is no such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=said):
        from_files({"train": path, "test": path}, {"text": "said"}, near=False, progress=False)


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


class Tiny(LightningDataModule):
    """Vectors of noise; the test split repeats ``shared`` of the training split's."""

    def __init__(self, shared: int = 3, speakers: int = 4) -> None:
        super().__init__()
        self.shared, self.speakers, self.done = shared, speakers, []

    def prepare_data(self) -> None:
        self.done.append("prepare_data")

    def setup(self, stage: str) -> None:
        assert self.done[0] == "prepare_data"
        self.done.append(stage)
        rows = torch.randn(30, 40)
        rows[20 : 20 + self.shared] = rows[: self.shared]
        samples = [{"wave": row, "y": i % 2, "who": i // self.speakers} for i, row in enumerate(rows)]
        self.parts = Rows(samples[:20]), Rows(samples[20:])

    def train_dataloader(self):
        return DataLoader(self.parts[0], batch_size=4, shuffle=True)

    def test_dataloader(self):
        assert "test" in self.done
        return [DataLoader(self.parts[1], batch_size=4)]


def config(folder, **monitor):
    content = {
        "seed_everything": 1,
        "model": {"class_path": "not.there.Model"},
        "data": {"class_path": "tests.test_leakage_files.Tiny", "init_args": {"shared": 2}},
        "trainer": {"max_epochs": 3},
    }
    if monitor:
        callback = {"class_path": "mm_metrics.callbacks.ModalityMonitor", "init_args": monitor}
        content["trainer"]["callbacks"] = [callback]
    path = folder / "config.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return ["--config", str(path)]


def test_the_script_builds_the_data_alone(tmp_path):
    found = check([*config(tmp_path, modalities={"audio": "wave"}, target="y"), "--json", str(tmp_path / "l.json")])
    assert found.sizes == {"train": 20, "test": 10}
    assert {f.kind: f.samples for f in found.findings} == {"exact": (0, 1)}
    assert Leakage.from_json(tmp_path / "l.json") == found


def test_the_scripts_arguments_win(tmp_path):
    arguments = [
        "--modalities",
        "{sound: [wave]}",
        "--group",
        "who",
        "--near",
        "false",
        "--data.init_args.speakers",
        "7",
    ]
    found = check([*config(tmp_path), *arguments, "--data.init_args.shared", "4"])
    assert [(f.kind, f.modality, f.samples) for f in found.findings] == [
        ("exact", "sound", (0, 1, 2, 3)),
        ("group", "who", (0,)),
    ]


def test_the_script_asks_for_modalities(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check(config(tmp_path))
    assert "say --modalities" in capsys.readouterr().err


class Simple(Tiny):
    """Loaders of training under names, several of validation, one of its own for the test."""

    def __init__(self, shared: int = 3) -> None:
        super().__init__(shared)

    def train_dataloader(self):
        return {"near": self.loader(0, 0, 10), "far": self.loader(0, 10, 20)}

    def val_dataloader(self):
        return [self.loader(1, 0, 2), self.loader(1, 2, 10)]

    def loader(self, part, start, stop):
        return DataLoader(Rows(self.parts[part].rows[start:stop]), batch_size=4, shuffle=part == 0)


@pytest.mark.parametrize("combined", [False, True])
def test_a_data_module_is_read_as_it_is(combined, monkeypatch):
    """All loaders of training are one split, each of validation is its own."""
    if combined:
        given = Simple.train_dataloader
        monkeypatch.setattr(Simple, "train_dataloader", lambda self: CombinedLoader(given(self), "max_size"))
    found = find_leakage(Simple(), {"audio": "wave"}, target="y", near=False, progress=False)
    assert found.sizes == {"train": 20, "val": 2, "val_1": 8, "test": 10}
    leaks = {f.splits: f.pairs for f in found.findings if f.splits[0] == "train"}
    assert leaks == {
        ("train", "val"): ((0, 0), (1, 1)),
        ("train", "val_1"): ((2, 0),),
        ("train", "test"): ((0, 0), (1, 1), (2, 2)),
    }


def test_a_module_made_of_data_sets_is_read_too():
    train, test = Rows([{"x": "one"}, {"x": "two"}]), Rows([{"x": "two"}])
    module = LightningDataModule.from_datasets(train_dataset=train, test_dataset=test)
    found = find_leakage(module, ["x"], target=None, near=False, progress=False)
    assert (found.sizes, found.touched("test")) == ({"train": 2, "test": 1}, [0])


def test_a_list_of_loaders_is_one_split():
    module = Simple()
    module.prepare_data()
    module.setup("fit")
    splits = {"train": list(module.train_dataloader().values()), "val": module.val_dataloader()}
    found = find_leakage(splits, {"audio": "wave"}, target="y", near=False, progress=False)
    assert (found.sizes, found.touched("val")) == ({"train": 20, "val": 10}, [0, 1, 2])


def test_the_command_line_takes_a_data_module(capsys):
    data = ["--datamodule", "tests.test_leakage_files:Simple", "--modalities", "audio=wave", "--target", "y"]
    assert main(["leakage", *data, "--near", "false"]) == 1
    assert "Compared audio: 40 by value." in capsys.readouterr().out
    for wrong in ("tests.test_leakage_files", "tests.test_leakage_files:Gone", "gone.module:Data", "tests.toys:loader"):
        assert main(["leakage", "--datamodule", wrong, "--modalities", "audio=wave"]) == REFUSED
    assert main(["leakage", "train=a.csv", *data]) == REFUSED


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:LightningCLI's args parameter.*", "ignore:.*jsonargparse.*"
)
def test_the_script_works_with_the_simplest_lightning_cli(tmp_path, capsys):
    """On the config that ``LightningCLI(Model, Data)`` saves, which names no class of data."""
    callback = {
        "class_path": "mm_metrics.callbacks.ModalityMonitor",
        "init_args": {"modalities": {"audio": "wave"}, "num_classes": 2, "target": "y"},
    }
    args = [
        "--seed_everything=1",
        "--data.shared=2",
        "--trainer.logger=false",
        f"--trainer.callbacks={json.dumps(callback)}",
    ]
    cli = LightningCLI(DemoModel, Simple, run=False, args=args)
    path = tmp_path / "config.yaml"
    path.write_text(cli.parser.dump(cli.config))
    found = check(["--config", str(path), "--datamodule", "tests.test_leakage_files:Simple", "--near=false"])
    assert {f.splits: f.samples for f in found.findings if f.splits[0] == "train"}["train", "test"] == (0, 1)
    found = check(["--config", str(path), "--datamodule", "tests.test_leakage_files:Simple", "--data.shared=5"])
    assert found.touched("test") == list(range(10))
    with pytest.raises(SystemExit):
        check(["--config", str(path)])
    assert "say --datamodule" in capsys.readouterr().err


def test_a_group_that_the_check_knew_and_the_monitor_does_not_is_said(tmp_path):
    data = [{"text": torch.randn(8), "who": i // 5} for i in range(20)]
    folder = tmp_path / "modality"
    folder.mkdir()
    found = find_leakage({"train": data[:10], "val": data[10:]}, ["text"], group="who", near=False, progress=False)
    assert found.groups == ("who",)
    found.to_json(folder / "leakage.json")
    for grouped in (False, True):
        watcher = ModalityMonitor(
            MODALITIES, 3, bootstrap=20, report=False, output_dir=tmp_path, group="number" if grouped else None
        )
        trainer(tmp_path, watcher).validate(seeded(), loader(), verbose=False)
        card = watcher.scorecards["val"]
        assert card.info.get("unused_group") == (None if grouped else "who")
        assert any("'who'" in note for note in card.verdict().notes) is not grouped
