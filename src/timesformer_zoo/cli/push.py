"""`timesformer-zoo push`: publish a model on the Hugging Face Hub."""

from __future__ import annotations

from argparse import Namespace

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.hub.load import load_model
from timesformer_zoo.hub.save import push_to_hf_hub

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo push`; the token is that of `hf auth login` or HF_TOKEN."""
    metrics = {}
    for metric in args.metric:
        name, _, value = metric.partition("=")
        try:
            metrics[name] = float(value)
        except ValueError:
            raise ValueError(f"--metric {metric}: expected NAME=VALUE with a number, as accuracy=0.93") from None
    commit = push_to_hf_hub(
        load_model(args.model),
        args.repo_id,
        labels=args.labels.read_text(encoding="utf-8").splitlines() if args.labels else None,
        metrics=metrics,
        training_data=args.training_data,
        eval_data=args.eval_data,
        license=args.license,
        example=args.example,
        also_transformers=args.also_transformers,
        private=args.private,
        revision=args.revision,
        commit_message=args.message,
    )
    if args.json:
        print_json({"repo_id": args.repo_id, "commit": commit.oid, "url": commit.commit_url})
    else:
        print(commit.commit_url)
    return 0
