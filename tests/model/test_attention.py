"""The modes against a dense formulation of their definition, and what an attention step promises."""

import itertools
from collections import Counter

import pytest
import torch
from dense_reference import STEPS, dense, group_of_patches
from small_models import MODES, tiny
from timm.layers import set_fused_attn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from timesformer_zoo import AttentionMode

GRIDS = [
    (4, 4, 6),
    (3, 3, 5),  # everything odd
    (5, 4, 2),
    (2, 1, 3),  # an axis too short to cut
    (1, 3, 2),  # one frame
    (1, 1, 1),
]


def model_of(mode, grid, **changes):
    return tiny(mode, num_frames=grid[0], img_size=(8 * grid[1], 8 * grid[2]), patch_size=8, **changes)


def clip_of(grid, batch=2):
    return torch.randn(batch, 3, grid[0], 8 * grid[1], 8 * grid[2], generator=torch.Generator().manual_seed(2))


# ---- modes ----


def test_modes_are_their_values():
    assert [str(mode) for mode in AttentionMode] == MODES
    assert all(AttentionMode(mode) == mode == AttentionMode(mode).value for mode in MODES)
    assert {str(mode): [step.name for step in mode.steps] for mode in AttentionMode} == STEPS
    assert [mode for mode in AttentionMode if mode.per_frame] == [AttentionMode.SPACE_ONLY]


def test_the_authors_spellings_are_taken():
    assert AttentionMode("divided_space_time") is AttentionMode.DIVIDED
    assert AttentionMode("joint_space_time") is AttentionMode.JOINT


@pytest.mark.parametrize("wrong", ["temporal", "space_time", "", None, 3])
def test_another_mode_lists_the_right_ones(wrong):
    with pytest.raises(ValueError, match=rf"{wrong!r}.*space_only, joint, divided, local_global, axial, frozen"):
        AttentionMode(wrong)


