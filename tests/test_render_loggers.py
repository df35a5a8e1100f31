"""What loggers are given, and that none of them can end a training run."""

from __future__ import annotations

import io
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mm_metrics.render import loggers
from tests.render_cards import HOSTILE, card

NAMES = ["confusions", "coalitions", "contributions"]


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple] = []


class Comet:
    class Experiment(Recorder):
        def log_figure(self, figure_name=None, figure=None, overwrite=False, step=None):
            self.calls.append((figure_name, figure.get_size_inches().tolist(), step))

    def __init__(self) -> None:
        self.experiment = self.Experiment()


class Broken:
    @property
    def experiment(self):
        raise ConnectionError("no route to host")


class Plain:
    experiment = object()


def test_comet_takes_figures_by_name():
    logger = Comet()
    loggers.send([logger], card(), "test", 3, "unused")
    assert [call[0] for call in logger.experiment.calls] == [f"test/modality/{name}" for name in NAMES]
    assert {call[2] for call in logger.experiment.calls} == {3}


def test_a_writer_gets_pixels_where_it_takes_them_and_figures_else():
    class Figures(Recorder):
        def add_figure(self, tag, figure, global_step):
            self.calls.append((tag, tuple(int(side) for side in figure.get_size_inches()[::-1] * figure.dpi + 1e-6)))

    class Both(Recorder):
        def add_figure(self, *_, **__):
            pytest.fail("it takes pixels, which cost less")

        def add_image(self, tag, image, step, dataformats):
            assert dataformats == "HWC"
            self.calls.append((tag, image.shape[:2]))

    figures, both = Figures(), Both()
    loggers.send([SimpleNamespace(experiment=one) for one in (figures, both)], card(), "val", 0, None)
    assert [tag for tag, _ in figures.calls] == [f"val/modality/{name}" for name in NAMES]
    assert both.calls == figures.calls, "as large as each other"


def test_a_logger_without_pictures_gets_files(tmp_path):
    loggers.send([Plain()], card(), "val", 0, tmp_path / "deep")
    first = {path.name: path.read_bytes() for path in (tmp_path / "deep").iterdir()}
    assert sorted(first) == sorted(f"val_{name}.png" for name in NAMES)
    for content in first.values():
        Image.open(io.BytesIO(content)).verify()
    loggers.send([Plain()], card(seed=1), "val", 1, tmp_path / "deep")
    assert len(list((tmp_path / "deep").iterdir())) == 3, "files are of the last epoch, they do not pile up"
    assert (tmp_path / "deep" / "val_coalitions.png").read_bytes() != first["val_coalitions.png"]


def test_csv_logger_gets_files_next_to_its_own(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    loggers.send([logger], card(), "val", 0, logger.log_dir)
    assert sorted(path.name for path in (tmp_path / "lightning_logs" / "version_0").glob("*.png")) == sorted(
        f"val_{name}.png" for name in NAMES
    )


def test_a_broken_logger_is_one_warning_and_the_others_get_theirs():
    good = Comet()
    with pytest.warns(UserWarning, match="Broken did not take the pictures of val: ConnectionError") as seen:
        loggers.send([Broken(), good], card(), "val", 0, "unused")
    assert len(seen) == 1
    assert len(good.experiment.calls) == 3


def test_a_missing_matplotlib_is_one_warning(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(UserWarning, match='pip install "matplotlib') as seen:
        loggers.send([Comet(), Comet()], card(), "val", 0, "unused")
    assert len(seen) == 1


def test_nothing_is_drawn_for_nobody(monkeypatch):
    monkeypatch.setattr("mm_metrics.render.charts.drawn", lambda told: pytest.fail("drew"))
    loggers.send([], card(), "val", 0, "unused")
    loggers.send([None], card(), "val", 0, "unused")


def test_heads_and_letters_without_a_glyph_warn_of_nothing(tmp_path):
    odd = card(coalitions=["all"], class_names=["音声", HOSTILE, "$", "\udc80"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loggers.send([Plain()], odd, "val", 0, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["val_confusions.png"]


def test_no_figure_is_left_to_pyplot(tmp_path):
    from matplotlib import pyplot

    loggers.send([Plain()], card(), "val", 0, tmp_path)
    assert pyplot.get_fignums() == []


def test_samples_of_many_findings_are_ten_tags_of_plain_names():
    tags = []
    writer = SimpleNamespace(
        **dict.fromkeys(("add_image", "add_text", "add_audio"), lambda tag, *_, **more: tags.append(tag))
    )
    content = {"image": np.zeros((4, 4, 3), np.uint8), "audio": (np.zeros(800, np.float32), 8000), "text": "a word"}
    row = {"number": 7, "target": "a", "prediction": "b", "coalitions": {}, "content": content}
    findings = [one | {"message": f"class 'a {i}' missed"} for i in range(9) for one in [{"rows": [row, row]}]]
    findings[1] |= {"rows": []}
    loggers.send_samples([SimpleNamespace(experiment=writer)], findings, "val", 7)
    parts = ("answers", "image", "audio")
    wanted = [f"val/modality/samples/class_a_{i}_missed/{part}" for i in (0, 2, 3) for part in parts]
    assert tags == wanted
