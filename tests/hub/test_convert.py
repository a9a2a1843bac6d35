"""Conversion of files, against the networks that read the result."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small_models import DATA, equal, tiny, tiny_vit
from transformers import TimesformerForVideoClassification

from timesformer_zoo import CheckpointError, load_model, save_pretrained
from timesformer_zoo.hub.convert import convert, model_of_file
from timesformer_zoo.labels import known_labels, model_labels, set_labels
from timesformer_zoo.weights.formats import from_native
from timesformer_zoo_cli import main

SMALL = dict(img_size=32, depth=1)
TINY = "timesformer_tiny_divided"


def published(name: str, form: str, path: Path, **changes) -> torch.nn.Module:
    """A model with random weights, and its file in a format."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**SMALL, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    weights = from_native(model.state_dict(), form, model.attention)
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    else:
        torch.save({"model_state": weights, "epoch": 15, "cfg": "TRAIN: …"}, path)
    return model


def clip_of(model) -> torch.Tensor:
    shape = (1, 3, model.num_frames, *model.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_transformers_agrees(folder: Path, model) -> TimesformerForVideoClassification:
    peer, report = TimesformerForVideoClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x = clip_of(model)
    torch.testing.assert_close(peer.eval()(x.transpose(1, 2)).logits, model(x), atol=1e-5, rtol=0)
    return peer


@pytest.mark.parametrize("form", ["the authors'", "mmaction2", "transformers", "native"])
@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_any_format_to_a_folder_that_transformers_and_timm_load(form: str, suffix: str, tmp_path: Path) -> None:
    model = published(TINY, form, tmp_path / f"in{suffix}", num_classes=6, num_frames=4)
    folder = convert(tmp_path / f"in{suffix}", tmp_path / "out", "transformers", model=TINY)
    assert_transformers_agrees(folder, model)
    again = load_model(folder)
    assert equal(again.state_dict(), model.state_dict())
    assert (again.num_frames, again.img_size, again.num_classes) == (4, (32, 32), 6)
    assert known_labels(again) is None


def test_a_name_with_a_tag_brings_labels_licence_and_the_order_of_colours(tmp_path: Path) -> None:
    model = published("timesformer_base_divided.ssv2", "the authors'", tmp_path / "SSv2.pyth")
    folder = convert(tmp_path / "SSv2.pyth", tmp_path / "out", "transformers", model="timesformer_base_divided.ssv2")
    again = load_model(folder)
    x = clip_of(model)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x.flip(1)), atol=1e-5, rtol=0)
    assert model_labels(again)[0] == "Approaching something with your camera"
    assert again.pretrained_cfg["license"] == "cc-by-nc-4.0"
    assert again.clip["sampling"] == "uniform"
    peer = assert_transformers_agrees(folder, again)
    assert peer.config.id2label[0] == "Approaching something with your camera"


def test_a_folder_of_ours_to_transformers_and_back(tmp_path: Path) -> None:
    model = tiny("joint", clip={"stride": 4})
    set_labels(model, list("abcde"))
    save_pretrained(model, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    peer = assert_transformers_agrees(tmp_path / "theirs", model)
    peer.save_pretrained(tmp_path / "resaved")  # transformers' own layout
    convert(tmp_path / "resaved", tmp_path / "back", "native")
    again = load_model(tmp_path / "back")
    assert equal(again.state_dict(), model.state_dict())
    assert model_labels(again) == list("abcde")


@pytest.mark.parametrize(("to", "key"), [("native", "pos_embed"), ("transformers", "timesformer.embeddings.cls_token")])
def test_a_file_holds_the_weights_alone(to: str, key: str, tmp_path: Path) -> None:
    model = published(TINY, "the authors'", tmp_path / "in.pyth")
    place = tmp_path / "new" / "out.safetensors"
    out = convert(tmp_path / "in.pyth", place, to, model=TINY)  # type: ignore[arg-type]
    assert key in load_file(out)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.safetensors"]
    assert equal(model_of_file(out, TINY).state_dict(), model.state_dict())


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    published(TINY, "the authors'", tmp_path / "in.pyth")
    (tmp_path / "out").mkdir()  # an empty folder is no obstacle
    for out in (tmp_path / "out", tmp_path / "out.safetensors"):
        convert(tmp_path / "in.pyth", out, "native", model=TINY)
        with pytest.raises(FileExistsError, match="exists: choose another place, or replace it with --force"):
            convert(tmp_path / "in.pyth", out, "native", model=TINY)
        convert(tmp_path / "in.pyth", out, "native", model=TINY, force=True)


def test_what_a_file_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of width \d+, timesformer_base_joint is 768 wide; .*--model"):
        model_of_file(DATA / "mmaction2_joint.pth")
    save_file(tiny_vit().state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match="an image ViT, with which a video model can start"):
        convert(tmp_path / "vit.safetensors", tmp_path / "out", "native")
    with pytest.raises(ValueError, match="There is no model 'vit'"):
        convert(DATA / "official_divided.pyth", tmp_path / "out", "native", model="vit")
    published("timesformer_tiny_axial", "native", tmp_path / "axial.pyth")
    with pytest.raises(ValueError, match="transformers has no model of axial"):
        convert(tmp_path / "axial.pyth", tmp_path / "out", "transformers", model="timesformer_tiny_axial")
    assert not (tmp_path / "out").exists()


def test_a_name_of_another_mode_is_refused(tmp_path: Path) -> None:
    published(TINY, "the authors'", tmp_path / "in.pyth")
    with pytest.raises(CheckpointError, match="divided attention, the model has joint"):
        convert(tmp_path / "in.pyth", tmp_path / "out", "native", model="timesformer_tiny_joint")


def test_a_file_of_bases_width_needs_no_name(tmp_path: Path) -> None:
    model = published("timesformer_base_joint", "mmaction2", tmp_path / "in.pth", num_classes=6)
    again = model_of_file(tmp_path / "in.pth")
    assert again.model_args == model.model_args | {"clip": again.clip}
    assert equal(again.state_dict(), model.state_dict())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = published(TINY, "the authors'", tmp_path / "in.pyth", num_classes=6)
    arguments = ["convert", str(tmp_path / "in.pyth"), str(tmp_path / "out"), "--to", "transformers", "--model", TINY]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "timesformer"
    assert_transformers_agrees(tmp_path / "out", model)
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "out"), "format": "transformers"}
