"""The registered names: what each of them is, without memory on the meta device."""

import pytest
import timm
import torch
from dense_reference import STEPS

import timesformer_zoo

SIZES = {  # frames, pixels, width, blocks, heads
    "base": (8, 224, 768, 12, 12, 16),
    "hr": (16, 448, 768, 12, 12, 16),
    "l": (96, 224, 768, 12, 12, 16),
    "tiny": (8, 64, 160, 5, 4, 8),
}
NAMES = {f"timesformer_{size}_{mode}": (mode, *SIZES[size]) for size in SIZES for mode in STEPS}
VITL14 = {"timesformer_vitl14_joint", "timesformer_vitl14_frozen"}  # for encoders that others publish
NAMES |= {f"timesformer_vitl14_{mode}": (mode, 8, 224, 1024, 24, 16, 14) for mode in ("joint", "frozen")}
# Without a tag these are as the first of their checkpoints, another project's encoder, has it: 4 frames and no head.
ENCODERS = ("timesformer_vitl14_joint", "timesformer_vitl14_frozen")
PUBLISHED = {  # exact numbers of parameters of the authors' models, and of the paper's modes by its table 1
    "timesformer_base_space_only": (400, 86_106_256),
    "timesformer_base_joint": (400, 86_112_400),
    "timesformer_base_divided": (400, 121_566_352),
    "timesformer_base_local_global": (400, 121_566_352),
    "timesformer_base_axial": (400, 157_020_304),
    "timesformer_hr_divided.k600": (600, 122_177_880),
    "timesformer_l_divided.k400": (400, 121_633_936),
    "timesformer_l_divided.ssv2": (174, 121_435_566),
}


def create(name, **arguments):
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def count_by_hand(mode, frames, pixels, dim, depth, patch, classes, pre_norm=False, patch_bias=True):
    norm, linear, mlp = 2 * dim, dim * dim + dim, 2 * dim * 4 * dim + 5 * dim
    steps = len(STEPS[mode])  # each a norm, qkv and a projection; all but the last a linear layer more, or none has it
    block = steps * (norm + 4 * linear) + (0 if mode == "frozen" else steps - 1) * linear + norm + mlp
    patches = 3 * patch**2 * dim + dim * patch_bias + norm * pre_norm
    embeddings = dim * (1 + 1 + (pixels // patch) ** 2 + (0 if mode == "space_only" else frames))
    return patches + embeddings + depth * block + norm + dim * classes + classes


def test_these_are_the_registered_names():
    assert set(timm.list_models("*timesformer*")) == NAMES.keys() | VITL14
    for name in NAMES.keys() | VITL14:
        assert timm.model_entrypoint(name) is getattr(timesformer_zoo, name)
        assert name in timesformer_zoo.__all__


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_what_the_model_is(name):
    mode, frames, pixels, dim, depth, heads, patch = NAMES[name]
    model = create(name)
    frames = 4 if name in ENCODERS else frames
    assert (str(model.attention), [list(block.steps) for block in model.blocks]) == (mode, depth * [STEPS[mode]])
    assert (model.num_frames, model.img_size, model.patch_size) == (frames, (pixels, pixels), (patch, patch))
    assert (model.embed_dim, model.depth, model.num_heads) == (dim, depth, heads)
    parts = {part: model.model_args[part] for part in ("pre_norm", "patch_bias")}
    assert count(model) == count_by_hand(mode, frames, pixels, dim, depth, patch, model.num_classes, **parts)
    assert not list(model.buffers())

    config, weights = model.pretrained_cfg, model.state_dict()
    assert (config["architecture"], config["num_classes"]) == (name, model.num_classes)
    assert config["input_size"] == (3, pixels, pixels)
    assert weights[f"{config['first_conv']}.weight"].shape == (dim, 3, patch, patch)
    if name in ENCODERS:
        assert model.num_classes == 0
    else:
        assert weights[f"{config['classifier']}.weight"].shape == (model.num_classes, dim)
    assert model.get_classifier() is model.get_submodule(config["classifier"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    classes, expected = PUBLISHED[name]
    assert count(create(name, num_classes=classes)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_with_a_config_of_ones_own_the_sizes_are_those_of_the_name(name):
    _, frames, pixels, *_ = NAMES[name]
    model = create(name, pretrained_cfg=dict(num_classes=7), depth=1)
    assert (model.num_frames, model.img_size, model.clip) == (frames, (pixels, pixels), None)


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_goes_before_what_the_name_says(name):
    sizes = dict(img_size=[32, 48], patch_size=[16, 16], num_frames=3, in_chans=1)
    arguments = dict(**sizes, embed_dim=36, depth=1, num_heads=3, num_classes=6)
    assert create(name, **arguments).model_args.items() >= arguments.items()
    with pytest.raises(TypeError, match="dropout"):
        create(name, dropout=0.1)
