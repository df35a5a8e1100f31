"""The pictures: what they show is what was counted, and nothing of them is left behind."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as NewFigure

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix, ModalityF1Score, ModalityRecall
from mm_metrics.extras import install
from mm_metrics.render import charts, confusion, draw, figures, loggers, tables
from mm_metrics.render.pixels import DPI, font, pixels
from tests.render_cards import HOSTILE, card, paradox


def texts(sheet) -> list[str]:
    return [mark.said for mark in sheet.marks if mark.kind == "text"]


def marks(sheet, kind: str, *colors: str) -> list:
    return [mark for mark in sheet.marks if mark.kind == kind and (not colors or mark.color in colors)]


def scale(sheet):
    """From points across to values: by the ticks' names and places."""
    numbered = [(m.points[0][0], float(m.said.replace("−", "-"))) for m in marks(sheet, "text") if is_tick(m)]
    (x0, v0), (x1, v1) = numbered[0], numbered[-1]
    return lambda x: v0 + (x - x0) * (v1 - v0) / (x1 - x0)


def is_tick(mark) -> bool:
    return mark.color == draw.MUTED and mark.anchor == "middle" and mark.said.lstrip("−")[:1].isdigit()


def bars(sheet) -> list[float]:
    """What bars are long, as values, in the order they were drawn."""
    value = scale(sheet)
    return [value(b) if value(b) > 1e-9 else value(a) for (a, _), (b, _) in (m.points for m in marks(sheet, "rect"))]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
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
    for make in (figures.confusions, figures.coalitions, figures.contributions):
        fig, ax = make(shown)
        assert fig is ax.figure
        assert 0 < max(fig.get_size_inches()) < 20
        FigureCanvasAgg(fig).draw()
    for sheet in (*charts.drawn(tables.of(shown)).values(), charts.summary(tables.of(shown))):
        image = pixels(sheet)
        assert image.shape == (*(int(side * DPI / 72 + 1e-6) for side in (sheet.height, sheet.width)), 3)
        assert image.dtype == np.uint8


def test_cells_hold_the_counts_and_the_shares_of_their_row():
    shown = paradox()
    sheet = draw.heat(tables.of(shown).cells("audio"))
    confusion = shown.confusion(slice="audio")
    said = texts(sheet)
    assert [part for part in said if part[0].isdigit()] == ["4,300", "100%", "0", "134", "89%", "16", "11%"]
    assert int(confusion[1, 0]) == 134
    assert [part for part in said if not part[0].isdigit()] == ["no event", "event"] * 2
    right, missed, found = marks(sheet, "rect")
    assert (right.color, missed.color, found.color) == (draw.RIGHT, draw.WRONG, draw.RIGHT)
    assert missed.alpha / right.alpha == pytest.approx(134 / 150)


def test_bars_hold_the_scores_and_their_intervals():
    shown = card()
    told = tables.of(shown)
    sheet = charts.coalitions(told)
    assert bars(sheet) == [pytest.approx(shown.score("f1", name)) for name in told.telling]
    value = scale(sheet)
    ranges = [m.points for m in marks(sheet, "line", draw.INK) if m.size == 1.3]
    drawn = [[value(x) for x, _ in points] for points in ranges]
    assert drawn == [pytest.approx(list(shown.interval("f1", name))) for name in told.telling]
    full = marks(sheet, "dot", draw.INK)
    assert len(full) == sum(0 if name == "none" else name.count("-") + 1 for name in told.telling)
    assert len(marks(sheet, "dot")) == 3 * 8


def test_contributions_are_in_points():
    shown = card()
    sheet = charts.contributions(tables.of(shown))
    gains = shown.contributions("f1")
    wanted = [100 * part.drop.value for part in gains.values()] + [100 * part.shapley.value for part in gains.values()]
    legend = 2
    assert bars(sheet)[:-legend] == [pytest.approx(value) for value in wanted]


def test_without_bootstrap_no_interval_is_drawn():
    sheet = charts.contributions(tables.of(card(bootstrap=0)))
    assert marks(sheet, "line", draw.INK) == []


