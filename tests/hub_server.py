"""A Hugging Face Hub in this process: what the real client needs to download and to publish, and faults on demand.

    with HubServer() as hub:
        repo = hub.repo("facebook/timesformer", {"config.json": b"{}", "pytorch_model.bin": Path("big.bin")})
        hub.faults.append(Fault("GET .*bin", cut=11_000_000))
        subprocess.run([...], env=hub.env(tmp_path))    # a fresh interpreter: HF_ENDPOINT is read at import
        hub.connect(monkeypatch, tmp_path)              # or this process, until monkeypatch is undone

`hub_repos` is what it holds, `hub_protocol` how it answers.
"""

import os
import re
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_protocol import Handler, Server
from hub_repos import Blob, Fault, HubError, Repo, Request

__all__ = ["Fault", "HubError", "HubServer", "Repo"]


class HubServer:
    """A Hub on 127.0.0.1; use it as a context manager. `requests` lists what was asked, in order."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, Blob] = {}  # uploaded LFS objects by sha256, committed or not
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[BaseException] = []  # the server's own failures, raised by stop()
        self.lock = threading.Lock()
        self.port = 0  # the first start() takes a free one, later ones the same
        self.folder = tempfile.TemporaryDirectory()
        self._server: Server | None = None

    def __enter__(self) -> "HubServer":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self.folder:
            self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = Server(("127.0.0.1", self.port), Handler)
        self._server.hub, self.port = self, self._server.server_port
        # The interval (seconds) is how long stop() may have to wait.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on; repositories and port are kept for another start()."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self.errors:
            first, self.errors = self.errors[0], []
            raise RuntimeError("the Hub server failed while it answered a request") from first

    def repo(
        self, repo_id: str, files: Mapping[str, bytes | Path] | Path, private: bool = False, gated: bool = False
    ) -> Repo:
        """A new repository with one commit."""
        repo = self.repos[repo_id] = Repo(repo_id, private, gated)
        repo.commit(files)
        return repo

    def fault(self, kind: str, line: str) -> Any:
        """The value of the next fault of a kind for a request, used up; None if nothing is to go wrong."""
        with self.lock:
            for fault in self.faults:
                value = getattr(fault, kind)
                if value is not None and fault.times > 0 and re.search(fault.match, line):
                    fault.times -= 1
                    return value
        return None

    def seen(self, match: str) -> list[Request]:
        """The recorded requests in whose "METHOD /path" the regex `match` is found."""
        return [request for request in self.requests if re.search(match, f"{request.method} {request.path}")]

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a fresh process that knows no other Hub, cache (it is `home`/hub), token or proxy."""
        foreign = re.compile(r"HF_|HUGGING_?FACE|TRANSFORMERS_|.*_PROXY$", re.IGNORECASE)
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks a service elsewhere to convert a .bin
            "NO_PROXY": "127.0.0.1,localhost",
        }
        kept = {name: value for name, value in os.environ.items() if not foreign.match(name)}
        return kept | ours | ({"HF_TOKEN": token} if token else {})

    def connect(
        self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = None, sleepless: bool = True
    ) -> None:
        """Point this process' client here, as `env` does a fresh one's, until `monkeypatch` is undone.

        A `sleepless` client does not sleep before it tries again: it may for 23 s when nothing answers or is cached.
        """
        from huggingface_hub import close_session, constants, file_download, hf_api
        from huggingface_hub.utils import _http

        env = self.env(home, token)
        for name in set(os.environ) - set(env):
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        values = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": getattr(constants, "HF_URL_HOSTS", frozenset()) | {"127.0.0.1"},
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "AGENT_HARNESSES_PATH": str(home / "agent_harnesses.json"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, constant in values.items():
            monkeypatch.setattr(constants, name, constant, raising=False)  # older clients lack some of them
        monkeypatch.setattr(hf_api.api, "endpoint", self.endpoint)  # behind huggingface_hub.model_info and its like
        for module in (_http, file_download) if sleepless else ():
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
        close_session()  # the next request makes a client, which then sees NO_PROXY
