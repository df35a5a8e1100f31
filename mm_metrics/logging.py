"""A scorecard to the keys that are logged, and to any logger or writer, with or without Lightning.

for epoch in range(epochs):
    ...  # train, then validate into a CoalitionConfusionMatrix
    log_card(SummaryWriter("runs"), metric.scorecard(), "val", step=epoch)  # or a W&B run, mlflow, "scores.csv"
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mm_metrics.files import write_whole
from mm_metrics.render import loggers
from mm_metrics.scorecard import Estimate, Scorecard
from mm_metrics.verdict import QualityGate, Verdict

SCORES = ("accuracy", "precision", "recall", "f1")  # of every slice, unless others are asked for
_ODD = re.compile(r"[^\w .:-]")
_OF_CLASS, _CLASSES_UP_TO = ("precision", "recall", "f1"), 50


def log_card(
    logger_or_writer: Any,
    card: Scorecard,
    stage: str,
    step: int,
    *,
    gate: QualityGate | None = None,
    log: str = "summary",
    log_intervals: bool = False,
    figures: bool = True,
) -> None:
    """Log a scorecard's numbers, and its pictures where they are taken, to whatever a loop logs to.

    In a loop of several processes it is to be called on the first alone.

    Args:
        logger_or_writer: TensorBoard's ``SummaryWriter``; a run of Weights & Biases or ``wandb`` itself; ``mlflow``
            itself, one of its runs, or ``(client, run_id)``; an ``Accelerator``, a ``Fabric`` or a Trainer of
            Lightning; any logger of theirs; the path of a CSV file, which gets one row a step; or a list of these.
        card: the `Scorecard`.
        stage: the keys' first part, such as "val".
        step: the step that the numbers belong to.
        gate: the bars of the verdict; None is the default gate.
        log: "summary" (the whole, recall and F1 of each modality, drops, the verdict) or "all" keys.
        log_intervals: log ``…/low`` and ``…/high`` too.
        figures: whether pictures are drawn for a target that takes them.

    Raises TypeError for a target that takes no numbers.

    >>> import pathlib, tempfile, torch
    >>> from mm_metrics import ModalityConfusionMatrix
    >>> metric = ModalityConfusionMatrix(("text", "audio"), num_classes=2)
    >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    >>> path = tempfile.mkdtemp() + "/scores.csv"
    >>> log_card(path, metric.scorecard(), "val", step=7)
    >>> pathlib.Path(path).read_text()[:25]
    'step,val/all/accuracy,val'
    """
    if log not in ("summary", "all"):
        raise ValueError(f"log={log!r} is not known: 'summary' or 'all'")
    values = logged_keys(card, card.verdict(gate), stage, log_intervals)
    if log == "summary":
        kept = summary_keys(card, stage)
        values = {key: value for key, value in values.items() if key in kept}
    for logger in as_loggers(logger_or_writer):
        logger.log_metrics(values, step=step)
        if callable(save := getattr(logger, "save", None)):  # Lightning's CSVLogger writes when its Trainer says so
            save()
        if figures:
            loggers.send([logger], card, stage, step, None)


def logged_keys(
    card: Scorecard,
    verdict: Verdict,
    stage: str,
    intervals: bool = False,
    scores: Sequence[str] = SCORES,
    headline: str = "f1",
) -> dict[str, float]:
    """``{key: value}`` of everything the monitor logs, ``…/low`` and ``…/high`` among it where `intervals`.

    `scores` are those of every slice; `headline` is, beside accuracy, that of coalitions, drops and Shapley values.

    >>> import torch
    >>> from mm_metrics import ModalityConfusionMatrix
    >>> metric = ModalityConfusionMatrix(("text", "audio"), num_classes=2)
    >>> metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    >>> card = metric.scorecard()
    >>> logged_keys(card, card.verdict(), "val")["val/text/accuracy"]
    0.5
    """
    told: dict[str, Estimate | float] = {}
    for slice in card.slices:
        for score in scores:
            told[f"{slice}/{score}"] = (card.estimate if intervals else card.score)(score, None, slice)
    if len(card.coalitions) > 1:
        for score in dict.fromkeys(("accuracy", headline)):
            values = card.values(score).tolist()
            for coalition in card.coalitions:
                value = card.estimate(score, coalition) if intervals else values[card.row(coalition)]
                told[f"ablation/{coalition}/{score}"] = value
            for modality, given in card.contributions(score).items():
                told |= {f"drop/{modality}/{score}": given.drop, f"shapley/{modality}/{score}": given.shapley}
    if len(card.names) <= _CLASSES_UP_TO and card.knows("recall"):
        for score in _OF_CLASS:
            for name, value in (card.class_estimates if intervals else card.class_scores)(score).items():
                # A name is anybody's, and trackers take few letters.
                told[f"class/{_ODD.sub('_', name)}/{score}"] = value
    plain: dict[str, float] = {f"{slice}/support": card.support(slice) for slice in card.slices if slice != "all"}
    for key, value in told.items():
        plain[key], *ends = value if isinstance(value, Estimate) else (value, math.nan, math.nan)
        if intervals:
            plain[f"{key}/low"], plain[f"{key}/high"] = ends
    plain["verdict"] = verdict.number
    return {f"{stage}/{key}": float(value) for key, value in plain.items()}


def summary_keys(card: Scorecard, stage: str, scores: Sequence[str] = SCORES, headline: str = "f1") -> set[str]:
    """The few that the loggers get by default: the whole; recall and headline per modality; its drop; the verdict.

    The bounds of each are among them, for whoever logs intervals.
    """
    keys = {f"all/{score}" for score in scores} | {"verdict"}
    for modality in card.modalities:
        keys |= {f"{modality}/recall", f"{modality}/{headline}", f"drop/{modality}/{headline}"}
    return {f"{stage}/{key}{end}" for key in keys for end in ("", "/low", "/high")}


def as_loggers(target: Any) -> list[Any]:
    """The target as what takes numbers and pictures the way that Lightning's loggers do."""
    if isinstance(target, str | os.PathLike):
        return [SimpleNamespace(log_metrics=lambda values, step: _write_row(Path(target), values, step))]
    if isinstance(several := getattr(target, "loggers", target), list):  # a Trainer's or Fabric's, or as they are
        return [logger for one in several for logger in as_loggers(one)]
    home = (getattr(target, "__name__", None) or type(target).__module__).split(".")[0]
    if home == "accelerate" and isinstance(getattr(target, "trackers", None), list):
        return [logger for tracker in target.trackers for logger in as_loggers(_native(tracker))]
    if home == "wandb" and callable(getattr(target, "log", None)):
        return [_WeightsAndBiases(target.run if isinstance(target, type(sys)) else target)]
    if home == "mlflow" and not callable(getattr(target, "log_batch", None)):
        mlflow = sys.modules["mlflow"]
        run = (mlflow.active_run() or mlflow.start_run()) if target is mlflow else target
        return [_mlflow(mlflow.MlflowClient(), run)]
    if isinstance(target, tuple) and len(target) == 2:
        return [_mlflow(*target)]
    if callable(getattr(target, "log_metrics", None)):
        return [target]
    if callable(add_scalar := getattr(target, "add_scalar", None)):
        return [SimpleNamespace(log_metrics=_each(add_scalar), experiment=target)]
    if callable(getattr(target, "log", None)):  # a tracker of accelerate's, or alike
        return [SimpleNamespace(log_metrics=target.log)]
    raise TypeError(
        f"logger_or_writer is a {type(target).__name__}, which takes no numbers: give a SummaryWriter, a run of wandb, "
        'mlflow or (client, run_id), an Accelerator, a logger of Lightning, or a path such as "scores.csv"'
    )


