"""In which order the videos of a run come: the draws of each step, for each process, and the shares of an evaluation.

It follows from seeds alone: it is the same for any number of workers and processes, and after a restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from timesformer_zoo.data.balance import balanced_order

__all__ = ["Draw", "StepSampler", "order", "seed_of", "shares"]


def seed_of(*parts: int) -> int:
    """One seed from several numbers, without the collisions of a sum."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Draw(NamedTuple):
    """Which sample, and in which epoch: with the seed, all that a training clip depends on."""

    sample: int
    epoch: int
    turn: int = 0  # of the sample in this epoch, where it may have several


class StepSampler(Sampler[list[Draw]]):
    """The batches of a training run, for one of several processes: what a step sees depends on seed and step alone.

    An epoch is an `order` of the samples, cut into steps of `batch_size`; the last one may be smaller. A step is
    dealt out to the processes, and in each to `accumulation` micro-batches: none is padded and some may be empty.

    Args:
        size: number of samples.
        batch_size: samples of a step, over all processes.
        stop: steps to go, counted from the beginning of the run.
        start: steps done before.
        accumulation: micro-batches of a step in a process.
        rank, world: this process, and how many there are.
        shards, window: see `order`.
        balance: the samples' classes, to draw each class equally often (`balanced_order`); None: each sample once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        stop: int,
        *,
        start: int = 0,
        accumulation: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shards: Sequence[int] = (),
        window: int | None = None,
        balance: Sequence[int] | None = None,
    ) -> None:
        if balance is not None and len(balance) != size:
            raise ValueError(f"balance has {len(balance)} classes, expected one for each of {size} samples")
        if balance is not None and window is not None:
            raise ValueError(
                f"balance draws samples from everywhere, window {window} from near each other: choose one; window=None "
                "shuffles all"
            )
        if min(size, batch_size, accumulation, world) < 1 or not 0 <= rank < world:
            raise ValueError(
                f"size {size}, batch_size {batch_size}, accumulation {accumulation} and world {world} must be 1 or "
                f"more, and rank {rank} below world"
            )
        self.size, self.batch_size, self.start, self.stop = size, batch_size, start, stop
        self.accumulation, self.seed, self.rank, self.world = accumulation, seed, rank, world
        self.shards, self.window, self.balance = shards, window, balance
        self.steps_per_epoch = -(-size // batch_size)

    def __len__(self) -> int:
        return max(self.stop - self.start, 0) * self.accumulation

    def __iter__(self) -> Iterator[list[Draw]]:
        draws: list[Draw] = []
        for step in range(self.start, self.stop):
            epoch, first = divmod(step, self.steps_per_epoch)
            if not draws or first == 0:
                draws = self._draws(epoch)
            mine = draws[first * self.batch_size : (first + 1) * self.batch_size]
            for part in range(self.accumulation):
                yield mine[self.rank + part * self.world :: self.world * self.accumulation]

    def _draws(self, epoch: int) -> list[Draw]:
        seed = seed_of(self.seed, epoch)
        if self.balance is not None:
            generator = torch.Generator().manual_seed(seed)
            return [Draw(sample, epoch, turn) for sample, turn in balanced_order(self.balance, generator)]
        return [Draw(i, epoch) for i in order(self.size, seed, self.shards, self.window)]


def order(size: int, seed: int, shards: Sequence[int] = (), window: int | None = None) -> list[int]:
    """The order of an epoch, which follows from the seed alone.

    Args:
        size: number of samples.
        shards: how many of them, in order, lie together; the shards are then permuted.
        window: so many samples of what follows from that, one window behind the other, are permuted; None: all samples
            are, so that shards do not matter.
    """
    generator = torch.Generator().manual_seed(seed)
    if window is None:
        return torch.randperm(size, generator=generator).tolist()
    if window < 1 or sum(shards) != size:
        raise ValueError(f"window {window} must be 1 or more, and shards of {sum(shards)} samples have all {size}")
    parts = torch.arange(size).split(list(shards))
    row = torch.cat([parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()])
    shuffled = [part[torch.randperm(len(part), generator=generator)] for part in row.split(window)]
    return torch.cat(shuffled).tolist()


def shares(size: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Batches of one process that, with those of the others, cover all samples; as many batches in each process.

    A process that has fewer samples gets sample 0 once more, so whoever gathers results keeps one for each index.
    """
    mine = list(range(rank, size, world))
    mine += [0] * (-(-size // world) - len(mine))
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
