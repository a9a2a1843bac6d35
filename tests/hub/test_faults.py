"""What goes wrong between a user and the Hub, by every way to it: one line, within seconds, that says what it is.

The client's own pauses between its tries are left in here.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import timm
from hub_server import Fault, HubError, HubServer
from huggingface_hub import constants
from small_models import tiny

from timesformer_zoo import (
    DownloadError,
    TimeSformer,
    TimesformerZooError,
    UploadError,
    WriteError,
    load_from_transformers,
    load_model,
    predict,
    push_to_hf_hub,
    save_pretrained,
)
from timesformer_zoo_cli import main

ID = "me/mine"
SECONDS = 5  # until the message is there
LOGIN = "log in with `hf auth login`"
DENIED = "there is no such repository, or it is private"


def always(**fault: object) -> Fault:
    return Fault("", times=math.inf, **fault)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """A fault, and what its line must say: which it is, and what to do."""

    which: str
    what_to_do: str
    token: str | None = None
    repo: str | None = None  # what the repository is: missing, private or gated
    fault: Fault | None = None  # on every request
    stopped: bool = False
    endpoint: str | None = None
    offline: bool = False


CASES = {
    "missing": Case(DENIED, "Check the name; if it is private, log in", repo="missing"),
    "missing, logged in": Case(DENIED, "Check the name", token="hf_other", repo="missing"),
    "private": Case(DENIED, LOGIN, repo="private"),
    "private, of another": Case(DENIED, f"{LOGIN} as somebody who may read it", token="hf_other", repo="private"),
    "gated": Case("it is gated", "Accept its terms at {endpoint}/me/mine, then log in", repo="gated"),
    "gated, not accepted": Case("it is gated", "Accept its terms at", token="hf_other", repo="gated"),
    "forbidden": Case("access is forbidden (HTTP 403)", "right to it", fault=always(error=HubError(403, "no"))),
    "a wrong token": Case("the token is not accepted (HTTP 401)", "Log in again", token="hf_wrong"),
    "too many requests": Case(
        "too many requests (HTTP 429)", "Try again in 60 s; ", fault=always(error=HubError(429, "slow", retry_after=60))
    ),
    "500": Case("a fault of its own (HTTP 500)", "Try again later", fault=always(error=HubError(500, "oh"))),
    "no answer": Case("no answer in time", "HF_HUB_ETAG_TIMEOUT=30", fault=always(silent=True)),
    "refused": Case("there is no connection (", "Connect and retry", stopped=True),
    "no such host": Case("there is no connection (", "Connect and retry", endpoint="http://hub.invalid"),
    "offline": Case("HF_HUB_OFFLINE is on", "Unset it, or fetch the files elsewhere", offline=True),
}
every_fault = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tiny(), tmp_path_factory.mktemp("models") / "mine")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def broken(
    case: Case, hub: HubServer, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Break the Hub as the case says; then checks a message."""
    hub.connect(monkeypatch, tmp_path / "home", case.token, sleepless=False)
    if case.repo != "missing":
        hub.repo(ID, files, private=case.repo == "private", gated=case.repo == "gated")
    if case.fault:
        hub.faults.append(Fault("", times=math.inf, error=case.fault.error, silent=case.fault.silent))
    if case.stopped:
        hub.stop()
    if case.endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", case.endpoint)
        template = case.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if case.offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()

    def check(message: str) -> None:
        assert time.monotonic() - start < SECONDS
        assert case.which in message
        assert case.what_to_do.format(endpoint=hub.endpoint) in message
        assert message.endswith(".")
        assert "\n" not in message
        assert (case.token or "hf_") not in message

    return check


def by_name() -> TimeSformer:
    """A registered name, whose published weights are taken to be those of `tiny`."""
    small = dict(img_size=32, num_frames=4, embed_dim=32, depth=2, num_heads=4)
    overlay = dict(hf_hub_id=ID, num_classes=5)
    return timm.create_model("timesformer_base_divided.k400", pretrained=True, pretrained_cfg_overlay=overlay, **small)


READERS: dict[str, Callable[[], object]] = {
    "by name": by_name,
    "load_model": lambda: load_model(f"hf-hub:{ID}"),
}


@every_fault
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_model_that_cannot_be_had(read: Callable[[], object], case: Case, broken: Callable[[str], None]) -> None:
    with pytest.raises(DownloadError) as caught:
        read()
    broken(str(caught.value))
    assert ID in str(caught.value)
    assert str(constants.HF_HUB_CACHE) in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("case", [CASES["gated"], CASES["refused"]], ids=["gated", "refused"])
