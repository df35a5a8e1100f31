"""Pictures and the table of scores to Lightning's loggers, each by what it can do."""

from __future__ import annotations

import inspect
import math
import re
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_metrics.files import write_whole
from mm_metrics.render import charts, figures, tables
from mm_metrics.render.pixels import pixels, png
from mm_metrics.render.samples import Sound, small, wav
from mm_metrics.render.tables import Tables

if TYPE_CHECKING:
    from mm_metrics.counts.tally import Tally

_TAGS = 10  # of TensorBoard, for the samples of a stage


def send(loggers: Iterable[Any], card: Tally | Tables, stage: str, step: int, folder: Any, summary: str = "") -> None:
    """Give the confusions, coalitions, contributions and, of numbers, predicted against true to every logger.

    TensorBoard, Weights & Biases, MLflow and Comet take them as their own; W&B and MLflow the table of scores too; for
    any other logger PNG files are written to `folder`, the last ones of each stage; it gets none where that is None.
    What goes wrong in a logger is one warning. `summary` is the name of a file in `folder` that shows all of it. To be
    called on rank zero.
    """
    loggers = [logger for logger in loggers if logger is not None and (folder is not None or _takes_pictures(logger))]
    if not loggers and not summary:
        return
    told = tables.of(card)
    images = cache(lambda: {name: pixels(sheet) for name, sheet in charts.drawn(told).items()})
    painted = cache(lambda: {name: figures.paint(sheet)[0] for name, sheet in charts.drawn(told).items()})
    for logger in loggers:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                _send(logger, images, painted, told, stage, step, folder)
        except ImportError as error:
            warnings.warn(f"no pictures of {stage} were drawn: {_said(error)}", stacklevel=2)
            break
        except Exception as error:  # pictures never end a training run
            name = type(logger).__name__
            warnings.warn(f"{name} did not take the pictures of {stage}: {_said(error)}", stacklevel=2)
    if summary:
        write_whole(Path(folder) / summary, png(pixels(charts.summary(told))))


def send_samples(loggers: Iterable[Any], findings: Iterable[Mapping[str, Any]], stage: str, step: int) -> None:
    """Give the samples of findings, as `mm_metrics.render.samples.shown` takes them, to the loggers that take media.

    Weights & Biases gets a table with pictures and sounds, TensorBoard a text, a strip of images and a track of sounds
    a finding, of the first findings as far as ten tags go; what goes wrong in a logger is one warning. Samples without
    content are not sent.
    """
    findings = list(findings)
    rows = [(one["message"], i, row) for one in findings for i, row in enumerate(one["rows"]) if row.get("content")]
    key = f"{stage}/modality/samples"
    for logger in loggers if rows else ():
        try:
            if callable(getattr(logger, "log_table", None)) and "wandb" in sys.modules:
                with tempfile.TemporaryDirectory() as folder:
                    logger.log_table(key, *_with_media(rows, Path(folder)), step=step)
            elif callable(getattr(writer := getattr(logger, "experiment", None), "add_image", None)):
                room = _TAGS
                for one in findings:
                    strips = _strips([row for row in one["rows"] if row.get("content")])
                    room -= len(strips)
                    if room < 0:
                        break
                    _write(writer, f"{key}/{re.sub(r'[^0-9A-Za-z-]+', '_', one['message']).strip('_')}", strips, step)
        except Exception as error:
            name = type(logger).__name__
            warnings.warn(f"{name} did not take the samples of {stage}: {_said(error)}", stacklevel=2)


