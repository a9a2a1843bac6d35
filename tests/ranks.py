"""Processes of a distributed run on this machine, as a launcher starts them: on the CPU, talking through gloo."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as `accelerate launch --use_fsdp --fsdp_version 2` sets
LIMIT = 600  # s; a busy machine is slow, and only a hang takes that long


def shard_on_cpus() -> None:
    """Let accelerate have FSDP without a GPU: it asks only for the kind of device, and torch shards on any."""
    from accelerate.state import DistributedType, PartialState

    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    os.environ.pop("ACCELERATE_USE_CPU", None)
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"


def _rank(rank: int, world: int, port: int, env: dict[str, str], target: Callable[..., None], args: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **{"ACCELERATE_USE_CPU": "true", **env})
    torch.set_num_threads(1)
    if "ACCELERATE_USE_FSDP" in env and "ACCELERATE_USE_CPU" not in env:
        shard_on_cpus()
    # So that a DataLoader's workers are forked, as in any other run on Linux; else they import everything anew, and
    # outlive a rank that is killed.
    multiprocessing.set_start_method("fork", force=True)
    target(*args)


def launch(world: int, target: Callable[..., None], *args: Any, **env: str) -> list[BaseProcess]:
    """Start `target(*args)` in `world` ranks. They are forked from a server that has the slow imports done.

    Args:
        env: environment variables, such as those of `FSDP2`, under which CPUs count as what accelerate shards on unless
            ACCELERATE_USE_CPU is given, too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timesformer_zoo.train.finetune", "accelerate", "matplotlib.figure", "ranks"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, world, port, env, target, args)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    return list(ranks)


def join(ranks: list[BaseProcess]) -> list[int | None]:
    """Their exit codes, once they are done."""
    for rank in ranks:
        rank.join(LIMIT)
    return [rank.exitcode for rank in ranks]
