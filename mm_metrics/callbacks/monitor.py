"""`ModalityMonitor`: counts the validation's predictions, ablates them, logs, and says what accuracy hides."""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mm_metrics.callbacks.arguments import check
from mm_metrics.callbacks.auto import Auto, without_auto
from mm_metrics.callbacks.contents import showers
from mm_metrics.callbacks.counter import Counter, stage_of
from mm_metrics.callbacks.output import Output, folder_of
from mm_metrics.callbacks.ranks import Once, shared
from mm_metrics.callbacks.run import Run, callbacks_of, is_history
from mm_metrics.callbacks.thresholds import FROM_VALIDATION, Thresholds
from mm_metrics.callbacks.watched import Watched
from mm_metrics.counts.plan import MAX_BYTES
from mm_metrics.logging import SCORES
from mm_metrics.metrics import ModalityConfusionMatrix
from mm_metrics.scorecard import Scorecard
from mm_metrics.tasks import task_of
from mm_metrics.verdict import QualityGate, Verdict

_SUFFIX = re.compile(r"_(macro|micro|weighted|binary)$")  # a score's name may carry its average


class BadVerdictError(RuntimeError):
    """The run ended with a bad verdict, and ``on_bad="raise"`` asked to be told."""


class ModalityMonitor(Callback):
    """Logs what the model gets right on each modality and what it would lose without it, with a verdict.

    Args:
        modalities: {modality: key or keys of the batch}, the keys being those of a mapping, positions or attributes.
        num_classes: C; read off the first batch's logits where it is left out.
        task: "multiclass", "binary", "multilabel" (with `num_labels`) or "ordinal" (with `edges`).
        num_labels: L.
        class_names: for tables and figures.
        target: the batch's key of the target, or a function of the batch; ``(N, T)`` beside logits ``(N, T, C)``, and
            maps ``(N, H, W)`` beside ``(N, C, H, W)``, count positions, in groups of their sample.
        presence: the batch's key of ``(N, M)`` bool, which modalities a sample has; hidden while ablating.
        slices: the batch's key of ``(N, M)`` bool, where a sample counts; by default its presence.
        predict: ``predict(pl_module, batch)`` to logits, or to ``{"all": …, "text": …}``, one head per modality;
            "step": the module's own validation_step, which returns its logits.
        ignore_index: a target that is not counted.
        threshold: of probabilities, in binary and multilabel; "val": the test is cut, label by label, where the
            headline score (or F1) was best in the last validation of its weights, and validation itself at .5.
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
        name: of one of several monitors in a Trainer: keys begin with it, files lie in ``modality/{name}/``.
        unit: the batch's key of what rows of equal value belong to, such as a video: they are one sample, whose logits
            are summed, in whichever batch and on whichever rank they come.
        on_bad_values: "count" samples that can't be scored as misses of their class, and say so once an epoch, or
            "raise" at the first.
        max_bytes: a bound on the counts of a loader.
        group: the batch's key of what samples that are not independent have in common, such as a speaker.
        by: ``{the batch's key: its values}``, or n for the codes 0…n-1: slices such as ``language/de``. Without a key:
            ``{"loudness": "auto"}``, one of length, brightness, sharpness, loudness, snr, duration, of a modality's
            input (``"audio.loudness"`` where several could have it), in thirds of the first validation: slices
            ``loudness/low``, ``middle``, ``high``; and missing, how many modalities a sample lacks. See
            `mm_metrics.properties`.
        scores: what is logged of every slice; by default accuracy, precision, recall and F1.
        headline: the score that drops and Shapley values speak of, beside accuracy: F1, of an ordinal task MAE.
        bins: of the histograms that AUROC and its like come from.
        edges: of an ordinal task, see `mm_metrics.CoalitionConfusionMatrix`.
        extract: of a `predict` that answers in words, which `class_names` tells apart: a regular expression, or a
            function, for the part that names a class; an answer that is none of them is a miss.
        sample_axis: the axis of samples by modality or key, ``{"audio": 1}``, where it is not the first.
        samples: "all" writes every sample's answers to ``{stage}.samples.parquet``.
        show: {modality: a function from a sample's entry, a tuple of several keys, to text, an image ``(H, W, 3)`` or
            ``(waveform, rate)``}: the worst ten samples of each finding, on the page and in loggers that take media;
            "auto" shows what is plainly one of these, None no content.
        report: whether the end of a run prints the table, draws the figures and writes the page.

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
        threshold: float | list[float] | str = 0.5,
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
        name: str | None = None,
        unit: Any = None,
        on_bad_values: str = "count",
        max_bytes: int = MAX_BYTES,
        report: bool = True,
        group: Any = None,
        by: Mapping[str, Any] | None = None,
        scores: Sequence[str] | None = None,
        headline: str | None = None,
        bins: int = 512,
        edges: Any = None,
        sample_axis: Mapping[str, int] | None = None,
        samples: str | None = None,
        show: Mapping[str, Callable[[Any], Any]] | str | None = None,
        extract: str | Callable[[str], Any] | None = None,
    ) -> None:
        headline = ("mae" if task_of(task).ordinal else "f1") if headline is None else headline
        given = dict(locals())
        check(given)
        carried = threshold == FROM_VALIDATION
        self.watched = Watched.of(given | {"by": without_auto(by), "threshold": 0.5 if carried else threshold})
        self._say = Once()
        self.auto = Auto(by, self.watched, self._say)
        given["by"] = self.auto.by
        self.modalities = self.watched.modalities
        metric = {name: given[name] for name in ("class_names", "bootstrap", "seed", "max_bytes", "bins", "by")}
        scores = tuple(SCORES if scores is None else scores)
        kept = (*scores, headline, *["auroc"] * carried)  # a threshold is chosen from the histograms of rankings
        metric["scores"] = tuple(dict.fromkeys(_SUFFIX.sub("", score) for score in kept))
        if num_classes is not None or not task_of(task).by_class:  # refuse before training what does not fit
            reading = self.watched.reading()
            with warnings.catch_warnings(action="ignore"):  # what max_bytes leaves out is said as batches are counted
                one = ModalityConfusionMatrix(self.modalities, task=reading.pop("kind"), **reading, **metric)
            card = one.scorecard()
            for score in (*scores, headline, *(gate.scores if gate else ())):
                card.named(score)
        shown = showers(show, self.modalities.names)
        self.gate = QualityGate(confidence=confidence) if gate is None else gate
        self.name, self.samples, self.on_bad, self.output_dir, self.report = name, samples, on_bad, output_dir, report
        self.thresholds = Thresholds(carried, task_of(task), headline, self.state_key, self._say)
        more = self.thresholds, self.auto, shown, self._say
        self.counter = Counter(self.watched, metric, every_n_epochs, max_batches, on_bad_values == "count", *more)
        self.run = Run(self.gate, log, log_intervals, f"{name}/" if name else "", scores, headline, self._say)
        self._trainer: weakref.ref[Trainer] | None = None  # whose run this is

    @property
    def scorecards(self) -> dict[str, Scorecard]:
        """The last card of each loader: ``val``, ``val_1``, …, ``test``, …."""
        return self.run.receive().scorecards

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each of `scorecards`."""
        return self.run.receive().verdicts

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, a line a validation of a fit."""
        return self.run.receive().history

    # Lightning's hooks, in the order they run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the output folder, and forget another Trainer's run; nothing is made or registered on the module."""
        names = [monitor.name for monitor in callbacks_of(trainer, ModalityMonitor)]
        if names.count(self.name) > 1:
            raise ValueError(
                f"two ModalityMonitors of one Trainer have name={self.name!r} and would log the same keys: give each "
                "its own, ModalityMonitor(..., name='emotion')"
            )
        self._say.main = trainer.is_global_zero
        if self._trainer is not None and self._trainer() is not trainer:
            self.run.forget()
            self._say.said.clear()
            if stage == "fit":  # a test in another Trainer may follow a fit, and be cut where that was
                self.auto.cuts = {}
                self.thresholds.load(None)
        self._trainer = weakref.ref(trainer)
        folder = folder_of(trainer) if self.output_dir is None else self.output_dir
        writes = not getattr(trainer, "fast_dev_run", False)
        self.run.output = Output(folder, self._say, writes and self._say.main, self.name)
        self.counter.detach()
        self.counter.books = shared(self.run.output.folder) if self.samples and writes else None
        if stage in ("fit", "validate") and trainer.limit_val_batches == 0:
            self._say("limit_val_batches=0: there is no validation, so there is nothing to count")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where training has no validation."""
        if not trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined():
            self._say("there is no validation loader, so there is nothing to count: give trainer.fit one")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget another run's history: lines that lie after where this one starts."""
        self.run.history = [line for line in self.history if line["step"] <= trainer.global_step]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the running means of the inputs where they are the baseline."""
        self.counter.train_batch(trainer, pl_module, batch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin counting anew."""
        self.counter.begin(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read the truth, and keep what the encoders give while the validation step runs."""
        self.counter.watch(batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Predict under every coalition, and count."""
        for monitor in callbacks_of(trainer, ModalityMonitor):  # the answers that one asks for are none of the step's
            monitor.counter.unwatch()
        self.counter.count(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over ranks, judge, log and write."""
        if trainer.sanity_checking:
            return
        stage = stage_of(trainer)
        self.run.conclude(trainer, pl_module, stage, self.counter)
        if self.on_bad == "stop" and trainer.state.fn == "fit" and self.run.bad(stage):
            trainer.should_stop = True

    on_test_epoch_start, on_test_epoch_end = on_validation_epoch_start, on_validation_epoch_end
    on_test_batch_start, on_test_batch_end = on_validation_batch_start, on_validation_batch_end

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
        """Leave nothing behind, on the module or half written."""
        self.counter.detach()
        if self._say.main:
            self.run.send()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model: the callback may be copied, pickled or used with another."""
        self.counter.detach()
        if self._say.main:
            self.run.send()
        for name in ("log", "log_dict"):  # the module's own, which Lightning hangs on every callback
            vars(self).pop(name, None)

    @property
    def state_key(self) -> str:
        """Under which a checkpoint keeps the history: apart for each name."""
        return type(self).__qualname__ if self.name is None else self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """The history, so that a resumed run goes on with it: plain Python alone, as checkpoints ask for."""
        return {"history": self.history, "threshold": self.thresholds.chosen, **self.auto.info()}

    # Lightning refuses a second callback of one key, in words that name no way out; `setup` has better ones.
    state_dict.__wrapped__ = Callback.state_dict  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.thresholds.load(state_dict.get("threshold"))
        self.auto.load(state_dict.get("cuts"))
        known = is_history(state_dict.get("history"))
        self.run.history = list(state_dict["history"]) if known else []
        if not known:
            self._say("the checkpoint's history is not one of this monitor: it starts anew")

    # What the hooks do

    def _finish(self, trainer: Trainer, stage: str) -> None:
        if self.report:
            self.run.finish(trainer, stage)
        if self.on_bad == "raise" and (bad := self.run.bad(stage)):
            raise BadVerdictError(" ".join(bad))

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a run that is under way."""
        return {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")} | {"_trainer": None}
