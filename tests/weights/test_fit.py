"""Checkpoints into models of every size, through every door, and every way in which one is refused."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_models import MODES, equal, load, tiny

import timesformer_zoo  # noqa: F401  (registers the models with timm)
from timesformer_zoo import CheckpointError
from timesformer_zoo.weights.fit import checkpoint_filter_fn, convert_on_load, flip_input_channels
from timesformer_zoo.weights.formats import detect, from_native

# ---- strictness ----


@pytest.mark.parametrize("num_classes", [5, 3, 0])
@pytest.mark.parametrize("name", ["native", "transformers", "mmaction2", "the authors'"])
def test_faults_are_refused_whatever_the_number_of_classes(name, num_classes):
    model = tiny("divided", num_classes=num_classes)
    good = from_native(tiny("divided").state_dict(), name, "divided")
    checkpoint_filter_fn(good, model)
    fc = next(key for key in good if detect(good).to_native({key: good[key]}).keys() == {"blocks.1.mlp.fc1.weight"})

    missing = {key: value for key, value in good.items() if key != fc}
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.weight"):
        checkpoint_filter_fn(missing, model)
    with pytest.raises(CheckpointError, match=rf"{fc[:-7]}_.weight"):
        checkpoint_filter_fn(missing | {f"{fc[:-7]}_.weight": good[fc]}, model)
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.weight: got \(32, 32\), expected \(128, 32\)"):
        checkpoint_filter_fn(good | {fc: torch.zeros(32, 32)}, model)
    with pytest.raises(CheckpointError, match=r"extra.weight"):
        checkpoint_filter_fn(good | {"extra.weight": torch.zeros(3)}, model)


@pytest.mark.parametrize("name", ["transformers", "mmaction2", "the authors'", "timm image ViT"])
def test_unknown_keys_name_the_format_and_are_few(name):
    mode = "space_only" if "ViT" in name else "joint"
    state_dict = from_native(tiny(mode).state_dict(), name, mode)
    state_dict |= {f"surprise.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError, match=rf"9 keys are not of the {name} format: surprise.0.* and 4 more"):
        checkpoint_filter_fn(state_dict, tiny(mode))


@pytest.mark.parametrize("held", MODES)
@pytest.mark.parametrize("wanted", MODES)
def test_another_mode_is_refused(held, wanted):
    if held == wanted:
        return
    with pytest.raises(CheckpointError, match=f"holds {held} attention, the model has {wanted}.*attention='{held}'"):
        checkpoint_filter_fn(tiny(held).state_dict(), tiny(wanted))


@pytest.mark.parametrize("name", ["transformers", "mmaction2", "the authors'"])
@pytest.mark.parametrize("held", ["divided", "joint", "space_only"])
def test_another_mode_of_a_foreign_format_is_refused(name, held):
    wanted = "joint" if held == "divided" else "divided"
    with pytest.raises(CheckpointError, match=f"holds {held} attention, the model has {wanted}"):
        checkpoint_filter_fn(from_native(tiny(held).state_dict(), name, held), tiny(wanted))


@pytest.mark.parametrize(
    "change", [dict(depth=3), dict(depth=1), dict(embed_dim=64), dict(mlp_ratio=2.0), dict(qkv_bias=False)]
)
def test_another_architecture_is_refused(change):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        checkpoint_filter_fn(tiny().state_dict(), tiny(**change))


def test_unknown_format_lists_the_known():
    with pytest.raises(
        CheckpointError, match=r"layer1.0.conv.weight.*Expected one of: native, transformers, mmaction2"
    ):
        checkpoint_filter_fn({"layer1.0.conv.weight": torch.zeros(3)}, tiny())


def test_error_is_a_value_error():
    """timm calls the filter again, without the model, on a TypeError."""
    for bad in ({}, {"x": 3}, {"x": torch.zeros(2)}, [3]):
        with pytest.raises(ValueError, match=r"checkpoint|known format|tensor"):
            checkpoint_filter_fn(bad, tiny())


def test_model_is_not_changed():
    model = tiny("joint", num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoint_filter_fn(tiny("joint", num_frames=8).state_dict(), model)
    assert equal(dict(model.state_dict()), before)


# ---- heads ----


@pytest.mark.parametrize("name", ["native", "transformers", "mmaction2", "the authors'"])
def test_another_number_of_classes_keeps_the_models_own_head(name):
    source, model = tiny("divided"), tiny("divided", num_classes=9)
    with torch.no_grad():
        model.head.weight.fill_(0.25)
    weights = checkpoint_filter_fn(from_native(source.state_dict(), name, "divided"), model)
    assert (weights["head.weight"] == 0.25).all()
    assert weights["head.weight"].shape == (9, 32)
    assert torch.equal(weights["blocks.1.mlp.fc2.weight"], source.state_dict()["blocks.1.mlp.fc2.weight"])
    model.load_state_dict(weights)


def test_headless_model_takes_no_head():
    model = tiny(num_classes=0)
    weights = checkpoint_filter_fn(tiny().state_dict(), model)
    assert not [key for key in weights if key.startswith("head")]
    model.load_state_dict(weights)


def test_headless_checkpoint_says_so(caplog):
    weights = {key: value for key, value in tiny().state_dict().items() if not key.startswith("head.")}
    load(tiny(), weights)
    assert "head (none) is not the model's (5, 32)" in caplog.text


# ---- sizes ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "change",
    [
        dict(img_size=64),
        dict(img_size=(32, 96)),
        dict(num_frames=8),
        dict(num_frames=3),
        dict(patch_size=8),
        dict(patch_size=8, img_size=(48, 16), num_frames=2, in_chans=4, num_classes=2),
        dict(in_chans=1),
        dict(in_chans=5),
    ],
)
def test_another_size_loads_and_runs(mode, change):
    model = load(tiny(mode, **change), tiny(mode).state_dict())
    with torch.no_grad():
        logits = model(torch.randn(1, model.in_chans, model.num_frames, *model.img_size))
    assert logits.shape == (1, model.num_classes)
    assert logits.isfinite().all()


def test_constant_embeddings_stay_constant():
    weights = dict(tiny().state_dict())
    weights["pos_embed"] = torch.ones(1, 5, 32) * 3
    weights["time_embed"] = torch.ones(1, 4, 32) * 2
    fitted = checkpoint_filter_fn(weights, tiny(img_size=(48, 80), num_frames=9))
    torch.testing.assert_close(fitted["pos_embed"], torch.full((1, 16, 32), 3.0))
    torch.testing.assert_close(fitted["time_embed"], torch.full((1, 9, 32), 2.0))


def test_nearest_in_time_is_the_models_option():
    weights = tiny().state_dict()
    fitted = checkpoint_filter_fn(weights, tiny(num_frames=8, time_interpolation="nearest"))
    assert torch.equal(fitted["time_embed"], weights["time_embed"].repeat_interleave(2, 1))


def test_one_channel_sees_what_three_saw():
    source = tiny()
    model = load(tiny(in_chans=1), source.state_dict())
    x = torch.randn(1, 1, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source(x.expand(1, 3, 4, 32, 32)), atol=1e-4, rtol=1e-4)


def test_square_checkpoint_into_a_rectangle_with_as_many_patches():
    """14 rows of 14 are not 7 of 28; a native checkpoint with as many patches is the model's own."""
    source, model = tiny("joint", img_size=64), tiny("joint", img_size=(32, 128))
    weights = source.state_dict()
    foreign = checkpoint_filter_fn(from_native(weights, "transformers", "joint"), model)
    assert not torch.allclose(foreign["pos_embed"], weights["pos_embed"])
    assert torch.equal(checkpoint_filter_fn(weights, model)["pos_embed"], weights["pos_embed"])
    resampled = checkpoint_filter_fn(weights, model, source_grid=(4, 4))
    assert torch.equal(resampled["pos_embed"], foreign["pos_embed"])


