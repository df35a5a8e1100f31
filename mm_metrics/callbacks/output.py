"""What the monitor writes and prints; an output that fails costs a warning and never the training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mm_metrics.files import finite, write_whole
from mm_metrics.scorecard import Scorecard
from mm_metrics.verdict import Finding, Verdict


class Output:
    """The folder ``modality/`` of a run. Not `enabled`: nothing is written or printed."""

    def __init__(self, folder: str | Path, say: Callable[[str], None], enabled: bool) -> None:
        self.folder, self.say, self.enabled = Path(folder) / "modality", say, enabled

    def write(self, name: str, content: str) -> None:
        """A file of the folder, whole or not at all."""
        self._try(name, lambda: write_whole(self.folder / name, content))

    def lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A file of one JSON object a line; NaN becomes null, which JSON knows."""
        self.write(name, "".join(f"{json.dumps(finite(row))}\n" for row in rows))

    def epoch(self, cards: dict[str, Scorecard], history: list[dict[str, Any]], samples: list[dict[str, Any]]) -> None:
        """After every validation: the scorecards, the history, the samples to look at."""
        for name, card in cards.items():
            self.write(f"{name}.json", card.to_json() + "\n")
        self.lines("history.jsonl", history)
        self.lines("samples.jsonl", samples)

    def finish(
        self,
        loggers: list[Any],
        stage: str,
        step: int,
        cards: dict[str, Scorecard],
        verdicts: dict[str, Verdict],
        history: list[dict[str, Any]],
        samples: list[dict[str, Any]],
        dynamics: list[dict[str, Any]],
    ) -> None:
        """At the end of a run: the table, the figures, the page."""
        if not self.enabled:
            return
        from mm_metrics.render import console, page, tables
        from mm_metrics.render.loggers import send

        told = {
            name: tables.of(card, verdicts[name], [row for row in samples if row["stage"] == name], name)
            for name, card in cards.items()
        }
        ended = [name for name in cards if name.startswith(stage)]
        for name in ended:
            picture = "summary.png" if name == stage else f"summary_{name}.png"
            self._try("table", partial(console.print_card, told[name], named=len(ended) > 1))
            self._try("figures", partial(send, loggers, told[name], name, step, self.folder, picture))
        report, leaks = self.folder / "report.html", self._leakage()
        write = partial(page.write, history=history, leakage=leaks, dynamics=dynamics)
        self._try(report.name, partial(write, report, told))
        for what, path in (("Scorecard: ", self.folder / f"{stage}.json"), ("Report:    ", report)):
            if path.is_file():
                print(f"{what}{path}")

    def leaks(self, stage: str) -> list[Finding]:
        """What ``scripts/check_leakage.py`` or ``mm-metrics leakage`` found of this split, for the verdict."""
        return [
            Finding(
                "leakage",
                row["modality"],
                "share",
                row["share"],
                math.nan,
                math.nan,
                0.0,
                f"{row['modality']}: {row['count']:,} of {stage} ({row['share']:.1%}) are shared with "
                f"{row['splits'][0]} ({row['kind'].replace('_', ' ')}), so its scores are too good; see leakage.json",
            )
            for row in self._leakage() or []
            if row["splits"][1] == stage != row["splits"][0] and row["count"]
        ]

    def _leakage(self) -> list[dict[str, Any]] | None:
        """What a check for leaks wrote beside the scorecards; None where none was made."""
        path = self.folder / "leakage.json"
        if not path.is_file():
            return None
        from mm_metrics.leakage import Leakage

        try:
            return Leakage.from_json(path).summary()
        except (OSError, ValueError) as error:
            self.say(f"{path} could not be read ({error}): the verdict goes without it")
            return None

    def _try(self, name: str, action: Callable[[], Any]) -> None:
        if not self.enabled:
            return
        try:
            action()
        except Exception as error:  # whatever a disk, a logger or a picture does: training is worth more
            self.say(f"{self.folder / name} could not be written ({error}): training goes on without it")
