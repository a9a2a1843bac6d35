"""`pretrained=True` from the Hub: the real client, a local server, repositories laid out as the published ones.

Small models stand for the big ones, but for one: sizes are given to `create_model`, all else is as for the real thing.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import Fault, HubServer, Repo
from huggingface_hub import constants
from safetensors.torch import save, save_file
from small_models import equal
from transformers import TimesformerConfig, TimesformerForVideoClassification

from timesformer_zoo import CheckpointError, DownloadError, label_set, model_labels

NAME = "timesformer_base_divided"
ID = "facebook/timesformer-base-finetuned-k400"
SMALL = dict(img_size=32, embed_dim=32, depth=2, num_heads=2)
PREPROCESSOR = {"image_processor_type": "VideoMAEImageProcessor", "image_mean": [0.45] * 3, "image_std": [0.225] * 3}


def peer(seed: int = 0, full_size: bool = False) -> TimesformerForVideoClassification:
    """A model as transformers makes it, every weight random."""
    small = dict(image_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    labels = dict(enumerate(label_set("kinetics400")))
    config = TimesformerConfig(
        id2label=labels, label2id={v: k for k, v in labels.items()}, **({} if full_size else small)
    )
    with torch.device("meta"):  # transformers' own initialisation is slow, and zero between the steps
        model = TimesformerForVideoClassification(config).eval()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.normal_(1.0 if "layernorm" in key and key.endswith("weight") else 0.0, 0.02, generator=generator)
    return model


def files(model: TimesformerForVideoClassification, folder: Path, kinds: str = "bin") -> dict[str, bytes | Path]:
    """A repository's files, as published: config, preprocessor, and weights as .bin, as safetensors, or as both."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"architectures": ["TimesformerForVideoClassification"]}
    content: dict[str, bytes | Path] = {
        ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# TimeSformer\n",
        "config.json": json.dumps(config, default=str).encode(),
        "preprocessor_config.json": json.dumps(PREPROCESSOR).encode(),
    }
    if "bin" in kinds:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        content["pytorch_model.bin"] = folder / "pytorch_model.bin"
    if "safetensors" in kinds:
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        content["model.safetensors"] = folder / "model.safetensors"
    return content


