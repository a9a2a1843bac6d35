"""Small models with random weights, and the golden ones, that several tests use.

`data/model` holds small models of the authors' code and of mmaction2, with random weights, and their outputs.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from timesformer_zoo import TimeSformer, checkpoint_filter_fn

DATA = Path(__file__).parent / "data" / "model"
GOLDEN = sorted(path.stem for path in DATA.glob("*.safetensors"))
MODES = ["space_only", "joint", "divided", "local_global", "axial", "frozen"]
every_mode = pytest.mark.parametrize("mode", MODES)
# For what does not depend on the mode: one with a class token a clip, and the one with a class token a frame.
both_kinds = pytest.mark.parametrize("mode", ["divided", "space_only"])


def tiny(attention="divided", **changes):
    """A small model with every parameter random, also those that start at zero."""
    size = dict(img_size=32, patch_size=16, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=4)
    model = TimeSformer(attention=attention, **{**size, **changes}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def clip(batch=2, frames=4, height=32, width=32):
    """Random clips (B, 3, T, H, W); as they are, for the models of `tiny`."""
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


def tiny_vit(**changes):
    size = dict(img_size=32, patch_size=16, num_classes=5, embed_dim=32, depth=2, num_heads=4)
    torch.manual_seed(1)
    vit = VisionTransformer(**{**size, **changes}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return vit


def golden(name):
    """(state dict, tensors, model of that size) of one golden file."""
    tensors = load_file(DATA / f"{name}.safetensors")
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        meta = file.metadata()
    state_dict = {key.removeprefix("state_dict."): tensors.pop(key) for key in list(tensors) if "state_dict." in key}
    sizes = {
        key: int(meta[key]) for key in ("patch_size", "num_frames", "num_classes", "embed_dim", "depth", "num_heads")
    }
    mode = meta["attention_type"]
    model = TimeSformer(img_size=tuple(json.loads(meta["img_size"])), attention=mode, **sizes).eval()
    return state_dict, tensors, model


def load(model, state_dict, **options):
    model.load_state_dict(checkpoint_filter_fn(state_dict, model, **options))
    return model


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
