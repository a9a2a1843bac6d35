"""Options of the verbs that are of models and weights."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from timesformer_zoo_cli.choices import FILES, JSON, LABELS, LICENCES, MODEL, MODES

__all__ = ["add_convert", "add_list", "add_push"]


def add_list(parser: ArgumentParser) -> None:
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="part of a name, or with * and ? (default: all)"
    )
    parser.add_argument("--mode", choices=MODES, help="of attention (default: all)")
    parser.add_argument("--labels", choices=LABELS, help="the label set of its head; none: a new head (default: all)")
    parser.add_argument("--licence", "--license", choices=LICENCES, help="of the weights (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON, one object in a line for each model")


def add_convert(parser: ArgumentParser) -> None:
    source = parser.add_argument(
        "source", metavar="IN", type=Path, help="a file of weights in any known format, or a folder"
    )
    source.complete = FILES  # type: ignore[attr-defined]
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--to", required=True, choices=("native", "transformers"), help="format of OUT")
    parser.add_argument("--model", metavar="NAME", help="what IN is, as timesformer_base_divided.ssv2")
    parser.add_argument("--num-heads", metavar="N", type=int, help="where IN has no registered model's width")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--json", action="store_true", help=JSON)


def add_push(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"what to publish: {MODEL}")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made if it does not exist")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="class names, a line each (default: the model's)")
    # For the card, which has what `finetune` and `evaluate --card` know without them.
    parser.add_argument("--metric", metavar="NAME=VALUE", action="append", default=[], help="for the card; repeatable")
    parser.add_argument("--training-data", metavar="TEXT", help="what it was trained on, for the card")
    parser.add_argument(
        "--dataset", metavar="OWNER/NAME", action="append", default=[], help="of the Hub, that it was trained on"
    )
    parser.add_argument("--eval-data", metavar="TEXT", help="what the metrics were measured on")
    parser.add_argument("--license", metavar="NAME", help="default: that of the weights it started from")
    parser.add_argument("--example", metavar="VIDEO", type=Path, help="a video to go with it, for the widget")
    parser.add_argument("--also-transformers", action="store_true", help="loads in transformers, too")
    parser.add_argument("--private", action="store_true", help="if the repository is new")
    parser.add_argument("--revision", metavar="BRANCH", help="an existing branch (default: main)")
    parser.add_argument("--message", metavar="TEXT", default="Add model", help="of the commit (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help=JSON)