@pytest.mark.parametrize("read", [lambda: load_from_transformers(ID), lambda: predict(f"hf-hub:{ID}", "video.mp4")])
def test_so_by_every_other_way(read: Callable[[], object], case: Case, broken: Callable[[str], None]) -> None:
    with pytest.raises(DownloadError) as caught:
        read()
    broken(str(caught.value))


VERBS = {
    "classify": ["classify", "{video}", "--model", f"hf-hub:{ID}"],
    "evaluate": ["evaluate", f"hf-hub:{ID}", "{videos}"],
    "finetune": ["finetune", "{videos}", "--model", f"hf-hub:{ID}", "--val", "none", "--out", "{out}"],
    "push": ["push", f"hf-hub:{ID}", "me/copy"],
}


@pytest.mark.parametrize("case", [CASES["gated"], CASES["refused"]], ids=["gated", "refused"])
@pytest.mark.parametrize("verb", VERBS)
def test_the_command_prints_one_line(
    verb: str,
    case: Case,
    broken: Callable[[str], None],
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "videos" / "run").mkdir(parents=True)
    (tmp_path / "videos" / "run" / "1.mp4").write_bytes(video.read_bytes())
    places = {"video": video, "videos": tmp_path / "videos", "out": tmp_path / "out"}
    assert main([part.format(**places) for part in VERBS[verb]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"timesformer-zoo {verb}: {ID} could not be downloaded: ")
    broken(line)


PUBLISHING = {
    "not logged in": Case("nobody is logged in", "Log in with `hf auth login`, or set HF_TOKEN"),
    **{name: replace(case, token=case.token or "hf_me") for name, case in CASES.items() if case.repo is None},
}


@pytest.mark.parametrize("case", PUBLISHING.values(), ids=PUBLISHING.keys())
def test_a_model_that_cannot_be_published(
    case: Case, broken: Callable[[str], None], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UploadError) as caught:
        push_to_hf_hub(tiny(), ID)
    broken(str(caught.value))
    assert caught.value.__cause__ is not None
    capsys.readouterr()
    assert main(["push", str(files), ID]) == 1
    assert capsys.readouterr().err == f"timesformer-zoo push: {caught.value}\n"


def test_a_fault_of_the_server_that_passes_is_not_seen(
    hub: HubServer, files: Path, tmp_path: Path, monkeypatch
) -> None:
    hub.connect(monkeypatch, tmp_path / "home")
    hub.repo(ID, files)
    hub.faults.append(Fault("^HEAD", error=HubError(504, "once")))
    assert load_model(f"hf-hub:{ID}").num_classes == 5


@pytest.mark.parametrize("case", [CASES["500"], CASES["no answer"], CASES["gated"]], ids=["500", "no answer", "gated"])
def test_what_is_in_the_cache_needs_no_hub(
    case: Case, hub: HubServer, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.connect(monkeypatch, tmp_path / "home", sleepless=False)
    repo = hub.repo(ID, files)
    assert load_model(f"hf-hub:{ID}").num_classes == 5
    repo.gated = case.repo == "gated"
    if case.fault:
        hub.faults.append(Fault("", times=math.inf, error=case.fault.error, silent=case.fault.silent))
    assert by_name().num_classes == 5


def test_what_is_our_own_mistake_is_not_put_down_to_the_network(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.connect(monkeypatch, tmp_path / "home", token="hf_me")
    for mistake in (TypeError("ours"), RuntimeError("ours"), FileNotFoundError(2, "No such file", "/elsewhere/x")):
        for name in ("hf_hub_download", "get_hf_file_metadata"):
            with monkeypatch.context() as patch:

                def fail(*args: object, mistake: Exception = mistake, **options: object) -> None:
                    raise mistake

                patch.setattr(f"huggingface_hub.{name}", fail)
                hub.repo(ID, {"config.json": b"{}"})
                with pytest.raises(type(mistake)) as caught:
                    load_model(f"hf-hub:{ID}")
                assert caught.value is mistake
                assert not isinstance(caught.value, TimesformerZooError)


def test_a_cache_that_cannot_take_it_is_said(
    hub: HubServer, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.connect(monkeypatch, tmp_path / "home")
    hub.repo(ID, files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"home/hub could not be written: File too large \(.* are free there\)"):
            load_model(f"hf-hub:{ID}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_model(f"hf-hub:{ID}").num_classes == 5
