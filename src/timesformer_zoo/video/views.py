"""From a video file to a clip, or to all its test views: the one place where clips and crops are gathered.

Legend: V views, C channels, T frames, H W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from timesformer_zoo.video.clip import ClipSpec, clip_spec, frame_indices
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.reader import Frames, open_video
from timesformer_zoo.video.transform import crop_views

__all__ = ["gather_views", "load_views", "read_clip", "view_indices"]


def read_clip(
    path: Readable,
    model_or_spec: Any,
    *,
    clip: int = 0,
    num_clips: int = 1,
    training: bool = False,
    generator: torch.Generator | None = None,
    num_threads: int = 0,
    isolated: bool = False,
) -> torch.Tensor:
    """The frames of one clip, as decoded: `(T, H, W, C) uint8`, RGB. Give them to `clip_transform`.

    Args: see `frame_indices` and `open_video`.

    Raises:
        VideoReadError: the file can't be read, or not to the end of the clip.
    """
    video = open_video(path, num_threads=num_threads, isolated=isolated)
    frames = video.frames(
        frame_indices(
            clip_spec(model_or_spec),
            video.num_frames,
            video.fps,
            clip=clip,
            num_clips=num_clips,
            training=training,
            generator=generator,
        )
    )
    video.close()
    return frames


def load_views(
    path: Readable,
    model_or_spec: Any,
    clips: int | None = None,
    crops: int | None = None,
    *,
    num_threads: int = 0,
    isolated: bool = False,
) -> torch.Tensor:
    """The test views of a video, ready for the model: `(clips * crops, C, T, H, W) float32`, a clip's crops together.

    Args:
        path: see `open_video`.
        model_or_spec: a ClipSpec, or a model that `clip_spec` understands.
        clips, crops: how many along time and along the longer side; None: as the spec says.
        num_threads, isolated: see `Video`.

    Raises:
        VideoReadError: the file can't be read, or not to the end of the last clip.
    """
    spec = clip_spec(model_or_spec).with_views(clips, crops)
    video = open_video(path, num_threads=num_threads, isolated=isolated)
    return gather_views(video, view_indices(video, spec), spec)


def view_indices(video: Frames, spec: ClipSpec) -> list[list[int]]:
    """The frame indices of each of the `spec.clips` test clips of a video."""
    return [
        frame_indices(spec, video.num_frames, video.fps, clip=clip, num_clips=spec.clips) for clip in range(spec.clips)
    ]


def gather_views(
    video: Frames, clips: Sequence[Sequence[int]], spec: ClipSpec, *, keep_open: bool = False
) -> torch.Tensor:
    """All crops of some clips of one video, `(len(clips) * crops, C, T, H, W) float32`, a clip's crops together.

    Each frame is decoded, resized and normalised once, however many clips it is in.

    Args:
        video: what gives the frames.
        clips: the frame indices of each.
        spec: its `crops`, size and normalisation count.
        keep_open: more frames will be asked for. Else the video is closed after the last one: a decoder that goes on
            decoding takes the cores on which frames are resized.
    """
    union = sorted(set().union(*clips))
    views = crop_views(_stream(video, union, keep_open), spec)
    position = {index: t for t, index in enumerate(union)}
    places = [[position[index] for index in clip] for clip in clips]
    if places == [list(range(len(union)))]:  # of a single clip, whose frames differ, nothing needs to be copied
        return views
    return torch.cat([views[:, :, place] for place in places])


def _stream(video: Frames, indices: Sequence[int], keep_open: bool) -> Iterator[torch.Tensor]:
    yield from video.stream(indices)
    if not keep_open:
        video.close()
