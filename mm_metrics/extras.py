"""What to install where an optional package is missing, as the project's own metadata says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

DISTRIBUTION = "modality-metrics"


def install(*packages: str) -> str:
    """The command that installs `packages`, each with the bounds that the project declares.

    >>> install("pyarrow")
    'pip install "pyarrow>=18.0"'
    """
    return "pip install " + " ".join(f'"{_requirements().get(name, name)}"' for name in packages)


@contextmanager
def needed(package: str, what: str) -> Iterator[None]:
    """Say what to install where an import inside fails; `what` is what needs it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what}: {install(package)}") from error


def _requirements() -> dict[str, str]:
    """Package → requirement, such as ``"jsonargparse[signatures]>=4.48"``; empty where the project is not installed."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a clone that was never installed
        return {}
    declared = [line.partition(";")[0].strip() for line in lines]
    return {re.match(r"[\w.-]*", line)[0].lower(): line for line in declared}  # type: ignore[index]
