"""What tests have done to videos, here and by the workers of a cluster, which import this module too."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer_zoo import VideoReadError, load_model, predict

Answer = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Traced:
    """A model's prediction of each video, and in `log` a line of who began it; some names of files bode ill."""

    model: str
    log: str
    seconds: float = 0.0  # that a video takes at least

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": self.model}

    def load(self) -> Answer:
        model = load_model(self.model)

        def answer(path: str) -> dict[str, Any]:
            note(self.log, f"{os.getpid()} {path}")
            time.sleep(self.seconds)
            misfortune(path)
            return predict(model, [path])[0].to_dict()

        return answer


@dataclass(frozen=True)
class Length:
    """Of the path; no video is read. `fails` as the load or a video of that name does."""

    log: str = ""
    unit: int = 1
    fails: str = ""
    seconds: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        return {"unit": self.unit}

    def load(self) -> Answer:
        misfortune(self.fails)

        def answer(path: str) -> dict[str, Any]:
            note(self.log, path)
            time.sleep(self.seconds)
            misfortune(path)
            return {"length": len(path) * self.unit}

        return answer


def misfortune(path: str) -> None:
    name = Path(path).name
    if name.startswith("unreadable"):
        raise VideoReadError(f"{path}: no video")
    if name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("hanging"):
        time.sleep(1000)
    if name.startswith("too_large"):
        raise RuntimeError("out of memory")
    if name.startswith("nonsense"):
        raise ValueError("the call makes no sense")


def note(log: str, line: str) -> None:
    if log:
        with open(log, "a") as file:
            file.write(line + "\n")
