"""Encoders of other projects, in their own files and names, against outputs of those projects' own code.

`data/family` holds small models with random weights (time weights, too) and what their repositories' modules give for
them; a checkout that has more of them beside it checks those as well.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_models import equal, tiny

from timesformer_zoo import CHECKPOINTS, CheckpointError, TimeSformer, checkpoint_filter_fn, read_checkpoint
from timesformer_zoo.hub.convert import convert, model_of_file
from timesformer_zoo.weights.formats import detect, from_native
from timesformer_zoo.weights.unwrap import unwrap
from timesformer_zoo_cli import main

HERE = Path(__file__).parents[1] / "data" / "family"
MORE = Path(__file__).parents[3] / "shared" / "golden" / "family"  # other people's; not a part of the repository
FILES = {path.stem: path for folder in (MORE, HERE) for path in folder.glob("*.safetensors")}
GOLDEN = sorted(name for name in FILES if not name.startswith("wrapped_"))
WRAPPED = sorted(path.name for path in HERE.glob("wrapped_*") if path.suffix != ".safetensors")
SMALL = [name for name in GOLDEN if (HERE / f"{name}.safetensors").exists()]

# A file as its project publishes it -> the registered name whose weights are laid out so.
TAGS = {
    "wrapped_lavila_clip.pth": "timesformer_base_frozen.lavila_ego4d",
    "wrapped_lavila_cls_single.pth": "timesformer_base_frozen.lavila_ek100_single",
    "wrapped_frozen.pth.tar": "timesformer_base_frozen.webvid",
    "wrapped_egovlp.pth": "timesformer_base_frozen.egovlp",
    "wrapped_svt.pth": "timesformer_base_divided.svt_k400",
    "wrapped_avion_cls.pt": "timesformer_base_joint.avion_ek100",
    "wrapped_pptimesformer.pdparams": "timesformer_base_divided.pp_k400",
    "wrapped_pptimesformer_protocol2.pdparams": "timesformer_base_divided.pp_k400",
}


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """(state dict, inputs and outputs, arguments of the model) of one file."""
    tensors = load_file(FILES[name])
    with safe_open(FILES[name], "pt") as file:
        meta = file.metadata()
    state_dict = {key.removeprefix("state_dict."): tensors.pop(key) for key in list(tensors) if "state_dict." in key}
    numbers = ("patch_size", "num_frames", "embed_dim", "depth", "num_heads")
    arguments: dict[str, Any] = {key: int(meta[key]) for key in numbers}
    classes = json.loads(meta["num_classes"])
    arguments |= dict(
        num_classes=classes[-1] if isinstance(classes, list) else classes,  # of three heads the last is the actions'
        img_size=tuple(json.loads(meta["img_size"])),
        attention=meta["attention"],
        mlp_ratio=float(meta["mlp_ratio"]),
        qkv_bias=meta["qkv_bias"] == "true",
        pre_norm=meta["pre_norm"] == "true",
        patch_bias=meta["patch_bias"] == "true",
        act_layer=meta["act"],
        norm_eps=float(meta["norm_eps"]),
        pre_norm_eps=float(meta["pre_norm_eps"]) if meta.get("pre_norm_eps", "none") != "none" else None,
        time_interpolation="first" if meta["attention"] == "frozen" else "linear",
    )
    return state_dict, tensors, arguments


def assert_equal(got: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-5 of the largest entry."""
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def assert_outputs(model: TimeSformer, expected: dict[str, torch.Tensor]) -> None:
    tokens = model.eval().forward_features(expected["input"])
    features = expected.get("features", expected.get("features_teacher"))
    assert features is not None
    assert_equal(tokens[:, 0], features)
    for logits in ("logits", "logits2"):  # of three heads the last is the actions'
        if logits in expected:
            assert_equal(model(expected["input"]), expected[logits])


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_the_projects_code(name):
    state_dict, expected, arguments = golden(name)
    model = TimeSformer(**arguments)
    model.load_state_dict(state_dict)
    assert_outputs(model, expected)
    # A bias of zero is none.
    biased = TimeSformer(**arguments | dict(patch_bias=True))
    biased.load_state_dict(state_dict)
    assert_outputs(biased, expected)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_published_file_loads_by_one_call(name):
    stem = name.split(".")[0].removesuffix("_protocol2")
    _, expected, arguments = golden(stem)
    sizes = {key: arguments[key] for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_frames")}
    sizes["num_frames"] = expected["input"].shape[2]
    model = timm.create_model(
        TAGS[name],
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(HERE / name)),
        num_classes=arguments["num_classes"],
        **sizes,
    )
    assert isinstance(model, TimeSformer)
    assert_outputs(model, expected)


