"""One run of a Trainer as the monitor sees it: what each validation ends with, and what the run ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer

from mm_metrics import __version__
from mm_metrics.callbacks.counter import Counter
from mm_metrics.callbacks.logged import log_final
from mm_metrics.callbacks.mailbox import Mailbox
from mm_metrics.callbacks.output import Output
from mm_metrics.logging import SCORES, logged_keys, summary_keys
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import Finding, QualityGate, Verdict
from mm_metrics.verdict.rules import imprecise

T = TypeVar("T")
_LISTED = ("stage", "epoch", "kind", "modality", "class", "message", "samples")
_ABLATED = ("ablation", "drop", "shapley")  # keys of what a validation without ablation does not know


@dataclass(eq=False)
class Run:
    """The cards, verdicts, history and samples of one run; fields as the attributes of `ModalityMonitor`."""

    gate: QualityGate
    log: str
    log_intervals: bool
    prefix: str  # of every key
    scores: tuple[str, ...]
    headline: str
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin another run."""
        self.scorecards: dict[str, Scorecard] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.history: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []  # the worst of them, as the page takes them
        self.extra: dict[str, list[Finding]] = {}  # findings that did not come from the counts, by stage
        self.output: Output | None = None
        self.box = Mailbox()

    def send(self) -> None:
        """Tell the process that this one was spawned from, if it was, what the run ended with."""
        self.box.send(self._letter)

    def _letter(self) -> dict[str, Any]:
        cards = {name: card.to_json() for name, card in self.scorecards.items()}
        extra = {stage: [list(finding) for finding in found] for stage, found in self.extra.items()}
        return {"cards": cards, "extra": extra, "history": self.history, "samples": self.samples}

    def receive(self) -> Run:
        """This run, with what a spawned process ended with."""
        letter = self.box.receive()
        if letter is not None:
            self.history, self.samples = letter["history"], letter["samples"]
            self.extra = {stage: [Finding(*found) for found in rows] for stage, rows in letter["extra"].items()}
            self.scorecards = {name: Scorecard.from_json(text) for name, text in letter["cards"].items()}
            self.verdicts = {
                name: card.verdict(self.gate, extra=self.extra.get(name, ())) for name, card in self.scorecards.items()
            }
        return self

    def conclude(self, trainer: Trainer, pl_module: LightningModule, stage: str, counter: Counter) -> None:
        """An epoch of `stage` has ended: sum over ranks, judge, log, write."""
        assert self.output is not None
        for name in self.of(stage):
            del self.scorecards[name], self.verdicts[name]  # this run may have fewer loaders
        self.samples, self.shown = (
            [row for row in rows if not row["stage"].startswith(stage)] for rows in (self.samples, self.shown)
        )
        dynamics = _dynamics(trainer)
        checked = (self.output.leaks(stage), self.output.known_group()) if trainer.is_global_zero else ([], None)
        extra, group = trainer.strategy.broadcast(checked)
        extra += dynamics.measure(trainer, pl_module) if stage == "val" and dynamics is not None else []
        self.extra[stage] = extra
        info = {**_info(trainer, pl_module, counter), "headline": self.headline, "scores": list(self.scores)}
        info |= counter.thresholds.info()
        if group is not None and counter.watched.group is None:
            info.setdefault("unused_group", group)
        for i, loader, card, refused in counter.cards(trainer, pl_module, **info):
            name, suffix = (stage, "") if i == 0 else (f"{stage}_{i}", f"/dataloader_idx_{i}")
            if i == 0:
                counter.thresholds.conclude(trainer, card, self.scorecards.get("val"))
            verdict = card.verdict(self.gate, extra=extra if i == 0 else ())
            self.scorecards[name], self.verdicts[name] = card, verdict
            scores = (*self.scores, *card.further) if card.kind.ordinal and self.scores == SCORES else self.scores
            values = logged_keys(card, verdict, stage, self.log_intervals, scores, self.headline)
            values[f"{stage}/refused"] = float(refused.samples)
            if not counter.due(trainer) and counter.prober.heads is None:
                values = {key: value for key, value in values.items() if key.split("/")[1] not in _ABLATED}
            sent = set(values) if self.log == "all" else summary_keys(card, stage, scores, self.headline)
            sent |= {f"{stage}/refused"} if refused.samples else set()
            values = {f"{self.prefix}{key}{suffix}": value for key, value in values.items()}
            log_final(trainer, pl_module, values, {f"{self.prefix}{key}{suffix}" for key in sent}, self.say)
            if told := refused.sentence(name, trainer.current_epoch, card):
                self.say(told)
            loader.warn_of_probabilities(self.say)
            wanted = partial(_wanted, card, verdict.findings)
            found = [
                {"stage": name, "epoch": trainer.current_epoch, **row}
                for row in loader.samples.gathered(card.names, counter.prober.own, wanted)
            ]
            contents = loader.contents.gathered(row["place"] for one in found for row in one["rows"])
            self.shown += [
                one | {"rows": [row | {"content": contents.get(row["place"])} for row in one["rows"]]} for one in found
            ]
            self.samples += [{key: one[key] for key in _LISTED} for one in found if one["samples"]]
            if trainer.state.fn == "fit":
                self._remember(trainer, values)
        counter.end()
        history = self.history if trainer.state.fn == "fit" else None
        self.output.epoch({name: self.scorecards[name] for name in self.of(stage)}, history, self.samples)

    def finish(self, trainer: Trainer, stage: str) -> None:
        """The run has ended: print the table, send the figures, write the page."""
        output, ended = self.output, self.of(stage)
        if output is None or not output.enabled or not ended:
            return
        from mm_metrics.render import console, page, tables
        from mm_metrics.render.loggers import send, send_samples

        told = {
            name: tables.of(card, self.verdicts[name], [row for row in self.samples if row["stage"] == name], name)
            for name, card in self.scorecards.items()
        }
        for name in ended:
            output.attempt("table", console.print_card, told[name], named=len(ended) > 1)
            picture = "summary.png" if name == stage else f"summary_{name}.png"
            where = f"{output.name}/{name}".lstrip("/"), trainer.global_step
            at = {(f.modality, f.class_name): -i for i, f in enumerate(reversed(self.verdicts[name].findings))}
            shown = [one for one in self.shown if one["stage"] == name]  # those of the worst findings first
            shown.sort(key=lambda one, at=at: at.get((one["modality"], one["class"]), 1))  # type: ignore[misc]
            output.attempt("figures", send, trainer.loggers, told[name], *where, output.folder, picture)
            output.attempt("samples", send_samples, trainer.loggers, shown, *where)
        report, dynamics = output.folder / "report.html", _dynamics(trainer)
        more = {"leakage": output.summary(), "dynamics": [] if dynamics is None else dynamics.history}
        output.attempt(report.name, page.write, report, told, history=self.history, shown=self.shown, **more)
        for what, path in (("Scorecard: ", output.folder / f"{stage}.json"), ("Report:    ", report)):
            if path.is_file():
                output.attempt("table", print, f"{what}{path}")

    def of(self, stage: str) -> list[str]:
        """The names of a stage's cards, one a loader."""
        return [name for name in self.scorecards if name.split("_")[0] == stage]

    def bad(self, stage: str) -> list[str]:
        """The headlines of a stage's bad verdicts."""
        return [self.verdicts[name].headline for name in self.of(stage) if self.verdicts[name].level == "bad"]

    def _remember(self, trainer: Trainer, values: dict[str, float]) -> None:
        """One line an epoch, loaders together; validations within an epoch have a step of their own."""
        line = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.history and {key: self.history[-1][key] for key in line} == line:
            self.history[-1].update(values)
        else:
            self.history.append({**line, **values})

    def __getstate__(self) -> dict[str, Any]:
        """Without the folder of a run that is under way."""
        return {**vars(self), "output": None}


