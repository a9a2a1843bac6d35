"""`timesformer-zoo search`: what in a library is most like a video."""

from __future__ import annotations

import sys
from argparse import Namespace

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.retrieval.index import index_file
from timesformer_zoo.retrieval.library import Library
from timesformer_zoo.retrieval.picture import save_matches, span
from timesformer_zoo.retrieval.query import search

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo search`."""
    library = Library.open(args.library)
    if args.index != "exact" and len(library) and not index_file(library, args.index).exists():
        print(f"timesformer-zoo search: building the index of {len(library):,} rows, once", file=sys.stderr)
    matches = search(
        library, args.query, args.topk,
        start=args.start, end=args.end, one_per_video=args.one_per_video, index=args.index, model=args.model,
        device=args.device,
    )  # fmt: skip
    if args.out is not None:
        save_matches(args.out, args.query, matches, start=args.start, end=args.end)
    if args.json:
        for match in matches:
            print_json(match.to_dict())
    else:
        times = [span(match.start, match.end) for match in matches]
        width = max(map(len, times))
        for match, time in zip(matches, times, strict=True):
            print(f"{match.similarity:7.4f}  {time:{width}}  {match.path}")
    return 0
