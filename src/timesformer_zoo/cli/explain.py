"""`timesformer-zoo explain`: what in a video speaks for a label, as a picture."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from timesformer_zoo.cli.common import find_videos, print_json
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.explanation.explain import EXPLANATIONS, Explanation, explain
from timesformer_zoo.explanation.figure import headline
from timesformer_zoo.explanation.save import expect_savable
from timesformer_zoo.hub.load import load_model, usable_device
from timesformer_zoo.video.remote import masked
from timesformer_zoo.writing import expect_writable

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo explain`."""
    videos = list(find_videos(args.videos))
    folder = not args.out.suffix or args.out.is_dir()
    if len(videos) > 1 and not folder:
        raise ValueError(f"{args.out} is one picture, and there are {len(videos)} videos: give a folder by -o")
    if args.format and not folder:
        raise ValueError(f"--format is of the pictures in a folder, and {args.out} is a file: leave one out")
    kind = args.format or "gif"
    expect_savable(f"picture.{kind}" if folder else args.out)
    expect_writable(args.out if folder else args.out.parent)
    model = load_model(args.model, device=usable_device(args.device))
    console = Console(stderr=True)
    taken: set[str] = set()
    errors = 0
    with Progress(
        console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        for path, problem in bar.track(videos, description="explaining"):
            try:
                if problem is not None:
                    raise problem
                explanation = explain(model, path, args.label, args.method, start=args.start, end=args.end)
            except VideoReadError as error:
                print(f"timesformer-zoo explain: {error}", file=sys.stderr)
                errors += 1
                if args.json:
                    print_json({"path": masked(path), "error": str(error)})
                continue
            out = args.out / _name(path, kind, taken) if folder else args.out
            explanation.save(out)
            if args.json:
                print_json({"path": masked(path), "out": str(out), **explanation.to_dict()})
            else:
                print(_line(explanation, path, out, args.label), flush=True)
    return 1 if errors else 0


def _name(path: str, kind: str, taken: set[str]) -> str:
    """Of a video's picture: videos of one name in several folders are numbered."""
    stem = Path(os.path.basename(masked(path).partition("?")[0].rstrip("/" + os.sep))).stem or "video"
    name, number = f"{stem}.{kind}", 1
    while name.lower() in taken:  # whatever the case: file systems that do not tell them apart
        number += 1
        name = f"{stem}-{number}.{kind}"
    taken.add(name.lower())
    return name


def _line(explanation: Explanation, path: str, out: Path, label: str | None) -> str:
    line = f"{masked(path)}: {headline(explanation)}  -> {out}"
    if label is not None and EXPLANATIONS[explanation.method].one_for_all:
        line += f"  ({explanation.method} is the same for every class)"
    return line
