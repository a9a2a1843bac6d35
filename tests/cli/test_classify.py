"""`timesformer-zoo classify`, run in this process."""

import io
import json
import sys
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import tiny
from videos import real_video

from timesformer_zoo import Video, label_set, predict, predict_windows, save_pretrained, segments
from timesformer_zoo.cli import classify
from timesformer_zoo_cli import main

Output = pytest.CaptureFixture[str]


def rows_of(out: str) -> list[dict[str, Any]]:
    """What --json prints: an object in a line."""
    return [json.loads(line) for line in out.splitlines()]


# ---- a model that looks once ----


def test_labels_and_probabilities_are_printed(video: Path, folder: Path, capsys: Output) -> None:
    assert main(["classify", str(video), "--model", str(folder), "--top-k", "2", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    title, *rows = out.splitlines()
    top = predict(f"local-dir:{folder}", video, 2).top
    # A clip is 4 frames, 4 apart, at 30 a second: half a second from the start of 60 frames at 25 a second.
    assert title == f"{video}: {top[0].label}  [1 clip × 1 crop from 0:00.0 to 0:00.5 of 0:02.4]"
    assert [row.split() for row in rows] == [f"{score.probability:.1%} {score.label}".split() for score in top]
    assert err == ""  # the bar is for terminals


def test_json_is_what_predict_says(video: Path, folder: Path, capsys: Output) -> None:
    options = ["--model", str(folder), "--json", "--clips", "2", "--crops", "3", "--device", "cpu"]
    assert main(["classify", str(video), *options]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    assert row == {**predict(f"local-dir:{folder}", video, 5, 2, 3).to_dict(), "clips": 2, "crops": 3}
    assert row["end"] > 1.2  # the second clip is in the second half


def test_what_is_unclear_is_not_given_as_the_label(video: Path, tmp_path: Path, capsys: Output) -> None:
    model = tiny(clip={"stride": 4, "crops": 1})
    torch.nn.init.zeros_(model.head.weight)  # so each class is as likely, but the last, by a little
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1]))
    save_pretrained(model, tmp_path / "model", labels=["run", "jump", "sit", "stand", "fall"])
    options = [str(video), "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main(["classify", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{video}: unclear  [")
    assert main(["classify", *options, "--json"]) == 0
    assert rows_of(capsys.readouterr().out)[0]["unclear"] is True
    assert main(["classify", *options, "--windows"]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        f"{video}: unclear 100%  [5 windows of 0.5 s from 0:00.0 to 0:02.4 of 0:02.4]",
        "0:00.0 - 0:02.4  unclear (at best fall, 22%)",
    ]


