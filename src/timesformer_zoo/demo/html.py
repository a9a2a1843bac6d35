"""Results as HTML: figures with captions, and tables, for a screen reader, too; no script, nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from timesformer_zoo.results import Segment
from timesformer_zoo.words import clock

__all__ = ["CSS", "gallery", "picture", "problem", "progress", "timeline", "values_table"]

CSS = """
.tz table { border-collapse: collapse; width: 100%; margin-top: 0.6em; border: 0 !important;
  box-shadow: none !important }
.tz tr { border: 0 !important; background: none !important }
.tz th, .tz td { text-align: left; padding: 0.15em 0.8em 0.15em 0 !important; border: 0 !important }
.tz td:first-child { font-variant-numeric: tabular-nums; white-space: nowrap }
.tz .bar { display: flex; height: 2em; border-radius: 4px; overflow: hidden; background: var(--border-color-primary) }
.tz .bar span { overflow: hidden; white-space: nowrap; color: #fff; font-size: 0.85em; line-height: 2.35em;
  padding-left: 0.4em; box-sizing: border-box; min-width: 0; box-shadow: inset 1px 0 0 #fff }
.tz .bar .gap { box-shadow: none }
.tz .bar .unclear { opacity: 0.55 }
.tz .ends { display: flex; justify-content: space-between; font-size: 0.85em }
.tz i { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin-right: 0.5em }
.tz figure { margin: 0 } .tz figure img { max-width: 100%; border-radius: 4px; display: block }
.tz figcaption { font-size: 0.9em; padding-top: 0.3em; overflow-wrap: anywhere }
.tz .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9em, 1fr)); gap: 0.8em;
  list-style: none; padding: 0; margin: 0 }
.tz progress { width: 100%; height: 0.6em; accent-color: var(--color-accent) }
.tz .problem { border-left: 4px solid #b3261e; padding: 0.4em 0.8em; margin: 0 }
button[aria-label^="Trim video"], button[aria-label^="Reset video"] { display: none }  /* they need a network */
"""

# Of neighbouring labels; each dark enough for white letters on it (4.5 : 1), and told apart without red and green.
_COLOURS = (
    "#1f5a99",
    "#a14a00",
    "#5b3a8e",
    "#006d5b",
    "#9c2f5f",
    "#54631a",
    "#3d4f5c",
    "#7a4a2b",
    "#2f6f8f",
    "#6b4f9e",
)
_MANY = 60  # rows of a table


def progress(words: str, done: float) -> str:
    """How far the work is; a screen reader says it as it changes."""
    bar = "" if done >= 1 else f'<progress max="1" value="{done:.3f}" aria-label="Progress"></progress>'
    return f'<div class="tz" role="status">{escape(words)}{bar}</div>'


def problem(words: str) -> str:
    """What failed; a screen reader says it at once."""
    return f'<div class="tz" role="alert"><p class="problem">{escape(words)}</p></div>'


def timeline(segments: Sequence[Segment], seconds: float) -> str:
    """A bar for each label's time, and the same as a table. Segments of several labels may overlap: a bar a label."""
    labels = list(dict.fromkeys(segment.label for segment in segments))
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
    overlap = any(after.start < before.end for before, after in pairwise(segments))
    bars = [[s for s in segments if s.label == label] for label in labels] if overlap else [segments]
    drawn = "".join(_bar(bar, seconds, colours) for bar in bars)
    rows = "".join(
        f"<tr><td>{clock(s.start)} – {clock(s.end)}</td>"
        f'<td><i style="background:{colours[s.label]}"></i>{escape(_said(s))}</td><td>{s.probability:.0%}</td></tr>'
        for s in segments[:_MANY]
    )
    more = f"<p>and {len(segments) - _MANY} more</p>" if len(segments) > _MANY else ""
    head = "<tr><th>Time</th><th>Label</th><th>Sure</th></tr>"
    ends = f'<div class="ends" aria-hidden="true"><span>0:00.0</span><span>{clock(seconds)}</span></div>'
    return f'<div class="tz">{drawn}{ends}<table>{head}{rows}</table>{more}</div>'


def _said(segment: Segment) -> str:
    return f"unclear (at best {segment.label})" if segment.unclear else segment.label


def _bar(segments: Sequence[Segment], seconds: float, colours: Mapping[str, str]) -> str:
    parts, at = [], 0.0
    for segment in segments:
        if segment.start > at:
            parts.append(f'<span class="gap" style="flex:0 0 {100 * (segment.start - at) / seconds:.2f}%"></span>')
        width = 100 * (segment.end - segment.start) / seconds
        parts.append(
            f'<span class="{"unclear" * segment.unclear}" title="{escape(segment.label)}" '
            f'style="flex:0 0 {width:.2f}%;background:{colours[segment.label]}">{escape(segment.label)}</span>'
        )
        at = segment.end
    return f'<div class="bar" aria-hidden="true">{"".join(parts)}</div>'  # the table says the same in words


def values_table(rows: Sequence[tuple[float, float, Mapping[str, float]]]) -> str:
    """Of a regression: start, end and values of each window."""
    names = list(rows[0][2])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{clock(start)} – {clock(end)}</td>{''.join(f'<td>{values[name]:.4g}</td>' for name in names)}</tr>"
        for start, end, values in rows[-_MANY:]
    )
    return f'<div class="tz"><table><tr><th>Time</th>{head}</tr>{body}</table></div>'


def picture(data: bytes, kind: str, alt: str) -> str:
    """An image in the page itself, so that no file of it is kept."""
    text = base64.b64encode(data).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{text}">'


def gallery(title: str, figures: Sequence[tuple[str, str]]) -> str:
    """Pictures (or why there is none) and captions, the nearest first."""
    items = "".join(
        f"<li><figure>{image}<figcaption>{escape(caption)}</figcaption></figure></li>" for image, caption in figures
    )
    return f'<div class="tz"><p>{escape(title)}</p><ol class="gallery">{items}</ol></div>'
