"""Videos into a library: their features, by any engine."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from timesformer_zoo.engine.mapping import Engine, named_engine
from timesformer_zoo.engine.work import Row
from timesformer_zoo.retrieval.encoder import Encoder, Taking
from timesformer_zoo.retrieval.library import Library
from timesformer_zoo.retrieval.parts import VideoRows
from timesformer_zoo.retrieval.writer import LibraryWriter

__all__ = ["DTYPES", "embed", "embed_each"]

DTYPES = {"float16": torch.float16, "float32": torch.float32}


def embed(
    model: nn.Module | str | os.PathLike[str],
    videos: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    per: str = "window",
    window: float | None = None,
    step: float | None = None,
    clips: int | None = None,
    crops: int | None = None,
    dtype: str = "float16",
    engine: Engine | str = "local",
    device: str | None = None,
    retry_errors: bool = False,
) -> Library:
    """Put features of videos into a library, a folder, which `search` then looks through.

        library = embed("timesformer_tiny_divided.camera_motion", glob("footage/**/*.mp4"), "library")
        for match in search(library, "query.mp4"):
            print(match.similarity, match.path, match.start)

    A feature is what the model's head sees: (D,), the mean over the crops of a clip. Videos that are in the library are
    not done again, unless the size or time of change of the file is another by now: then their old rows go when the new
    ones come. A killed call loses the last seconds, and the same one then does what is left. Rows of videos that are
    gone from the disk stay. A video that can't be read is in the library without rows, with why.

    Args:
        model: a name, as `load_model` takes it; or a TimeSformer, with or without a head.
        videos: paths, as they are to be known in the library.
        out: its folder, made if need be. All calls have the same model and sampling: others are refused.
        per: "window": a row for each window of `predict_windows`; "clip": for each test clip; "video": one, the mean
            of the clips, or of windows where the model goes by these.
        window, step: as `predict_windows` takes them, in seconds.
        clips, crops: test views; None: as the model's `ClipSpec` says.
        dtype: what features are stored as: "float16", half the size, which changes a cosine by 1e-5; or "float32".
        engine: one of `ENGINES`, or a `RayEngine` with what it is to use; then `model` is a name.
        device: where a named model runs; None: the fastest there is.
        retry_errors: try the videos again that could not be read.

    Returns:
        The library.

    Raises:
        OutputError: `out` is another library's: of another model or sampling, or being written; or it is damaged.
        WriteError: `out` can't be written to, or its disk is full. What is there is whole, and the same call goes on.
        ValueError: arguments that make no sense.
    """
    taking = Taking(per, window, step, clips, crops)
    for _ in embed_each(model, videos, out, taking, dtype, engine=engine, device=device, retry_errors=retry_errors):
        pass
    return Library.open(out)


def embed_each(
    model: nn.Module | str | os.PathLike[str],
    videos: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    taking: Taking,
    dtype: str = "float16",
    *,
    engine: Engine | str = "local",
    device: str | None = None,
    retry_errors: bool = False,
) -> Generator[Row, None, dict[str, int]]:
    """As `embed`, video by video: each one's "path" and either "rows", how many, or "error".

    Returns:
        "rows" of all the library, and how many of its videos were there "before", and of these had "changed".
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    engine = named_engine(engine)
    encoder = Encoder(model, taking, device)
    work = Embed(encoder.name, asdict(taking), device, encoder.digest, encoder)
    settings = {**encoder.settings, "dtype": dtype}
    with LibraryWriter(out, encoder.name, settings, _about(), retry_errors=retry_errors) as library:
        paths = (os.fspath(video) for video in videos)
        todo = (path for path in paths if library.claim(path))
        for _, row in engine.run(work, enumerate(todo)):
            found = _decoded(row, encoder.width)
            library.add(VideoRows(found.about, found.times, found.features.to(DTYPES[dtype])))
            yield {**found.about, **({} if "error" in row else {"rows": len(found.features)})}
    return {"rows": library.rows, "before": library.videos, "changed": library.changed}


def _about() -> dict[str, str]:
    """What a library says of the program that made it."""
    return {"package": f"timesformer-zoo {version('timesformer-zoo')}"}


@dataclass(frozen=True)
class Embed:
    """What is done to a video."""

    model: str | None
    taking: dict[str, Any]
    device: str | None
    digest: str  # of the model, which every worker's is to have
    encoder: Encoder | None = None  # in this process

    def __reduce__(self) -> Any:
        if self.model is None:
            raise ValueError("workers of a cluster load the model by its name: give a name or a folder, not the model")
        return Embed, (self.model, self.taking, self.device, self.digest)

    @property
    def settings(self) -> dict[str, Any]:
        """As of every `Work`."""
        return {"verb": "embed", "digest of the model": self.digest, **self.taking}

    def load(self) -> Callable[[str], Mapping[str, Any]]:
        """A video's features as text: engines give plain values."""
        encoder = self.encoder
        if encoder is None:
            encoder = Encoder(self.model or "", Taking(**self.taking), self.device)
            if encoder.digest != self.digest:
                raise ValueError(f"{self.model} is another model on a worker than where the command runs: copy it anew")

        def answer(path: str) -> Row:
            times, rows = encoder(path)
            return {"times": _text(times), "features": _text(rows)}

        return answer


def _text(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().tobytes()).decode()


def _decoded(row: Row, width: int) -> VideoRows:
    about: Row = {name: row[name] for name in ("path", "digest", "error") if name in row}
    times, features = (base64.b64decode(row.get(name, "")) for name in ("times", "features"))
    return VideoRows(
        about,
        torch.from_numpy(np.frombuffer(bytearray(times), np.float64).reshape(-1, 2)),
        torch.from_numpy(np.frombuffer(bytearray(features), np.float32).reshape(-1, width)),
    )
