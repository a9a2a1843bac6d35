"""Small pictures of a video at some of its times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.results import Segment
from timesformer_zoo.timelines.result import Timeline
from timesformer_zoo.video.reader import open_video

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["middles", "short", "thumbnails"]


def thumbnails(timeline: Timeline, times: Sequence[float], size: int) -> Iterator[Picture | None]:
    """The frame at each time, in its order, within `size` × `size` pixels; None where it can't be decoded.

    Raises:
        VideoReadError: the video can't be opened.
    """
    video = open_video(timeline.video, isolated=True)
    for time in times:
        index = min(max(0, int(time * timeline.fps)), video.num_frames - 1)
        try:
            picture = Image.fromarray(video.frames([index])[0].numpy())
        except VideoReadError:  # inside a gap, which the timeline tells
            yield None
            continue
        picture.thumbnail((size, size))
        yield picture
    video.close()


def middles(parts: Sequence[Segment], duration: float, width: float) -> list[float]:
    """Middles of segments, ascending, such that pictures centred there do not overlap: of the longest ones first.

    Args:
        width: of a picture, in seconds of the time axis; it may reach beyond neither end.
    """
    chosen: list[float] = []

    def centre(middle: float) -> float:
        return min(max(middle, width / 2), duration - width / 2)

    for part in sorted(parts, key=lambda part: part.start - part.end):
        middle = (part.start + part.end) / 2
        if all(abs(centre(middle) - centre(other)) >= width for other in chosen):
            chosen.append(middle)
    return sorted(chosen)


def short(label: str) -> str:
    """For a lane's name: labels that differ at their ends stay different."""
    return label if len(label) <= 26 else f"{label[:15]}…{label[-10:]}"
