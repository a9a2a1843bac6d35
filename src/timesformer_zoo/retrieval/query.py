"""A video as the question: where in a library is something like it?"""

from __future__ import annotations

import os

import torch
from torch import nn

from timesformer_zoo.errors import OutputError
from timesformer_zoo.retrieval.encoder import Encoder, Taking
from timesformer_zoo.retrieval.library import Library, Match
from timesformer_zoo.video.origin import Readable

__all__ = ["search"]


def search(
    library: Library | str | os.PathLike[str],
    query: Readable | torch.Tensor,
    topk: int = 10,
    *,
    start: float | None = None,
    end: float | None = None,
    one_per_video: bool = False,
    index: str = "exact",
    model: nn.Module | str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> list[Match]:
    """What in a library is most like a video, or like a part of it.

        for match in search("library", "holiday.mp4", start=12, end=14):
            print(f"{match.similarity:.3f}  {match.path}  {match.start}")

    The query is embedded as the library was, by its model. Where it has several windows or clips, the mean of these is
    asked for: give a part to ask for a moment.

    Args:
        library: one that is open, or its folder.
        query: a video, as `open_video` takes it; or a feature (D,).
        topk, one_per_video, index: as `Library.search` has them.
        start, end: of the part, in seconds.
        model: the model itself, or where it is now; None: by the name that the library has. Its weights and sampling
            must be the library's.
        device: where a named model runs; None: the fastest there is.

    Raises:
        OutputError: no library, a damaged or an empty one; or its model is another by now.
        VideoReadError: the query can't be read, or has no such part.
        ValueError: arguments that make no sense.
    """
    library = library if isinstance(library, Library) else Library.open(library)
    if isinstance(query, torch.Tensor):
        if start is not None or end is not None:
            raise ValueError("start and end are of a video; the query is a feature")
        return library.search(query, topk, one_per_video=one_per_video, index=index)
    feature = embed_query(library, query, start, end, model, device) if len(library) else torch.zeros(library.width)
    return library.search(feature, topk, one_per_video=one_per_video, index=index)


def embed_query(
    library: Library,
    query: Readable,
    start: float | None = None,
    end: float | None = None,
    model: nn.Module | str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> torch.Tensor:
    """A video's feature (D,), comparable with the library's: the mean direction of its rows."""
    given = library.model if model is None else model
    if given is None:
        raise ValueError(f"{library.folder} does not say which model made it, as it had no name: give the model")
    settings = library.settings
    clips = None if settings["windows"] else settings["sampling"]["clips"]
    taking = Taking(settings["per"], settings["window"], settings["step"], clips, settings["sampling"]["crops"])
    encoder = Encoder(given, taking, device)
    for name, value in encoder.settings.items():
        if settings.get(name) != value:
            raise OutputError(
                f"{library.folder} was made by another model: {name} {settings.get(name)!r}, not {value!r}; give the "
                "model that made it, or embed the videos anew"
            )
    rows = encoder(query, start, end).rows
    return torch.nn.functional.normalize(rows, dim=1).mean(0)
