"""`timesformer-zoo timeline`: what a model sees in hours of video, from start to end."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from timesformer_zoo.cli.common import find_videos, print_json, segment_in_words, shares_in_words, shares_of
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.hub.load import load_model, usable_device
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.results import Gap, Prediction
from timesformer_zoo.timelines.formats import format_of
from timesformer_zoo.timelines.result import Timeline, window_to_dict
from timesformer_zoo.timelines.run import timeline
from timesformer_zoo.video.remote import masked
from timesformer_zoo.words import clock, counted
from timesformer_zoo.writing import expect_writable

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo timeline`."""
    videos = list(find_videos(args.videos))
    outputs = [_outputs(args.out, path, len(videos)) for path, _ in videos]
    _expect_different(outputs)
    for folder in {Path(out).parent for outs in outputs for out in outs}:
        expect_writable(folder)
    model = load_model(args.model, device=usable_device(args.device)).to(getattr(torch, args.precision))
    done: list[Timeline | None] = []
    states: list[Path] = []
    problems = 0
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        for (path, problem), outs in zip(videos, outputs, strict=True):
            made = None
            state = _state_beside(outs)
            try:
                if problem is not None:
                    raise problem
                made = _one(args, model, path, state, bar)
                for out in outs:
                    made.save(out)
                states += [state] if state else []
            except VideoReadError as error:
                problems += 1
                _say(str(error))
                if args.json:
                    print_json({"path": masked(path), "error": str(error)})
            if made is not None:
                problems += bool(made.gaps)
                for gap in made.gaps:
                    _say(gap.reason)
                _tell(args, made, outs)
            done.append(made)
    if len(done) > 1 and not args.json:
        _print_table([masked(path) for path, _ in videos], done)
    for state in states:  # all is written: the next run begins anew
        state.unlink(missing_ok=True)
    return 1 if problems else 0


def _one(args: Namespace, model: TimeSformer, path: str, state: Path | None, bar: Progress) -> Timeline:
    """A video's, with a bar of its own that has the time left."""
    name = os.path.basename(masked(path).rstrip(os.sep))[-40:]
    task = bar.add_task(name, total=None)
    fresh = False

    def see(window: Prediction, is_new: bool) -> None:
        nonlocal fresh
        if is_new and not fresh:  # what an earlier run did says nothing of this one's speed
            fresh = True
            bar.reset(task, total=window.duration, completed=int(window.start or 0))
        bar.update(task, total=window.duration, completed=window.end)
        if args.json:
            print_json({"path": window.path, **window_to_dict(window)})

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            return timeline(
                model,
                path,
                window=args.window,
                step=args.step,
                smoothing=args.smoothing,
                topk=args.top_k,
                crops=args.crops,
                batch_size=args.batch_size,
                state=state,
                on_window=see,
            )
    finally:
        for warning in caught:
            _say(str(warning.message))
        bar.remove_task(task)


def _outputs(patterns: Sequence[str], path: str, count: int) -> list[str]:
    """The files of a video; {name} is its own, without suffix. Raises ValueError: a format or a name makes no sense."""
    name = Path(masked(path).rstrip("/")).stem
    for pattern in patterns:
        format_of(pattern)
        if count > 1 and "{name}" not in pattern:
            fitting = str(Path(pattern).with_name("{name}" + Path(pattern).suffix))
            raise ValueError(f"-o {pattern} is one file for {count} videos: give {{name}} in it, as {fitting}")
    return [pattern.replace("{name}", name) for pattern in patterns]


def _expect_different(outputs: Sequence[Sequence[str]]) -> None:
    seen: set[str] = set()
    for out in (out for outs in outputs for out in outs):
        if out in seen:
            raise ValueError(f"{out} would be written twice: two videos are called so; do them one by one")
        seen.add(out)


def _state_beside(outputs: Sequence[str]) -> Path | None:
    """Where windows are kept until all is written: with the videos' first output, which names it."""
    if not outputs:
        return None
    first = Path(outputs[0])
    return first.with_name(f".{first.name}.windows.jsonl.partial")


# ---- for people ----


def _say(text: str) -> None:
    print(f"timesformer-zoo timeline: {text}", file=sys.stderr)


def _tell(args: Namespace, made: Timeline, outs: Sequence[str]) -> None:
    if args.json:
        values = made.to_dict()
        del values["windows"]  # which were printed as they came
        print_json({**values, "out": list(outs)})
        return
    print(f"{made.path}: {_words(made)}  [{_windows(made)}]")
    for part in made.parts if not outs else ():
        said = "could not be read" if isinstance(part, Gap) else segment_in_words(part.to_dict())
        print(f"  {clock(part.start)} - {clock(part.end)}  {said}")
    for out in outs:
        print(f"  {out}")
    sys.stdout.flush()


def _windows(made: Timeline) -> str:
    first = made.windows[0]
    length = (first.end or 0) - (first.start or 0)
    said = f"{counted(len(made.windows), 'windows')} of {length:.1f} s over {clock(made.duration)}"
    return f"{said}, {counted(len(made.segments), 'segments')}"


def _words(made: Timeline) -> str:
    return shares_in_words(shares_of(made.segments, made.duration)) or "no label"


def _print_table(paths: Sequence[str], done: Sequence[Timeline | None]) -> None:
    width = max(map(len, paths))
    print("\nAll videos, shares of their time:")
    for path, made in zip(paths, done, strict=True):
        said = f"{'':>9}  could not be read" if made is None else f"{clock(made.duration):>9}  {_words(made)}"
        print(f"{path:{width}}  {said}")
