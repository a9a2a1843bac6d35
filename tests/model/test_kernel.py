"""The kernel for attention over few tokens: what it computes, when it runs, and that compilers see through it.

Triton's interpreter runs it on a CPU, in a process of its own; on a GPU it runs itself (`pytest -m gpu`).
"""

import os
import subprocess
import sys

import pytest
import torch
from dense_reference import dense
from small_models import clip, every_mode, tiny
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

from timesformer_zoo.model import kernel

needs_triton = pytest.mark.skipif(kernel.triton is None, reason="Triton is not installed")
SIZES = [(1, 2, 64), (3, 3, 32), (8, 2, 64), (16, 1, 48), (30, 2, 40), (32, 1, 8)]  # tokens, heads, numbers of a head


@pytest.fixture
def everywhere(monkeypatch):
    """The way of the kernel, on a CPU: its operators by torch's own."""
    monkeypatch.setattr(kernel, "applies", lambda step, patches: step.step.axis is not None)


# ---- the operators ----


@pytest.mark.parametrize(("tokens", "heads", "d"), SIZES)
def test_the_operator_and_its_gradient_are_attentions(tokens, heads, d):
    qkv = torch.randn(2, tokens, 3, 3 * heads * d, dtype=torch.double, requires_grad=True)
    q, k, v = qkv.unflatten(-1, (3, heads, d)).permute(3, 0, 2, 4, 1, 5).unbind(0)  # O I H S d
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2, 4).flatten(3)
    ours = kernel._attention(qkv, heads)
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(out, qkv, grad) for out in (ours, expected)))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_the_operators_are_as_torch_asks():
    qkv = torch.randn(2, 4, 3, 48, requires_grad=True)
    opcheck(kernel._attention, (qkv, 2))
    opcheck(kernel._attention_backward, (torch.randn(2, 4, 3, 16), qkv.detach(), 2))


INTERPRETED = f"""
import torch
from timesformer_zoo.model import kernel
torch.manual_seed(0)
for tokens, heads, d in {SIZES}:
    for outer, inner in ((1, 5), (2, 3), (3, 1)):
        for dtype, close in ((torch.float32, 2e-6), (torch.float16, 4e-3)):
            kernel.TILES[dtype] = kernel.TILES[torch.float32]
            qkv = torch.randn(outer, tokens, inner, 3 * heads * d)
            grad = torch.randn(outer, tokens, inner, heads * d)
            for ours, right in (
                (kernel._triton_attention(qkv.to(dtype), heads), kernel._plain(qkv, heads)),
                (
                    kernel._triton_attention_backward(grad.to(dtype), qkv.to(dtype), heads),
                    kernel._plain_backward(grad, qkv, heads),
                ),
            ):
                assert ours.shape == right.shape and ours.dtype == dtype
                assert (ours - right).abs().max() <= close * right.abs().max(), (tokens, heads, d, outer, inner, dtype)
print("equal")
"""


@needs_triton
def test_triton_computes_the_same():
    """Groups that do not fill a tile, heads that are no power of two, one place and several."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert result.stdout == "equal\n", result.stderr


# ---- the model by way of it ----


@pytest.mark.parametrize("grid", [(4, 2, 3), (1, 2, 2), (7, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", ["divided", "axial"])
def test_the_model_is_the_same(mode, grid, everywhere):
    model = tiny(mode, num_frames=grid[0], img_size=(8 * grid[1], 8 * grid[2]), patch_size=8).double()
    x = clip(2, grid[0], 8 * grid[1], 8 * grid[2]).double()
    expected = dense(model, x)["logits"]
    torch.testing.assert_close(model(x), expected)
    state = {name: parameter.detach().requires_grad_() for name, parameter in model.named_parameters()}
    model(x).square().sum().backward()
    model.state_dict = lambda: state  # all that the reference asks for
    dense(model, x)["logits"].square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, msg=name)


@pytest.mark.parametrize("mode", ["divided", "axial"])
def test_it_compiles_whole_and_any_batch_after_two(mode, everywhere):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = tiny(mode).train()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for batch in (2, 3, 5, 8):
        logits = compiled(clip(batch))
        torch.testing.assert_close(logits, model(clip(batch)))
        logits.sum().backward()
    assert counter.frame_count == 2


def test_compiled_is_not_exported():
    """torch 2.11 says so of both; the kernel is for the one and not for the other."""

    class Asks(torch.nn.Module):
        def forward(self, x):
            return x + int(kernel._is_exporting())

    zero = torch.zeros(1)
    assert torch.compile(Asks(), fullgraph=True, backend="eager")(zero) == 0
    for strict in (False, True) if torch.__version__ >= (2, 11) else (False,):  # torch 2.7 keeps the strict way silent
        assert torch.export.export(Asks(), (zero,), strict=strict).module()(zero) == 1


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "heads", "d"), SIZES)
def test_a_gpu_computes_the_same(tokens, heads, d, dtype):
    generator = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(2, tokens, 7, 3 * heads * d, generator=generator)
    grad = torch.randn(2, tokens, 7, heads * d, generator=generator)
    x = qkv.cuda().to(dtype).requires_grad_()
    ours = kernel._attention(x, heads)
    (gradient,) = torch.autograd.grad(ours, x, grad.cuda().to(dtype))
    close = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype]
    for found, right in (
        (ours, kernel._plain(qkv.double(), heads)),
        (gradient, kernel._plain_backward(grad.double(), qkv.double(), heads)),
    ):
        assert (found.double().cpu() - right).norm() <= close * right.norm()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@every_mode
def test_every_mode_on_a_gpu(mode, monkeypatch):
    """As on the CPU, and with the compiler's default flags."""
    torch._dynamo.reset()
    launched = []
    launch = kernel._launch
    monkeypatch.setattr(kernel, "_launch", lambda *args: launched.append(1) or launch(*args))
    model, x = tiny(mode, embed_dim=64, num_heads=2).train(), clip(3)
    expected = model(x)
    expected.square().sum().backward()
    right = [parameter.grad.clone() for parameter in model.parameters()]
    model.cuda()
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        logits = run(x.cuda())
        logits.square().sum().backward()
        assert (logits.cpu() - expected).norm() <= 2e-3 * expected.norm()  # convolutions are rounded to TF32
        for parameter, gradient in zip(model.parameters(), right, strict=True):
            assert (parameter.grad.cpu() - gradient).norm() <= 5e-3 * gradient.norm()
    assert bool(launched) == any(step.step.axis is not None for step in model.attention_steps())
