"""Saving and publishing, against what timm, transformers and the Hub's own client then load."""

import json
import math
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import Fault, HubError, HubServer
from huggingface_hub import ModelCard
from small_models import both_kinds, equal, tiny
from timm.models import PretrainedCfg
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

from timesformer_zoo import TimeSformer, UploadError, clip_spec, predict, push_to_hf_hub, save_pretrained
from timesformer_zoo.labels import known_labels, set_labels
from timesformer_zoo_cli import main

# The client itself passes the bytes of an upload to its HTTP library in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LABELS = ["run", "jump", "sit", "stand", "fall"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home", token="hf_me")
        yield server


def clip_for(model: TimeSformer) -> torch.Tensor:
    shape = (2, model.in_chans, model.num_frames, *model.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: TimeSformer) -> torch.Tensor:
    return model.eval()(clip_for(model))


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


# ---- save_pretrained ----


@both_kinds
def test_timm_loads_the_same_model_from_a_folder(mode: str, tmp_path: Path) -> None:
    model = tiny(mode, clip={"stride": 4})
    save_pretrained(model, tmp_path, labels=LABELS)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(logits(again), logits(model))
    assert again.model_args == model.model_args
    assert clip_spec(again) == clip_spec(model)
    assert known_labels(again) == LABELS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_every_constructor_argument_survives(tmp_path: Path) -> None:
    changes = dict(
        attention="axial",
        img_size=(32, 48),
        patch_size=(16, 8),
        num_frames=3,
        in_chans=4,
        num_classes=7,
        embed_dim=48,
        depth=1,
        num_heads=2,
        mlp_ratio=2.0,
        qkv_bias=False,
        patch_bias=False,
        pre_norm=True,
        norm_eps=1e-5,
        pre_norm_eps=1e-4,
        act_layer="quick_gelu",
        global_pool="avg",
        drop_rate=0.1,
        pos_drop_rate=0.11,
        proj_drop_rate=0.12,
        attn_drop_rate=0.13,
        drop_path_rate=0.14,
        dynamic_img_pad=True,
        time_interpolation="nearest",
        clip={"sampling": "uniform", "fuse": "softmax", "crops": 1},
    )
    arguments = signature(TimeSformer).parameters.keys() - {"weight_init", "device", "dtype"}
    assert changes.keys() == arguments
    model = tiny(**changes)
    again = timm.create_model(f"local-dir:{save_pretrained(model, tmp_path)}", pretrained=True)
    assert again.model_args == model.model_args == json.loads(json.dumps(changes))
    assert torch.equal(logits(again), logits(model))


def test_a_model_that_was_changed_after_it_was_made(tmp_path: Path) -> None:
    model = timm.create_model("timesformer_tiny_divided", img_size=32, depth=2, clip={"stride": 4})
    model.reset_classifier(3, global_pool="avg")
    model.set_input_size(img_size=(48, 64), num_frames=6)
    again = timm.create_model(f"local-dir:{save_pretrained(model, tmp_path, labels=list('abc'))}", pretrained=True)
    assert (again.img_size, again.num_frames, again.num_classes, again.global_pool) == ((48, 64), 6, 3, "avg")
    assert torch.equal(logits(again), logits(model))
    assert known_labels(again) == ["a", "b", "c"]
    # And it is the start of another, as any checkpoint.
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=9, num_frames=8, img_size=64)
    assert known_labels(other) is None
    assert (other.num_classes, other.num_frames, other.img_size) == (9, 8, (64, 64))


def test_saved_labels_are_those_of_the_present_head(tmp_path: Path) -> None:
    model = tiny()
    set_labels(model, LABELS)
    assert config_of(save_pretrained(model, tmp_path))["label_names"] == LABELS
    assert config_of(save_pretrained(model, tmp_path, labels={0: "zero"}))["label_names"][:2] == ["zero", "class 1"]
    model.reset_classifier(5)
    assert "label_names" not in config_of(save_pretrained(model, tmp_path))
    with pytest.raises(ValueError, match="Got 2 labels for 5 classes"):
        save_pretrained(model, tmp_path, labels=["a", "b"])


