"""An explanation written as a picture, a moving one, or a page."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from timesformer_zoo.explanation.figure import draw_grid, frame_pictures, headline, when
from timesformer_zoo.explanation.picture import COLOURS, require_matplotlib
from timesformer_zoo.video.remote import masked
from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from timesformer_zoo.explanation.explain import Explanation

__all__ = ["FORMATS", "expect_savable", "save"]

_SLOWEST, _FASTEST = 2, 12  # frames of the clip a second, so that each can be seen


def save(explanation: Explanation, path: str | os.PathLike[str]) -> Path:
    """See `Explanation.save`."""
    path = Path(path)
    writer = FORMATS[expect_savable(path)]
    with whole_file(path) as partial:
        writer(explanation, partial)
    return path


def expect_savable(path: str | os.PathLike[str]) -> str:
    """The suffix of a file that `save` can write, in small letters.

    Raises:
        ValueError: another suffix.
        ModuleNotFoundError: matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: its suffix is {suffix!r}, expected one of {', '.join(FORMATS)}")
    require_matplotlib()
    return suffix


def _png(explanation: Explanation, path: Path) -> None:
    draw_grid(explanation).savefig(path, format="png")


def _gif(explanation: Explanation, path: Path) -> None:
    pictures = list(frame_pictures(explanation))
    palette = _palette(pictures)
    frames = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for p in pictures]
    duration = round(1000 / _rate(explanation))
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)


def _palette(pictures: Sequence[npt.NDArray[np.uint8]]) -> Image.Image:
    """One for all frames, else what stands still flickers: those of the clip, and those of the map, which are rare."""
    some = np.concatenate([picture[::2, ::2] for picture in pictures[:: -(-len(pictures) // 12)]])
    of_clip = Image.fromarray(some).quantize(192, Image.Quantize.MEDIANCUT).getpalette() or []
    of_map = require_matplotlib().colormaps[COLOURS](np.linspace(0, 1, 64), bytes=True)[:, :3]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*of_clip[: 3 * 192], *of_map.flatten().tolist()])
    return palette


def _mp4(explanation: Explanation, path: Path) -> None:
    import av

    rate = _rate(explanation)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "18"})
        stream.pix_fmt = "yuv420p"  # what every player shows
        for picture in frame_pictures(explanation):
            if not stream.codec_context.is_open:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _rate(explanation: Explanation) -> float:
    """Frames a second: as they were sampled, within limits."""
    times = explanation.times
    if times is None or len(times) < 2 or times[-1] <= times[0]:
        return 4.0
    return min(max((len(times) - 1) / (times[-1] - times[0]), _SLOWEST), _FASTEST)


_STYLE = """\
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em auto; max-width: 80em; padding: 0 1em; color: #222 }
p { margin: 0.3em 0; color: #444; word-break: break-all }
#player img { max-width: 100% } input { width: 100% } button { font: inherit; padding: 0.2em 1em }
.grid { max-width: 100% } table { border-collapse: collapse } td { padding: 0.1em 1em 0.1em 0 }"""

_SCRIPT = """\
const frames = %s, delay = %d, picture = document.getElementById("frame");
const place = document.getElementById("place"), button = document.getElementById("play");
let timer = null;
function show(t) { picture.src = frames[t]; place.value = t }
function stop() { clearInterval(timer); timer = null; button.textContent = "Play" }
function step() { show((+place.value + 1) %% frames.length) }
function play() { timer = setInterval(step, delay); button.textContent = "Stop" }
button.onclick = () => timer === null ? play() : stop();
place.oninput = () => { stop(); show(+place.value) };
show(0);"""


def _html(explanation: Explanation, path: Path) -> None:
    pictures = [_data(Image.fromarray(picture), "JPEG", quality=85) for picture in frame_pictures(explanation)]
    buffer = io.BytesIO()
    draw_grid(explanation).savefig(buffer, format="png")
    grid = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    title = escape(headline(explanation))
    first, last = when(explanation, 0), when(explanation, len(pictures) - 1)
    rows = [f"<tr><td>{s.probability:.1%}</td><td>{escape(s.label)}</td></tr>" for s in explanation.prediction.top]
    rows += [f"<tr><td>{v:.6g}</td><td>{escape(k)}</td></tr>" for k, v in explanation.prediction.values.items()]
    script = _SCRIPT % (json.dumps(pictures), round(1000 / _rate(explanation)))
    lines = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>",
        f'<div id="player"><img id="frame" alt="a frame beside its overlay" src="{pictures[0]}">',
        f'<input id="place" type="range" min="0" max="{len(pictures) - 1}" value="0" aria-label="frame">',
        '<button id="play" type="button">Play</button></div>',
        f"<p>{escape(masked(explanation.path))}, {first} to {last}: {title}</p>",
        f"<table>{''.join(rows)}</table>",
        f'<img class="grid" alt="all frames, each above its overlay" src="{grid}">',
        f"<script>\n{script}\n</script>\n</html>\n",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _data(image: Image.Image, kind: str, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


FORMATS: dict[str, Callable[[Explanation, Path], None]] = {".gif": _gif, ".mp4": _mp4, ".png": _png, ".html": _html}
"""Suffix -> what writes such a file."""
