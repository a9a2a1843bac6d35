"""The page of a timeline: one HTML file that stands alone, with pictures of the video in it."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from typing import TYPE_CHECKING

from timesformer_zoo.results import Gap, Segment
from timesformer_zoo.timelines.picture import lanes_of
from timesformer_zoo.timelines.result import Timeline
from timesformer_zoo.timelines.thumbnails import short, thumbnails
from timesformer_zoo.words import clock, counted
from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["write_html"]

_PICTURES = 200  # at most, of the longest segments: each costs a jump in the video, and some kilobytes
_ROW, _LABELS = 22, 170  # pixels: a lane's height, and what is left of the lanes

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em auto; max-width: 1100px; padding: 0 1em; color: #16324a }
h1 { font-size: 1.3em; overflow-wrap: anywhere; margin-bottom: 0 } p { color: #456 }
svg { width: 100%; height: auto; display: block } svg text { font: 12px system-ui, sans-serif; fill: #16324a }
table { border-collapse: collapse; width: 100% } td, th { padding: 4px 10px 4px 0; text-align: left }
tr { border-top: 1px solid #dde5ec } td.time { font-variant-numeric: tabular-nums; white-space: nowrap }
td img { display: block; max-width: 160px; max-height: 120px } meter { width: 90px } tr:target { background: #fff3cd }
.unclear { font-style: italic } .gap { background: repeating-linear-gradient(45deg, #fff 0 6px, #eee 6px 12px) }
"""


def write_html(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Errors are those of `Timeline.save`."""
    parts = timeline.parts
    longest = sorted(timeline.segments, key=lambda part: part.start - part.end)[:_PICTURES]
    shown = sorted(longest, key=lambda part: part.start)
    small = thumbnails(timeline, [(part.start + part.end) / 2 for part in shown], 160)
    pictures = dict(zip(map(id, shown), small, strict=True))
    name = escape(os.path.basename(timeline.path.rstrip(os.sep)))
    smoothed = f"averaged over {timeline.smoothing:g} s" if timeline.smoothing else "not averaged over time"
    count = counted(len(timeline.segments), "segments")
    said = f"{count} in {clock(timeline.duration, 0, hours=True)}; probabilities {smoothed}."
    if len(parts) > len(shown) + len(timeline.gaps):
        said += f" Pictures are of the {len(shown)} longest."
    rows = "\n".join(_row(number, part, pictures.get(id(part))) for number, part in enumerate(parts))
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><style>{_STYLE}</style>
<h1>{name}</h1><p>{said}</p>
{_lanes(timeline, parts)}
<table><tr><th>time</th><th></th><th>label</th><th>sureness</th></tr>
{rows}
</table></html>
"""
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _row(number: int, part: Segment | Gap, picture: Picture | None) -> str:
    times = f'<td class="time">{clock(part.start, hours=True)} – {clock(part.end, hours=True)}</td>'
    if isinstance(part, Gap):
        return f'<tr id="p{number}" class="gap">{times}<td></td><td colspan="2">{escape(part.reason)}</td></tr>'
    image = ""
    if picture is not None:
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=80)
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
    label = (
        f'<td class="unclear">unclear, at best {escape(part.label)}</td>'
        if part.unclear
        else f"<td>{escape(part.label)}</td>"
    )
    meter = f'<td><meter min="0" max="1" value="{part.probability:.3f}"></meter> {part.probability:.0%}</td>'
    return f'<tr id="p{number}">{times}<td>{image}</td>{label}{meter}</tr>'


def _lanes(timeline: Timeline, parts: list[Segment | Gap]) -> str:
    """A lane for each label; a segment is a link to its row."""
    lane_of = lanes_of(timeline)
    lanes = list(dict.fromkeys(lane_of.values()))
    width, height = 1000 - _LABELS, _ROW * len(lanes)
    out = [f'<svg viewBox="0 0 1000 {height + 24}" role="img" aria-label="segments over time">']
    out.append(
        '<defs><pattern id="hatch" width="5" height="5" patternTransform="rotate(45)" patternUnits="userSpaceOnUse">'
        '<rect width="5" height="5" fill="#c9dbe8"/><rect width="1" height="5" fill="#16324a"/></pattern>'
        '<pattern id="cross" width="7" height="7" patternTransform="rotate(45)" patternUnits="userSpaceOnUse">'
        '<rect width="7" height="7" fill="#fff"/><path d="M0 3.5H7M3.5 0V7" stroke="#777"/></pattern></defs>'
    )
    for row, lane in enumerate(lanes):
        out.append(f'<text x="{_LABELS - 8}" y="{row * _ROW + 15}" text-anchor="end">{escape(short(lane))}</text>')
        out.append(f'<path d="M{_LABELS} {(row + 1) * _ROW}H1000" stroke="#dde5ec"/>')
    for number, part in enumerate(parts):
        left = _LABELS + width * part.start / timeline.duration
        wide = max(width * (part.end - part.start) / timeline.duration, 0.8)
        if isinstance(part, Gap):
            top, tall, fill, said = 0, height, "url(#cross)", "could not be read"
        else:
            top, tall = lanes.index(lane_of[part.label]) * _ROW + 3, _ROW - 6
            fill = "url(#hatch)" if part.unclear else "#2f6690"
            said = f"{part.label}, {part.probability:.0%}"
        title = f"{clock(part.start, hours=True)} – {clock(part.end, hours=True)}: {escape(said)}"
        out.append(
            f'<a href="#p{number}"><rect x="{left:.2f}" y="{top}" width="{wide:.2f}" height="{tall}" fill="{fill}">'
            f"<title>{title}</title></rect></a>"
        )
    for share in range(7):
        anchor = "start" if share == 0 else "end" if share == 6 else "middle"
        x, time = _LABELS + width * share / 6, timeline.duration * share / 6
        out.append(f'<path d="M{x:.1f} {height}v5" stroke="#789"/>')
        out.append(f'<text x="{x:.1f}" y="{height + 18}" text-anchor="{anchor}">{clock(time, 0, hours=True)}</text>')
    return "\n".join([*out, "</svg>"])
