"""The tiny model of the camera-motion checkpoint, as it starts its training, and as it is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import timm
import torch
from camera_paths import CLASSES
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import timesformer_zoo  # noqa: F401  registers the models
from timesformer_zoo import TimeSformer

# The checkpoint's model: what differs from timesformer_tiny_divided.
ARGUMENTS: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 160, "depth": 5, "num_heads": 4}


def build(mode: str, overrides: dict[str, Any], seed: int) -> TimeSformer:
    """The tiny model of a mode, initialised for training from scratch.

    The paper starts `time_embed` and every `fc` at zero, to begin as the image model whose weights it loads, and draws
    matrices with a standard deviation of 0.02, which suits a width of 768. Here there is no image model to begin as:
    matrices scale with the width, `fc` is drawn like the others, and `see_change` lets the model see motion.
    """
    torch.manual_seed(seed)
    model = timm.create_model(f"timesformer_tiny_{mode}", **{"num_classes": len(CLASSES), **overrides})
    assert isinstance(model, TimeSformer)  # for the type checker
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:
            nn.init.trunc_normal_(parameter, std=0.8 / math.sqrt(model.embed_dim))
    for step in model.attention_steps():
        step.fused_attn = False  # for groups this short, plain attention is no slower on a CPU or a GPU
    see_change(model)
    return model


# Frequencies of each axis's code. With n of them, at odd multiples of pi / 2n, different places have orthogonal codes.
CODES = {"t": 8, "h": 4, "w": 4}
HEADS = (1, -1, 2, -2)  # frames ahead of the query that the heads look at
SHARPNESS, STRENGTH = 1.2, 3.0


@torch.no_grad()
def see_change(model: TimeSformer) -> None:
    """Let the first attention step, if it looks along time, start as a derivative in time.

    Drawn at random, attention is all but uniform and hardly anything depends on the order of frames: a model soon tells
    a pan from a zoom but not left from right, for thousands of steps. So the last channels of the embeddings start as
    codes of the frame, row and column; the heads of the first step look at the same patch 1 or 2 frames later or
    earlier, and those of a pair have the same values with opposite signs. What the step adds to a patch is then how it
    changes, and the MLP after it has change beside content, of which motion is made. All this is a start: every weight
    is trained.
    """
    width, heads = model.embed_dim, model.num_heads
    size = width // heads
    step = next(model.attention_steps())
    if model.time_embed is None or "t" not in step.step.axes or heads % len(HEADS) or size < 2 * sum(CODES.values()):
        return
    channel = width - 2 * sum(CODES.values())
    model.patch_embed.proj.weight[channel:] = 0
    model.patch_embed.proj.bias[channel:] = 0
    model.pos_embed[..., channel:] = 0
    model.time_embed.zero_()
    _, rows, columns = model.grid_size
    positions = model.pos_embed[0, 1:].view(rows, columns, width)
    targets = {"t": model.time_embed[0], "h": positions.transpose(0, 1), "w": positions}  # (..., places, width)
    queries, keys, values = step.qkv.weight.view(3, heads, size, width)
    queries *= 0.1
    keys *= 0.1
    row = 0
    for axis, count in CODES.items():
        rates = math.pi * (torch.arange(count) + 0.5) / count
        code = torch.arange(targets[axis].shape[-2])[:, None] * rates
        sines, cosines = slice(channel, channel + count), slice(channel + count, channel + 2 * count)
        targets[axis][..., sines] = code.sin()
        targets[axis][..., cosines] = code.cos()
        if axis in step.step.axes:
            first, second = slice(row, row + count), slice(row + count, row + 2 * count)
            unit = torch.eye(count) * SHARPNESS
            for head in range(heads):  # a query's code, turned by the offset, is the code of the key it looks for
                turn = rates * (HEADS[head % len(HEADS)] if axis == "t" else 0)
                queries[head, first, sines], queries[head, first, cosines] = unit * turn.cos(), unit * turn.sin()
                queries[head, second, sines], queries[head, second, cosines] = -unit * turn.sin(), unit * turn.cos()
                keys[head, first, sines] += unit
                keys[head, second, cosines] += unit
        channel, row = channel + 2 * count, row + 2 * count
    outputs = step.proj.weight.view(width, heads, size)
    values[1::2] = values[0::2]
    outputs[:, 1::2] = -outputs[:, 0::2]
    outputs *= STRENGTH


def save_weights(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Float16 weights; the labels, and what is known about them, as JSON in the metadata."""
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"labels": json.dumps(CLASSES), **{key: json.dumps(value) for key, value in about.items()}}
    beside = path.with_name(path.name + ".part")  # a run that is killed leaves no half a file
    save_file(tensors, beside, metadata)
    beside.replace(path)


def read_about(path: Path) -> dict[str, Any]:
    """What `save_weights` was told about a checkpoint."""
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items() if key != "labels"}


def load_weights(path: Path) -> tuple[TimeSformer, list[str]]:
    """The model of a checkpoint of this folder, old or new, in evaluation mode, and its labels."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    recipe = json.loads(metadata["recipe"])
    labels: list[str] = json.loads(metadata["labels"])
    arguments = {"num_classes": len(labels), **recipe["model"]}
    model = timm.create_model(f"timesformer_tiny_{recipe.get('mode', 'divided')}", **arguments)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    for step in model.attention_steps():
        step.fused_attn = False
    return model.eval(), labels
