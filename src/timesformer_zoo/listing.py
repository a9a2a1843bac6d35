"""The models there are, as rows for people and programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch

from timesformer_zoo.table import CHECKPOINTS, Checkpoint

__all__ = ["ListedModel", "list_models"]


@dataclass(frozen=True)
class ListedModel:
    """One checkpoint of one model."""

    name: str  # for timm.create_model, with tag
    mode: str
    num_frames: int
    img_size: int
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
