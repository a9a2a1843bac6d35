"""The CPU's way through a block: that nobody can tell, and which product it takes."""

import pytest
import torch
import torch.nn.functional as F
from small_models import MODES, tiny
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from timesformer_zoo.model import inference
from timesformer_zoo.model.inference import Linears, chunks, packed_is_faster

packs = pytest.mark.skipif(not inference._has_packed(), reason="this torch has no oneDNN product with packed weights")


class Refused(Exception):
    pass


@pytest.fixture(autouse=True)
def packed(monkeypatch):
    """Whatever this machine would choose."""
    monkeypatch.setattr(inference, "packed_is_faster", lambda dtype: dtype in (torch.float32, torch.bfloat16))


@pytest.mark.parametrize(
    ("capability", "faster"),
    [("AVX512", True), ("AVX512_BF16", True), ("AVX2", False), ("DEFAULT", False), ("SVE256", False)],
)
def test_the_product_is_chosen_by_what_the_machine_has(capability, faster, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert packed_is_faster(torch.float32) is faster
    assert not packed_is_faster(torch.float64)


@pytest.mark.parametrize("choice", [True, False], ids=["packed", "torch's own"])
@torch.no_grad()
def test_what_is_chosen_runs(choice, monkeypatch):
    monkeypatch.setattr(inference, "packed_is_faster", lambda dtype: choice)
    linear, x, calls = layer(), tokens(), []
    product = F.linear
    monkeypatch.setattr(F, "linear", lambda *args: calls.append(1) or product(*args))
    torch.testing.assert_close(Linears(x)(linear, x), product(x, linear.weight, linear.bias), atol=2e-6, rtol=1e-5)
    assert len(calls) == (0 if choice and inference._has_packed() else 1)


@pytest.fixture
def no_plain_product(monkeypatch):
    def refuse(*args, **kwargs):
        raise Refused

    monkeypatch.setattr(F, "linear", refuse)


def layer(bias=True, kind=nn.Linear):
    torch.manual_seed(0)
    return kind(512, 768, bias=bias)


def tokens(shape=(600, 512)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@packs
@pytest.mark.parametrize("shape", [(600, 512), (3, 200, 512), (1, 1, 512)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_packed_layer_is_the_layer(dtype, bias, shape, monkeypatch):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU does not multiply bfloat16")
    linear, x = layer(bias).to(dtype), tokens(shape).to(dtype)
    plain, gelu = linear(x), F.gelu(linear(x))
    with monkeypatch.context() as patch:
        patch.setattr(F, "linear", None)  # would fail if it ran
        linears = Linears(tokens().to(dtype))  # of a pass of which x is a chunk
        packed, packed_gelu = linears(linear, x), linears(linear, x, gelu=True)
    assert packed.dtype == packed_gelu.dtype == dtype
    close = dict(atol=2e-6, rtol=1e-5) if dtype == torch.float32 else dict(atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(packed, plain, **close)
    torch.testing.assert_close(packed_gelu, gelu, **close)


@packs
@torch.no_grad()
def test_a_changed_weight_counts_in_the_next_pass(no_plain_product):
    linear, x = layer(), tokens()
    before = Linears(x)(linear, x)
    linear.weight.data.mul_(2)
    after = Linears(x)(linear, x)
    torch.testing.assert_close(after - linear.bias, 2 * (before - linear.bias), atol=1e-5, rtol=1e-5)


class Adapter(nn.Linear):
    """Adds to what its weight gives, as adapters do."""

    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize("gelu", [False, True])
@torch.no_grad()
def test_a_layer_that_does_more_runs_as_it_is(gelu):
    adapter, x = layer(kind=Adapter), tokens()
    expected = F.gelu(adapter(x)) if gelu else adapter(x)
    assert torch.equal(Linears(x)(adapter, x, gelu=gelu), expected)


@torch.no_grad()
def test_a_replaced_forward_runs():
    """As accelerate replaces it to bring a weight from elsewhere."""
    linear, x = layer(), tokens()
    linear.forward = lambda x: F.linear(x, linear.weight, linear.bias) + 1
    assert torch.equal(Linears(x)(linear, x), linear(x))
    model = tiny(num_frames=2)
    expected = model(torch.zeros(1, 3, 2, 32, 32))
    for block in model.blocks:
        block.mlp.forward = lambda x, mlp=block.mlp: -type(mlp).forward(mlp, x)  # norms would hide a shift
    assert not torch.allclose(model(torch.zeros(1, 3, 2, 32, 32)), expected)


@torch.no_grad()
def test_mixed_number_formats_are_refused_as_ever():
    with pytest.raises(RuntimeError, match="dtype"):
        Linears(tokens())(layer().bfloat16(), tokens())


@pytest.mark.parametrize("case", ["few tokens", "small layer", "double", "switched off"])
@torch.no_grad()
def test_where_packing_does_not_pay_or_is_not_wanted_nothing_is_packed(case, no_plain_product, monkeypatch):
    linear, x = (nn.Linear(8, 8), tokens((600, 8))) if case == "small layer" else (layer(), tokens())
    x = x[:10] if case == "few tokens" else x
    if case == "double":
        linear, x = linear.double(), x.double()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", case != "switched off")
    with pytest.raises(Refused):
        Linears(x)(linear, x)


@torch.no_grad()
def test_autocast_is_kept():
    linear, x = layer(), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        ours = Linears(x)(linear, x)
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, linear(x))


@torch.no_grad()
def test_operations_can_still_be_counted():
    linear, x = layer(), tokens()
    with FlopCounterMode(display=False) as counter:
        Linears(x)(linear, x)
    assert counter.get_total_flops() == 2 * 600 * 512 * 768


@torch.no_grad()
def test_vmap_and_functional_call_work():
    linear, x = layer(), tokens((2, 600, 512))
    ours = torch.func.vmap(lambda row: Linears(row)(linear, row))(x)
    torch.testing.assert_close(ours, linear(x), atol=2e-6, rtol=1e-5)
    doubled = {name: 2 * parameter for name, parameter in linear.named_parameters()}
    model = nn.Sequential(linear)
    model.forward = lambda y: Linears(y)(linear, y)
    result = torch.func.functional_call(model, {f"0.{name}": value for name, value in doubled.items()}, (x[0],))
    torch.testing.assert_close(result, 2 * linear(x[0]), atol=4e-6, rtol=1e-5)


@torch.no_grad()
def test_torchs_profiler_counts_the_operations():
    model = tiny(embed_dim=512, num_heads=8, num_frames=6, img_size=96, patch_size=8).eval()
    x = torch.randn(1, 3, 6, 96, 96)
    with FlopCounterMode(display=False) as counter:
        model(x)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
        model(x)
    counted = sum(event.flops or 0 for event in profiler.key_averages())
    attention = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "attention" in str(op))
    assert counted > 0.99 * (counter.get_total_flops() - attention)  # torch's profiler knows no fused attention


@pytest.mark.parametrize("global_pool", ["token", "avg"])
@pytest.mark.parametrize("grid", [(6, 20, 20), (3, 3, 5), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_with_its_one_line_off_a_model_gives_the_same(mode, grid, global_pool, monkeypatch):
    frames, h, w = grid
    model = tiny(mode, num_frames=frames, img_size=(8 * h, 8 * w), patch_size=8, global_pool=global_pool)
    x = torch.randn(2, 3, frames, 8 * h, 8 * w, generator=torch.Generator().manual_seed(2))
    entered = []
    block = inference.block
    monkeypatch.setattr(inference, "block", lambda *args: entered.append(1) or block(*args))
    fast = model(x)
    taken = 0 if mode == "frozen" else model.depth  # what other steps still look at can't be changed in place
    assert len(entered) == taken
    monkeypatch.setattr(inference, "applies", lambda *args: False)
    plain = model(x)
    assert len(entered) == taken
    assert (fast - plain).abs().max() <= 1e-6 * plain.abs().max()


@torch.no_grad()
def test_a_global_hook_sees_every_layer_of_every_step():
    """As a profiler sets it. Pooled over all tokens, so that the last block computes all of them."""
    model, seen = tiny("axial", global_pool="avg"), []
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(module))
    try:
        model(torch.zeros(1, 3, 4, 32, 32))
    finally:
        hook.remove()
    expected = [m for block in model.blocks for m in block.modules() if not isinstance(m, (nn.ModuleDict, nn.Dropout))]
    assert {id(module) for module in expected} <= {id(module) for module in seen}


def test_a_wide_model_is_the_same_with_and_without(monkeypatch):
    model = tiny(num_frames=6, img_size=96, patch_size=8, embed_dim=512, num_heads=8)
    x = torch.randn(1, 3, 6, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = model(x)
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
        plain = model(x)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 4, 1000, 2), (2, 5, 300, 8, 2), (1, 2, 3, 5000, 2), (0, 2, 3, 4, 2)], ids=str)
def test_chunks_are_all_groups_once(shape):
    groups = torch.zeros(shape)
    sizes = []
    for part in chunks(groups, numbering=2):
        part.add_(1)
        sizes.append(part.numel() // 2)
        assert part.shape[3:] == shape[3:]  # a group stays whole
    assert (groups == 1).all()
    assert max(sizes) <= max(2048, shape[0] * shape[3])
