"""`timesformer-zoo classify`: labels of video files, over time or of each as a whole."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from timesformer_zoo.cli.common import engine_of, find_videos, print_json, segment_in_words, shares_in_words, shares_of
from timesformer_zoo.engine.mapping import map_videos
from timesformer_zoo.engine.results import keys_of_errors
from timesformer_zoo.engine.work import key_of, named
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.hub.load import load_model, model_digest, usable_device
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import predict, predict_windows
from timesformer_zoo.results import Prediction, segments
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.remote import masked
from timesformer_zoo.words import clock, counted

__all__ = ["run"]

Answer = dict[str, Any]  # of one video, as --json prints it


def run(args: Namespace) -> int:
    """Of `timesformer-zoo classify`."""
    if args.retry_errors and args.out is None:
        raise ValueError("--retry-errors is for the rows that a folder has: give it by --out")
    engine = engine_of(args)
    videos = list(find_videos(args.videos))
    work = Classify(**{field.name: getattr(args, field.name) for field in fields(Classify) if field.name != "watch"})
    failed = 0  # by earlier runs
    if args.out is not None and not args.retry_errors:
        known = keys_of_errors(args.out)
        failed = sum(problem is None and key_of(named(path)) in known for path, problem in videos)
    console = Console(stderr=True)
    answers: list[Answer] = []
    done = errors = 0
    # What is printed above the bar goes where the bar does, unless the output is read by another than the terminal.
    with Progress(
        console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("classifying", total=len(videos))
        if args.engine == "local":
            work = replace(work, watch=partial(_watched, bar))
        paths = (path for path, problem in videos if problem is None)
        rows = map_videos(work, paths, engine=engine, out=args.out, retry_errors=args.retry_errors)
        for answer in _in_place(videos, rows) if args.out is None else _and_problems(videos, rows):
            done += 1
            if "error" in answer:
                print(f"timesformer-zoo classify: {answer['error']}", file=sys.stderr)
                errors += 1
            if args.out is None:
                answers.append(answer)
                if args.json:
                    print_json(answer)
                elif "error" not in answer:
                    print("\n".join(_lines(answer)), flush=True)
            bar.update(task, completed=done)
    if args.out is not None:
        _print_counts(args, done, len(videos) - done, errors, failed)
    elif len(answers) > 1 and not args.json and any("timeline" in answer for answer in answers):
        _print_table(answers)
    return 1 if errors else 0


Found = Sequence[tuple[str, VideoReadError | None]]


def _in_place(videos: Found, rows: Iterator[Answer]) -> Iterator[Answer]:
    """Rows come in the order of the videos; where a name led to none, its error."""
    for path, problem in videos:
        yield next(rows) if problem is None else {"path": masked(path), "error": str(problem)}


def _and_problems(videos: Found, rows: Iterator[Answer]) -> Iterator[Answer]:
    yield from ({"path": masked(path), "error": str(problem)} for path, problem in videos if problem is not None)
    yield from rows


@dataclass(frozen=True)
class Classify:
    """What is done to a video; its fields are options of the command."""

    model: str
    device: str | None
    windows: bool | None
    window: float | None
    step: float | None
    max_windows: int
    top_k: int
    clips: int | None
    crops: int | None
    watch: Callable[[str, Iterable[Prediction]], Iterable[Prediction]] | None = None  # sees windows as they come

    @property
    def settings(self) -> dict[str, Any]:
        """All that answers depend on. The model's name alone would not tell one that was trained anew."""
        names = [field.name for field in fields(self) if field.name not in ("device", "watch")]
        values = {name: getattr(self, name) for name in names}
        return {"verb": "classify", **values, "sha256 of the model": model_digest(self.model)}

    def load(self) -> Callable[[str], Answer]:
        """A video's answer, as --json prints it, but for its path. Raises ValueError: fields contradict each other."""
        model = load_model(self.model, device=usable_device(self.device))
        return partial(self._over_time if self._in_windows(model) else self._once, model)

    def _in_windows(self, model: TimeSformer) -> bool:
        of_windows = [name for name in ("window", "step") if getattr(self, name) is not None]
        if self.windows is False and of_windows:
            raise ValueError(f"--no-windows and --{of_windows[0]} contradict each other: leave one out")
        if self.clips is not None and (self.windows or of_windows):
            raise ValueError("--clips is for looking once, with --no-windows; a window has one clip")
        if self.windows is not None:
            return self.windows
        return bool(of_windows) or (clip_spec(model).windows and self.clips is None)

    def _once(self, model: TimeSformer, path: str) -> Answer:
        spec = clip_spec(model)
        views = {"clips": self.clips or spec.clips, "crops": self.crops or spec.crops}
        return {**predict(model, [path], self.top_k, self.clips, self.crops)[0].to_dict(), **views}

    def _over_time(self, model: TimeSformer, path: str) -> Answer:
        coming: Iterable[Prediction] = predict_windows(
            model, path, 1, self.crops, window=self.window, step=self.step, max_windows=self.max_windows
        )
        windows = list(coming if self.watch is None else self.watch(path, coming))
        first, *rest = windows
        if first.task == "regression":
            rows = [{"start": window.start, "end": window.end, "values": window.values} for window in windows]
            summary: Any = {name: sum(w.values[name] for w in windows) / len(windows) for name in first.values}
        else:
            found = segments(windows)
            rows = [segment.to_dict() for segment in found]
            summary = shares_of(found, _seconds(windows[-1].end, first.start))
        return {
            "start": first.start,
            "end": windows[-1].end,
            "duration": first.duration,
            "windows": {
                "count": len(windows),
                "seconds": _seconds(first.end, first.start),
                "every": _seconds(rest[0].start, first.start) if rest else None,
            },
            "task": first.task,
            "summary": summary,
            "timeline": rows,
        }


