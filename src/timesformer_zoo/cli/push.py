"""`timesformer-zoo push`: publish a model on the Hugging Face Hub."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from timesformer_zoo.hub.load import load_model
from timesformer_zoo.hub.save import push_to_hf_hub

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Of `timesformer-zoo push`."""
    parser.add_argument("model", metavar="MODEL", help="a folder with a model, or any other name of one")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made if it does not exist")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="class names, one a line; default: the model's own")
    parser.add_argument("--metric", metavar="NAME=VALUE", action="append", default=[], help="for the card; repeatable")
    parser.add_argument("--training-data", metavar="TEXT", help="what it was trained on, for the card")
    parser.add_argument("--eval-data", metavar="TEXT", help="what the metrics were measured on")
    parser.add_argument("--license", help="default: that of the weights it started from")
    parser.add_argument("--example", metavar="VIDEO", type=Path, help="a video to go with it, for the widget")
    parser.add_argument("--also-transformers", action="store_true", help="loads in transformers, too")
    parser.add_argument("--private", action="store_true", help="if the repository is new")
    parser.add_argument("--revision", metavar="BRANCH", help="an existing branch; default: main")
    parser.add_argument("--message", default="Add model", help="of the commit")


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
    print(commit.commit_url)
    return 0
