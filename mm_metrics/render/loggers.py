"""Pictures and the table of scores to Lightning's loggers, each by what it can do."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_metrics.render import tables
from mm_metrics.render.tables import Tables

if TYPE_CHECKING:
    from mm_metrics.counts.tally import Tally


def send(loggers: Iterable[Any], card: Tally | Tables, stage: str, step: int, folder: Any, summary: str = "") -> None:
    """Give the confusions, coalitions and contributions of a stage to every logger, as pictures.

    TensorBoard, Weights & Biases, MLflow and Comet take them as their own; W&B and MLflow the table of scores too; for
    any other logger PNG files are written to `folder`, the last ones of each stage; it gets none where that is None.
    What goes wrong in a logger is one warning. `summary` is the name of a file in `folder` that shows all of it. To be
    called on rank zero.
    """
    loggers = [logger for logger in loggers if logger is not None and (folder is not None or _takes_pictures(logger))]
    if not loggers and not summary:
        return
    from mm_metrics.render import figures

    told = tables.of(card)
    try:
        drawn = figures.drawn(told)
        images = {name: figures.pixels(figure) for name, figure in drawn.items()}
    except Exception as error:  # pictures never end a training run
        warnings.warn(f"no pictures of {stage} were drawn: {_said(error)}", stacklevel=2)
        return
    for logger in loggers:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                _send(logger, drawn, images, told, stage, step, folder)
        except Exception as error:
            name = type(logger).__name__
            warnings.warn(f"{name} did not take the pictures of {stage}: {_said(error)}", stacklevel=2)
    for figure in drawn.values():
        figure.clear()
    if summary:
        figures.write_png(Path(folder) / summary, figures.summary(told, images))


def _takes_pictures(logger: Any) -> bool:
    experiment = getattr(logger, "experiment", None)
    takers = (logger, "log_image"), (experiment, "add_figure"), (experiment, "log_figure")
    return any(callable(getattr(thing, name, None)) for thing, name in takers)


def _send(
    logger: Any, drawn: dict[str, Any], images: dict[str, Any], told: Tables, stage: str, step: int, folder: Any
) -> None:
    if callable(getattr(logger, "log_image", None)):  # Weights & Biases
        for name, image in images.items():
            logger.log_image(f"{stage}/modality/{name}", [image], step=step)
        if callable(getattr(logger, "log_table", None)):
            columns, rows = _scores(told)
            logger.log_table(f"{stage}/modality/scores", columns=columns, data=rows, step=step)
        return
    experiment = getattr(logger, "experiment", None)
    add_figure, log_figure = (getattr(experiment, name, None) for name in ("add_figure", "log_figure"))
    if callable(add_figure):  # TensorBoard
        for name, figure in drawn.items():
            add_figure(f"{stage}/modality/{name}", figure, global_step=step)
    elif callable(log_figure) and "run_id" in inspect.signature(log_figure).parameters:  # MLflow's client
        for name, figure in drawn.items():
            log_figure(logger.run_id, figure, f"modality/{stage}/{name}_{step:07d}.png")
        columns, rows = _scores(told)
        table = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        experiment.log_table(logger.run_id, table, f"modality/{stage}/scores_{step:07d}.json")  # type: ignore[union-attr]
    elif callable(log_figure):  # Comet
        for name, figure in drawn.items():
            log_figure(f"{stage}/modality/{name}", figure, step=step)
    else:
        from mm_metrics.render import figures

        for name, image in images.items():
            figures.write_png(Path(folder) / f"{stage}_{name}.png", image)


def _scores(told: Tables) -> tuple[list[str], list[list[Any]]]:
    """Every slice's scores with their bounds, as plain columns and rows; None where there is no number."""
    columns = [*told.scores.columns[:1], "samples"]
    columns += [f"{name}{end}" for name in told.scores.columns[2:] for end in ("", " low", " high")]
    rows = [
        [*row[:2], *(part if math.isfinite(part) else None for number in row[2:] for part in number[:3])]
        for row in told.scores.rows
    ]
    return columns, rows


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
