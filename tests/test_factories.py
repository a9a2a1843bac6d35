"""Whatever timm's users do with a model, with every registered model: timm's own checks, in our words, for clips.

Each name is built small; what it is at full size is checked without memory, on the meta device.
"""

import copy
import warnings

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import set_fused_attn
from timm.models._features import FeatureGetterNet
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import AttentionExtract
from timm.utils.model import reparameterize_model
from torch import nn

import timesformer_zoo  # noqa: F401  (registers the models with timm)

MODES = {  # and the steps of a block
    "space_only": ["space"],
    "joint": ["space_time"],
    "divided": ["time", "space"],
    "local_global": ["local", "sparse_global"],
    "axial": ["time", "width", "height"],
}
SIZES = {"base": (8, 224), "hr": (16, 448), "l": (96, 224), "tiny": (8, 64)}  # frames, pixels
NAMES = [f"timesformer_{size}_{mode}" for size in SIZES for mode in MODES]
ONE_OF_EACH_MODE = [f"timesformer_tiny_{mode}" for mode in MODES]
SMALL = dict(img_size=32, patch_size=16, num_frames=4, embed_dim=32, depth=2, num_heads=2, num_classes=5)

every_name = pytest.mark.parametrize("name", NAMES)
every_mode = pytest.mark.parametrize("name", ONE_OF_EACH_MODE)


def mode_of(name):
    return name.split("_", 2)[2]


def small(name, **changes):
    """The registered model at a small size, with every parameter random, also those that start at zero."""
    model = timm.create_model(name, **{**SMALL, **changes}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def clip(batch=2, frames=4, height=32, width=32):
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


# ---- registration ----


def test_these_are_the_registered_models():
    assert sorted(timm.list_models("timesformer*")) == sorted(NAMES)
    assert all(timm.is_model(name) for name in NAMES)


@every_name
def test_full_size(name):
    size = name.split("_")[1]
    frames, pixels = SIZES[size]
    model = timm.create_model(name, device="meta", num_frames=frames)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert (model.num_frames, model.img_size, model.patch_size) == (frames, (pixels, pixels), (16, 16))
    if size != "tiny":
        assert (model.embed_dim, model.depth, model.num_heads) == (768, 12, 12)
    assert str(model.attention) == mode_of(name)
    assert [list(block.steps) for block in model.blocks] == model.depth * [MODES[mode_of(name)]]


@every_name
def test_config_says_what_the_model_is(name):
    model = timm.create_model(name, device="meta")
    config, state = model.default_cfg, model.state_dict()
    assert config["architecture"] == name
    assert config["input_size"] == (3, *model.img_size)
    assert config["num_classes"] == model.num_classes
    assert f"{config['classifier']}.weight" in state
    assert f"{config['first_conv']}.weight" in state
    assert model.get_classifier() is model.get_submodule(config["classifier"])


@every_name
def test_arguments_survive(name):
    """model_args make the same model again: what a saved config carries."""
    model = small(name, img_size=(32, 48), global_pool="avg", drop_path_rate=0.1, mlp_ratio=2.0, in_chans=1)
    again = type(model)(**model.model_args)
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 1, 3, 32, 48)
    assert torch.equal(again.eval()(x), model(x))
    assert again.model_args == model.model_args


# ---- any clip ----


@every_name
@pytest.mark.parametrize("size", [(4, 32, 32), (1, 32, 32), (6, 48, 16), (3, 80, 48)])
def test_any_clip(name, size):
    model, x = small(name), clip(2, *size)
    with torch.no_grad():
        logits = model(x)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, model(x).detach())
    model.set_input_size(img_size=size[1:], num_frames=size[0])
    torch.testing.assert_close(model(x).detach(), logits)


@every_name
def test_indivisible_sizes_are_refused_or_padded(name):
    with pytest.raises(ValueError, match="33x40 pixels are not a multiple"):
        small(name)(clip(1, 4, 33, 40))
    model = small(name, dynamic_img_pad=True)
    padded = nn.functional.pad(clip(1, 4, 33, 40), (0, 8, 0, 15))
    assert torch.equal(model(clip(1, 4, 33, 40)), model(padded))


@every_name
def test_patch_size(name):
    model = small(name)
    model.set_input_size(img_size=(24, 16), num_frames=2, patch_size=8)
    assert model(clip(1, 2, 24, 16)).shape == (1, 5)


@every_name
def test_padded_batch_is_each_clip_alone(name):
    model, x = small(name), clip(4, 5)
    lengths = [2, 5, 1, 2]
    with torch.no_grad():
        alone = torch.cat([model(x[i : i + 1, :, :length]) for i, length in enumerate(lengths)])
        torch.testing.assert_close(model(x, num_valid_frames=lengths), alone)


