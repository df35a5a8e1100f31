"""Samples that could not be scored: misses of their class, or apart where that is unknown; said once an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm_metrics.callbacks.truth import Rows
from mm_metrics.counts.labels import UNANSWERED, Reader
from mm_metrics.counts.tally import Tally

_TOLD = 5  # batches that are named, and samples of each
_SURE = 30.0  # a logit


@dataclass
class Refused:
    """What of one loader could not be scored in one epoch, on one rank; adds up over ranks."""

    samples: int = 0
    unknown: int = 0  # of these, the samples whose class is not known
    hidden: set[int] = field(default_factory=set)  # coalitions whose stand-ins make the model answer nothing
    told: list[str] = field(default_factory=list)
    past: bool = False  # whether a label is the number of classes, as the last is where they start at 1

    def __add__(self, other: Refused) -> Refused:
        told = (self.told + other.told)[: _TOLD + 1]
        samples, unknown, past = self.samples + other.samples, self.unknown + other.unknown, self.past or other.past
        return Refused(samples, unknown, self.hidden | other.hidden, told, past)

    def note(self, batch_idx: int, why: str, n: int, unknown: int = 0, numbers: list[int] | None = None) -> None:
        """Remember that n samples of a batch were refused, `unknown` of them without a class."""
        self.samples, self.unknown = self.samples + n, self.unknown + unknown
        which = "" if not numbers else f" (samples {', '.join(map(str, numbers[:_TOLD]))}{', …' * (n > _TOLD)})"
        if len(self.told) <= _TOLD:
            self.told.append(f"batch {batch_idx}{which}: {why}")

    def take(
        self, batch_idx: int, masks: tuple[int, ...], own: int, rows: Rows, reader: Reader, scored: bool
    ) -> tuple[Tensor, Rows]:
        """Which of N rows can be scored, ``(N,)`` bool, and the others as what they count as.

        A row that the model itself does not answer is a miss of its class under every coalition that does not; one that
        breaks a coalition's stand-ins alone is no answer of that coalition. With `scored` a miss is a wrong logit that
        is sure of itself, else no class. Raises as `Reader.read` for what is wrong in form.
        """
        read = [reader.read(row.unsqueeze(0), rows.target, eager=False) for row in rows.preds]
        target, blank = read[0].target, torch.zeros_like(read[0].target[:, 0], dtype=torch.bool)  # (N, L), (N,)
        bad = torch.stack([blank if one.bad_prediction is None else one.bad_prediction for one in read])  # (K, N)
        lost = blank if read[0].bad_target is None else read[0].bad_target
        bad = bad if rows.counted is None else bad & rows.counted
        whole = bad.any(0) if own not in masks else bad[masks.index(own)]
        odd = bad.any(0) | lost
        if reader.task.by_class or reader.task.positive:
            self.past |= bool((rows.target[lost] == reader.C).any())
        lost = lost | (whole & reader.task.ordinal)  # of a number that is none no error is known
        self.hidden |= {mask for mask, row in zip(masks, bad & ~whole & ~lost, strict=True) if bool(row.any())}
        numbers = torch.arange(len(odd)) if rows.numbers is None else rows.numbers
        for marked, why, unknown in ((whole & ~lost, "no finite prediction", 0), (lost, "no class or number", 1)):
            if n := int(marked.sum()):
                self.note(batch_idx, why, n, n * unknown, numbers[marked].tolist())
        counted = ~bad | whole
        counted = counted if rows.counted is None else counted & rows.counted
        missed = torch.stack([one.predicted[0] for one in read])  # (K, N, L)
        broken = bad.unsqueeze(-1)
        if scored:
            missed = torch.where(broken, _surely_wrong(rows.preds, target, reader), rows.preds)
        else:
            missed = torch.where(broken, 1 - target if reader.task.by_label else UNANSWERED, missed)
            missed = missed if reader.task.by_label else missed.squeeze(-1)
        return ~odd, rows._replace(preds=missed, counted=counted).some(odd & ~lost)

    def sentence(self, stage: str, epoch: int, card: Tally) -> str:
        """What was refused beside what the card counts, in words; empty where nothing was."""
        if not self.samples:
            return ""
        missed = self.samples - self.unknown
        how = [f"{missed} count as misses of their class"] * (missed > 0)
        how += [f"{self.unknown} are left out, as their class is unknown"] * (self.unknown > 0)
        more = "; …" * (len(self.told) > _TOLD)
        if self.past and not card.sums().actual[0, 0]:
            more += f"; no label is 0 and some are {len(card.names)}: labels start at 0: use target - 1"
        return (
            f"{stage}, epoch {epoch}: {self.samples} of {card.samples + self.unknown} samples could not be scored, "
            f"{' and '.join(how)}: {'; '.join(self.told[:_TOLD])}{more}; on_bad_values='raise' stops at the first"
        )


def _surely_wrong(preds: Tensor, target: Tensor, reader: Reader) -> Tensor:
    """Scores of the shape of ``preds`` ``(K, N, …)`` that say the contrary of the target ``(N, L)``."""
    if not preds.dtype.is_floating_point or reader.task.ordinal:
        return torch.zeros_like(preds)
    if reader.task.by_class or preds.shape[2:] == (2,):
        wrong = torch.zeros_like(preds[0]).scatter_(-1, target, -_SURE)  # (N, C)
        wrong = wrong if reader.from_logits or reader.task.by_class else wrong.softmax(-1)
    else:
        wrong = (1 - 2 * target.to(preds.dtype)).reshape(preds.shape[1:]) * _SURE
        wrong = wrong if reader.from_logits else wrong.sigmoid()
    return wrong.expand_as(preds)
