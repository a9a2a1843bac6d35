"""What a published checkpoint is: where, under which licence, of which model, and how its clips were sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from timesformer_zoo.labels import label_set

__all__ = ["PAPER", "Checkpoint", "is_page", "timm_config"]

PAPER = "arXiv:2102.05095"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One set of weights of one model."""

    # timm's field and its value: hf_hub_id, url or file; empty: no weights exist. The url may be of a page, where one
    # fetches the file by hand.
    source: dict[str, str]
    license: str
    description: str
    origin: str = ""  # page of the publisher, where it is not the repository's
    num_frames: int
    img_size: int
    num_params: int
    model: dict[str, Any] = field(default_factory=dict)  # arguments that differ from the registered model's
    labels: str | None = None  # a file of assets/labels/, or None where the head is new, or has no published names
    classes: int | None = None  # of a head without names; 0: there is no head, outputs are features
    task: str = ""  # what the weights are good for, where labels do not say; with the publisher's own number
    paper: str = PAPER
    clip: dict[str, Any] = field(default_factory=dict)  # how clips are sampled: fields of ClipSpec
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    top1: float | None = None  # as reported by the publisher, %
    top5: float | None = None
    bgr: bool = False  # trained on BGR frames; reversed on load, so that the model takes RGB
    image: bool = False  # an image ViT, inflated: no video was seen, and the head is new

    @property
    def num_classes(self) -> int:
        """Of the head: one a label; of a new head 400, until another number is asked for."""
        if self.classes is not None:
            return self.classes
        return len(label_set(self.labels)) if self.labels else 400


def is_page(url: str) -> bool:
    """Whether an address is that of a page, and not of the file itself: a drive asks a person first."""
    return url.startswith("https://drive.google.com/")


def timm_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as timm's pretrained config."""
    repository = checkpoint.source.get("hf_hub_id")
    return dict(
        **checkpoint.source,
        input_size=(3, checkpoint.img_size, checkpoint.img_size),
        fixed_input_size=True,
        interpolation="bilinear",
        crop_pct=1.0,
        mean=checkpoint.mean,
        std=checkpoint.std,
        num_classes=checkpoint.num_classes,
        first_conv="patch_embed.proj",
        classifier="head",
        license=checkpoint.license,
        description=checkpoint.description,
        origin_url=checkpoint.origin or (f"https://huggingface.co/{repository}" if repository else None),
        paper_ids=checkpoint.paper,
    )
