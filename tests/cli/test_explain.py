"""`timesformer-zoo explain`, run in this process, and as one of its own."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest
from PIL import Image

from timesformer_zoo import explain
from timesformer_zoo_cli import main

Output = pytest.CaptureFixture[str]


def test_as_a_process(video: Path, folder: Path, tmp_path: Path) -> None:
    """One picture of one video; what was asked for is what is printed, and nothing else is left."""
    run = [
        sys.executable,
        "-m",
        "timesformer_zoo_cli",
        "explain",
        str(video),
        "--model",
        str(folder),
        "--device",
        "cpu",
    ]
    out = tmp_path / "new" / "a.gif"
    done = subprocess.run(
        [*run, "-o", str(out), "--device", "cpu", "--label", "sit", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = explain(f"local-dir:{folder}", video, "sit")
    assert json.loads(done.stdout) == {"path": str(video), "out": str(out), **found.to_dict()}
    assert [path.name for path in out.parent.iterdir()] == ["a.gif"]
    with Image.open(out) as image:
        assert image.n_frames == 4


def test_several_videos_go_into_a_folder(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        copy(video, tmp_path / place / "same.mp4")
    options = ["--model", str(folder), "--device", "cpu", "--format", "png", "--method", "rollout", "--label", "run"]
    out = tmp_path / "out"
    assert main(["explain", f"{tmp_path}/a", f"{tmp_path}/b/*.mp4", "missing.mp4", "-o", str(out), *options]) == 1
    printed, err = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["same-2.png", "same.png"]
    assert err == "timesformer-zoo explain: missing.mp4: there is no such file; check the path\n"
    first, second = printed.splitlines()
    assert first.startswith(f"{tmp_path}/a/same.mp4: run ")
    assert first.endswith(f"-> {out}/same.png  (rollout is the same for every class)")
    assert f"-> {out}/same-2.png" in second


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "{out}/a.jpg"], 2, "a.jpg: its suffix is '.jpg', expected one of .gif, .mp4, .png, .html"),
        (["-o", "{out}/a.gif", "--format", "png"], 2, "--format is of the pictures in a folder"),
        (["{video}", "-o", "{out}/a.gif"], 2, "a.gif is one picture, and there are 2 videos: give a folder by -o"),
        (["-o", "{out}/a.gif", "--label", "runn"], 2, "none of the model's 5; near it are 'run'"),
        (["-o", "{out}/a.gif", "--start", "2", "--end", "1"], 2, "start is 2.0 and end 1.0"),
        (["-o", "{out}/a.gif", "--start", "9"], 1, "it ends at 2.40 s, before the part from 9 s on"),
        (["-o", "/proc/a.gif"], 1, "/proc could not be written"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], status: int, message: str, video: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    options = ["--model", str(folder), "--device", "cpu"]
    filled = [argument.format(video=video, out=tmp_path) for argument in arguments]
    assert main(["explain", str(video), *filled, *options]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("matplotlib", [], "plots"), ("captum.attr", ["--method", "integrated_gradients"], "captum")],
)
def test_what_it_lacks_is_said_in_one_line(
    module: str,
    arguments: list[str],
    extra: str,
    video: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    options = [str(video), "-o", str(tmp_path / "a.png"), "--model", str(folder), "--device", "cpu", *arguments]
    assert main(["explain", *options]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"pip install 'timesformer-zoo[{extra}]'" in err
