"""`ModalityTrainerCallback`: the monitor in a ``transformers.Trainer``, batch by batch, with no logits gathered.

from mm_metrics.callbacks.huggingface import ModalityTrainerCallback
watcher = ModalityTrainerCallback({"text": ("input_ids", "attention_mask"), "image": "pixel_values"}, num_classes=5)
Trainer(model, args, train_dataset=…, eval_dataset=…, callbacks=[watcher]).train()
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from mm_metrics.callbacks.monitor import ModalityMonitor
from mm_metrics.callbacks.output import Output
from mm_metrics.callbacks.ranks import gathered
from mm_metrics.callbacks.run import Run
from mm_metrics.callbacks.thresholds import FROM_VALIDATION
from mm_metrics.extras import needed
from mm_metrics.logging import as_loggers

with needed("transformers", "ModalityTrainerCallback needs transformers"):
    from transformers import TrainerCallback


class ModalityTrainerCallback(TrainerCallback):
    """What `ModalityMonitor` does, for ``transformers.Trainer``; give it as ``Trainer(callbacks=[…])``.

    Takes the monitor's arguments; the target is the batch's ``"labels"``. The model's own forward pass in an evaluation
    is what is counted, and each batch is ablated as it comes. ``evaluate`` counts as ``val``, ``predict`` as ``test``;
    of several evaluation sets each has its name before its keys, ``{name}/val/all/f1``, and its own folder. Keys are in
    what ``evaluate`` returns, a few in the Trainer's logs, and any can be ``metric_for_best_model``. Files lie in
    ``{output_dir}/modality/``; figures and the few keys go to Weights & Biases, MLflow and TensorBoard where
    ``report_to`` names them.

    Raises RuntimeError where the model's forward was not seen, or several devices of one process share the batch.

    >>> watcher = ModalityTrainerCallback({"text": ("input_ids", "attention_mask"), "image": "pixel_values"})
    >>> watcher.monitor.modalities.slices
    ('all', 'text', 'image')
    """

    def __init__(
        self, modalities: Mapping[str, Any], num_classes: int | None = None, *, target: Any = "labels", **arguments: Any
    ) -> None:
        if arguments.get("threshold") == FROM_VALIDATION:  # nobody says before the first batch that it is of a test
            raise ValueError("threshold='val' is for Lightning's Trainer: give the number that card.threshold tells")
        self.monitor = ModalityMonitor(modalities, num_classes, target=target, **arguments)
        self.runs: dict[str, Run] = {"": self.monitor.run}
        self._trainer: Any = _Trainer()
        self._model: Module | None = None
        self._module: Any = None
        self._hooks: list[Any] = []
        self._batch: dict[str, Any] | None = None
        self._begun = self._busy = False
        self._counted = 0
        self._values: dict[str, float] = {}

    # The Trainer's events, in the order they come

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """See the model's batches from here on."""
        if args.n_gpu > 1 and args.world_size == 1:
            raise RuntimeError(
                f"{args.n_gpu} devices of one process would share each batch: launch with torchrun, one process a "
                "device, or set CUDA_VISIBLE_DEVICES"
            )
        self._trainer.args, self._trainer.progress = args, state
        if isinstance(model, Module) and model is not self._model:
            self._attach(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """A run begins."""
        self._trainer.state.fn = "fit"
        self.on_init_end(args, state, control, model)
        self.monitor.on_train_start(self._trainer, self._module)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, model: Any = None, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Predict under every coalition, and count."""
        batch, self._batch = self._batch, None
        if batch is None:
            raise RuntimeError(
                f"the evaluation did not call {type(model).__name__}.forward where ModalityTrainerCallback sees it: "
                "give the callback as Trainer(callbacks=[...]), and the inputs to the model that the Trainer has"
            )
        if not batch:
            return
        self._trainer.progress, self._trainer.loader = state, eval_dataloader
        counter = self.monitor.counter
        counter.unwatch()
        counter.prober.start(self._trainer, self._model)
        self._busy = True
        try:
            with torch.no_grad():
                counter.count(self._trainer, self._module, batch, self._counted, 0)
        finally:
            self._busy = False
        self._counted += 1

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The first that is heard of an evaluation's end: judge, write, and put the few keys among the logs."""
        if not self._counted or logs is None:
            return
        self._conclude(state, next((key[5:-8] for key in logs if key.endswith("_runtime")), ""))
        few = {key: value for key, value in self._module.sent.items() if not math.isnan(value)} | self._best(args)
        logs.update(few)
        if state.log_history:
            state.log_history[-1].update(few)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Put every key among the metrics."""
        if self._counted:
            self._conclude(state)
        if not self._values:
            return
        if metrics is not None:
            metrics.update(self._values | self._best(args))
        self._values = {}
        if self._trainer.state.fn == "validate":
            self.monitor.on_validation_end(self._trainer, self._module)
        control.should_training_stop |= self._trainer.should_stop

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """The same after ``predict``, as ``test``."""
        if not self._counted:
            return
        self._trainer.testing = True
        try:
            self._conclude(state)
            self.monitor.on_test_end(self._trainer, self._module)
        finally:
            self._trainer.testing = False
        if metrics is not None:
            metrics.update(self._values)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print the table, write the report."""
        self._trainer.progress = state
        for run in self.runs.values():
            self.monitor.run = run
            self.monitor.on_fit_end(self._trainer, self._module)
        self._trainer.state.fn = "validate"

    # What they do

    def _attach(self, model: Module) -> None:
        for hook in self._hooks:
            hook.remove()
        self._model = model
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, always_call=True),
        ]
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self._module = type(type(model).__name__, (_Module,), {})(device)  # its name is what the card says was run
        self.monitor.setup(self._trainer, self._module, "fit")
        self.runs = {"": self.monitor.run}

    def _before(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward pass of the model: keep its batch, and watch its encoders where it is an evaluation's."""
        if self._busy:
            return
        batch = kwargs
        if args:
            batch = dict(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
        counter = self.monitor.counter
        if module.training:
            counter.train_batch(self._trainer, cast(Any, module), batch)
            return
        self._module.device = next((x.device for x in batch.values() if isinstance(x, Tensor)), self._module.device)
        if not self._begun:
            self._begun = True
            counter.begin(self._trainer)
        target = counter.watched.target
        if isinstance(target, str) and batch.get(target) is None:  # as in a prediction of what nobody has labelled
            self._batch = {}
            counter.say(f"batches without {target!r} are not counted: target= names the entry that holds it")
            return
        self._batch = batch
        counter.watch(batch, self._counted, 0)

    def _after(self, module: Module, args: tuple[Any, ...], output: Any) -> None:
        """After it: watch no longer, for nobody says whether the pass was one of an evaluation."""
        if not self._busy:
            self.monitor.counter.unwatch()

    def _conclude(self, state: Any, name: str = "") -> None:
        """An evaluation has ended; `name` is its data set's, where there are several."""
        name = name.lstrip("_")
        trainer, monitor = self._trainer, self.monitor
        trainer.progress = state
        monitor.run = self.runs.get(name) or self._run(name)
        self._module.values, self._module.sent = {}, {}
        trainer.loggers = [SimpleNamespace(), *self._reporters()]  # the first stands for the Trainer's own logs
        monitor.on_validation_epoch_end(trainer, self._module)
        prefix = f"{name}/" if name else ""
        self._values = {f"{prefix}{key}": value for key, value in self._module.values.items()}
        self._module.sent = {f"{prefix}{key}": value for key, value in self._module.sent.items()}
        for logger in trainer.loggers[1:]:
            logger.log_metrics(self._module.sent, step=state.global_step)
        self._begun, self._counted = False, 0

    def _run(self, name: str) -> Run:
        first = self.runs[""]
        run = self.runs[name] = copy.copy(first)
        run.forget()
        assert first.output is not None
        run.output = Output(first.output.folder.parent / name, first.say, first.output.enabled)
        return run

    def _best(self, args: Any) -> dict[str, float]:
        """The key that the Trainer looks for where it chooses the best model, which starts with ``eval_``."""
        wanted = args.metric_for_best_model or ""
        value = self._values.get(wanted.removeprefix("eval_"))
        return {} if value is None else {f"eval_{wanted.removeprefix('eval_')}": value}

    def _reporters(self) -> list[Any]:
        args, targets = self._trainer.args, []
        if self._trainer.is_global_zero:
            targets = [
                sys.modules[name] for name in ("wandb", "mlflow") if name in args.report_to and name in sys.modules
            ]
            if "tensorboard" in args.report_to:
                if self._writer is None:
                    from torch.utils.tensorboard import SummaryWriter

                    self._writer = SummaryWriter(str(Path(args.output_dir) / "modality" / "tensorboard"))
                targets.append(self._writer)
        return [logger for target in targets for logger in as_loggers(target)]

    _writer: Any = None


class _Module:
    """What the monitor asks of Lightning's module: a device, and to take what is logged."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.values: dict[str, float] = {}
        self.sent: dict[str, float] = {}

    def log(self, key: str, value: Any, *, logger: bool, **_: Any) -> None:
        self.values[key] = float(value.compute())
        if logger:
            self.sent[key] = self.values[key]


class _Trainer:
    """What the monitor asks of Lightning's Trainer, answered from that of transformers."""

    num_val_batches = num_test_batches = (1,)
    limit_val_batches, sanity_checking, testing, log_dir, datamodule = 1, False, False, None, None

    def __init__(self) -> None:
        self.args: Any = None
        self.progress: Any = None  # transformers' TrainerState
        self.loader: Any = None
        self.callbacks: list[Any] = []
        self.loggers: list[Any] = []
        self.state = SimpleNamespace(fn="validate")
        self.should_stop = False
        self.strategy = _Ranks()
        self.precision_plugin = SimpleNamespace(forward_context=nullcontext)

    is_global_zero = property(lambda self: self.args.process_index == 0)
    global_rank = property(lambda self: self.args.process_index)
    world_size = property(lambda self: self.args.world_size)
    default_root_dir = property(lambda self: self.args.output_dir)
    global_step = property(lambda self: self.progress.global_step)
    current_epoch = property(lambda self: max(0, math.ceil(self.progress.epoch or 0) - 1))
    val_dataloaders = test_dataloaders = property(lambda self: self.loader)


class _Ranks:
    """What is asked of Lightning's strategy, on the default process group."""

    @staticmethod
    def broadcast(value: Any) -> Any:
        return gathered(value)[0]
