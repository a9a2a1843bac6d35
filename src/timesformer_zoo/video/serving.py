"""The process that reads files for another one, and how the two talk: what `isolated.py` starts. Without torch.

A message is its length and JSON; after an answer come the bytes of an array. Not pickles: what damage in its memory
makes of a process that reads strangers' files is to have no say in what the other one runs.
"""

import json
import os
import queue
import struct
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.origin import File
from timesformer_zoo.video.pixels import Pixels
from timesformer_zoo.video.source import FileSource

__all__ = ["fill", "message", "receive", "serve"]

_LENGTH = struct.Struct("<I")

Array = npt.NDArray[Any]


def message(content: Any) -> bytes:
    data = json.dumps(content).encode()
    return _LENGTH.pack(len(data)) + data


def receive(file: BinaryIO) -> Any:
    """What `message` made. Raises EOFError, as `fill`."""
    length = bytearray(_LENGTH.size)
    fill(file, memoryview(length))
    text = bytearray(*_LENGTH.unpack(length))
    fill(file, memoryview(text))
    return json.loads(text)


def fill(file: BinaryIO, buffer: memoryview) -> None:
    """Raises EOFError: the file ends before."""
    rest = buffer.cast("B") if buffer.nbytes else buffer
    while rest.nbytes:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]


# ---- the process ----


def serve() -> None:
    """Answer requests until nobody is left who could ask."""
    requests, replies = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what native code prints must not get among the answers
        os.dup2(nowhere, standard)
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()

    def bytes_at(offset: int, count: int) -> bytes:
        replies.write(message({"wants": [offset, count]}))
        replies.flush()
        data: bytes | VideoReadError = waiting.get()
        if isinstance(data, VideoReadError):
            raise data
        return data

    server = _Server(bytes_at)

    def answer(told: dict[str, Any], array: Array) -> None:
        array = np.ascontiguousarray(array)
        replies.write(message({**told, "dtype": array.dtype.str, "shape": array.shape}))
        replies.write(array.data)
        replies.flush()

    nothing = np.empty(0, np.uint8)
    answer({}, nothing)
    while True:
        verb, *arguments = waiting.get()
        try:
            told, array = getattr(server, verb)(*arguments)
        except Exception as error:
            told, array = {"error": [type(error).__name__, str(error)]}, nothing
        answer(told, array)
        del array  # the next frame can have its memory, which is costly to get anew


class _Server:
    """What can be asked for: (what is told, an array)."""

    def __init__(self, bytes_at: Callable[[int, int], bytes]) -> None:
        self._files: dict[int, FileSource] = {}
        self._bytes_at = bytes_at

    def open(
        self, number: int, name: str, options: dict[str, Any], far: dict[str, Any] | None
    ) -> tuple[dict[str, Any], Array]:
        place: File = name if far is None else _Elsewhere(name, self._bytes_at, **far)
        file = self._files[number] = FileSource(place, **options)
        return {"num_frames": file.num_frames, "fps": file.fps}, file.times

    def read(self, number: int, places: list[int], *pixels: Any) -> tuple[dict[str, Any], Array]:
        return {}, next(self._files[number].stream(places, *(Pixels(*values) for values in pixels)))

    def close(self, number: int) -> tuple[dict[str, Any], Array]:
        if (file := self._files.pop(number, None)) is not None:
            file.close()
        return {}, np.empty(0)


class _Elsewhere:
    """An `Origin` whose bytes the parent reads. It answers about the file that its request is about."""

    def __init__(self, name: str, bytes_at: Callable[[int, int], bytes], size: int, is_distant: bool) -> None:
        self.name, self.size, self.is_distant = name, size, is_distant
        self.read_at = bytes_at

    def close(self) -> None:
        """The parent's concern."""


def _listen(requests: BinaryIO, waiting: "queue.SimpleQueue[Any]") -> None:
    """In a thread of its own, so that the parent's end is seen while a file is read, too."""
    try:
        while True:
            received = receive(requests)
            if isinstance(received, dict):  # not a request, but what was asked for
                if "error" in received:
                    received = VideoReadError(received["error"])
                else:
                    data = bytearray(received["bytes"])
                    fill(requests, memoryview(data))
                    received = bytes(data)
            waiting.put(received)
    except EOFError:
        os._exit(0)
