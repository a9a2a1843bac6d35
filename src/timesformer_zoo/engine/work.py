"""What is done to a video."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from timesformer_zoo.errors import TimesformerZooError
from timesformer_zoo.video.remote import masked, shown, without_login

__all__ = ["Row", "Work", "key_of", "named", "of_error", "of_video", "row_of"]

Row = dict[str, Any]


class Work(Protocol):
    """What is done to a video: a small object that can be pickled, such as a frozen dataclass of plain values.

    A model's prediction of each, for example:

        @dataclass(frozen=True)
        class Classify:
            model: str

            @property
            def settings(self):
                return {"model": self.model}

            def load(self):
                model = load_model(self.model)
                return lambda path: predict(model, [path])[0].to_dict()
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values for JSON, on which answers depend: a folder holds rows of one work with one set of these."""
        ...

    def load(self) -> Callable[[str], Mapping[str, Any]]:
        """Called once in each worker: what it gives makes of a path a dict of plain values for JSON.

        That function raises VideoReadError for a video that can't be read.
        """
        ...


def named(path: str) -> Row:
    """What a row says its video is: "path"; of an address that hides something there, also "digest".

    Neither password nor token gets into a row. The digest, of the address without user and password, is there so that
    a rerun knows the video again, and does not take two for one that differ in their query alone.
    """
    name = masked(path)
    if name == path:
        return {"path": path}
    return {"path": name, "digest": hashlib.sha256(os.fsencode(without_login(path))).hexdigest()}


def row_of(path: str, answer: Mapping[str, Any]) -> Row:
    """A video's row: which it is, then its answer, whose own "path" does not count."""
    name = named(path)
    return {**name, **answer, **name}


def of_error(path: str, error: object) -> Row:
    """A video's answer that there is none. What was said of it may have its address in it."""
    return {"error": shown(str(error).replace(path, masked(path)))}


def of_video(path: str, error: Exception) -> Exception:
    """What is not of the video, but happened with it, so that who reads it can try that one: with its name."""
    if isinstance(error, (TimesformerZooError, ImportError)):  # these say of what they are
        return error
    for kind in (ValueError, TypeError):
        if isinstance(error, kind):
            return kind(f"{masked(path)}: {error}")
    return RuntimeError(f"{masked(path)}: {type(error).__name__}: {error}")


def key_of(row: Row) -> str:
    """By which a rerun knows a row's video."""
    key: str = row.get("digest") or row["path"]
    return key
