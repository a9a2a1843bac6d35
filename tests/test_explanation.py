"""Attention maps and rollout, against the dense formulation of the modes."""

import doctest
import sys

import pytest
import torch
from dense_reference import STEPS, dense, group_of_patches
from PIL import Image
from small_models import MODES, both_kinds, clip, tiny

from timesformer_zoo import attention_maps, gradients, integrated_gradients, overlay, relevance, rollout
from timesformer_zoo.explanation import flow, maps

GRIDS = [(4, 2, 2), (3, 3, 5), (2, 1, 3), (1, 2, 2), (1, 1, 1)]


def model_of(mode, grid, **changes):
    return tiny(mode, num_frames=grid[0], img_size=(8 * grid[1], 8 * grid[2]), patch_size=8, **changes)


def clip_of(grid, batch=2):
    return torch.randn(batch, 3, grid[0], 8 * grid[1], 8 * grid[2], generator=torch.Generator().manual_seed(2))


def by_group(maps, key, step, frames_run_alone):
    """Takes a step's maps out of all maps: (B, A, S, S) a group, in the order that is promised."""
    if f"{key}.0" in maps:
        return [maps.pop(f"{key}.{k}") for k in range(sum(name.startswith(f"{key}.") for name in maps))]
    weights = maps.pop(key)
    if frames_run_alone:
        return [weights.flatten(0, 1)]
    return [weights] if step in ("space_time", "local", "sparse_global") else weights.flatten(1, -4).unbind(1)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_maps_are_the_dense_weights_of_their_patches(mode, grid):
    model, x = model_of(mode, grid), clip_of(grid)
    matrices = dense(model, x)["matrices"]  # (B, A, L, L), in space-only (B·T, …)
    maps = attention_maps(model, x)
    run_grid = (1, *grid[1:]) if mode == "space_only" else grid
    steps = STEPS[mode]
    for i, (matrix, step) in enumerate(zip(matrices, 2 * steps, strict=True)):
        number = group_of_patches(step, run_grid)
        ours = by_group(maps, f"blocks.{i // len(steps)}.{step}", step, mode == "space_only")
        if mode == "frozen":  # the class token's row is a map of its own, the patches' have its column
            key = f"blocks.{i // len(steps)}.{step}.class"
            torch.testing.assert_close(maps.pop(key).double()[:, :, 0], matrix[:, :, 0], atol=2e-5, rtol=0)
            for k, weights in zip(number.unique().tolist(), ours, strict=True):
                tokens = 1 + (number == k).nonzero().flatten()
                keys = torch.cat([torch.zeros(1, dtype=torch.long), tokens])
                torch.testing.assert_close(weights.double(), matrix[:, :, tokens][..., keys], atol=2e-5, rtol=0)
            continue
        joins, cls_row = step != "time", torch.zeros_like(matrix[:, :, 0])
        for k, weights in zip(number.unique().tolist(), ours, strict=True):
            tokens = 1 + (number == k).nonzero().flatten()
            if joins:
                tokens = torch.cat([torch.zeros(1, dtype=torch.long), tokens])
                cls_row[:, :, tokens] += weights[:, :, 0].double() / len(ours)
            expected = matrix[:, :, tokens][..., tokens]
            torch.testing.assert_close(weights.double()[:, :, joins:], expected[:, :, joins:], atol=2e-5, rtol=0)
        if joins:  # the mean of its rows in all groups
            torch.testing.assert_close(cls_row, matrix[:, :, 0], atol=2e-5, rtol=0)
    assert not maps


