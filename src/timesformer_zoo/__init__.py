"""TimeSformer, the video transformer, as timm models. Importing this package registers them with timm."""

from timesformer_zoo.attention import AttentionMode
from timesformer_zoo.errors import CheckpointError, DownloadError, TimesformerZooError, VideoReadError
from timesformer_zoo.model import TimeSformer
from timesformer_zoo.timesformer import *  # noqa: F403  (the factory functions, for direct calls)

__version__ = "0.1.0"
__all__ = [
    "AttentionMode",
    "CheckpointError",
    "DownloadError",
    "TimeSformer",
    "TimesformerZooError",
    "VideoReadError",
]
