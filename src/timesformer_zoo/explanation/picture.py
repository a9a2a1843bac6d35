"""Frames with a heat map over them, in its place.

Legend: T frames, H W pixels, h w patch rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlay"]

Place = tuple[float, float, float, float]  # top, left, height, width, in pixels of a frame


def overlay(frames: torch.Tensor, relevance: torch.Tensor, alpha: float = 0.5, *, box: Place | None = None) -> Figure:
    """A picture of the frames in a row, with relevance over them as a heat map of one scale.

        frames = (clip[0].permute(1, 2, 3, 0) * std + mean).clamp(0, 1)
        overlay(frames, rollout(model, clip)[0]).savefig("rollout.png")

    Args:
        frames: (T, H, W, 3), uint8, or float in [0, 1]: what the model saw; with a box also what it was cropped from.
        relevance: (T, h, w).
        alpha: opacity of the heat map, from 0 to 1.
        box: where in a frame the map lies: top, left, height, width in pixels, as `Explanation.box`; None: on all of
            it, its patches being square.

    Returns:
        A matplotlib figure, not shown; it belongs to no window and needs no display.

    Raises:
        ImportError: matplotlib is not installed: pip install timesformer-zoo[plots].
        ValueError: the two have not as many frames; or without a box, their shapes are not alike, so that the map is
            of a part of the frames.
    """
    from matplotlib.figure import Figure

    if len(frames) != len(relevance):
        raise ValueError(f"Expected relevance for each of {len(frames)} frames, got {len(relevance)}: (T, h, w).")
    height, width = frames.shape[1:3]
    rows, columns = relevance.shape[1:]
    if box is None and height * columns != width * rows:
        raise ValueError(
            f"A map of {rows} × {columns} patches is not of all of a frame of {height} × {width} pixels: give the frames "
            "as they were cropped, or say where in them the map lies, by box."
        )
    top, left, high, wide = (0, 0, height, width) if box is None else box
    heat = relevance.float().cpu().numpy()
    figure = Figure(figsize=(2 * len(frames), 2 * height / width), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(frames), squeeze=False)[0]):
        axes.imshow(frames[i].cpu().numpy(), extent=(0, width, height, 0))
        axes.imshow(
            heat[i], "inferno", alpha=alpha, vmin=0, vmax=heat.max(), extent=(left, left + wide, top + high, top),
            interpolation="bilinear",
        )  # fmt: skip
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
    return figure
