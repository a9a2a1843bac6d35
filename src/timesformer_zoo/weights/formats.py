"""The formats of the projects that publish TimeSformers: whose names a state dict has, each a table of keys.

In a table, `{i}` is a block's index, `{p}` weight or bias, `{last}` the mode's last attention step, `[…]` a
prefix that some files leave out (and that the inverse writes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.attention import AttentionMode

__all__ = ["FORMATS", "IMAGE_VIT", "NATIVE", "Format", "detect", "find_format", "from_native", "some_keys"]

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

# Without their prefix, the authors' space-only models have an image ViT's keys, and mean the same.
_AUTHORS_SPACE_ONLY = {f"model.{theirs}": ours for theirs, ours in _VIT_NAMES.items()}
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
_IMAGE_VIT_NAMES = _VIT_NAMES | {
    "norm_pre.{p}": "norm_pre.{p}",  # CLIP
    "blocks.{i}.ls1.gamma": "blocks.{i}.ls1.gamma",  # DINOv2, DeiT III
    "blocks.{i}.ls2.gamma": "blocks.{i}.ls2.gamma",
}

_NATIVE_NAMES = {"{any}": "{any}"}

_PLACEHOLDERS = {"{i}": r"(?P<i>\d+)", "{p}": "(?P<p>weight|bias)", "{any}": "(?P<any>.+)", "[": "(?:", "]": ")?"}


@dataclass(frozen=True)
class Format:
    """How one project names parameters, in each attention mode that it has."""

    name: str  # as error messages call it
    marker: str  # a regular expression, which matches the start of some key of every state dict of this format
    tables: Mapping[AttentionMode, Mapping[str, str]]  # mode -> their key -> ours
    inflates: bool = False  # an image model, which can start a model of any mode

    def modes(self, keys: Iterable[str]) -> list[AttentionMode]:
        """The modes that a state dict with these keys can be of: modes that differ in order alone have the same keys.

        None where a key is unknown, or the keys are those of no mode.
        """
        keys = list(keys)
        return [mode for mode in self.tables if self.fits(keys, mode)]

    def fits(self, keys: Iterable[str], mode: AttentionMode) -> bool:
        """Whether a state dict with these keys can be of this mode; it may lack some keys of it."""
        if mode not in self.tables:
            return False
        renamed, unknown = _rename(keys, self._rows(mode))
        return not unknown and _can_be(set(renamed.values()), mode)

    def to_native(
        self, state_dict: Mapping[str, torch.Tensor], mode: AttentionMode, strict: bool = True
    ) -> dict[str, torch.Tensor]:
        """Rename every key to the native one; the tensors are the same objects.

        Args:
            state_dict: unwrapped.
            mode: one of `tables`.
            strict: unknown keys are an error; else they stay as they are.

        Raises:
            CheckpointError: a key is not of this format, or two keys mean the same parameter.
        """
        return _renamed(state_dict, self._rows(mode), f"{self.name} format", strict)

    def from_native(self, state_dict: Mapping[str, torch.Tensor], mode: AttentionMode) -> dict[str, torch.Tensor]:
        """The inverse of `to_native`; optional prefixes are written."""
        rows = [(ours, theirs.replace("[", "").replace("]", "")) for theirs, ours in self._rows(mode)]
        return _renamed(state_dict, rows, f"native format that {self.name} can express ({mode} attention)")

    def _rows(self, mode: AttentionMode) -> list[tuple[str, str]]:
        """The table's (their key, our key) patterns, with `{last}` filled in."""
        last = mode.steps[-1].name
        return [(theirs, ours.replace("{last}", last)) for theirs, ours in self.tables[mode].items()]


def _can_be(native_keys: set[str], mode: AttentionMode) -> bool:
    """Whether native keys name the steps of a mode, no `fc` of its last step, and a time embedding if it has one."""
    found = [re.match(r"blocks\.\d+\.steps\.(\w+)\.(\w+)", key) for key in native_keys]
    steps = {key[1] for key in found if key}
    joined = {key[1] for key in found if key and key[2] == "fc"}
    return (
        steps == {step.name for step in mode.steps}
        and mode.steps[-1].name not in joined
        and ("time_embed" in native_keys) != mode.per_frame
    )


