"""What the monitor writes and prints; an output that fails costs a warning and never the training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_metrics.files import finite, write_whole
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import Finding, explain

if TYPE_CHECKING:
    from mm_metrics.leakage import Leakage

try:
    import fcntl
except ImportError:  # where there are no such locks
    fcntl = None  # type: ignore[assignment]

_HELD: dict[Path, int] = {}  # folders that this process writes to, locked for as long as it lives


class Output:
    """The folder ``modality/`` of a run, or one in it for a monitor with a name. Not `enabled`: nothing is written."""

    def __init__(self, folder: str | Path, say: Callable[[str], None], enabled: bool, name: str | None = None) -> None:
        self.name, self.say, self.enabled = name or "", say, enabled
        self.folder = Path(folder) / "modality" / self.name

    def claim(self) -> None:
        """Say so where another process writes to this folder."""
        folder = self.folder.resolve()
        if fcntl is None or not self.enabled or folder in _HELD:
            return
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _HELD[folder] = handle
            except BlockingIOError:
                os.close(handle)
                self.say(
                    f"another process writes to {folder} too, and each replaces the other's files: give one of them a "
                    "folder of its own, ModalityMonitor(output_dir=…)"
                )

    def write(self, name: str, content: str) -> None:
        """A file of the folder, whole or not at all."""
        self.attempt(name, write_whole, self.folder / name, content)

    def lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A file of one JSON object a line; NaN becomes null, which JSON knows."""
        self.write(name, "".join(f"{json.dumps(finite(row))}\n" for row in rows))

    def epoch(
        self, cards: dict[str, Scorecard], history: list[dict[str, Any]] | None, samples: list[dict[str, Any]]
    ) -> None:
        """After every validation: the scorecards, a fit's history, the samples to look at."""
        self.claim()
        for name, card in cards.items():
            self.write(f"{name}.json", card.to_json() + "\n")
        if history is not None:
            self.lines("history.jsonl", history)
        self.lines("samples.jsonl", samples)

    def leaks(self, stage: str) -> list[Finding]:
        """What ``scripts/check_leakage.py`` or ``mm-metrics leakage`` found of this split, for the verdict."""
        return explain.leaks(self.summary() or (), stage, "leakage.json")

    def known_group(self) -> str | None:
        """What a check for leaks was told that samples have in common."""
        checked = self._leakage()
        return next(iter(checked.groups), None) if checked else None

    def summary(self) -> list[dict[str, Any]] | None:
        """What that check found, a row a finding."""
        checked = self._leakage()
        return None if checked is None else checked.summary()

    def _leakage(self) -> Leakage | None:
        """What a check for leaks wrote beside the scorecards; None where none was made."""
        homes = (self.folder, self.folder.parent) if self.name else (self.folder,)
        path = next((home / "leakage.json" for home in homes if (home / "leakage.json").is_file()), None)
        if path is None:
            return None
        from mm_metrics.leakage import Leakage

        try:
            return Leakage.from_json(path)
        except (OSError, ValueError) as error:
            self.say(f"{path} could not be read ({error}): the verdict goes without it")
            return None

    def attempt(self, name: str, action: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Write one output, where this is enabled; say so where a disk, a logger or a picture fails."""
        if not self.enabled:
            return
        try:
            action(*arguments, **keywords)
        except Exception as error:  # training is worth more
            self.say(f"{self.folder / name} could not be written ({error}): training goes on without it")


def folder_of(trainer: Any) -> Path:
    """The run's own folder: where its first logger writes, as Lightning's checkpoints do; all ranks ask together."""
    logger = next(iter(trainer.loggers), None)
    if logger is None or getattr(logger, "log_dir", None) is not None:
        return Path(trainer.log_dir or trainer.default_root_dir)
    home, name, version = (getattr(logger, what, None) for what in ("save_dir", "name", "version"))
    version = version if isinstance(version, str | None) else f"version_{version}"
    return Path(home or trainer.default_root_dir, *(str(part) for part in (name, version) if part is not None))
