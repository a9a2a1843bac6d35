"""Weights out of pickles that hold somebody's objects: none of their code runs, and what would run is refused."""

import io
import logging
import os
import pickle
import re
import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from small_models import equal, tiny

from timesformer_zoo import CheckpointError, read_checkpoint

PROJECT = """
import enum
from pathlib import Path

ran = []

class ConfigParser:
    def __init__(self, path):
        self.path, self.config = path, {"lr": 1e-3}
    def __setstate__(self, state):
        ran.append("setstate")

class Settings(dict):
    def __setitem__(self, key, value):
        ran.append("setitem")
        super().__setitem__(key, value)

class Steps(list):
    pass

class Slotted:
    __slots__ = ("a",)

class Kind(enum.Enum):
    VIDEO = "video"
    @classmethod
    def _missing_(cls, value):
        ran.append("missing")

def function(*args):
    ran.append("function")
"""


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A project's module, there when its file is written."""
    module = ModuleType("parse_config")
    exec(PROJECT, module.__dict__)
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ in ("builtins", __name__):
            value.__module__ = "parse_config"
    monkeypatch.setitem(sys.modules, "parse_config", module)
    return module


def zipped(path: Path, content: Any) -> None:
    torch.save(content, path)


def protocol_4(path: Path, content: Any) -> None:
    torch.save(content, path, pickle_protocol=4)


def legacy(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = pytest.mark.parametrize("write", [zipped, protocol_4, legacy])


@WRITERS
@pytest.mark.parametrize("gone", [True, False], ids=["module gone", "module there"])
def test_weights_come_out_from_beside_a_projects_objects(write, gone, project, tmp_path, monkeypatch):
    weights = dict(tiny().state_dict())
    slotted = project.Slotted()
    slotted.a = torch.ones(2)
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "x"
    beside = {
        "config": project.ConfigParser(PurePosixPath("a", "b")),
        "args": Namespace(lr=0.1, out=Path("x"), kind=project.Kind.VIDEO, nested=Namespace(a={1, 2})),
        "settings": project.Settings(a=project.Steps([1, 2])),
        "slotted": slotted,
        "best": np.float64(0.5),
        "history": defaultdict(list, a=[1]),
        "seen": frozenset([1]),
        "logger": logging.getLogger("x"),
        "pattern": re.compile("x"),
        "parameter": marked,
        "class": project.ConfigParser,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    write(tmp_path / "c.pth.tar", {"arch": "x", "epoch": 3, "state_dict": OrderedDict(weights), **beside})
    project.ran.clear()
    if gone:
        monkeypatch.delitem(sys.modules, "parse_config")
    assert equal(read_checkpoint(tmp_path / "c.pth.tar"), weights)
    assert project.ran == []


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Build:
    """Pickles as a function of torch's that is given another body."""

    def __reduce__(self):
        return torch.Size, ((1,),), (None, {"__len__": 1})


def bare(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [zipped, protocol_4, legacy, bare])
@pytest.mark.parametrize("what", ["system", "eval", "exec", "popen", "getattr", "import", "torch", "function"])
def test_a_call_is_refused_and_does_not_run(write, what, project, tmp_path):
    touch = f"open({str(tmp_path / 'ran')!r}, 'w')"
    calls = {
        "system": (os.system, f"touch {tmp_path / 'ran'}"),
        "eval": (eval, touch),
        "exec": (exec, touch),
        "popen": (subprocess.Popen, ["touch", str(tmp_path / "ran")]),
        "getattr": (getattr, project, "ran"),
        "import": (__import__, "antigravity"),
        "torch": (torch.storage._load_from_bytes, b"x"),
        "function": (project.function, 1),
    }
    if what == "getattr":
        calls["getattr"] = (getattr, project.ConfigParser, "__init__")
    write(tmp_path / "evil.pth", {"state_dict": dict(tiny().state_dict()), "x": Call(*calls[what])})
    with pytest.raises(CheckpointError, match=r"evil.pth.*could run code \(calls .*sandbox"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    assert project.ran == []


def test_a_refused_pickle_changes_nothing_for_the_next(tmp_path):
    class Patch:
        def __reduce__(self):
            return Call(torch._utils._rebuild_parameter, torch.ones(1), True, OrderedDict()).call

    weights = dict(tiny().state_dict())
    name = "ctorch._utils\n_rebuild_tensor_v2\n"
    data = b"\x80\x02}X\x01\x00\x00\x00a" + name.encode() + b"}X\x05\x00\x00\x00_callNsb" + b"s."  # BUILD on a function
    (tmp_path / "evil.pdparams").write_bytes(data)
    with pytest.raises(CheckpointError, match="changes a function"):
        read_checkpoint(tmp_path / "evil.pdparams")
    torch.save({"state_dict": weights, "x": Patch(), "args": Namespace()}, tmp_path / "fine.pth")
    assert equal(read_checkpoint(tmp_path / "fine.pth"), weights)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_pickle_of_numpy_arrays(protocol, dtype, tmp_path):
    weights = {key: value.to(dtype) for key, value in tiny().state_dict().items()}
    arrays: dict[str, Any] = {key: value.numpy() for key, value in weights.items()}
    arrays["pos_embed"] = np.asfortranarray(arrays["pos_embed"])
    arrays["StructuredToParameterName@@"] = {"a": "b"}
    data = pickle.dumps(arrays, protocol)
    for content in (data, data.replace(b"numpy._core", b"numpy.core") if protocol < 4 else data):
        (tmp_path / "m.pdparams").write_bytes(content)
        read = read_checkpoint(tmp_path / "m.pdparams")
        assert equal(read, weights)
        assert read.left_out == ("StructuredToParameterName@@",)


@pytest.mark.parametrize(
    "value", [np.array(["a"], dtype=object), np.ones(2, ">f4"), np.array([("a", 1)], dtype="U1,i4")], ids=str
)
def test_arrays_of_anything_but_numbers_are_refused(value, tmp_path):
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps({"a": value}, 2))
    with pytest.raises(CheckpointError, match=r"m.pdparams: (refused|damaged)"):
        read_checkpoint(tmp_path / "m.pdparams")


def test_a_whole_pickled_model_is_no_state_dict(project, tmp_path):
    torch.save(project.ConfigParser("x"), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"expected a dict of tensors.*got ConfigParser"):
        read_checkpoint(tmp_path / "m.pth")


def test_a_result_saves_as_plain_data(tmp_path):
    weights = dict(tiny().state_dict())
    torch.save({"state_dict": weights, "student": weights}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    buffer = io.BytesIO()
    torch.save(read, buffer)
    buffer.seek(0)
    assert equal(torch.load(buffer, weights_only=True), weights)
