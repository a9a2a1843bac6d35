"""How the local Hub of the tests answers.

The protocol, as the client of huggingface_hub 2 relies on it:

- `HEAD /{repo}/resolve/{revision}/{path}` answers X-Repo-Commit, the ETag and the size. A small file's ETag is its git
  blob id and its bytes come from the same URL. A large (LFS) file answers 302 to a CDN on another host, with its
  sha256 as X-Linked-Etag and its size as X-Linked-Size; the client must not send its token there. Our CDN is this
  server under the name `localhost`, while the Hub is `127.0.0.1`.
- Errors are told apart by X-Error-Code (RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo) and
  X-Error-Message. A repository that is missing, or private and somebody else's, answers 401 without a token and 404
  with one; a gated one shows its file list to all, and answers 401 or 403 for a file.
- A server error or no answer is retried five times, after 1, 2, 4, 8 and 8 s, but at once given up for a cached file.
- A download that breaks off is retried after a second with `Range: bytes=N-`, N counting whole chunks of
  `constants.DOWNLOAD_CHUNK_SIZE` (10 MiB): a file cut earlier than that is asked for again from its start.
- The client checks a download's size, never its hash.
- Publishing: `repos/create`, `validate-yaml` (README.md), `preupload` (LFS or regular, file by file), then for LFS
  files `info/lfs/objects/batch`, a PUT to the storage host without a token, and a verification; last `commit`, one
  JSON object a line. Only the commit moves the branch: whatever fails before it leaves the revision as it was.
"""

import base64
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from hub_repos import Blob, HubError, Repo, Request, is_lfs

if TYPE_CHECKING:
    from hub_server import HubServer

