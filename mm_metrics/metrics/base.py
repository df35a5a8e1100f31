"""What every metric class shares: a `Layout`, its buffer, and how both live through updates and ranks."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from mm_metrics.cells import class_numbers
from mm_metrics.counts.add import add
from mm_metrics.counts.counted import UNCOUNTED
from mm_metrics.counts.labels import Labels, Reader
from mm_metrics.counts.layout import REFUSED
from mm_metrics.counts.measure import measure, needed
from mm_metrics.counts.plan import MAX_BYTES, plan
from mm_metrics.counts.truth import COPY, Truth, as_columns, halved, read_truth
from mm_metrics.modalities import Modalities
from mm_metrics.scorecard import Scorecard
from mm_metrics.uncertainty import stream_key


def all_reduced(counts: Tensor, group: Any = None) -> list[Tensor]:
    """The sum over ranks by one all-reduce, in the form of torchmetrics' ``dist_sync_fn``; memory as on one rank."""
    total = counts.clone()
    dist.all_reduce(total, group=group)
    return [total]


def answered(preds: Tensor, counted: Tensor) -> Tensor:
    """``(K, N, ...)`` with 0 where a coalition is not ``counted`` ``(K, N)``: it did not answer, and may hold NaN."""
    return torch.where(counted.reshape(*counted.shape, *[1] * (preds.ndim - 2)), preds, torch.zeros_like(preds))


