"""Weights into models of every size, and every way in which some are refused."""

import pytest
import torch
from small_models import MODES, equal, load, tiny, tiny_vit

from timesformer_zoo import CheckpointError, checkpoint_filter_fn
from timesformer_zoo.weights.fit import flip_input_channels
from timesformer_zoo.weights.formats import from_native

FORMATS = pytest.mark.parametrize("name", ["native", "transformers", "mmaction2", "the authors'"])

# ---- strictness ----


@pytest.mark.parametrize("num_classes", [5, 3, 0])
@FORMATS
def test_faults_are_refused_whatever_the_number_of_classes(name, num_classes):
    model, good = tiny("divided", num_classes=num_classes), from_native(tiny("divided").state_dict(), name, "divided")
    checkpoint_filter_fn(good, model)
    fc = next(key for key, value in good.items() if value.shape == (128, 32) and ".1." in key)  # fc1 of the last block

    missing = {key: value for key, value in good.items() if key != fc}
    with pytest.raises(CheckpointError, match=r"Missing key\(s\) in state_dict: blocks.1.mlp.fc1.weight"):
        checkpoint_filter_fn(missing, model)
    with pytest.raises(CheckpointError, match=rf"{fc[:-7]}_.weight"):
        checkpoint_filter_fn(missing | {f"{fc[:-7]}_.weight": good[fc]}, model)
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.weight: got \(32, 32\), expected \(128, 32\)"):
        checkpoint_filter_fn(good | {fc: torch.zeros(32, 32)}, model)
    with pytest.raises(CheckpointError, match=r"extra.weight"):
        checkpoint_filter_fn(good | {"extra.weight": torch.zeros(3)}, model)


@pytest.mark.parametrize("held", MODES)
@pytest.mark.parametrize("wanted", MODES)
def test_another_mode_is_refused(held, wanted):
    if held == wanted:
        return
    says = f"hold {held} attention, the model has {wanted}.*attention='{held}'"
    if held == "frozen":  # its keys are also those of divided without what it has between its steps
        says = "hold divided or frozen attention" if wanted != "divided" else r"Missing key.*steps\.time\.fc"
    with pytest.raises(CheckpointError, match=says):
        checkpoint_filter_fn(tiny(held).state_dict(), tiny(wanted))


@pytest.mark.parametrize("name", ["transformers", "mmaction2", "the authors'"])
@pytest.mark.parametrize("held", ["divided", "joint", "space_only"])
def test_another_mode_of_a_foreign_format_is_refused(name, held):
    weights = from_native(tiny(held).state_dict(), name, held)
    for wanted in {"divided", "joint", "axial"} - {held}:
        with pytest.raises(CheckpointError, match=f"hold {held} attention, the model has {wanted}"):
            checkpoint_filter_fn(weights, tiny(wanted))


@pytest.mark.parametrize(
    "change", [dict(depth=3), dict(depth=1), dict(embed_dim=64), dict(mlp_ratio=2.0), dict(qkv_bias=False)], ids=str
)
def test_another_architecture_is_refused(change):
    with pytest.raises(CheckpointError, match=r"do not fit the model .divided attention, width"):
        checkpoint_filter_fn(tiny().state_dict(), tiny(**change))


def test_fused_weights_are_refused_by_their_missing_keys():
    with pytest.raises(CheckpointError, match=r"Missing.*blocks.0.steps.time.fc.weight"):
        checkpoint_filter_fn(tiny().fuse().state_dict(), tiny())


def test_error_is_a_value_error():
    """timm calls the filter again, without the model, on a TypeError."""
    for bad in ({}, {"x": 3}, {"x": torch.zeros(2)}, [3]):
        with pytest.raises(ValueError, match=r"known format|tensor"):
            checkpoint_filter_fn(bad, tiny())


OTHER_KINDS = {
    "torch.int64": lambda value: (value * 10).long(),
    "torch.bool": lambda value: value > 0,
    "torch.complex64": lambda value: value.to(torch.complex64),
    "torch.sparse_coo": lambda value: value.to_sparse(),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "meta device": lambda value: value.to("meta"),
    "no elements": lambda value: value[..., :0],
}


@pytest.mark.filterwarnings("ignore:.*quantiz.*:UserWarning")
@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize(
    "key", ["blocks.1.mlp.fc1.weight", "patch_embed.proj.weight", "pos_embed", "time_embed", "head.weight"]
)
def test_other_kinds_of_tensors_are_refused(kind, key):
    weights = tiny().state_dict()
    for model in (tiny(), tiny(num_frames=8, img_size=64, in_chans=1, num_classes=3)):
        with pytest.raises(CheckpointError, match=f"{key} .*{kind}"):
            checkpoint_filter_fn(weights | {key: OTHER_KINDS[kind](weights[key])}, model)


def test_other_kinds_of_tensors_are_refused_in_an_image_vit():
    weights = tiny_vit().state_dict()
    for key in ("blocks.1.attn.qkv.weight", "pos_embed"):
        with pytest.raises(CheckpointError, match=r"torch.int64"):
            checkpoint_filter_fn(weights | {key: weights[key].long()}, tiny("axial"))


def test_model_is_not_changed():
    model = tiny("joint", num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoint_filter_fn(tiny("joint", num_frames=8).state_dict(), model)
    assert equal(dict(model.state_dict()), before)


# ---- heads ----


@FORMATS
def test_another_number_of_classes_keeps_the_models_own_head(name):
    source, model = tiny("divided"), tiny("divided", num_classes=9)
    with torch.no_grad():
        model.head.weight.fill_(0.25)
    theirs = from_native(source.state_dict(), name, "divided")
    weights = checkpoint_filter_fn(theirs, model)
    assert (weights["head.weight"] == 0.25).all()
    assert weights["head.weight"].shape == (9, 32)
    assert torch.equal(weights["blocks.1.mlp.fc2.weight"], source.state_dict()["blocks.1.mlp.fc2.weight"])
    with pytest.raises(CheckpointError, match=r"head.weight: got \(5, 32\), expected \(9, 32\).*num_classes"):
        checkpoint_filter_fn(theirs, model, new_head=False)


def test_headless_model_takes_no_head():
    weights = checkpoint_filter_fn(tiny().state_dict(), tiny(num_classes=0))
    assert not [key for key in weights if key.startswith("head")]


def test_headless_weights_say_so(caplog):
    weights = {key: value for key, value in tiny().state_dict().items() if not key.startswith("head.")}
    load(tiny(), weights)
    assert "head (none) is not the model's (5, 32)" in caplog.text


@pytest.mark.parametrize("fault", ["half", "width"])
def test_a_broken_head_is_refused(fault):
    weights = dict(tiny().state_dict())
    if fault == "half":
        del weights["head.bias"]
    else:
        weights["head.weight"] = weights["head.weight"][:, :16]
    for model in (tiny(), tiny(num_classes=3)):
        with pytest.raises(CheckpointError, match=r"head\."):
            checkpoint_filter_fn(weights, model)


# ---- sizes ----


@pytest.mark.parametrize("mode", ["space_only", "divided"])  # without and with a time embedding
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


def test_the_models_checkpoint_says_whether_it_was_bgr():
    foreign = from_native(tiny().state_dict(), "the authors'", "divided")
    model = tiny()
    model.bgr = True
    assert equal(checkpoint_filter_fn(foreign, model), checkpoint_filter_fn(foreign, tiny(), bgr=True))
    assert equal(checkpoint_filter_fn(foreign, model, bgr=False), tiny().state_dict())
