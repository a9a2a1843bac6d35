"""`timesformer-zoo push`: publish a model on the Hugging Face Hub."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.hub.load import card_facts, load_model, local_folder
from timesformer_zoo.hub.save import card_by_hand, loads_in_transformers, push_to_hf_hub

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo push`; the token is that of `hf auth login` or HF_TOKEN.

    What the model's own card says is taken over; the options add to it, or say otherwise.
    """
    metrics = dict(map(_metric, args.metric))
    model, facts, folder = load_model(args.model), card_facts(args.model), local_folder(args.model)
    example = args.example
    if example is None and folder is not None and facts.example and (folder / facts.example).is_file():
        example = folder / facts.example
    commit = push_to_hf_hub(
        model,
        args.repo_id,
        facts=replace(facts, datasets=args.dataset or facts.datasets),
        labels=args.labels.read_text(encoding="utf-8").splitlines() if args.labels else None,
        metrics=metrics,
        training_data=args.training_data,
        eval_data=args.eval_data,
        license=args.license,
        example=example,
        also_transformers=args.also_transformers or (folder is not None and loads_in_transformers(folder)),
        private=args.private,
        revision=args.revision,
        commit_message=args.message,
        card=card_by_hand(folder) if folder is not None else None,
    )
    if args.json:
        print_json({"repo_id": args.repo_id, "commit": commit.oid, "url": commit.commit_url})
    else:
        print(commit.commit_url)
    return 0


def _metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name.strip() or not math.isfinite(number):
        raise ValueError(f"--metric {text}: expected NAME=VALUE with a number, as accuracy=0.93")
    return name.strip(), number