@pytest.mark.parametrize("name", WRAPPED)
def test_convert_says_what_it_leaves_out(name, tmp_path, capsys):
    arguments = ["convert", str(HERE / name), str(tmp_path / "out.safetensors"), "--to", "native"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    stem = name.split(".")[0].removesuffix("_protocol2")
    _, expected, made_of = golden(stem)
    model = TimeSformer(**made_of)
    model.load_state_dict(load_file(tmp_path / "out.safetensors"))
    assert_outputs(model, expected)
    left_out = checkpoint_filter_fn(read_checkpoint(HERE / name), model).left_out
    assert convert(HERE / name, tmp_path / "again.safetensors", "native").left_out == left_out
    assert bool(left_out) == ("left out, as they are not of the video model: " in said)
    for first in {key.partition(".")[0] for key in left_out}:
        assert first in said


def test_a_folder_has_all_that_the_model_needs(tmp_path):
    state_dict, expected, _ = golden("lavila_clip_32")
    torch.save({"state_dict": state_dict, "epoch": 3}, tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match="--num-heads"):
        convert(tmp_path / "in.pth", tmp_path / "out", "native")
    folder = convert(tmp_path / "in.pth", tmp_path / "out", "native", num_heads=4)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert_outputs(model, expected)
    assert model.model_args["act_layer"] == "quick_gelu"
    assert {"logit_scale", "text_projection"} <= set(folder.left_out)


# ---- what is left out, and what is not ----


@pytest.mark.parametrize("name", SMALL)
def test_what_is_known_and_not_the_video_models_is_named(name, caplog):
    state_dict, _, arguments = golden(name)
    model = TimeSformer(**arguments | dict(num_classes=0))
    with caplog.at_level(logging.INFO, "timesformer_zoo"):
        weights = checkpoint_filter_fn(state_dict, model)
    assert set(weights) == set(model.state_dict())
    unwrapped = unwrap(state_dict)
    native = detect(unwrapped).to_native(unwrapped, model.attention)
    assert len(native) + len(native.left_out) == len(state_dict)
    assert set(native.left_out) <= set(weights.left_out)
    lines = [record.message for record in caplog.records if "Left out" in record.message]
    assert len(lines) == bool(native.left_out)
    for key in native.left_out:
        assert key.partition(".")[0] in lines[0]


@pytest.mark.parametrize("name", SMALL)
def test_an_unknown_key_is_an_error_that_names_it(name):
    state_dict, _, arguments = golden(name)
    time = next(key for key in state_dict if re.search(r"\.(time|temporal)_\w*embed", key) and "prompter" not in key)
    for place in (
        time.rpartition(".")[0],
        time.rpartition(".")[0] + ".transformer",
        "module" if "module." in time else "",
    ):
        unknown = {f"{place}.surprise".lstrip("."): torch.zeros(1)}
        with pytest.raises(CheckpointError, match=r"1 keys are not of the .* format: .*surprise"):
            checkpoint_filter_fn(state_dict | unknown, TimeSformer(**arguments))


def test_the_teacher_is_taken_and_the_student_named():
    read = read_checkpoint(HERE / "wrapped_svt.pth")
    assert "student" in read.left_out
    _, expected, arguments = golden("wrapped_svt")
    student = torch.load(HERE / "wrapped_svt.pth", weights_only=False)["student"]
    model = TimeSformer(**arguments)
    model.load_state_dict(student)
    tokens = model.eval().forward_features(expected["input"])
    assert_equal(tokens[:, 0].detach(), expected["features_student"])


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "_orig_mod.module."])
def test_prefixes_come_off(prefix):
    state_dict, expected, arguments = golden("egovlp_32")
    state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
    model = TimeSformer(**arguments)
    model.load_state_dict({prefix + key: value for key, value in state_dict.items()})
    assert_outputs(model, expected)


