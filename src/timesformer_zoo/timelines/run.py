"""From a video of any length to its timeline."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version

from torch import nn

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.labels import Labels
from timesformer_zoo.prediction import Windows
from timesformer_zoo.results import Gap, Prediction, segments
from timesformer_zoo.timelines.result import Timeline
from timesformer_zoo.timelines.state import State, digest_of, identity_of
from timesformer_zoo.video.origin import Readable

__all__ = ["SMOOTHING", "timeline"]

SMOOTHING = 1.0  # seconds; benchmarks/hour.py compares others


def timeline(
    model: nn.Module | str,
    path: Readable,
    *,
    window: float | None = None,
    step: float | None = None,
    smoothing: float = SMOOTHING,
    topk: int = 10,
    crops: int | None = None,
    labels: Labels | None = None,
    batch_size: int | None = None,
    state: str | os.PathLike[str] | None = None,
    on_window: Callable[[Prediction, bool], None] | None = None,
) -> Timeline:
    """Label a video from its start to its end, be it hours: segments with a label each, and how sure it is.

        timeline("timesformer_tiny_divided.camera_motion", "holiday.mp4").save("holiday.png")

    The video is read once, each frame decoded once, in windows that overlap; what is in memory grows by no more than a
    kilobyte a window. A part that can't be read becomes a gap, which no segment reaches into; the rest is labelled.

    Args:
        model, crops, labels, batch_size: as `predict_windows` has them.
        path: a video, as `predict_windows` takes it.
        window: seconds of video that one prediction sees; None: what a clip of the model spans.
        step: seconds from one window to the next; None: half a window.
        smoothing: seconds over which probabilities are averaged, see `smooth`; 0: not at all.
        topk: how many classes of a window are kept; `smooth` takes the others for impossible.
        state: a file to keep windows in as they come: the same call goes on from it, and gives what an unbroken run
            does. Of another video, model or sampling, it is begun anew, with a warning. It is yours to remove.
        on_window: is given each window as it comes, and whether it is new or from `state`.

    Raises:
        VideoReadError: the file can't be read, or no window of it.
        ValueError: as `predict_windows`; or the model's outputs are values, which make no segments.
        WriteError: `state` can't be written.
    """
    if not smoothing >= 0:
        raise ValueError(f"smoothing is {smoothing}, expected seconds, or 0 for none")
    windows = Windows(
        model, path, topk, crops, window=window, step=step, overlap=0.5, labels=labels, batch_size=batch_size
    )
    if windows.spec.task == "regression":
        raise ValueError("the model gives values, which make no segments: take predict_windows")
    seen: list[Prediction] = []
    gaps: list[Gap] = []
    with ExitStack() as stack:
        kept = stack.enter_context(_state(state, windows, path, topk)) if state is not None else None
        for found, is_new in _all(windows, kept):
            if isinstance(found, Gap):
                gaps.append(found)
                continue
            seen.append(found)
            if on_window is not None:
                on_window(found, is_new)
    if not seen:
        raise VideoReadError(gaps[0].reason)
    duration = windows.video.num_frames / windows.fps
    parts = tuple(segments(seen, smoothing, gaps))
    return Timeline(
        path=windows.video.path,
        duration=duration,
        fps=windows.fps,
        segments=parts,
        windows=tuple(seen),
        gaps=tuple(gaps),
        smoothing=smoothing,
        labels=tuple(windows.labels),
        video=path,
    )


def _all(windows: Windows, state: State | None) -> Iterator[tuple[Prediction | Gap, bool]]:
    if state is not None:
        yield from ((found, False) for _, found in state.known)
    for number, found in windows.run(0 if state is None else state.following):
        if state is not None:
            state.add((number, found))
        yield found, True


def _state(path: str | os.PathLike[str], windows: Windows, video: Readable, topk: int) -> State:
    settings = {
        "video": {"path": windows.video.path, "frames": windows.video.num_frames, **identity_of(video)},
        "model": digest_of(windows.model),
        "labels": windows.labels,
        "sampling": {
            "frames of a window": windows.length,
            "starts": [windows.starts[0], windows.starts[-1], len(windows.starts)],
            "together": windows.together,
            "crops": windows.spec.crops,
            "topk": topk,
        },
        "version": version("timesformer-zoo"),
    }
    common = Prediction(windows.video.path, (), duration=windows.video.num_frames / windows.fps, task=windows.spec.task)
    state = State(path, settings, windows.together, common)
    if state.problem is not None:
        warnings.warn(f"{os.fspath(path)}: {state.problem}; its windows are done anew", stacklevel=3)
    return state