CHUNK = 2**16  # bytes a read or a write
USERS = {"hf_me": "me", "hf_other": "other"}  # token -> user name


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for the requests being answered
    request_queue_size = 64
    hub: "HubServer"

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # a client may leave whenever it likes
            self.hub.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds without a byte
    server: Server

    def answer(self) -> None:
        self.hub, self.close_connection = self.server.hub, True
        self.line, self.body = f"{self.command} {self.path}", self.chunks()
        self.hub.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        try:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.user = USERS.get(token)
            if token and self.user is None:
                raise HubError(401, "Invalid credentials in Authorization header")
            if error := self.hub.fault("error", self.line):
                raise error
            if self.hub.fault("silent", self.line):
                return self.wait_until_the_client_goes()
            for pattern, route in ROUTES:
                if found := pattern.fullmatch(self.line.partition("?")[0]):
                    return route(self, **{name: unquote(value or "") for name, value in found.groupdict().items()})
            raise HubError(404, f"this Hub has no {self.line}")
        except HubError as error:
            for _ in self.body:  # closing a socket with unread bytes would reset it, and the client miss the answer
                pass
            self.reply({"error": error.message}, error.status, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: `requests` is the log."""

    def wait_until_the_client_goes(self) -> None:
        for _ in self.body:
            pass
        self.rfile.read(1)

    def chunks(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        while left and (chunk := self.rfile.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk

    def asked(self) -> Any:
        return json.loads(b"".join(self.body))

    def head(self, status: int, headers: Mapping[str, object]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def reply(self, data: object, status: int = 200, headers: Mapping[str, object] | None = None) -> None:
        body = json.dumps(data).encode()
        self.head(status, {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def send(self, blob: Blob, headers: Mapping[str, object]) -> None:
        """Send a file or the range asked for, with the faults that were ordered."""
        at, end, status = 0, blob.size, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            at, end, status = int(asked[1]), min(int(asked[2] or blob.size) + 1, blob.size), 206
            headers = {**headers, "Content-Range": f"bytes {at}-{end - 1}/{blob.size}"}
        self.head(status, {**headers, "Accept-Ranges": "bytes", "Content-Length": end - at})
        if self.command == "HEAD":
            return
        if (cut := self.hub.fault("cut", self.line)) is not None:
            end = min(end, at + cut)
        first, last = self.hub.fault("corrupt", self.line) or (0, 0)
        with blob.open() as file:
            file.seek(at)
            while at < end:
                chunk = bytearray(file.read(min(CHUNK, end - at)))
                for i in range(max(first - at, 0), min(last - at, len(chunk))):
                    chunk[i] ^= 0xFF
                self.wfile.write(chunk)
                at += len(chunk)

    def find(self, repo_id: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not self.owns(repo_id)):
            raise HubError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not self.owns(repo_id):
            raise HubError(403 if self.user else 401, f"You don't have the rights to write to {repo_id}")
        return repo

    def owns(self, repo_id: str) -> bool:
        return self.user == repo_id.removeprefix("datasets/").partition("/")[0]

    def tree(self, repo: Repo, revision: str) -> tuple[str, dict[str, Blob]]:
        """The commit hash behind a branch, a tag or a hash, and its files."""
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.commits[commit]

    # What answers each route. `repo`, `rev` and `path` are the parts of the URL of these names.

    def resolve(self, repo: str, rev: str, path: str) -> None:
        repository = self.find(repo)
        if repository.gated and not self.owns(repo):
            raise HubError(403 if self.user else 401, f"Access to model {repo} is restricted", "GatedRepo")
        commit, files = self.tree(repository, rev)
        if path not in files:
            raise HubError(404, "Entry not found", "EntryNotFound", commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{files[path].etag(path)}"'}
        if not is_lfs(path, files[path].size):
            return self.send(files[path], headers)
        cdn = f"http://localhost:{self.hub.port}/cdn/{repo}/{commit}/{quote(path)}"
        linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": files[path].size}
        self.head(302, {**headers, **linked, "Location": cdn, "Content-Length": 0})

    def download(self, repo: str, rev: str, path: str) -> None:
        self.send(self.hub.repos[repo].commits[rev][path], {})  # a signed URL: nobody asks for a token

    def model(self, repo: str, rev: str) -> None:
        repository = self.find(repo)
        commit, files = self.tree(repository, rev or "main")
        access = {"private": repository.private, "gated": "auto" if repository.gated else False}
        self.reply({"id": repo, "sha": commit, "siblings": [{"rfilename": path} for path in files], **access})

    def listing(self, repo: str, rev: str, path: str) -> None:
        """Of the repository or a folder in it: what is in it, or, recursively, all below."""
        _, files = self.tree(self.find(repo), rev)
        below, start = "recursive=true" in self.path.lower(), f"{path}/" if path else ""
        entries = [e for e in _entries(files) if e["path"].startswith(start)]
        if not entries:
            raise HubError(404, "Entry not found", "EntryNotFound")
        self.reply([e for e in entries if below or "/" not in e["path"].removeprefix(start)])

    def paths_info(self, repo: str, rev: str) -> None:
        _, files = self.tree(self.find(repo), rev)
        body = b"".join(self.body).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self.reply([entry for entry in _entries(files) if entry["path"] in asked])

    def whoami(self) -> None:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        self.reply({"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        asked = self.asked()
        repo_id = f"{asked['organization'] or self.user}/{asked['name']}"
        if not self.owns(repo_id):
            raise HubError(403 if self.user else 401, f"You don't have the rights to create {repo_id}")
        taken = repo_id in self.hub.repos
        if not taken:
            self.hub.repo(repo_id, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        self.reply({"url": f"{self.hub.endpoint}/{repo_id}"}, 409 if taken else 200)

    def validate(self) -> None:
        bare = not self.asked()["content"].startswith("---\n")
        self.reply({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}] * bare})

    def preupload(self, repo: str, rev: str) -> None:
        _, files = self.tree(self.find(repo, write=True), rev)
        answers = []
        for asked in self.asked()["files"]:
            path, mode = asked["path"], "lfs" if is_lfs(asked["path"], asked["size"]) else "regular"
            oid = files[path].etag(path) if path in files else None  # the client leaves out what has not changed
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply({"files": answers})

    def batch(self, repo: str) -> None:
        self.find(repo, write=True)
        objects = self.asked()["objects"]
        for one in objects:
            if one["oid"] not in self.hub.objects:  # what has no actions is there already
                put = {"href": f"http://localhost:{self.hub.port}/storage/{one['oid']}"}
                verify = {"href": f"{self.hub.endpoint}/api/models/{repo}/lfs/verify"}
                one["actions"] = {"upload": put, "verify": verify}
        self.reply({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        cut, received, digest = self.hub.fault("cut", self.line), 0, hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.hub.folder.name, delete=False) as file:
            for chunk in self.body:
                received += len(chunk)
                if cut is not None and received > cut:
                    return  # without an answer: the connection closes
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != oid:
            raise HubError(400, f"BadDigest: sha256 {digest.hexdigest()}, announced {oid}")
        self.hub.objects[oid] = Blob(Path(file.name))
        self.head(200, {"Content-Length": 0})

    def verify(self, repo: str) -> None:
        if self.asked()["oid"] not in self.hub.objects:
            raise HubError(404, "Object does not exist")
        self.reply({})

    def commit(self, repo: str, rev: str) -> None:
        repository = self.find(repo, write=True)
        self.tree(repository, rev)
        changes: dict[str, bytes | Blob | None] = {}
        for line in b"".join(self.body).splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise HubError(400, f"LFS object {value['oid']} of {value['path']} was never uploaded")
                changes[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                changes[value["path"]] = None
        with self.hub.lock:
            oid = repository.commit(changes, rev)
        self.reply({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}"})


def _entries(files: Mapping[str, Blob]) -> list[dict[str, Any]]:
    """Files and folders, as the Hub tells of them."""
    entries: list[dict[str, Any]] = []
    for path, blob in files.items():
        etag, lfs = blob.etag(path), is_lfs(path, blob.size)
        entry = {"type": "file", "path": path, "size": blob.size, "oid": etag[:40]}
        entries.append(entry | ({"lfs": {"oid": etag, "size": blob.size, "pointerSize": 134}} if lfs else {}))
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    return entries + [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]


# The "METHOD /path" of a request, without a query and with its parts quoted, and what answers it.
_REPO, _REV, _PATH = "(?P<repo>(?:datasets/)?[^/]+/[^/]+)", "(?P<rev>[^/]+)", "(?P<path>.+)"
_ROUTES: dict[str, Callable[..., None]] = {
    f"(?:GET|HEAD) /{_REPO}/resolve/{_REV}/{_PATH}": Handler.resolve,
    f"(?:GET|HEAD) /cdn/{_REPO}/{_REV}/{_PATH}": Handler.download,
    f"GET /api/(?:models/)?{_REPO}(?:/revision/{_REV})?": Handler.model,
    f"GET /api/(?:models/)?{_REPO}/tree/{_REV}(?:/{_PATH})?": Handler.listing,
    f"POST /api/(?:models/)?{_REPO}/paths-info/{_REV}": Handler.paths_info,
    "GET /api/whoami-v2": Handler.whoami,
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate,
    f"POST /api/models/{_REPO}/preupload/{_REV}": Handler.preupload,
    rf"POST /{_REPO}\.git/info/lfs/objects/batch": Handler.batch,
    "PUT /storage/(?P<oid>[0-9a-f]{64})": Handler.store,
    f"POST /api/models/{_REPO}/lfs/verify": Handler.verify,
    f"POST /api/models/{_REPO}/commit/{_REV}": Handler.commit,
}
ROUTES = [(re.compile(pattern), answer) for pattern, answer in _ROUTES.items()]