# ---- features ----


@every_name
def test_features_then_head_is_forward(name):
    model, x = small(name), clip()
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 1 + 4 * 4, model.num_features)
    torch.testing.assert_close(model.forward_head(tokens), model(x))
    assert model.forward_head(tokens, pre_logits=True).shape == (2, model.head_hidden_size)


@every_name
def test_intermediates(name):
    model, x = small(name, depth=3), clip(2, 3, 32, 48)
    tokens, maps = model.forward_intermediates(x)
    torch.testing.assert_close(tokens, model.forward_features(x))
    assert [tuple(y.shape) for y in maps] == 3 * [(2, 32, 3, 2, 3)]  # N C T H W

    rows = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    for nlc, ncthw in zip(rows, maps, strict=True):
        assert torch.equal(nlc, ncthw.flatten(2).transpose(1, 2))

    last = model.forward_intermediates(
        x, indices=1, norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    ((patches, cls),) = last
    torch.testing.assert_close(patches, tokens[:, 1:])
    assert cls.shape == (2, 3 if mode_of(name) == "space_only" else 1, 32)
    if mode_of(name) != "space_only":  # where one class token a frame is averaged before the norm
        torch.testing.assert_close(cls, tokens[:, :1])

    first = model.forward_intermediates(x, indices=[0, 1], stop_early=True, intermediates_only=True)
    assert [torch.equal(a, b) for a, b in zip(first, maps, strict=False)] == [True, True]
    with pytest.raises(AssertionError):  # timm's own check
        model.forward_intermediates(x, indices=[3])


@every_name
def test_features_only(name):
    model = timm.create_model(name, **{**SMALL, "depth": 3}, features_only=True, out_indices=(0, -1)).eval()
    assert isinstance(model, FeatureGetterNet)
    assert model.feature_info.channels() == [32, 32]
    assert model.feature_info.reduction() == [16, 16]
    assert model.feature_info.module_name() == ["blocks.0", "blocks.2"]
    features = model(clip(2, 3, 48, 32))
    assert [tuple(y.shape) for y in features] == 2 * [(2, 32, 3, 3, 2)]
    names = [key for key, _ in model.named_parameters()]
    assert not [key for key in names if "head" in key or key.startswith("model.norm")]


@every_name
def test_feature_getter_cuts_what_it_does_not_need(name):
    whole = small(name, depth=3)
    getter = FeatureGetterNet(copy.deepcopy(whole), out_indices=[1], norm=True, output_fmt="NLC")
    assert len(getter.model.blocks) == 2
    expected = whole.forward_intermediates(clip(), [1], norm=True, output_fmt="NLC", intermediates_only=True)
    assert torch.equal(getter(clip())[0], expected[0])


@every_name
def test_pruning(name):
    model, x = small(name, depth=3), clip()
    expected = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    assert (len(model.blocks), model.num_classes) == (2, 0)
    assert isinstance(model.norm, nn.Identity)
    pruned = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(pruned, expected, strict=True))
    assert model.model_args["depth"] == 2


@every_name
def test_classifier(name):
    model, x = small(name), clip()
    feature = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    torch.testing.assert_close(model(x), feature)
    model.double().reset_classifier(7)
    assert model.get_classifier().weight.dtype == torch.float64
    assert model(x.double()).shape == (2, 7)
    model.reset_classifier(3, global_pool="frame")
    assert model(x.double()).shape == (2, 4, 3)
    assert model.model_args["num_classes"] == 3

    headless = small(name, num_classes=0)
    assert headless(x).shape == (2, 32)
    assert not [key for key in headless.state_dict() if key.startswith("head")]


# ---- training ----


@every_name
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_every_parameter_gets_a_gradient(name, pool):
    model = small(name, global_pool=pool).train()
    model(clip()).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@every_name
def test_fresh_model_has_no_unused_parameter(name):
    """Some weights start at zero, and hide others; no gradient may be missing all the same, or DDP complains."""
    model = timm.create_model(name, **SMALL).train()
    model(clip()).sum().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_training(one_process):
    """DDP refuses the second step if the first left a parameter without a gradient."""
    for name in ONE_OF_EACH_MODE:
        model = nn.parallel.DistributedDataParallel(small(name).train())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            model(clip()).sum().backward()
            optimizer.step()


@every_name
def test_gradient_checkpointing(name):
    model, x = small(name).train(), clip()
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


