"""Scoring and leakage on Ray: the same as on one machine, whatever dies in the middle."""

import contextlib
import csv
import os
import signal

import numpy as np
import pandas
import pytest
import soundfile

from mm_metrics import workers
from mm_metrics.leakage import engine as leakage
from mm_metrics.leakage import find_leakage, from_files
from mm_metrics.predictions import Predictions
from tests.test_leakage_files import noise
from tests.test_predictions import MODALITIES, WORDS, table

ray = pytest.importorskip("ray")
from mm_metrics.predictions import engine  # noqa: E402

pytestmark = [  # Ray's own
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine, for all that follows: to begin and to load torch is what takes long."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for i in range(3):
        data = table(seed=i, n=500, outside=0.02).assign(qid=[f"{i}-{j}" for j in range(500)])
        data.to_csv(folder / f"{i}.csv", index=False)
    table(seed=9, n=500).to_parquet(folder / "3.parquet", row_group_size=70)
    return sorted(folder.iterdir())


def same(one, other):
    assert one.card.to_json() == other.card.to_json()
    assert one.notes == other.notes


@pytest.mark.parametrize(
    "options", [{"by": ["presence_text"]}, {"classes": WORDS, "id": "qid"}, {"skip_bad": True, "classes": WORDS[:3]}]
)
def test_the_same_card_as_on_one_machine(options, cluster, files, monkeypatch):
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 100)
    how = Predictions(MODALITIES, bootstrap=20, **options)
    same(engine.score_files(how, files), how.score_files(files))


def test_workers_that_die_cost_a_second_try_and_no_row(cluster, files, tmp_path):
    driver = os.getpid()

    class Mortal(Predictions):
        """Twice, whoever is about to count is killed."""

        @property
        def answers(self):
            for i in range(2):
                if os.getpid() != driver and not (tmp_path / str(i)).exists():
                    (tmp_path / str(i)).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().answers

    how = {"modalities": MODALITIES, "classes": WORDS, "bootstrap": 20}
    same(engine.score_files(Mortal(**how), files), Predictions(**how).score_files(files))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_piece_that_ends_every_worker_is_refused_by_its_name(cluster, tmp_path):
    def work(n):
        (tmp_path / f"{n}-{len(list(tmp_path.glob(f'{n}-*')))}").touch()
        if n == 2 or (n == 1 and not (tmp_path / "1-1").exists()):
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    done = []
    with workers.cluster() as data, pytest.raises(ValueError, match=r"^c\.csv: it ended 4 workers"):
        done.extend(workers.results(data, work, [(n,) for n in range(4)], ["a.csv", "b.csv", "c.csv", "d.csv"]))
    assert sorted(done) == [(0, 0), (1, 1), (3, 3)]
    assert len(list(tmp_path.glob("2-*"))) == workers.TRIES


@pytest.mark.parametrize("of", ["scores", "leaks"])
def test_pieces_are_named_by_their_files(of, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("target,prediction\nx,y\n")
    for module in (engine, leakage):
        monkeypatch.setattr(module, "cluster", contextlib.nullcontext)
        monkeypatch.setattr(module, "results", lambda data, function, work, names: pytest.fail(str(names)))
    scored = lambda: engine.score_files(Predictions(("text",), classes=("x", "y")), [tmp_path / "a.csv"])  # noqa: E731
    shared = lambda: from_files({"train": tmp_path / "a.csv"}, ["prediction"], engine="ray", near=False)  # noqa: E731
    with pytest.raises(pytest.fail.Exception, match=r"a\.csv"):
        {"scores": scored, "leaks": shared}[of]()


def test_the_first_bad_row_is_named_as_on_one_machine(cluster, tmp_path):
    for name in ("a", "b"):
        data = pandas.DataFrame({"target": ["x", "y", name * 3], "prediction": "x"})
        data.to_csv(tmp_path / f"{name}.csv", index=False)
    how, files = Predictions(("text",), classes=("x", "y")), [tmp_path / "a.csv", tmp_path / "b.csv"]
    said = []
    for score_files in (how.score_files, lambda files: engine.score_files(how, files)):
        with pytest.raises(ValueError, match=r"a\.csv, line 4") as error:
            score_files(files)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_an_id_twice_is_named_as_on_one_machine(cluster, tmp_path):
    for name in ("a", "b"):
        data = pandas.DataFrame({"target": ["x", "y"], "prediction": "x", "qid": [name, "twice"]})
        data.to_csv(tmp_path / f"{name}.csv", index=False)
    how, files = Predictions(("text",), classes=("x", "y"), id="qid"), [tmp_path / "a.csv", tmp_path / "b.csv"]
    for score_files in (how.score_files, lambda files: engine.score_files(how, files)):
        with pytest.raises(ValueError, match=r"b\.csv, line 3, column 'qid': its id came before, in .*a\.csv, line 3:"):
            score_files(files)


# What splits share.

HOW = {"target": "label", "progress": False}


@pytest.fixture
def small_parts(monkeypatch):
    """Several parts a split."""
    monkeypatch.setattr(leakage, "SAMPLES", 7)


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


def test_the_same_leaks_in_manifests_and_files(cluster, small_parts, tmp_path):
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


def test_killed_workers_cost_another_try_and_no_sample(cluster, small_parts, tmp_path):
    """In the middle of a part, and at the last sample."""
    splits = {"train": Words(0, 1, str(tmp_path / "a"), (17,)), "test": Words(20, 2, str(tmp_path / "b"), (29,))}
    shared = find_leakage(splits, ["text", "values"], "who", engine="ray", **HOW)
    assert len(list(tmp_path.iterdir())) == 2
    assert shared == find_leakage(splits, ["text", "values"], "who", **HOW)
    assert shared.sizes == {"train": 30, "test": 30}
    assert len(shared.touched("test")) == 16  # ten are shared, six more belong to a shared group


def test_a_long_manifest_is_read_in_a_bounded_number_of_parts(tmp_path, monkeypatch):
    """As the rows before a part are read for each: and every row is in one part."""
    monkeypatch.setattr(leakage, "SAMPLES", 7)
    monkeypatch.setattr(leakage, "MOST", 5)
    monkeypatch.setattr(leakage, "cluster", contextlib.nullcontext)
    tried = []

    def results(data, function, work, names):
        tried.extend(names)
        return enumerate(function(*piece) for piece in work)

    monkeypatch.setattr(leakage, "results", results)
    paths = [tmp_path / "a.csv", tmp_path / "b.jsonl"]
    paths[0].write_text("x,label\n" + "".join(f"call {n % 300},{n % 2}\n" for n in range(701)))
    paths[1].write_text("".join(f'{{"x": "call {n}", "label": 1}}\n' for n in range(20)))
    found = [from_files({"train": paths}, ["x"], near=False, progress=False, engine=how) for how in ("local", "ray")]
    assert found[0] == found[1]
    assert [name.split("/")[-1] for name in tried] == [
        *(f"a.csv, samples {n} to {min(n + 141, 701) - 1}" for n in range(0, 701, 141)),
        *(f"b.jsonl, samples {n} to {min(n + 7, 20) - 1}" for n in range(0, 20, 7)),
    ]


def test_kinds_and_errors_are_those_of_the_first_sample(cluster, small_parts):
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
