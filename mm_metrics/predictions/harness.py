"""The sample logs of lm-evaluation-harness and lmms-eval: JSON Lines whose answers have to be found."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

from mm_metrics.cells import UnreadableError, as_text, quoted
from mm_metrics.tables.source import BLOCK_ROWS, Block, Refuse, Source

HARNESS = "filtered_resps"  # the key under which evaluation harnesses keep what was answered
KEYS = (HARNESS, "filter", "doc_hash", "doc_id", "target", "prediction", "arguments", "acc")


class Log(Source):
    """A file of predictions, which a harness may have written."""

    def columns(self) -> list[str]:
        """The names of the columns, with the prediction that a log implies."""
        names = super().columns()
        return list(dict.fromkeys([*names, "prediction"])) if self.format == "jsonl" and HARNESS in names else names

    def blocks(self, wanted: Collection[str], refuse: Refuse, block_rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """As of any source; ValueError where a log holds a sample twice."""
        if self.format != "jsonl" or HARNESS not in super().columns():
            yield from super().blocks(wanted, refuse, block_rows)
            return
        filters, logged, again = set(), set(), False
        for block in super().blocks(dict.fromkeys([*wanted, *KEYS]), refuse, block_rows):
            kept = []
            for n, row in enumerate(block.rows.tolist()):
                content = {key: block.columns[key][n] for key in KEYS}
                try:
                    if content[HARNESS] is not None:
                        filters.add(as_text(content["filter"]))
                        if (digest := content["doc_hash"]) is not None:  # lmms-eval names no filter
                            again |= (sample := (repr(content["doc_id"]), repr(digest))) in logged
                            logged.add(sample)
                        target = as_text(content["target"]) or ""
                        if target[:1] == "[" and target[1:-1].isdecimal():  # a list of one right option
                            block.columns["target"][n] = target = target[1:-1]
                        if "prediction" in wanted and content["prediction"] is None:
                            block.columns["prediction"][n] = _response(content, target)
                    kept.append(n)
                except UnreadableError as error:
                    refuse(row, error)
                if len(filters) > 1 or again:
                    raise ValueError(
                        f"{self.where(row)}: a sample is there more than once, as for each of "
                        f"the filters {', '.join(map(quoted, filters))}: keep the lines of one"
                    )
            columns = {name: [block.columns[name][n] for n in kept] for name in wanted}
            yield Block(block.rows[kept], columns, block.end)


def _response(content: dict[str, Any], target: str) -> Any:
    """What a harness took for the answer: a text, or the option with the best log-likelihood as the target names it.

    lm-evaluation-harness logs log-likelihoods, lmms-eval losses: of either the one nearest to 0 is the best. A target
    is the number of an option, or the text that was asked for as its argument.
    """
    answer = content[HARNESS]
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, list):
        return answer
    if not all(isinstance(option, list) and option for option in answer):
        raise UnreadableError("several answers", f"{HARNESS} holds {len(answer)} answers: one is due")
    try:
        values = [float(option[0]) for option in answer]  # pairs of a value and whether it was the greedy choice
    except (TypeError, ValueError):
        values = [math.nan]
    if any(map(math.isnan, values)) or min(values) < 0 < max(values):
        raise UnreadableError("no likelihoods", f"{HARNESS} holds neither log-likelihoods nor losses")
    best: Any = min(range(len(values)), key=lambda option: abs(values[option]))
    if target and not target.isdecimal():
        asked = content.get("arguments")
        text = asked.get(f"gen_args_{best}", {}).get("arg_1") if isinstance(asked, dict) else None
        if text is None:
            reason = f"its target {quoted(target)} is no number, and no text of option {best} is logged"
            raise UnreadableError("unnamed option", reason)
        best = text
    right = content.get("acc")
    if isinstance(right, int | float) and (target == as_text(best)) != bool(right):
        raise UnreadableError("another answer", f"its acc is {right}, and {quoted(best)} is the best of {HARNESS}")
    return best
