"""`ModalityDynamics`: how fast each modality is learned, and which one is memorised, dominates or is not used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mm_metrics.callbacks import learning
from mm_metrics.callbacks.gradients import EncoderGradients, relative_speeds
from mm_metrics.callbacks.logged import log_final
from mm_metrics.callbacks.prober import Prober, is_sharded
from mm_metrics.callbacks.ranks import Once
from mm_metrics.callbacks.subset import FixedSubset
from mm_metrics.callbacks.truth import rows_of, truth_of
from mm_metrics.callbacks.watched import Watched
from mm_metrics.counts.labels import Reader
from mm_metrics.verdict import Finding


class ModalityDynamics(Callback):
    """Logs, under ``dynamics/{modality}/…``, how each modality is learned; names those that are memorised.

    Measured on a few training samples, always the same, and as many validation samples:

    ``gradient_norm``: of the modality's encoders, the mean over the epoch's steps.
    ``learning_speed``: the sum over steps of their squared gradient norm over their squared parameter norm, and
    ``relative_learning_speed``, the logarithm of it over the mean of the others'.
    ``discrepancy``: how likely it alone makes the true label, over the mean of the others (Peng et al. 2022).
    ``conditional_utilisation/{train,val}``: the share of the accuracy that is lost without it (Wu et al. 2022).
    ``loss/{train,val}``, ``accuracy/{train,val}``: with it alone.
    ``overfitting_to_generalisation``: of these losses, since the first epoch measured (Wang et al. 2020).

    Findings hold where their intervals leave no doubt: ``overfit_modality``, the Shapley value of a modality is higher
    on training samples by more than `gap`, and less than the share `overfit` of it carries over to validation;
    ``dominant_modality``, it has more than the share `dominant` of what was learned; ``unused_modality``, what is lost
    without it and what it gives alone are within ± `unused`.

    Args:
        modalities: {modality: key or keys of the batch}, as in `ModalityMonitor`, whose arguments these are up to
            `encoders`.
        num_classes: C; read off the first logits where it is left out.
        task: "multiclass", "binary" or "multilabel" (with `num_labels`).
        num_labels: L.
        target: the batch's key of the target.
        presence: the batch's key of ``(N, M)`` bool, which modalities a sample has.
        predict: ``predict(pl_module, batch)`` to logits, or to ``{"all": …, "text": …}``, one head per modality.
        ignore_index: a target that is not counted.
        threshold: of probabilities, in binary and multilabel.
        from_logits: whether predictions are logits; else probabilities.
        baseline: what stands in for a hidden modality, see `mm_metrics.ablation`.
        encoders: "auto", None (then no gradients are measured) or {modality: module's name}.
        samples: of each of the two sets of samples.
        every_n_epochs: measure every so many epochs.
        overfit: the share of its worth that a modality is to keep on validation samples.
        gap: the least gap between the two, in accuracy.
        dominant: a share.
        unused: in accuracy.
        confidence: of the intervals behind findings, over all modalities together.
        seed: chooses the samples.

    `history` is one dict an epoch, `findings` those of the last one, `began` the epoch since when each holds.

    >>> dynamics = ModalityDynamics({"text": "tokens", "audio": "waveform"}, num_classes=5)
    >>> dynamics.history, dynamics.findings
    ([], [])
    """

    def __init__(
        self,
        modalities: Mapping[str, Any],
        num_classes: int | None = None,
        *,
        task: str = "multiclass",
        num_labels: int | None = None,
        target: Any = "label",
        presence: Any = None,
        predict: Callable[[Any, Any], Any] | None = None,
        ignore_index: int | None = None,
        threshold: float | list[float] = 0.5,
        from_logits: bool = True,
        baseline: Any = "zero",
        encoders: Any = "auto",
        samples: int = 256,
        every_n_epochs: int = 1,
        overfit: float = 0.5,
        gap: float = 0.05,
        dominant: float = 0.80,
        unused: float = 0.02,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        if samples < 2 or every_n_epochs < 1:
            raise ValueError(f"samples={samples}, every_n_epochs={every_n_epochs}: 2 or more samples, every 1 or more")
        self.bars = learning.Thresholds(overfit, gap, dominant, unused, confidence)
        for name, value in self.bars._asdict().items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value!r}: expected a fraction in 0…1")
        self.watched = Watched.of(locals())
        self.modalities = self.watched.modalities
        self._say = Once()
        self._prober = Prober(self.watched, self._say)
        self.every_n_epochs, self.samples = every_n_epochs, samples
        self.history: list[dict[str, Any]] = []
        self.findings: list[Finding] = []
        self.began: dict[tuple[str, str], int] = {}
        self._speeds: dict[str, float] = {}
        self._forget()

    def _forget(self) -> None:
        self._prober.forget()
        self._gradients: EncoderGradients | None = None
        self._train: FixedSubset | None = None
        self._val: FixedSubset | None = None
        self._measured: tuple[int, int] | None = None

    # Lightning's hooks, in the order they run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with another run."""
        self._say.main = trainer.is_global_zero
        if stage == "fit":
            self._forget()
        if stage == "fit" and not trainer.global_step:  # a checkpoint's own are loaded after this
            self.history, self.findings, self.began, self._speeds = [], [], {}, {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the training samples, and find the encoders."""
        samples = self.samples
        if getattr(trainer, "fast_dev_run", False):
            samples = min(samples, 16)
        self._train = FixedSubset(samples, self.watched.seed, self._say)
        self._val = FixedSubset(samples, self.watched.seed, self._say)
        loader = trainer.train_dataloader
        if self._train.read(loader, _trained_on(trainer, loader)):
            self._look(trainer, pl_module, next(self._train.batches(trainer, pl_module)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the epoch's mean of gradient norms."""
        if self._gradients is not None:
            self._gradients.restart()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Where the data set can't be read by number: keep the first batches, and find the encoders."""
        assert self._train is not None
        if self._train.wanting:
            if self._prober.ablation is None:
                self._look(trainer, pl_module, batch)
            self._train.keep(batch, len(truth_of(self.watched, batch).target))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Add the gradients' norms, on the device."""
        if self._gradients is not None:
            self._gradients.add(optimizer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first batches where the validation's data set can't be read by number."""
        if trainer.state.fn == "fit" and self._val is not None and dataloader_idx == 0:
            self._val.read(_first(trainer.val_dataloaders))
            if self._val.wanting:
                self._val.keep(batch, len(truth_of(self.watched, batch).target))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        self.measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log where no validation did in this epoch."""
        if self._measured is None or self._measured[0] != trainer.current_epoch:
            self.measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """History, findings and learning speeds: plain Python alone, as checkpoints ask for."""
        if self._gradients is not None:
            self._speeds |= {name: pull.learning_speed for name, pull in self._gradients.read().items()}
        return {
            "history": self.history,
            "findings": [list(finding) for finding in self.findings],
            "began": [[*key, epoch] for key, epoch in self.began.items()],
            "speeds": dict(self._speeds),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with those of a checkpoint."""
        try:
            history = [{**row, "epoch": int(row["epoch"])} for row in state_dict["history"]]
            findings = [Finding(*finding) for finding in state_dict["findings"]]
            began = {(str(kind), str(modality)): int(epoch) for kind, modality, epoch in state_dict["began"]}
            speeds = {str(name): float(speed) for name, speed in state_dict["speeds"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            self._say("the checkpoint's history is not one of this callback: it starts anew")
        else:
            self.history, self.findings, self.began, self._speeds = history, findings, began, speeds

    # What the hooks do

    def measure(self, trainer: Trainer, pl_module: LightningModule) -> list[Finding]:
        """Measure and log, once a step, while fitting and where the epoch is due; the findings as they then stand.

        Another callback may ask at the end of a validation, on every rank, without minding whose turn comes first.
        """
        now = (trainer.current_epoch, trainer.global_step)
        due = trainer.state.fn == "fit" and not trainer.sanity_checking and now[0] % self.every_n_epochs == 0
        if not due or now == self._measured or self._prober.ablation is None or self._train is None:
            return self.findings
        self._measured = now
        train = self._seen(trainer, pl_module, self._train)
        val = None
        if self._val is not None and trainer.val_dataloaders is not None:
            self._val.read(_first(trainer.val_dataloaders))
            val = self._seen(trainer, pl_module, self._val)
        row: dict[str, Any] = {}
        found: list[Finding] = []
        if train is not None:
            row = self._row(train, val, now[0])
            found = learning.findings(train, val, self.bars, now[0], self.began)
        row = {key: value for key, value in (row | self._pulls()).items() if math.isfinite(value)}
        row, found = trainer.strategy.broadcast((row, found))  # what rank zero measured is what all say
        self._remember(now[0], row, found)
        log_final(trainer, pl_module, row, row, self._say)
        return self.findings

    def _look(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Find the encoders before the first step."""
        assert self._train is not None
        ablation = self._prober.start(trainer, pl_module)
        if ablation.wants_means:
            for one in self._train.batches(trainer, pl_module):
                ablation.add_to_means(one)
            ablation.use_means()
        if self.watched.encoders is None or is_sharded(trainer.strategy):
            return
        found = self._prober.encoders(pl_module, batch)
        missing = [name for name in self.modalities if name not in found]
        if missing:
            self._say(
                f"no encoder of {', '.join(missing)} was found, so their gradients are not measured: name them, "
                f"encoders={{{missing[0]!r}: 'module.name'}}"
            )
        self._gradients = EncoderGradients(found, self._speeds) if found else None

    def _seen(self, trainer: Trainer, pl_module: LightningModule, subset: FixedSubset) -> learning.Seen | None:
        """Every sample under every coalition; None without samples."""
        parts = []
        for batch in subset.batches(trainer, pl_module):
            shown, truth = self._prober(batch), truth_of(self.watched, batch)
            parts.append(rows_of(self.watched, shown, truth, None, shown.preds.shape[1]).to("cpu"))
        if not parts:
            return None
        assert self._prober.ablation is not None
        self._prober.ablation.forget()
        return learning.seen(self.modalities, shown.rows, Reader(**self.watched.reading(parts[0].preds)), parts)

    def _row(self, train: learning.Seen, val: learning.Seen | None, epoch: int) -> dict[str, float]:
        row = {f"{name}/discrepancy": value for name, value in learning.discrepancy(train).items()}
        for split, seen in (("train", train), ("val", val)):
            if seen is None:
                continue
            for m, (name, share) in enumerate(zip(self.modalities, seen.utilisation(), strict=True)):
                row[f"{name}/conditional_utilisation/{split}"] = share
                row[f"{name}/loss/{split}"] = -seen.alone(seen.likelihood, m)
                row[f"{name}/accuracy/{split}"] = seen.alone(seen.right, m)
        row = {f"dynamics/{key}": value for key, value in row.items()}
        first = next((old for old in self.history if old["epoch"] < epoch), {})
        for name in self.modalities:
            keys = [f"dynamics/{name}/loss/{split}" for split in ("train", "val")]
            if all(key in row and key in first for key in keys):
                losses = [where[key] for where in (row, first) for key in keys]
                ratio = learning.overfitting_to_generalisation(*losses)
                row[f"dynamics/{name}/overfitting_to_generalisation"] = ratio
        return row

    def _pulls(self) -> dict[str, float]:
        pulls = {} if self._gradients is None else self._gradients.read()
        row = {f"dynamics/{name}/{key}": value for name, pull in pulls.items() for key, value in pull._asdict().items()}
        speeds = relative_speeds({name: pull.learning_speed for name, pull in pulls.items()})
        return row | {f"dynamics/{name}/relative_learning_speed": value for name, value in speeds.items()}

    def _remember(self, epoch: int, row: dict[str, float], found: list[Finding]) -> None:
        """One row an epoch, of its last validation; a finding's epoch is that since when it holds without a break."""
        self.history = [old for old in self.history if old["epoch"] != epoch]
        self.history.append({"epoch": epoch, **row})
        self.began = {(f.kind, f.modality): self.began.get((f.kind, f.modality), epoch) for f in found}
        self.findings = found


def _first(loaders: Any) -> Any:
    """The first of several loaders."""
    while isinstance(loaders, Mapping | list | tuple) and loaders:
        loaders = next(iter(loaders.values())) if isinstance(loaders, Mapping) else loaders[0]
    return loaders


def _trained_on(trainer: Trainer, loader: Any) -> int | None:
    """How many of the data set's first samples are trained on, where only the first are."""
    size, batches = getattr(loader, "batch_size", None), trainer.num_training_batches
    sampler = getattr(loader, "sampler", None)
    in_order = type(sampler).__name__ == "SequentialSampler" or getattr(sampler, "shuffle", True) is False
    if not in_order or size is None or batches == float("inf"):
        return None
    return int(batches) * size * trainer.world_size
