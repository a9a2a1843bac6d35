"""Compilers and exporters, with very small models of each mode: whole graphs, any batch, the same function."""

import warnings

import pytest
import torch
from small_models import MODES, clip, every_mode, tiny
from torch._dynamo.testing import CompileCounterWithBackend


def small(mode, **changes):
    return tiny(mode, embed_dim=16, **changes)


@every_mode
def test_a_training_step_compiles_once_and_whole(mode):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = small(mode).train()
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=False)
    for _ in range(3):
        x = torch.randn(2, 3, 4, 32, 32)
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1
    compiled(x).sum().backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    torch.testing.assert_close(ours, [parameter.grad for parameter in model.parameters()])


@every_mode
def test_compile_with_dynamic_batch_and_frames(mode):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    model = small(mode, depth=1, global_pool="avg")  # so that the one block computes all tokens
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for batch, frames in [(2, 6), (3, 5), (5, 9), (2, 7)]:
            x = clip(batch, frames)
            torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.mark_dynamic(x, 2)
            torch.testing.assert_close(compiled(x), model(x))
        graphs = 2 if mode == "local_global" else 1  # a stride of 2 cuts odd numbers of frames unequally
        assert counter.frame_count == graphs
        for batch in (3, 2):
            x = clip(batch)
            torch.testing.assert_close(compiled(x), model(x))
        graphs += model.time_embed is not None  # the model's own number of frames needs no resampling
        assert counter.frame_count == graphs


@pytest.mark.slow
@every_mode
def test_compile_with_inductor(mode):
    torch._dynamo.reset()
    model = tiny(mode)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip()), model(clip()), atol=1e-4, rtol=1e-4)


def export(model, strict=False):
    shapes = {"x": {0: torch.export.Dim("batch")}}
    x = clip(2, model.num_frames, *model.img_size)
    return torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict)


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [*((mode, {}) for mode in MODES), ("local_global", {"img_size": (32, 16), "depth": 1})],
    ids=[*MODES, "an odd number of columns"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter's own libraries
def test_export_and_onnx_with_dynamic_batch(mode, sizes, tmp_path):
    model = small(mode, **sizes)
    program = export(model)
    torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, verbose=False)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 2, 7):
        x = clip(size, 4, *model.img_size)
        expected = model(x).detach()
        torch.testing.assert_close(program.module()(x), expected)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


def test_strict_export():
    model, x = small("local_global"), clip(5)
    torch.testing.assert_close(export(model, strict=True).module()(x), model(x))


@every_mode
def test_torchscript_trace(mode):
    model, x = tiny(mode), clip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and says of every size that it is fixed from now on
        traced = torch.jit.trace(model, (x,))
    for batch in (1, 2, 5):
        torch.testing.assert_close(traced(clip(batch)), model(clip(batch)))
