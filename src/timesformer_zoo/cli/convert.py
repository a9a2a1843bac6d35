"""`timesformer-zoo convert`: weights of any known format to ours or to transformers'."""

from __future__ import annotations

import sys
from argparse import Namespace

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.hub.convert import convert
from timesformer_zoo.weights.state import in_words

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo convert`."""
    out = convert(args.source, args.out, args.to, model=args.model, num_heads=args.num_heads, force=args.force)
    if args.json:
        left_out = {"left_out": list(out.left_out)} if out.left_out else {}
        print_json({"path": str(out), "format": args.to, **left_out})
        return 0
    print(out)
    if out.left_out:
        print(f"left out, as they are not of the video model: {in_words(out.left_out)}", file=sys.stderr)
    return 0
