"""Damaged videos, and what may come of reading one: the right frames, what FFmpeg makes of them, or one clear error.

Two children do the work, so that a hang or an abort in native code costs one file: one reads by `Video`, the other is
the player to compare with, which decodes from the start by PyAV alone.
"""

import contextlib
import math
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from videos import write_video

FRAMES, FPS = 30, 25
KINDS = {
    "b_frames.mp4": {"x264-params": "bframes=3"},
    "index_first.mp4": {"container": {"movflags": "faststart"}},
    "fragmented.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "x264.mov": {},
    "x264.mkv": {"x264-params": "bframes=3"},
    "x265.mkv": {"codec": "libx265", "x265-params": "log-level=none:keyint=12"},
    "vp9.webm": {"codec": "libvpx-vp9", "auto-alt-ref": "1"},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2"},
    "flv1.flv": {"codec": "flv"},
    "x264.flv": {},
    "x264.ts": {},
    "x264.m2ts": {},
    "wmv2.wmv": {"codec": "wmv2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2"},
    "ffv1.nut": {"codec": "ffv1"},
    "pictures.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
SECONDS = 20  # for all of a file's frames, read three times over
MEMORY = 1 << 30  # bytes that reading a file of 30 small pictures may add
FAULTS = ("wrong frame", "hang", "abort", "another exception", "stray line", "memory")
VERDICTS = ("right", "concealed", "error", *FAULTS)
_ALIKE = 2.0  # mean difference, of 255, of pictures by two FFmpegs; two numbers differ by 16 or more


class Verdict(NamedTuple):
    name: str  # of VERDICTS
    detail: str = ""


def write_sources(folder: Path) -> dict[str, Path]:
    """The undamaged videos, by kind."""
    return {kind: write_video(folder / kind, FRAMES, **options) for kind, options in KINDS.items()}


def damage(data: bytes, kind: str, dice: random.Random) -> tuple[str, bytes]:
    """(what was done, the damaged file)."""
    size = len(data)
    ways = ("cut", "flip", "flip header", "zero", "overwrite header", "remove", "double")
    way = dice.choice(ways)
    out = bytearray(data)
    at = dice.randrange(size)
    length = min(size - at, 1 + int(size ** dice.random() / 3))  # as often tens of bytes as thousands
    if way == "cut":
        del out[at:]
    elif way == "flip":
        for _ in range(dice.randint(1, 20)):
            out[dice.randrange(size)] ^= 1 << dice.randrange(8)
    elif way == "flip header":
        for _ in range(dice.randint(1, 8)):
            out[_in_header(data, dice)] ^= 1 << dice.randrange(8)
    elif way == "zero":
        out[at : at + length] = bytes(length)
    elif way == "overwrite header":
        at = _in_header(data, dice)
        length = min(size - at, dice.randint(1, 16))
        out[at : at + length] = dice.choice((b"\0", b"\xff")) * length
    elif way == "remove":
        del out[at : at + length]
    else:
        out[at:at] = data[at : at + length]
    return way, bytes(out)


def _in_header(data: bytes, dice: random.Random) -> int:
    """A place in an MP4's tables; of other files in the first or the last thousand bytes, where theirs are."""
    size = len(data)
    moov = data.find(b"moov")
    if data[4:8] == b"ftyp" and moov > 0:
        return dice.randrange(moov - 4, min(size, moov - 4 + int.from_bytes(data[moov - 4 : moov], "big")))
    return dice.randrange(min(size, 1000)) if dice.random() < 0.7 else dice.randrange(max(0, size - 1000), size)


def damaged_files(sources: dict[str, Path], folder: Path, count: int, seed: int) -> Iterator[tuple[Path, Path]]:
    """(undamaged, damaged), the kinds in turns; each file depends on the seed and its number alone."""
    kinds = list(sources)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        dice = random.Random(f"{seed} {number}")
        way, data = damage(sources[kind].read_bytes(), kind, dice)
        stem, suffix = os.path.splitext(kind)
        path = folder / f"{number:05}_{stem}_{way.replace(' ', '_')}{suffix}"
        path.write_bytes(data)
        yield sources[kind], path


class Judge:
    """Reads damaged files and says what came of it. Of several threads each needs its own."""

    def __init__(self) -> None:
        self._reader, self._player = _Child(_reader), _Child(_player)
        self._whole: dict[Path, list[np.ndarray]] = {}

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.end()
        self._player.end()

    def __call__(self, whole: Path, path: Path) -> Verdict:
        if whole not in self._whole:
            played = self._player.ask((whole,))
            assert isinstance(played, _Played), played
            self._whole[whole] = [picture for _, picture in played.pictures]
        expected = self._whole[whole]
        # With one thread, as in a DataLoader's workers, decoders have other habits than with several.
        read = self._reader.ask((path, expected, sum(path.name.encode()) % 2))
        if isinstance(read, Verdict):
            return read
        if read.fault:
            return read.fault
        concealed = None
        if read.others:
            played = self._player.ask((path,))
            for index, seconds, picture in read.others:
                at_that_time = expected[round(seconds * FPS) :][:1]  # another number, where its neighbour is missing
                if any(difference(picture, other) <= _ALIKE for other in at_that_time):
                    continue
                if isinstance(played, Verdict):
                    if not any(difference(picture, other) <= _ALIKE for other in expected):
                        continue
                    return Verdict("wrong frame", f"{index}; the player: {played}")
                if not played.shows(index, picture):
                    if any(difference(picture, other) <= _ALIKE for other in expected):
                        return Verdict("wrong frame", f"{index} of {read.num_frames}, which the player does not show")
                    concealed = Verdict("concealed", f"{index} of {read.num_frames}")
        if concealed:
            return concealed
        return Verdict("error", read.error) if read.error else Verdict("right")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures, the mean over all values."""
    return math.inf if a.shape != b.shape else float(np.abs(a.astype(np.int16) - b).mean())


class _Read(NamedTuple):
    num_frames: int = 0
    error: str = ""  # the first VideoReadError
    others: tuple[tuple[int, float, np.ndarray], ...] = ()  # (index, s, frame) of those not as in the undamaged file
    fault: Verdict | None = None


class _Played(NamedTuple):
    """A file's pictures with their times, decoded by slice threads and by frame threads; the times of its packets."""

    pictures: list[tuple[int | None, np.ndarray]]
    again: list[tuple[int | None, np.ndarray]]
    times: list[int]

    def shows(self, index: int, picture: np.ndarray) -> bool:
        """As the picture of that number, or at the time of the packet of that number, in the order shown."""
        for pictures in (self.pictures, self.again):
            at = [shown for time, shown in pictures if index < len(self.times) and time == self.times[index]]
            if any(difference(picture, shown) <= _ALIKE for shown in [*at, *(p for _, p in pictures[index:][:1])]):
                return True
        return False


def _reader() -> Any:
    """In its own process: reads all frames by index, in order, in reverse, and some each by a `Video` of its own."""
    import torch

    from timesformer_zoo import Video, VideoReadError

    torch.set_num_threads(1)
    output = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the process
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # the machine is to survive, too

    def read(path: Path, expected: list[np.ndarray], threads: int) -> _Read:
        errors: list[str] = []
        others: list[tuple[int, float, np.ndarray]] = []

        def one(video: Video, index: int) -> None:
            try:
                frame = video.frames([index])[0].numpy()
            except VideoReadError as error:
                errors.append(str(error))
                return
            if index < len(expected) and difference(frame, expected[index]) <= _ALIKE:
                return
            if not any(i == index and np.array_equal(frame, other) for i, _, other in others):
                others.append((index, float(video.times[index]), frame))

        try:
            video = Video(path, num_threads=threads)
        except VideoReadError as error:
            return _Read(0, str(error))
        indices = range(min(video.num_frames, 2 * FRAMES))
        for index in indices:
            one(video, index)
        for index in reversed(indices):
            one(video, index)
        for index in {len(indices) // 3, 2 * len(indices) // 3, len(indices) - 1}:
            one(Video(path, num_threads=threads), index)
        video.close()
        bad = [error for error in errors if "\n" in error or not error.startswith(str(path))]
        fault = Verdict("another exception", f"not one line: {bad[0]}") if bad else None
        return _Read(video.num_frames, errors[0] if errors else "", tuple(others), fault)

    def guarded(path: Path, expected: list[np.ndarray], threads: int) -> _Read:
        before = _peak_memory()
        try:
            result = read(path, expected, threads)
        except Exception as error:
            result = _Read(fault=Verdict("another exception", f"{type(error).__name__}: {error}"))
        more = _peak_memory() - before
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        line = output.read().decode(errors="replace").strip()
        output.seek(0)
        output.truncate()
        if result.fault is None and more > MEMORY:
            return result._replace(fault=Verdict("memory", f"{more >> 20} MiB"))
        if result.fault is None and line:
            return result._replace(fault=Verdict("stray line", line[:300]))
        return result

    return guarded


def _peak_memory() -> int:
    """Of this process, since the last call or not; bytes. 0 where Linux does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _player() -> Any:
    """In its own process: decodes a file from its start."""
    import av

    def pictures(path: Path, threads: str) -> list[tuple[int | None, np.ndarray]]:
        found: list[tuple[int | None, np.ndarray]] = []
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.thread_type = threads
            for packet in container.demux(stream):
                with contextlib.suppress(av.FFmpegError):
                    for frame in packet.decode():
                        if len(found) < 4 * FRAMES:
                            found.append((frame.pts, frame.to_ndarray(format="rgb24")))
        return found

    def play(path: Path) -> _Played:
        with av.open(str(path), metadata_errors="replace") as container:
            packets = container.demux(container.streams.best("video"))
            times = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
        return _Played(pictures(path, "SLICE"), pictures(path, "FRAME"), times)

    return play


class _Child:
    """A process that answers questions one after another, and is replaced if it hangs or dies."""

    def __init__(self, role: Any) -> None:
        self._role = role
        self._process: Any = None

    def ask(self, question: tuple[Any, ...]) -> Any:
        """The answer, or a Verdict if there is none."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(self._role, theirs), daemon=True)
            self._process.start()
            theirs.close()
            self._pipe.recv()  # it is ready
        try:
            self._pipe.send(question)
            if self._pipe.poll(SECONDS):
                answer = self._pipe.recv()
                if isinstance(answer, Exception):
                    return Verdict("another exception", f"{type(answer).__name__}: {answer}")
                return answer
            verdict = Verdict("hang", f"more than {SECONDS} s")
        except (EOFError, OSError):
            self._process.join(SECONDS)
            verdict = Verdict("abort", f"exit status {self._process.exitcode}")
        self.end()
        return verdict

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = None


def _serve(role: Any, pipe: Any) -> None:
    answer = role()
    pipe.send("ready")
    while True:
        question = pipe.recv()
        try:
            reply = answer(*question)
        except Exception as error:
            reply = RuntimeError(f"{type(error).__name__}: {error}")
        pipe.send(reply)
