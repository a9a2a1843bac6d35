"""An explanation as a figure: all frames as a grid, or one after the other.

Drawn in pixels of one axes: 96 frames are 192 pictures, which as axes of their own would take matplotlib minutes.

Legend: T frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timesformer_zoo.explanation.picture import COLOURS, paint, require_matplotlib
from timesformer_zoo.video.remote import masked
from timesformer_zoo.words import clock

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from timesformer_zoo.explanation.explain import Explanation

__all__ = ["draw_grid", "frame_pictures", "headline", "when"]

Image = npt.NDArray[np.uint8]

_DPI = 100
_GAP = 8  # between pictures, in pixels
_STRIP = 34  # under a picture of the grid: its bar, and its time
_HEAD = 64  # above all
_SCALE = 110  # to the right of all: the colours
_BAR = "#3b6fb6"
_NOW = "#c8102e"


def headline(explanation: Explanation) -> str:
    """What is explained: the label, its probability, and the prediction where that is another."""
    words = explanation.label
    if explanation.probability is None:
        words += f" = {explanation.prediction.values[explanation.label]:.4g}"
    else:
        words += f" {explanation.probability:.1%}"
    top = explanation.prediction.top
    if top and top[0].class_index != explanation.class_index:
        words += f"  (the likeliest is {top[0].label}, {top[0].probability:.1%})"
    return words


def when(explanation: Explanation, frame: int) -> str:
    """When a frame is shown, as 0:01.27; its number where there is no frame rate."""
    if explanation.times is None:
        return f"frame {frame}"
    return clock(explanation.times[frame], decimals=2)


def draw_grid(explanation: Explanation) -> Figure:
    """All frames, each above its overlay, with its time, and its weight as a bar."""
    count, height, width, _ = explanation.frames.shape
    columns, cell = _columns(count, width / height)
    rows = -(-count // columns)
    high = max(1, round(cell * height / width))
    plain, painted = (
        part.numpy() for part in paint(explanation.frames, explanation.map, explanation.box, (high, cell))
    )
    tall = 2 * high + _STRIP + _GAP
    wide = max(columns * (cell + _GAP) + _GAP, 560)
    sheet = np.full((rows * tall, wide, 3), 255, np.uint8)
    weights = explanation.time_weights.numpy()
    figure, _, axes = _canvas(
        sheet.shape[1] + _SCALE, sheet.shape[0] + _HEAD + _GAP, sheet.shape[1], sheet.shape[0], _HEAD
    )
    for t in range(count):
        y, x = t // columns * tall, _GAP + t % columns * (cell + _GAP)
        sheet[y : y + high, x : x + cell] = plain[t]
        sheet[y + high + 2 : y + 2 * high + 2, x : x + cell] = painted[t]
        under = y + 2 * high + 4
        axes.add_patch(_rectangle(x, under, cell, 6, "#e4e4e4"))
        axes.add_patch(_rectangle(x, under, cell * weights[t] / max(weights.max(), 1e-30), 6, _BAR))
        text = when(explanation, t) + f" · {weights[t]:.{int(count > 12)}%}"
        axes.text(x, under + 9, text, fontsize=7, va="top", parse_math=False)
    axes.imshow(sheet, extent=(0, sheet.shape[1], sheet.shape[0], 0), interpolation="none")
    _title(figure, explanation, "Each frame above its overlay. Bar: the frame's share of the whole map.")
    _colours(figure, explanation, sheet.shape[1], _HEAD, min(sheet.shape[0], 2 * tall) - _STRIP)
    return figure


def frame_pictures(explanation: Explanation) -> Iterator[Image]:
    """For each frame a picture of it beside its overlay, with all weights below; of an even height and width."""
    count, height, width, _ = explanation.frames.shape
    high = min(360, max(160, round(440 * height / width)))
    wide = max(1, round(high * width / height))
    plain, painted = (
        part.numpy() for part in paint(explanation.frames, explanation.map, explanation.box, (high, wide))
    )
    below = 110
    full = max(2 * wide + 3 * _GAP, 480)
    total_w, total_h = full + _SCALE, _HEAD + high + below
    figure, canvas, axes = _canvas(total_w + total_w % 2, total_h + total_h % 2, full, high, _HEAD)
    left = (full - 2 * wide - _GAP) // 2
    extents = [(left, left + wide, high, 0), (left + wide + _GAP, left + 2 * wide + _GAP, high, 0)]
    shown = [
        axes.imshow(part[0], extent=extent, interpolation="none")
        for part, extent in zip((plain, painted), extents, strict=True)
    ]
    axes.set(xlim=(0, full), ylim=(high, 0))
    _title(figure, explanation, "")
    _colours(figure, explanation, full, _HEAD, high)
    margin = left + 16  # for half of the first time and of the last
    bars, patches = _weights(figure, explanation, margin, full - 2 * margin, below)
    now = bars.text(0, 1.07, "", transform=bars.transAxes, fontsize=9, va="bottom", parse_math=False)
    weights = explanation.time_weights
    for t in range(count):
        for image, part in zip(shown, (plain, painted), strict=True):
            image.set_data(part[t])
        patches[t].set_color(_NOW)
        now.set_text(f"{when(explanation, t)}  ·  frame {t + 1} of {count}  ·  {weights[t]:.1%} of the map")
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        patches[t].set_color(_BAR)


def _columns(count: int, aspect: float) -> tuple[int, int]:
    """How many frames in a row, and how wide each is, in pixels; of tall frames more and narrower ones."""
    columns = count if count <= 8 else 8 if count <= 40 else 12
    cell = 260 if count <= 4 else 190 if count <= 8 else 160 if count <= 40 else 128
    return columns, max(72, round(cell * min(1.0, aspect)))


def _canvas(width: int, height: int, inner: int, tall: int, top: int) -> tuple[Figure, FigureCanvasAgg, Any]:
    """A figure of so many pixels, its canvas, and axes in units of pixels, `top` below its upper edge, at its left."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 1 - (top + tall) / height, inner / width, tall / height))
    axes.set(xlim=(0, inner), ylim=(tall, 0))
    axes.set_axis_off()
    return figure, canvas, axes


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="none")


