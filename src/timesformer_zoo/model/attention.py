"""The attention modes: which tokens attend to which. A step's grouping is an einops pattern, a mode is its steps.

Legend: B batch, T frames, h w patch rows and columns, D width. A step cuts the grid of patches into groups: G groups
of S patches.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3 and figure 2. `frozen` is of Bain, Nagrani, Varol, Zisserman, "Frozen in Time: A Joint Video
and Image Encoder for End-to-End Retrieval", ICCV 2021, arXiv 2104.00650, section 3.1 and figure 2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

import torch
from einops import rearrange

__all__ = ["AttentionMode", "Cell", "Grid", "Step"]

Grid = tuple[int, int, int]
"""(T, h, w): frames, patch rows, patch columns."""


class Cell(NamedTuple):
    """A part of the grid out of which no group reaches, and how a pattern cuts it further."""

    slices: tuple[slice, slice, slice]  # along t, h, w
    cuts: dict[str, int]  # letter of the pattern -> into how many parts it cuts its axis


@dataclass(frozen=True)
class Step:
    """What one attention step attends over: every patch sees the patches of its group, and no others.

    Left of the arrow is the grid of patches. A pair there cuts an axis in two: `(i h)` into neighbouring halves, the
    first the longer one, and `(h i)` into even and odd positions, that is, a stride of 2. Right of the arrow are the
    axes that number the groups, then those along which a patch attends.
    """

    name: str
    pattern: str
    class_token: bool = True  # the class token joins each group, and its outputs are averaged over the groups
    class_sees_all: bool = False  # it joins each group to be seen, and itself attends to all tokens of the clip at once
    onto: Literal["step", "block"] = "step"  # what the outputs are added to: the step's input, or the block's
    linear: bool = True  # a linear layer follows the projection, but in a block's last step
    drops_path: bool = True  # in training by the block's rate
    axes: str = field(init=False)  # that a patch attends along, out of "thw"
    axis: int | None = field(init=False)  # of (B, T, h, w, D), if a patch attends to a whole one and to nothing else
    pairs: dict[str, str] = field(init=False, compare=False)  # axis -> the pair that cuts it: {"h": "ih"}

    def __post_init__(self) -> None:
        # Read once: torch's compiler would follow a regular expression.
        left, right = self.pattern.split(" -> ")
        groups = [many or one for many, one in re.findall(r"\(([\w ]+)\)|(\w)", right)]  # numbering, attended, d
        pairs = [a + b for a, b in re.findall(r"\((\w) (\w)\)", left)]
        object.__setattr__(self, "axes", groups[1].replace(" ", ""))
        whole = len(self.axes) == 1 and not pairs and not self.class_token
        object.__setattr__(self, "axis", 1 + "thw".index(self.axes) if whole else None)
        object.__setattr__(self, "pairs", {axis: pair for pair in pairs for axis in pair if axis in "thw"})

    def cells(self, grid: Grid) -> list[Cell]:
        """The cells of a grid, the last axis fastest: one if the pattern cuts it evenly, else one for each part."""
        letters = [pair.replace(axis, "") for axis, pair in self.pairs.items()]
        if all(size % 2 == 0 for axis, size in zip("thw", grid, strict=True) if axis in self.pairs):
            return [Cell((slice(None), slice(None), slice(None)), dict.fromkeys(letters, 2))]

        def parts(axis: str, size: int) -> list[slice]:
            if axis not in self.pairs or size == 1:
                return [slice(None)]
            if self.pairs[axis][1] == axis:  # (i h)
                return [slice(0, (size + 1) // 2), slice((size + 1) // 2, None)]
            return [slice(0, None, 2), slice(1, None, 2)]

        t, h, w = (parts(axis, size) for axis, size in zip("thw", grid, strict=True))
        return [Cell(slices, dict.fromkeys(letters, 1)) for slices in itertools.product(t, h, w)]

    def view(self, patches: torch.Tensor, cell: Cell) -> torch.Tensor:
        """The patches (B, T, h, w, D) of one cell as (B, *axes that number groups, *axes attended, D), without a copy.

        What is written to it is written to the patches.
        """
        t, h, w = cell.slices
        left, right = self.pattern.split(" -> ")
        return rearrange(patches[:, t, h, w], f"{left} -> {_apart(right)}", **cell.cuts)

    def groups(self, patches: torch.Tensor, cell: Cell) -> torch.Tensor:
        """The same as (B, *axes that number groups, S, D)."""
        return self.view(patches, cell).flatten(-1 - len(self.axes), -2)

    def ungroup(self, views: Sequence[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The inverse of `view` over all cells: (B, T, h, w, D)."""
        left, right = self.pattern.split(" -> ")
        if len(views) == 1:
            return rearrange(views[0], f"{_apart(right)} -> {left}")
        patches = views[0].new_empty(views[0].shape[0], *grid, views[0].shape[-1])
        for cell, view in zip(self.cells(grid), views, strict=True):
            self.view(patches, cell).copy_(view)
        return patches


def _apart(axes: str) -> str:
    """Axes that are not merged: a merge of them may have to copy."""
    return axes.replace("(", "").replace(")", "")


SPACE = Step("space", "b t h w d -> (b t) (h w) d")
SPACE_TIME = Step("space_time", "b t h w d -> b (t h w) d")
# The class token does not join, as in the authors' code; the paper's equation lets it.
TIME = Step("time", "b t h w d -> (b h w) t d", class_token=False)
LOCAL = Step("local", "b t (i h) (j w) d -> (b i j) (t h w) d")
# A module named "global" would break torch.export.
SPARSE_GLOBAL = Step("sparse_global", "b (t i) (h j) (w k) d -> (b i j k) (t h w) d")
WIDTH = Step("width", "b t h w d -> (b t h) w d")
HEIGHT = Step("height", "b t h w d -> (b t w) h d")
# What Frozen in Time's code does. The time step's outputs are what the space step looks at, and nothing else.
FROZEN_TIME = Step("time", TIME.pattern, class_sees_all=True, linear=False, drops_path=False)
FROZEN_SPACE = Step("space", SPACE.pattern, class_sees_all=True, onto="block")


class AttentionMode(str, Enum):
    """The attention modes of the paper's Table 1, and Frozen in Time's. A mode is its steps, in a block's order."""

    steps: tuple[Step, ...]
    per_frame: bool  # every frame keeps a class token of its own, and there is no time embedding

    SPACE_ONLY = "space_only", (SPACE,), True
    JOINT = "joint", (SPACE_TIME,)
    DIVIDED = "divided", (TIME, SPACE)
    LOCAL_GLOBAL = "local_global", (LOCAL, SPARSE_GLOBAL)
    AXIAL = "axial", (TIME, WIDTH, HEIGHT)
    FROZEN = "frozen", (FROZEN_TIME, FROZEN_SPACE)

    def __new__(cls, value: str, steps: tuple[Step, ...] = (), per_frame: bool = False) -> AttentionMode:
        member = str.__new__(cls, value)
        member._value_ = value
        member.steps = steps
        member.per_frame = per_frame
        return member

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def _missing_(cls, value: object) -> AttentionMode:
        for mode in cls:  # the authors' spellings: divided_space_time, joint_space_time
            if value == f"{mode.value}_space_time":
                return mode
        raise ValueError(f"Unknown attention mode {value!r}. Choose one of: {', '.join(mode.value for mode in cls)}.")