# ---- the definition ----


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_equal_to_dense_attention_under_a_mask(mode, grid, grad):
    model, x = model_of(mode, grid), clip_of(grid)
    expected = dense(model, x)
    with torch.set_grad_enabled(grad):
        logits = model(x)
        tokens, features = model.forward_intermediates(x, output_fmt="NLC")
    torch.testing.assert_close(logits.double(), expected["logits"], atol=2e-5, rtol=0)
    torch.testing.assert_close(tokens.double(), expected["tokens"], atol=2e-5, rtol=0)
    for ours, block in zip(features, expected["blocks"], strict=True):
        patches = block[:, 1:].reshape(ours.shape)
        torch.testing.assert_close(ours.double(), patches, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_equal_those_of_dense_attention(mode):
    grid = (3, 2, 3)
    model, x = model_of(mode, grid).double(), clip_of(grid).double()
    torch.autograd.backward(model(x).square().sum())
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    state = {name: parameter.detach().requires_grad_() for name, parameter in model.named_parameters()}
    model.state_dict = lambda: state  # all that the reference asks for
    dense(model, x)["logits"].square().sum().backward()
    for name, parameter in state.items():
        torch.testing.assert_close(ours[name], parameter.grad, msg=name)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(
    "step", {step.name: step for mode in AttentionMode for step in mode.steps}.values(), ids=lambda step: step.name
)
def test_groups_are_those_of_the_definition(step, grid):
    t, h, w = grid
    numbers = torch.arange(t * h * w).view(1, t, h, w, 1)
    views = [step.view(numbers, cell) for cell in step.cells(grid)]
    groups = [
        group for cell in step.cells(grid) for group in step.groups(numbers, cell).flatten(0, -3)[..., 0].tolist()
    ]
    of_patch = group_of_patches(step.name, grid).tolist()
    members = itertools.groupby(sorted(range(t * h * w), key=lambda i: (of_patch[i], i)), key=lambda i: of_patch[i])
    assert sorted(map(sorted, groups)) == sorted(list(patches) for _, patches in members)
    assert torch.equal(step.ungroup(views, grid), numbers)  # and back
    for view in views:
        view += 1  # a view, not a copy
    assert torch.equal(numbers.flatten(), 1 + torch.arange(t * h * w))


# ---- eager inference on a CPU ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", [(6, 20, 20), (40, 8, 8), (7, 19, 21)], ids=str)
def test_inference_in_pieces_is_the_whole(mode, grid):
    """Clips of more tokens than are worked on at once."""
    model = model_of(mode, grid, embed_dim=8, num_heads=2)
    x = clip_of(grid, batch=2 if grid[0] < 40 else 1)
    with torch.no_grad():
        pieces, logits = model.forward_features(x), model(x)
    torch.testing.assert_close(pieces, model.forward_features(x).detach(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(logits, model.forward_head(pieces))


@pytest.mark.parametrize("mode", MODES)
def test_inference_changes_no_input(mode):
    model, x = model_of(mode, (4, 2, 2)), clip_of((4, 2, 2))
    before = x.clone()
    with torch.no_grad():
        tokens = model.embed(x)
        kept = [part.clone() for part in tokens]
        model.blocks[0](*tokens)
        _, features = model.forward_intermediates(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(list(tokens), kept, rtol=0, atol=0)
    with torch.no_grad():
        assert torch.equal(features[0], model.forward_intermediates(x, indices=[0], intermediates_only=True)[0])


def test_inference_tensors_work():
    model, x = model_of("divided", (4, 2, 2)), clip_of((4, 2, 2))
    with torch.inference_mode():
        ours = model(x)
    torch.testing.assert_close(ours.clone(), model(x).detach())


@pytest.mark.parametrize("name", ["", "steps.time", "steps.time.norm", "steps.space.qkv", "steps.space.proj", "mlp"])
def test_hooks_see_whole_outputs(name):
    """In inference as in training, though otherwise inference works in pieces."""
    model, x = model_of("divided", (6, 20, 20), embed_dim=8, num_heads=2), clip_of((6, 20, 20), batch=1)
    seen = []
    model.blocks[1].get_submodule(name).register_forward_hook(
        lambda module, args, output: seen.append(output[1] if isinstance(output, tuple) else output)
    )
    model(x)
    with torch.no_grad():
        model(x)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1])
    assert seen[0].numel() >= 2400 * 8  # every patch's


# ---- the last block, of which the head sees the class token alone ----


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_all_tokens(mode):
    model, x = model_of(mode, (4, 2, 3)), clip_of((4, 2, 3))
    gradients = []
    for logits in (model(x), model.forward_head(model.forward_features(x))):
        model.zero_grad()
        logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
@pytest.mark.parametrize("mode", MODES)
def test_the_last_block_does_less(mode, grad):
    model, x = model_of(mode, (4, 4, 4)), clip_of((4, 4, 4))

    def operations(function):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(grad):
            function(x)
        return counter.get_total_flops()

    assert operations(model) < 0.85 * operations(lambda x: model.forward_head(model.forward_features(x)))


def test_what_looks_at_all_tokens_sees_all_tokens():
    grid = (4, 2, 2)

    class Doubled(type(model_of("divided", grid))):
        def forward_features(self, x):
            return 2 * super().forward_features(x)

    class Wider(type(model_of("divided", grid).blocks[0])):
        def forward(self, cls, patches):
            cls, patches = super().forward(cls, patches)
            return patches[:, -1, -1, -1:], patches  # the last patch where the class token was

    x, plain = clip_of(grid), model_of("divided", grid)
    features = plain.forward_features(x)
    plain.norm.register_forward_hook(lambda module, args, output: output + 1)
    torch.testing.assert_close(plain(x), plain.forward_head(features + 1))
    for change in (Doubled, Wider):
        model = model_of("divided", grid)
        (model if change is Doubled else model.blocks[-1]).__class__ = change
        tokens = {Doubled: 2 * features, Wider: features[:, -1:]}[change]
        torch.testing.assert_close(model(x), model.forward_head(tokens))


# ---- fused attention ----


@pytest.fixture
def unfused():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


@pytest.mark.parametrize("mode", MODES)
def test_timms_switch_turns_fused_attention_off(mode, unfused, monkeypatch):
    monkeypatch.setattr("timesformer_zoo.model.block.PLAIN_KEYS", {})  # of few keys it is off by itself
    plain = model_of(mode, (3, 3, 2))
    set_fused_attn(True)
    fused = model_of(mode, (3, 3, 2))
    x = clip_of((3, 3, 2))
    expected = fused(x)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), expected)

    def refuse(*args, **kwargs):
        raise AssertionError("fused attention ran")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    torch.testing.assert_close(plain(x), expected)
    with torch.no_grad():
        plain(x)
    with pytest.raises(AssertionError, match="fused attention ran"):
        fused(x)


