"""Frames with a heat map over them, in its place.

Legend: T frames, H W pixels, h w patch rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "overlay", "paint", "require_matplotlib"]

COLOURS = "inferno"  # its lightness only rises, so a print in grey keeps the order
_OPACITY = (0.3, 0.9)  # of the lowest and the highest value
_DARK = 0.55  # of a frame under its map: else its own lights would be taken for high values in a print in grey
_CONTOUR = 0.5  # of the highest value: what lies above is outlined
_GREY = (0.299, 0.587, 0.114)

Place = tuple[float, float, float, float]  # top, left, height, width, in pixels of a frame


def require_matplotlib() -> Any:
    """matplotlib. Raises ModuleNotFoundError, which says what to install."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        problem = "pictures need matplotlib: pip install 'timesformer-zoo[plots]'"
        raise ModuleNotFoundError(problem, name=error.name) from None
    return matplotlib


def paint(
    frames: torch.Tensor, heat: torch.Tensor, box: Place, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames scaled to a size, and the same in grey and dark under their heat map.

    A colour stands for a value; where the value is over half of the highest there is, a white line is drawn around.
    Outside of the box, where the model saw nothing, the frame is grey alone.

    Args:
        frames: (T, H, W, 3), uint8.
        heat: (T, h, w), of which values below 0 count as 0.
        box: where in a frame the map lies; it may reach beyond the frame.
        size: (height, width) of what comes back.

    Returns:
        Both (T, *size, 3), uint8.
    """
    height, width = size
    y, x = height / frames.shape[1], width / frames.shape[2]
    plain = _scaled(frames, size)
    colours = torch.tensor(require_matplotlib().colormaps[COLOURS].resampled(256).colors)[:, :3].float() * 255
    top, left = round(box[0] * y), round(box[1] * x)
    high, wide = max(1, round(box[2] * y)), max(1, round(box[3] * x))
    bottom, right = min(top + high, height), min(left + wide, width)
    heat = heat.float().clamp(min=0)
    heat = heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
    painted = []
    for picture, values in zip(plain, heat, strict=True):
        grey = (picture.float() @ torch.tensor(_GREY))[..., None].expand(-1, -1, 3)
        image = _DARK * grey
        smooth = F.interpolate(values[None, None], (high, wide), mode="bilinear", align_corners=False)
        smooth = smooth[..., : bottom - top, : right - left]
        above = (smooth >= _CONTOUR).float()
        line = (F.max_pool2d(above, 3, 1, 1) - above)[0, 0, ..., None]
        over = colours[(smooth[0, 0] * 255).round().long()]
        opacity = _OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * smooth[0, 0, ..., None]
        inside = (1 - opacity) * image[top:bottom, left:right] + opacity * over
        image[top:bottom, left:right] = (1 - line) * inside + line * 255
        if (top, left, bottom, right) != (0, 0, height, width):
            _outline(image, top, left, bottom, right)
        painted.append(image.round().clamp(0, 255).to(torch.uint8))
    return plain, torch.stack(painted)


def _scaled(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(frames.shape[1:3]) == size:
        return frames
    parts = [
        F.interpolate(frame.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        for frame in frames
    ]
    return torch.stack(parts)


def _outline(image: torch.Tensor, top: int, left: int, bottom: int, right: int) -> None:
    image[top:bottom, [left, right - 1]] = 200.0
    image[[top, bottom - 1], left:right] = 200.0


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
    require_matplotlib()
    from matplotlib.figure import Figure

    if len(frames) != len(relevance):
        raise ValueError(f"Expected relevance for each of {len(frames)} frames, got {len(relevance)}: (T, h, w).")
    height, width = frames.shape[1:3]
    rows, columns = relevance.shape[1:]
    if box is None and height * columns != width * rows:
        raise ValueError(
            f"A map of {rows} × {columns} patches is not of all of a frame of {height} × {width} pixels: give the "
            "frames as they were cropped, or say where in them the map lies, by box."
        )
    top, left, high, wide = (0, 0, height, width) if box is None else box
    heat = relevance.float().cpu().numpy()
    figure = Figure(figsize=(2 * len(frames), 2 * height / width), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(frames), squeeze=False)[0]):
        axes.imshow(frames[i].cpu().numpy(), extent=(0, width, height, 0))
        axes.imshow(
            heat[i], COLOURS, alpha=alpha, vmin=0, vmax=heat.max(), extent=(left, left + wide, top + high, top),
            interpolation="bilinear",
        )  # fmt: skip
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
    return figure
