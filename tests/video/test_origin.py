"""Videos that are no files of this machine: bytes, file objects, addresses, members of shards. The same frames, few
bytes over the network, and errors that say what to do and nothing secret."""

import functools
import io
import math
import os
import tarfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from footage import write
from hub_server import Fault, HubError, HubServer
from small_models import tiny
from videos import numbers_of, write_video

from timesformer_zoo import ClipSpec, Video, VideoReadError, load_views, open_video, predict, predict_windows, read_clip
from timesformer_zoo.video import container, remote, shards

SPEC = ClipSpec(num_frames=4, stride=4, size=32, crops=1)
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIMESFORMER_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video: Path) -> Iterator[HubServer]:
    """With the data set me/clips: a.mp4, at two kinds of address."""
    from huggingface_hub import HfFileSystem

    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home")
        HfFileSystem.clear_instance_cache()
        server.repo("datasets/me/clips", {"a.mp4": video})
        yield server
        HfFileSystem.clear_instance_cache()


def http(hub: HubServer, name: str = "a.mp4") -> str:
    return f"{hub.endpoint}/datasets/me/clips/resolve/main/{name}"


@pytest.fixture
def place(hub: HubServer, video: Path, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """The same video in many places."""
    data = video.read_bytes()

    def at(kind: str) -> Any:
        if kind == "memory":
            fsspec.filesystem("memory").pipe("/origin/a.mp4", data)
            return "memory://origin/a.mp4"
        if kind == "member":
            with tarfile.open(tmp_path / "a.tar", "w") as tar:
                tar.add(__file__, "first.txt")
                tar.add(video, "in/a.mp4")
            return f"{tmp_path / 'a.tar'}::in/a.mp4"
        if kind == "file":
            (tmp_path / "a.mp4").write_bytes(data)
            return files.enter_context((tmp_path / "a.mp4").open("rb"))
        kinds = {"bytes": data, "view": memoryview(data), "BytesIO": io.BytesIO(data)}
        return {**kinds, "http": http(hub), "hf": "hf://datasets/me/clips/a.mp4"}[kind]

    with ExitStack() as files:
        yield at


KINDS = ["bytes", "view", "BytesIO", "file", "memory", "member", "http", "hf"]


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_the_file(kind: str, isolated: bool, place: Callable[[str], Any], video: Path) -> None:
    there, here = Video(place(kind), isolated=isolated), Video(video)
    assert (there.num_frames, there.fps, there.times.tolist()) == (here.num_frames, here.fps, here.times.tolist())
    assert torch.equal(there.frames([3, 50, 7]), here.frames([3, 50, 7]))
    there.close()
    assert numbers_of(there.frames([33])) == [33]
    there.close()


def test_a_users_file_stays_open_and_where_it_was(place: Callable[[str], Any]) -> None:
    with place("file") as file:
        file.seek(17)
        Video(file).close()
        assert (file.tell(), file.closed) == (17, False)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_other_containers(name: str, tmp_path: Path) -> None:
    data = write_video(tmp_path / name, 30).read_bytes()
    for isolated in (False, True):
        assert numbers_of(Video(data, isolated=isolated).frames([3, 20])) == [3, 20]


def test_every_function_that_reads_a_video_takes_them(place: Callable[[str], Any], video: Path) -> None:
    model, data = tiny(clip={"stride": 4, "crops": 1}), place("bytes")
    assert torch.equal(read_clip(data, SPEC), read_clip(video, SPEC))
    assert torch.equal(load_views(place("BytesIO"), SPEC, isolated=True), load_views(video, SPEC))
    expected = predict(model, video).top
    assert predict(model, place("file")).top == expected
    several = predict(model, [data, place("http"), place("member"), video])
    assert [prediction.top for prediction in several] == [expected] * 4
    assert [Path(p.path).name for p in several[1:]] == ["a.mp4", "a.mp4", "video.mp4"]
    windows = list(predict_windows(model, place("memory"), window=1.0))
    assert [w.top for w in windows] == [w.top for w in predict_windows(model, video, window=1.0)]


# ---- what crosses the network ----


def transferred(hub: HubServer, size: int) -> int:
    total = 0
    for request in hub.seen("GET /cdn/"):
        first, _, last = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        total += min(int(last or size - 1), size - 1) + 1 - int(first)
    return total


@pytest.mark.parametrize("kind", ["http", "hf"])
def test_of_a_large_file_the_tables_and_what_is_wanted(
    kind: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[str], Any]
) -> None:
    for module, name in ((remote, "WHOLE"), (container, "FAR")):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(remote, "BLOCK", 1 << 14)
    noise = torch.randint(0, 256, (300, 120, 160, 3), dtype=torch.uint8)
    path = write(tmp_path / "a.mp4", noise, preset="ultrafast", crf="20", g="50")
    size = path.stat().st_size
    hub.repo("datasets/me/clips", {"a.mp4": path})
    assert torch.equal(Video(place(kind)).frames([210]), Video(path).frames([210]))
    assert 0 < transferred(hub, size) < size / 2


