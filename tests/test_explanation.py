"""Attention maps and rollout, against the dense formulation of the modes."""

import doctest
import math

import pytest
import torch
from dense_reference import STEPS, dense, mask
from small_models import MODES, tiny

from timesformer_zoo import AttentionMode, attention_maps, overlay, rollout
from timesformer_zoo import explanation as explain

GRIDS = [(4, 2, 2), (3, 3, 5), (2, 1, 3), (1, 2, 2), (1, 1, 1)]


def model_of(mode, grid, **changes):
    return tiny(mode, num_frames=grid[0], img_size=(8 * grid[1], 8 * grid[2]), patch_size=8, **changes)


def clip_of(grid, batch=2):
    return torch.randn(batch, 3, grid[0], 8 * grid[1], 8 * grid[2], generator=torch.Generator().manual_seed(2))


def patches_of_rows(step, grid):
    """Step.groups on the numbers of the patches: the order that the maps promise."""
    numbers = torch.arange(math.prod(grid)).view(1, *grid, 1)
    return [step.groups(numbers, cell).flatten(0, -3).flatten(1) for cell in step.cells(grid)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_maps_are_the_dense_weights_of_their_patches(mode, grid):
    model, x = model_of(mode, grid), clip_of(grid)
    matrices = dense(model, x)["matrices"]  # (B, A, L, L), in space-only (B·T, …)
    maps = attention_maps(model, x)
    run_grid = (1, *grid[1:]) if mode == "space_only" else grid
    steps = AttentionMode(mode).steps
    for i, (matrix, step) in enumerate(zip(matrices, 2 * steps, strict=True)):
        cells = patches_of_rows(step, run_grid)
        if step.cuts:
            cells = [group[None] for groups in cells for group in groups]
        total = sum(len(groups) for groups in cells)
        cls_row = torch.zeros_like(matrix[:, :, 0])
        for k, groups in enumerate(cells):
            key = f"blocks.{i // len(steps)}.{step.name}" + (f".{k}" if len(cells) > 1 else "")
            ours = maps.pop(key).double().flatten(1, -4) if len(step.axes) < 3 else maps.pop(key).double().unsqueeze(1)
            ours = ours.reshape(len(matrix), -1, *ours.shape[-3:])  # B G A S S
            torch.testing.assert_close(ours.sum(-1), torch.ones_like(ours.sum(-1)), atol=1e-5, rtol=0)
            for g, patches in enumerate(groups):
                tokens = 1 + patches
                if step.class_token:
                    tokens = torch.cat([torch.zeros(1, dtype=torch.long), tokens])
                    cls_row[:, :, tokens] += ours[:, g, :, 0] / total
                rows = slice(int(step.class_token), None)
                expected = matrix[:, :, tokens][..., tokens]
                torch.testing.assert_close(ours[:, g][:, :, rows], expected[:, :, rows], atol=2e-5, rtol=0)
        if step.class_token:
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


@pytest.mark.parametrize("pool", ["token", "avg", "frame"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_rollout_is_the_product_of_the_dense_matrices(mode, grid, pool):
    model, x = model_of(mode, grid, global_pool=pool), clip_of(grid)
    frames, h, w = grid
    product = None
    for matrix in dense(model, x)["matrices"]:
        matrix = matrix.mean(1)
        matrix = (matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype)) / 2
        product = matrix if product is None else matrix @ product
    seen = product[:, 0] if pool == "token" else product[:, 1:].mean(1)  # rows of what the head sees
    if mode == "space_only":
        seen = seen.unflatten(0, (len(x), frames)) / frames
        patches, cls = seen[:, :, 1:].flatten(1), seen[:, :, 0].sum(1)
    else:
        patches, cls = seen[:, 1:], seen[:, 0]
    ours = rollout(model, x)
    torch.testing.assert_close(ours.double(), patches.unflatten(1, (frames, h, w)), atol=1e-6, rtol=1e-5)
    assert (ours >= 0).all()
    torch.testing.assert_close(ours.double().flatten(1).sum(1) + cls, torch.ones(len(x), dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_rollout_at_another_size(mode):
    relevance = rollout(tiny(mode), torch.randn(2, 3, 6, 48, 80))
    assert relevance.shape == (2, 6, 3, 5)
    assert (relevance > 0).all()


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
        sign = 1.0 if step.qkv(step.norm(model.embed(x)[0]))[0, 11, 32:64].sum() > 0 else -1.0
        step.qkv.weight[32:64] *= 500 * sign
        step.qkv.bias[32:64] = 0
    relevance = rollout(model, x)[0]
    assert relevance.argmax() == 2 * 4 + 1 * 2 + 0
    assert relevance[2, 1, 0] > 0.9 * relevance.sum()


@pytest.mark.parametrize("explain", [attention_maps, rollout])
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


@pytest.mark.parametrize("explain", [attention_maps, rollout])
def test_training_mode_is_refused(explain):
    with pytest.raises(ValueError, match=r"Call model.eval\(\)"):
        explain(tiny().train(), torch.randn(1, 3, 4, 32, 32))


@pytest.mark.parametrize("frames", [torch.randint(256, (4, 32, 48, 3), dtype=torch.uint8), torch.rand(4, 32, 48, 3)])
def test_overlay_draws_every_frame(frames, tmp_path):
    figure = overlay(frames, rollout(tiny(img_size=(32, 48)), torch.randn(1, 3, 4, 32, 48))[0])
    assert len(figure.axes) == 4
    for axes in figure.axes:
        picture, heat = axes.images
        assert picture.get_array().shape == (32, 48, 3)
        assert heat.get_array().shape == (2, 3)
        assert heat.get_extent() == [0, 48, 32, 0]
        assert heat.get_clim() == figure.axes[0].images[1].get_clim()
    figure.savefig(tmp_path / "rollout.png")
    assert (tmp_path / "rollout.png").stat().st_size > 1000


def test_overlay_of_other_frames_is_refused():
    with pytest.raises(ValueError, match="each of 4 frames, got 3"):
        overlay(torch.rand(4, 32, 32, 3), torch.rand(3, 2, 2))


def test_examples_of_the_docstrings_run():
    result = doctest.testmod(explain)
    assert (result.failed, result.attempted) == (0, 4)


def test_every_step_is_covered_here():
    """A new step needs a group number in the dense formulation."""
    for mode in AttentionMode:
        for step in STEPS[str(mode)]:
            mask(step, (2, 2, 2))
