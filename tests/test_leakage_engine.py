"""The same leaks found by several processes, whatever becomes of them."""

import csv
import os
import signal

import numpy as np
import pytest
import soundfile

from mm_metrics.leakage import engine, find_leakage, from_files
from tests.test_leakage_files import noise

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # of Ray about itself
]
HOW = {"target": "label", "progress": False}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers on this machine."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts a split."""
    monkeypatch.setattr(engine, "SAMPLES", 7)


class Words:
    """A data set by number, whose reader is killed at each ``fatal`` number, until a file marks that it was."""

    def __init__(self, first, seed, marker=None, fatal=()):
        self.first, self.seed, self.marker, self.fatal = first, seed, marker, fatal

    def __len__(self):
        return 30

    def __getitem__(self, i):
        if i in self.fatal and not (self.marker and os.path.exists(f"{self.marker}{i}")):
            if self.marker:
                open(f"{self.marker}{i}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        n = self.first + i
        return {
            "text": f"call number {n}",
            "values": np.full(3, n) + np.arange(3),
            "label": (n * self.seed) % 3,
            "who": [f"s{n // 4}", n // 9],
        }


def test_manifests_and_files(tmp_path):
    for n in range(12):
        soundfile.write(tmp_path / f"a{n}.flac", noise(n, 3000), 8000)
        soundfile.write(tmp_path / f"b{n}.ogg", noise(n if n % 4 == 0 else 50 + n, 3000), 8000)
    files = {"train": [tmp_path / "one.csv", tmp_path / "two.csv"], "test": tmp_path / "test.csv"}
    for path, clips in ((files["train"][0], range(5)), (files["train"][1], range(5, 12)), (files["test"], None)):
        with path.open("w", newline="") as file:
            rows = [(f"a{n}.flac", f"line {n % 9}", n // 5, n // 2) for n in clips or ()]
            rows = rows or [(f"b{n}.ogg", "" if n == 3 else f"Line {n}!", n % 2, f" {n}.0") for n in range(12)]
            csv.writer(file).writerows([("clip", "said", "label", "who"), *rows])
    alone = from_files(files, {"audio": "clip", "text": "said"}, "who", progress=False, within=True)
    shared = from_files(files, {"audio": "clip", "text": "said"}, "who", progress=False, within=True, engine="ray")
    assert shared == alone
    assert {f.kind for f in alone.findings} == {"exact", "near", "group", "label_conflict"}


def test_killed_workers_cost_another_try_and_no_sample(tmp_path):
    """At the first sample, in the middle of a part, where one ends, and in the last."""
    splits = {"train": Words(0, 1, str(tmp_path / "a"), (0, 17)), "test": Words(20, 2, str(tmp_path / "b"), (6, 29))}
    shared = find_leakage(splits, ["text", "values"], "who", engine="ray", **HOW)
    assert len(list(tmp_path.iterdir())) == 4
    assert shared == find_leakage(splits, ["text", "values"], "who", **HOW)
    assert shared.sizes == {"train": 30, "test": 30}
    assert len(shared.touched("test")) == 16  # ten are shared, six more belong to a shared group


def test_kinds_and_errors_are_those_of_the_first_sample():
    later = [{"x": "word"} if n > 8 else {"x": np.ones((2, 2, 2, 2)) * n + np.arange(2)} for n in range(20)]
    splits = {"train": later, "test": later[::-1]}
    how = {"target": None, "progress": False, "batched": False}
    assert find_leakage(splits, ["x"], engine="ray", **how) == find_leakage(splits, ["x"], **how)
    for bad in ([{"x": "word"}] * 9 + [{"x": "gone.flac"}], [{"x": "word"}] * 9 + [{"x": {}}], [{"y": "word"}]):
        with pytest.raises((ValueError, TypeError)) as alone:
            find_leakage({"train": bad}, ["x"], **how)
        with pytest.raises(alone.type) as shared:
            find_leakage({"train": bad}, ["x"], engine="ray", **how)
        assert str(shared.value) == str(alone.value)
    with pytest.raises(TypeError, match=r"split 'train' is a .*generator"):
        find_leakage({"train": ({"x": "a"} for _ in range(3))}, ["x"], engine="ray", **how)
