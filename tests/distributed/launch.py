"""Run a function on several gloo processes and bring back what each of them says."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def launch(world_size: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """``function(rank, world_size, folder, *arguments)`` on each rank; their results by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    mp.spawn(_run, args=(world_size, port, function, folder, arguments), nprocs=world_size)
    return [pickle.loads((folder / f"rank{rank}.pickle").read_bytes()) for rank in range(world_size)]


def _run(rank: int, world_size: int, port: int, function: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    torch.set_num_threads(1)
    environment(rank, world_size, port)
    try:
        result = function(rank, world_size, folder, *arguments)
        (folder / f"rank{rank}.pickle").write_bytes(pickle.dumps(result))
    except Exception:
        traceback.print_exc()
        raise


def environment(rank: int, world_size: int, port: int) -> None:
    """What torchrun would set."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GLOO_SOCKET_IFNAME="lo",
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        GROUP_RANK="0",
        NODE_RANK="0",
        TORCHELASTIC_RUN_ID="tests",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
