"""The command `timesformer-zoo`: its verbs, their arguments and help, and how a failure ends.

It lies beside the package, and imports nothing of it before a verb runs: importing the package imports torch and timm,
which takes seconds, and help, a typing error and shell completion need neither. So choices and defaults are literal
here; the tests hold them to the tables that they come from. The recipes alone are read: their file needs nothing slow.
"""

from __future__ import annotations

import os
import runpy
import sys
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import fields
from errno import EDQUOT, EFBIG, ENOSPC
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

__all__ = ["VERBS", "main", "parse"]

MODES = ("space_only", "joint", "divided", "local_global", "axial", "frozen")
LABELS = ("kinetics400", "kinetics600", "something_something_v2", "camera_motion", "none")
PACKAGES = {  # what some verbs need, and what to install for it
    **dict.fromkeys(["accelerate", "tensorboard"], "'timesformer-zoo[train]'"),
    **dict.fromkeys(["ray", "pyarrow", "pandas"], "'timesformer-zoo[cluster]'"),
    "datasets": "'timesformer-zoo[datasets]'",
    **dict.fromkeys(["faiss", "usearch"], "'timesformer-zoo[search]'"),
    "matplotlib": "'timesformer-zoo[plots]'",
    "captum": "'timesformer-zoo[captum]'",
    "aiohttp": "'timesformer-zoo[remote]'",
    "gradio": "'timesformer-zoo[demo]'",
    **{name: name for name in ("aim", "clearml", "dvclive", "mlflow", "swanlab", "trackio", "wandb")},
    "comet_ml": "comet-ml",
}
LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "mit")
ENGINES = ("local", "ray")
EXPLANATIONS = ("relevance", "rollout", "gradients", "integrated_gradients")
FORMATS = ("gif", "mp4", "png", "html")
INDEXES = ("exact", "faiss", "usearch")
PER = ("window", "clip", "video")
DTYPES = ("float16", "float32")
PRECISIONS = ("float32", "bfloat16", "float16")
TASKS = ("classes", "multilabel", "regression")
PROTOCOLS = {
    "model": "as the model's ClipSpec says, and as predict does",
    "official": "the authors' code: clips from frame 0, sum of the logits",
    "paper": "the paper's text: clip in the middle, mean of the softmax",
}
DATASETS = {
    "folder": "a folder per class, in train/ and val/ or not",
    "list": "a line per video: path label, or path,label[,start,end,split] with a header; several labels as 0,2 or "
    "run;sit; or a column of numbers for each label (0 and 1) or value",
    "json": "objects with path, label and, for parts of a video, start and end",
    "videofolder": "Hugging Face's: metadata.csv or .jsonl with file_name and label, in train/ or not",
    "shards": "WebDataset's tar files: a video and .cls, .json or .txt of each sample",
    "datasets": "a column of videos that load_dataset of Hugging Face's datasets finds: OWNER/NAME, or a folder",
    "kinetics400": "Kinetics-400: label,youtube_id,time_start,time_end,split",
    "kinetics600": "Kinetics-600: label,youtube_id,time_start,time_end,split",
    "ssv2": "Something-Something V2: videos, or folders of frames, called by their id",
    "ucf101": "UCF101 and its ucfTrainTestlist",
    "hmdb51": "HMDB51 and its testTrainMulti_7030_splits",
    "diving48": "Diving-48, the cleaned labels V2",
    "ntu60": "NTU RGB+D",
    "ntu120": "NTU RGB+D 120; classes are called A001 to A120 unless named",
    "howto100m": "long videos: video_id and task_id (or label) of each, or of each of their parts, with start and end",
}

MODEL = "a name that `list` shows, hf-hub:OWNER/NAME, or a folder"
DEVICE = "cpu, cuda, cuda:1, mps … (default: the fastest there is)"
JSON = "print JSON, one object in a line"
# What shtab has as shtab.FILE: which completions a shell is to offer.
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


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
    videos.complete = _FILES  # type: ignore[attr-defined]
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="timesformer_tiny_divided.camera_motion",  # ships with the package: needs no network
        help=f"{MODEL} (default: %(default)s)",
    )


def _classify(parser: ArgumentParser) -> None:
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


def _timeline(parser: ArgumentParser) -> None:
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


def _explain(parser: ArgumentParser) -> None:
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


def _embed(parser: ArgumentParser) -> None:
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


def _search(parser: ArgumentParser) -> None:
    folder = parser.add_argument("library", metavar="LIBRARY", type=Path, help="a folder that embed made")
    folder.complete = _FILES  # type: ignore[attr-defined]
    query = parser.add_argument("query", metavar="VIDEO", help="what to look for: a video file, or its address")
    query.complete = _FILES  # type: ignore[attr-defined]
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


