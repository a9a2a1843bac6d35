"""The picture of a timeline: pictures of the video, a lane for each label, and how sure the model is.

A lane says by its place what a colour says elsewhere, so that the picture reads in grey print, too. What is unclear is
pale and hatched one way, what could not be read is crossed out over all lanes.
"""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from timesformer_zoo.timelines.result import Timeline
from timesformer_zoo.timelines.thumbnails import middles, short, thumbnails
from timesformer_zoo.words import clock, counted
from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["OTHERS", "lanes_of", "write_png"]

OTHERS = "other labels"
_LANES = 12  # at most; labels with less time share one
_WIDTH, _DPI = 14.0, 110  # inches; pixels an inch
_THUMBNAIL = 0.095  # of the time axis
_SHARE = 0.8  # of the height of their row; below them are lines to their moments
_POINTS = 700  # of the curve: of more windows the range and the mean of each stretch are drawn
_COLOUR, _PALE, _DARK = "#2f6690", "#c9dbe8", "#16324a"
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)  # seconds


def lanes_of(timeline: Timeline) -> dict[str, str]:
    """Label -> its lane, those with the most time first."""
    seconds: dict[str, float] = {}
    for part in timeline.segments:
        seconds[part.label] = seconds.get(part.label, 0.0) + part.end - part.start
    ranked = sorted(seconds, key=lambda label: -seconds[label])
    return {label: label if len(ranked) <= _LANES or i < _LANES - 1 else OTHERS for i, label in enumerate(ranked)}


def write_png(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Needs matplotlib. Errors are those of `Timeline.save`."""
    from matplotlib.figure import Figure

    lanes = list(dict.fromkeys(lanes_of(timeline).values()))
    names = [short(lane) for lane in lanes]
    left = max(0.9, 0.35 + 0.073 * max(map(len, names), default=0))  # inches, as are all below
    axis = _WIDTH - left - 0.45
    times = middles(timeline.segments, timeline.duration, _THUMBNAIL * 1.08 * timeline.duration)
    small = list(thumbnails(timeline, times, 320))
    shapes = [picture.height / picture.width for picture in small if picture is not None]
    heights = [axis * _THUMBNAIL * max(shapes, default=0.5) / _SHARE, 0.28 * max(len(lanes), 2) + 0.1, 1.1]
    above, between, below = 0.45, 0.12, 0.35
    height = above + sum(heights) + 2 * between + below
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    edge = height - above
    for axes, tall in zip((top, middle, bottom), heights, strict=True):
        axes.set_position((left / _WIDTH, (edge - tall) / height, axis / _WIDTH, tall / height))
        edge -= tall + between
    _draw_thumbnails(top, timeline, times, small)
    _draw_lanes(middle, timeline, lanes, names)
    _draw_sureness(bottom, timeline)
    bottom.set_xlim(0, timeline.duration)
    step = next((step for step in _STEPS if timeline.duration / step <= 14), _STEPS[-1])
    ticks = np.arange(0, timeline.duration + 1e-6, step)
    bottom.set_xticks(ticks, [clock(tick, 0, hours=True) for tick in ticks])
    figure.text(0.1 / _WIDTH, 1 - 0.12 / height, _title(timeline), fontsize=11, va="top", parse_math=False)
    notes = ["pale and hatched: unclear"] * any(part.unclear for part in timeline.segments)
    notes += ["crossed out: could not be read"] * bool(timeline.gaps)
    figure.text(1 - 0.45 / _WIDTH, 1 - 0.12 / height, "; ".join(notes), fontsize=9, color="0.3", ha="right", va="top")
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _title(timeline: Timeline) -> str:
    said = f"{counted(len(timeline.segments), 'segments')} in {clock(timeline.duration, 0, hours=True)}"
    if timeline.smoothing:
        said += f", smoothed over {timeline.smoothing:g} s"
    return f"{os.path.basename(timeline.path.rstrip(os.sep))}   ({said})"


def _draw_thumbnails(axes: Axes, timeline: Timeline, times: list[float], pictures: list[Any]) -> None:
    axes.set_ylim(0, 1)
    axes.axis("off")
    half = _THUMBNAIL / 2 * timeline.duration
    for time, picture in zip(times, pictures, strict=True):
        centre = min(max(time, half), timeline.duration - half)
        axes.plot([time, time, centre], [0, (1 - _SHARE) / 2, 1 - _SHARE], color="0.5", linewidth=0.8, clip_on=False)
        if picture is not None:
            axes.imshow(
                np.asarray(picture), extent=(centre - half, centre + half, 1 - _SHARE, 1), aspect="auto", zorder=2
            )
        across = [centre - half, centre + half, centre + half, centre - half, centre - half]
        box = (across, [1 - _SHARE, 1 - _SHARE, 1, 1, 1 - _SHARE])
        axes.plot(*box, color="0.3", linewidth=0.8, zorder=3, clip_on=False)
    axes.set_xlim(0, timeline.duration)
    axes.set_ylim(0, 1)


def _draw_lanes(axes: Axes, timeline: Timeline, lanes: list[str], names: list[str]) -> None:
    lane_of = lanes_of(timeline)
    pixel = timeline.duration / (_WIDTH * _DPI)
    for unclear, thin in product((False, True), repeat=2):
        parts = [p for p in timeline.segments if p.unclear == unclear and (p.end - p.start < 6 * pixel) == thin]
        style: dict[str, Any] = dict(facecolor=_COLOUR, edgecolor="white", linewidth=0.6)
        if unclear:
            style = dict(facecolor=_PALE, edgecolor=_DARK, hatch="////", linewidth=0.4)
        if thin:  # of which an edge or a hatch would leave nothing to see
            style = dict(facecolor=_PALE if unclear else _COLOUR, linewidth=0)
        rows = [lanes.index(lane_of[part.label]) for part in parts]
        starts = np.array([part.start for part in parts])
        widths = np.array([max(part.end - part.start, 1.5 * pixel) for part in parts])
        axes.barh(rows, widths, left=starts, height=0.72, **style)
    for gap in timeline.gaps:
        axes.axvspan(gap.start, gap.end, facecolor="white", edgecolor="0.35", hatch="xxx", linewidth=0.6, zorder=3)
    for row in range(len(lanes)):
        axes.axhline(row + 0.5, color="0.85", linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(lanes)), names, fontsize=10, parse_math=False)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.tick_params(axis="both", length=0)
    axes.tick_params(axis="x", labelbottom=False)


def _draw_sureness(axes: Axes, timeline: Timeline) -> None:
    times = np.array([((window.start or 0) + (window.end or 0)) / 2 for window in timeline.windows])
    values = np.array([window.top[0].probability for window in timeline.windows])
    many = -(-len(times) // _POINTS)  # windows of a stretch
    stretches = [np.arange(first, min(first + many, len(times))) for first in range(0, len(times), many)]
    middles = [times[part].mean() for part in stretches]
    for gap in timeline.gaps:
        axes.axvspan(gap.start, gap.end, facecolor="white", edgecolor="0.35", hatch="xxx", linewidth=0.6, zorder=3)
    if many > 1:
        low, high = ([pick(values[part]) for part in stretches] for pick in (np.min, np.max))
        axes.fill_between(middles, low, high, color="0.85", linewidth=0)
    axes.plot(middles, [values[part].mean() for part in stretches], color=_DARK, linewidth=1.0)
    axes.axhline(0.5, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_ylabel("sureness", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
