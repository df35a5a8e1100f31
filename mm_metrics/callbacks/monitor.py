"""`ModalityMonitor`: counts the validation's predictions, ablates them, logs, and says what accuracy hides."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mm_metrics import __version__
from mm_metrics.callbacks.counter import BatchCounter
from mm_metrics.callbacks.logged import log_final
from mm_metrics.callbacks.output import Output
from mm_metrics.logging import logged_keys, summary_keys
from mm_metrics.metrics import ModalityConfusionMatrix
from mm_metrics.modalities import Modalities
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import QualityGate, Verdict


class BadVerdictError(RuntimeError):
    """The run ended with a bad verdict, and ``on_bad="raise"`` asked to be told."""


class ModalityMonitor(Callback):
    """Logs what the model gets right on each modality and what it would lose without it, with a verdict.

    Args:
        modalities: {modality: key or keys of the batch}, the keys being those of a mapping, positions or attributes.
        num_classes: C; read off the first batch's logits where it is left out.
        task: "multiclass", "binary" or "multilabel" (with `num_labels`).
        num_labels: L.
        class_names: for tables and figures.
        target: the batch's key of the target.
        presence: the batch's key of ``(N, M)`` bool, which modalities a sample has; hidden while ablating.
        slices: the batch's key of ``(N, M)`` bool, where a sample counts; by default its presence.
        predict: ``predict(pl_module, batch)`` to logits, or to ``{"all": …, "text": …}``, one head per modality;
            "step": the module's own validation_step, which returns its logits.
        ignore_index: a target that is not counted.
        threshold: of probabilities, in binary and multilabel.
        from_logits: whether predictions are logits in binary and multilabel.
        ablation: "all", "leave_one_out", "single", a list of coalitions, or None for no ablation.
        baseline: what stands in for a hidden modality, see `mm_metrics.ablation`.
        encoders: "auto", None or {modality: module's name}.
        verify: compare an ablation in parts with the whole model at the start of every so many validations, 0: once.
        every_n_epochs: ablate every so many epochs; counts run every epoch.
        max_batches: ablate so many batches of an epoch.
        bootstrap: R, replicates behind the intervals.
        confidence: of intervals in the verdict.
        seed: of the bootstrap weights and of the baseline "shuffle".
        gate: a `QualityGate`; None is the default one.
        on_bad: "warn", "stop" (training, at the first bad validation after the trainer's min_epochs) or "raise"
            (`BadVerdictError`, at the end of the run).
        log: "summary" or "all" to the loggers; every key can be monitored either way.
        log_intervals: log ``…/low`` and ``…/high`` too.
        output_dir: where ``modality/`` is written; by default the logger's folder.

    >>> monitor = ModalityMonitor({"text": "tokens", "image": "pixels"}, num_classes=5)
    >>> monitor.modalities.slices
    ('all', 'text', 'image')
    """

    def __init__(
        self,
        modalities: Mapping[str, Any],
        num_classes: int | None = None,
        *,
        task: str = "multiclass",
        num_labels: int | None = None,
        class_names: list[str] | None = None,
        target: Any = "label",
        presence: Any = None,
        slices: Any = None,
        predict: Callable[[Any, Any], Any] | str | None = None,
        ignore_index: int | None = None,
        threshold: float | list[float] = 0.5,
        from_logits: bool = True,
        ablation: str | list[str] | None = "all",
        baseline: Any = "zero",
        encoders: Any = "auto",
        verify: int = 1,
        every_n_epochs: int = 1,
        max_batches: int | None = None,
        bootstrap: int = 200,
        confidence: float = 0.95,
        seed: int = 0,
        gate: QualityGate | None = None,
        on_bad: str = "warn",
        log: str = "summary",
        log_intervals: bool = False,
        output_dir: str | None = None,
    ) -> None:
        if not isinstance(modalities, Mapping):
            raise TypeError(
                f"modalities maps names to keys of the batch, got {type(modalities).__name__}: write "
                '{"text": ("tokens", "mask"), "image": "pixels"}'
            )
        if gate is not None and not isinstance(gate, QualityGate):
            raise TypeError(f"gate is a QualityGate, got {type(gate).__name__}: write QualityGate(accuracy=(0.5, 0.6))")
        for name, value, known in (("on_bad", on_bad, ("warn", "stop", "raise")), ("log", log, ("summary", "all"))):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not known: one of {', '.join(map(repr, known))}")
        if every_n_epochs < 1 or (max_batches is not None and max_batches < 1):
            raise ValueError(f"every_n_epochs={every_n_epochs}, max_batches={max_batches}: 1 or more")
        self.modalities = Modalities(modalities)
        arguments: dict[str, Any] = {
            "num_classes": num_classes, "task": task, "num_labels": num_labels, "class_names": class_names,
            "threshold": threshold, "from_logits": from_logits, "ignore_index": ignore_index, "bootstrap": bootstrap,
            "seed": seed, "validate_args": False,
        }  # fmt: skip
        if task != "multiclass" or num_classes is not None:
            ModalityConfusionMatrix(self.modalities.names, **arguments)  # refuses what does not fit, before training
        self.counter = BatchCounter(
            {name: tuple(key) if isinstance(key, list) else key for name, key in modalities.items()}, self.modalities,
            () if ablation is None else self.modalities.masks(ablation, seed), arguments,
            target, presence, presence if slices is None else slices, predict, baseline, encoders,
            every_n_epochs, max_batches, self._say, verify,
        )  # fmt: skip
        self.gate = QualityGate(confidence=confidence) if gate is None else gate
        self.on_bad, self.log_level, self.log_intervals, self.output_dir = on_bad, log, log_intervals, output_dir
        self.scorecards: dict[str, Scorecard] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.history: list[dict[str, Any]] = []
        self._output: Output | None = None
        self._said: set[str] = set()
        self._main = True
        self._samples: list[dict[str, Any]] = []

    # Lightning's hooks, in the order they run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the output folder; nothing is made or registered on the module."""
        self._main = trainer.is_global_zero
        folder = self.output_dir if self.output_dir is not None else trainer.log_dir or trainer.default_root_dir
        self._output = Output(folder, self._say, enabled=self._main and not getattr(trainer, "fast_dev_run", False))
        self.counter.detach()
        if stage in ("fit", "validate") and trainer.limit_val_batches == 0:
            self._say("limit_val_batches=0: there is no validation, so there is nothing to count")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where training has no validation."""
        if not trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined():
            self._say("there is no validation loader, so there is nothing to count: give trainer.fit one")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget another run's history: lines that lie after where this one starts."""
        self.history = [line for line in self.history if line["step"] <= trainer.global_step]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the running means of the inputs where they are the baseline."""
        self.counter.train_batch(trainer, pl_module, batch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin counting anew."""
        self.counter.begin(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin counting anew."""
        self.counter.begin(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep what the encoders give while the validation step runs."""
        self.counter.watch(batch_idx, dataloader_idx)

    on_test_batch_start = on_validation_batch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Predict under every coalition, and count."""
        self.counter.count(trainer, pl_module, batch, dataloader_idx, "val")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Predict under every coalition, and count."""
        self.counter.count(trainer, pl_module, batch, dataloader_idx, "test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over ranks, judge, log and write."""
        self._conclude(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over ranks, judge, log and write."""
        self._conclude(trainer, pl_module, "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, write the report."""
        self._finish(trainer, "val")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After ``trainer.validate``: print the table, write the report."""
        if trainer.state.fn == "validate":
            self._finish(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, write the report."""
        self._finish(trainer, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind on the module."""
        self.counter.unwatch()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model: the callback may be copied, pickled or used with another."""
        self.counter.detach()
        for name in ("log", "log_dict"):  # the module's own, which Lightning hangs on every callback
            vars(self).pop(name, None)

    def state_dict(self) -> dict[str, Any]:
        """The history, so that a resumed run goes on with it: plain Python alone, as checkpoints ask for."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.history = []
        if _is_history(state_dict.get("history")):
            self.history = list(state_dict["history"])
        else:
            self._say("the checkpoint's history is not one of this monitor: it starts anew")

    # What the hooks do

    def _conclude(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.sanity_checking:
            return
        batches = trainer.num_val_batches if stage == "val" else trainer.num_test_batches
        samples: list[dict[str, Any]] = []
        for name in [name for name in self.scorecards if name.startswith(stage)]:
            del self.scorecards[name], self.verdicts[name]  # this run may have fewer loaders
        assert self._output is not None
        dynamics = _dynamics(trainer)
        extra = trainer.strategy.broadcast(self._output.leaks(stage) if self._main else [])
        extra += dynamics.measure(trainer, pl_module) if stage == "val" and dynamics is not None else []
        for i in range(len(batches) if isinstance(batches, list) else 1):
            loader = self.counter.loader(trainer, pl_module, stage, i, None)
            name = stage if i == 0 else f"{stage}_{i}"
            card = loader.metric.scorecard(**self._run(trainer, pl_module))
            verdict = card.verdict(self.gate, extra=extra if i == 0 else ())
            self.scorecards[name], self.verdicts[name] = card, verdict
            values = logged_keys(card, verdict, stage, self.log_intervals)
            if not self.counter.due(trainer) and self.counter.head_masks is None:
                values = {
                    key: v for key, v in values.items() if key.split("/")[1] not in ("ablation", "drop", "shapley")
                }
            suffix = "" if i == 0 else f"/dataloader_idx_{i}"
            values = {f"{key}{suffix}": value for key, value in values.items()}
            sent = values if self.log_level == "all" else {f"{key}{suffix}" for key in summary_keys(card, stage)}
            log_final(trainer, pl_module, values, sent, self._say)
            loader.warn_of_probabilities(self._say)
            found = loader.samples.gathered(trainer.strategy.all_gather, pl_module.device)
            weak = {finding.modality for finding in verdict.findings}
            samples += [
                {"stage": name, "epoch": trainer.current_epoch, **row}
                for row in found
                if row["samples"] and (row["kind"] != "missed" or row["modality"] in weak)
            ]
            if trainer.state.fn == "fit":
                self._remember(trainer, values)
        self.counter.end()
        self._samples = [row for row in self._samples if not row["stage"].startswith(stage)] + samples
        cards = {name: card for name, card in self.scorecards.items() if name.startswith(stage)}
        self._output.epoch(cards, self.history, self._samples)
        if (
            self.on_bad == "stop"
            and trainer.state.fn == "fit"
            and any(self.verdicts[name].level == "bad" for name in cards)
        ):
            trainer.should_stop = True

    def _remember(self, trainer: Trainer, values: dict[str, float]) -> None:
        """One line an epoch, loaders together; validations within an epoch have a step of their own."""
        line = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.history and {key: self.history[-1][key] for key in line} == line:
            self.history[-1].update(values)
        else:
            self.history.append({**line, **values})

    def _finish(self, trainer: Trainer, stage: str) -> None:
        assert self._output is not None
        if not any(name.startswith(stage) for name in self.scorecards):
            return
        dynamics = _dynamics(trainer)
        self._output.finish(
            trainer.loggers,
            stage,
            trainer.global_step,
            self.scorecards,
            self.verdicts,
            self.history,
            self._samples,
            [] if dynamics is None else dynamics.history,
        )
        bad = [
            verdict.headline
            for name, verdict in self.verdicts.items()
            if name.startswith(stage) and verdict.level == "bad"
        ]
        if bad and self.on_bad == "raise":
            raise BadVerdictError(" ".join(bad))

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What was run, kept with the scorecard."""
        data, ablation = getattr(trainer, "datamodule", None), self.counter.ablation
        return {
            "model": type(pl_module).__name__,
            "data": "" if data is None else type(data).__name__,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "baseline": self.counter.baseline if isinstance(self.counter.baseline, str) else "custom",
            "ablation": "heads" if self.counter.head_masks else "inputs hidden" if self.counter.masks else "none",
            "encoders": {} if ablation is None else {name: list(found) for name, found in ablation.encoders.items()},
            "versions": {"mm_metrics": __version__, "torch": torch.__version__},
        }

    def _say(self, message: str) -> None:
        """Once per message, on rank zero."""
        if message not in self._said:
            self._said.add(message)
            if self._main:
                warnings.warn(message, stacklevel=3)


def _is_history(lines: Any) -> bool:
    """Whether these are lines of numbers, each of an epoch and a step."""
    return isinstance(lines, list) and all(
        isinstance(line, dict)
        and {"epoch", "step"} <= line.keys()
        and all(isinstance(value, int | float) for value in line.values())
        for line in lines
    )


def _dynamics(trainer: Any) -> Any:
    """The run's `ModalityDynamics`, where it has one."""
    return next((callback for callback in trainer.callbacks if type(callback).__name__ == "ModalityDynamics"), None)
