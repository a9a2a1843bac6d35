"""Every format there and back, and every wrapper."""

import json

import pytest
import torch
from small_models import DATA, GOLDEN, MODES, equal, golden, load, tiny

from timesformer_zoo import CheckpointError, TimeSformer, checkpoint_filter_fn, read_checkpoint
from timesformer_zoo.weights.formats import FORMATS, NATIVE, detect, from_native
from timesformer_zoo.weights.unwrap import unwrap

FOREIGN = [
    pytest.param(form, mode, id=f"{form.name}-{mode}") for form in FORMATS if form is not NATIVE for mode in form.tables
]

# ---- formats ----


@pytest.mark.parametrize("name", GOLDEN)
def test_published_code_gives_the_same_logits(name):
    state_dict, expected, model = golden(name)
    load(model, state_dict)
    with torch.no_grad():
        torch.testing.assert_close(model(expected["input"]), expected["logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("file", ["official_divided.pyth", "mmaction2_joint.pth"])
def test_published_files_give_the_same_logits(file):
    _, expected, model = golden(file.split(".")[0])
    load(model, read_checkpoint(DATA / file))
    with torch.no_grad():
        torch.testing.assert_close(model(expected["input"]), expected["logits"], atol=1e-5, rtol=1e-5)
    load(model, torch.load(DATA / file, weights_only=True))  # still wrapped


@pytest.mark.parametrize("name", GOLDEN)
def test_there_and_back_is_identical(name):
    state_dict, _, model = golden(name)
    form = detect(state_dict)
    assert form.modes(state_dict) == [model.attention]
    back = form.from_native(form.to_native(state_dict, model.attention), model.attention)
    assert equal({key.removeprefix("model."): value for key, value in back.items()}, state_dict)


@pytest.mark.parametrize(("form", "mode"), FOREIGN)
def test_every_format_expresses_a_whole_model(form, mode):
    weights = tiny(mode).state_dict()
    theirs = from_native(weights, form.name, mode)
    assert detect(theirs) is form
    assert form.modes(theirs) == [mode]
    assert equal(form.to_native(theirs, mode), weights)
    assert equal(checkpoint_filter_fn(theirs, tiny(mode)), weights)


@pytest.mark.parametrize("mode", MODES)
def test_native_keys_tell_the_mode_and_pass_unchanged(mode):
    weights = tiny(mode).state_dict()
    assert NATIVE.modes(weights) == (["divided", "frozen"] if mode == "frozen" else [mode])  # divided may lack its `fc`
    assert equal(checkpoint_filter_fn(weights, tiny(mode)), weights)


@pytest.mark.parametrize("form", [form for form in FORMATS if form is not NATIVE], ids=lambda form: form.name)
def test_unknown_keys_name_the_format_and_are_few(form):
    mode = next(reversed(form.tables))
    state_dict = from_native(tiny(mode).state_dict(), form.name, mode)
    state_dict |= {f"surprise.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError, match=rf"9 keys are not of the {form.name} format: surprise.0.* and 4 more"):
        checkpoint_filter_fn(state_dict, tiny(mode))


def test_unknown_format_lists_the_known():
    with pytest.raises(
        CheckpointError, match=r"layer1.0.conv.weight.*Expected one of: native, transformers, mmaction2"
    ):
        checkpoint_filter_fn({"layer1.0.conv.weight": torch.zeros(3)}, tiny())


def test_a_parameter_named_twice_is_refused():
    theirs = from_native(tiny().state_dict(), "transformers", "divided")
    twice = theirs | {"embeddings.cls_token": theirs["timesformer.embeddings.cls_token"]}
    with pytest.raises(CheckpointError, match="two keys of the transformers format mean the same parameter"):
        checkpoint_filter_fn(twice, tiny())


@pytest.mark.parametrize("key", ["base_k400", "hr_k600", "l_ssv2", "l_k400", "base_joint_k400", "base_space_only_k400"])
def test_official_shapes_fit_the_model(key):
    shapes = json.loads((DATA / "official_shapes.json").read_text())[key]
    classes, frames = shapes["model.head.bias"][0], shapes.get("model.time_embed", [1, 8])[1]
    size = 16 * round((shapes["model.pos_embed"][1] - 1) ** 0.5)
    mode = {"base_joint_k400": "joint", "base_space_only_k400": "space_only"}.get(key, "divided")
    with torch.device("meta"):
        model = TimeSformer(img_size=size, num_frames=frames, num_classes=classes, attention=mode)
        weights = checkpoint_filter_fn({name: torch.empty(shape) for name, shape in shapes.items()}, model)
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


def test_transformers_has_no_axial_format():
    with pytest.raises(CheckpointError, match="no transformers format for axial attention"):
        from_native(tiny("axial").state_dict(), "transformers", "axial")


# ---- wrappers ----

WRAPPED = {
    "bare": lambda sd: sd,
    "model": lambda sd: {"model": sd, "epoch": 3},
    "state_dict": lambda sd: {"state_dict": sd, "arch": "x"},
    "model_state": lambda sd: {"model_state": sd, "optimizer_state": {"state": {}}, "epoch": 14, "cfg": "TRAIN:\n"},
    "module.": lambda sd: {f"module.{k}": v for k, v in sd.items()},
    "_orig_mod.": lambda sd: {f"_orig_mod.{k}": v for k, v in sd.items()},
    "module._orig_mod.": lambda sd: {f"module._orig_mod.{k}": v for k, v in sd.items()},
    "_orig_mod.module.": lambda sd: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in sd.items()}},
    "state_dict_ema": lambda sd: {"state_dict": {k: v + 1 for k, v in sd.items()}, "state_dict_ema": sd},
    "model_ema": lambda sd: {"model": {k: v + 1 for k, v in sd.items()}, "model_ema": {"module": sd}},
    "no ema": lambda sd: {"model": sd, "model_ema": None},
    "nested": lambda sd: {"model": {"state_dict": {f"module.{k}": v for k, v in sd.items()}}},
    "averaged": lambda sd: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in sd.items()}},
    "lightning": lambda sd: {"state_dict": {f"model.{k}": v for k, v in sd.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["native", "transformers", "mmaction2", "the authors'"])
def test_wrappers_come_off(wrapper, name):
    weights = tiny("divided").state_dict()
    assert equal(
        checkpoint_filter_fn(WRAPPED[wrapper](from_native(weights, name, "divided")), tiny("divided")), weights
    )


@pytest.mark.parametrize(
    "bad", [{}, {"model": {}}, [1], None, {"state_dict": {"a": 1}}, {"epoch": 3}, {"n_averaged": torch.tensor(7)}]
)
def test_what_is_no_state_dict_is_refused(bad):
    with pytest.raises(CheckpointError, match="dict"):
        unwrap(bad)
