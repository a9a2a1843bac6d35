"""Models by name, and repositories and folders of transformers, against transformers itself."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from hub_server import Fault, HubServer
from small_models import equal, tiny
from transformers import TimesformerConfig, TimesformerForVideoClassification, VideoMAEImageProcessor, ViTConfig

from timesformer_zoo import (
    CheckpointError,
    DownloadError,
    clip_spec,
    load_from_transformers,
    load_model,
    save_pretrained,
)
from timesformer_zoo.hub.load import model_digest
from timesformer_zoo.labels import known_labels, label_set, model_labels

LABELS = {0: "cat", 1: "dog", 2: "bird"}


def peer(**changes) -> TimesformerForVideoClassification:
    """A small model of transformers', every weight random."""
    sizes = dict(image_size=32, num_frames=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    config = TimesformerConfig(**{**sizes, "intermediate_size": 64, "id2label": LABELS, **changes})
    model = TimesformerForVideoClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def written(model: TimesformerForVideoClassification, folder: Path, mean: float | None = 0.45) -> Path:
    """The folder that transformers itself writes for the model; `mean` None: without a preprocessor."""
    model.save_pretrained(folder)
    if mean is not None:
        VideoMAEImageProcessor(image_mean=[mean] * 3, image_std=[0.225] * 3).save_pretrained(folder)
    return folder


def assert_same(model, theirs: TimesformerForVideoClassification, bgr: bool = False) -> None:
    x = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs((x.flip(1) if bgr else x).transpose(1, 2)).logits
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home")
        yield server


@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time"])
def test_a_folder_of_transformers(attention: str, tmp_path: Path) -> None:
    theirs = peer(attention_type=attention)
    model = load_from_transformers(written(theirs, tmp_path, mean=0.3))
    assert_same(model, theirs)
    assert not model.training
    assert model_labels(model) == ["cat", "dog", "bird"]
    spec = clip_spec(model)
    assert spec.mean == (0.3, 0.3, 0.3)
    assert spec.std == (0.225, 0.225, 0.225)
    assert (spec.num_frames, spec.size) == (4, (32, 32))


def test_it_can_be_saved_as_ours_and_keeps_everything(tmp_path: Path) -> None:
    theirs = peer()
    first = load_from_transformers(written(theirs, tmp_path / "theirs", mean=0.3))
    again = load_model(save_pretrained(first, tmp_path / "ours"))
    assert equal(again.state_dict(), first.state_dict())
    assert model_labels(again) == ["cat", "dog", "bird"]
    assert clip_spec(again) == clip_spec(first)


def test_classes_that_nobody_named_have_no_names(tmp_path: Path) -> None:
    model = load_from_transformers(written(peer(id2label=None, num_labels=3), tmp_path))
    assert known_labels(model) is None
    assert model_labels(model) == ["class 0", "class 1", "class 2"]


def test_bgr_weights_are_reversed_where_the_caller_says(tmp_path: Path) -> None:
    theirs = peer()
    assert_same(load_from_transformers(written(theirs, tmp_path), bgr=True), theirs, bgr=True)


def test_without_a_preprocessor_the_authors_mean_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_from_transformers(written(peer(), tmp_path, mean=None))
    assert clip_spec(model).mean == (0.45, 0.45, 0.45)
    assert "says nothing of mean and std" in caplog.text


def test_a_repository_with_its_licence_and_revision(hub: HubServer, tmp_path: Path) -> None:
    theirs = peer()
    repo = hub.repo("me/tuned", written(theirs, tmp_path / "theirs"))
    repo.commit({"README.md": b"---\nlicense: mit\n---\n# Tuned\n"})
    old = repo.refs["main"]
    for name in ("me/tuned", "hf-hub:me/tuned"):
        model = load_from_transformers(name)
        assert_same(model, theirs)
        assert model.pretrained_cfg["license"] == "mit"
    repo.commit(written(peer(id2label={0: "a", 1: "b"}), tmp_path / "newer"))
    assert load_from_transformers("me/tuned").num_classes == 2
    assert_same(load_model(f"hf-hub:me/tuned@{old}"), theirs)


def test_a_digest_tells_what_was_trained_anew(hub: HubServer, tmp_path: Path) -> None:
    model = tiny()
    folder = save_pretrained(model, tmp_path / "mine")
    repo = hub.repo("me/mine", folder)
    before = model_digest("hf-hub:me/mine")
    assert before == model_digest(folder) == model_digest(f"local-dir:{folder}")
    repo.commit({"README.md": b"another card"})
    assert model_digest("hf-hub:me/mine") == before
    torch.nn.init.ones_(model.head.bias)
    save_pretrained(model, folder)
    assert model_digest(folder) != before
    repo.commit(folder)
    assert model_digest("hf-hub:me/mine") == model_digest(folder)
    assert model_digest("timesformer_base_divided.k400") is None
    with pytest.raises(ValueError, match="there is no such folder"):
        model_digest("local-dir:nowhere")


def test_a_repository_of_the_table_is_that_checkpoint_with_its_own_labels(hub: HubServer, tmp_path: Path) -> None:
    names = label_set("something_something_v2")
    names[0] = "Their own spelling"
    theirs = peer(id2label=dict(enumerate(names)), num_labels=174)
    hub.repo("facebook/timesformer-base-finetuned-ssv2", written(theirs, tmp_path / "theirs"))
    model = load_model("hf-hub:facebook/timesformer-base-finetuned-ssv2")
    assert_same(model, theirs, bgr=True)
    assert model_labels(model) == names
    assert clip_spec(model).sampling == "uniform"
    assert not clip_spec(model).flip
    assert model.pretrained_cfg["license"] == "cc-by-nc-4.0"


def test_the_cache_serves_all_of_it_when_the_server_is_gone(hub: HubServer, tmp_path: Path) -> None:
    theirs = peer()
    hub.repo("me/tuned", written(theirs, tmp_path / "theirs"))
    first = load_from_transformers("me/tuned")
    hub.stop()
    again = load_from_transformers("me/tuned")
    assert equal(again.state_dict(), first.state_dict())
    assert clip_spec(again) == clip_spec(first)
    with pytest.raises(DownloadError, match="me/other"):
        load_model("hf-hub:me/other")


def test_other_models_are_refused(hub: HubServer, tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(CheckpointError, match="expected a config of model_type 'timesformer'; got 'vit'"):
        load_model(tmp_path / "vit")
    hub.repo("me/vit", tmp_path / "vit")
    with pytest.raises(CheckpointError, match="got 'vit'"):
        load_model("hf-hub:me/vit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty has no config\.json"):
        load_model(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{not json")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        load_model(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    with pytest.raises(CheckpointError, match="resnet18"):
        load_model(tmp_path / "empty")


@pytest.mark.parametrize("form", ["{}", "local-dir:{}"])
def test_a_folder_of_ours_by_its_path(form: str, tmp_path: Path) -> None:
    model = tiny("axial")
    save_pretrained(model, tmp_path)
    again = load_model(form.format(tmp_path))
    assert equal(again.state_dict(), model.state_dict())
    assert not again.training


def by_timm(name: str) -> torch.nn.Module:
    return timm.create_model(name, pretrained=True)


@pytest.mark.parametrize("load", [load_model, by_timm])
def test_a_damaged_folder_names_the_file(load, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*download it again"):
        load(f"local-dir:{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a folder of weights has one of .*README\.md"):
        load(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("load", [load_model, by_timm])
def test_a_repository_of_ours_and_what_goes_wrong_with_it(load, hub: HubServer, tmp_path: Path) -> None:
    model = tiny("axial")
    repo = hub.repo("me/mine", save_pretrained(model, tmp_path / "mine"))
    hub.faults.append(Fault("GET .*safetensors", corrupt=(5000, 5008)))
    with pytest.raises(DownloadError, match=r"damaged on its way .* it has been removed: load again"):
        load("hf-hub:me/mine")
    assert equal(load("hf-hub:me/mine").state_dict(), model.state_dict())
    repo.commit({"model.safetensors": b"\0" * 1000})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*To download it again, delete"):
        load("hf-hub:me/mine")
    repo.commit({"model.safetensors": None})
    with pytest.raises(DownloadError, match=r"timesformer_\w+ could not be downloaded: me/mine has no model"):
        load("hf-hub:me/mine")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("timesformer_base_dividid", ValueError, "Did you mean timesformer_base_divided"),
        ("timesformer_base_divided.k500", ValueError, "Did you mean timesformer_base_divided.k"),
        ("vit_base_patch16_224", ValueError, "There is no model"),
        ("facebook/timesformer-base-finetuned-k400", ValueError, "hf-hub:OWNER/NAME"),
        ("timesformer_tiny_axial", CheckpointError, "There are no weights for timesformer_tiny_axial"),
    ],
)
def test_names_that_are_none(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(name)