def _demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help=f"{MODEL}; several times for a choice (default: timesformer_tiny_divided.camera_motion)",
    )
    library = parser.add_argument(
        "--library", metavar="FOLDER", type=Path, help="that embed made: what in it is most like the video"
    )
    library.complete = _FILES  # type: ignore[attr-defined]
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


def _list(parser: ArgumentParser) -> None:
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="part of a name, or with * and ? (default: all)"
    )
    parser.add_argument("--mode", choices=MODES, help="of attention (default: all)")
    parser.add_argument("--labels", choices=LABELS, help="the label set of its head; none: a new head (default: all)")
    parser.add_argument("--licence", "--license", choices=LICENCES, help="of the weights (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON, one object in a line for each model")


def _place(text: str) -> Path | str:
    """Of an address, pathlib would take one of the slashes away."""
    return text if "://" in text else Path(text)


def _data(parser: ArgumentParser) -> None:
    """Arguments of the verbs that read a data set."""
    videos = parser.add_argument(
        "videos",
        metavar="VIDEOS",
        type=_place,
        help="folder of the videos: a path, or an address such as hf://datasets/me/clips",
    )
    videos.complete = _FILES  # type: ignore[attr-defined]
    parser.add_argument(
        "--data",
        default="folder",
        choices=DATASETS,
        metavar="NAME",
        help="kind of data set, see below (default: %(default)s)",
    )
    parser.add_argument(
        "--annotations", metavar="PATH", type=_place, help="annotation file, or the folder with the published files"
    )
    parser.add_argument("--labels", metavar="NAME", help="class names: a text or JSON file, or the name of a label set")
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="kind of target: a class for each video, any number of labels, or values (default: as the list says)",
    )
    parser.add_argument("--clips", metavar="N", type=int, help="test clips along time (default: the model's)")
    parser.add_argument("--crops", metavar="N", type=int, help="test crops of each clip (default: the model's)")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=min(4, _cores()),
        help="processes that decode videos, for each that trains (default: 4, or as many as there are cores)",
    )
    parser.add_argument(
        "--on-error",
        default="fail",
        choices=("fail", "skip"),
        help="for missing and unreadable videos: stop, or go on and list them at the end (default: %(default)s)",
    )
    parser.add_argument("--amp", choices=("no", "bf16", "fp16"), help="precision (default: as accelerate was set up)")


def _cores() -> int:
    """That this process may use; torch warns of more workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finetune(parser: ArgumentParser) -> None:
    _data(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="for the model, results and training states"
    )
    parser.add_argument(
        "--fold", metavar="NAME", help="which way to split the data (default: the first, where there are several)"
    )
    parser.add_argument(
        "--val",
        metavar="NAME",
        default="auto",
        help="split to evaluate on after each epoch, or none (default: the first but train)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="timesformer_base_divided.k400",
        help=f"to start from: {MODEL} (default: %(default)s)",
    )
    parser.add_argument("--scratch", action="store_true", help="do not load weights")
    parser.add_argument("--num-frames", metavar="N", type=int, help="frames of a clip (default: the model's)")
    parser.add_argument("--img-size", metavar="N", type=int, help="pixels of a frame's side (default: the model's)")
    parser.add_argument(
        "--clip", nargs="*", default=[], metavar="FIELD=JSON", help="how clips are sampled, such as stride=4 flip=false"
    )
    parser.add_argument(
        "--save-every",
        metavar="N",
        type=int,
        help="optimizer steps between training states, besides one after each epoch",
    )
    parser.add_argument("--grad-checkpointing", action="store_true", help="less memory for more time")
    parser.add_argument(
        "--track",
        metavar="NAMES",
        type=_words,
        default=[],
        help="trackers that accelerate knows, such as tensorboard (it writes to OUT/tensorboard), wandb, trackio; "
        "several with commas",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be read, trained and written, and how long it takes by a few real steps; leaves nothing",
    )
    instead.add_argument(
        "--find-lr",
        action="store_true",
        help="try learning rates from low to high, suggest one, and draw the curve to OUT/learning_rate.png",
    )
    instead.add_argument(
        "--probe",
        action="store_true",
        help="train nothing but a linear head, on features that are computed once and kept in OUT/features",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, one object in a line for each epoch and one for the model at the end; all else to stderr",
    )
    _recipe(parser)


@cache
def _recipes() -> tuple[Any, dict[str, Any]]:
    """Recipe and RECIPES of train/recipe.py, run by itself: an import of it would import the package."""
    names = runpy.run_path(str(Path(__file__).parent / "timesformer_zoo" / "train" / "recipe.py"))
    return names["Recipe"], names["RECIPES"]


def _recipe(parser: ArgumentParser) -> None:
    """An option for each field of a recipe; the arguments have those alone that were given."""
    recipe, recipes = _recipes()
    group = parser.add_argument_group("recipe", "Each value of the recipe can be another.")
    group.add_argument("--recipe", default="small-data", choices=recipes, help="default: %(default)s")
    for field in fields(recipe):
        values = {name: _text(getattr(made, field.name)) for name, made in recipes.items()}
        same = len(set(values.values())) == 1
        shown = values["paper"] if same else ", ".join(f"{name}: {value}" for name, value in values.items())
        help = f"{field.metadata['help']} ({'default: ' if same else ''}{shown})".replace("%", "%%")
        option = f"--{field.name.replace('_', '-')}"
        if field.type == "bool":
            group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=help)
            continue
        metavar, parse = _VALUES[str(field.type)]
        group.add_argument(option, metavar=metavar, type=parse, default=SUPPRESS, help=help)
        if field.name == "freeze":
            both: dict[str, Any] = dict(action="store_const", const="backbone", default=SUPPRESS)
            group.add_argument("--head-only", dest="freeze", help="the same as --freeze backbone", **both)


def _text(value: Any) -> str:
    """A recipe's value as its option takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else "no" if value is False else str(value)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _number_or_none(text: str) -> float | None:
    return None if text == "none" else float(text)


