"""The formats of the projects that publish TimeSformers: whose names a state dict has, each an entry of data.

`FORMATS` are those of whole models, read and written. `ENCODERS` are those of projects that keep a TimeSformer, or a
near relative, beside other networks (a text tower, projections); they are read, and what else is there is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.embedding import TimeInterpolation
from timesformer_zoo.weights import keys
from timesformer_zoo.weights.keys import after
from timesformer_zoo.weights.state import Weights

__all__ = ["ENCODERS", "FORMATS", "IMAGE_VIT", "NATIVE", "Format", "detect", "find_format", "from_native", "some_keys"]

_NATIVE_NAMES = {"{any}": "{any}"}

_PLACEHOLDERS = {"{i}": r"(?P<i>\d+)", "{p}": "(?P<p>weight|bias)", "{any}": "(?P<any>.+)", "[": "(?:", "]": ")?"}


@dataclass(frozen=True)
class Format:
    """How one project names parameters, in each attention mode that it has."""

    name: str  # as error messages call it
    marker: str | tuple[str, ...]  # regular expressions: each matches the start of some key of every such state dict
    tables: Mapping[AttentionMode, Mapping[str, str]]  # mode -> their key -> ours
    inflates: bool = False  # an image model, which can start a model of any mode
    others: tuple[str, ...] = ()  # starts of keys that are known and not the video model's, regular expressions
    values: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    """Our keys, as regular expressions, and what makes our value of theirs."""
    zeros: tuple[str, ...] = ()  # our keys that mean zero where they are not there
    function: Mapping[str, Any] = field(default_factory=dict)
    """The model's arguments without which the same weights are another function, where keys can't tell."""
    time_interpolation: TimeInterpolation | None = (
        None  # how that project takes another number of frames, where not as we do
    )

    def marks(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys is of this format, in some mode."""
        markers = (self.marker,) if isinstance(self.marker, str) else self.marker
        return all(any(re.match(marker, key) for key in keys) for marker in markers)

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
        renamed, unknown = _rename(filter(self._ours, keys), self._rows(mode))
        return not unknown and _can_be(set(renamed.values()), mode)

    def to_native(self, state_dict: Mapping[str, torch.Tensor], mode: AttentionMode, strict: bool = True) -> Weights:
        """Rename every key to the native one; the tensors are the same objects, but for those that `values` changes.

        Args:
            state_dict: unwrapped.
            mode: one of `tables`.
            strict: unknown keys are an error; else they stay as they are.

        Returns:
            The weights, which name in `left_out` what the file holds beside them.

        Raises:
            CheckpointError: a key is not of this format, or two keys mean the same parameter.
        """
        ours = {key: value for key, value in state_dict.items() if self._ours(key)}
        native = _renamed(ours, self._rows(mode), f"{self.name} format", strict)
        for pattern, make in self.values.items():
            native |= {key: make(value) for key, value in native.items() if re.fullmatch(pattern, key)}
        left_out = [key for key in state_dict if key not in ours]
        return Weights(native, [*getattr(state_dict, "left_out", ()), *left_out])

    def from_native(self, state_dict: Mapping[str, torch.Tensor], mode: AttentionMode) -> dict[str, torch.Tensor]:
        """The inverse of `to_native`; optional prefixes are written."""
        rows = [(ours, theirs.replace("[", "").replace("]", "")) for theirs, ours in self._rows(mode)]
        return _renamed(state_dict, rows, f"native format that {self.name} can express ({mode} attention)")

    def _ours(self, key: str) -> bool:
        return not any(re.match(other, key) for other in self.others)

    def _rows(self, mode: AttentionMode) -> list[tuple[str, str]]:
        """The table's (their key, our key) patterns, with `{last}` filled in."""
        last = mode.steps[-1].name
        return [(theirs, ours.replace("{last}", last)) for theirs, ours in self.tables[mode].items()]


