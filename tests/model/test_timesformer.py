"""The model against published outputs and timm's image ViT; sizes, lengths, features, errors."""

import copy
import io
import math

import pytest
import torch
from dense_reference import dense
from small_models import GOLDEN, MODES, equal, golden, load, tiny, tiny_vit

from timesformer_zoo import AttentionMode, TimeSformer, init_from_vit


@pytest.fixture(params=[False, True], ids=["inference", "grad"])
def grad(request):
    """Both ways through a block: in place and in pieces, and as a function."""
    with torch.set_grad_enabled(request.param):
        yield request.param


def clip(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


# ---- published code ----


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_of_the_published_code(name, grad):
    state_dict, expected, model = golden(name)
    load(model, state_dict)
    x = expected["input"]
    tokens = model.forward_features(x)
    close = dict(atol=2e-5, rtol=0)
    torch.testing.assert_close(model(x), expected["logits"], **close)
    torch.testing.assert_close(model.forward_head(tokens), expected["logits"], **close)
    torch.testing.assert_close(tokens[:, 0], expected["features"], **close)
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), expected["features"], **close)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("official")])
def test_every_block_of_the_published_code(name, grad):
    state_dict, expected, model = golden(name)
    load(model, state_dict)
    x = expected["input"]
    frames, h, w = model.grid_size
    features = model.forward_intermediates(x, return_prefix_tokens=True, intermediates_only=True)
    for i, (patches, cls) in enumerate(features):
        theirs = expected[f"block{i}"]
        if model.attention.per_frame:  # (B T) (1 + h w)
            theirs = theirs.unflatten(0, (-1, frames))
            their_cls, their_patches = theirs[:, :, 0], theirs[:, :, 1:].unflatten(2, (h, w)).permute(0, 4, 1, 2, 3)
        else:  # the class token, then h w t
            their_cls, their_patches = theirs[:, :1], theirs[:, 1:].unflatten(1, (h, w, frames)).permute(0, 4, 3, 1, 2)
        torch.testing.assert_close(cls, their_cls, atol=2e-5, rtol=0)
        torch.testing.assert_close(patches, their_patches, atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", ["divided", "space_only"])
def test_still_clip_gives_what_timms_vit_gives(mode, grad):
    size = (32, 64)
    vit = tiny_vit(img_size=size)
    model = init_from_vit(tiny(mode, img_size=size), vit)
    image = clip(2, 3, *size)
    still = image.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(model.forward_features(still)[:, 0], vit.forward_features(image)[:, 0])
    patches = model.forward_features(still)[:, 1:].unflatten(1, (4, -1))
    torch.testing.assert_close(patches, vit.forward_features(image)[:, None, 1:].expand_as(patches))


# ---- any clip ----

# What does not depend on the mode is tested with one that has a class token a clip and one that has one a frame.
both_kinds = pytest.mark.parametrize("mode", ["divided", "space_only"])


@both_kinds
def test_another_size_is_that_of_resampled_embeddings(mode, grad):
    """On the fly, or once and for all: and against the dense formulation at the new size."""
    model = tiny(mode)
    x = clip(2, 3, 7, 48, 80)
    resized = copy.deepcopy(model)
    resized.set_input_size(img_size=(48, 80), num_frames=7)
    assert resized.grid_size == (7, 3, 5)
    assert (resized.img_size, resized.num_frames, resized.patch_size) == ((48, 80), 7, (16, 16))
    torch.testing.assert_close(model(x), resized(x))
    torch.testing.assert_close(model(x).double(), dense(resized, x)["logits"], atol=2e-5, rtol=0)


@both_kinds
def test_size_can_be_the_same_or_one_patch_of_one_frame(mode):
    model = tiny(mode)
    before = copy.deepcopy(model.state_dict())
    model.set_input_size()
    model.set_input_size(img_size=32, num_frames=4, patch_size=16)
    assert equal(model.state_dict(), before)
    assert model(clip(1, 3, 1, 16, 16)).shape == (1, 5)
    model.set_input_size(img_size=16, num_frames=1)
    torch.testing.assert_close(
        model(clip(1, 3, 1, 16, 16)).double(), dense(model, clip(1, 3, 1, 16, 16))["logits"], atol=2e-5, rtol=0
    )


def test_patch_size_can_change():
    model = tiny(img_size=32, patch_size=16)
    smooth = torch.linspace(-1, 1, 64).expand(1, 3, 4, 64, 64)
    model.set_input_size(img_size=64, patch_size=(32, 16))
    assert model.patch_size == (32, 16)
    assert model.grid_size == (4, 2, 4)
    assert model(smooth).isfinite().all()
    assert model.model_args["patch_size"] == [32, 16]
    TimeSformer(**model.model_args).load_state_dict(model.state_dict())


def test_frozen_embeddings_stay_frozen():
    model = tiny().requires_grad_(False)
    model.set_input_size(img_size=48, num_frames=6, patch_size=8)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@both_kinds
def test_padding_is_of_zeros_to_the_right_and_below(mode):
    model = tiny(mode, img_size=(48, 32), dynamic_img_pad=True)
    x = clip(2, 3, 4, 35, 30)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 13))
    torch.testing.assert_close(model(x), model(padded))
    assert model.forward_intermediates(x, intermediates_only=True)[0].shape == (2, 32, 4, 3, 2)


