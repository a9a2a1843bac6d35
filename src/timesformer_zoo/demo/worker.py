"""The process that looks at videos for the page: a crash or a hang ends that process, and one upload.

It loads the models once, at its start; should it end, the next video starts another. What crosses are lines of JSON.
It looks at one video at a time: the page's queue lets the others wait. A video that nobody follows any more, as its
reader has closed the page, is given up when the next one comes.
"""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, cast

from timesformer_zoo.demo.look import Limits, Looker, Update, in_words
from timesformer_zoo.errors import TimesformerZooError

__all__ = ["Worker"]


class Worker:
    """What looks at videos, elsewhere. Arguments and errors are those of `Looker`.

    Raises:
        TimesformerZooError, ValueError: its models or its library can't be had.
    """

    def __init__(self, models: Sequence[str], library: str | None, device: str | None, limits: Limits) -> None:
        self.models, self.library, self.limits = tuple(dict.fromkeys(models)), library, limits
        self._options = (self.models, library, device, limits)
        self._process: Any = None
        self._pipe: Connection | None = None
        self._busy = False
        self._start()

    def look(self, path: str, model_name: str) -> Iterator[Update]:
        """As `Looker.look`, but no longer than the limits say, and what failed is no exception: an update's "error"."""
        try:
            pipe = self._ready()
            self._busy = True
            pipe.send_bytes(json.dumps([path, model_name]).encode())
            until = time.monotonic() + self.limits.seconds
            while pipe.poll(max(0.0, until - time.monotonic())):
                update = json.loads(pipe.recv_bytes())
                if update is None:
                    self._busy = False
                    return
                yield update
            self.close()
            problem = f"it took longer than {self.limits.seconds:g} s, and was given up; try a shorter video"
        except (EOFError, OSError):  # it died; by the system, if it took too much memory
            self.close()
            problem = "it crashed what looks at it; the video may be damaged, or too large for the memory"
        except (TimesformerZooError, ValueError) as error:  # it could not start again
            problem = f"nothing can look at it: {error}"
        yield {"error": in_words(ValueError(f"{path}: {problem}"), path)}

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._busy = False

    def _ready(self) -> Connection:
        if self._busy:  # with a video that nobody follows any more
            self.close()
        if self._pipe is None or not self._process.is_alive():
            self._start()
        return cast(Connection, self._pipe)

    def _start(self) -> None:
        self.close()
        context = get_context("spawn")  # this process has threads: a fork of it might hang
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *self._options), daemon=True)
        self._process.start()
        theirs.close()
        try:
            told = json.loads(self._pipe.recv_bytes())
        except EOFError:
            self.close()
            raise TimesformerZooError("the process that looks at videos did not start; why should be above") from None
        if told:
            self.close()
            raise (ValueError if told["wrong use"] else TimesformerZooError)(told["error"])


# ---- in the other process ----


def serve(pipe: Connection, *options: Any) -> None:
    """Look at the videos that are named, until nobody is left who could name one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the page's process, which ends this one

    def tell(message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    try:
        looker = Looker(*options)
    except (TimesformerZooError, ValueError) as error:
        tell({"error": str(error), "wrong use": not isinstance(error, TimesformerZooError)})
        return
    tell(None)
    with suppress(EOFError, ConnectionError):
        while True:
            path, model_name = json.loads(pipe.recv_bytes())
            try:
                for update in looker.look(path, model_name):
                    tell(update)
            except (TimesformerZooError, ValueError) as error:
                tell({"error": in_words(error, path)})
            except ConnectionError:
                raise
            except Exception as error:  # of a stranger's file, so that the next one can be looked at
                traceback.print_exc()
                first, *_ = str(error).splitlines() or [""]
                tell({"error": in_words(ValueError(f"it failed, {type(error).__name__}: {first}"), path)})
            tell(None)
