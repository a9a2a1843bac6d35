"""The videos that an evaluation got most wrong: as lines of text, and as a page with pictures of them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from html import escape
from pathlib import Path

from PIL import Image

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.train.evaluation import Evaluation, Outcome
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.reader import open_video
from timesformer_zoo.video.remote import shown
from timesformer_zoo.words import counted
from timesformer_zoo.writing import whole_file

__all__ = ["save_worst", "worst_in_words"]

_STYLE = """\
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
section { border-top: 1px solid #ccc; padding: 0.8em 0 }
img { height: 96px; margin-right: 4px }
p { margin: 0.2em 0 }
.path { color: #666; word-break: break-all }"""


def worst_in_words(result: Evaluation, count: int) -> str:
    """A line for each of the videos with the highest loss, the worst first: loss, target, what was predicted, path."""
    videos = result.worst(count)
    lines = [f"worst {len(videos)} of {counted(result.count, 'videos')}, by loss:"]
    return "\n".join(lines + [f"  {v.loss:7.3f}  {_target(v)} -> {_said(v)}  {_place(v)}" for v in videos])


def save_worst(
    result: Evaluation, path: str | os.PathLike[str], count: int = 20, *, frames: int = 6, height: int = 96
) -> Path:
    """Write the videos with the highest loss as one HTML file, which needs neither a network nor another file.

    Args:
        path: of the page.
        count: of the videos.
        frames: of each video, spread evenly over the part of it that was evaluated.
        height: of a picture, in pixels.

    Returns:
        The path.
    """
    number = f"{min(count, result.count)} of {counted(result.count, 'videos')}"
    title = escape(f"{result.data} {result.split}: the worst {number}")
    sections = [_section(video, result.content, frames, height) for video in result.worst(count)]
    head = ['<!doctype html>\n<html lang="en">\n<meta charset="utf-8">', f"<title>{title}</title>"]
    head += [f"<style>\n{_STYLE}\n</style>", f"<h1>{title}</h1>", f"<p>{escape(result.summary().splitlines()[0])}</p>"]
    path = Path(path)
    with whole_file(path) as partial:
        partial.write_text("\n".join([*head, *sections]) + "\n</html>\n", encoding="utf-8")
    return path


def _section(video: Outcome, content: Callable[[str], Readable] | None, frames: int, height: int) -> str:
    try:
        pictures = "".join(f'<img alt="" src="{_picture(p)}">' for p in _thumbnails(video, content, frames, height))
    except VideoReadError as error:  # it could be read when it was evaluated; the page is of use without it
        pictures = f"<p>{escape(str(error))}</p>"
    rows = [
        f"<p><b>{escape(_target(video))}</b>, predicted {escape(_said(video))}; loss {video.loss:.3f}</p>",
        f'<p class="path">{escape(_place(video))}</p>',
        pictures,
    ]
    return "<section>\n" + "\n".join(rows) + "\n</section>"


def _thumbnails(
    video: Outcome, content: Callable[[str], Readable] | None, count: int, height: int
) -> list[Image.Image]:
    """Pictures of the frames in the middle of `count` equal pieces of the part that was evaluated."""
    path = video.prediction.path
    file = open_video(path if content is None else content(path), isolated=True)
    first, stop = 0, file.num_frames
    if file.fps:
        first = min(round((video.prediction.start or 0) * file.fps), stop - 1)
        stop = min(round(video.prediction.end * file.fps), stop) if video.prediction.end is not None else stop
    length = max(stop - first, 1)
    count = min(count, length)
    pictures = file.frames([first + length * (2 * i + 1) // (2 * count) for i in range(count)]).numpy()
    file.close()
    width = max(1, round(pictures.shape[2] * height / pictures.shape[1]))
    return [Image.fromarray(picture).resize((width, height)) for picture in pictures]


def _picture(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _target(video: Outcome) -> str:
    label = video.label
    if isinstance(label, dict):
        return ", ".join(f"{name} {value:.6g}" for name, value in label.items())
    return label if isinstance(label, str) else " + ".join(label) or "no label"


def _said(video: Outcome) -> str:
    said = video.prediction
    if said.values:
        return ", ".join(f"{name} {value:.6g}" for name, value in said.values.items())
    there = [score for score in said.top if score.label in said.labels] or said.top[:1]
    return " + ".join(f"{score.label} {score.probability:.1%}" for score in there)


def _place(video: Outcome) -> str:
    said = video.prediction
    if said.start is None and said.end is None:
        return shown(said.path)
    return f"{shown(said.path)} from {said.start or 0:g} s to {'its end' if said.end is None else f'{said.end:g} s'}"