def test_what_is_painted_is_what_is_on_the_sheet():
    sheet = charts.coalitions(tables.of(card()))
    figure, ax = figures.paint(sheet)
    assert [text.get_text() for text in ax.texts] == texts(sheet)
    faces, lines = sum(m.kind in ("rect", "area") for m in sheet.marks), len(marks(sheet, "line"))
    assert sum(len(c.get_paths()) for c in ax.collections if type(c).__name__ == "PolyCollection") == faces
    assert sum(len(c.get_segments()) for c in ax.collections if type(c).__name__ == "LineCollection") == lines
    assert figure.get_size_inches() * 72 == pytest.approx([sheet.width, sheet.height])
    own = NewFigure(figsize=(3, 2)).add_subplot()
    assert figures.paint(sheet, own)[1] is own
    assert max(text.get_fontsize() for text in own.texts) < max(text.get_fontsize() for text in ax.texts)


def test_many_classes_are_the_most_confused_and_the_rest_added_up():
    C = 100
    counts = torch.eye(C, dtype=torch.int64) * 10
    counts[7, 93] = 5
    cells = confusion.cells(counts, list(map(str, range(C))))
    assert int(cells.counts.sum()) == int(counts.sum())
    assert cells.counts.shape == (21, 21)
    assert cells.rows[-1] == "80 others"
    assert {"7", "93"} <= set(cells.rows)
    assert int(cells.counts[cells.rows.index("7"), cells.rows.index("93")]) == 5
    assert int(cells.counts[-1, -1]) == 800


def test_multilabel_cells_are_hits_misses_and_false_alarms():
    counts = torch.tensor([[[50, 7], [3, 40]]])  # rows: absent, present
    cells = confusion.cells(counts, ["siren"], by_label=True)
    assert dict(zip(cells.columns, cells.counts[0].tolist(), strict=True)) == {
        "hit": 40,
        "missed": 3,
        "false alarm": 7,
        "rightly absent": 50,
    }
    assert cells.shares[0].tolist() == pytest.approx([40 / 43, 3 / 43, 7 / 57, 50 / 57])


def test_classes_that_findings_name_are_drawn_and_labels_keep_their_numbers():
    counts = torch.zeros(40, 2, 2, dtype=torch.int64)
    counts[:, 1, 0] = torch.arange(40)
    shown = confusion.chosen(counts, True, first=[0, 3])
    assert len(shown) == confusion.LABELS_SHOWN == draw.NUMBERED_UP_TO
    assert {0, 3} <= set(shown)
    assert set(shown) - {0, 3} == set(range(30, 40))
    cells = confusion.cells(counts, list(map(str, range(40))), True, shown)
    assert cells.rows == [str(i) for i in shown]
    assert cells.omitted == 28
    assert "39" in texts(draw.heat(cells))


def test_history_is_one_line_a_series_with_gaps_and_bands():
    rows = [
        {"epoch": 3, "a": 0.1, "b": 0.3, "b/low": 0.2, "b/high": 0.4},
        {"epoch": 4, "b": 0.4, "b/low": 0.3, "b/high": 0.5},
        {"epoch": 5, "a": 0.2, "b": float("nan")},
    ]
    sheet = charts.history(rows, {"text": "a", "all": "b"})
    assert [len(m.points) for m in marks(sheet, "line", draw.SERIES[0], draw.INK)] == [1, 1, 2]
    assert len(marks(sheet, "dot")) == 2, "a value between gaps is a dot"
    band, line = marks(sheet, "area")[0], marks(sheet, "line", draw.INK)[0]
    assert len(band.points) == 4
    assert band.points[0][1] > line.points[0][1] > band.points[3][1]
    assert texts(sheet)[-2:] == ["text", "all"]


def test_names_at_line_ends_do_not_overlap():
    places = draw.apart([0.5, 0.5, 0.51, 0.9], 0.1)
    assert np.diff(sorted(places)).min() >= 0.099
    assert places[3] == pytest.approx(0.9)


