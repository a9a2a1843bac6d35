"""To and from the transformers library's TimesformerForVideoClassification, without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.timesformer import expect_timesformer
from timesformer_zoo.weights.formats import from_native

__all__ = ["from_transformers_config", "to_transformers"]

# transformers also has "space_only", but returns a row of logits for every frame there, not for every clip.
_ATTENTION_TYPES = {AttentionMode("divided"): "divided_space_time", AttentionMode("joint"): "joint_space_time"}

# A config's field -> (our argument, transformers' default)
_ARGUMENTS: dict[str, tuple[str, Any]] = {
    "image_size": ("img_size", 224),
    "patch_size": ("patch_size", 16),
    "num_frames": ("num_frames", 8),
    "num_channels": ("in_chans", 3),
    "attention_type": ("attention", "divided_space_time"),
    "hidden_size": ("embed_dim", 768),
    "num_hidden_layers": ("depth", 12),
    "num_attention_heads": ("num_heads", 12),
    "qkv_bias": ("qkv_bias", True),
}
# `ClipSpec.task` -> transformers' name of that kind of target; without one it takes classes
_PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression"}
# What TimeSformer has fixed: field -> the one value that it can express
_FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}


def to_transformers(
    model: nn.Module, labels: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The model as transformers' TimesformerForVideoClassification has it.

        config, state_dict = to_transformers(model)
        hf = TimesformerForVideoClassification(TimesformerConfig(**config))
        hf.load_state_dict(state_dict)
        hf(clip.transpose(1, 2)).logits  # transformers takes (B, T, C, H, W)

    The weights take RGB, also where the checkpoint's once took BGR.

    Args:
        model: a TimeSformer in divided or joint attention, square, with the class token as its output.
        labels: class names by index, for `id2label`.

    Returns:
        The config (plain values, for config.json) and the state dict (the model's own tensors, not copies).

    Raises:
        TypeError: it is no TimeSformer.
        ValueError: transformers has no such model, or the labels are not as many as the classes.
    """
    model = expect_timesformer(model)
    if model.attention not in _ATTENTION_TYPES:
        raise ValueError(
            f"transformers has no model of {model.attention.value} attention that gives one row of logits a clip; "
            f"it can express: {', '.join(mode.value for mode in _ATTENTION_TYPES)}"
        )
    for name, (rows, columns) in {"img_size": model.img_size, "patch_size": model.patch_size}.items():
        if rows != columns:
            raise ValueError(f"transformers' TimeSformer is square; got {name}=({rows}, {columns})")
    if model.global_pool != "token":
        raise ValueError(f"transformers' TimeSformer pools by the class token; got global_pool={model.global_pool!r}")
    if labels is not None and len(labels) != model.num_classes:
        raise ValueError(f"got {len(labels)} labels for {model.num_classes} classes")
    weights = model.state_dict()
    first = model.attention.steps[0].name
    if len(model.attention.steps) > 1 and f"blocks.0.steps.{first}.fc.weight" not in weights:
        raise ValueError("transformers has no fused model; export before fuse()")
    names = labels if labels is not None else [f"LABEL_{index}" for index in range(model.num_classes)]
    config = {
        "architectures": ["TimesformerForVideoClassification"],
        "model_type": "timesformer",
        "attention_type": _ATTENTION_TYPES[model.attention],
        "image_size": model.img_size[0],
        "patch_size": model.patch_size[0],
        "num_channels": model.in_chans,
        "num_frames": model.num_frames,
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": model.num_heads,
        "intermediate_size": weights["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": any(key.endswith(".qkv.bias") for key in weights),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        **_FIXED,
    }
    if problem := _PROBLEMS.get((model.clip or {}).get("task", "")):
        config["problem_type"] = problem
    return config, from_native(weights, "transformers", model.attention)


def from_transformers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the TimeSformer that a transformers config.json describes.

    Args:
        config: the parsed config.json; absent fields have transformers' defaults.

    Returns:
        Keyword arguments for `TimeSformer` or a factory.

    Raises:
        CheckpointError: it is another model's config, or has a value that TimeSformer cannot express.
    """
    if config.get("model_type") != "timesformer":
        raise CheckpointError(f"expected a config of model_type 'timesformer'; got {config.get('model_type')!r}")
    for field, value in _FIXED.items():
        if config.get(field, value) != value:
            raise CheckpointError(f"TimeSformer has {field} {value}; the config says {config[field]}")
    arguments = {ours: config.get(theirs, default) for theirs, (ours, default) in _ARGUMENTS.items()}
    arguments["mlp_ratio"] = config.get("intermediate_size", 3072) / arguments["embed_dim"]
    arguments["num_classes"] = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    for task, problem in _PROBLEMS.items():
        if config.get("problem_type") == problem:
            arguments["clip"] = {"task": task}
    return arguments
