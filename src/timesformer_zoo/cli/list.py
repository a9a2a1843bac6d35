"""`timesformer-zoo list`: the models there are, as rows for people and programs."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch

from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.weights.table import CHECKPOINTS, Checkpoint

__all__ = ["ListedModel", "add_arguments", "list_models", "run"]


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
    with torch.device("meta"):  # shapes without memory
        model: Any = timm.create_model(name)
    return ListedModel(
        name=name,
        mode=model.attention.value,
        num_frames=entry.num_frames,
        img_size=entry.img_size,
        sampling=clip_spec(model).sampling_in_words,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=_weights(entry),
        license=entry.license,
        labels=entry.labels,
        num_classes=entry.num_classes,
        top1=entry.top1,
        top5=entry.top5,
    )


def _weights(entry: Checkpoint) -> str:
    if not entry.source:
        return "none"
    (kind, place), *_ = entry.source.items()
    where = {
        "hf_hub_id": f"hf-hub:{place}",
        "url": place.partition("//")[2].partition("/")[0],
        "file": "in the package",
    }[kind]
    return f"image ViT, inflated: no video seen ({where})" if entry.image else where


def add_arguments(parser: ArgumentParser) -> None:
    """Of `timesformer-zoo list`."""
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="part of a name, or with * and ?")
    parser.add_argument("--json", action="store_true", help="print a JSON array, one object a model")


def run(args: Namespace) -> int:
    """Of `timesformer-zoo list`."""
    rows = [row.to_dict() for row in list_models(args.pattern)]
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_table(
            [("name", "frames × px", "sampling", "params", "top-1", "top-5", "licence", "weights"), *map(_cells, rows)]
        )
    if not rows:
        print(f"timesformer-zoo list: no model's name has {args.pattern!r} in it", file=sys.stderr)
    return 0 if rows else 1


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    scores = ("" if row[name] is None else str(row[name]) for name in ("top1", "top5"))
    input_size, params = f"{row['num_frames']} × {row['img_size']}", f"{row['parameters'] / 1e6:.1f} M"
    return (row["name"], input_size, row["sampling"], params, *scores, row["license"], row["weights"])


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """One line a row, whole however narrow the terminal is, so that grep finds all of it."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