def test_saved_arguments_tell_the_grid():
    source = tiny(img_size=(32, 128))
    model = tiny(img_size=(64, 64))
    model.pretrained_model_args = {"img_size": [32, 128]}
    given = checkpoint_filter_fn(source.state_dict(), tiny(img_size=(64, 64)), source_grid=(2, 8))
    assert torch.equal(checkpoint_filter_fn(source.state_dict(), model)["pos_embed"], given["pos_embed"])
    assert not torch.equal(given["pos_embed"], source.state_dict()["pos_embed"])


def test_rectangle_of_unknown_sides_asks_for_them():
    source = tiny(img_size=(32, 48))
    with pytest.raises(CheckpointError, match=r"6 patches, neither a square nor the model's 2x2.*source_grid"):
        checkpoint_filter_fn(source.state_dict(), tiny())
    checkpoint_filter_fn(source.state_dict(), tiny(), source_grid=(2, 3))
    with pytest.raises(CheckpointError, match=r"source_grid=\(2, 2\) has 4 patches, pos_embed 6"):
        checkpoint_filter_fn(source.state_dict(), tiny(), source_grid=(2, 2))


def test_half_precision_is_taken():
    half = {key: value.half() for key, value in tiny().state_dict().items()}
    model = load(tiny(num_frames=8, img_size=64, patch_size=8, in_chans=1), half)
    assert next(model.parameters()).dtype is torch.float32


# ---- BGR ----


@pytest.mark.parametrize("name", ["transformers", "the authors'", "mmaction2"])
def test_bgr_checkpoint_takes_rgb(name):
    source = tiny()
    foreign = from_native(source.state_dict(), name, "divided")
    folded, plain = load(tiny(), foreign, bgr=True), load(tiny(), foreign)
    rgb = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(folded(rgb), source(rgb.flip(1)), atol=1e-5, rtol=1e-5)
        assert torch.equal(plain(rgb), source(rgb))
        assert not torch.allclose(folded(rgb), source(rgb), atol=1e-3)


def test_native_is_rgb_already():
    weights = tiny().state_dict()
    assert equal(checkpoint_filter_fn(weights, tiny(), bgr=True), weights)