def _count_or_none(text: str) -> int | None:
    return None if text == "none" else int(text)


def _word_or_none(text: str) -> str | None:
    return None if text == "none" else text


# A field's type -> what stands for its value in the help, and how to read it
_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "int": ("N", int),
    "float": ("X", float),
    "str": ("NAME", str),
    "tuple[int, ...]": ("N,N", _numbers),
    "float | None": ("X", _number_or_none),
    "int | None": ("N", _count_or_none),
    "str | tuple[float, ...] | None": ("NAME", _word_or_none),
}


def _evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; {{fold}} in it is filled in")
    _data(parser)
    parser.add_argument(
        "--split", metavar="NAME", default="auto", help="of the data set (default: the first but train)"
    )
    parser.add_argument(
        "--fold",
        metavar="NAME",
        nargs="+",
        default=[None],
        help="default: the first; several give each one's scores and their mean",
    )
    parser.add_argument("--protocol", default="model", choices=PROTOCOLS, help="see below (default: %(default)s)")
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=8,
        help="views that run at once in a process (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="for results.json, predictions.jsonl (a line a video), confusion.png and, with --errors, errors.html",
    )
    parser.add_argument(
        "--errors", metavar="N", type=int, default=0, help="show the N worst videos, with pictures in OUT/errors.html"
    )
    parser.add_argument("--card", action="store_true", help="add the scores to the card of MODEL, which is a folder")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, one object in a line for each fold; all else to stderr",
    )


def _convert(parser: ArgumentParser) -> None:
    source = parser.add_argument(
        "source", metavar="IN", type=Path, help="a file of weights in any known format, or a folder"
    )
    source.complete = _FILES  # type: ignore[attr-defined]
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--to", required=True, choices=("native", "transformers"), help="format of OUT")
    parser.add_argument("--model", metavar="NAME", help="what IN is, as timesformer_base_divided.ssv2")
    parser.add_argument("--num-heads", metavar="N", type=int, help="where IN has no registered model's width")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--json", action="store_true", help=JSON)