def said(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_modality_plot_of_each_metric():
    target, presence = torch.tensor([0, 1, 2]), torch.tensor([[1, 1], [1, 0], [0, 1]])
    for metric, panels in (
        (ModalityConfusionMatrix(("text", "audio"), num_classes=3), ["all", "text", "audio"]),
        (CoalitionConfusionMatrix(("text", "audio"), num_classes=3), ["text-audio", "audio", "text", "none"]),
    ):
        preds = torch.tensor([0, 1, 1])
        metric.update(preds.expand(4, 3) if len(panels) == 4 else preds, target, presence)
        _, ax = metric.plot()
        assert [part for part in said(ax) if part.isalpha() or "-" in part] == panels
        own = NewFigure(figsize=(3, 3)).add_subplot()
        assert metric.plot(ax=own)[1] is own
        value = metric.compute()
        _, ax = metric.plot([value, value])
        sheet = figures.sheet_of(metric, [value, value])
        assert len(marks(sheet, "line", *draw.SERIES)) == 3


def test_plot_of_scores_is_bars_and_over_time_lines():
    metric = ModalityF1Score(("text", "audio"), num_classes=2)
    metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    sheet = figures.sheet_of(metric, metric.compute())
    assert bars(sheet) == [pytest.approx(float(v)) for v in metric.compute().values()]
    sheet = figures.sheet_of(metric, [metric.compute()] * 3)
    assert [len(m.points) for m in marks(sheet, "line", *draw.SERIES)] == [3, 3, 3]


def test_multilabel_plots():
    metric = ModalityConfusionMatrix(("text",), task="multilabel", num_labels=3)
    metric.update(torch.tensor([[1, 0, 1]]), torch.tensor([[1, 1, 0]]))
    assert {"all", "text", "hit", "missed"} <= set(said(metric.plot()[1]))
    both = CoalitionConfusionMatrix(("text",), task="multilabel", num_labels=3)
    both.update(torch.tensor([[[0, 0, 1]], [[1, 0, 1]]]), torch.tensor([[1, 1, 0]]))
    names = [part for part in said(both.plot()[1]) if part in ("text", "none")]
    assert names == ["text", "none"], "the most that is shown comes first"
    assert len(marks(figures.sheet_of(both, [both.compute()] * 2), "line", *draw.SERIES)) == 2


def test_a_score_that_is_nan_is_no_bar():
    metric = ModalityRecall(("text", "audio"), task="binary")
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([[1, 0]]))
    sheet = figures.sheet_of(metric, metric.compute())
    assert bars(sheet) == [1, 1]
    assert "–" in texts(sheet)


def test_no_pyplot_and_no_matplotlib_before_it_is_needed():
    code = (
        "import sys, mm_metrics.render.page, mm_metrics.render.console, mm_metrics.render.figures as f;"
        "from tests.render_cards import card; c = card(); c.table();"
        "assert not {'matplotlib', 'jinja2', 'lightning'} & set(sys.modules) - loaded, 'early';"
        "f.coalitions(c); assert 'matplotlib.pyplot' not in sys.modules or 'matplotlib' in loaded, 'pyplot'"
    )
    code = "import sys, torch, torchmetrics; loaded = set(sys.modules);" + code
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_summary_as_a_file(tmp_path):
    from PIL import Image

    drawn = pixels(charts.summary(tables.of(paradox())))
    path = tmp_path / "deep" / "summary.png"
    loggers.send([], paradox(), "val", 0, path.parent, path.name)
    with Image.open(path) as image:
        assert image.size == (drawn.shape[1], drawn.shape[0])
        assert np.array_equal(np.asarray(image), drawn)
        assert 1200 < image.size[0] < 1800
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.png"]


def test_missing_matplotlib_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=re.escape(install("matplotlib"))):
        figures.contributions(card())


def test_pixels_are_where_matplotlib_paints_them():
    sheet = charts.summary(tables.of(card(classes=20)))
    sheet.line(((300, 300), (500, 380)), draw.WRONG, 2.0, dash=True)
    figure, _ = figures.paint(sheet)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    theirs, ours = np.asarray(canvas.buffer_rgba())[..., :3].astype(float), pixels(sheet).astype(float)
    ours, theirs = (image[: len(theirs) // 8 * 8, : theirs.shape[1] // 8 * 8] for image in (ours, theirs))
    ours, theirs = (image.reshape(len(image) // 8, 8, -1, 8, 3).mean((1, 3)) for image in (ours, theirs))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
    assert np.abs(ours - theirs).mean() < 2


def test_pixels_need_no_matplotlib(monkeypatch):
    sheet = charts.summary(tables.of(card()))
    drawn = pixels(sheet)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    font.cache_clear()
    assert pixels(sheet).shape == drawn.shape
    font.cache_clear()
