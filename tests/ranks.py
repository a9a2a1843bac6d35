"""Processes of a distributed run on this machine, as a launcher starts them: on the CPU, talking through gloo."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch

LIMIT = 600  # s; a busy machine is slow, and only a hang takes that long


def _rank(rank: int, world: int, port: int, target: Callable[..., None], args: Sequence[Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    # So that a DataLoader's workers are forked, as in any other run on Linux; else they import everything anew, and
    # outlive a rank that is killed.
    multiprocessing.set_start_method("fork", force=True)
    target(*args)


def launch(world: int, target: Callable[..., None], *args: Any) -> list[BaseProcess]:
    """Start `target(*args)` in `world` ranks. They are forked from a server that has the slow imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timesformer_zoo.train.finetune", "accelerate", "matplotlib.figure", "ranks"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, world, port, target, args)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    return list(ranks)


def join(ranks: list[BaseProcess]) -> list[int | None]:
    """Their exit codes, once they are done."""
    for rank in ranks:
        rank.join(LIMIT)
    return [rank.exitcode for rank in ranks]
