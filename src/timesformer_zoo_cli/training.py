"""Options of the verbs that read a data set."""

from __future__ import annotations

import os
import runpy
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from timesformer_zoo_cli.choices import DATASETS, FILES, MODEL, PROTOCOLS, TASKS

__all__ = ["add_evaluate", "add_finetune"]


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
    videos.complete = FILES  # type: ignore[attr-defined]
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


def add_finetune(parser: ArgumentParser) -> None:
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
    names = runpy.run_path(str(Path(__file__).parents[1] / "timesformer_zoo" / "train" / "recipe.py"))
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


def add_evaluate(parser: ArgumentParser) -> None:
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