def _watched(bar: Progress, path: str, windows: Iterable[Prediction]) -> Iterator[Prediction]:
    """A bar of the video's own beside the one of all."""
    task = bar.add_task(os.path.basename(masked(path).rstrip(os.sep))[-40:], total=None)
    try:
        for window in windows:
            bar.update(task, total=window.duration, completed=window.end)
            yield window
    finally:
        bar.remove_task(task)


def _seconds(end: float | None, start: float | None) -> float:
    return (end or 0) - (start or 0)


# ---- for people ----


def _lines(answer: Answer) -> list[str]:
    """What was looked at, and what was seen."""
    if "timeline" in answer:
        rows = [f"  {clock(row['start'])} - {clock(row['end'])}  {_seen(row)}" for row in answer["timeline"]]
        return [f"{answer['path']}: {_words(answer)}  [{_windows_in_words(answer)}]", *rows]
    clips, crops = answer["clips"], answer["crops"]
    seen = f"{counted(clips, 'clips')} × {counted(crops, 'crops')}"
    if answer["start"] is not None:
        seen += f" from {clock(answer['start'])} to {clock(answer['end'])} of {clock(answer['duration'])}"
    said = _values(answer["values"]) or ", ".join(answer["labels"]) or _NEITHER[answer["task"]]
    title = f"{answer['path']}: {said}  [{seen}]"
    return [title, *(f"  {score['probability']:6.1%}  {score['label']}" for score in answer["top"])]


def _windows_in_words(answer: Answer) -> str:
    windows = answer["windows"]
    words = f"{counted(windows['count'], 'windows')} of {windows['seconds']:.1f} s"
    gaps = windows["every"] is not None and windows["every"] > windows["seconds"] * 1.01
    words += f", one every {windows['every']:.1f} s," if gaps else ""
    return f"{words} from {clock(answer['start'])} to {clock(answer['end'])} of {clock(answer['duration'])}"


# What is said where no label is likelier than not.
_NEITHER = {"classes": "unclear", "multilabel": "no label"}


def _words(answer: Answer) -> str:
    summary = answer["summary"]
    if answer["task"] == "regression":
        return _values(summary)
    return shares_in_words(summary) or _NEITHER[answer["task"]]


def _seen(row: dict[str, Any]) -> str:
    return _values(row["values"]) if "values" in row else segment_in_words(row)


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items())


def _print_table(answers: Sequence[Answer]) -> None:
    width = max(len(answer["path"]) for answer in answers)
    values = any(answer.get("task") == "regression" for answer in answers)
    print(f"\nAll videos, {'means over' if values else 'shares of'} their time:")
    for answer in answers:
        length = clock(answer["duration"]) if "duration" in answer else ""
        words = "could not be read" if "error" in answer else _words(answer)
        print(f"{answer['path']:{width}}  {length:>9}  {words}".rstrip())


def _print_counts(args: Namespace, done: int, before: int, errors: int, errors_before: int) -> None:
    """Of rows that are in a folder and not printed."""
    if args.json:
        counts = {"done": done, "before": before, "errors": errors, "errors_before": errors_before}
        print_json({"out": str(args.out), **counts})
        return
    again = f", {errors_before} of them with an error (--retry-errors does these again)" if errors_before else ""
    print(f"{args.out}: {done} done, {errors} of them with an error; {before} were there before{again}")
