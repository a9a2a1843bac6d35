"""What timm's users do with features and heads: timm's own checks, in our words, for clips."""

import copy

import pytest
import timm
import torch
from small_models import both_kinds, clip, tiny
from timm.models._features import FeatureGetterNet
from torch import nn

import timesformer_zoo  # noqa: F401  (registers the models with timm)


@both_kinds
def test_features_then_head_is_forward(mode):
    model, x = tiny(mode), clip()
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 1 + 4 * 4, model.num_features)
    torch.testing.assert_close(model.forward_head(tokens), model(x))
    assert model.forward_head(tokens, pre_logits=True).shape == (2, model.head_hidden_size)


@both_kinds
def test_intermediates(mode):
    model, x = tiny(mode, depth=3), clip(2, 3, 32, 48)
    tokens, maps = model.forward_intermediates(x)
    torch.testing.assert_close(tokens, model.forward_features(x))
    assert [tuple(y.shape) for y in maps] == 3 * [(2, 32, 3, 2, 3)]  # N C T H W

    rows = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    for nlc, ncthw in zip(rows, maps, strict=True):
        assert torch.equal(nlc, ncthw.flatten(2).transpose(1, 2))

    options = dict(norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)
    ((patches, cls),) = model.forward_intermediates(x, indices=1, **options)
    torch.testing.assert_close(patches, tokens[:, 1:])
    assert cls.shape == (2, 3 if mode == "space_only" else 1, 32)
    if mode != "space_only":  # where one class token a frame is averaged before the norm
        torch.testing.assert_close(cls, tokens[:, :1])

    first = model.forward_intermediates(x, indices=[0, 1], stop_early=True, intermediates_only=True)
    assert [torch.equal(a, b) for a, b in zip(first, maps, strict=False)] == [True, True]
    with pytest.raises(AssertionError):  # timm's own check
        model.forward_intermediates(x, indices=[3])


def test_no_block_runs_after_the_last_one_wanted():
    model = tiny(depth=3)
    model.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail("the last block ran"))
    model.forward_intermediates(clip(), indices=[0, 1], stop_early=True, intermediates_only=True)


@both_kinds
def test_features_only(mode):
    sizes = dict(img_size=32, patch_size=16, num_frames=4, embed_dim=32, depth=3, num_heads=2)
    model = timm.create_model(f"timesformer_tiny_{mode}", **sizes, features_only=True, out_indices=(0, -1)).eval()
    assert isinstance(model, FeatureGetterNet)
    assert model.feature_info.channels() == [32, 32]
    assert model.feature_info.reduction() == [16, 16]
    assert model.feature_info.module_name() == ["blocks.0", "blocks.2"]
    assert [tuple(y.shape) for y in model(clip(2, 3, 48, 32))] == 2 * [(2, 32, 3, 3, 2)]
    names = [key for key, _ in model.named_parameters()]
    assert not [key for key in names if "head" in key or key.startswith("model.norm")]


def test_a_feature_getter_cuts_what_it_does_not_need():
    whole = tiny(depth=3)
    getter = FeatureGetterNet(copy.deepcopy(whole), out_indices=[1], norm=True, output_fmt="NLC")
    assert len(getter.model.blocks) == 2
    expected = whole.forward_intermediates(clip(), [1], norm=True, output_fmt="NLC", intermediates_only=True)
    assert torch.equal(getter(clip())[0], expected[0])


def test_pruning():
    model, x = tiny(depth=3), clip()
    expected = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    assert (len(model.blocks), model.num_classes) == (2, 0)
    assert isinstance(model.norm, nn.Identity)
    pruned = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(pruned, expected, strict=True))
    assert model.model_args["depth"] == 2


@both_kinds
def test_classifier(mode):
    model, x = tiny(mode), clip()
    feature = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    torch.testing.assert_close(model(x), feature)
    model.double().reset_classifier(7)
    assert model.get_classifier().weight.dtype == torch.float64
    assert model(x.double()).shape == (2, 7)
    model.reset_classifier(3, global_pool="frame")
    assert model(x.double()).shape == (2, 4, 3)
    assert (model.model_args["num_classes"], model.model_args["global_pool"]) == (3, "frame")

    headless = tiny(mode, num_classes=0)
    assert headless(x).shape == (2, 32)
    assert not [key for key in headless.state_dict() if key.startswith("head")]
