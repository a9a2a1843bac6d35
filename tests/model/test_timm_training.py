"""What timm's users train with: gradients for all, checkpointing, layer decay, dropout, distributed runs."""

import pytest
import torch
import torch.distributed as dist
from small_models import MODES, clip, every_mode, tiny
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from timesformer_zoo import TimeSformer


@every_mode
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_every_parameter_gets_a_gradient(mode, pool):
    model = tiny(mode, global_pool=pool).train()
    model(clip()).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_training(one_process):
    """DDP refuses the second step if the first left a parameter without a gradient, as zeros of fresh weights might."""
    for mode in MODES:
        plain = TimeSformer(
            img_size=32, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=2, attention=mode
        )
        model = nn.parallel.DistributedDataParallel(plain.train())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            model(clip()).sum().backward()
            optimizer.step()


@every_mode
def test_gradient_checkpointing(mode):
    model, x = tiny(mode).train(), clip()
    model(x).sum().backward()
    expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    runs = []
    model.blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    model(x).sum().backward()
    assert len(runs) == 2  # once more in the backward pass
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key])
    model.set_grad_checkpointing(False)
    model(x).sum().backward()
    assert len(runs) == 3


def test_layer_decay_gives_each_block_one_rate():
    model = tiny("axial", depth=3)
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scales = {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}
    of = {key: scales[parameter] for key, parameter in model.named_parameters()}
    assert len(of) == len(list(model.parameters()))
    for key, scale in of.items():
        if key.startswith("blocks."):
            assert scale == 0.5 ** (3 - int(key.split(".")[1])), key
        else:  # timm counts the final norm to the last block
            assert scale == {"norm": 0.5, "head": 1.0}.get(key.split(".")[0], 0.5**4), key


def test_embeddings_are_not_decayed():
    model = tiny("axial")
    embeddings = {"pos_embed", "cls_token", "time_embed"}
    assert model.no_weight_decay() == embeddings
    free, decayed = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    assert (free["weight_decay"], decayed["weight_decay"]) == (0.0, 0.1)
    in_free = set(map(id, free["params"]))
    for key, parameter in model.named_parameters():
        assert (id(parameter) in in_free) == (key in embeddings or parameter.ndim == 1), key


def test_drop_rates_reach_every_dropout():
    rates = dict(drop_rate=0.1, pos_drop_rate=0.2, proj_drop_rate=0.3, attn_drop_rate=0.4, drop_path_rate=0.5)
    model = tiny(depth=3, **rates)
    dropouts = 0
    for key, module in model.named_modules():
        kind = key.rsplit(".", 1)[-1]
        if isinstance(module, nn.Dropout):
            dropouts += 1
            expected = {"head_drop": 0.1, "pos_drop": 0.2, "attn_drop": 0.4}.get(kind, 0.3)
            assert module.p == expected, key
        elif kind == "drop_path":
            assert module.drop_prob == pytest.approx(0.25 * int(key.split(".")[1])), key
    assert dropouts == 2 + 3 * (2 * 2 + 2)  # of steps, on weights and after the projection; two of an MLP
    x = clip()
    assert torch.equal(model(x), model(x))
    for rate, value in rates.items():  # each does something of its own in training, and nothing else does
        model = tiny(depth=3, **{rate: value}).train()
        torch.manual_seed(0)
        first = model(x)
        assert any(not torch.equal(model(x), first) for _ in range(16)), rate  # two draws may well be alike
    model = tiny().train()
    assert torch.equal(model(x), model(x))
