"""timm's own ways to weights: create_model's options, load_checkpoint, a folder."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_models import tiny
from timm.models import load_checkpoint

from timesformer_zoo import CheckpointError, checkpoint_filter_fn
from timesformer_zoo.weights.formats import from_native

NAME = "timesformer_tiny_divided"
SMALL = dict(img_size=32, patch_size=16, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=4)
OTHER = dict(img_size=(32, 64), num_frames=8, in_chans=1)
FORMATS = ["native", "transformers", "mmaction2", "the authors'"]


def by_path(folder, weights, **options):
    torch.save({"model_state": weights, "epoch": 1, "cfg": "TRAIN:"}, folder / "x.pyth")
    return timm.create_model(NAME, checkpoint_path=str(folder / "x.pyth"), **{**SMALL, **options})


def by_file(folder, weights, **options):
    torch.save({"state_dict": weights, "meta": {}}, folder / "x.pth")
    overlay = dict(file=str(folder / "x.pth"), num_classes=5)
    return timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, **{**SMALL, **options})


def by_folder(folder, weights, **options):
    config = dict(architecture=NAME, num_classes=5, model_args=SMALL, pretrained_cfg={})
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **options)


WAYS = [by_path, by_file, by_folder]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", [{}, OTHER], ids=str)
def test_every_format_by_every_way(tmp_path, name, way, change):
    weights = tiny().state_dict()
    model = way(tmp_path, from_native(weights, name, "divided"), **change)
    expected = checkpoint_filter_fn(weights, tiny(**change))
    loaded = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert model.eval()(torch.randn(1, model.in_chans, 2, 32, 32)).isfinite().all()


@pytest.mark.parametrize("way", [by_file, by_folder])
def test_another_number_of_classes_is_a_new_head(tmp_path, way):
    model = way(tmp_path, dict(tiny().state_dict()), num_classes=3)
    assert model.head.weight.shape == (3, 32)
    assert torch.equal(model.norm.weight, tiny().norm.weight)


def test_another_head_than_asked_for_is_refused(tmp_path):
    """A file of seven classes, for a model of the five that its config promises: nobody asked for a new head."""
    weights = dict(tiny(num_classes=7).state_dict())
    for way in WAYS:
        with pytest.raises(CheckpointError, match=r"head.weight: got \(7, 32\), expected \(5, 32\)"):
            way(tmp_path, weights)
    assert by_file(tmp_path, weights, num_classes=7).head.bias.equal(tiny(num_classes=7).head.bias)


def test_load_checkpoint(tmp_path):
    weights = from_native(tiny().state_dict(), "mmaction2", "divided")
    torch.save({"state_dict": weights}, tmp_path / "x.pth")
    file, model = str(tmp_path / "x.pth"), tiny(num_classes=3)
    with pytest.raises(CheckpointError, match=r"head.weight: got \(5, 32\), expected \(3, 32\)"):
        load_checkpoint(model, file)
    assert load_checkpoint(model, file, strict=False).missing_keys == ["head.weight", "head.bias"]
    assert not load_checkpoint(model, file, filter_fn=checkpoint_filter_fn).missing_keys  # the model's own


@pytest.mark.parametrize("num_classes", [5, 3])
@pytest.mark.parametrize("way", WAYS)
def test_timm_does_not_go_on_with_half_a_network(tmp_path, way, num_classes):
    broken = {key.replace("blocks.1.mlp", "blocks.1.ffn"): value for key, value in tiny().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.weight.*blocks.1.ffn.fc1.weight"):
        way(tmp_path, broken, num_classes=num_classes)


def test_rectangular_model_of_a_square_count_survives_a_folder(tmp_path):
    """32 by 128 has as many patches as 64 by 64: the saved arguments tell which it was."""
    source = tiny(img_size=(32, 128))
    config = dict(architecture=NAME, num_classes=5, model_args={**SMALL, "img_size": [32, 128]}, pretrained_cfg={})
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    same = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(same.pos_embed, source.pos_embed)
    square = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=64)
    expected = checkpoint_filter_fn(source.state_dict(), tiny(img_size=64), source_grid=(2, 8))
    assert torch.equal(square.pos_embed, expected["pos_embed"])


def test_the_config_keeps_its_source_and_no_weights(tmp_path):
    source = timm.create_model("timesformer_base_divided.k400", **SMALL).state_dict()
    overlay = dict(state_dict=source, num_classes=5)
    model = timm.create_model("timesformer_base_divided.k400", pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert model.pretrained_cfg["hf_hub_id"] == "facebook/timesformer-base-finetuned-k400"
    assert (model.pretrained_cfg["classifier"], model.pretrained_cfg["first_conv"]) == ("head", "patch_embed.proj")
    assert "state_dict" not in model.pretrained_cfg


def test_features_only_takes_weights(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "x.pth")
    overlay = dict(file=str(tmp_path / "x.pth"), num_classes=5)
    features = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True, out_indices=[1], **SMALL
    )
    assert torch.equal(features.model.blocks[0].norm.weight, tiny().blocks[0].norm.weight)


def test_a_model_without_weights_says_so():
    with pytest.raises(CheckpointError, match=r"There are no weights for timesformer_tiny_axial\.untrained"):
        timm.create_model("timesformer_tiny_axial", pretrained=True)
