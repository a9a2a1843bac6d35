"""Released models at their true sizes: weights laid out as published load by name, logits equal transformers'."""

import json
from pathlib import Path

import pytest
import timm
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

import timesformer_zoo  # noqa: F401  (registers the models)
from timesformer_zoo import CHECKPOINTS

SHAPES = json.loads((Path(__file__).parent / "data" / "model" / "official_shapes.json").read_text())
FAST = [("base", "k400"), ("base", "ssv2")]  # k600 differs from k400 in its number of classes
RELEASED = [
    pytest.param(variant, data, marks=() if (variant, data) in FAST else pytest.mark.slow)
    for variant in ("base", "hr", "l")
    for data in ("k400", "k600", "ssv2")
]


@pytest.mark.parametrize(("variant", "data"), RELEASED)
def test_logits_equal_transformers(variant: str, data: str) -> None:
    name = f"timesformer_{variant}_divided.{data}"
    entry = CHECKPOINTS[name]
    config = TimesformerConfig(image_size=entry.img_size, num_frames=entry.num_frames, num_labels=entry.num_classes)
    with torch.device("meta"):  # not transformers' own initialisation: slow, and zero between the steps
        peer = TimesformerForVideoClassification(config).eval()
    peer.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in peer.named_parameters():
            weight.normal_(1.0 if "layernorm" in key and key.endswith("weight") else 0.0, 0.02, generator=generator)
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": peer.state_dict()}).eval()
    x = torch.randn(1, 3, entry.num_frames, entry.img_size, entry.img_size, generator=generator)
    published_input = x.flip(1) if entry.bgr else x  # the released SSv2 models take BGR, ours RGB
    with torch.inference_mode():
        ours = model(x)
        theirs = peer(published_input.transpose(1, 2)).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        ("base_k400", "timesformer_base_divided.k400"),
        ("hr_k600", "timesformer_hr_divided.k600"),
        ("l_ssv2", "timesformer_l_divided.ssv2"),
        ("l_k400", "timesformer_l_divided.k400"),
        ("base_joint_k400", "timesformer_base_joint"),
        ("base_space_only_k400", "timesformer_base_space_only"),
    ],
)
def test_the_authors_files_load_by_name(shapes: str, name: str, tmp_path: Path) -> None:
    """A file with every key and shape of the authors' own, in their layout, fills every weight of the named model."""
    value = torch.arange(1, 8, dtype=torch.float32)
    state = {key: value[i % 7].expand(shape) for i, (key, shape) in enumerate(SHAPES[shapes].items())}
    file = tmp_path / "authors.pyth"  # expanded tensors: a few bytes on disk, whatever their shape
    torch.save({"model_state": state, "optimizer_state": {}, "epoch": 15, "cfg": "a string"}, file)
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    assert all(parameter.min() == parameter.max() and parameter.min() >= 1 for parameter in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == sum(torch.Size(s).numel() for s in SHAPES[shapes].values())
