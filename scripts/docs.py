"""Write the reference: every public name by its docstring, the commands by their help, and pages to read.

python scripts/docs.py build/docs
"""

import argparse
import contextlib
import io
from importlib import import_module
from pathlib import Path

import pdoc

import mm_metrics
from mm_metrics import cli

MODULES = (
    "mm_metrics.guide",
    "mm_metrics.ablation",
    "mm_metrics.metrics.base",
    "mm_metrics.counts.tally",
    "mm_metrics.counts.scored",
    "mm_metrics.counts.counted",
    "mm_metrics.counts.compare",
    "mm_metrics.callbacks.huggingface",
    "mm_metrics.callbacks",
    "mm_metrics.logging",
    "mm_metrics.sampler",
    "mm_metrics.scores",
    "mm_metrics.contributions",
    "mm_metrics.uncertainty",
    "mm_metrics.verdict",
    "mm_metrics.predictions",
    "mm_metrics.leakage",
    "mm_metrics.cli",
)


def commands() -> str:
    """The help of ``mm-metrics`` and of each of its commands, as Markdown."""
    pages = []
    for command in ("", *cli.COMMANDS):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            cli.main([*([command] if command else []), "--help"])
        pages.append(f"## mm-metrics {command}\n\n```text\n{said.getvalue()}```\n")
    return "\n".join(pages)


def contents() -> str:
    """The modules with the first line of each, as Markdown; pdoc makes links of them."""
    return "\n".join(f"- `{name}`: {(import_module(name).__doc__ or ' ').splitlines()[0]}" for name in MODULES)


def write(folder: Path) -> None:
    """Write the pages into `folder`, from ``index.html`` on."""
    mm_metrics.__doc__ = f"{mm_metrics.__doc__}\n\n{contents()}"
    cli.__doc__ = f"{cli.__doc__}\n\n{commands()}"
    pdoc.render.configure(docformat="google", search=True)
    pdoc.pdoc(
        "mm_metrics",
        *(name for name in MODULES if name.split(".")[1] not in mm_metrics.__all__),
        output_directory=folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/docs"), help="where the pages go")
    write(parser.parse_args().folder)