def _native(tracker: Any) -> Any:
    """What one of accelerate's trackers writes to, where we know it, for it takes pictures; else the tracker."""
    native = getattr(tracker, "tracker", None)
    known = callable(getattr(native, "add_scalar", None)) or type(native).__module__[:5] == "wandb"
    return native if known else tracker


def _each(log: Callable[..., Any]) -> Callable[..., None]:
    def log_metrics(values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            log(key, value, step)

    return log_metrics


def _mlflow(client: Any, run: Any) -> SimpleNamespace:
    run_id = run if isinstance(run, str) else run.info.run_id
    log = _each(lambda key, value, step: client.log_metric(run_id, key, value, step=step))
    return SimpleNamespace(log_metrics=log, experiment=client, run_id=run_id)


class _WeightsAndBiases:
    """A run: it would drop what belongs to a step before its own, so that goes to its own and the step beside it."""

    def __init__(self, run: Any) -> None:
        if run is None:
            raise TypeError("logger_or_writer is wandb without a run: call wandb.init() first")
        self.run = run

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        now = max(step, self.run.step)
        stage = next(iter(values)).partition("/")[0]
        self.run.log({**values, **({f"{stage}/step": step} if now > step else {})}, step=now)

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        pictures = [sys.modules["wandb"].Image(image) for image in images]
        self.run.log({key: pictures}, step=max(step, self.run.step))

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        table = sys.modules["wandb"].Table(columns=columns, data=data)
        self.run.log({key: table}, step=max(step, self.run.step))


def _write_row(path: Path, values: Mapping[str, float], step: int) -> None:
    """Write the row of a step, whose other columns stay as they are; written whole, as every file is."""
    rows: dict[str, dict[str, Any]] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            read = csv.DictReader(file)
            if read.fieldnames and "step" not in read.fieldnames:
                raise ValueError(f"{path} has no column step, so it is no file of log_card: give another path")
            rows = {row["step"]: row for row in read}
    row = rows.setdefault(str(step), {"step": step})
    row.update(values)
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows.values())
    write_whole(path, text.getvalue())
