"""What importing the package does and does not do, and what its public names are."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import timesformer_zoo
from timesformer_zoo import errors

PROBE = """
import json, sys, timm
models, theirs = {n: timm.models.model_entrypoint(n) for n in timm.list_models()}, set(sys.modules)
import timesformer_zoo
ours = [n for n in timm.list_models() if n not in models]
unchanged = all(timm.models.model_entrypoint(n) is f for n, f in models.items())
print(json.dumps(dict(ours=ours, unchanged=unchanged, modules=sorted(set(sys.modules) - theirs))))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What `import timesformer_zoo` adds in an interpreter that has timm."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_registers_with_timm_and_leaves_it_as_it_was(fresh: dict[str, Any]) -> None:
    assert len(fresh["ours"]) == 26
    assert all(name.startswith("timesformer_") for name in fresh["ours"])
    assert fresh["unchanged"]


def test_import_is_light(fresh: dict[str, Any]) -> None:
    packages = {name.partition(".")[0] for name in fresh["modules"]}
    heavy = "accelerate aiohttp av datasets decord lightning matplotlib onnx pandas peft pyarrow ray rich tensorboard"
    heavy += " transformers upath usearch"
    assert not packages & set(heavy.split())
    rooms = {name.split(".")[1] for name in fresh["modules"] if name.startswith("timesformer_zoo.")}
    assert not rooms & {"cli", "data", "engine", "retrieval", "train"}
    assert {"model", "video", "hub"} <= rooms


def imported() -> dict[str, str]:
    """Name -> module of everything that the package's `__init__` takes from its rooms, for the type checker, too."""
    tree = ast.parse(Path(timesformer_zoo.__file__).read_text("utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {a.name: str(f.module) for f in froms if str(f.module).startswith("timesformer_zoo.") for a in f.names}


def test_public_names_are_all_there_is_and_each_can_be_imported() -> None:
    names = timesformer_zoo.__all__
    assert sorted(names) == sorted(imported())
    for name, module in imported().items():
        assert getattr(timesformer_zoo, name) is getattr(import_module(module), name)
        assert name in dir(timesformer_zoo)
    assert sum(name.startswith("timesformer_") for name in names) == 26
    assert set(errors.__all__) <= set(names)
    with pytest.raises(AttributeError, match="no attribute 'finetun'"):
        timesformer_zoo.finetun  # noqa: B018


@pytest.mark.parametrize(
    "call",
    [
        lambda model: timesformer_zoo.predict(model, "video.mp4"),
        lambda model: timesformer_zoo.predict_windows(model, "video.mp4"),
        lambda model: timesformer_zoo.attention_maps(model, torch.zeros(1, 3, 8, 64, 64)),
        lambda model: timesformer_zoo.rollout(model, torch.zeros(1, 3, 8, 64, 64)),
        lambda model: timesformer_zoo.save_pretrained(model, "folder"),
        lambda model: timesformer_zoo.push_to_hf_hub(model, "me/mine"),
        lambda model: timesformer_zoo.to_transformers(model),
        lambda model: timesformer_zoo.init_from_vit(model, "vit_tiny_patch16_224"),
        lambda model: timesformer_zoo.embed(model, ["video.mp4"], "folder"),
        lambda model: timesformer_zoo.finetune(model, None, timesformer_zoo.RECIPES["paper"], "folder"),
    ],
    ids=[
        "predict",
        "predict_windows",
        "maps",
        "rollout",
        "save",
        "push",
        "to_transformers",
        "init_from_vit",
        "embed",
        "finetune",
    ],
)
def test_what_takes_a_model_says_that_it_takes_no_other(call: Callable[[Any], object]) -> None:
    """create_model declares an nn.Module, so these take one; a wrapped model is the likely mistake."""
    wrapped = torch.nn.DataParallel(timesformer_zoo.timesformer_tiny_divided())
    with pytest.raises(TypeError, match="expected a TimeSformer, got DataParallel; give the model that is inside"):
        call(wrapped)


def test_version_is_the_packages() -> None:
    assert timesformer_zoo.__version__ == version("timesformer-zoo")
