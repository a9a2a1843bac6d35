"""`timesformer-zoo demo`: what it finds, the process that looks, and the page, as a process on a free port.

A browser uses the page in test_demo_browser.py.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from demo_page import EMBEDDED, demo_page, free_port
from scenery import film

from timesformer_zoo import (
    OutputError,
    VideoReadError,
    embed,
    load_model,
    predict_windows,
    save_pretrained,
    segments,
)
from timesformer_zoo.demo.look import Limits, Looker
from timesformer_zoo.demo.worker import Worker
from timesformer_zoo_cli import main


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film that rests, then pans; and what is none."""
    folder = tmp_path_factory.mktemp("footage")
    film(folder / "hills.mp4", "static right", seed=1)
    data = (folder / "hills.mp4").read_bytes()
    (folder / "damaged.mp4").write_bytes(data[: len(data) // 2])
    (folder / "notes.mp4").write_text("not a video", "utf-8")
    return folder


@pytest.fixture(scope="module")
def library(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    videos = [film(folder / f"{name}.mp4", name, seed, 2) for seed, name in enumerate(["static", "right", "in"])]
    videos.append(film(folder / "the same.mp4", "static right", seed=1))
    embed(EMBEDDED, videos, folder / "library")
    return folder / "library"


def all_of(updates: Iterator[Any]) -> dict[str, Any]:
    """What the page shows at the end."""
    seen: dict[str, Any] = {}
    for update in updates:
        seen |= update
    return seen


# ---- what is found ----


def test_what_is_found_is_what_the_library_calls_give(footage: Path) -> None:
    path = str(footage / "hills.mp4")
    updates = list(Looker([EMBEDDED], device="cpu").look(path, EMBEDDED))
    seen = all_of(iter(updates))
    windows = list(predict_windows(EMBEDDED, path, 10))
    for segment in segments(windows):
        assert f">{segment.label}</span>" in seen["timeline"]
        assert f"<td>{segment.probability:.0%}</td>" in seen["timeline"]
    assert {"static", "pan right"} <= {segment.label for segment in segments(windows)}
    mean = sum(score.probability for window in windows for score in window.top if score.label == "static")
    assert seen["labels"]["static"] == pytest.approx(mean / len(windows))
    assert sum(seen["labels"].values()) == pytest.approx(1)
    assert seen["explanation"].count('src="data:image/jpeg;base64,') == 8  # frames of a clip
    assert "neighbours" not in seen
    assert (seen["status"], seen["done"]) == ("Done: 0:06.0 of video", 1)
    done = [update["done"] for update in updates if "done" in update]
    assert done == sorted(done)


def test_a_model_that_looks_once_has_its_protocols_labels(footage: Path, folder: Path) -> None:
    seen = all_of(Looker([str(folder)], device="cpu").look(str(footage / "hills.mp4"), str(folder)))
    assert set(seen["labels"]) == {"run", "jump", "sit", "stand", "fall"}
    assert "<table>" in seen["timeline"]


def test_the_nearest_of_a_library_is_shown_without_its_folder(footage: Path, library: Path) -> None:
    looker = Looker([EMBEDDED], str(library), "cpu")
    neighbours = all_of(looker.look(str(footage / "hills.mp4"), EMBEDDED))["neighbours"]
    first, *rest = neighbours.split("<li>")[1:]
    assert "the same.mp4" in first
    assert "data:image/jpeg;base64," in first
    assert len(rest) == 3
    assert str(library.parent) not in neighbours


def test_what_a_label_says_is_not_run_as_html(footage: Path, folder: Path, tmp_path: Path) -> None:
    labels = [f"<script>alert({i})</script>" for i in range(5)]
    name = str(save_pretrained(load_model(folder), tmp_path / "model", labels=labels))
    seen = all_of(Looker([name], device="cpu").look(str(footage / "hills.mp4"), name))
    assert "<script>" not in seen["timeline"]
    assert "&lt;script&gt;" in seen["timeline"]


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at most 0 minutes of a video make no sense"):
        Limits(minutes=0)


def test_a_video_that_is_too_long_is_refused_before_it_is_labelled(footage: Path) -> None:
    looker = Looker([EMBEDDED], device="cpu", limits=Limits(minutes=0.05))
    with pytest.raises(VideoReadError, match=r"it is too long: 0:06\.0, expected at most 0:03\.0"):
        next(looker.look(str(footage / "hills.mp4"), EMBEDDED))


# ---- the process that looks ----


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker([EMBEDDED], None, "cpu", Limits(minutes=1))
    yield worker
    worker.close()


def test_the_other_process_finds_the_same(worker: Worker, footage: Path) -> None:
    path = str(footage / "hills.mp4")
    assert all_of(worker.look(path, EMBEDDED)) == all_of(Looker([EMBEDDED], device="cpu").look(path, EMBEDDED))


@pytest.mark.parametrize(
    ("name", "words"),
    [("damaged.mp4", "damaged.mp4: "), ("notes.mp4", "there is no video in it"), ("none.mp4", "there is no such file")],
)
def test_what_can_not_be_read_is_said_in_words(worker: Worker, footage: Path, name: str, words: str) -> None:
    seen = all_of(worker.look(str(footage / name), EMBEDDED))
    assert words in seen["error"]
    assert str(footage) not in json.dumps(seen)
    assert "Traceback" not in seen["error"]


def test_a_crash_is_one_message_and_the_next_video_is_looked_at(worker: Worker, footage: Path) -> None:
    updates = worker.look(str(footage / "hills.mp4"), EMBEDDED)
    next(updates)
    for process in multiprocessing.active_children():
        process.kill()
    assert "it crashed what looks at it" in all_of(updates)["error"]
    assert "error" not in all_of(worker.look(str(footage / "hills.mp4"), EMBEDDED))


def test_what_hangs_is_given_up(worker: Worker, footage: Path) -> None:
    updates = worker.look(str(footage / "hills.mp4"), EMBEDDED)
    limits, worker.limits = worker.limits, Limits(seconds=0.5)
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGSTOP)
    seen = all_of(updates)
    worker.limits = limits
    assert seen["error"] == "hills.mp4: it took longer than 0.5 s, and was given up; try a shorter video"
    assert "error" not in all_of(worker.look(str(footage / "hills.mp4"), EMBEDDED))


def test_a_video_that_nobody_follows_any_more_is_given_up(worker: Worker, footage: Path) -> None:
    left = worker.look(str(footage / "hills.mp4"), EMBEDDED)
    next(left)
    assert all_of(worker.look(str(footage / "notes.mp4"), EMBEDDED))["error"].startswith("notes.mp4: ")


def test_what_the_command_lacks_is_said_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean timesformer_base_divided"):
        Worker(["timesformer_base_divide"], None, "cpu", Limits())
    with pytest.raises(OutputError, match="there is no library"):
        Looker([EMBEDDED], str(tmp_path), "cpu")


# ---- the page ----


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err.endswith("needs gradio: pip install 'timesformer-zoo[demo]'\n")


gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio: pip install '.[demo]'")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo_page(tmp_path_factory.mktemp("temporary"), "--max-size", "1") as address:
        yield address


def post(url: str, data: bytes, kind: str = "application/json") -> Any:
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def upload(address: str, name: str, data: bytes) -> str:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--x--\r\n"
    (path,) = post(f"{address}gradio_api/upload", body, "multipart/form-data; boundary=x")
    return path


def looked_at(address: str, path: str, model: str = EMBEDDED) -> str:
    """All that the page's queue says when the button is pressed."""
    video = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = f"{address}gradio_api/call/look"
    event = post(url, json.dumps({"data": [video, model]}).encode())["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=60) as answer:
        return answer.read().decode()


@gradio
def test_an_upload_is_looked_at(address: str, footage: Path) -> None:
    said = looked_at(address, upload(address, "hills.mp4", (footage / "hills.mp4").read_bytes()))
    assert "Done: 0:06.0 of video" in said
    assert "pan right" in said


@gradio
def test_two_users_at_once_get_their_answers(address: str, footage: Path) -> None:
    paths = [upload(address, name, (footage / name).read_bytes()) for name in ("hills.mp4", "notes.mp4")]
    with ThreadPoolExecutor() as users:
        first, second = users.map(looked_at, [address] * 2, paths)
    assert "Done: 0:06.0 of video" in first
    assert "notes.mp4: there is no video in it" in second
    assert "hills" not in second


@gradio
def test_what_is_too_large_is_refused_while_it_comes(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        upload(address, "large.mp4", bytes(1_100_000))
    assert refused.value.code == 413
    refused.value.close()


@gradio
def test_no_file_of_the_machine_no_address_and_no_other_model_can_be_asked_for(address: str, footage: Path) -> None:
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for path in (str(footage / "hills.mp4"), f"http://127.0.0.1:{server.server_port}/hills.mp4"):
            said = looked_at(address, path)
            assert "event: error" in said
            assert "static" not in said
        assert "addresses are not fetched" in said  # not: it was tried
        server.shutdown()
    assert asked == []
    mine = upload(address, "hills.mp4", (footage / "hills.mp4").read_bytes())
    assert "event: error" in looked_at(address, mine, "timesformer_tiny_joint")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}gradio_api/file={footage / 'hills.mp4'}", timeout=10)
    assert refused.value.code == 403
    refused.value.close()


@gradio
def test_other_machines_are_not_let_in_nor_the_page_out(address: str) -> None:
    host, port = address.removeprefix("http://").strip("/").split(":")
    assert host == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", int(port)))  # as from a card of this machine
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")
        text = answer.read().decode()
    assert '"is_share": true' not in text.replace(":true", ": true")


SHORT_LIVED = """
import sys
from timesformer_zoo.demo import page
from timesformer_zoo.demo.look import Limits
class Worker:
    models, library, limits = ("a model",), None, Limits()
page.KEPT = (1, 1)
blocks, address = page.serve(Worker(), "127.0.0.1", int(sys.argv[1]))
print(address, flush=True)
sys.stdin.read()
"""


@gradio
@pytest.mark.slow
def test_uploads_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SHORT_LIVED, str(free_port())]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        assert process.stdout is not None
        path = Path(upload(process.stdout.readline().strip(), "old.mp4", b"content"))
        assert path.is_relative_to(tmp_path)
        until = time.monotonic() + 20
        while path.exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.communicate(timeout=20)
    assert not path.exists()
