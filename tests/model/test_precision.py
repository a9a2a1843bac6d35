"""Number formats and devices: halves, doubles, autocast, the meta device, copies."""

import copy

import pytest
import timm
import torch
from small_models import clip, every_mode, tiny

import timesformer_zoo  # noqa: F401  (registers the models with timm)


@every_mode
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_precision(mode, grad):
    x = clip(2, 3, 48, 32)  # embeddings are resampled, too
    with torch.set_grad_enabled(grad):
        expected = tiny(mode)(x)
        for dtype, tolerance in {torch.float64: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}.items():
            logits = tiny(mode).to(dtype)(x.to(dtype))
            assert logits.dtype == dtype
            torch.testing.assert_close(logits.float(), expected, atol=tolerance * expected.std().item(), rtol=tolerance)


@every_mode
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_autocast(mode, grad):
    model, x = tiny(mode), clip(2, 3, 48, 32)
    with torch.set_grad_enabled(grad):
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            cls, patches = model.embed(x)
            logits = model(x)
        assert cls.dtype == patches.dtype == torch.float32  # residuals are summed in full precision
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), expected, atol=0.05 * expected.std().item(), rtol=0.05)
    if grad:
        logits.sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


SMALL = dict(img_size=32, patch_size=16, num_frames=4, embed_dim=32, depth=2, num_heads=4, num_classes=5)


def test_device_and_dtype_at_construction():
    def create(**options):
        return timm.create_model("timesformer_tiny_divided", **SMALL, **options)

    assert {parameter.dtype for parameter in create(dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    meta = create(device="meta", dtype=torch.float16)
    assert {(parameter.device.type, parameter.dtype) for parameter in meta.parameters()} == {("meta", torch.float16)}
    assert meta(clip().to("meta", torch.float16)).shape == (2, 5)
    with torch.device("meta"):
        assert create().pos_embed.is_meta
    filled = meta.to_empty(device="cpu").float()
    filled.load_state_dict(tiny().state_dict())
    assert torch.equal(filled.eval()(clip()), tiny()(clip()))


def test_copies_and_pickles(tmp_path):
    model, x = timm.create_model("timesformer_tiny_divided", **SMALL).eval(), clip(1, 4, 48, 48)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(copy.deepcopy(model)(x), expected)
        torch.save(model, tmp_path / "model.pt")
        again = torch.load(tmp_path / "model.pt", weights_only=False)
        assert torch.equal(again(x), expected)
    again.load_state_dict(model.state_dict())  # a copy still knows how to load
