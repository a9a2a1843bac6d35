"""`timesformer-zoo finetune`: train a model on a folder or list of videos."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import timm

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.data.videos import DATASETS, VideoList, read_videos
from timesformer_zoo.hub.load import check_name, in_timms_layout
from timesformer_zoo.hub.save import save_pretrained
from timesformer_zoo.labels import known_labels, set_labels
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.train.evaluate import evaluate
from timesformer_zoo.train.finetune import finetune
from timesformer_zoo.train.recipe import RECIPES, Recipe

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo finetune`: leaves model/, results.json, history.json and checkpoints/ in `args.out`.

    It may run under `accelerate launch`. Run again after an interruption, it goes on from the last training state.
    """
    from accelerate import Accelerator

    recipe = RECIPES[args.recipe].with_settings(args.set)
    accelerator = Accelerator(
        mixed_precision=args.amp,
        log_with="tensorboard" if args.tensorboard else None,
        project_dir=args.out,
    )
    accelerator.init_trackers("tensorboard")

    def say(text: str) -> None:
        if accelerator.is_main_process:
            print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    source = dict(fold=args.fold, annotations=args.annotations)
    train = read_videos(args.data, args.videos, "train", labels=args.labels, task=args.task, **source)
    say(train.report())
    val = None
    if args.val != "none":
        split = next(s for s in DATASETS[args.data].splits if s != "train") if args.val == "auto" else args.val
        val = read_videos(args.data, args.videos, split, labels=train.classes, task=train.task, **source)
        say(val.report())
    with accelerator.local_main_process_first():
        model = _create(args, recipe, train)
    done = finetune(
        model,
        train,
        recipe,
        args.out,
        val=val,
        accelerator=accelerator,
        workers=args.workers,
        save_every=args.save_every,
        on_error=args.on_error,
        on_epoch=print_json if args.json else None,
    )
    metrics = None
    if val is not None:
        model = done.model.to(accelerator.device)
        result = evaluate(
            model,
            val,
            clips=args.clips,
            crops=args.crops,
            workers=args.workers,
            accelerator=accelerator,
            on_error=args.on_error,
        )
        say(result.summary())
        metrics = result.card_metrics
        if accelerator.is_main_process:
            result.save(args.out)
    if accelerator.is_main_process:
        data = f"{train.name}: {len(train.samples)} videos in {len(train.classes)} {train.things}"
        save_pretrained(done.model, args.out / "model", labels=train.classes, metrics=metrics, training_data=data)
        (args.out / "history.json").write_text(json.dumps(done.history, indent=1) + "\n")
    for path, reason in done.skipped.items():
        say(f"skipped: {path}: {reason}")
    say(f"model in {args.out / 'model'}; load it with local-dir:{args.out / 'model'}")
    if args.json and accelerator.is_main_process:
        print_json({"model": str(args.out / "model"), **(metrics or {}), "skipped": done.skipped})
    accelerator.wait_for_everyone()  # who leaves while another still writes may leave it hanging
    accelerator.end_training()
    return 0


def _create(args: Namespace, recipe: Recipe, videos: VideoList) -> TimeSformer:
    sizes = {"num_frames": args.num_frames, "img_size": args.img_size}  # timm drops what is None
    name = f"local-dir:{args.model}" if Path(args.model).is_dir() else args.model
    source, _, place = name.partition(":")
    if source not in ("hf-hub", "local-dir"):
        check_name(name)
    elif not in_timms_layout(place):
        raise ValueError(
            f"{args.model} is in transformers' layout: load_from_transformers loads it, save_pretrained saves it to a "
            "folder, which --model takes"
        )
    model: TimeSformer = timm.create_model(
        name,
        pretrained=not args.scratch,
        num_classes=len(videos.classes),
        drop_path_rate=recipe.drop_path,
        **sizes,
    )
    fields: dict[str, Any] = {}
    for setting in args.clip:
        name, _, text = setting.partition("=")
        try:
            fields[name] = json.loads(text)
        except json.JSONDecodeError:
            fields[name] = text  # "uniform" need not be quoted
    # The labels of the weights, and the kind of target that they were for, are not those of another head.
    other = known_labels(model) != list(videos.classes)
    model.clip = {k: v for k, v in (model.clip or {}).items() if k != "labels" and not (k == "task" and other)} | fields
    model.set_grad_checkpointing(args.grad_checkpointing)
    set_labels(model, videos.classes)
    return model
