"""`timesformer-zoo classify`: labels of video files."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.hub.load import load_model
from timesformer_zoo.prediction import Prediction, predict, predict_windows

__all__ = ["add_arguments", "run"]

DEFAULT_MODEL = "timesformer_tiny_divided.camera_motion"  # ships with the package: needs no network


def add_arguments(parser: ArgumentParser) -> None:
    """Of `timesformer-zoo classify`."""
    parser.add_argument(
        "videos", metavar="VIDEO", nargs="+", help="a video file; without windows also a folder of its frames"
    )
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


def run(args: Namespace) -> int:
    """Of `timesformer-zoo classify`."""
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
