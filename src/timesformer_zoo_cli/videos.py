"""Options of the verbs that look at videos."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

from timesformer_zoo_cli.choices import (
    DEVICE,
    DTYPES,
    ENGINES,
    EXPLANATIONS,
    FILES,
    FORMATS,
    INDEXES,
    MODEL,
    PER,
    PRECISIONS,
)

__all__ = ["add_classify", "add_demo", "add_embed", "add_explain", "add_search", "add_timeline"]


def _videos(parser: ArgumentParser) -> None:
    """Arguments of the verbs that run a model on video files."""
    videos = parser.add_argument(
        "videos",
        metavar="VIDEO",
        nargs="+",
        help="a video file, a folder (all videos in it and below), a folder of one video's frames, a pattern such as "
        "'**/*.mp4', an address of a file or folder (https://…, hf://…), or - for a list of these on "
        "standard input, one a line",
    )
    videos.complete = FILES  # type: ignore[attr-defined]
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="timesformer_tiny_divided.camera_motion",  # ships with the package: needs no network
        help=f"{MODEL} (default: %(default)s)",
    )


def add_classify(parser: ArgumentParser) -> None:
    _videos(parser)
    parser.add_argument(
        "--windows",
        action=BooleanOptionalAction,
        help="label the video window by window and join them to a timeline, or look once, at the model's test views "
        "(default: as the model says; `camera_motion` goes by windows, Kinetics and SSv2 models look once)",
    )
    parser.add_argument(
        "--window", metavar="SECONDS", type=float, help="length of a window (default: the model's clip); with --windows"
    )
    parser.add_argument(
        "--step",
        metavar="SECONDS",
        type=float,
        help="from one window to the next (default: the window's length); with --windows",
    )
    parser.add_argument(
        "--max-windows",
        metavar="N",
        type=int,
        default=1000,
        help="of a longer video, so many windows spread evenly (default: %(default)s)",
    )
    parser.add_argument("--top-k", metavar="N", type=int, default=5, help="labels, looking once (default: %(default)s)")
    parser.add_argument(
        "--clips", metavar="N", type=int, help="test clips along time, looking once (default: the model's)"
    )
    parser.add_argument("--crops", metavar="N", type=int, help="test crops of each clip (default: the model's)")
    parser.add_argument("--device", metavar="D", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print JSON, one object in a line for each video")
    group = parser.add_argument_group("many files")
    group.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="write JSON lines there and print only how many; the same command again does what is left",
    )
    _many(group)


def _many(group: Any) -> None:
    """Arguments of the verbs that work on many files and keep what they made of them in a FOLDER."""
    group.add_argument("--retry-errors", action="store_true", help="do again the videos that FOLDER has an error of")
    group.add_argument(
        "--engine", default="local", choices=ENGINES, help="this process, or a Ray cluster (default: %(default)s)"
    )
    group.add_argument("--address", help="ray: of the cluster, auto or HOST:PORT (default: this machine alone)")
    group.add_argument("--workers", metavar="N", type=int, help="ray: at most (default: as many as have room)")
    group.add_argument("--cpus", metavar="N", type=float, help="ray: cores of a worker (default: 1)")
    group.add_argument("--gpus", metavar="N", type=float, help="ray: of a worker, such as 0.25 (default: 1 if any)")
    group.add_argument("--timeout", metavar="SECONDS", type=float, help="ray: give up a video that takes longer")
    group.add_argument(
        "--attempts", metavar="N", type=int, help="ray: give up a video that N workers died of (default: 3)"
    )


def add_timeline(parser: ArgumentParser) -> None:
    _videos(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        action="append",
        default=[],
        help="ends in .json, .jsonl, .csv, .html or .png (the last needs matplotlib); repeatable; of several videos, "
        "with {name} in it, which is each one's own; while it is made, windows are kept beside it, and the same "
        "command goes on from there (default: segments are printed)",
    )
    parser.add_argument(
        "--window", metavar="SECONDS", type=float, help="length of a window (default: the model's clip)"
    )
    parser.add_argument(
        "--step", metavar="SECONDS", type=float, help="from one window to the next (default: half a window)"
    )
    parser.add_argument(
        "--smoothing",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="over which probabilities are averaged before segments are made; 0: not at all (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k", metavar="N", type=int, default=10, help="labels kept of a window (default: %(default)s)"
    )
    parser.add_argument("--crops", metavar="N", type=int, help="test crops of each window (default: the model's)")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, help="views that run at once (default: about 32,000 tokens)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="of the model: bfloat16 takes a third of the time where a processor has it (default: %(default)s)",
    )
    parser.add_argument("--device", metavar="D", help=DEVICE)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, one object in a line: each window as it comes, then of each video its segments",
    )


def add_explain(parser: ArgumentParser) -> None:
    _videos(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        required=True,
        help="the picture, by its suffix: .png, a grid of all frames; .gif or .mp4, one after the other; .html, a page "
        "with both. Without a suffix, as it must be for several videos: a folder, of a picture for each",
    )
    parser.add_argument("--format", choices=FORMATS, help="of the pictures in a folder (default: gif)")
    parser.add_argument("--label", metavar="LABEL", help="the class to explain (default: the likeliest)")
    parser.add_argument(
        "--method",
        default="relevance",
        choices=EXPLANATIONS,
        help="relevance: of the class, by attention and its gradient; rollout: attention alone, the same for every "
        "class; integrated_gradients needs Captum (default: %(default)s)",
    )
    parser.add_argument("--start", metavar="SECONDS", type=float, help="explain the clip that begins here")
    parser.add_argument(
        "--end", metavar="SECONDS", type=float, help="take its frames evenly up to here (default: as the model does)"
    )
    parser.add_argument("--device", metavar="D", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print JSON, one object in a line for each video")


def add_embed(parser: ArgumentParser) -> None:
    _videos(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="the library; made, or added to: videos that are in it are not done again unless their files have changed",
    )
    parser.add_argument(
        "--per",
        default="window",
        choices=PER,
        help="a row of features for each window, each test clip, or each video (default: %(default)s)",
    )
    parser.add_argument(
        "--window", metavar="SECONDS", type=float, help="length of a window (default: the model's clip)"
    )
    parser.add_argument(
        "--step", metavar="SECONDS", type=float, help="from one window to the next (default: the window's length)"
    )
    parser.add_argument("--clips", metavar="N", type=int, help="test clips along time (default: the model's)")
    parser.add_argument("--crops", metavar="N", type=int, help="test crops of each clip (default: the model's)")
    parser.add_argument(
        "--dtype", default="float16", choices=DTYPES, help="of the features on the disk (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="D", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    _many(parser.add_argument_group("many files"))


def add_search(parser: ArgumentParser) -> None:
    folder = parser.add_argument("library", metavar="LIBRARY", type=Path, help="a folder that embed made")
    folder.complete = FILES  # type: ignore[attr-defined]
    query = parser.add_argument("query", metavar="VIDEO", help="what to look for: a video file, or its address")
    query.complete = FILES  # type: ignore[attr-defined]
    parser.add_argument("--topk", metavar="N", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--start", metavar="SECONDS", type=float, help="look for the part of VIDEO from here")
    parser.add_argument("--end", metavar="SECONDS", type=float, help="and to here (default: to its end)")
    parser.add_argument("--one-per-video", action="store_true", help="of each video its best row alone")
    parser.add_argument(
        "--index",
        default="exact",
        choices=INDEXES,
        help="look at all rows, or by an index, built once and kept in LIBRARY, for a million and more "
        "(default: %(default)s)",
    )
    parser.add_argument("--model", metavar="NAME", help="where the library's model is now (default: where it was)")
    parser.add_argument("--device", metavar="D", help=DEVICE)
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=Path, help="a picture of VIDEO beside what was found: .png or .html"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object in a line for each row found")


def add_demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help=f"{MODEL}; several times for a choice (default: timesformer_tiny_divided.camera_motion)",
    )
    library = parser.add_argument(
        "--library", metavar="FOLDER", type=Path, help="that embed made: what in it is most like the video"
    )
    library.complete = FILES  # type: ignore[attr-defined]
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="where to listen; 0.0.0.0 lets other machines in (default: %(default)s, this machine alone)",
    )
    parser.add_argument("--port", metavar="N", type=int, help="default: the first free one from 7860 up")
    parser.add_argument("--max-size", metavar="MB", type=float, default=200, help="of a video (default: %(default)s)")
    parser.add_argument(
        "--max-length", metavar="MINUTES", type=float, default=10, help="of a video (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=600, help="give up a video after (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="D", help=DEVICE)