# ---- training ----


@pytest.mark.parametrize("mode", MODES)
def test_a_linear_layer_is_one_product_with_its_bias(mode):
    """Groups are views until they reach a layer, and a product of a view would be a batch of small ones."""

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counts[func.overloadpacket] += 1
            return func(*args, **(kwargs or {}))

    model, x = model_of(mode, (4, 4, 6), global_pool="avg").train(), clip_of((4, 4, 6), batch=1)
    counts = Counter()
    with Count():
        model(x)
    assert counts[torch.ops.aten.addmm] == sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert counts[torch.ops.aten.mm] == counts[torch.ops.aten.bmm] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_bfloat16_gradient_is_the_float32_one_rounded(mode):
    """On a CPU a step in bfloat16 computes attention otherwise than one in float32."""
    model, x = model_of(mode, (4, 4, 6)).train(), clip_of((4, 4, 6))
    layers = [step.qkv.weight for block in model.blocks for step in block.steps.values()]
    with torch.no_grad():
        for weight in layers:
            weight *= 4  # so that attention is not the same everywhere
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(x).float().square().sum()
        gradients[dtype] = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, layers)])
    exact, rounded = gradients.values()
    assert (rounded - exact).norm() < 0.015 * exact.norm()


@pytest.mark.parametrize("mode", MODES)
def test_drop_path_keeps_or_drops_a_clip_as_one(mode):
    """Among equal clips a block has as many outcomes as there are ways to drop its residuals, and no more."""
    frames = 1 if mode == "space_only" else 3  # where each frame is a clip of its own
    model = model_of(mode, (frames, 2, 2), drop_path_rate=0.5).train()
    torch.manual_seed(3)
    cls, patches = model.embed(clip_of((frames, 2, 2), batch=1))
    x = torch.cat([cls, patches.flatten(1, 3)], 1)
    cls, patches = model.blocks[1](cls.expand(200, -1, -1), patches.expand(200, -1, -1, -1, -1))
    outputs = torch.cat([cls, patches.flatten(1, 3)], 1).detach()
    kinds = outputs.flatten(1).round(decimals=4).unique(dim=0)
    residuals = 2 if mode == "frozen" else len(STEPS[mode]) + 1  # its time step is never dropped
    assert len(kinds) == 2**residuals
    with torch.no_grad():  # all dropped: what is left are the biases of `fc`, which comes after the drop
        step_biases = [step.fc.bias for step in model.blocks[1].steps.values() if hasattr(step.fc, "bias")]
        left = x.clone()
        for step, bias in zip(model.blocks[1].steps.values(), step_biases, strict=False):
            left[:, 0 if step.step.class_token else 1 :] += bias
    assert (outputs - left).flatten(1).abs().amax(1).min() < 1e-5


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_gives_no_logits(mode, training):
    model, x = model_of(mode, (4, 2, 2), drop_path_rate=0.5).train(training), clip_of((4, 2, 2))[:0]
    with torch.set_grad_enabled(training):
        assert model(x).shape == (0, model.num_classes)
        assert model.forward_features(x).shape == (0, 17, model.embed_dim)


@pytest.mark.parametrize("mode", MODES)
def test_first_block_is_never_dropped(mode):
    model = model_of(mode, (2, 2, 2), drop_path_rate=0.5)
    tokens = model.embed(clip_of((2, 2, 2)))
    expected = model.blocks[0](*tokens)
    torch.testing.assert_close(model.train().blocks[0](*tokens), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_is_on_attention_weights(fused, dtype):
    """Rate near 1: nothing is attended, so a step adds what its projection makes of zero."""
    set_fused_attn(fused)
    try:
        model = model_of("joint", (2, 2, 2), attn_drop_rate=1 - 1e-6, depth=1, dtype=dtype).train()
    finally:
        set_fused_attn(True)
    step = model.blocks[0].steps["space_time"]
    tokens = model.embed(clip_of((2, 2, 2)).to(dtype))
    torch.testing.assert_close(step(*tokens), tuple(part + step.proj.bias for part in tokens))
