"""An epoch that draws each class equally often, whatever the classes' sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["balanced_order"]


def balanced_order(targets: Sequence[int], generator: torch.Generator) -> list[tuple[int, int]]:
    """(sample, turn) of each draw of an epoch, as many as there are samples.

    Every class that has samples is drawn equally often, give or take one. In a class every sample comes up once before
    any does again, so a sample of a small class has several turns, and of a large class only some have one.

    Args:
        targets: each sample's class.
        generator: of all that is random.
    """
    members: dict[int, list[int]] = {}
    for sample, target in enumerate(targets):
        members.setdefault(target, []).append(sample)
    classes = sorted(members)
    share, rest = divmod(len(targets), len(classes))
    one_more = set(torch.randperm(len(classes), generator=generator)[:rest].tolist())
    draws: list[tuple[int, int]] = []
    for i, target in enumerate(classes):
        samples, count = members[target], share + (i in one_more)
        for turn in range(-(-count // len(samples))):
            order = torch.randperm(len(samples), generator=generator).tolist()
            draws += [(samples[j], turn) for j in order[: count - turn * len(samples)]]
    return [draws[i] for i in torch.randperm(len(draws), generator=generator).tolist()]
