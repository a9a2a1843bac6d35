"""Whatever is given to a model, in every mode: the plain clip's answer, or an error that names what was got."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import clip, every_mode, tiny

from timesformer_zoo import attention_maps, rollout

X = clip()
NAN = torch.full_like(X[:1], float("nan"))


def in_inference_mode():
    with torch.inference_mode():
        return X.clone()


# ---- inputs that hold the same numbers as a plain contiguous one ----

FITTING = {
    "time and channels transposed in memory": lambda: X.transpose(1, 2).contiguous().transpose(1, 2),
    "rows and columns transposed": lambda: X.transpose(3, 4),
    "channels last": lambda: X.contiguous(memory_format=torch.channels_last_3d),
    "every second number": lambda: X.repeat_interleave(2, -1)[..., ::2],
    "a window of a wider frame": lambda: torch.cat([X, X], -1)[..., 3:35],
    "one clip, expanded": lambda: X[:1].expand(3, -1, -1, -1, -1),
    "one frame, expanded": lambda: X[:, :, :1].expand(-1, -1, 4, -1, -1),
    "negated lazily": lambda: torch._neg_view(X),
    "waiting for a gradient": lambda: X.clone().requires_grad_(),
    "a parameter": lambda: torch.nn.Parameter(X.clone()),
    "of inference mode": in_inference_mode,
    "one clip is NaN": lambda: torch.cat([X, NAN]),
    "infinite": lambda: X * float("inf"),
    "huge": lambda: X * 1e30,
    "no clips": lambda: X[:0],
    "one frame": lambda: X[:, :, :1],
    "200 frames": lambda: X[:1].repeat(1, 1, 50, 1, 1),
}


@every_mode
@pytest.mark.parametrize("given", FITTING.values(), ids=FITTING.keys())
def test_it_is_what_the_numbers_say(given, mode):
    x, model = given(), tiny(mode)
    plain = torch.tensor(x.detach().resolve_neg().tolist()).reshape(x.shape)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            expected = model(plain)
            logits = model(x.clone() if x.is_inference() and grad else x)
            assert logits.shape == (len(x), 5)
            torch.testing.assert_close(logits, expected, equal_nan=True)
    if x.requires_grad:
        logits.sum().backward()
        assert x.grad.abs().sum() > 0
    if len(x) == 3 and x.isnan().any():  # and no clip sees another
        assert logits[:2].isfinite().all()
        assert logits[2].isnan().all()


@every_mode
@pytest.mark.parametrize(
    ("pool", "shape"), [("token", (0, 5)), ("avg", (0, 5)), ("frame", (0, 4, 5)), ("", (0, 17, 5))]
)
def test_no_clips_give_no_rows(mode, pool, shape):
    model = tiny(mode, global_pool=pool)
    assert model(clip(0)).shape == model.train()(clip(0)).shape == shape
    model(clip(0)).sum().backward()
    if pool == "token":
        assert model(clip(0), num_valid_frames=[]).shape == shape
        assert rollout(model.eval(), clip(0)).shape == (0, 4, 2, 2)
        assert all(len(weights) == 0 for weights in attention_maps(model, clip(0)).values())


# ---- what is no clip batch: (what is given, the error, what it must say: what was got, and what to do) ----

FLOATS = r"of torch.float32, as the model is, got torch.{}\. Use x.to\(torch.float32\)"
NO_FLOATS = r"of floating point, got torch.{}\. clip_transform\(model\) makes it"
NO_TENSOR = r"got {}\. clip_transform\(model\) makes a clip, torch.stack a batch"
WRONG = {
    "None": (None, TypeError, NO_TENSOR.format("NoneType")),
    "an array": (X.numpy(), TypeError, NO_TENSOR.format("ndarray")),
    "a list of clips": (list(X), TypeError, NO_TENSOR.format("list")),
    "nested lists": (X.tolist(), TypeError, NO_TENSOR.format("list")),
    "a picture": (Image.new("RGB", (32, 32)), TypeError, NO_TENSOR.format("Image")),
    "frames as bytes in an array": (np.zeros((4, 32, 32, 3), np.uint8), TypeError, NO_TENSOR.format("ndarray")),
    "a path": ("video.mp4", TypeError, NO_TENSOR.format("str")),
    "a number": (3, TypeError, NO_TENSOR.format("int")),
    "a scalar": (torch.tensor(1.0), ValueError, r"got 0 dimensions: \(\)"),
    "an image": (X[0, :, 0], ValueError, r"got 3 dimensions: \(3, 32, 32\)"),
    "one clip": (X[0], ValueError, r"got 4 dimensions: \(3, 4, 32, 32\).*x.unsqueeze\(0\)"),
    "a batch of images": (X[:, :, 0], ValueError, r"got 4 dimensions: \(2, 3, 32, 32\)\.$"),
    "a batch of views": (X[None], ValueError, r"got 6 dimensions: \(1, 2, 3, 4, 32, 32\)"),
    "time before channels": (X.transpose(1, 2), ValueError, r"looks like \(B, T, C, H, W\): use x.transpose\(1, 2\)"),
    "channels at the end": (X.permute(0, 2, 3, 4, 1), ValueError, r"\(B, T, H, W, C\): use x.permute\(0, 4, 1, 2, 3\)"),
    "one channel": (X[:, :1], ValueError, r"with C = 3, got C = 1 in \(2, 1, 4, 32, 32\)\.$"),
    "four channels": (X[:, [0, 1, 2, 0]], ValueError, r"got C = 4"),
    "no channels": (X[:, :0], ValueError, r"got C = 0"),
    "no frames": (X[:, :, :0], ValueError, "at least 1 frame, got 0"),
    "no rows": (X[:, :, :, :0], ValueError, "at least 1 pixel a side, got 0x32"),
    "no columns": (X[..., :0], ValueError, "at least 1 pixel a side, got 32x0"),
    "smaller than a patch": (X[..., :8, :8], ValueError, "8x8 pixels are not a multiple of the patch, 16x16. Resize"),
    "not a multiple": (X[..., :31], ValueError, "32x31 pixels are not a multiple of the patch"),
    "bytes": (X.to(torch.uint8), ValueError, NO_FLOATS.format("uint8")),
    "truths": (X > 0, ValueError, NO_FLOATS.format("bool")),
    "whole numbers": (X.long(), ValueError, NO_FLOATS.format("int64")),
    "short whole numbers": (X.short(), ValueError, NO_FLOATS.format("int16")),
    "complex": (X.to(torch.complex64), ValueError, NO_FLOATS.format("complex64")),
    "halves": (X.half(), ValueError, FLOATS.format("float16")),
    "bfloat16": (X.bfloat16(), ValueError, FLOATS.format("bfloat16")),
    "doubles": (X.double(), ValueError, FLOATS.format("float64")),
    "another device": (X.to("meta"), ValueError, r"on cpu, where the model is, got one on meta\. Use x.to\('cpu'\)"),
    "sparse": (X.to_sparse(), ValueError, r"dense tensor, got a torch.sparse_coo\. Use x.to_dense\(\)"),
    "mkldnn": (X.to_mkldnn(), ValueError, r"got a torch._mkldnn\. Use x.to_dense\(\)"),
    "nested": (torch.nested.nested_tensor(list(X), layout=torch.jagged), ValueError, "got a nested one. Stack clips"),
}


@every_mode
@pytest.mark.parametrize(("x", "error", "message"), WRONG.values(), ids=WRONG.keys())
def test_it_is_refused_in_one_line(x, error, message, mode):
    model = tiny(mode)
    for method in (model, model.forward_features, model.forward_intermediates):
        with pytest.raises(error, match=message) as caught:
            method(x)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
    for explain in (attention_maps, rollout):
        with pytest.raises(error, match=message):
            explain(model, x)


def test_the_number_format_is_the_models_own():
    with pytest.raises(ValueError, match=r"of torch.bfloat16, as the model is, got torch.float32"):
        tiny().bfloat16()(X)
    with torch.autocast("cpu", torch.bfloat16):  # brings all to one format, but for doubles
        for x in (X, X.half(), X.bfloat16()):
            assert tiny()(x).dtype == torch.bfloat16
        with pytest.raises(ValueError, match=FLOATS.format("float64")):
            tiny()(X.double())
    meta = tiny().to("meta")
    with pytest.raises(ValueError, match=FLOATS.format("float16")):
        meta(X.half().to("meta"))


def test_a_frame_without_pixels_is_not_padded():
    with pytest.raises(ValueError, match="at least 1 pixel a side, got 0x32"):
        tiny(dynamic_img_pad=True)(X[..., :0, :])
    assert tiny(dynamic_img_pad=True)(X[..., :1, :]).shape == (2, 5)
