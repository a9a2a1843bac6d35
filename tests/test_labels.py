"""Class names: bound to the head that was trained for them, never to another."""

import copy
import json
from pathlib import Path

import pytest
import timm
import torch
from small_models import tiny

from timesformer_zoo import CHECKPOINTS
from timesformer_zoo.labels import known_labels, label_set, model_labels, set_labels

SMALL = dict(img_size=32, embed_dim=32, depth=1, num_heads=2)


def pretrained(name: str, num_classes: int | None = None, overlay: dict | None = None, **weights):
    """A small model that timm takes for one with the published weights of its tag."""
    size = dict(SMALL, **weights)
    source = timm.create_model(name, **size)
    return timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay=dict(state_dict=source.state_dict(), **(overlay or {})),
        **{**size, **({"num_classes": num_classes} if num_classes else {})},
    )


@pytest.mark.parametrize(
    ("name", "index", "label"),
    [
        ("timesformer_base_divided.k400", 0, "abseiling"),
        ("timesformer_base_divided.k600", 599, "zumba"),
        ("timesformer_base_divided.ssv2", 0, "Approaching something with your camera"),
        ("timesformer_base_joint.mmaction2_k400", 399, "zumba"),
    ],
)
def test_published_weights_have_the_names_of_their_data_set(name: str, index: int, label: str) -> None:
    labels = model_labels(pretrained(name))
    assert len(labels) == CHECKPOINTS[name].num_classes
    assert labels[index] == label


def test_a_label_set_is_the_callers_own() -> None:
    label_set("kinetics400").clear()
    assert len(label_set("kinetics400")) == 400


def test_a_new_head_of_as_many_classes_has_no_names() -> None:
    model = pretrained("timesformer_base_divided.k400")
    model.reset_classifier(400)
    assert known_labels(model) is None
    assert model_labels(model)[:2] == ["class 0", "class 1"]
    model = pretrained("timesformer_base_divided.k400")
    model.head = torch.nn.Linear(32, 400)
    assert known_labels(model) is None


def test_a_head_that_was_never_loaded_has_no_names() -> None:
    assert known_labels(timm.create_model("timesformer_base_divided.k400", **SMALL)) is None
    assert known_labels(pretrained("timesformer_base_divided.k400", num_classes=7)) is None
    assert model_labels(pretrained("timesformer_base_divided.k400", num_classes=2)) == ["class 0", "class 1"]


def test_a_configs_own_names_win() -> None:
    own = [f"own {index}" for index in range(400)]
    assert model_labels(pretrained("timesformer_base_divided.k400", overlay={"label_names": own})) == own


def test_names_follow_a_copy_of_the_model() -> None:
    model = tiny()
    set_labels(model, list("abcde"))
    assert model_labels(copy.deepcopy(model)) == list("abcde")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (list("abcde"), list("abcde")),
        ({0: "a", 3: "d"}, ["a", "class 1", "class 2", "d", "class 4"]),
        (json.loads('{"1": "b"}'), ["class 0", "b", "class 2", "class 3", "class 4"]),
        (None, None),
    ],
)
def test_names_can_be_given(labels, expected) -> None:
    model = tiny()
    set_labels(model, labels)
    assert known_labels(model) == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"], "Got 1 labels for 5 classes"),
        ({5: "f"}, "classes 0 to 4"),
        ("kinetics400", "Got 400 labels for 5 classes"),
        ("kinetics", "There is no label set 'kinetics'; there are .*kinetics400, kinetics600"),
    ],
)
def test_names_that_do_not_fit_are_refused(labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_labels(tiny(), labels)


def test_labels_do_not_enter_the_weights(tmp_path: Path) -> None:
    model = tiny()
    before = set(model.state_dict())
    set_labels(model, list("abcde"))
    assert set(model.state_dict()) == before
    torch.save(model, tmp_path / "model.pt")
    assert model_labels(torch.load(tmp_path / "model.pt", weights_only=False)) == list("abcde")