def _strips(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What samples were and hold, side by side: a text, and for each modality one image or sound; none of no rows."""
    said, media = [], defaultdict(list)
    for row in rows:
        parts = [f"{row['number']} was {row['target']}, said {row['prediction']}"]
        parts += (f"{name}: {answer}" for name, answer in row["coalitions"].items())
        for name, value in row["content"].items():
            value = small(value)
            if isinstance(value, str):
                parts.append(f"{name}: {value}")
            elif isinstance(value, Sound | np.ndarray):
                media[name].append(value)
        said.append("; ".join(parts))
    strips: dict[str, Any] = {"answers": "\n\n".join(said)} if said else {}
    for name, values in media.items():
        if isinstance(values[0], Sound):
            rate = values[0].rate
            tracks = [
                np.pad(one.first, (0, rate // 4)) for one in values if isinstance(one, Sound) and one.rate == rate
            ]
            strips[name] = values[0]._replace(first=np.concatenate(tracks))
        else:
            images = [one for one in values if isinstance(one, np.ndarray)]
            high = max(map(len, images))
            frames = [((0, high - len(one)), (0, 4), (0, 0)) for one in images]
            padded = [np.pad(one, at, constant_values=255) for one, at in zip(images, frames, strict=True)]
            strips[name] = np.concatenate(padded, axis=1)
    return strips


def _write(writer: Any, tag: str, content: Mapping[str, Any], step: int) -> None:
    """A finding's strips to TensorBoard."""
    for name, value in content.items():
        if isinstance(value, str):
            writer.add_text(f"{tag}/{name}", value, step)
        elif isinstance(value, Sound):
            writer.add_audio(f"{tag}/{name}", value.first[None] / 32768, step, sample_rate=value.rate)
        elif isinstance(value, np.ndarray):
            writer.add_image(f"{tag}/{name}", value, step, dataformats="HWC")


def _with_media(rows: list[tuple[str, int, Mapping[str, Any]]], folder: Path) -> tuple[list[str], list[list[Any]]]:
    """The columns and rows of a table of Weights & Biases; sounds are written to a folder for it to take."""
    wandb = sys.modules["wandb"]

    def media(value: Any) -> Any:
        if isinstance(value, Sound):
            path = folder / f"{len(list(folder.iterdir()))}.wav"
            path.write_bytes(wav(value))
            return wandb.Audio(str(path))
        return wandb.Image(value) if isinstance(value, np.ndarray) else value if isinstance(value, str) else None

    answers = list(dict.fromkeys(name for *_, row in rows for name in row["coalitions"]))
    held = list(dict.fromkeys(modality for *_, row in rows for modality in row["content"]))
    table = []
    for message, _, row in rows:
        told = [message, *(str(row[key]) for key in ("number", "target", "prediction"))]
        told += [row["coalitions"].get(name) for name in answers]
        table.append([*told, *(media(small(row["content"].get(modality))) for modality in held)])
    return ["finding", "sample", "target", "prediction", *(f"shown {name}" for name in answers), *held], table


def _takes_pictures(logger: Any) -> bool:
    experiment = getattr(logger, "experiment", None)
    takes = (callable(getattr(experiment, name, None)) for name in ("add_image", "add_figure", "log_figure"))
    return callable(getattr(logger, "log_image", None)) or any(takes)


def _send(
    logger: Any, images: Callable[[], Any], painted: Callable[[], Any], told: Tables, stage: str, step: int, folder: Any
) -> None:
    key = f"{stage}/modality"
    if callable(getattr(logger, "log_image", None)):  # Weights & Biases
        for name, image in images().items():
            logger.log_image(f"{key}/{name}", [image], step=step)
        if callable(getattr(logger, "log_table", None)):
            logger.log_table(f"{key}/scores", *_scores(told), step=step)
        return
    experiment = getattr(logger, "experiment", None)
    takers = (getattr(experiment, name, None) for name in ("add_image", "add_figure", "log_figure"))
    add_image, add_figure, log_figure = takers
    if callable(add_image):  # TensorBoard
        for name, image in images().items():
            add_image(f"{key}/{name}", image, step, dataformats="HWC")
    elif callable(add_figure):  # a writer like it
        for name, figure in painted().items():
            add_figure(f"{key}/{name}", figure, global_step=step)
    elif callable(log_figure) and "run_id" in inspect.signature(log_figure).parameters:  # MLflow's client
        for name, figure in painted().items():
            log_figure(logger.run_id, figure, f"modality/{stage}/{name}_{step:07d}.png")
        columns, rows = _scores(told)
        table = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        experiment.log_table(logger.run_id, table, f"modality/{stage}/scores_{step:07d}.json")  # type: ignore[union-attr]
    elif callable(log_figure):  # Comet
        for name, figure in painted().items():
            log_figure(f"{key}/{name}", figure, step=step)
    else:
        for name, image in images().items():
            write_whole(Path(folder) / f"{stage}_{name}.png", png(image))


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