def _wanted(card: Scorecard, findings: Sequence[Finding], kind: str, slice: str, name: str | None) -> bool:
    """Whether a kind's samples stand behind a finding; those right only with, or without, a modality always do.

    Behind an F1, and a gap, stand those of the lower one of precision and recall; misses behind every score of a slice.
    """
    if name is not None:
        scores = {finding.score for finding in findings if finding.class_name == name}
        lower = "taken_for" if scores and imprecise(card, name=name) else "missed_class"
        return ("precision" if kind == "taken_for" else "recall") in scores or (
            kind == lower and not scores.isdisjoint(("f1", "unbalanced"))
        )
    scores = {finding.score for finding in findings if finding.modality == slice}
    if kind == "false_alarm":
        return "precision" in scores or (not scores.isdisjoint(("f1", "unbalanced")) and imprecise(card, slice))
    return kind != "missed" or bool(scores)


def _info(trainer: Trainer, pl_module: LightningModule, counter: Counter) -> dict[str, Any]:
    """What was run, kept with the scorecard."""
    data, prober = getattr(trainer, "datamodule", None), counter.prober
    baseline, ablation = counter.watched.baseline, prober.ablation
    info = {
        "model": type(pl_module).__name__,
        "data": "" if data is None else type(data).__name__,
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "baseline": baseline if isinstance(baseline, str) else "custom",
        "ablation": "heads" if prober.heads else "inputs hidden" if counter.watched.masks else "none",
        "encoders": {} if ablation is None else {name: list(found) for name, found in ablation.encoders.items()},
        "versions": {"mm_metrics": __version__, "torch": torch.__version__},
    }
    if counter.unused_group is not None:
        info["unused_group"] = counter.unused_group
    tested = None if trainer.state.fn == "fit" else getattr(trainer, "ckpt_path", None)
    return info | ({} if tested is None else {"checkpoint": str(tested)})


def _dynamics(trainer: Any) -> Any:
    """The run's `ModalityDynamics`, where it has one."""
    return next((callback for callback in trainer.callbacks if type(callback).__name__ == "ModalityDynamics"), None)


def is_history(lines: Any) -> bool:
    """Whether these are lines of numbers, each of an epoch and a step."""
    return isinstance(lines, list) and all(
        isinstance(line, dict)
        and {"epoch", "step"} <= line.keys()
        and all(isinstance(value, int | float) for value in line.values())
        for line in lines
    )


def callbacks_of(trainer: Any, kind: type[T]) -> list[T]:
    """The callbacks of a kind that a Trainer has."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]
