"""Every published checkpoint: where it is, under which licence, and how its clips were sampled.

One entry a checkpoint; timm's configs, the model's defaults, its clips and labels, and the lists shown to users are
derived from it. To add one, add an entry to `CHECKPOINTS`.

Sources: the authors' model zoo (commit a5ef29a) for K400, K600 and SSv2 and their reported accuracy; mmaction2's model
zoo for its own; the paper (arXiv 2102.05095), Table 1, section 4, for sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from timesformer_zoo.attention import AttentionMode

__all__ = ["CHECKPOINTS", "Checkpoint", "timm_config"]

PAPER = "arXiv:2102.05095"
MMACTION2 = "https://download.openmmlab.com/mmaction/v1.0/recognition/timesformer"
IMAGE_VIT = "timm/vit_base_patch16_224.orig_in21k_ft_in1k"  # what the authors' code starts from


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights of one model."""

    source: dict[str, str]  # timm's field and its value: hf_hub_id, url or file; empty: no weights exist
    license: str
    description: str
    origin: str  # page of the publisher
    num_classes: int
    labels: str | None  # a file of labels/, or None where the head is new
    num_frames: int
    img_size: int
    clip: dict[str, Any] = field(default_factory=dict)  # how clips are sampled: fields of ClipSpec
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    top1: float | None = None  # as reported by the publisher, %
    top5: float | None = None
    bgr: bool = False  # trained on BGR frames; reversed on load, so that the model takes RGB
    image: bool = False  # an image ViT, inflated: no video was seen, and the head is new


@dataclass(frozen=True)
class Variant:
    """One of the paper's three models."""

    num_frames: int
    img_size: int
    stride: int  # of dense sampling, at 30 frames a second
    jitter: tuple[int, int] | None  # short side in training, px; None: ClipSpec's own, (256, 320) for 224 px
    owner: str  # of the Hub repositories
    hub_name: str

    def clip(self, **changes: Any) -> dict[str, Any]:
        return {"stride": self.stride, **({"jitter": list(self.jitter)} if self.jitter else {}), **changes}


VARIANTS = {
    "base": Variant(8, 224, 32, None, "facebook", "base"),
    "hr": Variant(16, 448, 16, (448, 512), "facebook", "hr"),
    "l": Variant(96, 224, 4, None, "fcakyon", "large"),  # the authors' L is "long"; its repositories say "large"
}

# (variant, data set): top-1, top-5 of the released weights, and the number of frames where it is not the variant's
RELEASED: dict[tuple[str, str], tuple[float, float, int | None]] = {
    ("base", "k400"): (77.9, 93.2, None),
    ("base", "k600"): (79.1, 94.4, None),
    ("base", "ssv2"): (59.1, 85.6, None),
    ("hr", "k400"): (79.6, 94.0, None),
    ("hr", "k600"): (81.8, 95.8, None),
    ("hr", "ssv2"): (61.8, 86.9, None),
    ("l", "k400"): (80.6, 94.7, None),
    ("l", "k600"): (82.2, 95.6, None),
    ("l", "ssv2"): (62.0, 87.5, 64),
}

# data set: classes, labels, sampling, trained on BGR
DATA_SETS: dict[str, tuple[int, str, dict[str, Any], bool]] = {
    "k400": (400, "kinetics400", {}, False),
    "k600": (600, "kinetics600", {}, False),
    # left and right are part of SSv2's labels: no flip. Frames come from the whole video, one of each segment.
    "ssv2": (174, "something_something_v2", {"sampling": "uniform", "flip": False}, True),
}

# mode: top-1, top-5, file
MMACTION2_K400 = {
    "divided": (77.69, 93.45, "timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb", "20220815-a4d0d01f"),
    "joint": (76.95, 93.28, "timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb", "20220815-8022d1c0"),
    "space_only": (76.93, 92.88, "timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb", "20220815-78f05367"),
}


def _released(variant: str, data: str) -> Checkpoint:
    v, (classes, labels, clip, bgr) = VARIANTS[variant], DATA_SETS[data]
    top1, top5, frames = RELEASED[variant, data]
    repository = f"{v.owner}/timesformer-{v.hub_name}-finetuned-{data}"
    return Checkpoint(
        source={"hf_hub_id": repository},
        license="cc-by-nc-4.0",
        description=f"The authors' divided space-time model, fine-tuned on {labels}.",
        origin=f"https://huggingface.co/{repository}",
        num_classes=classes,
        labels=labels,
        num_frames=frames or v.num_frames,
        img_size=v.img_size,
        clip=v.clip(labels=labels, **clip),
        top1=top1,
        top5=top5,
        bgr=bgr,
    )


def _mmaction2(mode: str) -> Checkpoint:
    top1, top5, name, version = MMACTION2_K400[mode]
    return Checkpoint(
        source={"url": f"{MMACTION2}/{name}/{name}_{version}.pth"},
        license="apache-2.0",
        description="mmaction2's own training on Kinetics-400.",
        origin="https://github.com/open-mmlab/mmaction2/tree/main/configs/recognition/timesformer",
        num_classes=400,
        labels="kinetics400",
        num_frames=8,
        img_size=224,
        clip=VARIANTS["base"].clip(labels="kinetics400"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        top1=top1,
        top5=top5,
    )


def _image_vit(variant: str) -> Checkpoint:
    v = VARIANTS[variant]
    return Checkpoint(
        source={"hf_hub_id": IMAGE_VIT},
        license="apache-2.0",
        description="Not a video model yet: ViT-B/16 of ImageNet-21k, inflated as the paper does, with a new head.",
        origin=f"https://huggingface.co/{IMAGE_VIT}",
        num_classes=400,
        labels=None,
        num_frames=v.num_frames,
        img_size=v.img_size,
        clip=v.clip(),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image=True,
    )


def _tiny(weights: str | None = None, labels: str | None = None) -> Checkpoint:
    return Checkpoint(
        source={"file": str(files("timesformer_zoo") / "weights" / weights)} if weights else {},
        license="apache-2.0",
        description=(
            "Camera motion in nine classes, trained by examples/camera_motion/train.py; ships with the package."
            if weights
            else "A small model for tests and laptops; no weights."
        ),
        origin="examples/camera_motion/train.py" if weights else "",
        num_classes=9 if weights else 400,
        labels=labels,
        num_frames=8,
        img_size=64,
        # A crop beside the centre sees zoom and roll as a pan too, and a flip turns left into right.
        clip={"stride": 4, "crops": 1, "flip": False, "labels": labels},
    )


def _checkpoints() -> dict[str, Checkpoint]:
    table = {}
    for variant, data in RELEASED:
        table[f"timesformer_{variant}_divided.{data}"] = _released(variant, data)
    for mode in MMACTION2_K400:
        table[f"timesformer_base_{mode}.mmaction2_k400"] = _mmaction2(mode)
    for variant in VARIANTS:
        for mode in AttentionMode:
            table[f"timesformer_{variant}_{mode}.in21k"] = _image_vit(variant)
    table["timesformer_tiny_divided.camera_motion"] = _tiny(
        "timesformer_tiny_divided.camera_motion.safetensors", labels="camera_motion"
    )
    for mode in AttentionMode:
        if mode is not AttentionMode.DIVIDED:
            table[f"timesformer_tiny_{mode}.untrained"] = _tiny()
    return table


CHECKPOINTS: dict[str, Checkpoint] = _checkpoints()
"""Model name with tag -> checkpoint. A model's first entry is what `pretrained=True` loads without a tag."""


def timm_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as timm's pretrained config."""
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
        origin_url=checkpoint.origin or None,
        paper_ids=PAPER,
    )
