"""Scoring on Ray: the same integers as on one machine, whatever dies in the middle."""

import os
import signal

import pandas
import pytest

from mm_metrics.predictions import Predictions
from tests.test_predictions import MODALITIES, WORDS, table

ray = pytest.importorskip("ray")
from mm_metrics.predictions import engine  # noqa: E402

pytestmark = [  # Ray's own
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
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
        """Three times, whoever is about to count is killed."""

        @property
        def answers(self):
            for i in range(3):
                if os.getpid() != driver and not (tmp_path / str(i)).exists():
                    (tmp_path / str(i)).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().answers

    how = {"modalities": MODALITIES, "classes": WORDS, "bootstrap": 20}
    same(engine.score_files(Mortal(**how), files), Predictions(**how).score_files(files))
    assert len(list(tmp_path.iterdir())) == 3


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