def test_model_of_an_indivisible_size_pads_from_the_start():
    model = tiny(img_size=40, dynamic_img_pad=True)
    assert model.grid_size == (4, 3, 3)
    assert model(clip(1, 3, 4, 40, 40)).shape == (1, 5)
    with pytest.raises(ValueError, match=r"40x40 pixels are not a multiple of the patch, 16x16.*dynamic_img_pad=True"):
        tiny(img_size=40)
    with pytest.raises(ValueError, match="40x32 pixels are not a multiple"):
        tiny().set_input_size(img_size=(40, 32))


def test_interpolation_over_time_can_be_the_authors():
    linear, nearest = tiny(), tiny(time_interpolation="nearest")
    x = clip(1, 3, 8, 32, 32)
    with torch.no_grad():
        doubled = copy.deepcopy(linear)
        doubled.num_frames = 8
        doubled.time_embed = torch.nn.Parameter(linear.time_embed.repeat_interleave(2, 1))
        torch.testing.assert_close(nearest(x), doubled(x))
        assert not torch.allclose(nearest(x), linear(x))


def test_training_sees_through_resampled_embeddings():
    model = tiny()
    with torch.no_grad():
        model(clip(1, 3, 6, 48, 48))
    model(clip(1, 3, 6, 48, 48)).sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0
    assert model.time_embed.grad.abs().sum() > 0


# ---- batches of unequal clips ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_padded_clips_are_each_clip_alone(mode, pool):
    model = tiny(mode, global_pool=pool)
    x = clip(5, 3, 6, 32, 32)
    lengths = [3, 6, 1, 3, 5]
    alone = torch.cat([model(x[i : i + 1, :, :length]) for i, length in enumerate(lengths)])
    for i, length in enumerate(lengths):
        x[i, :, length:] = torch.nan  # what is padding has no say
    torch.testing.assert_close(model(x, num_valid_frames=lengths), alone)
    torch.testing.assert_close(model(x, num_valid_frames=torch.tensor(lengths)), alone)


def test_padded_clips_train():
    model = tiny()
    model(clip(3, 3, 4, 32, 32), num_valid_frames=[1, 4, 2]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("lengths", [[1], [0, 2], [2, 5], [1.5, 2], [[1, 2]], [2, 2, 2], []])
def test_wrong_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match=r"num_valid_frames to be 2 ints from 1 to 4, got \["):
        tiny()(clip(2, 3, 4, 32, 32), num_valid_frames=lengths)


def test_lengths_and_one_output_a_frame_are_refused():
    with pytest.raises(ValueError, match="one output each"):
        tiny(global_pool="frame")(clip(2, 3, 4, 32, 32), num_valid_frames=[1, 2])


# ---- features and heads ----


@both_kinds
def test_pooling(mode):
    x = clip(2, 3, 3, 32, 32)
    tokens = tiny(mode).forward_features(x)
    assert tokens.shape == (2, 1 + 3 * 4, 32)
    wanted = {"token": tokens[:, 0], "avg": tokens[:, 1:].mean(1), "frame": tokens[:, 1:].unflatten(1, (3, 4)).mean(2)}
    for pool, feature in wanted.items():
        model = tiny(mode, global_pool=pool)
        torch.testing.assert_close(model(x), model.head(feature))
        torch.testing.assert_close(model.forward_head(tokens, pre_logits=True, num_frames=3), feature)
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), feature)


@pytest.mark.parametrize("num_classes", [0, 5])
def test_without_pooling_every_token_comes_out_as_from_timms_vit(num_classes):
    still = clip(2, 3, 1, 32, 32)
    vit = tiny_vit(num_classes=num_classes, global_pool="")
    for model in (tiny("space_only", num_frames=1, num_classes=num_classes, global_pool=""), tiny("space_only")):
        if model.global_pool:
            model.reset_classifier(num_classes, "")
        state = {key: value for key, value in vit.state_dict().items() if num_classes or "head" not in key}
        load(model, state)
        torch.testing.assert_close(model(still), vit(still[:, :, 0]))
    every = tiny(global_pool="", num_classes=num_classes)
    tokens = every.forward_features(clip(2, 3, 4, 32, 32))
    assert tokens.shape == (2, 17, 32)
    torch.testing.assert_close(every(clip(2, 3, 4, 32, 32)), every.head(tokens))


def test_repr_says_what_it_is():
    assert "attention=axial, num_frames=4, img_size=(32, 48)" in repr(tiny("axial", img_size=(32, 48)))