class ModalityMetric(Metric):
    """Arguments, counting and syncing; the base of the classes in `mm_metrics.metrics`.

    Args:
        modalities: their names, in the order of every axis M.
        num_classes: C, in multiclass.
        task: "multiclass", "binary" or "multilabel".
        num_labels: L, in multilabel.
        threshold: of probabilities in binary and multilabel, above which is positive; one, or one per label.
        from_logits: whether float predictions in binary and multilabel are logits instead of probabilities.
        ignore_index: a target that is not counted.
        validate_args: whether values are checked in `update` on an accelerator too, which stalls it. On a CPU they
            always are; elsewhere what is wrong is counted apart and refused in `compute`. None, and False, is this.
        coalitions: as `Modalities.masks` takes them; None is the one of all.
        bootstrap: R, the number of replicates that intervals come from.
        seed: of the bootstrap weights; cards with other seeds do not add up.
        shard: tells apart shards that are scored by themselves and whose sample numbers both start at zero.
        max_bytes: a bound on the buffer; how it is kept, see `mm_metrics.counts.layout.plan`.
        class_names: names of classes, or of labels, for tables.
        scores: names of scores beyond those of the confusion that the card is to tell, from ``auroc``,
            ``average_precision``, ``eer``, ``dprime``, ``calibration_error``, ``brier``, ``log_loss``, ``top5``.
        bins: B, of the histograms that rankings come from.
        by: ``{column: its values}``, or an integer n for the codes 0…n-1: slices ``column/value``.
        edges: of an ordinal task: rising numbers that cut the scale into classes, or "mosi".
        extract: of answers in words: a regular expression, or a function, for the part that names a class.
        kwargs: torchmetrics' own.

    Raises TypeError or ValueError for arguments and inputs that do not fit, always naming the argument.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    __jit_unused_properties__: ClassVar[list[str]] = [
        *Metric.__jit_unused_properties__,
        "slices",
        "coalitions",
        "counts",
    ]

    def __init__(
        self,
        modalities: Iterable[str],
        num_classes: int | None = None,
        task: str = "multiclass",
        num_labels: int | None = None,
        *,
        threshold: float | Sequence[float] = 0.5,
        from_logits: bool = False,
        ignore_index: int | None = None,
        validate_args: bool | None = None,
        coalitions: object = None,
        bootstrap: int = 0,
        seed: int = 0,
        shard: int = 0,
        max_bytes: int = MAX_BYTES,
        class_names: Iterable[str] | None = None,
        scores: Iterable[str] = (),
        bins: int = 512,
        by: Mapping[str, object] | None = None,
        edges: Sequence[float] | str | None = None,
        extract: str | Callable[[str], object] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dist_sync_fn": all_reduced, "compute_with_cache": False, **kwargs})
        self.modalities = Modalities(modalities)
        self.reader = Reader(task, num_classes, num_labels, threshold, from_logits, ignore_index, edges)
        self.task = self.reader.task
        self.validate_args = validate_args
        if not isinstance(bootstrap, int) or bootstrap < 0:
            raise ValueError(f"bootstrap={bootstrap!r}: a number of replicates, 200 say, or 0 for none")
        masks = None if coalitions is None else self.modalities.masks(coalitions, seed)
        need: dict[str, Any] = needed((scores,) if isinstance(scores, str) else tuple(scores), self.reader)
        self.layout, said = plan(
            self.modalities, self.reader, masks, bootstrap, max_bytes, by=as_columns(by), bins=bins, **need
        )
        for sentence in said:
            warnings.warn(f"max_bytes={max_bytes}: {sentence}", stacklevel=2)
        self.seed, self.shard = seed, shard
        self.class_names = self.reader.named if class_names is None else tuple(map(str, class_names))
        named = self.reader.L if self.task.by_label else self.reader.C
        if self.class_names is not None and len(self.class_names) != named:
            raise ValueError(f"class_names holds {len(self.class_names)} names, expected {named}: one each, in order")
        self.extract = extract
        self._score_dtype: torch.dtype | None = None
        self._seen = 0  # samples that came without a number since reset; no state: each rank has its own
        self._numbered: bool | None = None
        self._grouped: bool | None = None
        # MetricCollection lets metrics whose states are equal after one batch share one; this name keeps apart those
        # that would part ways later.
        arguments = (self.layout, self.reader, seed, shard, validate_args, max_bytes, self.class_names, self._sharing())
        self._state = f"counts_{zlib.crc32(repr(arguments).encode()):08x}"
        self.add_state(self._state, torch.zeros(self.layout.size, dtype=torch.int64), dist_reduce_fx="sum")

    def _sharing(self) -> object:
        """What else must be equal for two metrics to share one buffer in a MetricCollection."""
        return type(self).__name__

    @property
    def slices(self) -> tuple[str, ...]:
        """The names on the axis S."""
        return self.layout.slices

    @property
    def coalitions(self) -> tuple[str, ...]:
        """The names on the axis K."""
        return tuple(self.modalities.name(mask) for mask in self.layout.masks or ())

    @property
    def counts(self) -> Tensor:
        """The buffer."""
        return getattr(self, self._state)

    def update(
        self,
        preds: Tensor,
        target: Tensor,
        presence: object = None,
        index: Tensor | None = None,
        group: object = None,
        by: Mapping[str, object] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            preds: ``(N,)`` labels, or ``(N, C)`` logits or probabilities; multilabel ``(N, L)``. A list of N answers in
                words, as `class_names` has them; what is none of these is a miss.
            target: ``(N,)``, multilabel ``(N, L)``.
            presence: ``(N, M)`` bool, where samples count; or ``{name: (N,)}``; None is everywhere.
            index: ``(N,)`` global sample numbers, for intervals that are equal on any number of ranks; no sample of
                number −1 is counted (`mm_metrics.sampler.numbered`).
            group: ``(N,)`` integers or strings; samples of one group, as clips of a speaker, are not independent.
            by: ``{column: (N,) codes or strings}``, the values of the columns that slices are asked by.
        """
        preds = self.numbers(preds, target)
        self.refuse_twice(index, group)
        self.count(preds.unsqueeze(0) if isinstance(preds, Tensor) else preds, target, presence, index, group, by)

    def refuse_twice(self, index: object, group: object) -> None:
        """Raise ValueError where two samples of a batch have one number; on an accelerator with validate_args=True."""
        if group is not None or not isinstance(index, Tensor) or index.ndim != 1 or index.dtype.is_floating_point:
            return
        if self.validate_args or index.device.type == "cpu":
            ordered = index.sort().values
            again = (ordered[1:] == ordered[:-1]) & (ordered[1:] != COPY)
            if bool(again.any()):
                raise ValueError(
                    f"index has {int(ordered[1:][again][0])} more than once, and a sample counts once: number each by "
                    "itself, and say by group= which belong together"
                )

    def numbers(self, preds: Any, target: Any) -> Any:
        """Answers in words as the numbers of their classes, on the target's device; anything else as it is."""
        if not isinstance(preds, list | tuple) or not all(isinstance(answer, str) for answer in preds):
            return preds
        if not (self.task.by_class or self.task.positive):
            raise TypeError(f"preds holds words, which name classes, and task={self.task.name!r} has none")
        said = class_numbers(preds, self.class_names, self.extract)
        return torch.tensor(said, dtype=torch.int64, device=getattr(target, "device", None))

    def count(
        self,
        preds: Any,
        target: Tensor,
        presence: object = None,
        index: Tensor | None = None,
        group: object = None,
        by: Mapping[str, object] | None = None,
        rows: list[int] | None = None,
        counted: Tensor | None = None,
    ) -> Labels:
        """Count a batch of predictions ``(K, N, …)``, and give the labels that they and the target were read as.

        `rows` are the coalitions that `preds` holds, all by default; `counted` ``(K, N)`` bool is which of them
        answered which samples; the rest as in `update`.
        """
        eager = bool(self.validate_args) or (isinstance(preds, Tensor) and preds.device.type == "cpu")
        labels = self.reader.read(preds, target, eager)
        N, device = preds.shape[1], preds.device
        truth = read_truth(self.modalities, self.layout.by, N, device, target, presence, index, group, by)
        if self.counts.device != device:
            raise ValueError(f"preds is on {device}, the metric on {self.counts.device}: use metric.to(preds.device)")
        if N and self._grouped is not None and self._grouped is not (group is not None):
            raise ValueError("group came with some batches and not with others: give it with each, or with none")
        measures = measure(self.reader, self.layout, preds, labels, target)
        if self.counts.is_inference() and not torch.is_inference_mode_enabled():
            setattr(self, self._state, self.counts.clone())
        truth, key = self._numbers(truth, N, device)
        copies = None
        if index is not None and N and not (eager and int(index.min()) >= 0):
            copies = (index == COPY).unsqueeze(-1).expand_as(labels.target)  # (N, L), what a sampler added
            labels = labels._replace(ignored=copies if labels.ignored is None else labels.ignored | copies)
        counts, layout = self.counts, self.layout
        add(counts, layout, labels, truth, key=key, rows=rows, counted=counted, measures=measures, eager=eager)
        if copies is not None:
            layout.view(counts, "samples").sub_(copies[:, 0].sum())
        if N:
            numbered = index is not None or group is not None
            if not numbered:
                self._seen += N
            if self._numbered is not False and self._numbered is not numbered:  # a module's setattr is slow
                self._numbered = numbered
            if self._grouped is None:
                self._grouped = group is not None
        return labels

    def _numbers(self, truth: Truth, N: int, device: torch.device) -> tuple[Truth, int]:
        """The truth with numbers of its samples, and the key of the stream that their weights come from."""
        if truth.group is not None:  # the same weights wherever a group's samples lie
            return halved(truth, truth.group), stream_key(self.seed)
        if truth.index is not None:
            return halved(truth, truth.index), stream_key(self.seed, self.shard)
        if not self.layout.R and truth.columns is None:
            return truth, 0
        rank = dist.get_rank() + 1 if dist.is_available() and dist.is_initialized() else 0
        index = torch.arange(self._seen, self._seen + N, device=device)
        key = stream_key(self.seed, self.shard, rank)
        return halved(replace(truth, index=index), index + key), key

    def _forward_reduce_state_update(self, *args: Any, **kwargs: Any) -> Any:
        """Count a batch and return that batch's own value, as ``forward`` does. A refused batch changes nothing."""
        before = self.counts.clone()
        self.update(*args, **kwargs)
        batch = self.counts - before
        if self.dist_sync_on_step and dist.is_available() and dist.is_initialized():
            batch = torch.stack(list(self.dist_sync_fn(batch, self.process_group))).sum(0)
        return self._value(batch)

    _forward_full_state_update = _forward_reduce_state_update

    def sync(self, dist_sync_fn: Any = None, *args: Any, **kwargs: Any) -> None:
        """Sum over the ranks, by one all-reduce where torchmetrics would gather every rank's counts."""
        super().sync(dist_sync_fn or self.dist_sync_fn, *args, **kwargs)

    def compute(self) -> Any:
        """The value of everything counted, over all ranks. Raises ValueError if samples had to be refused."""
        try:
            return self._value(self.counts)
        except ValueError:
            if self._is_synced:  # torchmetrics would leave it so, and the next compute would fail for that
                self.unsync()
            raise

    def _value(self, counts: Tensor) -> Any:
        raise NotImplementedError

    def _refuse(self, counts: Tensor) -> None:
        refused = self.layout.view(counts, "refused").tolist()
        if any(refused):
            what = ", ".join(f"{n} samples with {why}" for n, why in zip(refused, REFUSED, strict=True) if n)
            raise ValueError(
                f"{what} were refused and not counted, of {int(self.layout.view(counts, 'samples'))}: "
                "validate_args=True says which in update; reset() makes the metric usable again"
            )

    def scorecard(self, **info: Any) -> Scorecard:
        """Everything counted, over all ranks, as a value on the CPU; `info` is kept with it.

        Syncs by itself, so every rank must call it. Raises ValueError as `compute` does.
        """
        if self._grouped and not self.layout.group_cells:
            info[UNCOUNTED] = True
        if edges := self.reader.edges:
            info.setdefault("edges", edges if isinstance(edges, str) else list(edges))
        synced = self._is_synced
        if not synced:
            self.sync(should_sync=self._to_sync)
        try:
            counts = self.counts.detach().clone().cpu()
        finally:
            if not synced:
                self.unsync(should_unsync=self._is_synced)
        self._refuse(counts)
        for column in self.layout.strange(counts):
            warnings.warn(
                f"by[{column!r}]: none of its values came with any sample, so all are in {column}/other; values are "
                "compared letter by letter, and of by={column: n} they are the codes 0…n-1",
                stacklevel=2,
            )
        shards = () if self._numbered and self.layout.R else (self.shard,)
        return Scorecard(self.layout, self.task.name, counts, self.seed, self.class_names, shards, info=info)

    def reset(self) -> None:
        """Forget everything counted."""
        with torch.inference_mode(False):  # what is made in inference mode can't be counted into outside it
            super().reset()
        self._seen, self._numbered, self._grouped = 0, None, None

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add another metric's counts, or its `metric_state`, to this one's; ValueError if it counts otherwise."""
        state = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if not isinstance(state, dict) or self._state not in state:
            raise ValueError(f"merge_state: expected a {type(self).__name__} made with the same arguments")
        setattr(self, self._state, self.counts + torch.as_tensor(state[self._state]).to(self.counts.device))
        self._update_count += 1
        self._computed = None
        self._numbered = getattr(incoming_state, "_numbered", self._numbered) and self._numbered is not False

    def set_dtype(self, dst_type: str | torch.dtype) -> ModalityMetric:
        """Scores come out as `dst_type`; counts stay int64, where half precision would end at 65,504."""
        self._score_dtype = torch.zeros(()).type(dst_type).dtype
        return self

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """Draw `val`, or what `compute` gives; returns ``(fig, ax)``. Needs the extra ``report``."""
        from mm_metrics.render import figures

        return figures.plot_metric(self, self.compute() if val is None else val, ax)
