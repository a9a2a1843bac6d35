"""The command `timesformer-zoo`: finds the verb, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

import timesformer_zoo
from timesformer_zoo.errors import TimesformerZooError

__all__ = ["main"]

VERBS = {
    "classify": "labels of video files",
    "list": "the models and where their weights come from",
    "finetune": "train a model on a folder or list of videos",
    "evaluate": "accuracy on a folder or list of videos",
    "convert": "weights of any known format to ours or transformers'",
    "push": "publish a model on the Hugging Face Hub",
}
"""Verb -> what it does, in a line. Each is a module beside this one, with `add_arguments(parser)` and `run(args)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        0: done; 1: something failed, which stderr names; 2: the command makes no sense as given.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(
        prog="timesformer-zoo",
        description="TimeSformer, the video transformer: from video files to labels.",
        epilog="verbs:\n" + "\n".join(f"  {name:10} {about}" for name, about in VERBS.items()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {timesformer_zoo.__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="timesformer-zoo VERB --help says more")
    name = parser.parse_args(argv[:1]).verb
    verb = import_module(f"timesformer_zoo.cli.{name}")
    parser = ArgumentParser(prog=f"timesformer-zoo {name}", description=VERBS[name])
    verb.add_arguments(parser)
    args = parser.parse_intermixed_args(argv[1:])  # options may stand between files, too
    try:
        status: int = verb.run(args)
        return status
    except (TimesformerZooError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1 if isinstance(error, (TimesformerZooError, OSError)) else 2


if __name__ == "__main__":
    sys.exit(main())
