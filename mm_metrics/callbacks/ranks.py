"""What ranks have to agree on before they add up, and what the first of them says."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist


def gathered(value: Any) -> list[Any]:
    """The value of every rank, by rank; all ranks call it together."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def agreed(what: str, values: Iterable[Any]) -> Any:
    """The one value that ranks have, None being no opinion; ValueError, on every rank alike, where they differ."""
    known = {value for value in values if value is not None}
    if len(known) > 1:
        raise ValueError(
            f"ranks have different {what}, {sorted(map(str, known))}: every rank runs one model on one task"
        )
    return next(iter(known), None)


def shared(folder: Path) -> Path:
    """Rank zero's folder, made, as all ranks see it; ValueError, on every rank alike, where one of them does not."""
    folder, mark = gathered((folder, f".{uuid.uuid4().hex}"))[0]
    if not (dist.is_available() and dist.is_initialized()):
        return folder
    if dist.get_rank() == 0:
        with suppress(OSError):  # then no rank sees it
            folder.mkdir(parents=True, exist_ok=True)
            (folder / mark).touch()
    gathered(None)  # it is there
    blind = [rank for rank, sees in enumerate(gathered((folder / mark).exists())) if not sees]
    if dist.get_rank() == 0:
        (folder / mark).unlink(missing_ok=True)
    if blind:
        raise ValueError(
            f"samples='all': rank {blind[0]} does not see what rank 0 writes to {folder}, so samples would be missing: "
            "give a folder on a disk that all share, ModalityMonitor(output_dir=…)"
        )
    return folder


class Once:
    """Says a message once, on rank zero; every rank remembers what was said."""

    def __init__(self) -> None:
        self.main, self.said = True, set[str]()

    def __call__(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            if self.main:
                warnings.warn(message, stacklevel=3)


@contextmanager
def repeated(say: Callable[[str], None]) -> Iterator[None]:
    """Say, by the end, what is warned of inside: once a run, where the filters of warnings would take every time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        say(str(warning.message))


def place(strategy: Any, rank: int, world_size: int) -> tuple[int, int]:
    """``(rank, number of ranks)`` among those that are given different data; fewer than all where layers are split."""
    try:
        kwargs = strategy.distributed_sampler_kwargs
        return int(kwargs["rank"]), int(kwargs["num_replicas"])
    except (AttributeError, AssertionError, KeyError, TypeError):
        return rank, world_size
