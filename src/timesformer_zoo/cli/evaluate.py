"""`timesformer-zoo evaluate`: accuracy on a folder or list of videos."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from timesformer_zoo.cli.common import add_data_arguments
from timesformer_zoo.data.videos import DATASETS, read_videos
from timesformer_zoo.hub.load import load_model
from timesformer_zoo.labels import known_labels
from timesformer_zoo.train.evaluate import PROTOCOLS, evaluate, mean_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Of `timesformer-zoo evaluate`."""
    parser.add_argument("model", help="a name that `list` shows, hf-hub:OWNER/NAME, or a folder; {fold} is filled in")
    add_data_arguments(parser)
    parser.add_argument("--split", default="auto", help="default: the first but train")
    parser.add_argument(
        "--fold", nargs="+", default=[None], help="default: the first; several give each one's scores and their mean"
    )
    about = "; ".join(f"{name}: {protocol.about}" for name, protocol in PROTOCOLS.items())
    parser.add_argument("--protocol", default="model", choices=PROTOCOLS, help=f"default: model; {about}")
    parser.add_argument("--batch-size", type=int, default=8, help="views that run at once in a process (default: 8)")
    parser.add_argument("--amp", default=None, choices=("no", "bf16", "fp16"), help="default: as accelerate was set up")
    parser.add_argument("--out", type=Path, help="folder for results.json and confusion.png")


def run(args: Namespace) -> int:
    """Of `timesformer-zoo evaluate`: the scores of each fold, printed and, with `args.out`, written.

    It may run under `accelerate launch`. accelerate is needed for several processes and for --amp only.
    """
    accelerator = None
    try:
        from accelerate import Accelerator

        accelerator = Accelerator(mixed_precision=args.amp)
    except ModuleNotFoundError:
        if args.amp not in (None, "no"):
            raise
    say = print if accelerator is None else accelerator.print
    split = next(s for s in DATASETS[args.data].splits if s != "train") if args.split == "auto" else args.split
    results = []
    for fold in args.fold:
        device = accelerator.device if accelerator is not None else None
        model = load_model(args.model.format(fold=fold), device=device)
        names = known_labels(model)
        videos = read_videos(
            args.data, args.videos, split, fold=fold, annotations=args.annotations, labels=args.labels or names
        )
        say(videos.report())
        result = evaluate(
            model if accelerator is None else accelerator.prepare_model(model, evaluation_mode=True),
            videos,
            protocol=args.protocol,
            clips=args.clips,
            crops=args.crops,
            batch_size=args.batch_size,
            workers=args.workers,
            accelerator=accelerator,
            on_error=args.on_error,
        )
        say(result.summary())
        results.append(replace(result, fold=videos.fold))
        if args.out and (accelerator is None or accelerator.is_main_process):
            result.save(args.out if len(args.fold) == 1 else args.out / f"fold-{videos.fold}")
    if len(results) > 1:
        mean = mean_of(results)
        say(f"mean over folds {', '.join(map(str, mean.folds))}: top-1 {mean.top1:.2%}")
        if args.out and (accelerator is None or accelerator.is_main_process):
            (args.out / "results.json").write_text(json.dumps(mean._asdict(), indent=1) + "\n")
    return 0
