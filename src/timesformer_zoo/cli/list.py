"""`timesformer-zoo list`: the models there are, as rows for people and programs."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from timesformer_zoo.cli.common import print_json
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.video.clip import ClipSpec
from timesformer_zoo.weights.checkpoint import is_page
from timesformer_zoo.weights.table import CHECKPOINTS, Checkpoint

__all__ = ["ListedModel", "list_models", "run"]


@dataclass(frozen=True)
class ListedModel:
    """One checkpoint of one model."""

    name: str  # for timm.create_model, with tag
    mode: str
    num_frames: int
    img_size: int
    sampling: str  # which frames of a video, in words
    parameters: int
    weights: str  # where they come from, in words
    license: str
    labels: str | None  # a label set
    num_classes: int
    top1: float | None  # as reported by the publisher, %
    top5: float | None
    image: bool  # an image ViT, inflated: no video was seen
    good_for: str  # what the weights are good for, in words

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def list_models(pattern: str = "*") -> list[ListedModel]:
    """Every entry of the checkpoint table whose name fits, in the table's order.

    Args:
        pattern: part of a name, or all of it with the wildcards * and ?.
    """
    if not any(wildcard in pattern for wildcard in "*?["):
        pattern = f"*{pattern}*"
    return [_row(name, entry) for name, entry in CHECKPOINTS.items() if fnmatchcase(name, pattern)]


def _row(name: str, entry: Checkpoint) -> ListedModel:
    _, _, mode = name.partition(".")[0].removeprefix("timesformer_").partition("_")
    return ListedModel(
        name=name,
        mode=AttentionMode(mode).value,
        num_frames=entry.num_frames,
        img_size=entry.img_size,
        sampling=ClipSpec.from_dict({"size": entry.img_size, **entry.clip}).sampling_in_words,
        parameters=entry.num_params,
        weights=_weights(entry),
        license=entry.license,
        labels=entry.labels,
        num_classes=entry.num_classes,
        top1=entry.top1,
        top5=entry.top5,
        image=entry.image,
        good_for=_good_for(entry),
    )


def _good_for(entry: Checkpoint) -> str:
    if entry.task:
        return entry.task
    if entry.labels:
        return f"classes of {entry.labels}"
    return "a start for training"


def _weights(entry: Checkpoint) -> str:
    if not entry.source:
        return "none"
    (kind, place), *_ = entry.source.items()
    where = {
        "hf_hub_id": f"hf-hub:{place}",
        "url": place.partition("//")[2].partition("/")[0] + (" (by hand)" if is_page(place) else ""),
        "file": "in the package",
    }[kind]
    return f"image ViT, inflated: no video seen ({where})" if entry.image else where


def run(args: Namespace) -> int:
    """Of `timesformer-zoo list`."""
    rows = [
        row
        for row in list_models(args.pattern)
        if args.mode in (None, row.mode)
        and args.labels in (None, row.labels or "none")
        and args.licence in (None, row.license)
    ]
    for row in rows if args.json else ():
        print_json(row.to_dict())
    if rows and not args.json:
        _print_table(rows)
    if not rows:
        options = {"--mode": args.mode, "--labels": args.labels, "--licence": args.licence}
        given = [repr(args.pattern), *(f"{name} {value}" for name, value in options.items() if value)]
        print(f"timesformer-zoo list: there is no model for {' and '.join(given)}", file=sys.stderr)
    return 0 if rows else 1


# Title -> a row's cell. At 80 columns there is room for those of the first line; a wider terminal has more.
COLUMNS: dict[str, Callable[[ListedModel], str]] = {
    "name": lambda row: row.name,
    "frames × px": lambda row: f"{row.num_frames} × {row.img_size}",
    "top-1": lambda row: _trained(row) if row.top1 is None else str(row.top1),
    "licence": lambda row: row.license,
    "good for": lambda row: row.good_for,
    "top-5": lambda row: "" if row.top5 is None else str(row.top5),
    "params": lambda row: f"{row.parameters / 1e6:.1f} M",
    "sampling": lambda row: row.sampling,
    "weights": lambda row: row.weights,
}


def _trained(row: ListedModel) -> str:
    if row.num_classes == 0:
        return "features"
    return "image" if row.image else "none" if row.weights == "none" else ""


def _print_table(rows: Sequence[ListedModel]) -> None:
    """One line a row: as many columns as the terminal has room for; all of them, whole, for another program."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None
    lines = [""] * (len(rows) + 1)
    for title, cell in COLUMNS.items():
        cells = [title, *map(cell, rows)]
        width = max(map(len, cells))
        wider = [f"{line}{'  ' if line else ''}{text:{width}}" for line, text in zip(lines, cells, strict=True)]
        if room is not None and len(wider[0]) > room and lines[0]:
            break
        lines = wider
    else:
        title = ""
    print("\n".join(line.rstrip() for line in lines))
    if title:
        print("\nfeatures: no head. By hand: `create_model` says from which page.")
        print("image: an image ViT, inflated: no video seen. none: no weights. More: --json.")