@every_name
def test_layer_decay_gives_each_block_one_rate(name):
    model = small(name, depth=3)
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scales = {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}
    of = {key: scales[parameter] for key, parameter in model.named_parameters()}
    assert len(of) == len(list(model.parameters()))
    for key, scale in of.items():
        if key.startswith("blocks."):
            assert scale == 0.5 ** (3 - int(key.split(".")[1])), key
        else:  # timm counts the final norm to the last block
            assert scale == {"norm": 0.5, "head": 1.0}.get(key.split(".")[0], 0.5**4), key


@every_name
def test_embeddings_are_not_decayed(name):
    model = small(name)
    embeddings = {"pos_embed", "cls_token", "time_embed"}
    assert model.no_weight_decay() == embeddings
    free, decayed = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    assert (free["weight_decay"], decayed["weight_decay"]) == (0.0, 0.1)
    in_free = set(map(id, free["params"]))
    for key, parameter in model.named_parameters():
        assert (id(parameter) in in_free) == (key in embeddings or parameter.ndim == 1), key


@every_name
def test_drop_rates_reach_every_dropout(name):
    rates = dict(drop_rate=0.1, pos_drop_rate=0.2, proj_drop_rate=0.3, attn_drop_rate=0.4, drop_path_rate=0.5)
    model = small(name, depth=3, **rates)
    for key, module in model.named_modules():
        kind = key.rsplit(".", 1)[-1]
        if isinstance(module, nn.Dropout):
            expected = {"head_drop": 0.1, "pos_drop": 0.2, "attn_drop": 0.4}.get(kind, 0.3)
            assert module.p == expected, key
        elif kind == "drop_path":
            assert module.drop_prob == pytest.approx(0.25 * int(key.split(".")[1])), key
    x = clip()
    assert torch.equal(model(x), model(x))
    for rate, value in rates.items():  # each does something of its own in training, and nothing else does
        model = small(name, depth=3, **{rate: value}).train()
        torch.manual_seed(0)
        first = model(x)
        assert any(not torch.equal(model(x), first) for _ in range(16)), rate  # two draws may well be alike
    model = small(name).train()
    assert torch.equal(model(x), model(x))


# ---- precision and devices ----


@every_name
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.1)], ids=str
)
def test_precision(name, dtype, tolerance, grad):
    x = clip(2, 3, 48, 32)  # embeddings are resampled, too
    with torch.set_grad_enabled(grad):
        expected = small(name)(x)
        logits = small(name).to(dtype)(x.to(dtype))
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, atol=tolerance * expected.std().item(), rtol=tolerance)


@every_name
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_autocast(name, grad):
    model, x = small(name), clip(2, 3, 48, 32)
    with torch.set_grad_enabled(grad):
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            tokens, _ = model.embed(x)
            logits = model(x)
        assert tokens.dtype == torch.float32  # residuals are summed in full precision
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), expected, atol=0.05 * expected.std().item(), rtol=0.05)
    if grad:
        logits.sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@every_name
def test_device_and_dtype_at_construction(name):
    model = timm.create_model(name, **SMALL, device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not list(model.buffers())
    meta = timm.create_model(name, **SMALL, device="meta", dtype=torch.float16)
    assert {(parameter.device.type, parameter.dtype) for parameter in meta.parameters()} == {("meta", torch.float16)}
    assert meta(clip().to("meta", torch.float16)).shape == (2, 5)
    with torch.device("meta"):
        assert timm.create_model(name, **SMALL).pos_embed.is_meta
    filled = meta.to_empty(device="cpu").float()
    filled.load_state_dict(small(name).state_dict())
    assert torch.equal(filled.eval()(clip()), small(name)(clip()))


@every_name
def test_copies_and_pickles(name, tmp_path):
    model = small(name)
    with torch.no_grad():
        expected = model(clip(1, 4, 48, 48))
        assert torch.equal(copy.deepcopy(model)(clip(1, 4, 48, 48)), expected)
        torch.save(model, tmp_path / "model.pt")
        assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(clip(1, 4, 48, 48)), expected)


# ---- adapters ----


