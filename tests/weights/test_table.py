"""The checkpoint table: every entry is sufficient and true to the sources it cites."""

import re
from importlib.resources import files

import pytest
import timm
import torch

import timesformer_zoo  # noqa: F401  (registers the models)
from timesformer_zoo import CHECKPOINTS, AttentionMode, Checkpoint, ClipSpec, checkpoint_of, clip_spec

LICENCES = {"apache-2.0", "cc-by-nc-4.0"}
ENTRIES = pytest.mark.parametrize("name", CHECKPOINTS)


def create(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


@ENTRIES
def test_entry_is_complete(name: str) -> None:
    entry = CHECKPOINTS[name]
    model, tag = name.split(".")
    assert re.fullmatch(r"timesformer_(base|hr|l|tiny)_(space_only|joint|divided|local_global|axial)", model)
    assert entry.license in LICENCES
    assert entry.description.endswith(".")
    assert set(entry.source) <= {"hf_hub_id", "url", "file"}
    assert len(entry.source) == (tag != "untrained")
    assert (entry.top1 is None) == (entry.top5 is None)
    if entry.top1 is not None and entry.top5 is not None:
        assert 50 < entry.top1 < entry.top5 < 100
    if entry.labels is not None:
        lines = (files("timesformer_zoo") / "assets" / "labels" / f"{entry.labels}.txt").read_text("utf-8").splitlines()
        assert len(lines) == entry.num_classes
        assert len(set(lines)) == len(lines)
    ClipSpec.from_dict(dict(entry.clip))  # raises for an unknown field


@ENTRIES
def test_model_takes_its_entry(name: str) -> None:
    entry, model = CHECKPOINTS[name], create(name)
    assert checkpoint_of(model) is entry
    assert model.num_frames == entry.num_frames
    assert model.img_size == (entry.img_size, entry.img_size)
    assert model.num_classes == entry.num_classes
    assert model.head.out_features == entry.num_classes
    spec = clip_spec(model)
    assert (spec.num_frames, spec.size) == (entry.num_frames, model.img_size)
    assert spec.mean == entry.mean
    assert spec.std == entry.std
    config = model.pretrained_cfg
    assert config["license"] == entry.license
    assert config["description"] == entry.description


def test_every_model_is_there() -> None:
    names = {f"timesformer_{v}_{m.value}" for v in ("base", "hr", "l", "tiny") for m in AttentionMode}
    assert set(timm.list_models("timesformer_*")) == names
    assert {name.split(".")[0] for name in CHECKPOINTS} == names


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


# The released models: repository, frames, pixels, classes, reported top-1 and top-5 (the authors' model zoo).
RELEASED = [
    ("base", "k400", "facebook/timesformer-base-finetuned-k400", 8, 224, 400, 77.9, 93.2),
    ("base", "k600", "facebook/timesformer-base-finetuned-k600", 8, 224, 600, 79.1, 94.4),
    ("base", "ssv2", "facebook/timesformer-base-finetuned-ssv2", 8, 224, 174, 59.1, 85.6),
    ("hr", "k400", "facebook/timesformer-hr-finetuned-k400", 16, 448, 400, 79.6, 94.0),
    ("hr", "k600", "facebook/timesformer-hr-finetuned-k600", 16, 448, 600, 81.8, 95.8),
    ("hr", "ssv2", "facebook/timesformer-hr-finetuned-ssv2", 16, 448, 174, 61.8, 86.9),
    ("l", "k400", "fcakyon/timesformer-large-finetuned-k400", 96, 224, 400, 80.6, 94.7),
    ("l", "k600", "fcakyon/timesformer-large-finetuned-k600", 96, 224, 600, 82.2, 95.6),
    ("l", "ssv2", "fcakyon/timesformer-large-finetuned-ssv2", 64, 224, 174, 62.0, 87.5),
]


@pytest.mark.parametrize(("variant", "tag", "repository", "frames", "size", "classes", "top1", "top5"), RELEASED)
def test_released_models(
    variant: str, tag: str, repository: str, frames: int, size: int, classes: int, top1: float, top5: float
) -> None:
    entry = CHECKPOINTS[f"timesformer_{variant}_divided.{tag}"]
    assert entry.source == {"hf_hub_id": repository}
    assert (entry.num_frames, entry.img_size, entry.num_classes) == (frames, size, classes)
    assert (entry.top1, entry.top5) == (top1, top5)
    assert entry.license == "cc-by-nc-4.0"
    assert entry.bgr == (tag == "ssv2")
    assert entry.clip.get("sampling", "dense") == ("uniform" if tag == "ssv2" else "dense")
    assert entry.clip.get("flip", True) == (tag != "ssv2")
    if tag != "ssv2":
        assert entry.clip["stride"] == {"base": 32, "hr": 16, "l": 4}[variant]
    spec = clip_spec(create(f"timesformer_{variant}_divided.{tag}"))
    assert spec.jitter_range == ((448, 512) if variant == "hr" else (256, 320))


def test_jitter_follows_another_size() -> None:
    with torch.device("meta"):
        model = timm.create_model("timesformer_hr_divided", img_size=224, depth=1)
    assert clip_spec(model).jitter_range == (256, 320)


def test_image_vits_are_called_what_they_are() -> None:
    images: list[Checkpoint] = [entry for name, entry in CHECKPOINTS.items() if name.endswith(".in21k")]
    assert len(images) == 15
    for entry in images:
        assert entry.image
        assert entry.labels is None
        assert "Not a video model yet" in entry.description
    assert not any(entry.image for name, entry in CHECKPOINTS.items() if not name.endswith(".in21k"))


def test_a_wrong_tag_is_answered() -> None:
    with pytest.raises(RuntimeError, match="k700"):
        timm.create_model("timesformer_base_divided.k700", pretrained=True)
