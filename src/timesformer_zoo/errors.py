"""The errors a user can act on. Each is also the builtin that fits, so that `except OSError` works."""

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ClusterError",
    "DownloadError",
    "MissingVideosError",
    "OutputError",
    "TimesformerZooError",
    "UploadError",
    "VideoReadError",
    "WriteError",
]


class TimesformerZooError(Exception):
    """Base of every error of this package."""


class VideoReadError(TimesformerZooError, OSError):
    """A video file cannot be read: missing, forbidden, empty, truncated, or not a video."""


class CheckpointError(TimesformerZooError, ValueError, RuntimeError):
    """Weights that cannot be read or do not fit the model: unknown format, or unmapped, missing or misshapen keys.

    A ValueError, since timm calls a filter that raises TypeError once more; a RuntimeError, which is what torch's own
    `load_state_dict` raises.
    """


class DownloadError(TimesformerZooError, OSError):
    """A model could not be downloaded, and is not in the cache; what the network's client said is its `__cause__`."""


class UploadError(TimesformerZooError, OSError):
    """A model could not be published on the Hub."""


class AnnotationError(TimesformerZooError, ValueError):
    """An annotation file is missing, or says something that cannot be."""


class MissingVideosError(TimesformerZooError, FileNotFoundError):
    """Videos that the annotations name are not there."""


class WriteError(TimesformerZooError, OSError):
    """A file could not be written: the disk is full, or the folder read-only. What had its name before is unchanged."""


class OutputError(TimesformerZooError, OSError):
    """A folder of results, or a library, that can't be continued or read: damaged, empty, of other settings, in use."""


class ClusterError(TimesformerZooError, OSError):
    """A cluster is not there, or its workers can't do anything at all."""
