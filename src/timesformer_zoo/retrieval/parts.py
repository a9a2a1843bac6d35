"""A library on the disk: parts, files of safetensors that never change, and library.json, which says which count.

A part has the tensors `features` (N, D), `norms` (N,) float32, `times` (N, 2) float64 in seconds, `video` (N,) int32:
the place of a row's video in "videos" of the JSON that is the file's metadata "library". The rows of a video follow
each other. A part's name follows from its content, so that a new one replaces none, and library.json is
replaced at once: from then on the new parts count, and the old ones are removed.

Legend: N rows, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from timesformer_zoo.errors import OutputError
from timesformer_zoo.writing import whole_file, write_json

__all__ = ["FORMAT", "Manifest", "Part", "VideoRows", "read_manifest", "read_part", "write_manifest", "write_part"]

FORMAT = "timesformer-zoo library 1"
MANIFEST = "library.json"
_TENSORS = ("features", "norms", "times", "video")


@dataclass(frozen=True)
class VideoRows:
    """What a library has of one video."""

    about: dict[str, Any]  # "path", of an address also "digest"; "version": of its file; "error", if it can't be read
    times: torch.Tensor  # (N, 2)
    features: torch.Tensor  # (N, D)


@dataclass(frozen=True)
class Part:
    """One file; its tensors are mapped from it, not read."""

    path: Path
    videos: list[dict[str, Any]]
    features: torch.Tensor
    norms: torch.Tensor
    times: torch.Tensor
    video: torch.Tensor

    def rows(self) -> Iterable[VideoRows]:
        """Video by video."""
        counts = torch.bincount(self.video.long(), minlength=len(self.videos)).tolist()
        pieces = zip(self.videos, self.times.split(counts), self.features.split(counts), strict=True)
        return (VideoRows(about, times, features) for about, times, features in pieces)


@dataclass(frozen=True)
class Manifest:
    """library.json."""

    model: str | None  # its name when the library was made
    settings: dict[str, Any]  # on which features depend
    about: dict[str, Any]  # for people and other programs
    parts: list[str]


def read_manifest(folder: Path) -> Manifest | None:
    """None: there is none. Raises OutputError: it is damaged, or another program's."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise OutputError(
                f"{path}: its format is {content['format']!r}, expected {FORMAT!r}; choose another folder"
            )
        return Manifest(content["model"], content["settings"], content["about"], list(content["parts"]))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise OutputError(f"{folder}: this is a file, expected the folder of a library") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged ({type(error).__name__}: {error}); choose another folder") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """At once. Raises WriteError."""
    about = {"model": manifest.model, "about": manifest.about, "settings": manifest.settings, "parts": manifest.parts}
    write_json(folder / MANIFEST, {"format": FORMAT, **about})


def read_part(path: Path, width: int) -> Part:
    """Raises OutputError: it is not there, truncated, or not of this library."""
    again = "remove it and run embed again: its videos are then done anew"
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            videos = json.loads((file.metadata() or {})["library"])["videos"]
    except FileNotFoundError:
        raise OutputError(f"{path}: this part of the library is missing; run embed again for its videos") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise OutputError(f"{path}: this part of the library is damaged ({error}); {again}") from None
    part = Part(path, videos, **tensors)
    count = len(part.features)
    shapes = [part.features.shape, part.norms.shape, part.times.shape, part.video.shape]
    if shapes != [(count, width), (count,), (count, 2), (count,)]:
        raise OutputError(f"{path}: its rows are of another width than {width}, the library's; {again}")
    return part


def write_part(folder: Path, videos: Sequence[VideoRows], about: Mapping[str, Any]) -> str:
    """Write a file with these and return its name. Raises WriteError."""
    features = torch.cat([video.features for video in videos])
    counts = torch.tensor([len(video.features) for video in videos])
    tensors = {
        "features": features.contiguous(),
        "norms": features.float().norm(dim=1),
        "times": torch.cat([video.times for video in videos]).contiguous(),
        "video": torch.arange(len(videos), dtype=torch.int32).repeat_interleave(counts),
    }
    # One entry: safetensors gives several no order, and equal content is to have equal bytes.
    content = save(tensors, {"library": json.dumps({**about, "videos": [video.about for video in videos]})})
    name = f"part-{hashlib.blake2b(content, digest_size=8).hexdigest()}.safetensors"
    with whole_file(folder / name, len(content)) as partial:
        partial.write_bytes(content)
    return name