def test_a_small_file_is_one_request_and_one_for_its_size(hub: HubServer, video: Path) -> None:
    assert numbers_of(Video(http(hub), isolated=True).frames([9])) == [9]
    assert transferred(hub, video.stat().st_size) == video.stat().st_size
    assert len(hub.seen("GET")) == 2  # the Hub sends on to its CDN


def test_what_was_read_can_be_kept(hub: HubServer) -> None:
    for _ in range(2):
        assert Video(f"simplecache::{http(hub)}", isolated=True).num_frames == 60
    first = len(hub.seen("GET /cdn/"))
    Video(f"simplecache::{http(hub)}", isolated=True).frames([9])
    assert len(hub.seen("GET /cdn/")) == first


def test_a_large_member_is_read_by_blocks(
    hub: HubServer, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((remote, "WHOLE"), (shards, "_LARGE"), (remote, "BLOCK")):
        monkeypatch.setattr(module, name, 512)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(video, "0.mp4")
        tar.add(write_video(tmp_path / "b.mp4", 30), "1.mp4")
    hub.repo("datasets/me/clips", {"a.tar": tmp_path / "a.tar"})
    member = Video(f"{http(hub, 'a.tar')}::1.mp4", isolated=True)
    assert numbers_of(member.frames([20, 3])) == [20, 3]
    member.close()


def test_a_member_is_one_request_for_its_bytes(hub: HubServer, video: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.mp4", "1.mp4", "2.mp4"):
            tar.add(video, name)
    hub.repo("datasets/me/clips", {"a.tar": tmp_path / "a.tar"})
    shard = http(hub, "a.tar")
    shards.read_shard(shard)
    hub.requests.clear()
    assert numbers_of(Video(f"{shard}::1.mp4", isolated=True).frames([9])) == [9]
    (request,) = hub.requests
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.getmember("1.mp4")
    assert request.headers["range"] == f"bytes={member.offset_data}-{member.offset_data + member.size - 1}"


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[str]:
    """The address of `tmp_path` on a server that knows no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("whole", [1, 1 << 22])
def test_a_server_without_ranges(whole: int, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WHOLE", whole)
    write_video(tmp_path / "a.mp4", 30)
    video = Video(f"{plain}/a.mp4", isolated=True)
    assert numbers_of(video.frames([20, 3])) == [20, 3]
    video.close()


def test_a_shard_on_a_server_without_ranges_is_refused(plain: str, video: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(video, "0.mp4")
    with pytest.raises(VideoReadError, match=rf"{plain}/a.tar: asked for .*; take one that answers range requests"):
        Video(f"{plain}/a.tar::0.mp4")


# ---- what goes wrong ----


def everything_said(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
def test_what_is_not_there(isolated: bool, hub: HubServer) -> None:
    for address in (http(hub, "b.mp4"), "hf://datasets/me/clips/b.mp4", "memory://origin/b.mp4"):
        with pytest.raises(VideoReadError, match=rf"{address}: there is no such file; check the address"):
            Video(address, isolated=isolated)


@pytest.mark.parametrize(
    ("user", "says"),
    [(f"me:{SECRET}@", "no permission to read it .*; log in"), ("", "can't be read .*; check the connection")],
)
def test_nothing_secret_is_said(user: str, says: str, hub: HubServer) -> None:
    """The server refuses the password; without one, it is out of order."""
    hub.faults.append(Fault("clips", error=HubError(500, "no"), times=math.inf))
    address = http(hub).replace("://", f"://{user}") + f"?signature={SECRET}"
    for isolated in (False, True):
        with pytest.raises(VideoReadError, match=says) as caught:
            Video(address, isolated=isolated)
        assert http(hub).replace("://", f"://{user and '***@'}") + "?…: " in str(caught.value)
        assert SECRET not in everything_said(caught)


def test_nothing_secret_is_shown_of_an_address_with_spaces() -> None:
    address = f"https://me:{SECRET}@127.0.0.1:1/two words.mp4?token={SECRET}"  # nobody answers there
    shown = r"^https://\*\*\*@127.0.0.1:1/two words.mp4\?…: it can't be read"
    with pytest.raises(VideoReadError, match=shown) as caught:
        open_video(address, isolated=True)
    assert SECRET not in everything_said(caught)


def test_nothing_secret_is_shown_of_what_can_be_read(hub: HubServer) -> None:
    video = open_video(f"{http(hub)}?token={SECRET}", isolated=True)
    assert video.path == http(hub) + "?…"
    assert SECRET not in repr(video)


def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_not_for_ever(hub: HubServer) -> None:
    hub.faults.append(Fault("GET .*a.mp4", error=HubError(503, "busy"), times=2))
    assert Video(http(hub)).num_frames == 60
    hub.faults.append(Fault("GET .*a.mp4", error=HubError(503, "busy"), times=100))
    with pytest.raises(VideoReadError, match="503"):
        Video(http(hub))
    assert hub.faults[-1].times >= 97


def test_nobody_answers(hub: HubServer) -> None:
    address = http(hub)
    hub.stop()
    with pytest.raises(VideoReadError, match=rf"{address}: it can't be read .*; check the connection"):
        Video(address, isolated=True)


def test_an_unknown_scheme(hub: HubServer) -> None:
    with pytest.raises(VideoReadError, match="fsspec knows no gopher://; check the address"):
        Video("gopher://h/a.mp4")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(address: str) -> Any:
        raise ImportError('HTTPFileSystem requires "aiohttp" to be installed')

    monkeypatch.setattr(remote, "_file_system", missing)
    with pytest.raises(ModuleNotFoundError, match=r'requires "aiohttp".*pip install .timesformer-zoo\[remote\]'):
        Video("https://h/a.mp4", isolated=True)


def test_damage_is_said_as_of_files(video: Path) -> None:
    for isolated in (False, True):
        with pytest.raises(VideoReadError, match=r"^<2000 bytes>: the file is truncated"):
            Video(video.read_bytes()[:2000], isolated=isolated)
        with pytest.raises(VideoReadError, match=r"^<0 bytes>: the file is empty"):
            Video(b"", isolated=isolated)


def test_a_file_closed_too_early(place: Callable[[str], Any]) -> None:
    file = place("BytesIO")
    video = Video(file, isolated=True)
    video.close()
    file.close()
    for _ in range(2):  # the process beside goes on
        with pytest.raises(VideoReadError, match=r"<BytesIO>: it can't be read .*; open it again"):
            video.frames([5])
    assert numbers_of(Video(place("bytes"), isolated=True).frames([5])) == [5]


def test_what_is_no_video_at_all(video: Path) -> None:
    for wrong in (5, None, ["a.mp4"]):
        with pytest.raises(TypeError, match="expected a path, an address, bytes or a binary file object"):
            Video(wrong)  # type: ignore[arg-type]
    with video.open(encoding="latin-1") as text, pytest.raises(TypeError, match="must be binary"):
        Video(text)  # type: ignore[arg-type]
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb") as pipe, pytest.raises(TypeError, match="able to seek"):
        Video(pipe)


def test_decord_reads_files_alone(place: Callable[[str], Any]) -> None:
    with pytest.raises(VideoReadError, match='decord reads files of this machine alone; take decoder="auto"'):
        Video(place("bytes"), decoder="decord")


# ---- shards ----


def test_a_list_of_members_is_made_once_for_each_state_of_a_shard(
    place: Callable[[str], Any], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = place("member")
    lists = []
    listed = shards._listed
    monkeypatch.setattr(shards, "_listed", lambda file: lists.append(file) or listed(file))
    for _ in range(2):
        assert Video(member).num_frames == 60
        monkeypatch.setattr(shards, "_known", {})  # as a fresh process
    assert Video(member).num_frames == 60
    assert len(lists) == 1
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(write_video(tmp_path / "b.mp4", 20), "in/a.mp4")
    assert Video(member).num_frames == 20
    assert len(lists) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "it can't be read as a tar file"),
        (lambda path: path.write_bytes(b"no tar" * 200), "it can't be read as a tar file"),
        (lambda path: path.unlink(), "it can't be read .No such file"),
        (lambda path: None, "there is no other.mp4 in it"),
    ],
    ids=["truncated", "other", "gone", "name"],
)
def test_a_shard_that_cannot_be_read(
    change: Callable[[Path], object], says: str, place: Callable[[str], Any], tmp_path: Path
) -> None:
    place("member")
    change(tmp_path / "a.tar")
    with pytest.raises(VideoReadError, match=rf"a.tar: {says}"):
        Video(f"{tmp_path / 'a.tar'}::other.mp4")


def test_a_compressed_shard_is_refused(video: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(video, "a.mp4")
    with pytest.raises(VideoReadError, match="a shard must be whole and not compressed"):
        Video(f"{tmp_path / 'a.tar'}::a.mp4")