@pytest.mark.parametrize(
    ("mode", "shapes"),
    [
        ("space_only", {"space": (2, 3, 4, 9, 9)}),
        ("joint", {"space_time": (2, 4, 25, 25)}),
        ("divided", {"time": (2, 2, 4, 4, 3, 3), "space": (2, 3, 4, 9, 9)}),
        ("axial", {"time": (2, 2, 4, 4, 3, 3), "width": (2, 3, 2, 4, 5, 5), "height": (2, 3, 4, 4, 3, 3)}),
        (
            "frozen",
            {
                "time.class": (2, 4, 1, 25),
                "time": (2, 2, 4, 4, 3, 4),
                "space.class": (2, 4, 1, 25),
                "space": (2, 3, 4, 8, 9),
            },
        ),
        (
            "local_global",
            {f"local.{k}": (2, 4, 7, 7) for k in range(4)}
            | {f"sparse_global.{k}": (2, 4, 5, 5) if k < 4 else (2, 4, 3, 3) for k in range(8)},
        ),
    ],
)
def test_shapes_are_as_documented(mode, shapes):
    maps = attention_maps(model_of(mode, (3, 2, 4), depth=1), clip_of((3, 2, 4)))
    assert {key: tuple(weights.shape) for key, weights in maps.items()} == {
        f"blocks.0.{key}": shape for key, shape in shapes.items()
    }


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_rollout_is_the_product_of_the_dense_matrices(mode, grid):
    model, x = model_of(mode, grid), clip_of(grid)
    frames, h, w = grid
    product = None
    matrices = [matrix.mean(1) for matrix in dense(model, x)["matrices"]]
    same = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype)
    if mode == "frozen":  # what the space step sees has gone through the time step; its residual has not
        matrices = [space @ (time + same) / 2 for time, space in zip(matrices[::2], matrices[1::2], strict=True)]
    for matrix in matrices:
        matrix = (matrix + same) / 2
        product = matrix if product is None else matrix @ product
    for pool in ("token", "avg", "frame"):
        model.reset_classifier(5, pool)
        seen = product[:, 0] if pool == "token" else product[:, 1:].mean(1)  # rows of what the head sees
        if mode == "space_only":
            seen = seen.unflatten(0, (len(x), frames)) / frames
            patches, cls = seen[:, :, 1:].flatten(1), seen[:, :, 0].sum(1)
        else:
            patches, cls = seen[:, 1:], seen[:, 0]
        ours = rollout(model, x).double()
        torch.testing.assert_close(ours, patches.unflatten(1, (frames, h, w)), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.flatten(1).sum(1) + cls, torch.ones(len(x), dtype=torch.float64))


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_relevance_is_the_product_of_the_dense_matrices_and_their_gradients(mode, grid, pool):
    """R <- R + mean over heads of (∇A ⊙ A)⁺ R, with A and ∇A as L×L matrices, by torch's own gradients."""
    model, x = model_of(mode, grid), clip_of(grid).requires_grad_()
    classes = [3, 1]
    frames = grid[0]
    found = dense(model, x)
    tokens = found["tokens"][:, 0] if pool == "token" else found["tokens"][:, 1:].mean(1)
    logits = tokens @ model.head.weight.detach().double().T
    score = logits[range(len(x)), classes].sum()
    steps = []
    for matrix, gradient in zip(found["matrices"], torch.autograd.grad(score, found["matrices"]), strict=True):
        steps.append((matrix.detach() * gradient).clamp(min=0).mean(1))
    start = r = torch.eye(steps[0].shape[-1], dtype=torch.float64).expand_as(steps[0])
    if mode == "frozen":  # what the space step looks at is the time step's output; what it is added to is not
        for time, space in zip(steps[::2], steps[1::2], strict=True):
            r = r + space @ (r + time @ r)
    else:
        for step in steps:
            r = r + step @ r
    seen = (r - start)[:, 0] if pool == "token" else (r - start)[:, 1:].mean(1)
    expected = seen[:, 1:].reshape(len(x), *grid) / (frames if mode == "space_only" else 1)
    model.reset_classifier(5, pool)
    with torch.no_grad():
        model.head.weight.copy_(model_of(mode, grid).head.weight)
    ours = relevance(model, x.detach(), classes)
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours.double(), expected, atol=1e-7, rtol=1e-4)
    assert not any(parameter.grad is not None for parameter in model.parameters())
    torch.testing.assert_close(relevance(model, x[1:].detach(), 1), ours[1:])


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_the_dense_models(mode):
    """Of every mode, the size of the gradient of the model written a second time, summed over each patch."""
    model, x = model_of(mode, (3, 2, 4)), clip_of((3, 2, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(dense(model, x)["logits"][:, 2].sum(), x)
    expected = gradient.abs().sum(1).unflatten(-1, (4, 8)).unflatten(-3, (2, 8)).sum((-3, -1))
    torch.testing.assert_close(gradients(model, x.detach(), 2), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_integrated_gradients_are_complete(mode):
    """They sum to the logit's difference from the baseline, with a class for each clip."""
    pytest.importorskip("captum")
    model, x = model_of(mode, (3, 2, 4)), clip_of((3, 2, 4))
    for baseline in (torch.zeros(()), torch.full((1, 3, 1, 1, 1), 0.5)):
        shares = integrated_gradients(model, x, [3, 1], baseline=baseline, steps=64)
        with torch.no_grad():
            change = (model(x) - model(baseline.expand_as(x)))[[0, 1], [3, 1]]
        torch.testing.assert_close(shares.sum((1, 2, 3)), change, atol=1e-3, rtol=1e-2)
    with pytest.raises(ValueError, match="steps is 0"):
        integrated_gradients(model, x, 0, steps=0)


def test_without_captum_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'timesformer-zoo\[captum\]'"):
        integrated_gradients(tiny(), clip(), 0)


@pytest.mark.parametrize("explain", [relevance, gradients])
def test_a_class_that_there_is_not_is_refused(explain):
    for wrong, problem in {5: "expected 0 to 4", -1: "expected 0 to 4", (1, 2, 3): "3 classes for 2 clips"}.items():
        with pytest.raises(ValueError, match=problem):
            explain(tiny(), clip(), wrong)
    with pytest.raises(ValueError, match="expected one row of logits a clip"):
        explain(tiny(global_pool="frame"), clip(), 0)


@both_kinds
def test_another_size_is_explained_as_by_a_model_made_for_it(mode):
    model, x = tiny(mode), clip(2, 6, 48, 80)
    ours, maps = rollout(model, x), attention_maps(model, x)
    model.set_input_size(img_size=(48, 80), num_frames=6)
    assert ours.shape == (2, 6, 3, 5)
    torch.testing.assert_close(ours, rollout(model, x))
    torch.testing.assert_close(maps, attention_maps(model, x))


def test_rollout_finds_where_attention_goes():
    """Keys that only one patch has: its relevance is the largest."""
    model = tiny("joint", depth=1, num_heads=1)
    step = model.blocks[0].steps["space_time"]
    with torch.no_grad():
        model.patch_embed.proj.bias.zero_()
        model.pos_embed.zero_()
        model.time_embed.zero_()
        step.qkv.weight[:32].zero_()
        step.qkv.bias[:32] = 1  # the same question for all
        x = torch.zeros(1, 3, 4, 32, 32)
        x[0, :, 2, 16:, :16] = 1
        sign = 1.0 if step.qkv(step.norm(model.embed(x)[1]))[0, 2, 1, 0, 32:64].sum() > 0 else -1.0
        step.qkv.weight[32:64] *= 500 * sign
        step.qkv.bias[32:64] = 0
    relevance = rollout(model, x)[0]
    assert relevance.argmax() == 2 * 4 + 1 * 2 + 0
    assert relevance[2, 1, 0] > 0.9 * relevance.sum()


EXPLAINED = [attention_maps, rollout, lambda model, x: relevance(model, x, 0), lambda model, x: gradients(model, x, 0)]


@pytest.mark.parametrize("explain", EXPLAINED)
def test_model_is_afterwards_as_it_was(explain):
    model, x = tiny("axial"), torch.randn(1, 3, 4, 32, 32)
    model.blocks[1].steps["time"].fused_attn = False  # someone's own choice
    with torch.no_grad():
        before = model(x)
    explain(model, x)
    assert [step.fused_attn for step in model.attention_steps()] == 3 * [True] + [
        False,
        True,
        True,
    ]
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="got 4 dimensions"):
        explain(model, x[0])
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("explain", EXPLAINED)
def test_training_mode_is_refused(explain):
    with pytest.raises(ValueError, match=r"Call model.eval\(\)"):
        explain(tiny().train(), torch.randn(1, 3, 4, 32, 32))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_overlay_draws_every_frame(dtype, tmp_path):
    frames = (255 * torch.rand(4, 32, 48, 3)).to(dtype) if dtype == torch.uint8 else torch.rand(4, 32, 48, 3)
    relevance = torch.rand(4, 2, 3)
    figure = overlay(frames, relevance)
    for axes, frame, of_frame in zip(figure.axes, frames, relevance, strict=True):
        picture, heat = axes.images
        assert torch.equal(torch.from_numpy(picture.get_array().data), frame)
        assert torch.equal(torch.from_numpy(heat.get_array().data), of_frame)
        assert heat.get_extent() == [0, 48, 32, 0]
        assert heat.get_clim() == (0, relevance.max())  # one scale for all
    figure.savefig(tmp_path / "rollout.png")
    with Image.open(tmp_path / "rollout.png") as image:
        assert image.width > 4 * image.height  # in a row


def test_overlay_of_other_frames_is_refused():
    with pytest.raises(ValueError, match="each of 4 frames, got 3"):
        overlay(torch.rand(4, 32, 32, 3), torch.rand(3, 2, 2))


def test_examples_of_the_docstrings_run():
    results = [doctest.testmod(module) for module in (maps, flow)]
    assert [(result.failed, result.attempted) for result in results] == [(0, 2), (0, 2)]
