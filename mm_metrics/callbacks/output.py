"""What the monitor writes and prints; an output that fails costs a warning and never the training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm_metrics.files import write_whole
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import Verdict


class Output:
    """The folder ``modality/`` of a run. Not `enabled`: nothing is written or printed."""

    def __init__(self, folder: str | Path, say: Callable[[str], None], enabled: bool) -> None:
        self.folder, self.say, self.enabled = Path(folder) / "modality", say, enabled

    def write(self, name: str, content: str) -> None:
        """A file of the folder, whole or not at all."""
        self._try(name, lambda: write_whole(self.folder / name, content))

    def lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A file of one JSON object a line; NaN becomes null, which JSON knows."""
        self.write(name, "".join(f"{json.dumps(_finite(row))}\n" for row in rows))

    def epoch(self, cards: dict[str, Scorecard], history: list[dict[str, Any]], samples: list[dict[str, Any]]) -> None:
        """After every validation: the scorecards, the history, the samples to look at."""
        for name, card in cards.items():
            self.write(f"{name}.json", card.to_json() + "\n")
        self.lines("history.jsonl", history)
        self.lines("samples.jsonl", samples)

    def finish(
        self, loggers: list[Any], stage: str, step: int, cards: dict[str, Scorecard], verdicts: dict[str, Verdict],
        history: list[dict[str, Any]], samples: list[dict[str, Any]], dynamics: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        """At the end of a run: the table, the figures, the page."""
        if not self.enabled:
            return
        from mm_metrics.render import page, table
        from mm_metrics.render.loggers import send

        for name, card in cards.items():
            if name.startswith(stage):
                table.print_card(card, verdict=verdicts[name], samples=[row for row in samples if row["stage"] == name])
                self._try("figures", lambda card=card, name=name: send(loggers, card, name, step, self.folder))
        self._try(
            "report.html",
            lambda: page.write(
                self.folder / "report.html",
                cards,
                verdicts=verdicts,
                history=history,
                samples=samples,
                leakage=self._leakage(),
                dynamics=dynamics,
            ),
        )
        print(f"Scorecard: {self.folder / stage}.json\nReport:    {self.folder / 'report.html'}")

    def _leakage(self) -> list[dict[str, Any]] | None:
        """What ``mm-metrics leakage`` or scripts/check_leakage.py wrote beside the scorecards."""
        path = self.folder / "leakage.json"
        if not path.is_file():
            return None
        from mm_metrics.leakage import Leakage

        return Leakage.from_json(path).summary()

    def _try(self, name: str, action: Callable[[], Any]) -> None:
        if not self.enabled:
            return
        try:
            action()
        except Exception as error:  # whatever a disk, a logger or a picture does: training is worth more
            self.say(f"{self.folder / name} could not be written ({error}): training goes on without it")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