def assert_same(model: torch.nn.Module, theirs: TimesformerForVideoClassification, atol: float = 1e-5) -> None:
    size = theirs.config.image_size
    x = torch.randn(1, 3, 8, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(x.transpose(1, 2)).logits
        assert expected.std() > 0.01
        torch.testing.assert_close(model.eval()(x), expected, atol=atol, rtol=0)


def create(**options: Any) -> torch.nn.Module:
    return timm.create_model(NAME, pretrained=True, **{**SMALL, **options})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.connect(monkeypatch, home)
        yield server


@pytest.fixture
def theirs() -> TimesformerForVideoClassification:
    return peer()


@pytest.fixture
def repo(hub: HubServer, theirs: TimesformerForVideoClassification, tmp_path: Path) -> Repo:
    return hub.repo(ID, files(theirs, tmp_path / "published"))


@pytest.mark.slow
def test_the_true_size(tmp_path: Path) -> None:
    """486 MB, as `.bin` alone: downloaded with a bar by a process of its own, then from the cache, server gone."""
    theirs = peer(full_size=True)
    content = files(theirs, tmp_path / "published")
    assert isinstance(content["pytorch_model.bin"], Path)
    assert content["pytorch_model.bin"].stat().st_size == pytest.approx(486_000_000, rel=0.01)
    x = torch.randn(1, 3, 8, 224, 224, generator=torch.Generator().manual_seed(1))
    code = (
        "import timm, timesformer_zoo, torch\n"
        f"model = timm.create_model({NAME!r}, pretrained=True).eval()\n"
        "x = torch.randn(1, 3, 8, 224, 224, generator=torch.Generator().manual_seed(1))\n"
        "with torch.inference_mode(): torch.save(model(x), 'logits.pt')\n"
    )
    with torch.inference_mode():
        expected = theirs(x.transpose(1, 2)).logits
    with HubServer() as hub:
        hub.repo(ID, content)
        for round_ in ("downloaded", "cached"):
            run = subprocess.run(
                [sys.executable, "-c", code],
                env=hub.env(tmp_path / "home") | {"TQDM_POSITION": "-1"},  # a bar, though this is no terminal
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert run.returncode == 0, run.stderr
            assert ("pytorch_model.bin: 100%" in run.stderr) == (round_ == "downloaded")
            torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-4, rtol=0)
            hub.stop()


# ---- what comes down ----


@pytest.mark.parametrize("kinds", ["bin", "safetensors", "bin safetensors"])
def test_weights_and_labels(kinds: str, hub: HubServer, theirs: TimesformerForVideoClassification, home: Path) -> None:
    hub.repo(ID, files(theirs, home.parent / "published", kinds))
    model = create()
    assert_same(model, theirs)
    assert model_labels(model) == label_set("kinetics400")
    got = [request.path.rpartition("/")[2] for request in hub.seen("^GET .*(bin|safetensors)$")]
    assert got == ["model.safetensors" if "safetensors" in kinds else "pytorch_model.bin"]


def test_the_cache_is_enough_when_the_server_is_gone(hub: HubServer, repo: Repo) -> None:
    first = create()
    hub.stop()
    assert equal(create().state_dict(), first.state_dict())


def test_a_cache_that_does_not_know_what_is_not_there_is_enough_too(hub: HubServer, repo: Repo, home: Path) -> None:
    """Filled by somebody who asked for the .bin alone: whether the repository has safetensors is nowhere written."""
    first = create()
    (absent,) = home.rglob(".no_exist/*/model.safetensors")
    absent.unlink()
    hub.stop()
    assert equal(create().state_dict(), first.state_dict())


def test_nothing_is_downloaded_twice(hub: HubServer, repo: Repo) -> None:
    create()
    create(num_classes=3)
    assert len(hub.seen("^GET .*bin")) == 1


def test_a_cache_of_ones_own(hub: HubServer, repo: Repo, tmp_path: Path, home: Path) -> None:
    create(cache_dir=tmp_path / "own")
    assert list((tmp_path / "own").rglob("pytorch_model.bin"))
    assert not list(home.rglob("pytorch_model.bin"))
    hub.stop()
    create(cache_dir=tmp_path / "own")
    with pytest.raises(DownloadError, match=str(tmp_path / "third")):
        create(cache_dir=tmp_path / "third")


def test_a_pinned_revision(hub: HubServer, repo: Repo, theirs: TimesformerForVideoClassification, home: Path) -> None:
    old = repo.refs["v1"] = repo.refs["main"]
    newer = peer(seed=5)
    repo.commit(files(newer, home.parent / "newer"))
    assert_same(create(), newer)
    for revision in ("v1", old):
        assert_same(create(pretrained_cfg_overlay=dict(hf_hub_id=f"{ID}@{revision}")), theirs)
    with pytest.raises(DownloadError, match=r"no such revision.*what follows the @"):
        create(pretrained_cfg_overlay=dict(hf_hub_id=f"{ID}@v9"))


# ---- what goes wrong ----


def test_a_cut_download_goes_on_where_it_broke_off(
    hub: HubServer, repo: Repo, theirs: TimesformerForVideoClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**15)
    hub.faults.append(Fault("GET .*bin", cut=2**16 + 5))
    assert_same(create(), theirs)
    assert [request.headers.get("range") for request in hub.seen("^GET .*bin")] == [None, f"bytes={2**16}-"]


def test_a_repository_without_weights(hub: HubServer, repo: Repo) -> None:
    repo.commit({"pytorch_model.bin": None})
    with pytest.raises(DownloadError, match=rf"{NAME}\.k400 .*{ID} has no model.safetensors or pytorch_model.bin\. "):
        create()


def test_offline_by_choice_asks_nobody(hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is on.* Unset it, or fetch"):
        create()
    assert not hub.requests


@pytest.mark.parametrize("kinds", ["bin", "safetensors"])
@pytest.mark.parametrize("where", ["start", "middle"])
def test_a_file_damaged_on_its_way_is_refused_and_comes_again(
    kinds: str, where: str, hub: HubServer, theirs: TimesformerForVideoClassification, home: Path
) -> None:
    # Of the right size and, in the middle, with nothing to tell it by but its hash.
    hub.repo(ID, files(theirs, home.parent / "published", kinds))
    at = {"start": 0, "middle": 60_000}[where]
    hub.faults.append(Fault(f"GET .*{kinds}", corrupt=(at, at + 8)))
    with pytest.raises(DownloadError, match=r"damaged on its way .* it has been removed: load again"):
        create()
    assert_same(create(), theirs)


def test_a_file_damaged_in_the_cache_is_refused_too(
    hub: HubServer, repo: Repo, theirs: TimesformerForVideoClassification, home: Path
) -> None:
    create()
    (file,) = home.rglob("pytorch_model.bin")
    content = bytearray(file.read_bytes())
    content[:4] = b"\0\0\0\0"
    file.resolve().write_bytes(content)
    with pytest.raises(DownloadError, match="damaged"):
        create()
    assert_same(create(), theirs)


def test_a_file_that_was_published_broken_is_named(hub: HubServer, repo: Repo, home: Path) -> None:
    repo.commit({"pytorch_model.bin": b"<html>Sorry</html>"})
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not a weight file but a web page") as caught:
        create()
    (file,) = home.rglob("pytorch_model.bin")
    assert f"delete {file.resolve()}" in str(caught.value)


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run by a pickle",)


def test_a_pickle_that_runs_code_is_refused(
    hub: HubServer, repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weights": _Command()}, tmp_path / "evil.bin")
    repo.commit({"pytorch_model.bin": tmp_path / "evil.bin"})
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: refused: .*sandbox"):
        create()
    assert "run by a pickle" not in capsys.readouterr().out


def test_weights_of_another_model_are_refused(hub: HubServer, repo: Repo) -> None:
    repo.commit({"model.safetensors": save({"weight": torch.zeros(3)})})
    with pytest.raises(CheckpointError, match="weight"):
        create()


def test_a_local_file_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mine\.pth: no such file"):
        create(pretrained_cfg_overlay=dict(file=str(tmp_path / "mine.pth")))
    (tmp_path / "mine.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=r"mine\.safetensors: "):
        create(pretrained_cfg_overlay=dict(file=str(tmp_path / "mine.safetensors")))
