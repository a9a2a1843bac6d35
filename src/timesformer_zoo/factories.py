"""The models, registered with timm: base, hr and l in five attention modes each, and tiny for tests and laptops.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, Tables 1 and 2 (modes), 4 and 5 (variants).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._builder import resolve_pretrained_cfg
from timm.models._features import FeatureGetterNet

from timesformer_zoo.labels import mark_loaded, set_labels
from timesformer_zoo.model.embedding import to_pair
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.weights.download import explain_hub_errors
from timesformer_zoo.weights.files import refusing_pickles
from timesformer_zoo.weights.fit import checkpoint_filter_fn, convert_on_load
from timesformer_zoo.weights.table import CHECKPOINTS, Checkpoint, timm_config

__all__ = ["checkpoint_of"]

default_cfgs = generate_default_cfgs({name: timm_config(checkpoint) for name, checkpoint in CHECKPOINTS.items()})


def checkpoint_of(model: TimeSformer) -> Checkpoint | None:
    """The table's entry for the weights a model was created with or for; None if it is none of ours."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return CHECKPOINTS.get(f"{config.get('architecture')}.{config.get('tag')}")


def bind_checkpoint(model: TimeSformer) -> None:
    """Note that the weights of `model.pretrained_cfg` have been loaded: name its classes, if the head is theirs."""
    mark_loaded(model)
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    if model.num_classes and model.num_classes == config.get("num_classes"):
        entry = checkpoint_of(model)
        labels = entry.labels if entry and entry.num_classes == model.num_classes else None
        set_labels(model, config.get("label_names") or labels)


def _create_timesformer(
    variant: str,
    pretrained: bool,
    model_args: dict[str, Any],
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    bgr: bool | None = None,
    **kwargs: Any,
) -> TimeSformer:
    """Build a registered model; its checkpoint's sampling and number of frames are the defaults.

    Args:
        variant: registered name.
        pretrained: load the weights of the config's tag.
        model_args: what makes the variant; a checkpoint's own number of frames goes before it, `kwargs` before both.
        pretrained_cfg, pretrained_cfg_overlay: as timm means them.
        bgr: whether the weights, in a published format, were trained on BGR frames and are to be reversed on load;
            None: as the table says of the tag.
        **kwargs: arguments of `TimeSformer`; an unknown one is a TypeError there.
    """
    config = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay).to_dict()
    checkpoint = CHECKPOINTS.get(f"{variant}.{config.get('tag')}")
    if checkpoint is not None:
        clip = dict(checkpoint.clip)
        if to_pair(kwargs.get("img_size", checkpoint.img_size)) != to_pair(checkpoint.img_size):
            clip.pop("jitter", None)  # in pixels of the checkpoint's own size
        model_args = dict(model_args, num_frames=checkpoint.num_frames, clip=clip)
        bgr = checkpoint.bgr if bgr is None else bgr
    kwargs = dict(model_args, **kwargs)
    if pretrained:
        kwargs.setdefault("weight_init", "skip")  # the filter guarantees that every weight is filled, or raises
    out_indices = kwargs.pop("out_indices", 3)
    # The filter fits head and input channels by their shapes. timm would go by the config's num_classes and channels,
    # and drop the head of a file that has other classes than the tag, though it is the model's.
    fitted = {"classifier": None, "first_conv": None}
    with explain_hub_errors(config, kwargs.get("cache_dir")), refusing_pickles():
        model: TimeSformer = build_model_with_cfg(
            TimeSformer,
            variant,
            pretrained,
            pretrained_cfg=config | fitted,
            pretrained_filter_fn=partial(checkpoint_filter_fn, bgr=bool(bgr)),
            feature_cfg=dict(out_indices=out_indices, feature_cls=FeatureGetterNet),
            **kwargs,
        )
    kept = config.keys() & model.pretrained_cfg.keys()  # timm removes the head of a model that is for features only
    model.pretrained_cfg.update({key: config[key] for key in fitted if key in kept})
    if isinstance(model, TimeSformer):
        if pretrained:
            bind_checkpoint(model)
        hook = partial(convert_on_load, bgr=bool(bgr))
        model.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]
    return model


