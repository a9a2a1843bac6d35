"""A process that reads files for this one: what aborts in a decoder's native code ends that process, and one file.

There is one for each process that reads (also for each worker of a DataLoader, which is why it is none of
multiprocessing's: those refuse to be parents). It starts with the first file, is replaced if it dies, ends with its
parent, and does without torch, so that it starts in 0.1 s.

What is no file of this machine (`Origin`) is read here: before its answer, the other process asks for bytes of it. What
that one does is in `serving.py`.

Legend: H W pixels.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.util import Finalize
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.container import read_error
from timesformer_zoo.video.origin import File, Origin, name_of
from timesformer_zoo.video.pixels import Pixels
from timesformer_zoo.video.serving import fill, message, receive

__all__ = ["IsolatedSource"]

# The package's own __init__ would import torch.
_START = """
import json, sys, types
sys.path[:] = json.loads(sys.argv[1])
package = sys.modules["timesformer_zoo"] = types.ModuleType("timesformer_zoo")
package.__path__ = [sys.argv[2]]
from timesformer_zoo.video.serving import serve
serve()
"""
_ERRORS = {error.__name__: error for error in (VideoReadError, ImportError, ValueError, MemoryError)}
_SIGNALS = {number.value: number.name for number in signal.Signals}
_AHEAD = 64  # frames that a decoder is told of with the next one: more than it works ahead, in threads and to reorder
# For glibc, which else gives freed memory back and has it cleared anew for each file: 6 % of what decoding takes.
_KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 26)}  # bytes
_PIPE = 1 << 20  # bytes that wait in a pipe, where Linux lets us choose: a frame in few portions

Array = npt.NDArray[Any]


class IsolatedSource:
    """A file that is read in another process; else as `FileSource`, whose arguments it takes.

    Raises:
        VideoReadError: also where reading the file ends that process.
    """

    def __init__(self, file: File, **options: Any) -> None:
        self._path = name_of(file)
        self._origin = None if isinstance(file, str) else file
        # This process may change its folder, the other one does not.
        name = os.path.abspath(file) if isinstance(file, str) else file.name
        self._file = (name, options)
        self._number = next(_numbers)
        self._opened_by: _Process | None = None
        self.num_frames = 0
        self.fps: float | None = None
        self.times: npt.NDArray[np.float64] = np.empty(0)
        self._ask()
        weakref.finalize(self, _dropped.append, self._number)

    def stream(self, places: Sequence[int], pixels: Pixels | None = None) -> Iterator[npt.NDArray[np.uint8]]:
        """`(H, W, 3)` each, or what `pixels` picks of it. `places` ascend. Raises VideoReadError."""
        which = [] if pixels is None else [pixels]
        for i in range(len(places)):
            yield self._ask("read", self._number, places[i : i + _AHEAD], *which)

    def close(self) -> None:
        """Free what the other process has of it, at once. Who reads on opens the file again."""
        with _lock:
            if self._opened_by is not None and self._opened_by is _process:
                with suppress(_Crash):
                    self._opened_by.ask("close", self._number)
            self._opened_by = None
        if self._origin is not None:
            self._origin.close()

    def _ask(self, *request: Any) -> Any:
        """The answer, or with no request the attributes set.

        Decoders work ahead in threads: one file may be asked for when another one crashes the process. So a crash is
        laid to a file only if it happens in a fresh process, too.
        """
        with _lock:
            for fresh in (False, True):
                try:
                    process = _running()
                    while _dropped:
                        process.ask("close", _dropped.popleft())
                    if self._opened_by is not process:
                        far = self._origin and {"size": self._origin.size, "is_distant": self._origin.is_distant}
                        request_to_open = ("open", self._number, *self._file, far)
                        opened, self.times = process.ask(*request_to_open, origin=self._origin)
                        self.num_frames, self.fps = opened["num_frames"], opened["fps"]
                        self._opened_by = process
                    return process.ask(*request, origin=self._origin)[1] if request else None
                except VideoReadError as error:  # it names the file as it was named to us
                    text = self._path + str(error).removeprefix(self._file[0])
                    raise VideoReadError(text) from None
                except _Crash as crash:
                    if fresh:
                        raise self._error(crash) from None

    def _error(self, crash: "_Crash") -> VideoReadError:
        advice = "the file is damaged: download it again or re-encode it"
        if crash.status == "SIGKILL":
            advice = "check that the memory is large enough for it"
        return read_error(self._path, f"it crashed the decoder (its process ended with {crash.status})", advice)


class _Crash(Exception):
    """The process is dead."""

    def __init__(self, status: str) -> None:
        self.status = status


class _Process:
    """The other process, as this one sees it."""

    def __init__(self) -> None:
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _START, json.dumps(sys.path), package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**_KEEP_FREED, **os.environ},
            start_new_session=True,  # Ctrl-C in a terminal is for us
        )
        self._requests = cast(BinaryIO, self._process.stdin)
        self._replies = cast(BinaryIO, self._process.stdout)
        # When this process ends. Not by atexit, which the workers of a DataLoader don't heed.
        self.end = Finalize(None, _end, (self._process,), exitpriority=0)
        _widen(self._replies)
        try:
            self.ask()
        except _Crash as crash:
            what = f"{sys.executable} did not start as a process for decoding ({crash.status})"
            raise RuntimeError(f"{what}; what is wrong with it should be above") from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, *request: Any, origin: Origin | None = None) -> tuple[dict[str, Any], Array]:
        """(what is told, an array); with no request what the process tells by itself: that it is ready.

        Args:
            origin: of the file that the request is about, for the bytes of it that the process may ask for first.

        Raises:
            _Crash: it died.
        """
        try:
            if request:
                self._requests.write(message(request))
            told = receive(self._replies)
            while origin is not None and "wants" in told:
                self._give(origin, *told["wants"])
                told = receive(self._replies)
            array = np.empty(told.pop("shape"), told.pop("dtype"))
            fill(self._replies, array.data)
        except (EOFError, ConnectionError):
            code = self._process.wait()
            self.end()
            raise _Crash(_SIGNALS.get(-code, f"status {code}")) from None
        except BaseException:  # an interrupt: else what is left of the answer would be taken for the next one
            self.end()
            raise
        if "error" in told:
            name, text = told["error"]
            raise _ERRORS[name](text) if name in _ERRORS else RuntimeError(f"{name}: {text}")
        return told, array

    def _give(self, origin: Origin, offset: int, count: int) -> None:
        try:
            data = origin.read_at(offset, count)
        except VideoReadError as error:
            self._requests.write(message({"error": str(error)}))
            return
        self._requests.write(message({"bytes": len(data)}))
        rest = memoryview(data)
        while rest:  # an unbuffered pipe may take less than it is given
            rest = rest[self._requests.write(rest) :]

    def disown(self) -> None:
        """It belongs to the process that this one was forked from, and must not see this one's end of its pipes."""
        self._requests.close()
        self._replies.close()
        self._process.returncode = 0  # nothing to wait for


_lock = threading.Lock()
_process: _Process | None = None
_numbers = itertools.count()
_dropped: deque[int] = deque()  # numbers of files that nobody holds any more


def _running() -> _Process:
    global _process
    if _process is None or not _process.alive:
        if _process is not None:
            _process.end()
        _process = _Process()
    return _process


def _after_fork() -> None:
    global _process, _lock
    if _process is not None:
        _process.disown()
    _process, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:
        process.kill()


def _widen(pipe: BinaryIO) -> None:
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # the administrator allows less
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
