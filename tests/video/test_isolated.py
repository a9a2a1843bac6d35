"""Files read in another process: the same frames, and what ends that process ends one file.

No file is known that crashes a decoder. So the process is started here with a fault built in: at a file whose name says
so, it reads memory that is not there, aborts, exits or is killed.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import Any
from unittest import mock

import pytest
import torch
from footage import video_list
from small_models import tiny
from videos import number_of, numbers_of, write_video

from timesformer_zoo import (
    ClipSpec,
    Item,
    Video,
    VideoDataset,
    VideoReadError,
    load_views,
    make_loader,
    open_video,
    predict,
    predict_windows,
    read_clip,
    save_pretrained,
)
from timesformer_zoo.video import isolated
from timesformer_zoo_cli import main

SPEC = ClipSpec(num_frames=4, stride=4, size=32, crops=1)
FAULTY = isolated._START.replace(
    "serve()\n",
    """
import ctypes, os, signal, time
from timesformer_zoo.video import source

class Faulty(source.FileSource):
    def __init__(self, path, **options):
        self.path, self.name = path, os.path.basename(path)
        if "at opening" in self.name:
            os.abort()
        if "slow" in self.name:
            time.sleep(60)
        super().__init__(path, **options)

    def stream(self, places, *pixels):
        if "segfault" in self.name:
            ctypes.string_at(0)
        if "killed" in self.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "once" in self.name and not os.path.exists(self.path + ".crashed"):
            open(self.path + ".crashed", "w").close()
            os.abort()
        if "exit" in self.name:
            os._exit(3)
        return super().stream(places, *pixels)

serving.FileSource = Faulty
serving.serve()
""",
).replace("from timesformer_zoo.video.serving import serve", "from timesformer_zoo.video import serving")

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files may crash the process; afterwards the next one is as always."""
    if isolated._process is not None:
        isolated._process.end()
    monkeypatch.setattr(isolated, "_START", FAULTY)
    yield
    if isolated._process is not None:
        isolated._process.end()


