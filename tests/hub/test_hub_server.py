"""The local Hub against the real client of huggingface_hub: what other tests take for granted of it."""

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Fault, HubError, HubServer, Repo
from huggingface_hub import (
    CommitOperationDelete,
    HfApi,
    constants,
    file_exists,
    hf_hub_download,
    list_repo_files,
    model_info,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
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


def test_small_and_large_files_download_into_the_cache_of_this_test(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    assert download("config.json") == CONFIG
    path = Path(hf_hub_download(ID, "nested/pytorch_model.bin"))
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(tmp_path / "home" / "hub")
    assert repo.refs["main"] in path.parts
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()  # the client names blobs by ETag


def test_files_are_served_from_a_folder(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_bytes(CONFIG)
    (tmp_path / "model" / "sub" / "model.safetensors").write_bytes(WEIGHTS)
    hub.repo(ID, tmp_path / "model")
    assert sorted(list_repo_files(ID)) == ["config.json", "sub/model.safetensors"]
    assert download("sub/model.safetensors") == WEIGHTS


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(hub: HubServer, repo: Repo) -> None:
    download("nested/pytorch_model.bin", token="hf_me")
    (asked,), (sent,) = hub.seen("^HEAD .*pytorch_model"), hub.seen("^GET .*pytorch_model")
    assert asked.headers["authorization"] == "Bearer hf_me"
    assert sent.headers["host"] == f"localhost:{hub.port}"
    assert "authorization" not in sent.headers


def test_what_is_there_can_be_listed(hub: HubServer, repo: Repo) -> None:
    info = model_info(ID)
    assert (info.id, info.sha, info.private, info.gated) == (ID, repo.refs["main"], False, False)
    assert info.siblings is not None
    assert {file.rfilename for file in info.siblings} == {"config.json", "nested/pytorch_model.bin"}
    assert file_exists(ID, "config.json")
    assert not file_exists(ID, "model.safetensors")
    files = {file.path: file for file in HfApi(endpoint=hub.endpoint).list_repo_tree(ID, recursive=True)}
    assert files["nested/pytorch_model.bin"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()  # type: ignore[union-attr]
    assert files["config.json"].lfs is None  # type: ignore[union-attr]


def test_a_snapshot_holds_every_file(hub: HubServer, repo: Repo) -> None:
    folder = Path(snapshot_download(ID))
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "nested" / "pytorch_model.bin").read_bytes() == WEIGHTS


def test_a_pinned_revision_is_served_after_main_has_moved(hub: HubServer, repo: Repo) -> None:
    old = repo.refs["v1"] = repo.refs["main"]
    new = repo.commit({"config.json": b"new", "nested/pytorch_model.bin": None})
    assert new != old
    assert [download("config.json", revision) for revision in (None, new, old, "v1")] == [b"new", b"new"] + [CONFIG] * 2
    assert (repo.read("config.json"), repo.read("config.json", "v1")) == (b"new", CONFIG)
    assert model_info(ID, revision="v1").sha == old
    assert list_repo_files(ID) == ["config.json"]
    with pytest.raises(RemoteEntryNotFoundError):
        download("nested/pytorch_model.bin")


@pytest.mark.parametrize("path", ["config.json", "nested/pytorch_model.bin"])
def test_the_cache_serves_when_the_server_is_gone(hub: HubServer, repo: Repo, path: str) -> None:
    first = hf_hub_download(ID, path)
    hub.stop()
    assert hf_hub_download(ID, path) == first
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(ID, "README.md")
    hub.start()
    assert file_exists(ID, path)  # on the same port


def test_an_unchanged_file_is_not_downloaded_twice(hub: HubServer, repo: Repo) -> None:
    download("nested/pytorch_model.bin")
    download("nested/pytorch_model.bin")
    assert len(hub.seen("^GET .*pytorch_model")) == 1


def test_nothing_is_asked_offline(hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    download("config.json")
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download("config.json") == CONFIG
    with pytest.raises(LocalEntryNotFoundError):
        download("nested/pytorch_model.bin")
    assert len(hub.requests) == asked


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


def test_an_ordered_refusal_comes_as_often_as_ordered(hub: HubServer, repo: Repo) -> None:
    hub.faults.append(Fault("^HEAD .*config", times=2, error=HubError(503, "down")))
    assert download("config.json") == CONFIG
    assert len(hub.seen("^HEAD .*config")) == 3

    hub.faults.append(Fault("^HEAD .*pytorch_model", times=math.inf, error=HubError(503, "down")))
    with pytest.raises(LocalEntryNotFoundError) as caught:
        download("nested/pytorch_model.bin")
    assert "down" in str(caught.value.__cause__)


def test_a_cut_download_goes_on_where_it_broke_off(hub: HubServer) -> None:
    chunk = constants.DOWNLOAD_CHUNK_SIZE
    content = b"0123456789abcdef" * (chunk // 16) + b"the end"
    hub.repo(ID, {"pytorch_model.bin": content})
    hub.faults.append(Fault("pytorch_model", cut=chunk + 3))
    assert download("pytorch_model.bin") == content
    assert [request.headers.get("range") for request in hub.seen("^GET .*pytorch")] == [None, f"bytes={chunk}-"]


def test_an_early_cut_starts_again(hub: HubServer, repo: Repo) -> None:
    hub.faults.append(Fault("pytorch_model", cut=1000))
    assert download("nested/pytorch_model.bin") == WEIGHTS
    assert [request.headers.get("range") for request in hub.seen("^GET .*pytorch")] == [None, None]


def test_a_corrupt_file_has_the_right_size_and_the_wrong_bytes(hub: HubServer, repo: Repo) -> None:
    hub.faults.append(Fault("pytorch_model", corrupt=(2, 5)))
    got = download("nested/pytorch_model.bin")
    assert got == WEIGHTS[:2] + bytes(255 - byte for byte in WEIGHTS[2:5]) + WEIGHTS[5:]


def test_a_fresh_process_finds_the_server_through_its_environment(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    code = (
        "import json, huggingface_hub as h; "
        f"path = h.hf_hub_download({ID!r}, 'nested/pytorch_model.bin'); print(json.dumps([path, h.whoami()['name']]))"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    env = hub.env(tmp_path / "other", token="hf_me")
    result = subprocess.run(run, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    path, name = json.loads(result.stdout)
    assert (Path(path).read_bytes(), name) == (WEIGHTS, "me")
    assert Path(path).is_relative_to(tmp_path / "other" / "hub")


def test_timm_loads_from_it(hub: HubServer, repo: Repo) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save
    from timm.models import load_model_config_from_hf, load_state_dict_from_hf

    config = {"architecture": "timesformer_tiny_divided", "num_classes": 5, "pretrained_cfg": {}}
    repo.commit({"config.json": json.dumps(config).encode()})
    old = repo.commit({"model.safetensors": save({"weight": torch.ones(3)})})
    repo.commit({"model.safetensors": save({"weight": torch.zeros(3)})})
    assert load_model_config_from_hf(ID)[1] == "timesformer_tiny_divided"
    assert load_state_dict_from_hf(ID)["weight"].sum() == 0
    assert load_state_dict_from_hf(f"{ID}@{old}")["weight"].sum() == 3


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
    assert download("model.safetensors", repo_id="me/mine") == large
    (put,) = hub.seen("^PUT")
    assert put.headers["host"] == f"localhost:{hub.port}"
    assert "authorization" not in put.headers
    assert all(request.headers["authorization"] == "Bearer hf_me" for request in hub.seen("^POST"))
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
@pytest.mark.parametrize(
    "fault",
    [
        Fault("^PUT /storage", error=HubError(403, "the upload expired")),
        Fault("^PUT /storage", times=math.inf, cut=100_000),
        Fault("/lfs/verify", error=HubError(404, "Object does not exist")),
        Fault("/commit/main", error=HubError(500, "down")),
    ],
    ids=["refused", "cut", "unverified", "uncommitted"],
)
def test_an_interrupted_upload_leaves_the_revision_as_it_was(hub: HubServer, me: HfApi, fault: Fault) -> None:
    repo = hub.repo("me/mine", {"config.json": CONFIG, "model.bin": WEIGHTS})
    before, new = repo.refs["main"], WEIGHTS * 100
    hub.faults.append(Fault(fault.match, fault.times, fault.error, fault.cut))
    with pytest.raises((RuntimeError, HfHubHTTPError)):
        me.upload_file(path_or_fileobj=new, path_in_repo="model.bin", repo_id="me/mine")
    assert repo.refs["main"] == before
    assert (len(repo.commits), download("model.bin", repo_id="me/mine")) == (1, WEIGHTS)

    hub.faults.clear()  # and it succeeds when tried again
    me.upload_file(path_or_fileobj=new, path_in_repo="model.bin", repo_id="me/mine")
    assert download("model.bin", repo_id="me/mine") == new


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
