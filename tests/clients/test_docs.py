"""The reference says all there is: every public name and argument, key, file, option and exit code."""

from __future__ import annotations

import html
import inspect
import re
import subprocess
import sys

import pytest

import mm_metrics
from mm_metrics import callbacks
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.guide import outputs
from mm_metrics.logging import logged_keys
from scripts.oldest import ROOT
from tests.render_cards import card
from tests.toys import MODALITIES, loader, seeded, trainer

TEXT = outputs.__doc__ or ""


def patterns(start: str) -> list[re.Pattern[str]]:
    """The first cells of the table that starts so, as patterns of what is written there in backticks."""
    rows = TEXT[TEXT.index(f"| {start}") :].split("\n\n")[0].splitlines()[2:]
    cells = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    return [re.compile(re.sub(r"\\{(\w+)\\}", r"[\\w.-]+", re.escape(cell)).replace(r"\ ", " ")) for cell in cells]


def test_every_key_is_in_the_table():
    keys = logged_keys(card(bootstrap=20), card(bootstrap=20).verdict(), "val", intervals=True)
    said = patterns("key")
    bounds = {key.rpartition("/")[0] for key in keys if key.endswith(("/low", "/high"))}
    plain = [key for key in keys if not key.endswith(("/low", "/high"))]
    assert [key for key in plain if not any(pattern.fullmatch(key) for pattern in said)] == []
    assert [pattern.pattern for pattern in said[:-2] if not any(map(pattern.fullmatch, plain))] == []
    assert {"val/all/f1", "val/drop/text/f1", "val/shapley/text/f1"} <= bounds


def test_every_file_is_in_the_table(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0, output_dir=tmp_path)
    run = trainer(tmp_path, watcher, max_epochs=1, logger=CSVLogger(tmp_path))
    run.fit(seeded(), loader(), [loader(), loader()])
    files = [path.name for path in (tmp_path / "modality").iterdir()]
    said = patterns("file")
    assert len(files) >= 9
    assert [name for name in files if not any(pattern.fullmatch(name) for pattern in said)] == []


@pytest.mark.slow
def test_the_pages_name_every_public_name_argument_and_option(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, "-W", "ignore", "scripts/docs.py", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True)
    pages = {path.stem: html.unescape(re.sub(r"<[^>]+>", "", path.read_text())) for path in tmp_path.rglob("*.html")}
    assert {"mm_metrics", "callbacks", "logging", "cli", "baselines", "ablation", "intervals", "questions"} <= set(
        pages
    )
    for module, page in ((mm_metrics, pages["mm_metrics"]), (callbacks, pages["callbacks"])):
        for name in module.__all__:
            thing = getattr(module, name)
            assert name in page
            if inspect.isclass(thing) and thing.__module__.startswith("mm_metrics.") and "__init__" in vars(thing):
                missing = [argument for argument in inspect.signature(thing).parameters if f"{argument}" not in page]
                assert missing == [], name
    for option in ("--modalities", "--against", "--near", "--output"):
        assert option in pages["cli"]
    assert "mm_metrics.guide" in pages["mm_metrics"]
