"""`timesformer-zoo evaluate`: the scores of a model on a folder or list of videos."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace

from timesformer_zoo.cli.common import print_json, result_of
from timesformer_zoo.data.videos import DATASETS, read_videos
from timesformer_zoo.hub.load import card_facts, load_model, local_folder
from timesformer_zoo.hub.save import save_card
from timesformer_zoo.labels import known_labels
from timesformer_zoo.train.evaluate import evaluate
from timesformer_zoo.train.evaluation import mean_of
from timesformer_zoo.train.worst import save_worst, worst_in_words
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.writing import write_json

__all__ = ["run"]


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
    is_main = accelerator is None or accelerator.is_main_process

    def say(text: str) -> None:
        if is_main:
            print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    if args.card and None in [local_folder(args.model.format(fold=fold)) for fold in args.fold]:
        raise ValueError(f"--card: {args.model} is no folder; give the folder of a saved model")
    split = next(s for s in DATASETS[args.data].splits if s != "train") if args.split == "auto" else args.split
    results = []
    for fold in args.fold:
        device = accelerator.device if accelerator is not None else None
        model = load_model(args.model.format(fold=fold), device=device)
        names = known_labels(model)
        # A list with one label a video, or of whole numbers, does not say by itself that it is not of classes.
        task = clip_spec(model).task
        videos = read_videos(
            args.data,
            args.videos,
            split,
            fold=fold,
            annotations=args.annotations,
            labels=args.labels or names,
            task=args.task or (None if task == "classes" else task),
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
        if args.json and is_main:
            print_json(results[-1].to_dict())
        if args.card and is_main:
            folder = local_folder(args.model.format(fold=fold))
            assert folder is not None  # for the type checker
            facts = card_facts(folder).with_result(result_of(results[-1], args))
            save_card(model, folder, facts)
        if args.errors:
            say(worst_in_words(result, args.errors))
        if args.out and is_main:
            folder = args.out if len(args.fold) == 1 else args.out / f"fold-{videos.fold}"
            result.save(folder)
            if args.errors:
                save_worst(result, folder / "errors.html", args.errors)
    if len(results) > 1:
        mean = mean_of(results)
        say(mean.summary())
        if args.json and is_main:
            print_json(mean.to_dict())
        if args.out and is_main:
            write_json(args.out / "results.json", mean.to_dict())
    return 0
