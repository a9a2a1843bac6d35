"""Features of videos, computed once and kept on the disk: what a head sees of each test view or training clip.

The cache is a folder of safetensors files, each written whole, with a tensor (V, D) for each video under a key that
follows from the video file: its path, size, time of change, and the part of it that the sample is. The folder's own
name follows from all else that a feature depends on: the backbone's weights and arguments, how clips are taken, the
precision. So whatever changes is computed anew, and an interrupted call goes on.

Legend: B videos, V views, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file

from timesformer_zoo.data.batches import OnError, VideoDataset, make_loader
from timesformer_zoo.data.order import Draw, shares
from timesformer_zoo.data.videos import Sample, VideoList
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import inference
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.origin import Origin, file_facts
from timesformer_zoo.video.remote import shown
from timesformer_zoo.video.transform import normalize_clips
from timesformer_zoo.weights.digest import feature_args, weights_digest
from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["cached_features", "rows_of"]

BATCH = 8  # views that run at once
VIDEOS_A_FILE = 256


def cached_features(
    model: TimeSformer,
    videos: VideoList,
    folder: Path,
    accelerator: Accelerator,
    *,
    augmented: int = 0,
    seed: int = 0,
    workers: int = 0,
    on_error: OnError = "fail",
    progress: bool = True,
) -> tuple[dict[int, torch.Tensor], dict[str, str]]:
    """What the model's head sees of each video, from the cache or computed now. Called by all processes.

    Args:
        model: on the accelerator's device, with an `nn.Identity` as its head.
        folder: of the caches; this one's is in it.
        augmented: 0: the test views; from 1: one random training clip of each video, another for each number.
        seed: of these.

    Returns:
        Sample -> (V, D) float32, on the CPU; and path -> why it could not be read.
    """
    place = folder / _key(model, accelerator, augmented, seed)
    keys = [_sample_key(videos, sample) for sample in videos.samples]
    known = _read(place, set(keys))
    todo = [i for i, key in enumerate(keys) if key not in known]
    skipped: dict[int, str] = {}
    if todo or videos.missing:  # which the data set complains of
        dataset = VideoDataset(videos, model, training=augmented > 0, seed=seed, on_error=on_error)
    if todo:
        spec = dataset.spec
        views = 1 if augmented else spec.clips * spec.crops
        rank, world = accelerator.process_index, accelerator.num_processes
        mine = [[todo[j] for j in batch] for batch in shares(len(todo), max(1, BATCH // views), rank, world)]
        wanted: list[list[Any]] = [[Draw(i, augmented) for i in batch] for batch in mine]
        console = Console(stderr=True)
        loader = make_loader(dataset, wanted, workers=workers)
        bar = progress and console.is_terminal and rank == 0
        fresh: dict[str, torch.Tensor] = {}
        with inference(model), accelerator.autocast():
            for batch in track(loader, "features", total=len(wanted), console=console, disable=not bar):
                skipped.update(batch.skipped)
                if len(batch.indices):
                    rows = _features(model, batch.clips.flatten(0, 1), accelerator.device)
                    for i, values in zip(batch.indices.tolist(), rows.split(views), strict=True):
                        fresh[keys[i]] = values.clone()
                if len(fresh) >= VIDEOS_A_FILE:
                    _write(place, fresh)
                    fresh = {}
        if fresh:
            _write(place, fresh)
        accelerator.wait_for_everyone()
        known = _read(place, set(keys))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        for reasons in gather_object([skipped]):
            skipped.update(reasons)
    found = {i: known[key] for i, key in enumerate(keys) if key in known}
    return found, {shown(videos.samples[i].path): reason for i, reason in skipped.items()}


def _features(model: TimeSformer, clips: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(N, C, T, H, W) -> (N, D) float32, on the CPU."""
    weight = next(model.parameters())
    rows: list[torch.Tensor] = []
    for part in clips.split(BATCH):
        part = part.to(device, non_blocking=True)
        part = normalize_clips(part, model) if part.dtype == torch.uint8 else part  # test views are floats already
        rows.append(model(part.to(weight.dtype)).float().cpu())
    return torch.cat(rows)


def _key(model: TimeSformer, accelerator: Accelerator, augmented: int, seed: int) -> str:
    """Of all that features depend on besides the videos."""
    views = {name: value for name, value in asdict(clip_spec(model)).items() if name not in ("labels", "fuse")}
    about = [
        weights_digest(model, head=False),
        feature_args(model),
        views,
        accelerator.mixed_precision,
        augmented,
        seed if augmented else None,
    ]
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _sample_key(videos: VideoList, sample: Sample) -> str:
    """Of one video as it is now: its file's facts, its shard's, or the bytes of what is no file.

    Of what lies behind an address, its name is all there is.
    """
    place: Any = videos.readable(sample)
    if isinstance(place, Origin):
        place = hashlib.blake2b(place.read_at(0, place.size)).hexdigest()
    facts = file_facts(os.fspath(place))
    about = repr((os.path.abspath(place) if facts else place, facts, sample.start, sample.end))
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def _read(place: Path, keys: set[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(place.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found.update((key, file.get_tensor(key)) for key in keys.intersection(file.keys()) - found.keys())
    return found


def _write(place: Path, features: dict[str, torch.Tensor]) -> None:
    name = hashlib.blake2b("".join(sorted(features)).encode(), digest_size=8).hexdigest()
    with whole_file(place / f"{name}.safetensors") as partial:
        save_file(features, partial)


def rows_of(features: Iterable[dict[int, torch.Tensor]], targets: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, D) and targets (N,) of all views of all samples, one below the other."""
    parts = [(values, sample) for some in features for sample, values in sorted(some.items())]
    samples = torch.cat([torch.full((len(values),), sample) for values, sample in parts])
    return torch.cat([values for values, _ in parts]), torch.tensor(targets)[samples]
