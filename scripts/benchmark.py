"""Measure mm_metrics side by side with its peers, in one run: medians of interleaved repeats, ratios against goals.

python scripts/benchmark.py                          # everything, some minutes; writes runs/benchmark.json
python scripts/benchmark.py --only update sync       # some of it
python scripts/benchmark.py --quick                  # seconds: does it run?
"""

import argparse
import json
import logging
import platform
import sys
from datetime import date
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `scripts` is not installed

import torch
from tqdm import tqdm

from mm_metrics.files import write_whole
from scripts.benchmarks.timing import Row

MEASURES = ("update", "steady", "ablation", "replicates", "scores", "sync", "files", "book", "leaks", "workers")


def main(args: list[str] | None = None) -> int:
    """Run the command line; the number of goals that were missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES, help="default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark.json"), help="default: runs/benchmark.json")
    options = parser.parse_args(args)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    rows = []
    for name in tqdm(options.only, desc="benchmark"):
        for row in import_module(f"scripts.benchmarks.{name}").measure(options.quick):
            rows.append(row)
            tqdm.write(line(row))
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    machine = {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "card": card,
    }
    write_whole(options.output, json.dumps({"machine": machine, "rows": [row.as_dict() for row in rows]}, indent=1))
    write_whole(options.output.with_suffix(".md"), table(rows))
    missed = [row.measure for row in rows if not row.met]
    print(
        f"{len(rows) - len(missed)} of {len(rows)} goals met, missed: {missed or 'none'}; written to {options.output}"
    )
    return len(missed)


def table(rows: list[Row]) -> str:
    """The rows as the README's table."""
    lines = ["| measured | against | ratio | goal |", "|---|---|---|---|"]
    for row in rows:
        details = "; ".join(f"{name} {value:.3g}" for name, value in row.details.items())
        what = f"{row.measure} ({details})" if details else row.measure
        lines.append(f"| {what} | {row.peer} | {row.ratio:.3g}× | {row.goal}{'' if row.met else ', missed'} |")
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    """One measure in the console."""
    details = ", ".join(f"{name} {value:.3g}" for name, value in row.details.items())
    mark = "ok  " if row.met else "MISS"
    against = f"{row.ratio:.3g}x against {row.peer} (goal: {row.goal})"
    return f"{mark} {row.measure}: {'; '.join(filter(None, (against, details)))}"


if __name__ == "__main__":
    main()
