"""The checkpoint table: every entry is sufficient, and nothing in it contradicts the rest."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from timesformer_zoo import CHECKPOINTS, AttentionMode, Checkpoint, ClipSpec, checkpoint_of, clip_spec, label_set
from timesformer_zoo.weights.families import FAMILIES

LICENCES = {"apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "mit"}
ADDRESSES = {
    "hf_hub_id": r"[\w-]+/[\w.-]+",
    "url": r"https?://[\w.-]+(/[\w.~-]+)+\.(pth|pth\.tar|pyth\?dl=1|pt|pdparams)|https://drive\.google\.com/file/d/[\w-]+",
    "file": r".*\.safetensors",
}
ENTRIES = pytest.mark.parametrize("name", CHECKPOINTS)


def create(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def complaints(name: str, entry: Checkpoint) -> list[str]:
    """What is missing from an entry, or contradicts something else."""
    model, tag = name.split(".")
    labels = label_set(entry.labels) if entry.labels else []
    sizes = dict(img_size=entry.img_size, num_frames=entry.num_frames, num_classes=entry.num_classes)
    with torch.device("meta"):
        network = timm.create_model(name, **sizes, **entry.model)
    ours = name not in FAMILIES
    head = getattr(network.head, "out_features", 0)
    (kind, address), *more = entry.source.items() or [("none", "")]
    checks = {
        "name": re.fullmatch(rf"timesformer_(base|hr|l|tiny|vitl14)_({'|'.join(AttentionMode)})", model),
        "licence": entry.license in LICENCES,
        "description": entry.description.endswith("."),
        "source": not more and (kind == "none") == (tag == "untrained"),
        "address": kind == "none" or re.fullmatch(ADDRESSES.get(kind, "(?!)"), address),
        "file": kind != "file" or Path(address).is_file(),
        "publisher": kind in ("none", "hf_hub_id") or entry.origin,
        "parameters": entry.num_params == sum(parameter.numel() for parameter in network.parameters()),
        "labels": len(labels) == len(set(labels)) and all(label == label.strip() != "" for label in labels),
        "head": (len(labels) or (400 if entry.classes is None else entry.classes)) == entry.num_classes == head,
        "new head": bool(entry.labels) != (entry.image or kind == "none" or entry.classes is not None),
        "accuracy": not ours
        or (entry.top1 is None) == (entry.top5 is None) == (tag in ("in21k", "untrained", "camera_motion")),
        "good for": ours or bool(entry.task or entry.top1),
        "order": None in (entry.top1, entry.top5) or 50 < entry.top1 < entry.top5 < 100,
        "clip": not entry.clip.keys() & {"labels", "num_frames", "size", "mean", "std"},
        "image": entry.image == (tag == "in21k") == ("Not a video model yet" in entry.description),
        "colours": not entry.bgr or tag == "ssv2",
    }
    ClipSpec.from_dict(dict(entry.clip))  # raises for an unknown field
    return [check for check, holds in checks.items() if not holds]


@ENTRIES
def test_entry_is_sound(name: str) -> None:
    assert complaints(name, CHECKPOINTS[name]) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (dict(license=""), ["licence"]),
        (dict(source={"hf_hub_id": "https://huggingface.co/facebook/x"}), ["address"]),
        (dict(source={"url": "http://example.org/x.html"}, origin="x"), ["address"]),
        (dict(source={}), ["source", "new head"]),
        (dict(num_params=121_566_353), ["parameters"]),
        (dict(num_frames=16), ["parameters"]),
        (dict(labels="kinetics600"), ["parameters"]),
        (dict(labels=None), ["new head"]),
        (dict(top5=None), ["accuracy"]),
        (dict(top1=99.0), ["order"]),
        (dict(image=True), ["new head", "image"]),
        (dict(bgr=True), ["colours"]),
        (dict(clip={"labels": "ucf101"}), ["clip"]),
    ],
    ids=str,
)
def test_an_unsound_entry_is_noticed(change: dict, complaint: list[str]) -> None:
    entry = replace(CHECKPOINTS["timesformer_base_divided.k400"], **change)
    assert set(complaint) <= set(complaints("timesformer_base_divided.k400", entry))


def test_an_entry_without_its_metadata_can_not_be_made() -> None:
    with pytest.raises(TypeError, match="num_params"):
        Checkpoint(source={}, license="mit", description="x.", num_frames=8, img_size=224)  # type: ignore[call-arg]


@ENTRIES
def test_model_takes_its_entry(name: str) -> None:
    entry, model = CHECKPOINTS[name], create(name)
    assert checkpoint_of(model) is entry
    assert model.num_frames == entry.num_frames
    assert model.img_size == (entry.img_size, entry.img_size)
    assert model.num_classes == entry.num_classes
    assert model.bgr == entry.bgr
    spec = clip_spec(model)
    assert (spec.num_frames, spec.size, spec.labels) == (entry.num_frames, model.img_size, entry.labels)
    assert (spec.mean, spec.std) == (entry.mean, entry.std)
    config = model.pretrained_cfg
    assert (config["license"], config["description"]) == (entry.license, entry.description)
    assert entry.source.items() <= config.items()


def test_every_model_is_there() -> None:
    names = {f"timesformer_{v}_{m.value}" for v in ("base", "hr", "l", "tiny") for m in AttentionMode}
    names |= {"timesformer_vitl14_joint", "timesformer_vitl14_frozen"}
    assert set(timm.list_models("timesformer_*")) == names
    assert {name.split(".")[0] for name in CHECKPOINTS} == names
    assert {name for name in CHECKPOINTS if name.endswith(".in21k")} == {
        f"{name}.in21k" for name in names if "tiny" not in name and "vitl14" not in name
    }


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("timesformer_base_divided", "k400"),
        ("timesformer_hr_divided", "k400"),
        ("timesformer_l_divided", "k400"),
        ("timesformer_base_joint", "mmaction2_k400"),
        ("timesformer_base_space_only", "mmaction2_k400"),
        ("timesformer_hr_joint", "in21k"),
        ("timesformer_base_axial", "in21k"),
        ("timesformer_l_local_global", "in21k"),
        ("timesformer_tiny_divided", "camera_motion"),
    ],
)
def test_default_tag(name: str, tag: str) -> None:
    assert create(name).pretrained_cfg["tag"] == tag


def test_counts_of_the_paper() -> None:
    """Table 1, 8 frames of 224 px and 400 classes; the official hr K600, l K400 and l SSv2."""
    counts = {
        "base_space_only.in21k": 86_106_256,
        "base_joint.in21k": 86_112_400,
        "base_divided.in21k": 121_566_352,
        "base_local_global.in21k": 121_566_352,
        "base_axial.in21k": 157_020_304,
        "hr_divided.k600": 122_177_880,
        "l_divided.k400": 121_633_936,
        "l_divided.ssv2": 121_435_566,
    }
    assert {name: CHECKPOINTS[f"timesformer_{name}"].num_params for name in counts} == counts


def test_ssv2_is_sampled_over_the_whole_video_and_not_flipped() -> None:
    for name, entry in CHECKPOINTS.items():
        if name in FAMILIES:
            continue
        spec = clip_spec(create(name))
        assert spec.sampling == ("uniform" if name.endswith(".ssv2") else "dense")
        assert spec.flip == ("tiny" not in name and not name.endswith(".ssv2"))
        assert entry.bgr == name.endswith(".ssv2")


def test_jitter_follows_the_size() -> None:
    assert clip_spec(create("timesformer_base_divided.k400")).jitter_range == (256, 320)
    assert clip_spec(create("timesformer_hr_divided.ssv2")).jitter_range == (448, 512)
    with torch.device("meta"):
        model = timm.create_model("timesformer_hr_divided", img_size=224, depth=1)
    assert clip_spec(model).jitter_range == (256, 320)


def test_a_wrong_tag_is_answered() -> None:
    with pytest.raises(RuntimeError, match="k700"):
        timm.create_model("timesformer_base_divided.k700", pretrained=True)
