"""Scoring a Parquet file of predictions, against pandas and scikit-learn; and what importing costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import sklearn

from scripts.benchmarks.timing import Row, interleaved

NAMES = ("text", "image", "audio")
_OURS = "from mm_metrics.cli import main; main({!r})"
_PEER = """
import pandas, sklearn.metrics as m
data = pandas.read_parquet({path!r})
for name in (None, "text", "image", "audio"):
    part = data if name is None else data[data["presence_" + name] == 1]
    m.accuracy_score(part.target, part.prediction)
    m.precision_recall_fscore_support(part.target, part.prediction, average="macro", zero_division=0)
"""


def measure(quick: bool = False) -> Iterator[Row]:
    """Rows a second and peak memory, each in a process of its own."""
    n = 200_000 if quick else 10_000_000
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, card = str(Path(folder) / "rows.parquet"), str(Path(folder) / "card.json")
        columns = {"target": random.integers(10, size=n), "prediction": random.integers(10, size=n)}
        columns |= {f"presence_{name}": random.integers(2, size=n) for name in NAMES}
        pandas.DataFrame(columns).to_parquet(path)
        classes = [str(c) for c in range(10)]
        arguments = ["score", path, "--modalities", *NAMES, "--classes", *classes, "--bootstrap", "0", "--output", card]
        peaks: dict[str, float] = {}
        seconds = interleaved(
            {
                "ours": lambda: peaks.update(ours=_peak(_OURS.format(arguments))),
                "peer": lambda: peaks.update(peer=_peak(_PEER.format(path=path))),
            },
            1 if quick else 3,
            "files",
        )
    ratio = seconds["peer"] / seconds["ours"]
    yield Row(
        f"score a Parquet file of {n:,} rows",
        f"pandas {pandas.__version__} + scikit-learn {sklearn.__version__}",
        ratio,
        "shown",
        True,
        seconds,
        {"million rows a second": n / seconds["ours"] / 1e6, "MiB, ours": peaks["ours"], "MiB, peer": peaks["peer"]},
    )
    yield _imports(3 if quick else 9)


def _imports(repeats: int) -> Row:
    runs = {name: partial(_peak, f"from {name} import *") for name in ("torchmetrics", "mm_metrics")}
    seconds = interleaved(runs, repeats, "import")
    added = seconds["mm_metrics"] - seconds["torchmetrics"]
    ratio = seconds["mm_metrics"] / seconds["torchmetrics"]
    return Row(
        "from mm_metrics import *",
        "from torchmetrics import *",
        ratio,
        "< 0.1 s more",
        added < 0.1,
        seconds,
        {"seconds more": added},
    )


def _peak(code: str) -> float:
    """Run code in a fresh interpreter; its peak memory in MiB."""
    after = "\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # importing more would count too
    code = f"try:\n    exec({code!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code{after}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024
