"""The command `timesformer-zoo`: its verbs, their arguments and help, and how a failure ends.

It lies beside the package, and imports nothing of it before a verb runs: importing the package imports torch and timm,
which takes seconds, and help, a typing error and shell completion need neither. So choices and defaults are literal
here; the tests hold them to the tables that they come from. The recipes alone are read: their file needs nothing slow.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from errno import EDQUOT, EFBIG, ENOSPC
from importlib import import_module
from textwrap import fill
from typing import Any, NamedTuple

from timesformer_zoo_cli.choices import DATASETS, PACKAGES, PROTOCOLS
from timesformer_zoo_cli.training import add_evaluate, add_finetune
from timesformer_zoo_cli.videos import add_classify, add_demo, add_embed, add_explain, add_search, add_timeline
from timesformer_zoo_cli.weights import add_convert, add_list, add_push

__all__ = ["VERBS", "main", "parse"]


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
    "classify": Verb("labels of video files, over time", "holiday/ 'more/*.mp4' --json", add_classify),
    "timeline": Verb("hours of video in segments, with a picture", "match.mp4 -o match.png", add_timeline),
    "explain": Verb("what in a video speaks for a label, as a picture", "holiday.mp4 -o holiday.gif", add_explain),
    "embed": Verb("features of videos, kept in a library", "holiday/ 'more/*.mp4' -o library", add_embed),
    "search": Verb("what in a library is most like a video", "library query.mp4 --topk 5", add_search),
    "demo": Verb("a page in the browser, to drop a video on", "--library library", add_demo),
    "list": Verb("the models and where their weights come from", "--mode divided --labels kinetics400", add_list),
    "finetune": Verb(
        "train a model on a data set",
        "videos/ --out run --epochs 5 --lr 3e-4",
        add_finetune,
        _table("data sets", DATASETS),
    ),
    "evaluate": Verb(
        "scores on a data set, and what went wrong",
        "run/model videos/ --split val --out scores",
        add_evaluate,
        _table("protocols", PROTOCOLS) + _table("data sets", DATASETS),
    ),
    "convert": Verb(
        "weights of any known format to ours or transformers'",
        "weights.pyth mine --model timesformer_base_divided.k400 --to transformers",
        add_convert,
    ),
    "push": Verb("publish a model on the Hugging Face Hub", "run/model me/mine", add_push),
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
