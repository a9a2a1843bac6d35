"""Every published checkpoint: where it is, under which licence, and how its clips were sampled.

One entry a checkpoint; timm's configs, the model's defaults, its clips and labels, and the lists shown to users are
derived from it. To add one, add an entry to `CHECKPOINTS`, or for another project's encoder to `FAMILIES`.

Sources: the authors' model zoo (commit a5ef29a) for K400, K600 and SSv2 and their reported accuracy; mmaction2's model
zoo for its own; the paper (arXiv 2102.05095), Table 1, section 4, for sampling.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from timesformer_zoo.weights.checkpoint import PAPER, Checkpoint, timm_config
from timesformer_zoo.weights.families import FAMILIES

__all__ = ["CHECKPOINTS", "PAPER", "Checkpoint", "timm_config"]

ASSETS = files("timesformer_zoo") / "assets"


# The paper's three models: every which frame is seen, at 30 a second, and what the short side is scaled to in training
# where that is not ClipSpec's own. And the small one: a crop beside the centre would see zoom and roll as a pan, too,
# and a flip would turn left into right; and a clip of it is a second, of which a video has many.
BASE: dict[str, Any] = dict(num_frames=8, img_size=224, clip={"stride": 32})
HR: dict[str, Any] = dict(num_frames=16, img_size=448, clip={"stride": 16, "jitter": [448, 512]})
L: dict[str, Any] = dict(num_frames=96, img_size=224, clip={"stride": 4})
TINY: dict[str, Any] = dict(num_frames=8, img_size=64, clip={"stride": 4, "crops": 1, "flip": False, "windows": True})

# SSv2: a frame of each segment of the whole video; left and right are part of the labels.
UNIFORM: dict[str, Any] = {"sampling": "uniform", "flip": False}

HALF: dict[str, Any] = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
AUTHORS: dict[str, Any] = dict(license="cc-by-nc-4.0", description="The authors' divided space-time model.")
MMACTION2: dict[str, Any] = dict(
    license="apache-2.0",
    description="mmaction2's own training on Kinetics-400.",
    origin="https://github.com/open-mmlab/mmaction2/tree/main/configs/recognition/timesformer",
    **HALF,
)
OPENMMLAB = "https://download.openmmlab.com/mmaction/v1.0/recognition/timesformer"
IMAGE_VIT: dict[str, Any] = dict(
    source={"hf_hub_id": "timm/vit_base_patch16_224.orig_in21k_ft_in1k"},  # what the authors' code starts from
    license="apache-2.0",
    description="Not a video model yet: ViT-B/16 of ImageNet-21k, inflated as the paper does, with a new head.",
    image=True,
    **HALF,
)
UNTRAINED: dict[str, Any] = dict(
    source={}, license="apache-2.0", description="A small model for tests and laptops; no weights."
)

# fmt: off
CHECKPOINTS: dict[str, Checkpoint] = {
    "timesformer_base_divided.k400": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-base-finetuned-k400"},
        **BASE, num_params=121_566_352, labels="kinetics400", top1=77.9, top5=93.2,
    ),
    "timesformer_base_divided.k600": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-base-finetuned-k600"},
        **BASE, num_params=121_720_152, labels="kinetics600", top1=79.1, top5=94.4,
    ),
    "timesformer_base_divided.ssv2": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-base-finetuned-ssv2"}, bgr=True,
        num_frames=8, img_size=224, clip=UNIFORM,
        num_params=121_392_558, labels="something_something_v2", top1=59.1, top5=85.6,
    ),
    "timesformer_hr_divided.k400": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-hr-finetuned-k400"},
        **HR, num_params=122_024_080, labels="kinetics400", top1=79.6, top5=94.0,
    ),
    "timesformer_hr_divided.k600": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-hr-finetuned-k600"},
        **HR, num_params=122_177_880, labels="kinetics600", top1=81.8, top5=95.8,
    ),
    "timesformer_hr_divided.ssv2": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "facebook/timesformer-hr-finetuned-ssv2"}, bgr=True,
        num_frames=16, img_size=448, clip={**UNIFORM, "jitter": [448, 512]},
        num_params=121_850_286, labels="something_something_v2", top1=61.8, top5=86.9,
    ),
    "timesformer_l_divided.k400": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "fcakyon/timesformer-large-finetuned-k400"},
        **L, num_params=121_633_936, labels="kinetics400", top1=80.6, top5=94.7,
    ),
    "timesformer_l_divided.k600": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "fcakyon/timesformer-large-finetuned-k600"},
        **L, num_params=121_787_736, labels="kinetics600", top1=82.2, top5=95.6,
    ),
    "timesformer_l_divided.ssv2": Checkpoint(
        **AUTHORS, source={"hf_hub_id": "fcakyon/timesformer-large-finetuned-ssv2"}, bgr=True,
        num_frames=64, img_size=224, clip=UNIFORM,
        num_params=121_435_566, labels="something_something_v2", top1=62.0, top5=87.5,
    ),
    "timesformer_base_divided.mmaction2_k400": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb/"
                "timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_20220815-a4d0d01f.pth"},
        **BASE, num_params=121_566_352, labels="kinetics400", top1=77.69, top5=93.45,
    ),
    "timesformer_base_joint.mmaction2_k400": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb/"
                "timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb_20220815-8022d1c0.pth"},
        **BASE, num_params=86_112_400, labels="kinetics400", top1=76.95, top5=93.28,
    ),
    "timesformer_base_space_only.mmaction2_k400": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb/"
                "timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb_20220815-78f05367.pth"},
        **BASE, num_params=86_106_256, labels="kinetics400", top1=76.93, top5=92.88,
    ),
    # Not video models yet.
    "timesformer_base_space_only.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=86_106_256),
    "timesformer_base_joint.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=86_112_400),
    "timesformer_base_divided.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=121_566_352),
    "timesformer_base_local_global.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=121_566_352),
    "timesformer_base_axial.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=157_020_304),
    "timesformer_hr_space_only.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=86_557_840),
    "timesformer_hr_joint.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=86_570_128),
    "timesformer_hr_divided.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=122_024_080),
    "timesformer_hr_local_global.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=122_024_080),
    "timesformer_hr_axial.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=157_478_032),
    "timesformer_l_space_only.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=86_106_256),
    "timesformer_l_joint.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=86_179_984),
    "timesformer_l_divided.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=121_633_936),
    "timesformer_l_local_global.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=121_633_936),
    "timesformer_l_axial.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=157_087_888),
    "timesformer_base_frozen.in21k": Checkpoint(**IMAGE_VIT, **BASE, num_params=114_479_248),
    "timesformer_hr_frozen.in21k": Checkpoint(**IMAGE_VIT, **HR, num_params=114_936_976),
    "timesformer_l_frozen.in21k": Checkpoint(**IMAGE_VIT, **L, num_params=114_546_832),
    "timesformer_tiny_divided.camera_motion": Checkpoint(
        source={"file": str(ASSETS / "weights" / "timesformer_tiny_divided.camera_motion.safetensors")},
        license="apache-2.0", origin="examples/camera_motion/README.md",
        description="What the camera does in a second of video: nine motions, or a cut; ships with the package.",
        **TINY, num_params=2_236_650, labels="camera_motion",
    ),
    "timesformer_tiny_space_only.untrained": Checkpoint(**UNTRAINED, **TINY, num_params=1_652_560),
    "timesformer_tiny_joint.untrained": Checkpoint(**UNTRAINED, **TINY, num_params=1_653_840),
    "timesformer_tiny_local_global.untrained": Checkpoint(**UNTRAINED, **TINY, num_params=2_299_440),
    "timesformer_tiny_axial.untrained": Checkpoint(**UNTRAINED, **TINY, num_params=2_945_040),
    "timesformer_tiny_frozen.untrained": Checkpoint(**UNTRAINED, **TINY, num_params=2_170_640),
    **FAMILIES,
}
# fmt: on
"""Model name with tag -> checkpoint. A model's first entry is what `pretrained=True` loads without a tag."""
