"""The five attention modes: which tokens attend to which, and the block that is made of them.

Legend: B batch, T frames, h w patch rows and columns, L = 1 + T·h·w tokens (class token first, then patches in
t h w order), D width, H heads, d = D / H. A step cuts the grid of patches into groups; G groups of S patches.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3 and figure 2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

import torch

__all__ = ["AttentionMode", "Cell", "Grid", "Step"]

Grid = tuple[int, int, int]
"""(T, h, w): frames, patch rows, patch columns."""

Cell = tuple[slice, slice, slice]
"""The part of a grid that a group may not reach out of."""


@dataclass(frozen=True)
class Step:
    """What one attention step attends over: every patch sees the patches of its group, and no others.

    A group varies along `axes` and is constant along the others, within one cell of the grid.
    """

    name: str
    axes: str  # the axes a patch attends along, out of "thw"
    halves: str = ""  # axes cut in two neighbouring halves, the first the longer one
    phases: str = ""  # axes cut in even and odd positions, that is, a stride of 2
    class_token: bool = True  # the class token joins each group, and its outputs are averaged over the groups

    def cells(self, grid: Grid) -> list[Cell]:
        """The cells that `grid` is cut into; an axis too short to be cut gives no empty cell."""

        def cuts(axis: str, size: int) -> list[slice]:
            if axis in self.halves and size > 1:
                return [slice(0, (size + 1) // 2), slice((size + 1) // 2, None)]
            if axis in self.phases and size > 1:
                return [slice(0, None, 2), slice(1, None, 2)]
            return [slice(None)]

        t, h, w = (cuts(axis, size) for axis, size in zip("thw", grid, strict=True))
        return list(itertools.product(t, h, w))

    def groups(self, patches: torch.Tensor, cell: Cell) -> torch.Tensor:
        """A view of the patches (B, T, h, w, D) of one cell: (B, *axes that number groups, *axes attended, D)."""
        t, h, w = cell
        return self._attended_last(patches[:, t, h, w])

    def views(self, patches: torch.Tensor, grid: Grid) -> list[torch.Tensor]:
        """All groups as views of the patches (B, T, h, w, D), each (B, *axes that number groups, *axes attended, D).

        Cells of equal size are one view, and the first axes number them; otherwise there is a view for each cell.
        """
        if not self.even(grid):
            return [self.groups(patches, cell) for cell in self.cells(grid)]
        for axis, i in self._cut(grid):
            patches = patches.unflatten(i, (2, -1) if axis in self.halves else (-1, 2))
            patches = patches.movedim(i if axis in self.halves else i + 1, 1)
        return [self._attended_last(patches)]

    def ungroup(self, outputs: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The inverse of `views`: (B, T, h, w, D)."""
        if not self.even(grid):
            patches = outputs[0].new_empty(outputs[0].shape[0], *grid, outputs[0].shape[-1])
            for cell, groups in zip(self.cells(grid), outputs, strict=True):
                self.groups(patches, cell).copy_(groups)
            return patches
        cut = self._cut(grid)
        patches = outputs[0].squeeze(1) if len(self.axes) == 3 and not cut else outputs[0]
        order = self._order(len(cut))
        patches = patches.permute([order.index(i) for i in range(len(order))])
        for axis, i in reversed(cut):
            patches = patches.movedim(1, i if axis in self.halves else i + 1).flatten(i, i + 1)
        return patches

    def even(self, grid: Grid) -> bool:
        """Whether all cells are of equal size."""
        return all(grid["thw".index(axis)] % 2 == 0 for axis, _ in self._cut(grid))

    def _cut(self, grid: Grid) -> list[tuple[str, int]]:
        """The axes that are cut, last first, and where each lies once those before it lead the grid as cells."""
        axes = [axis for axis, size in zip("thw", grid, strict=True) if axis in self.halves + self.phases and size > 1]
        return [(axis, 1 + "thw".index(axis) + n) for n, axis in enumerate(reversed(axes))]

    def _order(self, cuts: int) -> list[int]:
        """Permutation of B *cells T h w D: batch, all axes that number the groups, `axes`, width."""
        grid = list(enumerate("thw", 1 + cuts))
        numbering = [i for i, axis in grid if axis not in self.axes]
        return [*range(1 + cuts), *numbering, *(i for i, axis in grid if axis in self.axes), 4 + cuts]

    def _attended_last(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, *cells, T, h, w, D) -> (B, *axes that number groups, *axes attended, D)."""
        view = patches.permute(self._order(patches.ndim - 5))
        return view if view.ndim - 2 > len(self.axes) else view.unsqueeze(1)


SPACE = Step("space", axes="hw")
SPACE_TIME = Step("space_time", axes="thw")
TIME = Step("time", axes="t", class_token=False)  # as in the authors' code; the paper's equation lets it join
LOCAL = Step("local", axes="thw", halves="hw")
SPARSE_GLOBAL = Step("sparse_global", axes="thw", phases="thw")  # a module named "global" would break torch.export
WIDTH = Step("width", axes="w")
HEIGHT = Step("height", axes="h")


class AttentionMode(str, Enum):
    """The attention modes of the paper's Table 1. A mode is its steps, in the order in which a block takes them."""

    steps: tuple[Step, ...]
    per_frame: bool  # every frame keeps a class token of its own, and there is no time embedding

    SPACE_ONLY = "space_only", (SPACE,), True
    JOINT = "joint", (SPACE_TIME,)
    DIVIDED = "divided", (TIME, SPACE)
    LOCAL_GLOBAL = "local_global", (LOCAL, SPARSE_GLOBAL)
    AXIAL = "axial", (TIME, WIDTH, HEIGHT)

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
