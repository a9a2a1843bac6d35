"""What several verbs share."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from timesformer_zoo.data.catalogue import DATASETS

__all__ = ["add_data_arguments"]


def add_data_arguments(parser: ArgumentParser) -> None:
    """Arguments of the verbs that read a data set."""
    about = "default: folder; " + "; ".join(f"{name}: {entry.about}" for name, entry in DATASETS.items())
    parser.add_argument("videos", type=Path, help="folder of the videos")
    parser.add_argument("--data", default="folder", choices=DATASETS, metavar="NAME", help=about)
    parser.add_argument("--annotations", type=Path, help="annotation file, or the folder with the published files")
    parser.add_argument("--labels", help="class names: a text or JSON file, or the name of a label set")
    parser.add_argument("--clips", type=int, help="test views along time (default: the model's)")
    parser.add_argument("--crops", type=int, help="test views along the longer side (default: the model's)")
    parser.add_argument("--workers", type=int, default=4, help="processes that decode videos (default: 4)")
    parser.add_argument(
        "--on-error",
        default="fail",
        choices=("fail", "skip"),
        help="for missing and unreadable videos: stop (default), or leave them out and list them at the end",
    )