def test_flipping_twice_is_nothing_and_needs_three_channels():
    weights = tiny().state_dict()
    assert equal(flip_input_channels(flip_input_channels(weights)), weights)
    with pytest.raises(CheckpointError, match=r"\(D, 3, h, w\); got \(32, 1, 16, 16\)"):
        flip_input_channels(tiny(in_chans=1).state_dict())


# ---- load_state_dict ----


@pytest.fixture
def hooked():
    def build(*args, **kwargs):
        model = tiny(*args, **kwargs)
        if convert_on_load not in model._load_state_dict_pre_hooks.values():
            model.register_load_state_dict_pre_hook(convert_on_load)
        return model

    return build


def test_load_state_dict_takes_foreign_formats_and_sizes(hooked):
    source = tiny()
    model = hooked(num_frames=8, num_classes=3)
    foreign = from_native(source.state_dict(), "the authors'", "divided")
    model.load_state_dict({"model_state": foreign, "epoch": 1, "cfg": ""})
    assert torch.equal(model.blocks[0].norm.weight, source.blocks[0].norm.weight)
    model.load_state_dict(source.state_dict())
    assert next(iter(foreign)).startswith("model.")  # the caller's dict is untouched


def test_load_state_dict_stays_strict_about_its_own(hooked):
    weights = dict(tiny().state_dict())
    head = {key: weights.pop(key) for key in ("head.weight", "head.bias")}
    with pytest.raises(RuntimeError, match="Missing key"):
        hooked().load_state_dict(weights)
    result = hooked().load_state_dict(head, strict=False)
    assert len(result.missing_keys) == len(weights)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        hooked().load_state_dict({"nonsense": torch.zeros(3)})


def test_inside_another_module_it_stands_aside(hooked):
    outer = torch.nn.Sequential(hooked())
    outer.load_state_dict({f"0.{key}": value for key, value in tiny().state_dict().items()})


# ---- through timm ----

SMALL = dict(img_size=32, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=4)


@pytest.mark.parametrize("name", ["native", "transformers", "mmaction2", "the authors'"])
@pytest.mark.parametrize("route", ["checkpoint_path", "file", "local-dir"])
@pytest.mark.parametrize("change", [{}, dict(img_size=(32, 64), num_frames=8, num_classes=3, in_chans=1)], ids=str)
def test_timm_loads_every_format(tmp_path, name, route, change):
    weights = tiny().state_dict()
    foreign = from_native(weights, name, "divided")
    options = {**SMALL, **change}
    if route == "checkpoint_path":
        torch.save({"model_state": foreign, "epoch": 1, "cfg": "TRAIN:"}, tmp_path / "x.pyth")
        model = timm.create_model("timesformer_tiny_divided", checkpoint_path=str(tmp_path / "x.pyth"), **options)
    elif route == "file":
        torch.save({"state_dict": foreign, "meta": {}}, tmp_path / "x.pth")
        overlay = dict(file=str(tmp_path / "x.pth"), num_classes=5)
        model = timm.create_model(
            "timesformer_tiny_divided", pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    else:
        config = dict(architecture="timesformer_tiny_divided", num_classes=5, model_args=SMALL, pretrained_cfg={})
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(foreign, tmp_path / "model.safetensors")
        model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **change)
    expected = checkpoint_filter_fn(weights, tiny(**change))
    loaded = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected if not key.startswith("head.") or not change)
    assert model.eval()(torch.randn(1, model.in_chans, 2, 32, 32)).isfinite().all()


@pytest.mark.parametrize("num_classes", [5, 3])
@pytest.mark.parametrize("route", ["checkpoint_path", "file"])
def test_timm_does_not_go_on_with_half_a_network(tmp_path, route, num_classes):
    broken = {key.replace("blocks.1.mlp", "blocks.1.ffn"): value for key, value in tiny().state_dict().items()}
    save_file(broken, tmp_path / "x.safetensors")
    path = str(tmp_path / "x.safetensors")
    by_route = {
        "checkpoint_path": dict(checkpoint_path=path),
        "file": dict(pretrained=True, pretrained_cfg_overlay=dict(file=path)),
    }
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.weight.*blocks.1.ffn.fc1.weight"):
        timm.create_model("timesformer_tiny_divided", **{**SMALL, "num_classes": num_classes}, **by_route[route])


def test_rectangular_model_of_a_square_count_survives_a_folder(tmp_path):
    """32 by 128 has as many patches as 64 by 64: the saved arguments tell which it was."""
    args = {**SMALL, "img_size": [32, 128]}
    source = tiny(img_size=(32, 128))
    config = dict(architecture="timesformer_tiny_divided", num_classes=5, model_args=args, pretrained_cfg={})
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    same = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(same.pos_embed, source.pos_embed)
    square = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=64)
    expected = checkpoint_filter_fn(source.state_dict(), tiny(img_size=64), source_grid=(2, 8))
    assert torch.equal(square.pos_embed, expected["pos_embed"])
