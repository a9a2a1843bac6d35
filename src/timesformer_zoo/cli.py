"""The command `timesformer-zoo`. Every verb is one entry of `VERBS`; the work is done in the library."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import timesformer_zoo
from timesformer_zoo.errors import TimesformerZooError, VideoReadError

__all__ = ["main"]

DEFAULT_MODEL = "timesformer_tiny_divided.camera_motion"  # ships with the package: needs no network


@dataclass(frozen=True)
class Verb:
    """One thing that the command does."""

    help: str  # a line
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]  # returns the exit status


def _in(module: str, help: str) -> Verb:
    """A verb that a module of the library implements, as `add_arguments` and `run`; imported when it is used."""

    def add_arguments(parser: ArgumentParser) -> None:
        import_module(module).add_arguments(parser)

    def run(args: Namespace) -> int:
        status: int = import_module(module).run(args)
        return status

    return Verb(help, add_arguments, run)


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
        epilog="verbs:\n" + "\n".join(f"  {name:10} {verb.help}" for name, verb in VERBS.items()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {timesformer_zoo.__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="timesformer-zoo VERB --help says more")
    verb = VERBS[parser.parse_args(argv[:1]).verb]
    parser = ArgumentParser(prog=f"timesformer-zoo {argv[0]}", description=verb.help)
    verb.add_arguments(parser)
    args = parser.parse_intermixed_args(argv[1:])  # options may stand between files, too
    try:
        return verb.run(args)
    except (TimesformerZooError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1 if isinstance(error, (TimesformerZooError, OSError)) else 2


# ---- classify ----


def _classify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="a video file")
    parser.add_argument(
        "--model",
        metavar="NAME",
        default=DEFAULT_MODEL,
        help="a name that `list` shows, hf-hub:OWNER/NAME, or a folder (default: camera motion, which ships with this)",
    )
    parser.add_argument("--top-k", metavar="N", type=int, default=5, help="how many labels (default: 5)")
    parser.add_argument("--clips", metavar="N", type=int, help="test clips along time (default: the model's)")
    parser.add_argument("--crops", metavar="N", type=int, help="test crops of each clip (default: the model's)")
    parser.add_argument("--windows", action="store_true", help="classify window after window of each video")
    parser.add_argument("--window", metavar="SECONDS", type=float, help="length of a window; implies --windows")
    parser.add_argument("--step", metavar="SECONDS", type=float, help="from one window to the next; implies --windows")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps … (default: the fastest there is)")
    parser.add_argument("--json", action="store_true", help="print a JSON array, one object a prediction")


def _classify(args: Namespace) -> int:
    import torch
    from rich.console import Console
    from rich.progress import track

    from timesformer_zoo.loading import load_model
    from timesformer_zoo.predict import Prediction, predict, predict_windows

    device = args.device or str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
    in_windows = args.windows or args.window is not None or args.step is not None
    model = load_model(args.model, device=device)
    console = Console(stderr=True)
    results: list[dict[str, Any]] = []
    status = 0
    for path in track(args.videos, "Classifying", console=console, transient=True, disable=not console.is_terminal):
        try:
            predictions: list[Prediction] = (
                list(predict_windows(model, path, args.top_k, args.crops, window=args.window, step=args.step))
                if in_windows
                else [predict(model, path, args.top_k, args.clips, args.crops)]
            )
        except VideoReadError as error:
            print(f"timesformer-zoo classify: {error}", file=sys.stderr)
            results.append({"path": path, "error": str(error)})
            status = 1
            continue
        results.extend(prediction.to_dict() for prediction in predictions)
        if not args.json:
            for prediction in predictions:
                _print_prediction(prediction)
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    return status


def _print_prediction(prediction: Any) -> None:
    times = "" if prediction.start is None else f"  {prediction.start:.1f}-{prediction.end:.1f} s"
    print(prediction.path + times)
    for label, probability, _ in prediction.top:
        print(f"  {probability:6.1%}  {label}")


# ---- list ----


def _list_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="part of a name, or with * and ?")
    parser.add_argument("--json", action="store_true", help="print a JSON array, one object a model")


def _list(args: Namespace) -> int:
    from timesformer_zoo.listing import list_models

    rows = [row.to_dict() for row in list_models(args.pattern)]
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD)
        for column in ("name", "mode", "input", "params", "weights", "licence", "top-1", "top-5"):
            numeric = column in ("params", "top-1", "top-5")
            table.add_column(column, justify="right" if numeric else "left", no_wrap=column == "name")
        for row in rows:
            accuracy = ["" if row[name] is None else f"{row[name]:.1f}" for name in ("top1", "top5")]
            table.add_row(
                row["name"],
                row["mode"],
                f"{row['num_frames']} × {row['img_size']}",
                f"{row['parameters'] / 1e6:.1f} M",
                row["weights"],
                row["license"],
                *accuracy,
            )
        # Into a pipe or a file, rows stay whole: one a line, for grep.
        Console(width=None if sys.stdout.isatty() else 250).print(table)
    if not rows:
        print(f"timesformer-zoo list: no model's name has {args.pattern!r} in it", file=sys.stderr)
    return 0 if rows else 1


VERBS: dict[str, Verb] = {
    "classify": Verb("labels of video files", _classify_arguments, _classify),
    "list": Verb("the models and where their weights come from", _list_arguments, _list),
    "finetune": _in("timesformer_zoo.training", "train a model on a folder or list of videos"),
    "evaluate": _in("timesformer_zoo.evaluation", "accuracy on a folder or list of videos"),
    "convert": _in("timesformer_zoo.convert", "weights of any known format to ours or transformers'"),
    "push": _in("timesformer_zoo.hub", "publish a model on the Hugging Face Hub"),
}


if __name__ == "__main__":
    sys.exit(main())
