"""Image ViTs as the start of video models."""

import pytest
import timm
import torch
from small_models import MODES, load, tiny, tiny_vit

from timesformer_zoo import CheckpointError, TimeSformer, checkpoint_filter_fn, init_from_vit
from timesformer_zoo.weights.formats import from_native


@pytest.mark.parametrize("mode", ["divided", "space_only"])
@pytest.mark.parametrize("options", [{}, {"init_values": 0.5}, {"no_embed_class": True}], ids=str)
def test_still_clip_gives_what_the_image_vit_gives(mode, options):
    vit = tiny_vit(**options)
    model = init_from_vit(tiny(mode), vit)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = vit(image)
        logits = model(image.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_the_vits_attention(mode):
    vit = tiny_vit()
    model = init_from_vit(tiny(mode), vit.state_dict())
    *others, last = model.blocks[1].steps.values()
    for step in (*others, last):
        assert torch.equal(step.qkv.weight, vit.blocks[1].attn.qkv.weight)
        assert torch.equal(step.norm.weight, vit.blocks[1].norm1.weight)
    assert torch.equal(last.proj.bias, vit.blocks[1].attn.proj.bias)
    for step in others:
        zero = step.proj if mode == "frozen" else step.fc
        assert not zero.weight.any()
        assert not zero.bias.any()
        assert zero is step.proj or torch.equal(step.proj.bias, vit.blocks[1].attn.proj.bias)
    assert model.time_embed is None or not model.time_embed.any()
    assert torch.equal(model.blocks[0].mlp.fc1.weight, vit.blocks[0].mlp.fc1.weight)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_the_filter_inflates_and_resamples():
    vit = tiny_vit(img_size=64, num_classes=1000)
    model = tiny("axial", img_size=(32, 64), patch_size=8, in_chans=1, num_frames=6)
    before = model.head.weight.clone()
    load(model, vit.state_dict())
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.cls_token, vit.cls_token)


def test_rectangular_vit_module_tells_its_grid():
    vit = tiny_vit(img_size=(32, 48))
    init_from_vit(tiny("divided"), vit)
    with pytest.raises(CheckpointError, match="source_grid"):
        init_from_vit(tiny("divided"), vit.state_dict())


@pytest.mark.parametrize("no_embed_class", [False, True])
@pytest.mark.parametrize("size", [(32, 64), (16, 64), (32, 32)])
def test_class_entry_is_told_from_the_grid(no_embed_class, size):
    """Two rows of four patches and a class token are nine entries, which is a square; so are four patches alone."""
    vit = tiny_vit(img_size=size, no_embed_class=no_embed_class)
    model = init_from_vit(tiny("space_only", img_size=size), vit)
    assert torch.equal(model.pos_embed[:, 1:], vit.pos_embed[:, 1 - no_embed_class :])
    assert no_embed_class != bool(model.pos_embed[:, 0].any())


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (dict(embed_dim=64), {}, "do not fit the model"),
        (dict(depth=3), {}, "do not fit the model.*width 32, depth 2"),
        (dict(num_heads=2), {}, "2 attention heads, the model 4"),
        (dict(mlp_ratio=2.0), {}, "do not fit the model"),
        ({}, dict(act_layer="quick_gelu"), "activation is QuickGELU"),
        ({}, dict(reg_tokens=2), "register tokens"),
        ({}, dict(pre_norm=True), "before the first block .norm_pre, as CLIP does"),
        ({}, dict(class_token=False, global_pool="avg"), "norm after pooling|no class token"),
        ({}, dict(class_token=False, global_pool="avg", fc_norm=False), "no class token"),
        ({}, dict(qk_norm=True), "normalised queries"),
    ],
)
def test_unfit_vits_are_refused(size, options, message):
    with pytest.raises(CheckpointError, match=message):
        init_from_vit(tiny("divided"), tiny_vit(**size, **options))


def test_distilled_and_other_networks_are_refused():
    with pytest.raises(CheckpointError, match="distillation token"):
        init_from_vit(tiny(), tiny_vit().state_dict() | {"dist_token": torch.zeros(1, 1, 32)})
    with pytest.raises(CheckpointError, match="got a ResNet; expected a timm VisionTransformer"):
        init_from_vit(tiny(), timm.create_model("resnet10t"))
    with pytest.raises(CheckpointError, match="image ViT's weights; these are a video model's"):
        init_from_vit(tiny(), tiny().state_dict())


def test_vit_by_name(monkeypatch):
    """timm is asked for the pretrained model; here it has no network to fetch it from."""
    vit = tiny_vit()
    asked = {}

    def create_model(name, **options):
        asked.update(name=name, **options)
        return vit

    monkeypatch.setattr(timm, "create_model", create_model)
    init_from_vit(tiny("joint"), "vit_tiny_patch16_224.augreg_in21k")
    assert asked == {"name": "vit_tiny_patch16_224.augreg_in21k", "pretrained": True}


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_small_patch14_dinov2"]
)
def test_real_timm_vits_fit_or_say_why(name):
    if "dinov3" in name:
        vit = timm.create_model(name, img_size=64)
        with pytest.raises(CheckpointError, match="got a Eva"):
            init_from_vit(tiny(), vit)
        return
    vit = timm.create_model(name, img_size=56 if "patch14" in name else 64)
    size = dict(embed_dim=vit.embed_dim, depth=12, num_heads=vit.blocks[0].attn.num_heads)
    model = init_from_vit(TimeSformer(img_size=32, num_frames=2, num_classes=3, attention="local_global", **size), vit)
    assert torch.equal(model.blocks[11].steps["local"].qkv.weight, vit.blocks[11].attn.qkv.weight)


def test_a_vit_with_a_norm_before_its_blocks_starts_a_model_with_one():
    """CLIP's image ViTs: a norm before the first block, and no bias in the patch embedding."""
    vit = tiny_vit(pre_norm=True)
    model = init_from_vit(tiny("space_only", pre_norm=True), vit)
    frame = torch.randn(2, 3, 32, 32)
    clip = frame.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(model.forward_features(clip)[:, 0], vit.forward_features(frame)[:, 0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("frames", [8, 32, 64, 96])
def test_howto100m_files_fit(frames):
    """The authors' HowTo100M models: their divided layout, 1059 classes, 8 to 96 frames."""
    weights = tiny(num_frames=frames, num_classes=1059).state_dict()
    model = tiny(num_frames=frames, num_classes=1059)
    model.load_state_dict(checkpoint_filter_fn({"model_state": from_native(weights, "the authors'", "divided")}, model))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
