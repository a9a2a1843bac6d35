"""`timesformer-zoo timeline` as a process."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from PIL import Image
from videos import write_video

from timesformer_zoo import Timeline, load_model, timeline
from timesformer_zoo_cli import main

Output = pytest.CaptureFixture[str]
Done = subprocess.CompletedProcess[str]

COMMAND = [sys.executable, "-m", "timesformer_zoo_cli", "timeline"]


def run(folder: Path, *arguments: object, cwd: Path) -> Done:
    command = [*COMMAND, *map(str, arguments), "--model", str(folder), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=cwd)


def rows_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def expected(folder: Path, video: Path, **options: Any) -> Timeline:
    return timeline(load_model(folder), video, **options)


def test_every_format_of_every_video_and_lines_as_they_come(folder: Path, video: Path, tmp_path: Path) -> None:
    copy(video, tmp_path / "one.mp4")
    copy(video, tmp_path / "two.mp4")
    outs = [option for suffix in ("json", "csv", "html", "png") for option in ("-o", f"out/{{name}}.{suffix}")]
    done = run(folder, "one.mp4", "two.mp4", "missing.mp4", *outs, "--json", "--step", 0.2, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "timesformer-zoo timeline: missing.mp4: there is no such file; check the path\n"  # no bar
    made = expected(folder, video, step=0.2).to_dict()
    rows = rows_of(done.stdout)
    assert rows.pop() == {"path": "missing.mp4", "error": "missing.mp4: there is no such file; check the path"}
    for name in ("one", "two"):
        mine = [row for row in rows if row["path"] == f"{name}.mp4"]
        assert mine[:-1] == [{"path": f"{name}.mp4", **window} for window in json.loads(json.dumps(made["windows"]))]
        assert mine[-1]["segments"] == json.loads(json.dumps(made["segments"]))
        assert json.loads((tmp_path / f"out/{name}.json").read_text()) == {
            **json.loads(json.dumps(made)),
            "path": f"{name}.mp4",
        }
        with (tmp_path / f"out/{name}.csv").open(newline="") as file:
            assert [row["label"] for row in csv.DictReader(file)] == [part["label"] for part in made["segments"]]
        assert (tmp_path / f"out/{name}.html").read_text("utf-8").endswith("</html>\n")
        with Image.open(tmp_path / f"out/{name}.png") as picture:
            picture.load()
    assert len(list((tmp_path / "out").iterdir())) == 8  # and nothing of what windows were kept in


def test_a_model_of_less_precision(folder: Path, video: Path, tmp_path: Path) -> None:
    done = run(folder, video, "--json", "--precision", "bfloat16", cwd=tmp_path)
    *windows, _ = rows_of(done.stdout)
    exact = expected(folder, video).windows
    assert [row["start"] for row in windows] == [window.start for window in exact]
    found = [{score["label"]: score["probability"] for score in row["top"]} for row in windows]
    assert [row[window.top[0].label] for row, window in zip(found, exact, strict=True)] == pytest.approx(
        [window.top[0].probability for window in exact], abs=0.05
    )
    assert found[0][exact[0].top[0].label] != exact[0].top[0].probability


def test_segments_and_a_table_are_printed(folder: Path, video: Path, capsys: Output) -> None:
    assert main(["timeline", str(video), str(video), "--model", str(folder), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    made = expected(folder, video)
    title, *lines = out.splitlines()
    assert title.startswith(f"{video}: ")
    assert f"{len(made.windows)} windows of 0.5 s over 0:02.4, {len(made.segments)} segment" in title
    assert lines[0].startswith("  0:00.0 - ")
    assert out.count(f"  {made.segments[0].label} (") == 2 * sum(
        part.label == made.segments[0].label for part in made.segments
    )
    assert "All videos, shares of their time:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "-o", "t.gif"], "t.gif: a timeline is written as .json, .jsonl, .csv, .html, .png, got .gif"),
        (["a.mp4", "b.mp4", "-o", "t.csv"], "-o t.csv is one file for 2 videos: give {name} in it, as {name}.csv"),
        (["x/a.mp4", "y/a.mp4", "-o", "{name}.csv"], "a.csv would be written twice"),
        (["a.mp4", "--smoothing", "-1"], "smoothing is -1.0, expected seconds"),
        (["a.mp4", "--step", "0"], "step is 0.0, expected a positive number"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], message: str, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["timeline", *arguments, "--model", str(folder), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_picture_without_matplotlib_is_refused_before_anything_is_looked_at(
    folder: Path, video: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "new" / "t.png"
    assert main(["timeline", str(video), "--model", str(folder), "-o", str(out)]) == 1
    assert capsys.readouterr().err == (
        "timesformer-zoo timeline: it needs matplotlib: pip install 'timesformer-zoo[plots]'\n"
    )
    assert not out.parent.exists()


def test_killed_it_goes_on(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 1500, 64, 96)
    options = ("film.mp4", "-o", "t.json", "--step", 0.04)
    command = [*COMMAND, *map(str, options), "--model", str(folder), "--device", "cpu"]
    state = tmp_path / ".t.json.windows.jsonl.partial"
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        until = time.monotonic() + 120
        while not (state.exists() and state.read_bytes().count(b"\n") > 100):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "t.json").exists()
    before = state.read_bytes()
    done = run(folder, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "t.json").read_text())["windows"] == json.loads(
        json.dumps(expected(folder, tmp_path / "film.mp4", step=0.04).to_dict()["windows"])
    )
    assert not state.exists()
    # Of what the killed run left, and of another step, nothing is taken over; and that is said.
    state.write_bytes(before)
    done = run(folder, "film.mp4", "-o", "t.json", "--step", 1.0, cwd=tmp_path)
    assert done.stderr.endswith("it is of another sampling; its windows are done anew\n")


def test_a_damaged_part_is_said_and_the_rest_is_there(folder: Path, damaged_film: Path, tmp_path: Path) -> None:
    done = run(folder, damaged_film, "-o", "t.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"timesformer-zoo timeline: {damaged_film}: ")
    assert " s can't be read: " in done.stderr
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (gap,) = [row for row in rows if row["reason"]]
    assert gap["label"] == ""
    assert float(gap["start"]) > 0
    assert float(rows[-1]["end"]) == 8.0
    assert rows[-1]["label"]


@pytest.fixture
def damaged_film(tmp_path: Path) -> Path:
    """200 frames, 25 a second, of which 20 can't be decoded."""
    import av

    path = write_video(tmp_path / "film.mp4", 200, **{"x264-params": "keyint=20:bframes=0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    for place, size in packets[80:91]:
        data[place + 4 : place + size] = bytes(size - 4)
    path.write_bytes(data)
    return path
