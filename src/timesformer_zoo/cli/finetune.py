"""`timesformer-zoo finetune`: train a model on a folder or list of videos."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import timm
import torch

from timesformer_zoo.cli.common import data_in_words, print_json, result_of
from timesformer_zoo.data.videos import DATASETS, VideoList, read_videos
from timesformer_zoo.hub.card import HUB
from timesformer_zoo.hub.facts import CardFacts
from timesformer_zoo.hub.load import check_name, in_timms_layout, local_folder
from timesformer_zoo.hub.save import save_pretrained
from timesformer_zoo.labels import known_labels, set_labels
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.train.evaluate import evaluate
from timesformer_zoo.train.find_lr import LearningRates, find_lr
from timesformer_zoo.train.finetune import Finetuned, finetune
from timesformer_zoo.train.optim import read_class_weights
from timesformer_zoo.train.plan import plan
from timesformer_zoo.train.probe import PROBE_FIELDS, probe
from timesformer_zoo.train.recipe import RECIPES, Recipe
from timesformer_zoo.train.tracking import check_trackers, start_trackers
from timesformer_zoo.words import counted
from timesformer_zoo.writing import current, expect_writable, write_json

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo finetune`: leaves model/, results.json, history.json and checkpoints/ in `args.out`.

    It may run under `accelerate launch`. Run again after an interruption, it goes on from the last training state.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    given = {name: getattr(args, name) for name in RECIPES[args.recipe].to_dict() if name in args}
    _check_options(args, given)
    accelerator = Accelerator(
        mixed_precision=args.amp,
        log_with=check_trackers(args.track) or None,
        project_config=ProjectConfiguration(str(args.out), str(args.out / "tensorboard")),
    )

    def say(text: str) -> None:
        if accelerator.is_main_process:
            print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    source = dict(fold=args.fold, annotations=args.annotations)
    if accelerator.is_main_process and not args.dry_run:  # which leaves nothing
        expect_writable(args.out)
    train = read_videos(args.data, args.videos, "train", labels=args.labels, task=args.task, **source)
    say(train.report())
    val = None
    if args.val != "none":
        split = next(s for s in DATASETS[args.data].splits if s != "train") if args.val == "auto" else args.val
        val = read_videos(args.data, args.videos, split, labels=train.classes, task=train.task, **source)
        say(val.report())
    if given.get("class_weights") not in (None, "balanced"):
        given["class_weights"] = read_class_weights(given["class_weights"], train.classes)
    recipe = replace(RECIPES[args.recipe], **given)
    with accelerator.local_main_process_first():
        torch.manual_seed(recipe.seed)  # of the new head, or with --scratch of all: the same in every process and run
        model = _create(args, recipe, train)
    options: dict[str, Any] = dict(accelerator=accelerator, workers=args.workers, on_error=args.on_error)
    if args.dry_run:
        planned = plan(model, train, recipe, args.out, val=val, **options)
        say(planned.report())
        if args.json and accelerator.is_main_process:
            print_json(planned.to_dict())
    elif args.find_lr:
        _find_lr(args, find_lr(model, train, recipe, **options), accelerator.is_main_process, say)
    else:
        if args.track:
            with redirect_stdout(sys.stderr):  # of what some say at their start
                start_trackers(accelerator, recipe, args.out)
        if args.probe:
            done = probe(model, train, recipe, args.out, val=val, **options)
        else:
            on_epoch = print_json if args.json else None
            done = finetune(
                model, train, recipe, args.out, val=val, save_every=args.save_every, on_epoch=on_epoch, **options
            )
        _leave(args, recipe, done, train, val, options, say)
    accelerator.wait_for_everyone()  # who leaves while another still writes may leave it hanging
    with redirect_stdout(sys.stderr):
        accelerator.end_training()
    return 0


def _check_options(args: Namespace, given: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that was given and would have no effect."""
    others = [name for name in ("save_every", "track") if getattr(args, name)]
    if args.probe and (idle := [name for name in (*given, *others) if name not in PROBE_FIELDS]):
        used = ", ".join(f"--{name.replace('_', '-')}" for name in PROBE_FIELDS)
        raise ValueError(f"--{idle[0].replace('_', '-')} has no effect on --probe, which looks at {used} alone")


def _find_lr(args: Namespace, found: LearningRates, is_main: bool, say: Callable[[str], None]) -> None:
    say(f"{found.summary()}; for this recipe: --lr {found.suggestion:.2g}")
    if not is_main:
        return
    picture = args.out / "learning_rate.png"
    try:
        found.plot(picture)
        say(f"curve in {picture}")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        say("no curve: it needs matplotlib (pip install 'timesformer-zoo[plots]')")
    if args.json:
        print_json({"suggestion": found.suggestion, "rates": found.rates, "losses": found.losses})


def _leave(
    args: Namespace,
    recipe: Recipe,
    done: Finetuned,
    train: VideoList,
    val: VideoList | None,
    options: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Evaluate the model, and write it and what there is to say of it."""
    accelerator = options["accelerator"]
    values = {"name": args.recipe, **recipe.to_dict()}
    if args.probe:
        values = {"name": "linear probe", **{name: values[name] for name in PROBE_FIELDS}}
    things = counted(len(train.classes), train.things)
    facts = CardFacts(
        training_data=f"{data_in_words(args)}: {counted(len(train.samples), 'videos')} in {things}.",
        recipe=values,
        history=done.history,
    )
    metrics: dict[str, float] = {}
    if val is not None:
        model = done.model.to(accelerator.device)
        result = evaluate(model, val, clips=args.clips, crops=args.crops, **options)
        say(result.summary())
        metrics, facts = result.card_metrics, facts.with_result(result_of(result, args))
        if accelerator.is_main_process:
            result.save(args.out)
    if accelerator.is_main_process:
        save_pretrained(done.model, args.out / "model", labels=train.classes, facts=facts)
        write_json(args.out / "history.json", done.history)
    for path, reason in done.skipped.items():
        say(f"skipped: {path}: {reason}")
    which = ""
    if done.best is not None:
        which = f" of epoch {done.best['epoch']}, the best by {done.best['metric']} ({done.best['value']:.4g}),"
    say(f"model{which} in {args.out / 'model'}; load it with local-dir:{args.out / 'model'}")
    if args.json and accelerator.is_main_process:
        print_json({"model": str(args.out / "model"), **metrics, "skipped": done.skipped})


def _create(args: Namespace, recipe: Recipe, videos: VideoList) -> TimeSformer:
    sizes = {"num_frames": args.num_frames, "img_size": args.img_size}  # timm drops what is None
    folder = local_folder(args.model)
    name = args.model if folder is None else f"local-dir:{current(folder, 'config.json').parent}"
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
    if source == "hf-hub":  # what the card is to name, and not what this one started from in turn
        model.pretrained_cfg["origin_url"] = HUB + place
    fields: dict[str, Any] = {}
    for setting in args.clip:
        name, _, text = setting.partition("=")
        try:
            fields[name] = json.loads(text)
        except json.JSONDecodeError:
            fields[name] = text  # "uniform" need not be quoted
    # The labels of the weights, and the kind of target that they were for, are not those of another head.
    other = args.scratch or known_labels(model) != list(videos.classes)
    model.clip = {k: v for k, v in (model.clip or {}).items() if k != "labels" and not (k == "task" and other)} | fields
    model.set_grad_checkpointing(args.grad_checkpointing)
    set_labels(model, videos.classes)
    return model
