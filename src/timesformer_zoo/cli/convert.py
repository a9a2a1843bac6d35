"""`timesformer-zoo convert`: weights of any known format to ours or to transformers'."""

from __future__ import annotations

from argparse import Namespace

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.hub.convert import convert

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo convert`."""
    out = convert(args.source, args.out, args.to, model=args.model, force=args.force)
    if args.json:
        print_json({"path": str(out), "format": args.to})
    else:
        print(out)
    return 0
