"""`load_state_dict` says what it did, and changes nothing where it fails, however the model came to be."""

import copy
import pickle

import pytest
import timm
import torch
from small_models import equal, tiny, tiny_vit

from timesformer_zoo import CheckpointError
from timesformer_zoo.weights.formats import from_native

SMALL = dict(img_size=32, patch_size=16, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=4)
HEAD = ["head.weight", "head.bias"]


def made(**changes):
    return timm.create_model("timesformer_tiny_divided", **{**SMALL, **changes})


ORIGINS = {
    "class": tiny,
    "factory": made,
    "deepcopy": lambda **changes: copy.deepcopy(made(**changes)),
    "pickle": lambda **changes: pickle.loads(pickle.dumps(made(**changes))),
}
every_origin = pytest.mark.parametrize("origin", ORIGINS)


def foreign(name="the authors'", **changes):
    return from_native(tiny(**changes).state_dict(), name, "divided")


def assert_refused(model, weights, match, **options):
    """The load raises, and every tensor is as it was."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=match):
        model.load_state_dict(weights, **options)
    assert equal(model.state_dict(), before)


@every_origin
def test_foreign_formats_and_other_sizes_are_taken(origin):
    source, model = tiny(), ORIGINS[origin](num_frames=8)
    theirs = foreign()
    result = model.load_state_dict({"model_state": theirs, "epoch": 1, "cfg": ""})
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(model.blocks[0].norm.weight, source.blocks[0].norm.weight)
    assert next(iter(theirs)).startswith("model.")  # the caller's dict is untouched
    ORIGINS[origin]().load_state_dict(tiny(num_frames=8).state_dict())


@every_origin
@pytest.mark.parametrize("theirs", ["native", "the authors'"])
def test_another_head_is_refused_or_listed(origin, theirs):
    weights = tiny(num_classes=7).state_dict()
    weights = weights if theirs == "native" else from_native(weights, theirs, "divided")
    model = ORIGINS[origin]()
    assert_refused(model, weights, r"head.weight: got \(7, 32\), expected \(5, 32\), head.bias.*num_classes")
    own = model.head.weight.detach().clone()
    result = model.load_state_dict(weights, strict=False)
    assert result.missing_keys == HEAD
    assert torch.equal(model.head.weight, own)
    assert torch.equal(model.norm.weight, tiny(num_classes=7).norm.weight)


def test_a_head_too_many_or_too_few_is_refused_or_listed():
    bare, whole = tiny(num_classes=0), tiny()
    assert_refused(bare, whole.state_dict(), r"Unexpected key.*head.weight, head.bias")
    assert bare.load_state_dict(whole.state_dict(), strict=False).unexpected_keys == HEAD
    assert_refused(whole, bare.state_dict(), r"Missing key.*head.weight, head.bias")
    assert whole.load_state_dict(bare.state_dict(), strict=False).missing_keys == HEAD


def test_an_image_vit_fills_all_but_another_head():
    vit = tiny_vit(num_classes=7)
    assert_refused(tiny("axial"), vit.state_dict(), r"head.weight: got \(7, 32\)")
    model = tiny("axial")
    assert model.load_state_dict(vit.state_dict(), strict=False).missing_keys == HEAD
    assert torch.equal(model.blocks[1].steps["width"].qkv.weight, vit.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize("name", ["native", "the authors'", "transformers"])
def test_without_strict_all_that_does_not_fit_is_listed(name):
    weights = foreign(name)
    gone = next(key for key, value in weights.items() if value.shape == (128, 32) and ".1." in key)
    del weights[gone]
    result = tiny().load_state_dict(weights | {"queue_position": torch.tensor(3)}, strict=False)
    assert result.missing_keys == ["blocks.1.mlp.fc1.weight"]
    assert result.unexpected_keys == ["queue_position"]


def test_errors_are_torchs_too():
    weights = dict(tiny().state_dict())
    head = {key: weights.pop(key) for key in HEAD}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: head.weight, head.bias"):
        tiny().load_state_dict(weights)
    assert len(tiny().load_state_dict(head, strict=False).missing_keys) == len(weights)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: nonsense"):
        tiny().load_state_dict({"nonsense": torch.zeros(3)})
    assert tiny().load_state_dict({"nonsense": 3}, strict=False).unexpected_keys == ["nonsense"]
    with pytest.raises(TypeError):
        tiny().load_state_dict([1])


LAST = "norm.bias"  # of the last but the head: all before it would be loaded already
FAULTS = {
    "missing": (lambda w: {key: value for key, value in w.items() if key != LAST}, "Missing.*norm.bias"),
    "unexpected": (lambda w: w | {"more": torch.zeros(1)}, "Unexpected.*more"),
    "shape": (lambda w: w | {LAST: torch.zeros(7)}, r"norm.bias: got \(7,\), expected \(32,\)"),
    "no tensor": (lambda w: w | {LAST: 3}, "norm.bias: got int"),
    "integers": (lambda w: w | {LAST: w[LAST].long()}, r"norm.bias \(torch.int64\)"),
    "complex": (lambda w: w | {LAST: w[LAST].to(torch.complex64)}, r"norm.bias \(torch.complex64\)"),
    "sparse": (lambda w: w | {LAST: w[LAST].to_sparse()}, r"norm.bias \(torch.sparse_coo\)"),
    "meta": (lambda w: w | {LAST: w[LAST].to("meta")}, r"norm.bias \(on the meta device"),
    "nan": (lambda w: w | {LAST: w[LAST].index_fill(0, torch.tensor([9]), torch.nan)}, "1 weights hold NaN.*norm.bias"),
    "inf": (lambda w: w | {LAST: w[LAST].index_fill(0, torch.tensor([9]), -torch.inf)}, "norm.bias"),
    "half nan": (lambda w: w | {LAST: w[LAST].half().index_fill(0, torch.tensor([9]), torch.nan)}, "norm.bias"),
}


@every_origin
@pytest.mark.parametrize("fault", FAULTS)
def test_a_load_that_fails_changes_nothing(origin, fault):
    break_, match = FAULTS[fault]
    weights = {key: value + 1 for key, value in tiny().state_dict().items()}
    assert_refused(ORIGINS[origin](), break_(weights), match)
    if fault not in ("missing", "unexpected"):
        assert_refused(ORIGINS[origin](), break_(weights), match, strict=False)


@pytest.mark.parametrize("fault", ["nan", "missing", "shape"])
def test_a_conversion_that_fails_changes_nothing(fault):
    key = "model.norm.bias"
    weights = foreign()
    if fault == "missing":
        del weights[key]
    else:
        weights[key] = torch.full((32,), torch.nan) if fault == "nan" else torch.zeros(7)
    assert_refused(tiny(), weights, LAST)


def test_large_and_small_numbers_are_numbers():
    """The sum of their squares is not finite."""
    weights = {key: torch.full_like(value, 3e38) for key, value in tiny().state_dict().items()}
    model = tiny()
    model.load_state_dict(weights)
    assert equal(model.state_dict(), weights)


def test_half_precision_and_assignment_are_torchs():
    half = {key: value.bfloat16() for key, value in tiny().state_dict().items()}
    model = tiny()
    model.load_state_dict(half)
    assert model.norm.weight.dtype is torch.float32
    model.load_state_dict(half, assign=True)
    assert model.norm.weight.dtype is torch.bfloat16


def test_a_model_without_data_takes_weights_with_and_without():
    meta = tiny(device="meta")
    meta.load_state_dict(tiny(device="meta").state_dict())
    meta.load_state_dict(foreign(), assign=True)
    assert equal(meta.state_dict(), tiny().state_dict())


@pytest.mark.parametrize("origin", ["factory", "deepcopy", "pickle"])
def test_the_order_of_colours_is_remembered(origin, tmp_path):
    model = timm.create_model("timesformer_base_divided.ssv2", **SMALL)
    model = {"factory": lambda m: m, "deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}[
        origin
    ](model)
    model.load_state_dict(foreign())
    assert torch.equal(model.patch_embed.proj.weight, tiny().patch_embed.proj.weight.flip(1))


def test_inside_another_module_it_stands_aside():
    outer = torch.nn.Sequential(tiny())
    outer.load_state_dict({f"0.{key}": value for key, value in tiny().state_dict().items()})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:torch.quantize_per_tensor")
def test_a_quantised_model_takes_its_own():
    quantised = torch.ao.quantization.quantize_dynamic(tiny(), {torch.nn.Linear})
    assert quantised.load_state_dict(quantised.state_dict())
