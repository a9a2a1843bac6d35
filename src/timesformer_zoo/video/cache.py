"""The user's cache folder: what took long to find out about a file, under a name that changes when the file does."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["cache_folder", "keep"]


def cache_folder() -> Path:
    """$TIMESFORMER_ZOO_CACHE, or timesformer-zoo in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("TIMESFORMER_ZOO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "timesformer-zoo"


def keep(place: Path, content: bytes) -> bool:
    """Whether the content could be written; it is whole under its name, or not there at all."""
    partial = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(partial, place)
        return True
    except OSError:
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)
        return False
