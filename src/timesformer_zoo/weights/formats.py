"""The state-dict formats of the projects that publish TimeSformers, each a table of keys with its inverse.

In a table, `{i}` is a block's index, `{p}` weight or bias, `{last}` the mode's last attention step, `[…]` a
prefix that some files leave out (and that the inverse writes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.attention import AttentionMode

__all__ = ["FORMATS", "Format", "detect", "from_native", "is_native", "peel", "some_keys"]

# The authors' code and timm's image ViT share these names; one has an optional prefix, the other none.
_VIT_NAMES = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "patch_embed.proj.{p}": "patch_embed.proj.{p}",
    "blocks.{i}.norm1.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "blocks.{i}.attn.qkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "blocks.{i}.attn.proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "blocks.{i}.norm2.{p}": "blocks.{i}.norm.{p}",
    "blocks.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.fc1.{p}",
    "blocks.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.fc2.{p}",
    "norm.{p}": "norm.{p}",
    "head.{p}": "head.{p}",
}

_AUTHORS = {f"[model.]{theirs}": ours for theirs, ours in _VIT_NAMES.items()} | {
    "[model.]time_embed": "time_embed",
    "[model.]blocks.{i}.temporal_norm1.{p}": "blocks.{i}.steps.time.norm.{p}",
    "[model.]blocks.{i}.temporal_attn.qkv.{p}": "blocks.{i}.steps.time.qkv.{p}",
    "[model.]blocks.{i}.temporal_attn.proj.{p}": "blocks.{i}.steps.time.proj.{p}",
    "[model.]blocks.{i}.temporal_fc.{p}": "blocks.{i}.steps.time.fc.{p}",
}

_TRANSFORMERS = {
    "[timesformer.]embeddings.cls_token": "cls_token",
    "[timesformer.]embeddings.position_embeddings": "pos_embed",
    "[timesformer.]embeddings.time_embeddings": "time_embed",
    "[timesformer.]embeddings.patch_embeddings.projection.{p}": "patch_embed.proj.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_layernorm.{p}": "blocks.{i}.steps.time.norm.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_attention.attention.qkv.{p}": "blocks.{i}.steps.time.qkv.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_attention.output.dense.{p}": "blocks.{i}.steps.time.proj.{p}",
    "[timesformer.]encoder.layer.{i}.temporal_dense.{p}": "blocks.{i}.steps.time.fc.{p}",
    "[timesformer.]encoder.layer.{i}.layernorm_before.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "[timesformer.]encoder.layer.{i}.attention.attention.qkv.{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "[timesformer.]encoder.layer.{i}.attention.output.dense.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "[timesformer.]encoder.layer.{i}.layernorm_after.{p}": "blocks.{i}.norm.{p}",
    "[timesformer.]encoder.layer.{i}.intermediate.dense.{p}": "blocks.{i}.mlp.fc1.{p}",
    "[timesformer.]encoder.layer.{i}.output.dense.{p}": "blocks.{i}.mlp.fc2.{p}",
    "[timesformer.]layernorm.{p}": "norm.{p}",
    "classifier.{p}": "head.{p}",
}

_MMACTION2 = {
    "backbone.cls_token": "cls_token",
    "backbone.pos_embed": "pos_embed",
    "backbone.time_embed": "time_embed",
    "backbone.patch_embed.projection.{p}": "patch_embed.proj.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.layers.0.0.{p}": "blocks.{i}.mlp.fc1.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.layers.1.{p}": "blocks.{i}.mlp.fc2.{p}",
    "backbone.norm.{p}": "norm.{p}",
    "cls_head.fc_cls.{p}": "head.{p}",
}

# mmaction2 keeps the norms inside the attentions in divided models, and beside them in the others.
_MMACTION2_DIVIDED = _MMACTION2 | {
    "backbone.transformer_layers.layers.{i}.attentions.0.norm.{p}": "blocks.{i}.steps.time.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.in_proj_{p}": "blocks.{i}.steps.time.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.out_proj.{p}": "blocks.{i}.steps.time.proj.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.temporal_fc.{p}": "blocks.{i}.steps.time.fc.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.norm.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.attn.in_proj_{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.1.attn.out_proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "backbone.transformer_layers.layers.{i}.ffns.0.norm.{p}": "blocks.{i}.norm.{p}",
}
_MMACTION2_SINGLE = _MMACTION2 | {
    "backbone.transformer_layers.layers.{i}.norms.0.{p}": "blocks.{i}.steps.{last}.norm.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.in_proj_{p}": "blocks.{i}.steps.{last}.qkv.{p}",
    "backbone.transformer_layers.layers.{i}.attentions.0.attn.out_proj.{p}": "blocks.{i}.steps.{last}.proj.{p}",
    "backbone.transformer_layers.layers.{i}.norms.1.{p}": "blocks.{i}.norm.{p}",
}

# What an image ViT may have beyond the space-only model; inflation folds it in or says that it cannot.
_IMAGE_VIT = _VIT_NAMES | {
    "norm_pre.{p}": "norm_pre.{p}",  # CLIP
    "blocks.{i}.ls1.gamma": "blocks.{i}.ls1.gamma",  # DINOv2, DeiT III
    "blocks.{i}.ls2.gamma": "blocks.{i}.ls2.gamma",
}

_NATIVE = {"{any}": "{any}"}

_PLACEHOLDERS = {"{i}": r"(?P<i>\d+)", "{p}": "(?P<p>weight|bias)", "{any}": "(?P<any>.+)", "[": "(?:", "]": ")?"}


@dataclass(frozen=True)
class Format:
    """One project's way to name the parameters of one attention mode."""

    name: str  # as error messages call it
    mode: AttentionMode
    signature: tuple[str, ...]  # regular expressions; each matches the start of some key of every such checkpoint
    table: Mapping[str, str]  # their key -> ours
    inflates: bool = False  # an image model, which can start a model of any mode

    def rows(self) -> list[tuple[str, str]]:
        """The table's (their key, our key) patterns, with `{last}` filled in."""
        last = self.mode.steps[-1].name
        return [(theirs, ours.replace("{last}", last)) for theirs, ours in self.table.items()]

    def matches(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys is of this format."""
        keys = list(keys)
        return all(any(re.match(pattern, key) for key in keys) for pattern in self.signature)

    def to_native(self, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename every key to the native one; the tensors are the same objects.

        Raises:
            CheckpointError: a key is not of this format.
        """
        return _rename(state_dict, self.rows(), f"{self.name} format")

    def from_native(self, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inverse of `to_native`; optional prefixes are written."""
        rows = [(ours, theirs.replace("[", "").replace("]", "")) for theirs, ours in self.rows()]
        return _rename(state_dict, rows, f"native format that {self.name} can express ({self.mode.value} attention)")


def _rename(
    state_dict: Mapping[str, torch.Tensor], rows: list[tuple[str, str]], known_as: str
) -> dict[str, torch.Tensor]:
    patterns = [(_pattern(source), target) for source, target in rows]
    renamed: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        for pattern, target in patterns:
            if found := pattern.fullmatch(key):
                renamed[target.format(**found.groupdict())] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(f"{len(unknown)} keys are not of the {known_as}: {some_keys(unknown)}")
    if len(renamed) != len(state_dict):
        raise CheckpointError(f"two keys of the {known_as} mean the same parameter, with and without a prefix")
    return renamed


def _pattern(key: str) -> re.Pattern[str]:
    text = key.replace(".", r"\.")
    for placeholder, expression in _PLACEHOLDERS.items():
        text = text.replace(placeholder, expression)
    return re.compile(text)


def _native_formats() -> list[Format]:
    # The mode with most steps first: the steps of one mode can be some of another's.
    modes = sorted(AttentionMode, key=lambda mode: -len(mode.steps))
    return [
        Format("native", mode, tuple(rf"blocks\.\d+\.steps\.{step.name}\." for step in mode.steps), _NATIVE)
        for mode in modes
    ]


_DIVIDED, _JOINT, _SPACE = AttentionMode("divided"), AttentionMode("joint"), AttentionMode("space_only")

# The first match counts, so the particular comes before the general.
FORMATS: tuple[Format, ...] = (
    *_native_formats(),
    Format("transformers", _DIVIDED, (r"(timesformer\.)?encoder\.layer\.\d+\.temporal_",), _TRANSFORMERS),
    Format("transformers", _JOINT, (r"(timesformer\.)?embeddings\.time_embeddings$",), _TRANSFORMERS),
    Format("transformers", _SPACE, (r"(timesformer\.)?encoder\.layer\.\d+\.attention\.",), _TRANSFORMERS),
    Format("mmaction2", _DIVIDED, (r"backbone\.transformer_layers\.layers\.\d+\.attentions\.1\.",), _MMACTION2_DIVIDED),
    Format("mmaction2", _JOINT, (r"backbone\.transformer_layers\.", r"backbone\.time_embed$"), _MMACTION2_SINGLE),
    Format("mmaction2", _SPACE, (r"backbone\.transformer_layers\.",), _MMACTION2_SINGLE),
    Format("the authors'", _DIVIDED, (r"(model\.)?blocks\.\d+\.temporal_",), _AUTHORS),
    Format("the authors'", _JOINT, (r"(model\.)?time_embed$", r"(model\.)?blocks\.\d+\.attn\."), _AUTHORS),
    Format("the authors'", _SPACE, (r"model\.blocks\.\d+\.attn\.",), _AUTHORS),
    # Without their prefix, the authors' space-only models have an image ViT's keys, and mean the same.
    Format("timm image ViT", _SPACE, (r"blocks\.\d+\.attn\.",), _IMAGE_VIT, inflates=True),
)  # fmt: skip


def detect(state_dict: Mapping[str, torch.Tensor]) -> Format:
    """The format of an unwrapped state dict (see `peel`), told by its keys.

    Raises:
        CheckpointError: no known format has such keys.
    """
    for candidate in FORMATS:
        if candidate.matches(state_dict):
            return candidate
    known = ", ".join(dict.fromkeys(candidate.name for candidate in FORMATS))
    raise CheckpointError(
        f"no known format has these {len(state_dict)} keys: {some_keys(list(state_dict))}. Expected one of: {known}. "
        "Rename the keys to one of these formats, or pass the part of the file that holds the model"
    )


def is_native(state_dict: Mapping[str, Any]) -> bool:
    """Whether these are the native keys of some mode, unwrapped."""
    return any(form.name == "native" and form.matches(state_dict) for form in FORMATS)


def from_native(
    state_dict: Mapping[str, torch.Tensor], name: str, mode: AttentionMode | str
) -> dict[str, torch.Tensor]:
    """Native keys to those of another format.

    Args:
        state_dict: native keys to tensors.
        name: "transformers", "mmaction2", "the authors'", …: a `Format.name`.
        mode: the attention mode of the model they are of.

    Raises:
        CheckpointError: that project has no such mode, or a key has no counterpart there.
    """
    mode = AttentionMode(mode)
    for candidate in FORMATS:
        if candidate.name == name and candidate.mode is mode:
            return candidate.from_native(state_dict)
    known = ", ".join(f"{form.name} {form.mode.value}" for form in FORMATS)
    raise CheckpointError(f"there is no {name} format for {mode.value} attention; there is: {known}")


# What training scripts wrap a state dict in; averaged weights first, as timm does.
_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "model_state", "model_state_dict", "state_dict",
             "model", "module")  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and the like; torch.compile
_COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel


def peel(checkpoint: Any) -> dict[str, torch.Tensor]:
    """Unwrap a checkpoint down to its state dict, whatever the training script wrapped it in.

    Takes off, in any nesting, dict entries (`model`, `state_dict`, `model_state`, EMA variants, which come first
    as in timm) and key prefixes (`module.`, `_orig_mod.`, and a `model.` that does not belong to the format).

    Raises:
        CheckpointError: what is inside is not a dict of tensors.
    """
    while isinstance(checkpoint, Mapping):
        inner = [checkpoint[name] for name in _WRAPPERS if isinstance(checkpoint.get(name), Mapping)]
        if not inner:
            break
        checkpoint = inner[0]
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        found = "an empty dict" if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise CheckpointError(f"a checkpoint is a dict of tensors, possibly wrapped in {_WRAPPERS}; got {found}")
    state_dict = {str(key): value for key, value in checkpoint.items() if key not in _COUNTERS}
    others = [f"{key} ({type(value).__name__})" for key, value in state_dict.items() if not torch.is_tensor(value)]
    if others:
        raise CheckpointError(f"a state dict has tensors only; got also {some_keys(others)}")
    while any(stripped := [prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state_dict)]):
        state_dict = {key.removeprefix(stripped[0]): value for key, value in state_dict.items()}
    if all(key.startswith("model.") for key in state_dict) and not any(f.matches(state_dict) for f in FORMATS):
        return peel({key.removeprefix("model."): value for key, value in state_dict.items()})
    return state_dict


def some_keys(keys: list[str], most: int = 5) -> str:
    """The first few keys, as an error message shows them."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
