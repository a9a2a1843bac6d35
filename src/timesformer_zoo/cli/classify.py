"""`timesformer-zoo classify`: labels of video files, over time or of each as a whole."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from timesformer_zoo.cli.common import find_videos, print_json
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.hub.load import load_model
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import predict, predict_windows
from timesformer_zoo.results import Prediction, Segment, timeline
from timesformer_zoo.video.clip import clip_spec

__all__ = ["run"]

Answer = dict[str, Any]  # of one video, as --json prints it


def run(args: Namespace) -> int:
    """Of `timesformer-zoo classify`."""
    device = args.device or str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
    videos = list(find_videos(args.videos))
    model = load_model(args.model, device=device)
    in_windows = _in_windows(args, model)
    console = Console(stderr=True)
    status = 0
    answers: list[Answer] = []
    # What is printed above the bar goes where the bar does, unless the output is read by another than the terminal.
    with Progress(
        console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("classifying", total=len(videos))
        for number, (path, problem) in enumerate(videos):
            try:
                if problem is not None:
                    raise problem
                answer = _over_time(model, path, args, bar) if in_windows else _once(model, path, args)
            except VideoReadError as error:
                print(f"timesformer-zoo classify: {error}", file=sys.stderr)
                answer = {"path": path, "error": str(error)}
                status = 1
            if args.json:
                print_json(answer)
            elif "error" not in answer:
                print("\n".join(_lines(answer)), flush=True)
            answers.append(answer)
            bar.update(task, completed=number + 1)
    if len(answers) > 1 and in_windows and not args.json:
        _print_table(answers)
    return status


def _in_windows(args: Namespace, model: TimeSformer) -> bool:
    of_windows = [name for name in ("window", "step") if getattr(args, name) is not None]
    if args.windows is False and of_windows:
        raise ValueError(f"--no-windows and --{of_windows[0]} contradict each other: leave one out")
    if args.clips is not None and (args.windows or of_windows):
        raise ValueError("--clips is for looking once, with --no-windows; a window has one clip")
    if args.windows is not None:
        return bool(args.windows)
    return bool(of_windows) or (clip_spec(model).windows and args.clips is None)


def _once(model: TimeSformer, path: str, args: Namespace) -> Answer:
    spec = clip_spec(model)
    views = {"clips": args.clips or spec.clips, "crops": args.crops or spec.crops}
    return {**predict(model, [path], args.top_k, args.clips, args.crops)[0].to_dict(), **views}


def _over_time(model: TimeSformer, path: str, args: Namespace, bar: Progress) -> Answer:
    windows: list[Prediction] = []
    task = bar.add_task(os.path.basename(path.rstrip(os.sep))[-40:], total=None)
    try:
        for window in predict_windows(
            model, path, 1, args.crops, window=args.window, step=args.step, max_windows=args.max_windows
        ):
            windows.append(window)
            bar.update(task, total=window.duration, completed=window.end)
    finally:
        bar.remove_task(task)
    first, *rest = windows
    if first.task == "regression":
        rows = [{"start": window.start, "end": window.end, "values": window.values} for window in windows]
        summary: Any = {name: sum(w.values[name] for w in windows) / len(windows) for name in first.values}
    else:
        segments = timeline(windows)
        rows = [segment.to_dict() for segment in segments]
        summary = _summary(segments, _seconds(windows[-1].end, first.start))
    return {
        "path": path,
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


def _seconds(end: float | None, start: float | None) -> float:
    return (end or 0) - (start or 0)


def _summary(segments: Iterable[Segment], total: float) -> list[dict[str, Any]]:
    """The share of the time of each label, the longest first; of what is unclear, together."""
    seconds: dict[str | None, float] = {}
    for segment in segments:
        label = None if segment.unclear else segment.label
        seconds[label] = seconds.get(label, 0.0) + segment.end - segment.start
    return [
        {"label": label, "unclear": label is None, "share": value / total}
        for label, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


# ---- for people ----


def _lines(answer: Answer) -> list[str]:
    """What was looked at, and what was seen."""
    if "timeline" in answer:
        rows = [f"  {_clock(row['start'])} - {_clock(row['end'])}  {_seen(row)}" for row in answer["timeline"]]
        return [f"{answer['path']}: {_words(answer)}  [{_windows_in_words(answer)}]", *rows]
    clips, crops = answer["clips"], answer["crops"]
    seen = f"{clips} clip{'s' * (clips > 1)} × {crops} crop{'s' * (crops > 1)}"
    if answer["start"] is not None:
        seen += f" from {_clock(answer['start'])} to {_clock(answer['end'])} of {_clock(answer['duration'])}"
    said = _values(answer["values"]) or ", ".join(answer["labels"]) or _NEITHER[answer["task"]]
    title = f"{answer['path']}: {said}  [{seen}]"
    return [title, *(f"  {score['probability']:6.1%}  {score['label']}" for score in answer["top"])]


def _windows_in_words(answer: Answer) -> str:
    windows = answer["windows"]
    words = f"{windows['count']} window{'s' * (windows['count'] > 1)} of {windows['seconds']:.1f} s"
    gaps = windows["every"] is not None and windows["every"] > windows["seconds"] * 1.01
    words += f", one every {windows['every']:.1f} s," if gaps else ""
    return f"{words} from {_clock(answer['start'])} to {_clock(answer['end'])} of {_clock(answer['duration'])}"


# What is said where no label is likelier than not.
_NEITHER = {"classes": "unclear", "multilabel": "no label"}


def _words(answer: Answer) -> str:
    summary = answer["summary"]
    if answer["task"] == "regression":
        return _values(summary)
    shares = [f"{'unclear' if entry['unclear'] else entry['label']} {entry['share']:.0%}" for entry in summary]
    return ", ".join(shares) or _NEITHER[answer["task"]]


def _seen(row: dict[str, Any]) -> str:
    if "values" in row:
        return _values(row["values"])
    label, probability = row["label"], row["probability"]
    return f"unclear (at best {label}, {probability:.0%})" if row["unclear"] else f"{label} ({probability:.0%} sure)"


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items())


def _clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are some: 0:07.5."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths / 10:04.1f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _print_table(answers: Sequence[Answer]) -> None:
    width = max(len(answer["path"]) for answer in answers)
    values = any(answer.get("task") == "regression" for answer in answers)
    print(f"\nAll videos, {'means over' if values else 'shares of'} their time:")
    for answer in answers:
        length = _clock(answer["duration"]) if "duration" in answer else ""
        words = "could not be read" if "error" in answer else _words(answer)
        print(f"{answer['path']:{width}}  {length:>9}  {words}".rstrip())