def test_a_model_of_whole_videos_looks_once_at_all_of_it(video: Path, tmp_path: Path, capsys: Output) -> None:
    save_pretrained(tiny(clip={"sampling": "uniform"}), tmp_path / "model")
    options = [str(video), "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main(["classify", *options]) == 0
    # The middle frames of four segments: of the first and of the last, 0.3 s from the ends.
    assert "[1 clip × 3 crops from 0:00.3 to 0:02.1 of 0:02.4]" in capsys.readouterr().out
    assert main(["classify", *options, "--windows"]) == 2
    assert "give the window's length in seconds" in capsys.readouterr().err


# ---- window by window ----


def test_windows_become_a_timeline(video: Path, folder: Path, capsys: Output) -> None:
    windows = list(predict_windows(f"local-dir:{folder}", video, 1, step=0.3))
    found = segments(windows)
    options = ["--model", str(folder), "--device", "cpu", "--step", "0.3"]
    assert main(["classify", str(video), *options, "--json"]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    assert row["timeline"] == [segment.to_dict() for segment in found]
    assert (row["start"], row["end"], row["duration"]) == (0.0, 2.4, 2.4)
    assert row["windows"] == {"count": len(windows), "seconds": pytest.approx(0.52), "every": pytest.approx(0.32)}
    assert sum(entry["share"] for entry in row["summary"]) == pytest.approx(1)
    assert main(["classify", str(video), *options]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.endswith(f"[{len(windows)} windows of 0.5 s from 0:00.0 to 0:02.4 of 0:02.4]")
    assert len(rows) == len(found)


def test_the_embedded_model_labels_all_of_a_video(capsys: Output) -> None:
    assert main(["classify", str(real_video("bikes.mp4")), "--device", "cpu", "--json"]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    assert row["windows"]["count"] == 10
    assert (row["start"], row["end"]) == (0.0, row["duration"]) == (0.0, 10.0)
    assert {segment["label"] for segment in row["timeline"]} <= set(label_set("camera_motion"))
    ends = [segment["end"] for segment in row["timeline"]]
    assert [0.0, *ends] == [*(segment["start"] for segment in row["timeline"]), row["end"]]  # no gap
    for segment in row["timeline"]:
        assert segment["unclear"] == (segment["probability"] < 0.5)


def test_of_a_long_video_windows_are_spread_and_said_to_be(video: Path, folder: Path, capsys: Output) -> None:
    options = ["--model", str(folder), "--device", "cpu", "--windows", "--max-windows", "2"]
    assert main(["classify", str(video), *options]) == 0
    assert "[2 windows of 0.5 s, one every 1.0 s, from 0:00.5 to 0:02.1 of 0:02.4]" in capsys.readouterr().out


def test_of_several_videos_a_table_sums_up(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    other = tmp_path / "other.mp4"
    copy(video, other)
    assert main(["classify", str(video), str(other), "--model", str(folder), "--device", "cpu", "--windows"]) == 0
    *_, title, first, second = capsys.readouterr().out.splitlines()
    assert title == "All videos, shares of their time:"
    assert first.startswith(str(video))
    assert second.startswith(str(other))


def test_a_folder_of_frames_has_windows(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(Video(video).frames(range(30))):
        Image.fromarray(frame.numpy()).save(frames / f"{number}.png")
    assert main(["classify", str(frames), "--model", str(folder), "--device", "cpu", "--windows", "--json"]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    assert (row["path"], row["duration"]) == (str(frames), 1.0)  # at 30 a second, as the model's stride counts


# ---- many files ----


def test_a_bad_file_is_reported_and_the_rest_done(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    bad = tmp_path / "bad.mp4"
    bad.touch()
    files = [str(bad), str(video), str(tmp_path / "missing.mp4")]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{video}: ")
    assert [line.split(": ")[1] for line in err.splitlines()] == [files[0], files[2]]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu", "--json"]) == 1
    results = rows_of(capsys.readouterr().out)
    assert [("error" in result, result["path"]) for result in results] == [
        (True, files[0]),
        (False, files[1]),
        (True, files[2]),
    ]


def test_into_a_folder_and_again(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    other, missing, out = tmp_path / "other.mp4", tmp_path / "missing.mp4", tmp_path / "out"
    options = ["--model", str(folder), "--device", "cpu", "--out", str(out)]
    assert main(["classify", str(video), str(missing), *options]) == 1
    printed, err = capsys.readouterr()
    assert printed == f"{out}: 2 done, 1 of them with an error; 0 were there before\n"
    assert "no such file" in err
    copy(video, other)
    copy(video, missing)
    files = [str(video), str(missing), str(other)]
    assert main(["classify", *files, *options, "--json"]) == 0
    assert rows_of(capsys.readouterr().out) == [
        {"out": str(out), "done": 1, "before": 2, "errors": 0, "errors_before": 1}
    ]
    assert main(["classify", *files, *options]) == 0
    assert capsys.readouterr().out == (
        f"{out}: 0 done, 0 of them with an error; 3 were there before, 1 of them with an error "
        "(--retry-errors does these again)\n"
    )
    assert main(["classify", *files, *options, "--json", "--retry-errors"]) == 0
    assert rows_of(capsys.readouterr().out) == [
        {"out": str(out), "done": 1, "before": 2, "errors": 0, "errors_before": 0}
    ]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu", "--json"]) == 0
    rows = rows_of("".join(part.read_text("utf-8") for part in out.glob("part-*.jsonl")))
    by_path = {row["path"]: row for row in rows_of(capsys.readouterr().out)}
    assert {row["path"]: row for row in rows} == by_path
    assert len(rows) == 3
    assert main(["classify", *files, *options, "--top-k", "1"]) == 1
    assert "holds rows of other settings: top_k 5, not 1" in capsys.readouterr().err


def test_a_refused_run_leaves_no_folder(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    options = ["classify", str(video), "--model", str(folder), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*options, "--windows", "--clips", "2"]) == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()  # somebody's own
    assert main([*options, "--windows", "--clips", "2"]) == 2
    assert main([*options, "--clips", "2"]) == 0  # of other settings, of which there are no rows
    capsys.readouterr()


def test_a_list_without_names_is_said_to_be_empty(folder: Path, monkeypatch: Any, capsys: Output) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert main(["classify", "-", "--model", str(folder), "--device", "cpu"]) == 1
    assert capsys.readouterr() == ("", "timesformer-zoo classify: -: no names on standard input\n")


def test_numbers_that_json_does_not_know_are_null(video: Path, tmp_path: Path, capsys: Output) -> None:
    model = tiny(clip={"stride": 4, "crops": 1})
    torch.nn.init.constant_(model.head.weight, 3e38)  # what comes of it is no number
    save_pretrained(model, tmp_path / "model")
    options = ["classify", str(video), "--model", str(tmp_path / "model"), "--device", "cpu", "--no-windows"]
    assert main([*options, "--json"]) == 0
    assert main([*options, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()[0]
    (part,) = (tmp_path / "out").glob("part-*.jsonl")
    for line in (printed, part.read_text("utf-8")):
        assert "NaN" not in line
        assert [score["probability"] for score in json.loads(line)["top"]] == [None] * 5


def test_rows_of_a_model_trained_anew_do_not_mix_with_the_old_ones(video: Path, tmp_path: Path, capsys: Output) -> None:
    options = ["classify", str(video), "--model", str(tmp_path / "model"), "--device", "cpu", "--out"]
    model = tiny(clip={"stride": 4, "crops": 1})
    save_pretrained(model, tmp_path / "model")
    assert main([*options, str(tmp_path / "out")]) == 0
    save_pretrained(model, tmp_path / "model")  # again: nothing has changed
    assert main([*options, str(tmp_path / "out")]) == 0
    torch.nn.init.ones_(model.head.bias)
    save_pretrained(model, tmp_path / "model")
    assert main([*options, str(tmp_path / "out")]) == 1
    assert "holds rows of other settings: sha256 of the model '" in capsys.readouterr().err
    assert main([*options, str(tmp_path / "another")]) == 0
    model.clip = {"stride": 2, "crops": 1}
    save_pretrained(model, tmp_path / "model")
    assert main([*options, str(tmp_path / "another")]) == 1


@pytest.fixture
def tree(video: Path, tmp_path: Path) -> Path:
    """Two videos in folders, a text, and an empty folder."""
    for name in ("a.mp4", "deep/er/b.mp4"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        copy(video, tmp_path / "tree" / name)
    (tmp_path / "tree" / "notes.txt").write_text("no video")
    (tmp_path / "tree" / "empty").mkdir()
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("names", "found", "problem"),
    [
        (["{tree}"], ["a.mp4", "deep/er/b.mp4"], ""),
        (["{tree}/**/*.mp4"], ["a.mp4", "deep/er/b.mp4"], ""),
        (["{tree}/?.mp4", "{tree}/deep"], ["a.mp4", "deep/er/b.mp4"], ""),
        (["-"], ["a.mp4", "deep/er/b.mp4"], ""),
        (["{tree}/empty", "{tree}/a.mp4"], ["a.mp4"], "{tree}/empty: no videos in this folder"),
        (["{tree}/*.avi", "{tree}/a.mp4"], ["a.mp4"], "{tree}/*.avi: no file fits this pattern"),
    ],
)
def test_files_folders_patterns_and_lists(
    names: list[str], found: list[str], problem: str, tree: Path, folder: Path, monkeypatch: Any, capsys: Output
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{tree}/a.mp4\n\n{tree}/deep/\n"))
    arguments = ["classify", *(name.format(tree=tree) for name in names), "--model", str(folder), "--device", "cpu"]
    assert main([*arguments, "--json"]) == (1 if problem else 0)
    out, err = capsys.readouterr()
    assert [row["path"] for row in rows_of(out) if "error" not in row] == [str(tree / name) for name in found]
    assert problem.format(tree=tree) in err


def test_interrupted_it_keeps_what_is_done(video: Path, folder: Path, monkeypatch: Any, capsys: Output) -> None:
    def interrupted(model: Any, paths: list[str], *arguments: Any) -> Any:
        if paths == ["second.mp4"]:
            raise KeyboardInterrupt
        return predict(model, paths, *arguments)

    monkeypatch.setattr(classify, "predict", interrupted)
    files = [str(video), "second.mp4", str(video)]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [row["path"] for row in rows_of(out)] == files[:1]
    assert err == "timesformer-zoo classify: interrupted; what it has printed or written is done\n"
