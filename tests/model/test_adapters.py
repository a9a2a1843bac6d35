"""What others put into a model, hook to it or fold away: LoRA, timm's attention maps, `fuse`."""

import copy

import pytest
import torch
from dense_reference import STEPS
from small_models import clip, every_mode, tiny
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract
from timm.utils.model import reparameterize_model
from torch import nn

LORA = [("divided", ["qkv", "fc1"]), ("divided", r"blocks.*\.(qkv|proj|fc)"), *((mode, "all-linear") for mode in STEPS)]


@pytest.mark.parametrize(("mode", "targets"), LORA, ids=str)
def test_lora_finds_its_layers(mode, targets):
    peft = pytest.importorskip("peft")
    model, x = tiny(mode), clip()
    expected = model(x)
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=targets)).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), expected.detach())
    adapted.train()
    adapted(x).sum().backward()
    trained = [key for key, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert trained
    assert all("lora_" in key for key in trained)
    for step in STEPS[mode]:
        assert [key for key in trained if f"blocks.1.steps.{step}.qkv.lora_A" in key]
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    adapted.eval()
    with torch.no_grad():
        changed = adapted(x)
        assert not torch.allclose(changed, expected, atol=1e-3)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(x), changed, atol=1e-4, rtol=1e-4)


@every_mode
def test_timms_attention_extract(mode):
    set_fused_attn(False)
    try:
        model = tiny(mode)
    finally:
        set_fused_attn(True)
    extract, x = AttentionExtract(model, method="hook"), clip(2, 3, 48, 32)
    with torch.no_grad():
        maps = extract(x)
        torch.testing.assert_close(model(x), tiny(mode)(x))
    assert set(maps) == {f"blocks.{i}.steps.{step}.attn_drop" for i in range(2) for step in STEPS[mode]}
    for weights in maps.values():  # groups, heads, queries, keys
        assert weights.shape[1] == 4
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@every_mode
def test_a_fused_model_is_the_same_function(mode):
    model, x = tiny(mode), clip(2, 3, 48, 32)
    expected = model(x).detach()
    scale = expected.abs().max().item()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fused = reparameterize_model(model)
    assert not [key for key, _ in fused.named_parameters() if ".fc." in key]
    torch.testing.assert_close(model(x).detach(), expected)  # not changed in place
    removed = 0 if mode == "frozen" else 2 * (len(STEPS[mode]) - 1) * (32 * 32 + 32)
    assert parameters - sum(parameter.numel() for parameter in fused.parameters()) == removed
    for again in (fused, model.fuse(), model.fuse(), reparameterize_model(nn.Sequential(tiny(mode)).eval())):
        torch.testing.assert_close(again(x).detach(), expected, atol=1e-5 * scale, rtol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(again(x), expected, atol=1e-5 * scale, rtol=1e-5)
    assert model.fuse() is model


def test_fusing_in_training_or_under_an_adapter_is_refused():
    for fuse in (lambda model: model.fuse(), reparameterize_model):
        with pytest.raises(ValueError, match=r"model.eval\(\)"):
            fuse(tiny().train())
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=["proj"]))
    with pytest.raises(ValueError, match=r"fuse\(\) needs nn.Linear layers, got Linear.*merge_and_unload"):
        adapted.base_model.model.eval().fuse()
    adapted.merge_and_unload().eval().fuse()