@every_mode
@pytest.mark.parametrize("targets", [["qkv", "fc1"], r"blocks.*\.(qkv|proj|fc)", "all-linear"], ids=str)
def test_lora_finds_its_layers(name, targets):
    peft = pytest.importorskip("peft")
    model, x = small(name), clip()
    expected = model(x)
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=targets)).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), expected.detach())
    adapted.train()
    adapted(x).sum().backward()
    trained = [key for key, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert trained
    assert all("lora_" in key for key in trained)
    for step in MODES[mode_of(name)]:
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


def test_fusing_under_an_adapter_is_refused():
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(small("timesformer_tiny_divided"), peft.LoraConfig(r=2, target_modules=["proj"]))
    with pytest.raises(ValueError, match=r"fuse\(\) needs nn.Linear layers, got Linear.*merge_and_unload"):
        adapted.base_model.model.eval().fuse()
    adapted.merge_and_unload().eval().fuse()


# ---- attention maps, and folding for inference ----


@every_name
def test_timms_attention_extract(name):
    set_fused_attn(False)
    try:
        model = small(name)
    finally:
        set_fused_attn(True)
    extract = AttentionExtract(model, method="hook")
    with torch.no_grad():
        maps = extract(clip(2, 3, 48, 32))
    assert set(maps) == {f"blocks.{i}.steps.{step}.attn_drop" for i in range(2) for step in MODES[mode_of(name)]}
    for weights in maps.values():  # groups, heads, queries, keys
        assert weights.shape[1] == 2
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    with torch.no_grad():
        torch.testing.assert_close(model(clip(2, 3, 48, 32)), small(name)(clip(2, 3, 48, 32)))


@every_name
def test_fused_model_is_the_same_function(name):
    model, x = small(name), clip(2, 3, 48, 32)
    expected = model(x).detach()
    scale = expected.abs().max().item()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fused = reparameterize_model(model)
    assert not [key for key, _ in fused.named_parameters() if ".fc." in key]
    torch.testing.assert_close(model(x).detach(), expected)  # not changed in place
    removed = 2 * (len(MODES[mode_of(name)]) - 1) * (32 * 32 + 32)
    assert parameters - sum(parameter.numel() for parameter in fused.parameters()) == removed
    for again in (fused, model.fuse(), model.fuse(), reparameterize_model(nn.Sequential(small(name)).eval())):
        torch.testing.assert_close(again(x).detach(), expected, atol=1e-5 * scale, rtol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(again(x), expected, atol=1e-5 * scale, rtol=1e-5)
    assert model.fuse() is model


@every_name
def test_fusing_in_training_is_refused(name):
    for fuse in (lambda model: model.fuse(), reparameterize_model):
        with pytest.raises(ValueError, match=r"model.eval\(\)"):
            fuse(small(name).train())


# ---- compilers: very small, one of each mode ----

VERY_SMALL = dict(img_size=(32, 16), embed_dim=16, depth=1)


@every_mode
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_compile_breaks_no_graph_and_compiles_once(name, training):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager" if training else "eager")
    model = small(name, **VERY_SMALL).train(training)
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=False)
    with torch.set_grad_enabled(training):
        for _ in range(3):
            x = torch.randn(2, 3, 4, 32, 16)
            torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1
    if training:
        compiled(x).sum().backward()
        ours = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        model(x).sum().backward()
        torch.testing.assert_close(ours, [parameter.grad for parameter in model.parameters()])


@every_mode
def test_compile_with_dynamic_batch_and_frames(name):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    model = small(name, **VERY_SMALL)
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for batch, frames in [(2, 6), (3, 5), (5, 9), (2, 7)]:
            x = clip(batch, frames, 32, 16)
            torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.mark_dynamic(x, 2)
            torch.testing.assert_close(compiled(x), model(x))
        graphs = 2 if mode_of(name) == "local_global" else 1  # a stride of 2 cuts odd numbers of frames unequally
        assert counter.frame_count == graphs
        for batch in (3, 2):
            x = clip(batch, 4, 32, 16)
            torch.testing.assert_close(compiled(x), model(x))
        graphs += model.time_embed is not None  # the model's own number of frames needs no resampling
        assert counter.frame_count == graphs


@pytest.mark.slow
@every_mode
def test_compile_with_inductor(name):
    torch._dynamo.reset()
    model = small(name)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip()), model(clip()), atol=1e-4, rtol=1e-4)


@every_mode
@pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
def test_export_with_dynamic_batch(name, strict):
    model = small(name, **VERY_SMALL)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        model, (clip(2, 4, 32, 16),), dynamic_shapes={"x": {0: batch}}, strict=strict
    ).module()
    for size in (1, 2, 7):
        x = clip(size, 4, 32, 16)
        torch.testing.assert_close(program(x), model(x))


@every_mode
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter's own libraries
def test_onnx(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = small(name, **VERY_SMALL)
    batch = torch.export.Dim("batch")
    file = tmp_path / "model.onnx"
    torch.onnx.export(model, (clip(2, 4, 32, 16),), file, dynamo=True, dynamic_shapes={"x": {0: batch}}, verbose=False)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in (1, 2, 5):
        x = clip(size, 4, 32, 16)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(x).detach(), atol=1e-4, rtol=1e-4)


@every_mode
def test_torchscript_trace(name):
    model, x = small(name), clip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and says of every size that it is fixed from now on
        traced = torch.jit.trace(model, (x,))
    for batch in (1, 2, 5):
        torch.testing.assert_close(traced(clip(batch)), model(clip(batch)))
