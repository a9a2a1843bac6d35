"""`pretrained=True` from a plain server, as mmaction2's files lie on one."""

import hashlib
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import timm
import torch
from small_models import equal

from timesformer_zoo import CheckpointError, DownloadError, label_set, model_labels
from timesformer_zoo.weights.formats import from_native

NAME = "timesformer_base_joint.mmaction2_k400"
SMALL = dict(img_size=32, embed_dim=32, depth=2, num_heads=2)


class _Files:
    """A server of plain files; a path in `short` is sent with its second half missing."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.short: set[str] = set()
        content, short = self.content, self.short

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = content.get(self.path)
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write((body or b"")[: len(body or b"") // (2 if self.path in short else 1)])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[_Files]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = _Files()
    yield server
    server.stop()


Published = tuple[torch.nn.Module, dict[str, Any]]


def published(plain: _Files, tmp_path: Path, ending: str | None = None) -> Published:
    """A small model, published as mmaction2 does it, with the start of its sha256 in its name; and what loads it."""
    model = timm.create_model(NAME, **SMALL)
    weights = from_native(model.state_dict(), "mmaction2", model.attention)
    torch.save({"meta": {"epoch": 15}, "state_dict": weights}, tmp_path / "file.pth")
    content = (tmp_path / "file.pth").read_bytes()
    path = f"/timesformer_jointST{ending or '_20220815-' + hashlib.sha256(content).hexdigest()[:8]}.pth"
    plain.content[path] = content
    return model, dict(SMALL, pretrained=True, pretrained_cfg_overlay=dict(url=plain.url + path))


def test_a_file_is_downloaded_once(plain: _Files, tmp_path: Path) -> None:
    source, options = published(plain, tmp_path)
    model = timm.create_model(NAME, **options)
    assert equal(model.state_dict(), source.state_dict())
    assert model_labels(model) == label_set("kinetics400")
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    plain.content.clear()
    assert equal(timm.create_model(NAME, **options).state_dict(), source.state_dict())


def test_a_file_that_is_not_there(plain: _Files, tmp_path: Path) -> None:
    _, options = published(plain, tmp_path)
    plain.content.clear()
    with pytest.raises(DownloadError) as caught:
        timm.create_model(NAME, **options)
    for part in (NAME, plain.url, "HTTP 404", str(tmp_path / "torch")):
        assert part in str(caught.value)


def test_a_server_that_is_not_there(plain: _Files, tmp_path: Path) -> None:
    _, options = published(plain, tmp_path)
    options["pretrained_cfg_overlay"]["url"] = "http://127.0.0.1:9/x.pth"
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/x.pth: there is no connection .*Connect and retry"):
        timm.create_model(NAME, **options)


def test_a_file_cut_short_is_told_by_its_hash_and_comes_again(plain: _Files, tmp_path: Path) -> None:
    source, options = published(plain, tmp_path)
    plain.short.update(plain.content)
    with pytest.raises(DownloadError, match=r"damaged on its way .*invalid hash.*load again"):
        timm.create_model(NAME, **options)
    assert not list((tmp_path / "torch").rglob("*.pth*"))
    plain.short.clear()
    assert equal(timm.create_model(NAME, **options).state_dict(), source.state_dict())


@pytest.mark.parametrize("ending", ["-beef", "-20220815"])  # neither is a hash
def test_a_file_of_no_known_hash_cut_short_is_named(plain: _Files, tmp_path: Path, ending: str) -> None:
    source, options = published(plain, tmp_path, ending)
    plain.short.update(plain.content)
    with pytest.raises(CheckpointError, match=r"damaged or incomplete") as caught:
        timm.create_model(NAME, **options)
    (file,) = (tmp_path / "torch").rglob("*.pth")
    assert f"delete {file}" in str(caught.value)
    file.unlink()
    plain.short.clear()
    assert equal(timm.create_model(NAME, **options).state_dict(), source.state_dict())


def test_a_cache_of_ones_own(plain: _Files, tmp_path: Path) -> None:
    _, options = published(plain, tmp_path)
    timm.create_model(NAME, cache_dir=tmp_path / "own", **options)
    assert list((tmp_path / "own").glob("*.pth"))
    assert not list((tmp_path / "torch").rglob("*.pth"))


def test_a_server_that_says_nothing(plain: _Files, tmp_path: Path) -> None:
    _, options = published(plain, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody answers
        options["pretrained_cfg_overlay"]["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth"
        start = time.monotonic()
        with pytest.raises(DownloadError, match=r"no answer in time \(timed out\).*HF_HUB_ETAG_TIMEOUT=30"):
            timm.create_model(NAME, **options)
    assert time.monotonic() - start < 5


def test_lavilas_names_have_the_start_of_an_md5(plain: _Files, tmp_path: Path) -> None:
    source, options = published(plain, tmp_path)
    content = (tmp_path / "file.pth").read_bytes()
    for start, fits in ((hashlib.md5(content).hexdigest()[:6], True), ("000000", False)):
        path = f"/clip_timesformer.ep_0001.md5sum_{start}.pth"
        plain.content[path] = content
        options["pretrained_cfg_overlay"]["url"] = plain.url + path
        if fits:
            assert equal(timm.create_model(NAME, **options).state_dict(), source.state_dict())
            continue
        with pytest.raises(DownloadError, match=r"damaged on its way .*expected md5 \"000000\".*load again"):
            timm.create_model(NAME, **options)
        assert not (tmp_path / "torch" / "hub" / "checkpoints" / path[1:]).exists()


def test_a_page_is_no_file_and_says_what_to_do(tmp_path: Path) -> None:
    name = "timesformer_base_divided.endo_fm"
    with pytest.raises(DownloadError, match=rf"{name} .*by hand from https://drive.google.com/.*dict\(file=PATH\)"):
        timm.create_model(name, pretrained=True)
    weights = timm.create_model(name, **SMALL).state_dict()
    theirs = from_native(weights, "the authors'", "divided")
    teacher = {key.replace("model.", "backbone.", 1): value for key, value in theirs.items()}
    torch.save({"student": {}, "teacher": teacher}, tmp_path / "endo.pth")
    overlay = dict(file=str(tmp_path / "endo.pth"))
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert equal(model.state_dict(), weights)