def _title(figure: Figure, explanation: Explanation, more: str) -> None:
    height = figure.get_figheight() * _DPI
    place: dict[str, Any] = dict(ha="left", va="top", parse_math=False)
    x = _GAP / (figure.get_figwidth() * _DPI)
    room = round((figure.get_figwidth() * _DPI - _GAP) / 8.6)
    figure.text(x, 1 - 7 / height, _cut(headline(explanation), room), fontsize=12, weight="bold", **place)
    name = os.path.basename(masked(explanation.path).rstrip("/"))
    about = f"{name} · {explanation.words[0]}"
    figure.text(x, 1 - 28 / height, _cut(about, round(room * 1.35)), fontsize=9, color="#444444", **place)
    if more:
        figure.text(x, 1 - 44 / height, _cut(more, round(room * 1.35)), fontsize=8, color="#444444", **place)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _colours(figure: Figure, explanation: Explanation, left: int, top: int, tall: int) -> None:
    """The colour bar, from nothing to the highest value, with the line that is drawn around what is over half of it."""
    width, height = figure.get_figwidth() * _DPI, figure.get_figheight() * _DPI
    tall = min(tall, 360)
    axes = figure.add_axes(((left + 14) / width, 1 - (top + tall) / height, 14 / width, tall / height))
    axes.imshow(np.linspace(1, 0, 256)[:, None], COLOURS, aspect="auto", extent=(0, 1, 0, 1))
    axes.axhline(0.5, color="white", linewidth=1.5)
    highest = explanation.map.max().clamp(min=0).item()
    axes.set_yticks([0, 0.5, 1], ["0", "half", f"{highest:.2g}"], fontsize=8)
    axes.yaxis.tick_right()
    axes.set_xticks([])
    axes.set_ylabel(explanation.words[1], fontsize=8)
    axes.yaxis.set_label_position("right")


def _weights(figure: Figure, explanation: Explanation, left: int, wide: int, tall: int) -> tuple[Any, Any]:
    """A bar a frame."""
    width, height = figure.get_figwidth() * _DPI, figure.get_figheight() * _DPI
    weights = explanation.time_weights.numpy()
    axes = figure.add_axes((left / width, 24 / height, wide / width, (tall - 54) / height))
    bars = axes.bar(range(len(weights)), weights, width=0.9 if len(weights) <= 40 else 1.0, color=_BAR)
    axes.set(xlim=(-0.5, len(weights) - 0.5), ylim=(0, max(weights.max(), 1e-30)), yticks=[])
    every = max(1, -(-len(weights) * 52 // wide))
    ticks = list(range(0, len(weights), every))
    axes.set_xticks(ticks, [when(explanation, t) for t in ticks], fontsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return axes, bars
