"""A picture of a query beside its nearest neighbours, with times and similarity; for people."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.retrieval.library import Match
from timesformer_zoo.video.origin import name_of, origin_of
from timesformer_zoo.video.part import Part
from timesformer_zoo.video.reader import Frames, open_video
from timesformer_zoo.words import clock
from timesformer_zoo.writing import whole_file

__all__ = ["save_matches", "span"]

_FRAMES = 4  # of each, evenly spread
_HEIGHT = 96  # pixels of a frame

Picture = np.ndarray[Any, Any]  # (H, W, 3) uint8


def save_matches(
    path: str | os.PathLike[str],
    query: str | os.PathLike[str],
    matches: Sequence[Match],
    *,
    start: float | None = None,
    end: float | None = None,
) -> Path:
    """Draw what was looked for, then what was found, the nearest first: frames, time and similarity of each.

    Args:
        path: ends in .png, which needs matplotlib, or in .html, one file that needs no other.
        query, start, end: as `search` has them.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.
        WriteError: it can't be written.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(_WRITERS)}")
    rows = [(f"looked for: {_name(query)}", _times(start, end) or "all of it", _strip(os.fspath(query), start, end))]
    for match in matches:
        title = f"{match.similarity:.3f}  {_name(match.path)}"
        rows.append((title, span(match.start, match.end), _strip(match.path, match.start, match.end)))
    with whole_file(path) as partial:
        _WRITERS[path.suffix](rows, partial)
    return path


def span(start: float | None, end: float | None) -> str:
    """From when to when; of a video without a frame rate a dash."""
    return "-" if start is None or end is None else f"{clock(start, hours=True)} - {clock(end, hours=True)}"


def _times(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return ""
    return f"{clock(start or 0, hours=True)} - {'its end' if end is None else clock(end, hours=True)}"


def _name(path: str | os.PathLike[str]) -> str:
    name = name_of(origin_of(path))  # an address without what is secret in it
    return name if len(name) <= 60 else "…" + name[-59:]


def _strip(path: str, start: float | None, end: float | None) -> list[Picture] | str:
    """Frames of a part, or why there are none: the file may have gone since it was embedded."""
    try:
        video: Frames = open_video(path, isolated=True)
        if video.fps and (start is not None or end is not None):
            video = Part(video, start, end)
        count = min(_FRAMES, video.num_frames)
        frames = video.frames([video.num_frames * (2 * i + 1) // (2 * count) for i in range(count)])
        video.close()
    except VideoReadError as error:
        return str(error)
    return [_small(frame) for frame in frames.numpy()]


def _small(frame: Picture) -> Picture:
    from PIL import Image

    width = max(1, round(frame.shape[1] * _HEIGHT / frame.shape[0]))
    return np.asarray(Image.fromarray(frame).resize((width, _HEIGHT)))


Row = tuple[str, str, list[Picture] | str]


def _png(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    joined = [np.concatenate(strip, 1) if isinstance(strip, list) else None for *_, strip in rows]
    widest = max((strip.shape[1] for strip in joined if strip is not None), default=4 * _HEIGHT)
    figure = Figure(figsize=(max(widest / 100, 4.0), 1.3 * len(rows)), dpi=100, layout="constrained")
    for axes, (title, times, strip), image in zip(
        figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, joined, strict=True
    ):
        axes.set_axis_off()
        axes.set_title(f"{title}   {times}", loc="left", fontsize=8, pad=3)
        axes.set_xlim(0, widest)
        axes.set_ylim(_HEIGHT, 0)
        axes.set_aspect("equal", anchor="W")
        if image is not None:
            axes.imshow(image, extent=(0, image.shape[1], _HEIGHT, 0), interpolation="antialiased")
            axes.set_xlim(0, widest)
        else:
            axes.text(0, _HEIGHT / 2, str(strip), fontsize=7, va="center", wrap=True)
    figure.savefig(path, format="png")


_STYLE = """\
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
section { border-top: 1px solid #ccc; padding: 0.6em 0 }
section:first-of-type { border: 2px solid #888; padding: 0.6em }
p { margin: 0.2em 0; word-break: break-all }
span { color: #666 }
img { max-width: 25%; height: auto; vertical-align: top }"""


def _html(rows: Sequence[Row], path: Path) -> None:
    sections = []
    for title, times, strip in rows:
        shown = f"<p>{escape(strip)}</p>" if isinstance(strip, str) else "".join(map(_img, strip))
        sections.append(f"<section>\n<p>{escape(title)} <span>{escape(times)}</span></p>\n{shown}\n</section>")
    head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>What was found</title>'
    path.write_text("\n".join([head, f"<style>\n{_STYLE}\n</style>", *sections]) + "\n</html>\n", encoding="utf-8")


def _img(picture: Picture) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


_WRITERS = {".png": _png, ".html": _html}