def _push(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"what to publish: {MODEL}")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made if it does not exist")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="class names, a line each (default: the model's)")
    # For the card, which has what `finetune` and `evaluate --card` know without them.
    parser.add_argument("--metric", metavar="NAME=VALUE", action="append", default=[], help="for the card; repeatable")
    parser.add_argument("--training-data", metavar="TEXT", help="what it was trained on, for the card")
    parser.add_argument(
        "--dataset", metavar="OWNER/NAME", action="append", default=[], help="of the Hub, that it was trained on"
    )
    parser.add_argument("--eval-data", metavar="TEXT", help="what the metrics were measured on")
    parser.add_argument("--license", metavar="NAME", help="default: that of the weights it started from")
    parser.add_argument("--example", metavar="VIDEO", type=Path, help="a video to go with it, for the widget")
    parser.add_argument("--also-transformers", action="store_true", help="loads in transformers, too")
    parser.add_argument("--private", action="store_true", help="if the repository is new")
    parser.add_argument("--revision", metavar="BRANCH", help="an existing branch (default: main)")
    parser.add_argument("--message", metavar="TEXT", default="Add model", help="of the commit (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help=JSON)


class Verb(NamedTuple):
    """Of the command; `timesformer_zoo.cli` has a module of its name, with `run(args) -> exit status`."""

    about: str
    example: str  # its arguments
    add_arguments: Callable[[ArgumentParser], None]
    notes: str = ""  # below its options


def _table(title: str, rows: dict[str, str]) -> str:
    """What choices mean, where that is too much for an option's help."""
    width = max(map(len, rows)) + 4
    lines = [fill(f"  {name:{width - 2}}{text}", 80, subsequent_indent=" " * width) for name, text in rows.items()]
    return "\n".join([f"{title}:", *lines]) + "\n\n"


VERBS = {
    "classify": Verb("labels of video files, over time", "holiday/ 'more/*.mp4' --json", _classify),
    "timeline": Verb("hours of video in segments, with a picture", "match.mp4 -o match.png", _timeline),
    "explain": Verb("what in a video speaks for a label, as a picture", "holiday.mp4 -o holiday.gif", _explain),
    "embed": Verb("features of videos, kept in a library", "holiday/ 'more/*.mp4' -o library", _embed),
    "search": Verb("what in a library is most like a video", "library query.mp4 --topk 5", _search),
    "demo": Verb("a page in the browser, to drop a video on", "--library library", _demo),
    "list": Verb("the models and where their weights come from", "--mode divided --labels kinetics400", _list),
    "finetune": Verb(
        "train a model on a data set",
        "videos/ --out run --epochs 5 --lr 3e-4",
        _finetune,
        _table("data sets", DATASETS),
    ),
    "evaluate": Verb(
        "scores on a data set, and what went wrong",
        "run/model videos/ --split val --out scores",
        _evaluate,
        _table("protocols", PROTOCOLS) + _table("data sets", DATASETS),
    ),
    "convert": Verb(
        "weights of any known format to ours or transformers'",
        "weights.pyth mine --model timesformer_base_divided.k400 --to transformers",
        _convert,
    ),
    "push": Verb("publish a model on the Hugging Face Hub", "run/model me/mine", _push),
}


class _Version(Action):
    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('timesformer-zoo')}")
        parser.exit()


class _Completion(Action):
    def __call__(self, parser: ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("completion needs shtab: pip install 'timesformer-zoo[completion]'")
        print(shtab.complete(parser, shell))
        parser.exit()


def _make_parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The command's, which has those of the verbs in it, and these by name."""
    parser = ArgumentParser(
        prog="timesformer-zoo",
        description="TimeSformer, the video transformer: from video files to labels.",
        epilog="example:\n  timesformer-zoo classify video.mp4\n\n`timesformer-zoo VERB --help` says more of a verb.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, default=SUPPRESS, help="print the version")
    parser.add_argument(
        "--completion",
        action=_Completion,
        default=SUPPRESS,
        choices=("bash", "zsh", "tcsh"),
        help='print what makes a shell complete the command: eval "$(timesformer-zoo --completion bash)"',
    )
    group = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    verbs = {}
    for name, verb in VERBS.items():
        verbs[name] = group.add_parser(
            name,
            help=verb.about,
            description=f"{verb.about[0].upper()}{verb.about[1:]}.",
            epilog=f"{verb.notes}example:\n  timesformer-zoo {name} {verb.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        verb.add_arguments(verbs[name])
    return parser, verbs


def parse(argv: Sequence[str]) -> Namespace:
    """The command's arguments; `verb` is the verb's name.

    Raises:
        SystemExit: help was asked for, or they make no sense; either has been printed.
    """
    parser, verbs = _make_parsers()
    if not argv or argv[0] not in verbs:
        return parser.parse_args(argv)
    args = verbs[argv[0]].parse_intermixed_args(argv[1:])  # options may stand between files, too
    args.verb = argv[0]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        0: done; 1: something failed, which stderr names; 2: the command makes no sense as given; 130: interrupted.
    """
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        status: int = import_module(f"timesformer_zoo.cli.{args.verb}").run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        problem, status = "interrupted; what it has printed or written is done", 130
    except BrokenPipeError:  # who read the output has seen enough, as `head` does
        _drop_output()
        return 1
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in PACKAGES:
            raise
        problem, status = f"it needs {package}: pip install {PACKAGES[package]}", 1
    except (OSError, ValueError, FloatingPointError) as error:
        from timesformer_zoo.errors import TimesformerZooError

        problem, status = (
            str(error),
            1 if isinstance(error, (TimesformerZooError, OSError, FloatingPointError)) else 2,
        )
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EFBIG) and error.filename is None:
            problem = f"the output could not be written: {error.strerror}"  # as of `classify --json > FILE`
            _drop_output()
    print(f"timesformer-zoo {args.verb}: {problem}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """Let Python's own flush on exit, of what could not be written, do nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
