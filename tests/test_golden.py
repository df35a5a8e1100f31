"""What a reader sees of one card a task, held to the letter, and cards of the first format, which must still be read.

``python -m tests.test_golden`` writes the texts anew after a change that was meant; the cards stay as they are.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import torch

from mm_metrics import Scorecard
from mm_metrics.render import page

FOLDER = Path(__file__).parent / "golden"
TASKS = ("multiclass", "binary", "multilabel", "judged", "stray")


def seen(card: Scorecard, folder: Path) -> str:
    """The console's text and the page's words, without pictures."""
    source = page.write(folder / "page.html", card).read_text()
    source = re.sub(r"(?s)<(style|svg|script)\b.*?</\1>", "", source)
    words = (" ".join(html.unescape(part).split()) for part in re.split(r"<[^>]*>", source))
    return card.table() + "\n\n" + "\n".join(part for part in words if part) + "\n"


@pytest.mark.parametrize("task", TASKS)
def test_a_card_of_format_1_is_read_and_shown_as_ever(task, tmp_path):
    card = Scorecard.from_json(FOLDER / f"{task}.json")
    assert seen(card, tmp_path) == (FOLDER / f"{task}.txt").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_card_keeps_its_counts_through_the_present_format(task):
    old = Scorecard.from_json(FOLDER / f"{task}.json")
    new = Scorecard.from_json(old.to_json())
    assert new == old
    assert new.parts == old.parts
    assert torch.equal(new.counts, old.counts)
    assert json.loads(old.to_json())["sha256"] == json.loads((FOLDER / f"{task}.json").read_text())["sha256"]


def write() -> None:
    """The texts of the cards in the folder."""
    import tempfile

    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            (FOLDER / f"{task}.txt").write_text(seen(Scorecard.from_json(FOLDER / f"{task}.json"), Path(folder)))


if __name__ == "__main__":
    write()
