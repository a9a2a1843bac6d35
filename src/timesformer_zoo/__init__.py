"""TimeSformer, the video transformer, as timm models. Importing this package registers them with timm.

All public names are here. Those for data sets and training are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from timesformer_zoo.errors import (
    AnnotationError,
    CheckpointError,
    ClusterError,
    DownloadError,
    MissingVideosError,
    OutputError,
    TimesformerZooError,
    UploadError,
    VideoReadError,
    WriteError,
)
from timesformer_zoo.explanation.explain import EXPLANATIONS, Explanation, ExplanationMethod, explain
from timesformer_zoo.explanation.flow import relevance, rollout
from timesformer_zoo.explanation.gradients import gradients, integrated_gradients
from timesformer_zoo.explanation.maps import attention_maps
from timesformer_zoo.explanation.picture import overlay
from timesformer_zoo.factories import (
    checkpoint_of,
    timesformer_base_axial,
    timesformer_base_divided,
    timesformer_base_frozen,
    timesformer_base_joint,
    timesformer_base_local_global,
    timesformer_base_space_only,
    timesformer_hr_axial,
    timesformer_hr_divided,
    timesformer_hr_frozen,
    timesformer_hr_joint,
    timesformer_hr_local_global,
    timesformer_hr_space_only,
    timesformer_l_axial,
    timesformer_l_divided,
    timesformer_l_frozen,
    timesformer_l_joint,
    timesformer_l_local_global,
    timesformer_l_space_only,
    timesformer_tiny_axial,
    timesformer_tiny_divided,
    timesformer_tiny_frozen,
    timesformer_tiny_joint,
    timesformer_tiny_local_global,
    timesformer_tiny_space_only,
    timesformer_vitl14_frozen,
    timesformer_vitl14_joint,
)
from timesformer_zoo.hub.convert import convert
from timesformer_zoo.hub.facts import CardFacts, Result
from timesformer_zoo.hub.load import card_facts, load_from_transformers, load_model
from timesformer_zoo.hub.save import push_to_hf_hub, save_pretrained
from timesformer_zoo.labels import label_set, model_labels, set_labels
from timesformer_zoo.model.attention import AttentionMode, Step
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import predict, predict_windows
from timesformer_zoo.results import Gap, Prediction, Score, Segment, segments, smooth
from timesformer_zoo.video.clip import ClipSpec, clip_spec, frame_indices
from timesformer_zoo.video.folder import IMAGE_SUFFIXES, FrameFolder
from timesformer_zoo.video.reader import Video, open_video
from timesformer_zoo.video.transform import clip_transform, crop_views, normalize_clips
from timesformer_zoo.video.views import load_views, read_clip
from timesformer_zoo.weights.files import read_checkpoint
from timesformer_zoo.weights.fit import checkpoint_filter_fn, init_from_vit
from timesformer_zoo.weights.table import CHECKPOINTS, Checkpoint
from timesformer_zoo.weights.transformers import to_transformers

if TYPE_CHECKING:
    from timesformer_zoo.data.batches import Batch, Item, VideoDataset, make_loader
    from timesformer_zoo.data.index import VIDEO_SUFFIXES
    from timesformer_zoo.data.order import StepSampler
    from timesformer_zoo.data.sources import read_dataset, read_shards
    from timesformer_zoo.data.videos import DATASETS, TASKS, Sample, VideoList, read_videos
    from timesformer_zoo.engine.cluster import RayEngine
    from timesformer_zoo.engine.mapping import ENGINES, LocalEngine, map_videos
    from timesformer_zoo.engine.work import Work
    from timesformer_zoo.retrieval.embedding import embed
    from timesformer_zoo.retrieval.index import INDEXES
    from timesformer_zoo.retrieval.library import Library, Match
    from timesformer_zoo.retrieval.query import search
    from timesformer_zoo.timelines.result import Timeline
    from timesformer_zoo.timelines.run import timeline
    from timesformer_zoo.train.evaluate import PROTOCOLS, evaluate
    from timesformer_zoo.train.evaluation import Evaluation, Outcome, mean_of
    from timesformer_zoo.train.find_lr import LearningRates, find_lr
    from timesformer_zoo.train.finetune import Finetuned, finetune
    from timesformer_zoo.train.objective import OBJECTIVES, Objective
    from timesformer_zoo.train.plan import Plan, plan
    from timesformer_zoo.train.plots import plot_confusion
    from timesformer_zoo.train.probe import probe
    from timesformer_zoo.train.recipe import RECIPES, Recipe
    from timesformer_zoo.train.worst import save_worst

__version__ = "0.1.0"
__all__ = [
    "CHECKPOINTS",
    "DATASETS",
    "ENGINES",
    "EXPLANATIONS",
    "IMAGE_SUFFIXES",
    "INDEXES",
    "OBJECTIVES",
    "PROTOCOLS",
    "RECIPES",
    "TASKS",
    "VIDEO_SUFFIXES",
    "AnnotationError",
    "AttentionMode",
    "Batch",
    "CardFacts",
    "Checkpoint",
    "CheckpointError",
    "ClipSpec",
    "ClusterError",
    "DownloadError",
    "Evaluation",
    "Explanation",
    "ExplanationMethod",
    "Finetuned",
    "FrameFolder",
    "Gap",
    "Item",
    "LearningRates",
    "Library",
    "LocalEngine",
    "Match",
    "MissingVideosError",
    "Objective",
    "Outcome",
    "OutputError",
    "Plan",
    "Prediction",
    "RayEngine",
    "Recipe",
    "Result",
    "Sample",
    "Score",
    "Segment",
    "Step",
    "StepSampler",
    "TimeSformer",
    "Timeline",
    "TimesformerZooError",
    "UploadError",
    "Video",
    "VideoDataset",
    "VideoList",
    "VideoReadError",
    "Work",
    "WriteError",
    "attention_maps",
    "card_facts",
    "checkpoint_filter_fn",
    "checkpoint_of",
    "clip_spec",
    "clip_transform",
    "convert",
    "crop_views",
    "embed",
    "evaluate",
    "explain",
    "find_lr",
    "finetune",
    "frame_indices",
    "gradients",
    "init_from_vit",
    "integrated_gradients",
    "label_set",
    "load_from_transformers",
    "load_model",
    "load_views",
    "make_loader",
    "map_videos",
    "mean_of",
    "model_labels",
    "normalize_clips",
    "open_video",
    "overlay",
    "plan",
    "plot_confusion",
    "predict",
    "predict_windows",
    "probe",
    "push_to_hf_hub",
    "read_checkpoint",
    "read_clip",
    "read_dataset",
    "read_shards",
    "read_videos",
    "relevance",
    "rollout",
    "save_pretrained",
    "save_worst",
    "search",
    "segments",
    "set_labels",
    "smooth",
    "timeline",
    "timesformer_base_axial",
    "timesformer_base_divided",
    "timesformer_base_frozen",
    "timesformer_base_joint",
    "timesformer_base_local_global",
    "timesformer_base_space_only",
    "timesformer_hr_axial",
    "timesformer_hr_divided",
    "timesformer_hr_frozen",
    "timesformer_hr_joint",
    "timesformer_hr_local_global",
    "timesformer_hr_space_only",
    "timesformer_l_axial",
    "timesformer_l_divided",
    "timesformer_l_frozen",
    "timesformer_l_joint",
    "timesformer_l_local_global",
    "timesformer_l_space_only",
    "timesformer_tiny_axial",
    "timesformer_tiny_divided",
    "timesformer_tiny_frozen",
    "timesformer_tiny_joint",
    "timesformer_tiny_local_global",
    "timesformer_tiny_space_only",
    "timesformer_vitl14_frozen",
    "timesformer_vitl14_joint",
    "to_transformers",
]

_LAZY = {
    "data.index": ("VIDEO_SUFFIXES",),
    "data.batches": ("Batch", "Item", "VideoDataset", "make_loader"),
    "data.order": ("StepSampler",),
    "data.sources": ("read_dataset", "read_shards"),
    "data.videos": ("DATASETS", "TASKS", "Sample", "VideoList", "read_videos"),
    "engine.cluster": ("RayEngine",),
    "engine.mapping": ("ENGINES", "LocalEngine", "map_videos"),
    "engine.work": ("Work",),
    "retrieval.embedding": ("embed",),
    "retrieval.index": ("INDEXES",),
    "retrieval.library": ("Library", "Match"),
    "retrieval.query": ("search",),
    "timelines.result": ("Timeline",),
    "timelines.run": ("timeline",),
    "train.evaluate": ("PROTOCOLS", "evaluate"),
    "train.evaluation": ("Evaluation", "Outcome", "mean_of"),
    "train.find_lr": ("LearningRates", "find_lr"),
    "train.finetune": ("Finetuned", "finetune"),
    "train.objective": ("OBJECTIVES", "Objective"),
    "train.plan": ("Plan", "plan"),
    "train.plots": ("plot_confusion",),
    "train.probe": ("probe",),
    "train.recipe": ("RECIPES", "Recipe"),
    "train.worst": ("save_worst",),
}
"""Module -> the names of it that are imported late."""


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f"timesformer_zoo.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