@pytest.fixture
def crashing(video: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(copy(video, tmp_path / f"{name}.mp4"))


def children(pid: int | str = "self") -> dict[int, str]:
    """Process -> state of all that a process has started and not yet seen the end of."""
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
    return found


def readers(pid: int | str = "self") -> set[int]:
    """Those of them that read files for it; other tests may have started others."""
    return {child for child in children(pid) if b"timesformer_zoo.video" in Path(f"/proc/{child}/cmdline").read_bytes()}


def page_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def ends(pid: int, seconds: float) -> bool:
    """Whether a process does so in time; who takes note of it, if anyone, does not count."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# ---- as in this process ----


@pytest.mark.parametrize(
    ("name", "options"),
    [("plain.mp4", {}), ("turned.mp4", {"rotation": 90}), ("counted.avi", {"x264-params": "bframes=3"})],
)
def test_frames_and_facts_are_those_read_here(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 30, **options)
    here, there = Video(path), Video(path, isolated=True)
    assert (there.num_frames, there.fps, there.duration) == (here.num_frames, here.fps, here.duration)
    assert (there.height, there.width) == (here.height, here.width)
    assert there.times.tolist() == here.times.tolist()
    for indices in ([3, 20, 3, 29], [0]):
        assert torch.equal(there.frames(indices), here.frames(indices))
    there.close()
    there.close()
    assert torch.equal(there.frames([7]), here.frames([7]))
    assert torch.equal(load_views(path, SPEC, isolated=True), load_views(path, SPEC))
    assert torch.equal(read_clip(path, SPEC, isolated=True), read_clip(path, SPEC))


def test_options_are_passed_on(video: Path) -> None:
    for options in ({"decoder": "decord"}, {"decoder": "pyav", "count": True}):
        assert numbers_of(Video(video, **options, isolated=True).frames([5])) == [5]
    with pytest.raises(VideoReadError, match="decord would not give exactly the frames"):  # of an index by counting
        Video(video, decoder="decord", count=True, isolated=True)
    with pytest.raises(ValueError, match="expected one of auto, decord, pyav"):
        Video(video, decoder="ffmpeg", isolated=True)  # type: ignore[arg-type]


def test_errors_name_the_file_as_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "ä b.mp4", 20)
    Path("empty.mp4").touch()
    with pytest.raises(VideoReadError, match=r"^empty.mp4: the file is empty; download or copy it again$"):
        open_video("empty.mp4", isolated=True)
    video = open_video("ä b.mp4", isolated=True)
    monkeypatch.chdir("/")
    assert numbers_of(video.frames([3])) == [3]


def test_a_folder_of_frames_is_read_here(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match="no pictures in this folder"):
        open_video(tmp_path, isolated=True)


@linux
def test_all_files_share_one_process(video: Path) -> None:
    videos = [Video(video, isolated=True) for _ in range(3)]
    before = readers()
    streams = zip(*(video.stream(range(i, 20, 5)) for i, video in enumerate(videos)), strict=True)
    assert [[number_of(frame) for frame in frames] for frames in streams] == [[i, i + 1, i + 2] for i in (0, 5, 10, 15)]
    assert len(before) == 1
    assert readers() == before


@linux
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_the_process_does_not_ask_for_the_same_memory_with_each_file(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", height=256, width=340)
    counts = []
    for _ in range(6):
        load_views(film, SPEC, num_threads=1, isolated=True)
        (process,) = readers()
        counts.append(page_faults(process))
    assert counts[-1] - counts[-3] < 100  # else some hundreds with each


def test_threads_may_read_at_once(video: Path) -> None:
    numbers: dict[int, list[int]] = {}

    def read(first: int) -> None:
        numbers[first] = numbers_of(Video(video, isolated=True).frames(range(first, 60, 7)))

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == {first: list(range(first, 60, 7)) for first in range(4)}


# ---- a crash ----


@pytest.mark.parametrize(
    ("name", "status", "advice"),
    [
        ("segfault", "SIGSEGV", "the file is damaged: download it again or re-encode it"),
        ("abort at opening", "SIGABRT", "the file is damaged: download it again or re-encode it"),
        ("exit", "status 3", "the file is damaged: download it again or re-encode it"),
        ("killed", "SIGKILL", "check that the memory is large enough for it"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_a_crash_is_the_files_error(name: str, status: str, advice: str, video: Path, crashing: Any) -> None:
    other = Video(video, isolated=True)
    frames = other.stream([2, 40])
    assert number_of(next(frames)) == 2
    bad = crashing(name)
    said = rf"^{bad}: it crashed the decoder \(its process ended with {status}\); {advice}$"
    with pytest.raises(VideoReadError, match=said) as caught:
        Video(bad, isolated=True).frames([7])
    assert "\n" not in str(caught.value)
    assert number_of(next(frames)) == 40  # which was open all along
    assert numbers_of(Video(video, isolated=True).frames([9])) == [9]
    if sys.platform == "linux":
        assert "Z" not in children().values()


@linux
def test_a_process_killed_once_is_replaced_and_nothing_lost(video: Path) -> None:
    file = Video(video, isolated=True)
    for number in (3, 30):
        (before,) = readers()
        os.kill(before, signal.SIGKILL)
        assert numbers_of(file.frames([number])) == [number]
        (after,) = readers()
        assert after != before


@pytest.mark.usefixtures("faulty")
def test_a_crash_that_does_not_come_again_costs_nothing(video: Path, crashing: Any) -> None:
    """It may have been another file's, on which a decoder's threads worked ahead."""
    other = Video(video, isolated=True)
    assert numbers_of(Video(crashing("once"), isolated=True).frames([7, 2])) == [7, 2]
    assert numbers_of(other.frames([5])) == [5]


def test_a_process_that_does_not_start_is_no_files_error(video: Path, faulty: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(isolated, "_START", "import sys; sys.exit(7)")
    with pytest.raises(RuntimeError, match=r"did not start as a process for decoding \(status 7\)"):
        Video(video, isolated=True)


def test_what_native_code_prints_is_no_answer(video: Path, faulty: None, monkeypatch: Any) -> None:
    noisy = "import ctypes; serving.FileSource = lambda *a, **b: (ctypes.CDLL(None).puts(b'hm'), Faulty(*a, **b))[1]\n"
    monkeypatch.setattr(isolated, "_START", FAULTY.replace("serving.serve()", noisy + "serving.serve()"))
    assert numbers_of(Video(video, isolated=True).frames([3, 8])) == [3, 8]


def test_an_interrupt_leaves_no_half_answer(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Video(video, isolated=True)
    with monkeypatch.context() as patch:
        patch.setattr(isolated, "receive", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            file.frames([3])
    assert numbers_of(file.frames([20, 4])) == [20, 4]


# ---- who reads so ----


class FaultyDataset(VideoDataset):
    """Its workers have the fault, too, however they are started."""

    def __getitem__(self, draw: Any) -> Item:
        with mock.patch.object(isolated, "_START", FAULTY):
            return super().__getitem__(draw)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("faulty")
def test_a_loader_lists_the_file_and_goes_on(workers: int, training: bool, video: Path, crashing: Any) -> None:
    bad = crashing("segfault")
    videos = video_list([video, bad, video, crashing("abort at opening"), video], [0, 1, 2, 0, 1])
    dataset = FaultyDataset(videos, SPEC, training=training, on_error="skip")
    batches = list(make_loader(dataset, [[0, 1], [2, 3], [4]], workers=workers))
    assert [batch.indices.tolist() for batch in batches] == [[0], [2], [4]]
    assert [index for batch in batches for index, _ in batch.skipped] == [1, 3]
    assert batches[0].skipped[0][1].startswith(f"{bad}: it crashed the decoder (its process ended with SIGSEGV)")
    if not training:
        assert all(torch.equal(batch.clips[0], load_views(video, SPEC)) for batch in batches)


@pytest.mark.usefixtures("faulty")
def test_a_data_set_that_is_to_fail_does(video: Path, crashing: Any) -> None:
    dataset = FaultyDataset(video_list([video, crashing("segfault")], [0, 1]), SPEC)
    assert dataset[0].clips is not None
    with pytest.raises(VideoReadError, match="crashed the decoder"):
        dataset[1]


@pytest.mark.usefixtures("faulty")
def test_predict_goes_on_with_the_next_file(video: Path, crashing: Any) -> None:
    model, errors = tiny(clip={"stride": 4, "crops": 1}), []
    bad = crashing("segfault")
    predictions = predict(model, [video, bad, video], errors=errors)
    assert predictions == [predict(model, video)] * 2
    assert [str(error).partition(": ")[0] for error in errors] == [str(bad)]
    with pytest.raises(VideoReadError, match="crashed the decoder"):
        list(predict_windows(model, bad))


@pytest.mark.parametrize("windows", ["--windows", "--no-windows"])
@pytest.mark.usefixtures("faulty")
def test_classify_goes_on_with_the_next_file(
    windows: str, video: Path, crashing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_pretrained(tiny(clip={"stride": 4, "crops": 1}), tmp_path / "model")
    bad = crashing("segfault")
    files = [str(video), str(bad), str(video)]
    assert main(["classify", *files, "--model", str(model), "--device", "cpu", windows]) == 1
    out, err = capsys.readouterr()
    assert sum(line.startswith(f"{video}: ") for line in out.splitlines()) == 2
    assert err.startswith(f"timesformer-zoo classify: {bad}: ")
    assert "it crashed the decoder (its process ended with SIGSEGV);" in err
    assert err.count("\n") == 1


# ---- lives and dies with its parent ----

PARENT = """
import os, sys, time
from timesformer_zoo import Video
from timesformer_zoo.video import isolated

isolated._START = sys.argv[3]
video = Video(sys.argv[1], isolated=True)
video.frames([3])
pid = os.fork()
if not pid:  # has a process of its own, and leaves the parent's alone
    assert video.frames([5]).shape == (1, 64, 96, 3)
    print("forked", flush=True)
    time.sleep(60)
video.frames([7])
print(pid, flush=True)
Video(sys.argv[2], isolated=True)
"""


@linux
def test_it_ends_with_its_parent_and_not_with_a_fork(video: Path, crashing: Any) -> None:
    command = [sys.executable, "-c", PARENT, str(video), str(crashing("slow")), FAULTY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        fork = int((lines - {"forked"}).pop())
        try:
            (decoder,) = readers(parent.pid) - {fork}
            (forks,) = readers(fork)
            time.sleep(0.1)
            parent.kill()
            parent.wait()
            assert ends(decoder, 1)  # though it is at work, and the fork lives on
            assert not ends(forks, 0.1)
        finally:
            parent.kill()
            os.kill(fork, signal.SIGKILL)
    assert ends(forks, 1)


@linux
def test_a_loaders_workers_take_theirs_with_them(video: Path) -> None:
    dataset = VideoDataset(video_list([video] * 2, [0, 1]), SPEC)
    before = set(children())
    decoders: set[int] = set()
    for _ in make_loader(dataset, [[0], [1], [0], [1]], workers=2):
        decoders |= {child for worker in set(children()) - before for child in children(worker)}
    assert decoders
    assert all(ends(child, 1) for child in decoders)
    assert "Z" not in children().values()
