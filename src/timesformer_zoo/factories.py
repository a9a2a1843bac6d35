"""The models, registered with timm: base, hr and l in six attention modes each, ViT-L/14's size, and tiny for laptops.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, Tables 1 and 2 (modes), 4 and 5 (variants).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._builder import resolve_pretrained_cfg
from timm.models._features import FeatureGetterNet
from torch import nn

from timesformer_zoo.labels import set_labels
from timesformer_zoo.model.embedding import to_pair
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.weights.download import published_weights
from timesformer_zoo.weights.fit import checkpoint_filter_fn, fill
from timesformer_zoo.weights.table import CHECKPOINTS, Checkpoint, timm_config

__all__ = ["ARCHITECTURES", "architecture_of", "bind_checkpoint", "checkpoint_of", "weights_loaded"]

default_cfgs = generate_default_cfgs({name: timm_config(checkpoint) for name, checkpoint in CHECKPOINTS.items()})

ARCHITECTURES = {name.partition(".")[0] for name in CHECKPOINTS}
"""Every registered name, without tags."""

_LOADED = "weights_loaded"  # an attribute of the model


def architecture_of(attention: str, embed_dim: int | None = None) -> str:
    """The registered name for a model in an attention mode: of that width if there is one, else of base's kind."""
    variant = {1024: "vitl14"}.get(embed_dim or 0, "base")
    names = (f"timesformer_{variant}_{attention}", f"timesformer_base_{attention}", "timesformer_base_divided")
    return next(name for name in names if name in ARCHITECTURES)


def checkpoint_of(model: nn.Module) -> Checkpoint | None:
    """The table's entry for the weights a model was created with or for; None if it is none of ours."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return CHECKPOINTS.get(f"{config.get('architecture')}.{config.get('tag')}")


def bind_checkpoint(model: TimeSformer) -> None:
    """Note that the weights of `model.pretrained_cfg` have been loaded: name its classes, if the head is theirs."""
    setattr(model, _LOADED, True)
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    if model.num_classes and model.num_classes == config.get("num_classes"):
        entry = checkpoint_of(model)
        labels = entry.labels if entry and entry.num_classes == model.num_classes else None
        set_labels(model, config.get("label_names") or labels)


def weights_loaded(model: TimeSformer) -> bool:
    """Whether the model started from the weights of its `pretrained_cfg`, whose licence it then inherits."""
    return bool(getattr(model, _LOADED, False))


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

    timm's own loading is not used: it would go by the config's number of classes, where ours goes by the file's head.

    Args:
        variant: registered name.
        pretrained: load the weights of the config's tag. Their head must be the model's, unless another number of
            classes is asked for than the config's.
        model_args: what makes the variant; a checkpoint's own number of frames goes before it, `kwargs` before both.
        pretrained_cfg, pretrained_cfg_overlay: as timm means them.
        bgr: whether the weights, in a published format, were trained on BGR frames and are to be reversed on load;
            None: as the table says of the tag.
        **kwargs: arguments of `TimeSformer`; an unknown one is a TypeError there.
    """
    config = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay).to_dict()
    checkpoint = CHECKPOINTS.get(f"{variant}.{config.get('tag')}")
    if checkpoint is not None:
        clip = dict(checkpoint.clip, **({"labels": checkpoint.labels} if checkpoint.labels else {}))
        if to_pair(kwargs.get("img_size", checkpoint.img_size)) != to_pair(checkpoint.img_size):
            clip.pop("jitter", None)  # in pixels of the checkpoint's own size
        model_args = dict(model_args, num_frames=checkpoint.num_frames, clip=clip, **checkpoint.model)
        bgr = checkpoint.bgr if bgr is None else bgr
    kwargs = dict(model_args, **kwargs)
    weights = published_weights(config, kwargs.get("cache_dir")) if pretrained else None
    config.pop("state_dict", None)  # no source for anybody else
    saved_args = kwargs.get("pretrained_model_args") or {}

    def build(**arguments: Any) -> TimeSformer:
        if weights is not None:
            arguments.setdefault("weight_init", "skip")  # every weight is filled, or loading raises
        model = TimeSformer(**arguments)
        model.bgr, model.pretrained_model_args = bool(bgr), saved_args
        if weights is not None:
            new_head = model.num_classes != config.get("num_classes")
            fill(model, checkpoint_filter_fn(weights, model, new_head=new_head))
        return model

    model: TimeSformer = build_model_with_cfg(
        build,
        variant,
        pretrained=False,
        pretrained_cfg=config,
        feature_cfg=dict(out_indices=kwargs.pop("out_indices", 3), feature_cls=FeatureGetterNet),
        **kwargs,
    )
    if pretrained and isinstance(model, TimeSformer):
        bind_checkpoint(model)
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
def timesformer_base_frozen(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 px, attention over time, then space, the class token seeing all."""
    model_args: dict[str, Any] = dict(attention="frozen")
    return _create_timesformer("timesformer_base_frozen", pretrained, model_args, **kwargs)


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
def timesformer_hr_frozen(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 px, attention over time, then space, the class token seeing all."""
    model_args: dict[str, Any] = dict(img_size=448, num_frames=16, attention="frozen")
    return _create_timesformer("timesformer_hr_frozen", pretrained, model_args, **kwargs)


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


@register_model
def timesformer_l_frozen(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 px, attention over time, then space, the class token seeing all."""
    model_args: dict[str, Any] = dict(num_frames=96, attention="frozen")
    return _create_timesformer("timesformer_l_frozen", pretrained, model_args, **kwargs)


VITL14: dict[str, Any] = dict(patch_size=14, embed_dim=1024, depth=24, num_heads=16)
"""ViT-L/14, which video and text encoders start from; the paper's L is of ViT-B/16's size, with longer clips."""


@register_model
def timesformer_vitl14_joint(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer of ViT-L/14's size, 8 frames of 224 px, attention over all patches of the clip."""
    model_args: dict[str, Any] = dict(**VITL14, attention="joint")
    return _create_timesformer("timesformer_vitl14_joint", pretrained, model_args, **kwargs)


@register_model
def timesformer_vitl14_frozen(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """TimeSformer of ViT-L/14's size, 8 frames of 224 px, attention over time, then space, as Frozen in Time."""
    model_args: dict[str, Any] = dict(**VITL14, attention="frozen")
    return _create_timesformer("timesformer_vitl14_frozen", pretrained, model_args, **kwargs)


TINY: dict[str, Any] = dict(img_size=64, patch_size=8, embed_dim=160, depth=5, num_heads=4)


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


@register_model
def timesformer_tiny_frozen(pretrained: bool = False, **kwargs: Any) -> TimeSformer:
    """A small TimeSformer, 8 frames of 64 px, attention over time, then space, the class token seeing all."""
    model_args: dict[str, Any] = dict(**TINY, attention="frozen")
    return _create_timesformer("timesformer_tiny_frozen", pretrained, model_args, **kwargs)
