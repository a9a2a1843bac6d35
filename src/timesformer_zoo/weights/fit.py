"""Making weights fit a model: any known format and size in, the model's own keys and shapes out, or an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.weights.check import misfits, refuse_not_finite, refuse_other_kinds, shape_of
from timesformer_zoo.weights.formats import NATIVE, Format, detect
from timesformer_zoo.weights.inflate import inflate, refuse_inexpressible
from timesformer_zoo.weights.sizes import PATCHES, fit_sizes
from timesformer_zoo.weights.state import Weights, in_words
from timesformer_zoo.weights.unwrap import unwrap

__all__ = [
    "check_function",
    "check_mode",
    "checkpoint_filter_fn",
    "fill",
    "fit_state_dict",
    "flip_input_channels",
    "init_from_vit",
]

_logger = logging.getLogger(__name__)

_HEAD = "head."


def checkpoint_filter_fn(
    state_dict: Mapping[str, Any],
    model: TimeSformer,
    *,
    bgr: bool | None = None,
    source_grid: tuple[int, int] | None = None,
    new_head: bool = True,
) -> Weights:
    """Weights of any known format as a complete state dict for this model.

    Formats: native, transformers, mmaction2, the authors', those of encoders inside other models (LaViLa, EgoVLP, SVT
    …, see `weights.formats`), and timm's image ViTs, which are inflated. Wrappers (`model_state`, `teacher`,
    `module.`, EMA …) come off. Embeddings are resampled to the model's img_size, num_frames (by its
    time_interpolation) and patch_size, the patch embedding is adapted to in_chans as timm does it; at the weights'
    own size nothing changes. The attention mode is the model's, and the weights must be able to be of it.

    Args:
        state_dict: what the file holds.
        model: the model it is for; read, never changed.
        bgr: the weights were trained on BGR frames (the authors' SSv2 models were): reverse the patch embedding's
            channels, so that the model takes RGB. None: as the model's checkpoint says. Native weights and image ViTs
            always take RGB; for these it changes nothing.
        source_grid: (h, w) of the weights' patches. Needed only where it can't be told: by default it is the
            grid of the img_size saved beside the weights, or a square, or the model's own.
        new_head: where the weights' head is for another number of classes, or there is none, the model's own stays as
            it is, to be trained. Off: that is an error, too, but for an image ViT's.

    Returns:
        Native keys and tensors. Its `left_out` names what the file has beside the video model: text towers,
        projections, another head.

    Raises:
        CheckpointError: the format is unknown, or another attention mode's, or of a model with another activation or
            norm's epsilon, or a key is unknown, missing, of another shape, or no dense weight of floating point.
    """
    state_dict = unwrap(state_dict)
    form, own = detect(state_dict), model.state_dict()
    weights = _converted(state_dict, form, model, own, bgr=bgr, source_grid=source_grid)
    if (new_head or form.inflates) and _other_head(weights, own, model, form):
        theirs = [key for key in weights if key.startswith(_HEAD)]
        weights = Weights({key: value for key, value in weights.items() if key not in theirs}, weights.left_out)
        weights |= {key: value for key, value in own.items() if key.startswith(_HEAD)}
        weights.left_out += tuple(theirs)
    _refuse_misfits(weights, own, model, form)
    return weights


def fit_state_dict(model: TimeSformer, state_dict: Mapping[str, Any], strict: bool) -> Mapping[str, Any]:
    """What `TimeSformer.load_state_dict` loads: the same state dict, or where its names or sizes differ, converted.

    A state dict of no known format is returned as it is with strict off, and is otherwise refused as torch would.

    Args:
        model: not changed.
        state_dict: see `checkpoint_filter_fn`.
        strict: every key must fit, the head's too. Else missing and unexpected keys are left for torch to list, and a
            head for another number of classes is among the missing.

    Raises:
        CheckpointError: it can't be loaded; nothing is changed.
    """
    if not isinstance(state_dict, Mapping):
        return state_dict  # a TypeError of torch's
    own = model.state_dict()
    weights: Mapping[str, Any] = state_dict
    form = NATIVE
    if any(key not in own or shape_of(value) != shape_of(own[key]) for key, value in state_dict.items()):
        try:
            unwrapped = unwrap(state_dict)
            form = detect(unwrapped)
        except CheckpointError:
            pass  # nothing to convert
        else:
            _logger.info("Converting a state dict from %s format", form.name)
            weights = _converted(unwrapped, form, model, own, strict=strict)
            if not strict and _other_head(weights, own, model, form):
                weights = {key: value for key, value in weights.items() if not (key.startswith(_HEAD) and key in own)}
    _refuse_misfits(weights, own, model, form, strict)
    loaded = {key: value for key, value in weights.items() if _is_weight(own.get(key))}
    refuse_other_kinds(loaded, on_meta=model.pos_embed.is_meta)
    refuse_not_finite(loaded.items())
    return weights


TimeSformer.fit_state_dict = fit_state_dict


def fill(model: TimeSformer, weights: Mapping[str, torch.Tensor]) -> None:
    """Load what `checkpoint_filter_fn` gives into a new model, which is to be thrown away where this raises.

    So each tensor is looked at when it has just been copied and is in the processor's cache, in a third of the time.

    Raises:
        CheckpointError: weights hold NaN or infinity.
    """
    own = model.state_dict()

    def copied() -> Iterator[tuple[str, torch.Tensor]]:
        for key, value in weights.items():
            own[key].copy_(value)
            yield key, value

    with torch.no_grad():
        refuse_not_finite(copied())


def check_mode(state_dict: Mapping[str, torch.Tensor], form: Format, mode: AttentionMode) -> None:
    """Refuse weights for a model of a mode that they can't be of. The keys do not decide: they may fit several modes.

    Args:
        state_dict: unwrapped, with that format's keys.
        form: of the state dict.
        mode: the model's.

    Raises:
        CheckpointError: the keys are those of other modes, which are named, or the format has no such mode.
    """
    held = [] if form.fits(state_dict, mode) else form.modes(state_dict)
    if held:
        raise CheckpointError(
            f"the weights ({form.name} format) hold {' or '.join(held)} attention, the model has {mode}: "
            f"build the model with attention={' or '.join(repr(other.value) for other in held)}"
        )
    if mode not in form.tables:
        raise CheckpointError(f"{form.name} format has {', '.join(form.tables)} attention, the model has {mode}")


def check_function(form: Format, model: TimeSformer) -> None:
    """Refuse weights for a model that would compute another function with them, which their shapes do not show.

    Args:
        form: of the state dict.
        model: the model it is for.

    Raises:
        CheckpointError: naming the arguments to build the model with.
    """
    own = dict(model.model_args)
    if own.get("pre_norm_eps") is None:
        own["pre_norm_eps"] = own.get("norm_eps")
    if other := {name: value for name, value in form.function.items() if own.get(name) != value}:
        raise CheckpointError(
            f"the weights ({form.name} format) are of a model with {_arguments(other)}, the model has "
            f"{_arguments({name: own.get(name) for name in other})}: build it with the former"
        )


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def flip_input_channels(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reverse the order of the patch embedding's input channels: a model of BGR frames then takes RGB, or back.

    Args:
        state_dict: native keys.

    Raises:
        CheckpointError: the patch embedding is missing or has not three input channels.
    """
    weight = state_dict.get(PATCHES)
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3:
        found = "none" if weight is None else tuple(weight.shape)
        raise CheckpointError(f"channels can be flipped in a {PATCHES} of shape (D, 3, h, w); got {found}")
    return dict(state_dict) | {PATCHES: weight.flip(1)}


def init_from_vit(model: nn.Module, vit: str | nn.Module | Mapping[str, Any]) -> TimeSformer:
    """Start a model of any attention mode from one of timm's plain image ViTs with a class token.

    Time and space attention are both copied from the ViT's, the projections between steps and the time embedding
    are zero, embeddings are resampled to the model's size. Width, depth and number of heads must be the model's.

        model = timm.create_model("timesformer_tiny_divided", embed_dim=192, depth=12, num_heads=3)
        init_from_vit(model, "vit_tiny_patch16_224.augreg_in21k")

    Args:
        model: a TimeSformer; changed in place.
        vit: a timm name, whose weights timm downloads; a timm `VisionTransformer`; or the state dict of one. Only
            the module shows its number of heads and its activation: a bare state dict is taken at its word.

    Returns:
        The same model.

    Raises:
        TypeError: the model is no TimeSformer.
        CheckpointError: the ViT does not fit the model, or has parts TimeSformer cannot express.
    """
    model = expect_timesformer(model)
    network = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    grid = _check_vit(network, model) if isinstance(network, nn.Module) else None
    weights = unwrap(network.state_dict() if isinstance(network, nn.Module) else network)
    if not detect(weights).inflates:
        raise CheckpointError(
            "init_from_vit takes an image ViT's weights; these are a video model's: load them by checkpoint_filter_fn"
        )
    model.load_state_dict(checkpoint_filter_fn(weights, model, source_grid=grid))
    return model


def _check_vit(vit: nn.Module, model: TimeSformer) -> tuple[int, int]:
    """Check what a state dict does not show; return (h, w) of the ViT's patches."""
    if not isinstance(vit, VisionTransformer):
        raise CheckpointError(
            f"got a {type(vit).__name__}; expected a timm VisionTransformer, plain and with a class token"
        )
    block: Any = vit.blocks[0]
    if block.attn.num_heads != model.num_heads:
        raise CheckpointError(f"the image ViT has {block.attn.num_heads} attention heads, the model {model.num_heads}")
    activation = type(block.mlp.act).__name__
    if activation != "GELU":
        raise CheckpointError(f"the image ViT's activation is {activation}; TimeSformer's is GELU")
    rows, columns = vit.patch_embed.grid_size
    return rows, columns


def _converted(
    state_dict: Mapping[str, torch.Tensor],
    form: Format,
    model: TimeSformer,
    own: Mapping[str, Any],
    *,
    bgr: bool | None = None,
    source_grid: tuple[int, int] | None = None,
    strict: bool = True,
) -> Weights:
    """Native names and the model's sizes; keys may still be missing or unexpected, and the head another."""
    on_meta = model.pos_embed.is_meta
    left_out: tuple[str, ...] = getattr(state_dict, "left_out", ())
    weights: dict[str, torch.Tensor]
    if form.inflates:
        (mode,) = form.tables
        weights = form.to_native(refuse_inexpressible(state_dict), mode, strict)
        refuse_other_kinds(weights, on_meta)
        weights = inflate(weights, model, source_grid)
    else:
        check_mode(state_dict, form, model.attention)
        check_function(form, model)
        weights = form.to_native(state_dict, model.attention, strict)
        left_out = weights.left_out
        refuse_other_kinds({key: value for key, value in weights.items() if _is_weight(own.get(key))}, on_meta)
        for key in form.zeros:
            if key in own:
                weights.setdefault(key, torch.zeros_like(own[key]))
        if form is not NATIVE and (model.bgr if bgr is None else bgr):
            weights = flip_input_channels(weights)
        if left_out:
            _logger.info(
                "Left out of the %s file, as they are not of the video model: %s", form.name, in_words(left_out)
            )
    return Weights(weights | fit_sizes(weights, model, source_grid, native=form is NATIVE), left_out)


def _is_weight(own: Any) -> bool:
    """Whether the model has a floating point parameter there: not what a quantised layer or an adapter keeps."""
    return torch.is_tensor(own) and own.dtype.is_floating_point


def _other_head(weights: Mapping[str, Any], own: Mapping[str, Any], model: TimeSformer, form: Format) -> bool:
    """Whether the weights' head is not the model's, but whole: for another number of classes, or there is none."""
    theirs, ours = ({key: shape_of(w[key]) for key in w if key.startswith(_HEAD)} for w in (weights, own))
    classes = (theirs.get("head.bias") or (0,))[0]
    whole = theirs == {"head.weight": (classes, model.embed_dim), "head.bias": (classes,)}
    if theirs == ours or (theirs and not whole):
        return False
    if ours:
        _logger.log(
            logging.INFO if form.inflates else logging.WARNING,
            "The weights' head (%s) is not the model's %s: the model's stays as it is, to be trained",
            theirs.get("head.weight", "none"),
            ours.get("head.weight", "own"),
        )
    return True


def _refuse_misfits(
    weights: Mapping[str, Any], own: Mapping[str, Any], model: TimeSformer, form: Format, strict: bool = True
) -> None:
    faults = misfits(weights, own, strict)
    if not faults:
        return
    body, own_body = ({key: w[key] for key in w if not key.startswith(_HEAD)} for w in (weights, own))
    advice = "Build the model with the weights' sizes, or check that the file is complete"
    if not misfits(body, own_body, strict):
        advice = (
            "It is the head alone: create the model with the weights' num_classes, or keep its own head, by "
            "strict=False or by loading checkpoint_filter_fn(weights, model)"
        )
    raise CheckpointError(
        f"the weights, taken for {form.name} format, do not fit the model ({model.attention} attention, width "
        f"{model.embed_dim}, depth {len(model.blocks)}), in native names: {'; '.join(faults)}. {advice}"
    )
