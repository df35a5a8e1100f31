"""The pictures: what they show is what was counted, and nothing of them is left behind."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, ModalityF1Score, ModalityRecall
from mm_metrics.extras import install
from mm_metrics.render import draw, figures, tables
from tests.render_cards import HOSTILE, card, paradox


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    "drawn",
    [
        card,
        paradox,
        lambda: card(("a",), task="binary"),
        lambda: card(("a", "b", "c", "d", "e", "f"), 20, 200, bootstrap=20),
        lambda: card(classes=1000, samples=300, bootstrap=0, coalitions=["all", "text"]),
        lambda: card(task="multilabel", classes=40, coalitions="leave_one_out"),
        lambda: card(absent=("audio",)),
        lambda: card(samples=0, bootstrap=0),
        lambda: card(bootstrap=0),
        lambda: card(coalitions=["text", "image", "audio"]),
        lambda: card(class_names=[HOSTILE, "$a_b$", "\x00", "n" * 200]),
    ],
    ids=["plain", "paradox", "one", "six", "1000", "labels", "nan", "empty", "nobootstrap", "heads", "hostile"],
)
def test_every_figure_of_every_card(drawn, tmp_path):
    shown = drawn()
    for make in (figures.confusions, figures.confusion, figures.coalitions, figures.contributions, figures.summary):
        fig, ax = make(shown)
        if make in (figures.confusions, figures.summary):
            fig.savefig(tmp_path / "figure.png", dpi=50)
        assert fig is (np.ravel(ax)[0]).figure
        assert max(fig.get_size_inches()) < 20


def test_cells_hold_the_counts_and_the_shares_of_their_row():
    shown = paradox()
    _, ax = figures.confusion(shown, "audio")
    confusion = shown.confusion(slice="audio")
    assert texts(ax) == ["4,300", "100%", "0", "0%", "134", "89%", "16", "11%"]
    assert int(confusion[1, 0]) == 134
    assert [label.get_text() for label in ax.get_yticklabels()] == ["no event", "event"]
    colors = [patch.get_facecolor()[:3] for patch in ax.patches]
    assert colors[0] == colors[3] != colors[1] == colors[2]
    assert ax.patches[2].get_alpha() == pytest.approx(134 / 150)


def test_bars_hold_the_scores_and_their_intervals():
    shown = card()
    _, ax = figures.coalitions(shown)
    names = tables.telling_coalitions(shown)
    assert [bar.get_width() for bar in ax.patches] == [pytest.approx(shown.score("f1", name)) for name in names]
    drawn = [list(line.get_xdata()) for line in ax.lines][: len(names)]
    assert drawn == [pytest.approx(list(shown.interval("f1", name))) for name in names]
    dots = ax.child_axes[0]
    full = next(marks for marks in dots.collections if marks.get_facecolor()[0][:3].sum() < 1)
    assert len(full.get_offsets()) == sum(0 if name == "none" else name.count("-") + 1 for name in names)


def test_contributions_are_in_points():
    shown = card()
    _, ax = figures.contributions(shown)
    gains = shown.contributions("f1")
    wanted = [100 * part.drop.value for part in gains.values()] + [100 * part.shapley.value for part in gains.values()]
    assert [bar.get_width() for bar in ax.patches] == [pytest.approx(value) for value in wanted]


def test_without_bootstrap_no_interval_is_drawn():
    _, ax = figures.contributions(card(bootstrap=0))
    assert [line for line in ax.lines if len(set(line.get_xdata())) > 1] == []


def test_many_classes_are_the_most_confused_and_the_rest_added_up():
    C = 100
    confusion = torch.eye(C, dtype=torch.int64) * 10
    confusion[7, 93] = 5
    cells = tables.cells(confusion, list(map(str, range(C))))
    assert int(cells.counts.sum()) == int(confusion.sum())
    assert cells.counts.shape == (21, 21)
    assert cells.rows[-1] == "80 others"
    assert {"7", "93"} <= set(cells.rows)
    assert int(cells.counts[cells.rows.index("7"), cells.rows.index("93")]) == 5
    assert int(cells.counts[-1, -1]) == 800


def test_multilabel_cells_are_hits_misses_and_false_alarms():
    confusion = torch.tensor([[[50, 7], [3, 40]]])  # rows: absent, present
    cells = tables.cells(confusion, ["siren"], multilabel=True)
    assert dict(zip(cells.columns, cells.counts[0].tolist(), strict=True)) == {
        "hit": 40, "missed": 3, "false alarm": 7, "rightly absent": 50,
    }  # fmt: skip
    assert cells.shares[0].tolist() == pytest.approx([40 / 43, 3 / 43, 7 / 57, 50 / 57])


def test_history_is_one_line_a_series_with_gaps():
    rows = [{"epoch": 3, "a": 0.1, "b": 0.3}, {"epoch": 4, "b": 0.4}, {"epoch": 5, "a": 0.2, "b": float("nan")}]
    _, ax = figures.history(rows, {"text": "a", "all": "b"})
    assert [line.get_xdata().tolist() for line in ax.lines] == [[3, 4, 5]] * 2
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, True, False]
    assert [text.get_text() for text in ax.texts] == ["text", "all"]


def test_names_at_line_ends_do_not_overlap():
    places = draw._spread([0.5, 0.5, 0.51, 0.9], 0.1)
    assert np.diff(sorted(places)).min() >= 0.099
    assert places[3] == pytest.approx(0.9)


def test_modality_plot_of_each_metric():
    target, presence = torch.tensor([0, 1, 2]), torch.tensor([[1, 1], [1, 0], [0, 1]])
    for metric, panels in (
        (ModalityConfusionMatrix(("text", "audio"), num_classes=3), 3),
        (CoalitionConfusionMatrix(("text", "audio"), num_classes=3), 4),
    ):
        preds = torch.tensor([0, 1, 1])
        metric.update(preds.expand(4, 3) if panels == 4 else preds, target, presence)
        _, ax = metric.plot()
        assert len(ax) == panels
        own = draw.figure(3, 3).add_subplot()
        assert metric.plot(ax=own)[1] is own
        value = metric.compute()
        _, ax = metric.plot([value, value])
        assert len(ax.lines) == 3
        assert ax.lines[0].get_ydata().tolist() == pytest.approx([2 / 3] * 2)


def test_plot_of_scores_is_bars_and_over_time_lines():
    metric = ModalityF1Score(("text", "audio"), num_classes=2)
    metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    _, ax = metric.plot()
    assert [bar.get_width() for bar in ax.patches] == [pytest.approx(float(v)) for v in metric.compute().values()]
    _, ax = metric.plot([metric.compute()] * 3)
    assert [len(line.get_xdata()) for line in ax.lines] == [3, 3, 3]


def test_multilabel_plots():
    metric = ModalityConfusionMatrix(("text",), task="multilabel", num_labels=3)
    metric.update(torch.tensor([[1, 0, 1]]), torch.tensor([[1, 1, 0]]))
    assert len(metric.plot()[1]) == 2
    both = CoalitionConfusionMatrix(("text",), task="multilabel", num_labels=3)
    both.update(torch.tensor([[[0, 0, 1]], [[1, 0, 1]]]), torch.tensor([[1, 1, 0]]))
    _, axes = both.plot()
    assert len(axes) == 2
    assert axes[0].get_title("left") == "text", "the most that is shown comes first"
    assert both.plot([both.compute()] * 2)[1].lines[0].get_ydata().tolist() == pytest.approx([1 / 3] * 2)


def test_a_score_that_is_nan_is_no_bar():
    metric = ModalityRecall(("text", "audio"), task="binary")
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([[1, 0]]))
    _, ax = metric.plot()
    assert [bar.get_width() for bar in ax.patches] == [1, 1, 0]
    assert "–" in texts(ax)


def test_no_pyplot_and_no_matplotlib_before_it_is_needed():
    code = (
        "import sys, mm_metrics.render.page, mm_metrics.render.console, mm_metrics.render.figures as f;"
        "from tests.render_cards import card; c = card(); c.table();"
        "assert not {'matplotlib', 'jinja2', 'rich', 'lightning'} & set(sys.modules) - loaded, 'early';"
        "f.summary(c); assert 'matplotlib.pyplot' not in sys.modules or 'matplotlib' in loaded, 'pyplot'"
    )
    code = "import sys, torch, torchmetrics; loaded = set(sys.modules);" + code
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_summary_as_a_file(tmp_path):
    from PIL import Image

    path = figures.write_png(tmp_path / "deep" / "summary.png", figures.summary(paradox())[0])
    with Image.open(path) as image:
        assert image.size == (1430, 988)
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.png"]


def test_missing_matplotlib_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=re.escape(install("matplotlib"))):
        figures.contributions(card())
