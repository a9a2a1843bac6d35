"""`timesformer-zoo embed`: features of videos into a library, for `search`."""

from __future__ import annotations

import sys
from argparse import Namespace

from rich.console import Console
from rich.progress import Progress

from timesformer_zoo.cli.common import engine_of, find_videos, print_json
from timesformer_zoo.retrieval.embedding import embed_each
from timesformer_zoo.retrieval.encoder import Taking

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Of `timesformer-zoo embed`."""
    engine = engine_of(args)
    taking = Taking(args.per, args.window, args.step, args.clips, args.crops)
    videos = list(find_videos(args.videos))
    problems = [problem for _, problem in videos if problem is not None]
    paths = [path for path, problem in videos if problem is None]
    for problem in problems:
        print(f"timesformer-zoo embed: {problem}", file=sys.stderr)
    done = errors = 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=len(paths))
        rows = embed_each(
            args.model, paths, args.out, taking, args.dtype,
            engine=engine, device=args.device, retry_errors=args.retry_errors,
        )  # fmt: skip
        while True:
            try:
                row = next(rows)
            except StopIteration as end:
                counts = end.value
                break
            done += 1
            if "error" in row:
                print(f"timesformer-zoo embed: {row['error']}", file=sys.stderr)
                errors += 1
            bar.update(task, completed=done)
    done, errors = done + len(problems), errors + len(problems)
    if args.json:
        print_json({"out": str(args.out), "done": done, "errors": errors, **counts})
    else:
        wrong = f", {errors} of them with an error" if errors else ""
        changed = f", {counts['changed']} of these done anew" if counts["changed"] else ""
        before = f"{counts['before']} were there before{changed}"
        print(f"{args.out}: {done} done{wrong}; {before}; {counts['rows']} rows in all, one a {args.per}")
    return 1 if errors else 0