# ---- the wrong model ----


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mode", ["divided", "joint", "frozen", "space_only"])
def test_another_mode_is_refused(name, mode):
    state_dict, _, arguments = golden(name)
    if arguments["attention"] == mode:
        return
    model = TimeSformer(**arguments | dict(attention=mode))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"hold {arguments['attention']} attention, the model has {mode}"):
        model.load_state_dict(state_dict)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("lavila_clip_32", dict(act_layer="gelu"), "act_layer='quick_gelu', the model has act_layer='gelu'"),
        ("lavila_clip_32", dict(pre_norm_eps=1e-6), "pre_norm_eps=1e-05"),
        ("lavila_clip_32", dict(pre_norm_eps=None), "pre_norm_eps=1e-05"),
        ("egovlpv2_32", dict(norm_eps=1e-6), "norm_eps=1e-05"),
        ("egovlp_32", dict(norm_eps=1e-5), "norm_eps=1e-06"),
        ("viclip_32", dict(act_layer="gelu"), "act_layer='quick_gelu'"),
        ("avion_cls_plain_32", dict(act_layer="quick_gelu"), "act_layer='gelu'"),
        ("lavila_clip_32", dict(pre_norm=False), "norm_pre"),
    ],
)
def test_another_function_is_refused(name, change, said):
    state_dict, _, arguments = golden(name)
    with pytest.raises(CheckpointError, match=said):
        TimeSformer(**arguments | change).load_state_dict(state_dict)


# ---- other counts of frames ----


@torch.no_grad()
def test_fewer_frames_take_the_first_rows():
    state_dict, expected, arguments = golden("lavila_clip_32")
    model = TimeSformer(**arguments).eval()
    model.load_state_dict(state_dict)
    assert_equal(model.forward_features(expected["input_short"])[:, 0], expected["features_short"])
    short = TimeSformer(**arguments | dict(num_frames=expected["input_short"].shape[2])).eval()
    short.load_state_dict(state_dict)
    assert_equal(short.forward_features(expected["input_short"])[:, 0], expected["features_short"])


@torch.no_grad()
def test_more_frames_than_lavila_has_are_interpolated():
    state_dict, expected, arguments = golden("lavila_clip_32")
    frames = expected["time_embed_long"].shape[1]
    model = TimeSformer(**arguments | dict(num_frames=frames)).eval()
    model.load_state_dict(state_dict)
    assert_equal(model.time_embed, expected["time_embed_long"])
    assert_equal(model.forward_features(expected["input_long"])[:, 0], expected["features_long"])


@torch.no_grad()
def test_egovlp_keeps_its_trained_rows():
    state_dict, expected, arguments = golden("egovlp_32")
    frames = expected["input"].shape[2]
    model = TimeSformer(**arguments | dict(num_frames=frames)).eval()
    model.load_state_dict(state_dict)
    assert torch.equal(model.time_embed, state_dict["module.video_model.temporal_embed"][:, :frames])
    assert_outputs(model, expected)


@torch.no_grad()
def test_egovlp_lengthens_with_the_ends_kept():
    state_dict, expected, arguments = golden("egovlp_32")
    long = expected["time_embed_long_bilinear"]
    model = TimeSformer(**arguments | dict(num_frames=long.shape[1], time_interpolation="first_aligned"))
    model.load_state_dict(state_dict)
    assert_equal(model.time_embed, long)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "rule"), [("avion_cls_plain_32", "linear"), ("alpro_32", "nearest"), ("avion_clip_flash_32", "linear")]
)
def test_more_frames_by_the_projects_rule(name, rule):
    state_dict, expected, arguments = golden(name)
    long = expected["time_embed_long"]
    model = TimeSformer(**arguments | dict(num_frames=long.shape[-2], time_interpolation=rule))
    model.load_state_dict(state_dict)
    assert_equal(model.time_embed, long.reshape(model.time_embed.shape))


@torch.no_grad()
def test_svt_takes_other_counts_by_the_nearest_row():
    state_dict, expected, arguments = golden("svt_32")
    model = TimeSformer(**arguments | dict(time_interpolation="nearest")).eval()
    model.load_state_dict(state_dict)
    assert_equal(model.forward_features(expected["input_frames"])[:, 0], expected["features_frames"])


# ---- full size ----

SHAPES = {
    ("lavila", "clip_openai_timesformer_base"): "timesformer_base_frozen.lavila_ego4d",
    ("lavila", "base_ft_ek100_cls.single_head"): "timesformer_base_frozen.lavila_ek100_single",
    ("lavila", "base_ft_ek100_cls"): "timesformer_base_frozen.lavila_ek100",
    ("lavila", "clip_openai_timesformer_large"): "timesformer_vitl14_frozen.lavila_ego4d",
    ("lavila", "clip_openai_timesformer_large_336px"): "timesformer_vitl14_frozen.lavila_336",
    ("frozen", "cc-webvid2m-4f_stformer_b_16_224"): "timesformer_base_frozen.webvid",
    ("frozen", "egovlp_pt"): "timesformer_base_frozen.egovlp",
    ("egovlpv2", "EgoVLPv2"): "timesformer_base_frozen.egovlpv2",
    ("svt", "kinetics400_vitb_ssl"): "timesformer_base_divided.svt_k400",
    ("alpro", "alpro_pretrain"): "timesformer_base_divided.alpro",
    ("avion", "vitb16_flash"): "timesformer_base_joint.avion_lavila",
    ("avion", "vitb16_ft_ek100_cls_flash"): "timesformer_base_joint.avion_ek100",
    ("avion", "vitl14_flash"): "timesformer_vitl14_joint.avion_lavila",
    ("avion", "vitl14_ft_ek100_cls_flash"): "timesformer_vitl14_joint.avion_ek100",
    ("viclip", "ViCLIP-L-14"): "timesformer_vitl14_joint.viclip",
    ("viclip", "ViCLIP-B-16"): "timesformer_base_joint.viclip",
    ("paddle", "TimeSformer_k400"): "timesformer_base_divided.paddle_k400",
    ("paddle", "ppTimeSformer_k400_8f"): "timesformer_base_divided.pp_k400",
    ("paddle", "ppTimeSformer_k400_16f_distill"): "timesformer_base_divided.pp_distill_16_k400",
}


