"""Live comparison with the transformers library, both ways."""

import json

import pytest
import torch
from safetensors.torch import save_file
from small_models import equal, load, tiny

from timesformer_zoo import CheckpointError, TimeSformer, checkpoint_filter_fn, clip_spec, read_checkpoint
from timesformer_zoo.weights.transformers import from_transformers_config, to_transformers

transformers = pytest.importorskip("transformers")


def hf_model(attention_type, **changes):
    config = transformers.TimesformerConfig(
        **{
            **dict(
                image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=2, intermediate_size=128
            ),
            **dict(num_attention_heads=4, attention_type=attention_type, num_labels=5),
            **changes,
        }
    )
    hf = transformers.TimesformerForVideoClassification(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return hf


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_transformers_logits_and_features_are_equal(attention_type):
    hf = hf_model(attention_type)
    model = load(TimeSformer(**from_transformers_config(hf.config.to_dict())).eval(), hf.state_dict())
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        output = hf(clip.transpose(1, 2), output_hidden_states=True)
        tokens = hf.timesformer(clip.transpose(1, 2)).last_hidden_state  # patches in (h w t) order
        ours = model.forward_features(clip)
        torch.testing.assert_close(model(clip), output.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[:, 0], tokens[:, 0], atol=1e-5, rtol=1e-5)
    patches = ours[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(patches, tokens[:, 1:], atol=1e-5, rtol=1e-5)


def test_transformers_space_only_is_equal_on_one_frame():
    """With more frames transformers gives a row of logits for each frame, which is no clip's."""
    hf = hf_model("space_only", num_frames=1)
    model = load(tiny("space_only", num_frames=1), hf.state_dict())
    clip = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), hf(clip.transpose(1, 2)).logits, atol=1e-5, rtol=1e-5)


def test_transformers_base_model_without_head_or_prefix():
    hf = hf_model("divided_space_time")
    weights = checkpoint_filter_fn(hf.timesformer.state_dict(), tiny(num_classes=0))
    assert torch.equal(weights["norm.weight"], hf.timesformer.layernorm.weight)


@pytest.mark.parametrize(
    "changes",
    [{}, dict(num_frames=6, img_size=48, patch_size=8, mlp_ratio=2.0), dict(in_chans=1), dict(qkv_bias=False)],
)
@pytest.mark.parametrize("mode", ["divided", "joint"])
def test_to_transformers_is_the_same_function(mode, changes, tmp_path):
    model = tiny(mode, **changes)
    config, weights = to_transformers(model, labels=list("abcde"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    hf = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
    assert hf.config.id2label == dict(enumerate("abcde"))
    clip = torch.randn(2, model.in_chans, model.num_frames, *model.img_size)
    with torch.no_grad():
        torch.testing.assert_close(hf(clip.transpose(1, 2)).logits, model(clip), atol=1e-5, rtol=1e-5)
    again = TimeSformer(**from_transformers_config(json.loads((tmp_path / "config.json").read_text())))
    assert equal(checkpoint_filter_fn(read_checkpoint(tmp_path), again), model.state_dict())


@pytest.mark.parametrize(
    ("task", "problem"), [("multilabel", "multi_label_classification"), ("regression", "regression"), ("classes", None)]
)
def test_the_kind_of_target_goes_both_ways(task, problem):
    config, weights = to_transformers(tiny(clip={"task": task}))
    hf = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**config))
    assert hf.config.problem_type == problem
    assert clip_spec(TimeSformer(**from_transformers_config(hf.config.to_dict()))).task == task
    hf.load_state_dict(weights)
    targets = torch.tensor([1]) if problem is None else torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])
    assert hf(torch.randn(1, 4, 3, 32, 32), labels=targets).loss > 0


def test_to_transformers_config_builds_directly():
    config, weights = to_transformers(tiny())
    hf = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**config))
    hf.load_state_dict(weights)
    assert hf.config.num_labels == 5
    assert hf.config.id2label[4] == "LABEL_4"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tiny("local_global"), "no model of local_global attention.*divided, joint"),
        (lambda: tiny("axial"), "no model of axial attention"),
        (lambda: tiny("space_only"), "no model of space_only attention that gives one row of logits a clip"),
        (lambda: tiny(img_size=(32, 48)), r"square; got img_size=\(32, 48\)"),
        (lambda: tiny(patch_size=(16, 8)), r"square; got patch_size=\(16, 8\)"),
        (lambda: tiny(global_pool="avg"), "global_pool='avg'"),
        (lambda: tiny().fuse(), "fuse"),
    ],
)
def test_what_transformers_cannot_express_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        to_transformers(model())


def test_labels_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="3 labels for 5 classes"):
        to_transformers(tiny(), labels=list("abc"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "vivit"}, "got 'vivit'"),
        ({"model_type": "timesformer", "hidden_act": "relu"}, "hidden_act gelu; the config says relu"),
        ({"model_type": "timesformer", "layer_norm_eps": 1e-12}, "layer_norm_eps"),
    ],
)
def test_configs_of_other_models_are_refused(config, message):
    with pytest.raises(CheckpointError, match=message):
        from_transformers_config(config)
