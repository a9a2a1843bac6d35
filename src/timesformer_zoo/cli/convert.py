"""`timesformer-zoo convert`: weights of any known format to ours or to transformers'."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from timesformer_zoo.hub.convert import convert

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Of `timesformer-zoo convert`."""
    parser.add_argument("source", metavar="IN", type=Path, help="a file of weights in any known format, or a folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--to", required=True, choices=["native", "transformers"], help="format of OUT")
    parser.add_argument("--model", metavar="NAME", help="what IN is, as timesformer_base_divided.ssv2")
    parser.add_argument("--force", action="store_true", help="replace OUT")


def run(args: Namespace) -> int:
    """Of `timesformer-zoo convert`."""
    print(convert(args.source, args.out, args.to, model=args.model, force=args.force))
    return 0