def _can_be(native_keys: set[str], mode: AttentionMode) -> bool:
    """Whether native keys name the steps of a mode, no `fc` that it has not, and a time embedding if it has one.

    A fused model has none: the keys of a fused divided one are those of a frozen one.
    """
    found = [re.match(r"blocks\.\d+\.steps\.(\w+)\.(\w+)", key) for key in native_keys]
    steps = {key[1] for key in found if key}
    joined = {key[1] for key in found if key and key[2] == "fc"}
    return (
        steps == {step.name for step in mode.steps}
        and joined <= {step.name for step in mode.steps[:-1] if step.linear}
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
_FROZEN = AttentionMode("frozen")

NATIVE = Format("native", r"blocks\.\d+\.steps\.", dict.fromkeys(AttentionMode, _NATIVE_NAMES))
IMAGE_VIT = Format("timm image ViT", r"blocks\.\d+\.attn\.", {_SPACE: keys.IMAGE_VIT}, inflates=True)

# The first whose marker matches counts, so the particular comes before the general.
FORMATS: tuple[Format, ...] = (
    NATIVE,
    Format(
        "transformers",
        r"(timesformer\.)?encoder\.layer\.\d+\.",
        {_DIVIDED: keys.TRANSFORMERS, _JOINT: keys.TRANSFORMERS, _SPACE: keys.TRANSFORMERS},
    ),
    Format(
        "mmaction2",
        r"backbone\.transformer_layers\.",
        {_DIVIDED: keys.MMACTION2_DIVIDED, _JOINT: keys.MMACTION2_SINGLE, _SPACE: keys.MMACTION2_SINGLE},
    ),
    Format(
        "the authors'",
        r"model\.blocks\.\d+\.(temporal_)?attn\.|blocks\.\d+\.temporal_|time_embed$",
        {_DIVIDED: keys.AUTHORS, _JOINT: keys.AUTHORS, _SPACE: keys.AUTHORS_SPACE_ONLY},
    ),
    IMAGE_VIT,
)


def _batched(tensor: torch.Tensor) -> torch.Tensor:
    """(D) or (N, D), as CLIP keeps its embeddings, to (1, N, D)."""
    return tensor.reshape(1, -1, tensor.shape[-1]) if tensor.ndim in (1, 2) else tensor


def _patches(tensor: torch.Tensor) -> torch.Tensor:
    """A patch convolution over RGB as a matrix (D, 3·p·p), or with a time axis of 1 (D, 3, 1, p, p): (D, 3, p, p)."""
    if tensor.ndim == 5 and tensor.shape[2] == 1:
        return tensor.squeeze(2)
    side = math.isqrt(tensor.shape[-1] // 3)
    return tensor.reshape(-1, 3, side, side) if tensor.ndim == 2 and tensor.shape[1] == 3 * side**2 else tensor


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.mT.contiguous() if tensor.ndim == 2 else tensor


_CLIP_VALUES = {"(cls_token|pos_embed|time_embed)": _batched, r"patch_embed\.proj\.weight": _patches}
_NO_PATCH_BIAS = ("patch_embed.proj.bias",)

_PLAIN: dict[str, Any] = dict(act_layer="gelu", norm_eps=1e-6)
_FROZEN_OTHERS = (r"(text_model|txt_proj|vid_proj)\.",)
_LAVILA: dict[str, Any] = dict(
    tables={
        _FROZEN: after("visual.", keys.FROZEN)
        # Of three heads, the last is that of actions; before it come verbs and nouns.
        | {"fc_cls.{p}": "head.{p}", "fc_cls.2.{p}": "head.{p}"}
    },
    others=(r"fc_cls\.[01]\.", r"(transformer|token_embedding|ln_final|textual)\.", "positional_embedding$",
            "(text|image)_projection", "logit_scale$"),
    time_interpolation="first",
)  # fmt: skip

ENCODERS: tuple[Format, ...] = (
    Format(
        "LaViLa",
        (r"visual\.ln_pre\.", r"visual\.blocks\.\d+\.timeattn\."),
        zeros=_NO_PATCH_BIAS,
        function=dict(act_layer="quick_gelu", norm_eps=1e-6, pre_norm_eps=1e-5),
        **_LAVILA,
    ),
    Format("LaViLa's EgoVLP", r"visual\.blocks\.\d+\.timeattn\.", function=_PLAIN, **_LAVILA),
    Format(
        "EgoVLPv2",
        (r"video_model\.blocks\.\d+\.timeattn\.", r"video_model\.blocks\.\d+\.attn\.qkv_i2t\."),
        {_FROZEN: after("video_model.", keys.FROZEN)},
        # What the text asks the video in the later blocks, and at the top a class token and a norm of both together.
        others=(*_FROZEN_OTHERS, r"video_model\.blocks\.\d+\.attn\.\w*i2t", "cls_token$", r"norm\.",
                r"cross_modal_", r"(mlm|itm)_score\.", "logit_scale$"),
        function=dict(act_layer="gelu", norm_eps=1e-5),
        time_interpolation="first_aligned",
    ),
    Format(
        "Frozen-in-Time",  # EgoVLP, HierVL
        r"video_model\.blocks\.\d+\.timeattn\.",
        {_FROZEN: after("video_model.", keys.FROZEN)},
        others=(*_FROZEN_OTHERS, r"aggregation\.", r"head_(ht100m|epic_kitchens)\w*\."),
        function=_PLAIN,
        time_interpolation="first",
    ),
    Format(
        "Paddle",
        (r"backbone\.blocks\.\d+\.attn\.", r"head\.fc\."),
        {_DIVIDED: after("backbone.", keys.AUTHORS, "[model.]") | {"head.fc.{p}": "head.{p}"}},
        values={r"(blocks\.\d+\..*(qkv|proj|fc|fc1|fc2)|head)\.weight": _transposed},
    ),
    Format(
        "SVT",
        r"backbone\.blocks\.\d+\.(temporal_)?attn\.",
        {_DIVIDED: after("backbone.", keys.AUTHORS, "[model.]")},
        others=(r"head\.(mlp|last_layer)\.",),
        time_interpolation="nearest",
    ),
    Format(
        "ALPRO",
        r"visual_encoder\.model\.blocks\.",
        {_DIVIDED: after("visual_encoder.model.", keys.AUTHORS, "[model.]")},
        # The head was never trained; the prompter is a second, complete encoder.
        others=(r"visual_encoder\.model\.head\.", r"prompter\.", r"(text_encoder|text_proj|vision_proj|classifier)\.",
                r"(itm|mpm)_head\.", "temp$"),
        time_interpolation="nearest",
    ),
    Format(
        "AVION",
        (r"visual\.transformer\.resblocks\.", r"visual\.temporal_embedding$"),
        {_JOINT: after("visual.", keys.CLIP_TOWER) | {"fc_cls.{p}": "head.{p}"}},
        others=(r"textual\.", "logit_scale$", r"visual\.image_projection$"),
        values=_CLIP_VALUES,
        zeros=_NO_PATCH_BIAS,
        function=dict(act_layer="gelu", norm_eps=1e-6, pre_norm_eps=1e-6),
    ),
    Format(
        "ViCLIP",
        r"vision_encoder\.temporal_positional_embedding$",
        {_JOINT: after("vision_encoder.", keys.CLIP_TOWER)},
        others=(r"text_encoder\.", "temp$", r"vision_encoder\.proj$"),
        values=_CLIP_VALUES,
        zeros=_NO_PATCH_BIAS,
        function=dict(act_layer="quick_gelu", norm_eps=1e-5, pre_norm_eps=1e-5),
    ),
    Format(
        "VisionEncoderDecoder",  # transformers', of SpaceTimeGPT
        r"encoder\.encoder\.layer\.\d+\.",
        dict.fromkeys((_DIVIDED, _JOINT, _SPACE), after("encoder.", keys.TRANSFORMERS, "[timesformer.]")),
        others=(r"decoder\.", r"enc_to_dec_proj\."),
    ),
)  # fmt: skip


def find_format(keys: Iterable[str]) -> Format | None:
    """The format of an unwrapped state dict with these keys; None if it is of none that is known."""
    keys = list(keys)
    return next((form for form in (*ENCODERS, *FORMATS) if form.marks(keys)), None)


def detect(state_dict: Mapping[str, torch.Tensor]) -> Format:
    """The format of an unwrapped state dict (see `unwrap`), told by its keys.

    Raises:
        CheckpointError: no known format has such keys.
    """
    if form := find_format(state_dict):
        return form
    raise CheckpointError(
        f"no known format has these {len(state_dict)} keys: {some_keys(list(state_dict))}. Expected one of: "
        f"{', '.join(form.name for form in (*FORMATS, *ENCODERS))}. "
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