@pytest.mark.parametrize(("family", "file"), SHAPES)
def test_the_published_shapes_fit_their_name(family, file):
    shapes = json.loads((HERE / f"shapes_{family}.json").read_text())[file]
    with torch.device("meta"):
        model = timm.create_model(SHAPES[family, file])
        assert isinstance(model, TimeSformer)
        weights = checkpoint_filter_fn(
            {key: torch.empty(shape) for key, shape in shapes.items()}, model, new_head=False
        )
    own = model.state_dict()
    assert {key: value.shape for key, value in weights.items()} == {key: value.shape for key, value in own.items()}


def test_every_format_has_a_name_with_its_arguments():
    """The table and the formats say the same of a family's function."""
    for (family, file), name in SHAPES.items():
        shapes = json.loads((HERE / f"shapes_{family}.json").read_text())[file]
        with torch.device("meta"):
            form = detect({key.removeprefix("module."): torch.empty(shape) for key, shape in shapes.items()})
        model = CHECKPOINTS[name].model
        assert (form.time_interpolation or "") in model.get("time_interpolation", ""), name  # or of its kind
        assert {"norm_eps": 1e-6, "act_layer": "gelu", **form.function}.items() >= {
            key: value for key, value in model.items() if key in ("norm_eps", "act_layer")
        }.items(), name


def test_a_bare_file_of_a_family_becomes_its_model(tmp_path):
    state_dict, expected, arguments = golden("viclip_32")
    torch.save({"model": state_dict}, tmp_path / "viclip.pth")
    model = model_of_file(tmp_path / "viclip.pth", num_heads=4)
    assert_outputs(model, expected)
    assert (model.num_frames, model.img_size) == (arguments["num_frames"], arguments["img_size"])


# ---- layouts that differ from these in what is around the encoder ----


def test_spacetimegpts_encoder_comes_without_its_decoder():
    weights = tiny("divided", num_classes=0).state_dict()
    theirs = {
        f"encoder.{key.removeprefix('timesformer.')}": value
        for key, value in from_native(weights, "transformers", "divided").items()
    }
    decoder = {"decoder.transformer.h.0.ln_1.weight": torch.ones(3), "enc_to_dec_proj.weight": torch.ones(3)}
    read = checkpoint_filter_fn(theirs | decoder, tiny("divided", num_classes=0))
    assert equal(read, weights)
    assert read.left_out == tuple(decoder)


def test_hiervl_is_frozen_in_time_and_more():
    state_dict, expected, arguments = golden("egovlp_32")
    model = TimeSformer(**arguments)
    others = ("module.aggregation.blocks.0.attn.qkv.weight", "module.head_ht100m_linear_probe.0.bias")
    more = {key: torch.ones(1) for key in others}
    read = checkpoint_filter_fn({f"module.{key}": value for key, value in (state_dict | more).items()}, model)
    model.load_state_dict(read)
    assert_outputs(model, expected)
    assert {key.removeprefix("module.") for key in more} <= set(read.left_out)


def test_endo_fms_fine_tuned_file_has_the_encoder_beside_its_head():
    weights = tiny("divided", num_classes=0).state_dict()
    theirs = from_native(weights, "the authors'", "divided")
    content = {
        "state_dict": {"module.linear.weight": torch.ones(2, 32), "module.linear.bias": torch.ones(2)},
        "backbone_state_dict": {key.replace("model.", "module.", 1): value for key, value in theirs.items()},
    }
    read = checkpoint_filter_fn(content, tiny("divided", num_classes=0))
    assert equal(read, weights)
    assert read.left_out == ("state_dict",)
