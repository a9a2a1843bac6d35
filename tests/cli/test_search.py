"""`timesformer-zoo embed` and `search`: in this process, and as processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from PIL import Image
from small_models import tiny
from videos import write_video

from timesformer_zoo import Library, embed, save_pretrained, search
from timesformer_zoo_cli import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, one below the other, and one that is no video."""
    folder = tmp_path_factory.mktemp("footage")
    write_video(folder / "a.mp4", 60)
    (folder / "deep").mkdir()
    write_video(folder / "deep" / "b.mp4", 90, fps=30)
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def library(tree: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    paths = [tree / "a.mp4", tree / "deep" / "b.mp4"]
    return embed(str(folder), paths, tmp_path_factory.mktemp("libraries") / "library")


def test_as_processes(tree: Path, folder: Path, library: Library, tmp_path: Path) -> None:
    """From files to what is like one of them, with a file that can't be read, and again."""
    command = [sys.executable, "-m", "timesformer_zoo_cli"]
    run: Any = dict(capture_output=True, text=True, timeout=120, cwd=tmp_path)
    make = [*command, "embed", str(tree), "missing.mp4", "-o", "library", "--model", str(folder), "--device", "cpu"]
    done = subprocess.run(make, **run)
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [str(tree / "bad.mp4"), "missing.mp4"]
    rows = len(library)
    said = f"library: 4 done, 2 of them with an error; 0 were there before; {rows} rows in all, one a window\n"
    assert done.stdout == said
    again = subprocess.run([*make[:4], *make[5:], "--json"], **run)
    assert (again.returncode, again.stderr) == (0, "")
    counts = {"done": 0, "errors": 0, "rows": rows, "before": 4, "changed": 0}
    assert json.loads(again.stdout) == {"out": "library", **counts}
    ask = [*command, "search", "library", str(tree / "a.mp4"), "--topk", "3", "--start", "0.5", "--json"]
    found = subprocess.run(ask, **run)
    assert (found.returncode, found.stderr) == (0, "")
    rows_found = [json.loads(line) for line in found.stdout.splitlines()]
    expected = search(tmp_path / "library", tree / "a.mp4", 3, start=0.5, device="cpu")
    assert rows_found == [match.to_dict() for match in expected]


def test_a_table_for_people(tree: Path, library: Library, capsys: Output) -> None:
    query = [str(library.folder), str(tree / "a.mp4"), "--start", "1.04", "--end", "1.56", "--device", "cpu"]
    assert main(["search", *query, "--topk", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f" 1.0000  0:00:01.0 - 0:00:01.6  {tree / 'a.mp4'}"
    assert float(second.split()[0]) < 1
    assert main(["search", *query, "--one-per-video"]) == 0
    assert [Path(line.split()[-1]).name for line in capsys.readouterr().out.splitlines()] == ["a.mp4", "b.mp4"]


def test_rows_of_whole_videos(tree: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    options = ["--per", "video", "--clips", "3", "--crops", "2", "--dtype", "float32", "--model", str(folder)]
    assert main(["embed", str(tree / "deep"), "-o", str(tmp_path), *options]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 done; 0 were there before; 1 rows in all, one a video\n"
    (about,) = Library.open(tmp_path).videos
    assert about["path"] == str(tree / "deep" / "b.mp4")
    sampling = Library.open(tmp_path).settings["sampling"]
    assert (sampling["clips"], sampling["crops"]) == (3, 2)
    assert main(["search", str(tmp_path), str(tree / "deep" / "b.mp4")]) == 0
    assert capsys.readouterr().out.startswith(" 1.0000  0:00:00.0 - ")


def test_a_changed_file_is_done_anew(tree: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    copy(tree / "a.mp4", tmp_path / "x.mp4")
    command = ["embed", str(tmp_path / "x.mp4"), "-o", str(tmp_path / "library"), "--model", str(folder)]
    assert main(command) == 0
    copy(tree / "deep" / "b.mp4", tmp_path / "x.mp4")
    capsys.readouterr()
    assert main(command) == 0
    rows = len(Library.open(tmp_path / "library"))
    said = f"1 done; 1 were there before, 1 of these done anew; {rows} rows in all, one a window\n"
    assert capsys.readouterr().out == f"{tmp_path / 'library'}: {said}"


def test_two_models_do_not_mix(tree: Path, folder: Path, library: Library, tmp_path: Path, capsys: Output) -> None:
    other = str(save_pretrained(tiny("joint"), tmp_path / "other"))
    assert main(["embed", str(tree / "a.mp4"), "-o", str(library.folder), "--model", other]) == 1
    assert "holds rows of other settings: digest of the model" in capsys.readouterr().err
    assert main(["search", str(library.folder), str(tree / "a.mp4"), "--model", other]) == 1
    assert "was made by another model: digest of the model" in capsys.readouterr().err


# ---- the picture ----


def test_a_picture_of_what_was_found(tree: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    copy(tree / "a.mp4", tmp_path / "gone.mp4")
    embed(str(folder), [tree / "a.mp4", tree / "deep" / "b.mp4", tmp_path / "gone.mp4"], tmp_path / "library")
    (tmp_path / "gone.mp4").unlink()
    ask = ["search", str(tmp_path / "library"), str(tree / "a.mp4"), "--end", "1", "--one-per-video", "-o"]
    for name in ("found.png", "found.html"):
        assert main([*ask, str(tmp_path / name)]) == 0
    assert "gone.mp4" in capsys.readouterr().out
    page = (tmp_path / "found.html").read_text("utf-8")
    assert page.count("<section>") == 4
    assert page.count("<img ") == 3 * 4  # four frames of what was looked for, and of each that is there
    assert "0:00:00.0 - 0:00:01.0" in page
    assert "gone.mp4: there is no such file" in page
    with Image.open(tmp_path / "found.png") as image:
        image.load()
        assert image.width >= 4 * 144
        colours = {colour for _, colour in image.convert("RGB").quantize(64).convert("RGB").getcolors() or []}
    assert len(colours) > 8  # frames, not text alone


@pytest.mark.parametrize("name", ["found.gif", "found"])
def test_a_picture_of_another_kind_is_refused(name: str, tree: Path, library: Library, capsys: Output) -> None:
    assert main(["search", str(library.folder), str(tree / "a.mp4"), "-o", name]) == 2
    assert "expected a name that ends in .png or .html" in capsys.readouterr().err


def test_what_an_index_and_a_picture_need_is_said(
    tree: Path, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    ask = ["search", str(library.folder), str(tree / "a.mp4")]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faiss", None)
        assert main([*ask, "--index", "faiss"]) == 1
    assert "pip install 'timesformer-zoo[search]'" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "matplotlib.figure", raising=False)
        patch.setitem(sys.modules, "matplotlib", None)
        assert main([*ask, "-o", str(tmp_path / "found.png")]) == 1
    assert "pip install 'timesformer-zoo[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "found.png").exists()
