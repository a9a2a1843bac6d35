"""Indexes of files whose frames had to be counted by decoding all of them, kept for who opens the file again.

Two hours of an interlaced recording take minutes to decode, at each opening, in each epoch and each worker.
"""

import hashlib
import io
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from timesformer_zoo.video.cache import cache_folder, keep
from timesformer_zoo.video.origin import File

__all__ = ["Counted", "keep_counted", "known_counted"]

Counted = tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], float | None
]  # times (N,) in seconds, and frames a second


def known_counted(file: File, decoder: str) -> Counted | None:
    """What was kept of the file as it is now.

    Args:
        decoder: name and version of what counts: another one may make more, or less, of a damaged file.
    """
    place = _place(file, decoder)
    if place is None:
        return None
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as content:
            times, fps = content["times"], float(content["fps"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # nothing, or damaged
        return None
    return times, None if np.isnan(fps) else fps


def keep_counted(file: File, decoder: str, counted: Counted) -> None:
    """Where that can be written; else the file is counted again next time."""
    place = _place(file, decoder)
    if place is not None:
        content = io.BytesIO()
        np.savez(content, times=counted[0], fps=np.nan if counted[1] is None else counted[1])
        keep(place, content.getvalue())


def _place(file: File, decoder: str) -> Path | None:
    """Of files of this machine alone."""
    if not isinstance(file, str):
        return None
    status = os.stat(file)
    about = repr((os.path.abspath(file), status.st_size, status.st_mtime_ns, decoder))
    return cache_folder() / "frames" / f"{hashlib.sha256(os.fsencode(about)).hexdigest()[:32]}.npz"