def _rename(keys: Iterable[str], rows: list[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """key -> its new name, and the keys that no row has."""
    patterns = [(_pattern(source), target) for source, target in rows]
    renamed, unknown = {}, []
    for key in keys:
        for pattern, target in patterns:
            if found := pattern.fullmatch(key):
                renamed[key] = target.format(**found.groupdict())
                break
        else:
            unknown.append(key)
    return renamed, unknown


def _renamed(
    state_dict: Mapping[str, torch.Tensor], rows: list[tuple[str, str]], known_as: str, strict: bool = True
) -> dict[str, torch.Tensor]:
    names, unknown = _rename(state_dict, rows)
    if unknown and strict:
        raise CheckpointError(f"{len(unknown)} keys are not of the {known_as}: {some_keys(unknown)}")
    if len(set(names.values())) != len(names):
        raise CheckpointError(f"two keys of the {known_as} mean the same parameter, with and without a prefix")
    return {names.get(key, key): value for key, value in state_dict.items()}


@cache
def _pattern(key: str) -> re.Pattern[str]:
    text = key.replace(".", r"\.")
    for placeholder, expression in _PLACEHOLDERS.items():
        text = text.replace(placeholder, expression)
    return re.compile(text)


_DIVIDED, _JOINT, _SPACE = AttentionMode("divided"), AttentionMode("joint"), AttentionMode("space_only")

NATIVE = Format("native", r"blocks\.\d+\.steps\.", dict.fromkeys(AttentionMode, _NATIVE_NAMES))
IMAGE_VIT = Format("timm image ViT", r"blocks\.\d+\.attn\.", {_SPACE: _IMAGE_VIT_NAMES}, inflates=True)

# The first whose marker matches counts, so the particular comes before the general.
FORMATS: tuple[Format, ...] = (
    NATIVE,
    Format(
        "transformers",
        r"(timesformer\.)?encoder\.layer\.\d+\.",
        {_DIVIDED: _TRANSFORMERS, _JOINT: _TRANSFORMERS, _SPACE: _TRANSFORMERS},
    ),
    Format(
        "mmaction2",
        r"backbone\.transformer_layers\.",
        {_DIVIDED: _MMACTION2_DIVIDED, _JOINT: _MMACTION2_SINGLE, _SPACE: _MMACTION2_SINGLE},
    ),
    Format(
        "the authors'",
        r"model\.blocks\.\d+\.(temporal_)?attn\.|blocks\.\d+\.temporal_|time_embed$",
        {_DIVIDED: _AUTHORS, _JOINT: _AUTHORS, _SPACE: _AUTHORS_SPACE_ONLY},
    ),
    IMAGE_VIT,
)


def find_format(keys: Iterable[str]) -> Format | None:
    """The format of an unwrapped state dict with these keys; None if it is of none that is known."""
    keys = list(keys)
    return next((form for form in FORMATS if any(re.match(form.marker, key) for key in keys)), None)


def detect(state_dict: Mapping[str, torch.Tensor]) -> Format:
    """The format of an unwrapped state dict (see `unwrap`), told by its keys.

    Raises:
        CheckpointError: no known format has such keys.
    """
    if form := find_format(state_dict):
        return form
    raise CheckpointError(
        f"no known format has these {len(state_dict)} keys: {some_keys(list(state_dict))}. Expected one of: "
        f"{', '.join(form.name for form in FORMATS)}. "
        "Rename the keys to one of these formats, or pass the part of the file that holds the model"
    )


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
    for form in FORMATS:
        if form.name == name and mode in form.tables:
            return form.from_native(state_dict, mode)
    known = ", ".join(f"{form.name} {mode}" for form in FORMATS for mode in form.tables)
    raise CheckpointError(f"there is no {name} format for {mode} attention; there is: {known}")


def some_keys(keys: list[str], most: int = 5) -> str:
    """The first few keys, as an error message shows them."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
