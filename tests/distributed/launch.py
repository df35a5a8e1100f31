"""Run a function on several gloo processes and bring back what each of them says."""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_RANKS: list[tuple[BaseProcess, Connection]] = []  # that wait for work: to start one takes longer than most tests
_SLOW_TO_IMPORT = ["lightning.pytorch", "mm_metrics.callbacks", "sklearn.metrics", "tests.toys"]  # once, then forked


def launch(world_size: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """``function(rank, world_size, folder, *arguments)`` on each rank; their results by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    context, port, answers = _context(), _free_port(), {}
    while len(_RANKS) < world_size:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()
        _RANKS.append((process, ours))
    waiting = {pipe: rank for rank, (_, pipe) in enumerate(_RANKS[:world_size])}
    try:
        for pipe, rank in waiting.items():
            pipe.send_bytes(pickle.dumps((rank, world_size, port, function, folder, arguments)))
        for pipe in waiting:
            pipe.recv_bytes()  # has imported what it is to run: that may take longer than ranks wait for each other
        for pipe in waiting:
            pipe.send_bytes(b"begin")
        while waiting:
            for pipe in wait(list(waiting)):
                rank = waiting.pop(pipe)
                answers[rank], failed = pickle.loads(pipe.recv_bytes())
                assert not failed, f"rank {rank}: {failed}"
    except BaseException:
        _end()  # the others may wait for the one that failed
        raise
    return [answers[rank] for rank in range(world_size)]


def exit_code(function: Callable[..., Any], *arguments: Any) -> int:
    """Of a process of its own that calls ``function(*arguments)``; minus the signal that killed it."""
    process = _context().Process(target=function, args=arguments)
    process.start()
    process.join(200)
    assert process.exitcode is not None, f"{function.__name__} did not end"
    return process.exitcode


def _context() -> Any:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_SLOW_TO_IMPORT)
    return context


@atexit.register
def _end() -> None:
    while _RANKS:
        process, pipe = _RANKS.pop()
        pipe.close()
        process.kill()
        process.join()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    mp.set_start_method("fork", force=True)  # of loaders' workers, as where a launcher starts the ranks
    while True:
        try:
            rank, world_size, port, function, folder, arguments = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(b"ready")
            pipe.recv_bytes()
        except EOFError:  # the tests have ended
            return
        torch.manual_seed(0)
        environment(rank, world_size, port)
        try:
            with warnings.catch_warnings():
                answer = function(rank, world_size, folder, *arguments), ""
        except Exception:
            answer = None, traceback.format_exc()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        pipe.send_bytes(pickle.dumps(answer))


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