@register_model
def timesformer_base_space_only(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention within each frame."""
    model_args: dict[str, Any] = dict(attention="space_only")
    return _create_timesformer("timesformer_base_space_only", pretrained, model_args, **kwargs)


@register_model
def timesformer_base_joint(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention over all patches of the clip."""
    model_args: dict[str, Any] = dict(attention="joint")
    return _create_timesformer("timesformer_base_joint", pretrained, model_args, **kwargs)


@register_model
def timesformer_base_divided(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention over time, then space."""
    model_args: dict[str, Any] = dict(attention="divided")
    return _create_timesformer("timesformer_base_divided", pretrained, model_args, **kwargs)


@register_model
def timesformer_base_local_global(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention in quarters of the frame, then at a stride of 2."""
    model_args: dict[str, Any] = dict(attention="local_global")
    return _create_timesformer("timesformer_base_local_global", pretrained, model_args, **kwargs)


@register_model
def timesformer_base_axial(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention over time, then width, then height."""
    model_args: dict[str, Any] = dict(attention="axial")
    return _create_timesformer("timesformer_base_axial", pretrained, model_args, **kwargs)


@register_model
def timesformer_hr_space_only(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention within each frame."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="space_only")
    return _create_timesformer("timesformer_hr_space_only", pretrained, model_args, **kwargs)


@register_model
def timesformer_hr_joint(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention over all patches of the clip."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="joint")
    return _create_timesformer("timesformer_hr_joint", pretrained, model_args, **kwargs)


@register_model
def timesformer_hr_divided(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention over time, then space."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="divided")
    return _create_timesformer("timesformer_hr_divided", pretrained, model_args, **kwargs)


@register_model
def timesformer_hr_local_global(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention in quarters of the frame, then at a stride of 2."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="local_global")
    return _create_timesformer("timesformer_hr_local_global", pretrained, model_args, **kwargs)


@register_model
def timesformer_hr_axial(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention over time, then width, then height."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="axial")
    return _create_timesformer("timesformer_hr_axial", pretrained, model_args, **kwargs)


@register_model
def timesformer_l_space_only(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention within each frame."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="space_only")
    return _create_timesformer("timesformer_l_space_only", pretrained, model_args, **kwargs)


@register_model
def timesformer_l_joint(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention over all patches of the clip."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="joint")
    return _create_timesformer("timesformer_l_joint", pretrained, model_args, **kwargs)


@register_model
def timesformer_l_divided(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention over time, then space."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="divided")
    return _create_timesformer("timesformer_l_divided", pretrained, model_args, **kwargs)


@register_model
def timesformer_l_local_global(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention in quarters of the frame, then at a stride of 2."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="local_global")
    return _create_timesformer("timesformer_l_local_global", pretrained, model_args, **kwargs)


@register_model
def timesformer_l_axial(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention over time, then width, then height."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="axial")
    return _create_timesformer("timesformer_l_axial", pretrained, model_args, **kwargs)


TINY: dict[str, Any] = dict(img_size=64, patch_size=16, embed_dim=128, depth=4, num_heads=4)


@register_model
def timesformer_tiny_space_only(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention within each frame."""
    model_args: dict[str, Any] = dict(**TINY, attention="space_only")
    return _create_timesformer("timesformer_tiny_space_only", pretrained, model_args, **kwargs)


@register_model
def timesformer_tiny_joint(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention over all patches of the clip."""
    model_args: dict[str, Any] = dict(**TINY, attention="joint")
    return _create_timesformer("timesformer_tiny_joint", pretrained, model_args, **kwargs)


@register_model
def timesformer_tiny_divided(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention over time, then space."""
    model_args: dict[str, Any] = dict(**TINY, attention="divided")
    return _create_timesformer("timesformer_tiny_divided", pretrained, model_args, **kwargs)


@register_model
def timesformer_tiny_local_global(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention in quarters of the frame, then at a stride of 2."""
    model_args: dict[str, Any] = dict(**TINY, attention="local_global")
    return _create_timesformer("timesformer_tiny_local_global", pretrained, model_args, **kwargs)


@register_model
def timesformer_tiny_axial(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention over time, then width, then height."""
    model_args: dict[str, Any] = dict(**TINY, attention="axial")
    return _create_timesformer("timesformer_tiny_axial", pretrained, model_args, **kwargs)
