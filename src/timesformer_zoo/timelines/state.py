"""The windows of an unfinished timeline, a line of JSON each, so that a rerun goes on where a run was killed.

The first line says of what they are: the file, the model and the sampling. Of another one nothing is taken over. A
killed run leaves at most half a line at the end, which the next one cuts off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from timesformer_zoo.labels import model_labels
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.results import Gap, Prediction, Score
from timesformer_zoo.video.origin import Origin, Readable, file_facts, origin_of
from timesformer_zoo.weights.digest import weights_digest
from timesformer_zoo.writing import writing

__all__ = ["State", "digest_of", "identity_of"]

Found = tuple[int, Prediction | Gap]  # as `Windows.run` gives them


class State:
    """A file of windows. Use it as a context manager: it is closed at the end, and stays.

    Args:
        path: of the file; its folder is made if need be.
        settings: plain values for JSON: all that the windows depend on.
        together: windows are taken over in whole batches, so that those that follow are of the batches of an unbroken
            run, and equal to the last bit.
        common: what all windows have in common.

    Attributes:
        known: what an earlier run had found.
        following: the window to go on with.
        problem: why nothing was taken over from a file that was there; None: it was, or there was none.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], together: int, common: Prediction
    ) -> None:
        self._path, self._common = Path(path), common
        self.known: list[Found] = []
        self.following = 0
        self.problem: str | None = None
        header = json.dumps({"timeline": settings}).encode() + b"\n"
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = open(self._path, "ab+")  # noqa: SIM115
            self._file.seek(0)
            first, *lines = self._file.read().splitlines(keepends=True) or [b""]
            size = 0
            if first == header:
                self._take_over(lines, together)
                size = len(header) + sum(map(len, lines[: len(self.known)]))
            elif first.endswith(b"\n"):
                self.problem = _difference(first, header)
            self._file.truncate(size)
            if not size:
                self._file.write(header)
            self._file.flush()

    def __enter__(self) -> State:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, found: Found) -> None:
        """When this returns the system has it, whatever becomes of this process. Raises WriteError."""
        with writing(self._path):
            self._file.write(self._line(found))
            self._file.flush()

    def _take_over(self, lines: list[bytes], together: int) -> None:
        found: list[Found] = []
        for line in lines:
            try:
                found.append(self._found(line))
            except (ValueError, KeyError, TypeError):  # half a line, behind which there is nothing
                break
        following = (found[-1][0] + 1 if found else 0) // together * together
        before = -1
        for number, what in found:  # a gap is read again as a whole, if its end is: else its start would be lost
            if isinstance(what, Gap) and before + 1 < following <= number:
                following = (before + 1) // together * together
            before = number
        self.known = [(number, what) for number, what in found if number < following]
        self.following = following

    def _line(self, found: Found) -> bytes:
        number, what = found
        values = what.to_dict() if isinstance(what, Gap) else {"start": what.start, "end": what.end, "top": what.top}
        return json.dumps({"window": number, **values}).encode() + b"\n"

    def _found(self, line: bytes) -> Found:
        values = json.loads(line)
        number = values.pop("window")
        if "reason" in values:
            return number, Gap(**values)
        top = tuple(Score(*score) for score in values.pop("top"))
        return number, replace(self._common, top=top, **values)


def _difference(before: bytes, now: bytes) -> str:
    """What of the settings is another, in words."""
    try:
        old, new = (dict(json.loads(line)["timeline"]) for line in (before, now))
    except (ValueError, KeyError, TypeError):
        return "its first line is no header of this program's"
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return f"it is of another {', '.join(names)}"


def digest_of(model: TimeSformer) -> str:
    """Of a model's architecture, sampling, labels and weights: of all that its windows depend on."""
    about = [weights_digest(model), model.model_args, model.clip, model_labels(model)]
    return hashlib.blake2b(json.dumps(about, default=str).encode(), digest_size=16).hexdigest()


def identity_of(video: Readable) -> dict[str, Any]:
    """What tells a video from another one under its name later: its files, or its size and beginning."""
    if isinstance(video, (str, os.PathLike)) and (facts := file_facts(os.fspath(video))):
        return {"files": facts}
    origin = origin_of(video)
    if not isinstance(origin, Origin):
        return {}
    return {"bytes": origin.size, "begins with": hashlib.sha256(origin.read_at(0, 1 << 16)).hexdigest()}