def test_pooling_by_frame_asks_for_the_number_of_frames():
    model = tiny(global_pool="frame")
    assert model.forward_head(model.forward_features(clip(1, 3, 4, 32, 32))).shape == (1, 4, 5)
    tokens = model.forward_features(clip(1, 3, 2, 32, 32))
    with pytest.raises(ValueError, match=r"9 tokens are not a clip of the model's size, 1 \+ 16: pass num_frames"):
        model.forward_head(tokens)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"global_pool 'map'. Choose one of 'token', 'avg', 'frame', ''"):
        tiny(global_pool="map")
    with pytest.raises(ValueError, match=r"global_pool 'map'. Choose"):
        tiny().reset_classifier(3, global_pool="map")
    with pytest.raises(ValueError, match=r"output_fmt 'NHWC'. Choose NCTHW or NLC"):
        tiny().forward_intermediates(clip(1, 3, 4, 32, 32), output_fmt="NHWC")
    with pytest.raises(ValueError, match="Choose one of: space_only"):
        tiny("dividde")
    with pytest.raises(TypeError, match="dropout"):
        TimeSformer(dropout=0.1)


# ---- input that is not a clip batch ----


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 32, 32), r"\(B, C, T, H, W\) with C = 3, got 4 dimensions: \(3, 4, 32, 32\)"),
        ((1, 4, 3, 32, 32), r"got C = 4 in \(1, 4, 3, 32, 32\).*looks like \(B, T, C, H, W\): use x.transpose\(1, 2\)"),
        ((1, 1, 4, 32, 32), r"got C = 1 in \(1, 1, 4, 32, 32\)\.$"),
        ((1, 3, 0, 32, 32), r"at least 1 frame, got 0"),
        ((1, 3, 4, 40, 32), r"40x32 pixels are not a multiple of the patch, 16x16"),
        ((1, 3, 4, 32, 0), r"32x0 pixels"),
    ],
)
def test_wrong_layout_says_what_it_got(shape, message):
    for method in ("forward", "forward_features", "forward_intermediates"):
        with pytest.raises(ValueError, match=message):
            getattr(tiny(), method)(torch.zeros(shape))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="embed_dim 32 is not a multiple of num_heads 5"):
        tiny(num_heads=5)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        tiny(num_frames=0)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        tiny().set_input_size(num_frames=0)


def test_other_channels_work():
    assert tiny(in_chans=1)(clip(1, 1, 4, 32, 32)).shape == (1, 5)


# ---- initialisation ----


@pytest.mark.parametrize("mode", MODES)
def test_initialisation_is_the_papers(mode):
    torch.manual_seed(0)
    model = TimeSformer(img_size=64, num_frames=4, embed_dim=128, depth=2, num_heads=4, attention=mode)
    steps = [step.name for step in AttentionMode(mode).steps]
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 2)[-2:]
        left_out = mode == "frozen" and ".time.proj." in name  # it has no `fc` that could start at zero
        if (
            name == "time_embed"
            or kind[0] == "fc"
            or left_out
            or (kind[-1] == "bias" and not name.startswith("patch_embed"))
        ):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif name.startswith("patch_embed"):  # torch's own, as timm's ViT
            assert parameter.abs().max() <= 1 / math.sqrt(3 * 16 * 16), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name
    steps = [] if mode == "frozen" else steps[:-1]
    of_steps = [name for name, parameter in model.named_parameters() if ".fc.weight" in name]
    assert of_steps == [f"blocks.{i}.steps.{step}.fc.weight" for i in range(2) for step in steps]


@pytest.mark.parametrize("mode", MODES)
def test_fresh_model_starts_with_its_last_step_alone(mode):
    torch.manual_seed(0)
    model = TimeSformer(img_size=32, num_frames=4, embed_dim=32, depth=1, num_heads=4, attention=mode).eval()
    tokens = model.embed(clip(1, 3, 4, 32, 32))
    *others, last = model.blocks[0].steps.values()
    for step in others:
        torch.testing.assert_close(step(*tokens), tokens)
    assert not any(torch.allclose(after, before) for after, before in zip(last(*tokens), tokens, strict=True))


def test_meta_model_is_filled_by_init_weights():
    model = TimeSformer(img_size=32, num_frames=4, embed_dim=32, depth=1, num_heads=4, device="meta")
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.init_weights()
    assert model(clip(1, 3, 4, 32, 32)).isfinite().all()


def test_skipped_initialisation_takes_a_checkpoint():
    model = TimeSformer(**tiny().model_args, weight_init="skip").eval()
    assert model.head.weight.std() > 0  # a head may stay, where the checkpoint has another
    assert not model.head.bias.any()
    model.load_state_dict(tiny().state_dict())
    x = clip(1, 3, 4, 32, 32)
    assert torch.equal(model(x), tiny()(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the exporter, of itself
def test_the_exporter_that_bakes_the_batch_is_refused():
    with pytest.raises(ValueError, match=r"dynamo=False.*batch size a constant.*Use dynamo=True"):
        torch.onnx.export(tiny(), (clip(2, 3, 4, 32, 32),), io.BytesIO(), dynamo=False)