def test_a_tuned_model_has_neither_tag_nor_labels_of_what_it_started_from(tmp_path: Path) -> None:
    small = dict(img_size=32, embed_dim=32, depth=1, num_heads=2)
    start = timm.create_model("timesformer_base_divided.ssv2", **small).state_dict()
    model = timm.create_model(
        "timesformer_base_divided.ssv2", pretrained=True, pretrained_cfg_overlay=dict(state_dict=start), **small
    )
    assert known_labels(model) is not None
    model.reset_classifier(174)
    config = config_of(save_pretrained(model, tmp_path))
    assert "something" not in json.dumps(config).lower()
    assert config["model_args"]["clip"]["sampling"] == "uniform"
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert known_labels(again) is None
    assert equal(again.state_dict(), model.state_dict())


def test_timm_accepts_every_field_of_the_config(tmp_path: Path) -> None:
    model = timm.create_model("timesformer_tiny_divided")
    config = config_of(save_pretrained(model, tmp_path))
    assert config["architecture"] == "timesformer_tiny_divided"
    PretrainedCfg(**config["pretrained_cfg"])  # an unknown field is a TypeError
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["pretrained_cfg"]["mean"] == [0.45] * 3


def test_mean_and_std_come_back(tmp_path: Path) -> None:
    model = tiny(clip={"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]})
    again = timm.create_model(f"local-dir:{save_pretrained(model, tmp_path)}", pretrained=True)
    assert (clip_spec(again).mean, clip_spec(again).std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_what_could_not_be_loaded_again_is_refused(tmp_path: Path) -> None:
    fused = tiny().fuse()
    with pytest.raises(ValueError, match=r"lacks .* It looks fused: save it before fuse\(\)"):
        save_pretrained(fused, tmp_path)
    grown = tiny()
    grown.blocks[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"does not have \(blocks\.0\.extra"):
        save_pretrained(grown, tmp_path)
    with pytest.raises(TypeError, match="got DataParallel; give the model that is inside"):
        save_pretrained(torch.nn.DataParallel(tiny()), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# ---- also_transformers ----


@pytest.mark.parametrize("mode", ["divided", "joint"])
def test_one_folder_for_timm_and_transformers(mode: str, tmp_path: Path) -> None:
    model = tiny(mode, clip={"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
    save_pretrained(model, tmp_path, labels=LABELS, also_transformers=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(logits(again), logits(model))
    assert known_labels(again) == LABELS

    peer, report = AutoModelForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        theirs = peer.eval()(clip_for(model).transpose(1, 2)).logits
    torch.testing.assert_close(logits(model), theirs, atol=1e-5, rtol=0)
    assert peer.config.id2label == dict(enumerate(LABELS))
    for processor in (AutoImageProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert list(processor.image_mean) == [0.5] * 3
        assert list(processor.image_std) == [0.25] * 3
        assert dict(processor.crop_size) == {"height": 32, "width": 32}
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "transformers"


def test_what_transformers_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="transformers has no model of axial attention"):
        save_pretrained(tiny("axial"), tmp_path, also_transformers=True)
    assert not list(tmp_path.iterdir())


# ---- push_to_hf_hub ----


def test_elsewhere_the_model_has_the_same_logits_and_labels(hub: HubServer, video: Path) -> None:
    model = timm.create_model("timesformer_tiny_divided", depth=2, clip={"stride": 4, "clips": 2, "fuse": "softmax"})
    model.reset_classifier(5)
    model.set_input_size(num_frames=5, img_size=48)
    set_labels(model, LABELS)
    commit = push_to_hf_hub(model, "mine")  # without an owner: the token's
    assert commit.oid == hub.repos["me/mine"].refs["main"]
    again = timm.create_model("hf-hub:me/mine", pretrained=True)
    assert torch.equal(logits(again), logits(model))
    assert predict(again, video) == predict(model, video)


def test_nothing_but_plain_files_in_one_commit(hub: HubServer) -> None:
    push_to_hf_hub(tiny(), "me/mine", commit_message="First")
    repo = hub.repos["me/mine"]
    assert len(repo.commits) == 2  # the empty repository's, and ours
    files = repo.commits[repo.refs["main"]]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert len(hub.seen("POST .*/commit/main")) == 1
    assert not repo.private


def test_private_and_a_branch(hub: HubServer) -> None:
    push_to_hf_hub(tiny(), "me/mine", private=True)
    repo = hub.repos["me/mine"]
    assert repo.private
    main_before = repo.refs["v2"] = repo.refs["main"]
    push_to_hf_hub(tiny("joint"), "me/mine", revision="v2")
    assert repo.refs["main"] == main_before
    assert b'"joint"' in repo.read("config.json", "v2")


def test_the_token_is_neither_printed_nor_saved(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    push_to_hf_hub(tiny(), "me/mine", token="hf_me")
    hub.faults.append(Fault("preupload", times=math.inf, error=HubError(403, "no")))
    with pytest.raises(UploadError) as caught:
        push_to_hf_hub(tiny("joint"), "me/mine", token="hf_me")
    assert "hf_me" not in "".join(capfd.readouterr()) + str(caught.value)
    repo = hub.repos["me/mine"]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hf_me" in content for content in [*written, *map(repo.read, repo.commits[repo.refs["main"]])])


@pytest.mark.parametrize(
    "fault",
    [
        Fault("^PUT /storage", times=math.inf, cut=1000),
        Fault("^PUT /storage", times=math.inf, error=HubError(403, "the upload expired")),
        Fault("/commit/main", times=math.inf, error=HubError(500, "down")),
    ],
    ids=["cut", "refused", "uncommitted"],
)
def test_an_interrupted_push_leaves_the_previous_revision(hub: HubServer, fault: Fault) -> None:
    old, new = tiny(), tiny("joint", num_frames=6)
    push_to_hf_hub(old, "me/mine")
    before = dict(hub.repos["me/mine"].refs)
    hub.faults.append(fault)
    with pytest.raises(UploadError, match=r"^me/mine could not be published: "):
        push_to_hf_hub(new, "me/mine")
    hub.faults.clear()
    assert hub.repos["me/mine"].refs == before
    assert torch.equal(logits(timm.create_model("hf-hub:me/mine", pretrained=True)), logits(old))
    push_to_hf_hub(new, "me/mine")
    assert torch.equal(logits(timm.create_model("hf-hub:me/mine", pretrained=True)), logits(new))


def test_a_model_that_cannot_be_saved_makes_no_repository(hub: HubServer) -> None:
    with pytest.raises(ValueError, match="It looks fused"):
        push_to_hf_hub(tiny().fuse(), "me/mine")
    assert not hub.repos
    assert not hub.requests


def test_files_of_an_earlier_push_that_would_contradict_are_removed(hub: HubServer) -> None:
    hub.repo("me/mine", {"pytorch_model.bin": b"old", "data.txt": b"mine"})
    push_to_hf_hub(tiny(), "me/mine", also_transformers=True)
    repo = hub.repos["me/mine"]
    files = {"README.md", "config.json", "data.txt", "model.safetensors"}
    theirs = {"preprocessor_config.json", "video_preprocessor_config.json"}
    assert set(repo.commits[repo.refs["main"]]) == files | theirs
    push_to_hf_hub(tiny("axial"), "me/mine")
    assert set(repo.commits[repo.refs["main"]]) == files


def test_a_large_file_goes_to_the_storage_and_comes_back(hub: HubServer) -> None:
    model = tiny(embed_dim=256, depth=3)
    assert sum(p.numel() for p in model.parameters()) * 4 > 12_000_000
    push_to_hf_hub(model, "me/mine")
    assert len(hub.seen("^PUT /storage")) == 1
    assert equal(timm.create_model("hf-hub:me/mine", pretrained=True).state_dict(), model.state_dict())


def test_push_as_a_command(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    save_pretrained(model, tmp_path / "run")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n")
    options = ["--labels", str(tmp_path / "labels.txt"), "--metric", "accuracy=0.5", "--also-transformers"]
    assert main(["push", str(tmp_path / "run"), "me/mine", *options, "--license", "mit"]) == 0
    repo = hub.repos["me/mine"]
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.endpoint}/me/mine/commit/{repo.refs['main']}"
    again = timm.create_model("hf-hub:me/mine", pretrained=True)
    assert known_labels(again) == LABELS
    assert torch.equal(logits(again), logits(model))
    assert b"license: mit" in repo.read("README.md")
    assert main(["push", str(tmp_path / "run"), "me/mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["commit"] == repo.refs["main"]
    assert main(["push", str(tmp_path / "run"), "other/mine"]) == 1
    assert "403" in capsys.readouterr().err
