"""Where probabilities are cut in the test: where validation's headline score was best. Nothing scores what chose it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mm_metrics.counts.overlap import share_samples
from mm_metrics.ranking import just_below
from mm_metrics.scorecard import Scorecard
from mm_metrics.tasks import Task

FROM_VALIDATION = "val"
_PLAIN = 0.5


class Thresholds:
    """What the last validation chose, for the test of the same weights; a checkpoint keeps it under `key`.

    Validation itself, and a test that none chose for, are cut at .5.
    """

    def __init__(self, asked: bool, task: Task, headline: str, key: str, say: Callable[[str], None]) -> None:
        if asked and not (task.positive or task.by_label):
            raise ValueError(f"threshold='val': task={task.name!r} has none, it is for 'binary' and 'multilabel'")
        self.asked, self.headline, self.key, self.say = asked, headline, key, say
        self.chosen: dict[str, Any] | None = None  # plain Python alone, as checkpoints ask for
        self.used: dict[str, Any] | None = None  # in this epoch
        self._module: Any = None  # whose weights it was chosen for
        self._path: Any = None

    def begin(self, trainer: Any) -> None:
        """Find what this epoch is cut by; all ranks call it together."""
        self.used = None
        if not self.asked or not trainer.testing:
            return
        path, module = getattr(trainer, "ckpt_path", None), getattr(trainer, "lightning_module", None)
        if path not in (None, self._path):
            self.chosen = trainer.strategy.broadcast(self._kept_in(path) if trainer.is_global_zero else None)
        elif self._module is not None and self._module() is not module:
            self.chosen = None
        self.used = self.chosen
        if self.used is None:
            self.say(
                "threshold='val': no validation of these weights chose a threshold, in this run or in the checkpoint, "
                "so the test is cut at .5: call trainer.validate with the same weights before trainer.test"
            )

    def reading(self) -> dict[str, Any]:
        """The argument of the metric, where it is not the user's own number."""
        if not self.asked:
            return {}
        return {"threshold": _PLAIN if self.used is None else tuple(map(just_below, self.used["values"]))}

    def info(self) -> dict[str, Any]:
        """What the card tells of it."""
        return {"threshold": self.used or {"values": [_PLAIN]}} if self.asked else {}

    def conclude(self, trainer: Any, card: Scorecard, validated: Scorecard | None) -> None:
        """A loader has ended: that of validation chooses, alike on all ranks; that a test counts the same is said."""
        if not self.asked:
            return
        if trainer.testing:
            if self.used is not None and validated is not None and share_samples(card, validated):
                card.info["threshold"] = {**self.used, "same_samples": True}
            return
        score, found = card.best_thresholds(self.headline)
        names = card.names if card.kind.by_label else card.names[1:]
        if missing := ", ".join(name for name, one in zip(names, found, strict=True) if one is None):
            self.say(f"threshold='val': validation has not both answers of {missing[:200]}, so .5 stays")
        module = getattr(trainer, "lightning_module", None)
        self._module = None if module is None else weakref.ref(module)
        self._path = None if trainer.state.fn == "fit" else getattr(trainer, "ckpt_path", None)
        values = [_PLAIN if one is None else one for one in found]
        self.chosen = {"values": values, "score": score, "epoch": trainer.current_epoch, "step": trainer.global_step}

    def load(self, chosen: Any) -> None:
        """Go on with what a checkpoint holds."""
        self.chosen, self._module, self._path = (chosen if _is_choice(chosen) else None), None, None

    def _kept_in(self, path: Any) -> dict[str, Any] | None:
        try:
            path = Path(path) / "meta.pt" if Path(path).is_dir() else path
            kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            chosen = kept["callbacks"][self.key]["threshold"]
        except Exception:  # a file of any kind, which Lightning has read in its own way
            return None
        return chosen if _is_choice(chosen) else None

    def __getstate__(self) -> dict[str, Any]:
        """Without the module."""
        return {**vars(self), "_module": None}


def _is_choice(chosen: Any) -> bool:
    values = chosen.get("values") if isinstance(chosen, dict) else None
    return isinstance(values, list) and all(isinstance(value, float) and 0 <= value <= 1 for value in values)
