"""TimeSformer, the video transformer, as timm models. Importing this package registers them with timm."""

from timesformer_zoo.attention import AttentionMode
from timesformer_zoo.checkpoints import checkpoint_filter_fn, init_from_vit
from timesformer_zoo.classes import model_labels, set_labels
from timesformer_zoo.clip import ClipSpec, clip_spec, clip_transform, frame_indices
from timesformer_zoo.errors import (
    AnnotationError,
    CheckpointError,
    DownloadError,
    MissingVideosError,
    TimesformerZooError,
    VideoReadError,
)
from timesformer_zoo.explain import attention_maps, rollout
from timesformer_zoo.hub import push_to_hf_hub, save_pretrained
from timesformer_zoo.loading import load_model
from timesformer_zoo.model import TimeSformer
from timesformer_zoo.predict import predict, predict_windows
from timesformer_zoo.timesformer import *  # noqa: F403  (registers; the factory functions)
from timesformer_zoo.timesformer import checkpoint_of
from timesformer_zoo.transformers_format import to_transformers
from timesformer_zoo.video import load_views, read_clip

__version__ = "0.1.0"
__all__ = [
    "AnnotationError",
    "AttentionMode",
    "CheckpointError",
    "ClipSpec",
    "DownloadError",
    "MissingVideosError",
    "TimeSformer",
    "TimesformerZooError",
    "VideoReadError",
    "attention_maps",
    "checkpoint_filter_fn",
    "checkpoint_of",
    "clip_spec",
    "clip_transform",
    "frame_indices",
    "init_from_vit",
    "load_model",
    "load_views",
    "model_labels",
    "predict",
    "predict_windows",
    "push_to_hf_hub",
    "read_clip",
    "rollout",
    "save_pretrained",
    "set_labels",
    "to_transformers",
]
