"""The local Hub against the real client of huggingface_hub, where other tests would not notice a fault of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Fault, HubServer, Repo
from huggingface_hub import CommitOperationDelete, HfApi, hf_hub_download, list_repo_files
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ID = "facebook/timesformer"
CONFIG = b'{"num_frames": 8}'
WEIGHTS = bytes(range(256)) * 40  # small, but LFS by its name
# The client itself passes the bytes of an upload to its HTTP library in a deprecated way.
uploads = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home")
        yield server


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    return hub.repo(ID, {"config.json": CONFIG, "nested/pytorch_model.bin": WEIGHTS})


@pytest.fixture
def me(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token="hf_me")


def download(path: str, revision: str | None = None, token: str | None = None, repo_id: str = ID) -> bytes:
    return Path(hf_hub_download(repo_id, path, revision=revision, token=token)).read_bytes()


@pytest.mark.parametrize(
    ("repo_id", "path", "revision", "token", "error", "status"),
    [
        (ID, "README.md", None, None, RemoteEntryNotFoundError, 404),
        (ID, "config.json", "v9", None, RevisionNotFoundError, 404),
        ("facebook/nothing", "config.json", None, None, RepositoryNotFoundError, 401),
        ("facebook/nothing", "config.json", None, "hf_me", RepositoryNotFoundError, 404),
        ("me/private", "config.json", None, None, RepositoryNotFoundError, 401),
        ("me/private", "config.json", None, "hf_other", RepositoryNotFoundError, 404),
        ("me/gated", "config.json", None, None, GatedRepoError, 401),
        ("me/gated", "config.json", None, "hf_other", GatedRepoError, 403),
        (ID, "config.json", None, "hf_wrong", HfHubHTTPError, 401),
    ],
)
def test_refusals_reach_the_client_as_its_own_errors(
    hub: HubServer,
    repo: Repo,
    repo_id: str,
    path: str,
    revision: str | None,
    token: str | None,
    error: type[HfHubHTTPError],
    status: int,
) -> None:
    hub.repo("me/private", {"config.json": CONFIG}, private=True)
    hub.repo("me/gated", {"config.json": CONFIG}, gated=True)
    with pytest.raises(HfHubHTTPError) as caught:
        download(path, revision, token, repo_id)
    assert type(caught.value) is error
    assert caught.value.response.status_code == status


@pytest.mark.parametrize("access", [{"private": True}, {"gated": True}])
def test_the_owner_reads_a_closed_repository(hub: HubServer, access: dict[str, bool]) -> None:
    hub.repo("me/mine", {"config.json": CONFIG}, **access)
    assert download("config.json", token="hf_me", repo_id="me/mine") == CONFIG


@uploads
def test_publishing_small_and_large_files(hub: HubServer, me: HfApi, tmp_path: Path) -> None:
    assert me.whoami()["name"] == "me"
    url = me.create_repo("mine")  # without a namespace: the token's user
    assert (url.repo_id, url.url) == ("me/mine", f"{hub.endpoint}/me/mine")
    assert me.create_repo("me/mine", exist_ok=True).repo_id == "me/mine"
    with pytest.raises(HfHubHTTPError, match="409"):
        me.create_repo("me/mine")

    large = WEIGHTS * 400  # 4 MB
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    (tmp_path / "model" / "config.json").write_bytes(CONFIG)
    (tmp_path / "model" / "model.safetensors").write_bytes(large)
    commit = me.upload_folder(repo_id="me/mine", folder_path=tmp_path / "model")

    repo = hub.repos["me/mine"]
    assert commit.oid == repo.refs["main"]
    assert {path: repo.read(path) for path in ("config.json", "model.safetensors")} == {
        "config.json": CONFIG,
        "model.safetensors": large,
    }
    assert download("model.safetensors", token="hf_me", repo_id="me/mine") == large
    for request in (*hub.seen("^PUT"), *hub.seen("^GET /cdn")):  # the token goes to the Hub alone
        assert request.headers["host"] == f"localhost:{hub.port}"
        assert "authorization" not in request.headers
    asked = [*hub.seen("^POST"), *hub.seen("^HEAD .*model.safetensors")]
    assert all(request.headers["authorization"] == "Bearer hf_me" for request in asked)
    assert (len(hub.seen("^PUT")), len(hub.seen("^GET /cdn"))) == (1, 1)
    assert len(hub.seen("^POST .*/verify")) == 1


@uploads
def test_only_what_changed_is_committed(hub: HubServer, me: HfApi) -> None:
    repo = hub.repo("me/mine", {"a.txt": b"a", "b.txt": b"b", "model.bin": WEIGHTS})
    before = repo.refs["main"]
    me.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="me/mine")
    assert repo.refs["main"] == before
    me.create_commit("me/mine", [CommitOperationDelete("b.txt")], commit_message="without b")
    assert sorted(list_repo_files("me/mine")) == ["a.txt", "model.bin"]
    assert sorted(list_repo_files("me/mine", revision=before)) == ["a.txt", "b.txt", "model.bin"]


def test_a_card_without_metadata_is_warned_about(hub: HubServer, me: HfApi) -> None:
    hub.repo("me/mine", {"config.json": CONFIG})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        me.upload_file(path_or_fileobj=b"# mine", path_in_repo="README.md", repo_id="me/mine")


@pytest.mark.parametrize(("token", "status"), [("hf_other", 403), (False, 401)])
def test_nobody_else_writes(hub: HubServer, token: str | bool, status: int) -> None:
    repo = hub.repo("me/mine", {"config.json": CONFIG})
    before = repo.refs["main"]
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub.endpoint, token=token).upload_file(
            path_or_fileobj=b"x", path_in_repo="config.json", repo_id="me/mine"
        )
    assert caught.value.response.status_code == status
    assert repo.refs["main"] == before


@uploads
def test_an_upload_cut_once_is_sent_again(hub: HubServer, me: HfApi) -> None:
    repo = hub.repo("me/mine", {"config.json": CONFIG})
    hub.faults.append(Fault("^PUT", cut=100_000))
    me.upload_file(path_or_fileobj=WEIGHTS * 100, path_in_repo="model.bin", repo_id="me/mine")
    assert repo.read("model.bin") == WEIGHTS * 100
    assert len(hub.seen("^PUT")) == 2


def test_a_failure_of_the_server_itself_fails_the_test(hub: HubServer, tmp_path: Path) -> None:
    hub.repo(ID, {"config.json": tmp_path / "missing.json"})
    with pytest.raises(Exception, match="Server disconnected"):
        download("config.json")
    with pytest.raises(RuntimeError, match="the Hub server failed"):
        hub.stop()
