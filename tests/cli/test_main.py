"""The command, run in this process, and once as a process of its own."""

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from small_models import tiny
from videos import real_video

import timesformer_zoo
import timesformer_zoo_cli
from timesformer_zoo import (
    CHECKPOINTS,
    DATASETS,
    PROTOCOLS,
    RECIPES,
    AttentionMode,
    Checkpoint,
    Video,
    label_set,
    predict,
    predict_windows,
    save_pretrained,
    set_labels,
    timeline,
)
from timesformer_zoo.cli import classify
from timesformer_zoo_cli import VERBS, main, parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(clip={"stride": 4, "crops": 1})
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that it is sure of something
    set_labels(model, ["run", "jump", "sit", "stand", "fall"])
    return save_pretrained(model, tmp_path_factory.mktemp("models") / "mine")


Output = pytest.CaptureFixture[str]


def rows_of(out: str) -> list[dict[str, Any]]:
    """What --json prints: an object in a line."""
    return [json.loads(line) for line in out.splitlines()]


# ---- classify, a model that looks once ----


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


# ---- classify, window by window ----


def test_windows_become_a_timeline(video: Path, folder: Path, capsys: Output) -> None:
    windows = list(predict_windows(f"local-dir:{folder}", video, 1, step=0.3))
    segments = timeline(windows)
    options = ["--model", str(folder), "--device", "cpu", "--step", "0.3"]
    assert main(["classify", str(video), *options, "--json"]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    assert row["timeline"] == [segment.to_dict() for segment in segments]
    assert (row["start"], row["end"], row["duration"]) == (0.0, 2.4, 2.4)
    assert row["windows"] == {"count": len(windows), "seconds": pytest.approx(0.52), "every": pytest.approx(0.32)}
    assert sum(entry["share"] for entry in row["summary"]) == pytest.approx(1)
    assert main(["classify", str(video), *options]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.endswith(f"[{len(windows)} windows of 0.5 s from 0:00.0 to 0:02.4 of 0:02.4]")
    assert len(rows) == len(segments)


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


# ---- classify, many files ----


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
    def interrupted(model: Any, path: str, *arguments: Any) -> Any:
        if path == "second.mp4":
            raise KeyboardInterrupt
        return predict(model, path, *arguments)

    monkeypatch.setattr(classify, "predict", interrupted)
    files = [str(video), "second.mp4", str(video)]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [row["path"] for row in rows_of(out)] == files[:1]
    assert err == "timesformer-zoo classify: interrupted; what it has printed or written is done\n"


# ---- wrong use ----


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "VERB"),
        (["clasify"], 2, "invalid choice: 'clasify'"),
        (["classify"], 2, "VIDEO"),
        (["classify", "x.mp4", "--top-k", "many"], 2, "--top-k"),
        (["classify", "{video}", "--model", "timesformer_base_divide"], 2, "Did you mean timesformer_base_divided"),
        (["classify", "{video}", "--model", "facebook/timesformer"], 2, "hf-hub:OWNER/NAME"),
        (["classify", "{video}", "--model", "resnet50"], 2, "There is no model 'resnet50'"),
        (["classify", "{video}", "--model", "timesformer_tiny_joint"], 1, "There are no weights"),
        (["classify", "{video}", "--model", "local-dir:/missing"], 2, "there is no such folder"),
        (["classify", "{video}", "--model", "{folder}", "--device", "abacus"], 2, "--device abacus"),
        (["classify", "{video}", "--model", "{folder}", "--top-k", "0"], 2, "topk is 0"),
        (["classify", "{video}", "--model", "{folder}", "--window", "0"], 2, "window is 0"),
        (["classify", "{video}", "--windows", "--max-windows", "0"], 2, "max_windows is 0"),
        (["classify", "{video}", "--windows", "--clips", "2"], 2, "--clips is for looking once"),
        (["classify", "{video}", "--no-windows", "--step", "2"], 2, "--no-windows and --step contradict"),
        (["list", "nothing-like-it"], 1, "nothing-like-it"),
        (["list", "--task", "ucf101"], 2, "'kinetics400', 'kinetics600'"),
        (["list", "--task", "camera_motion", "--licence", "cc-by-nc-4.0"], 1, "no model for '*' and --task"),
        (["convert", "{folder}", "{folder}", "--to", "native"], 1, "--force"),
        (["convert", "/missing.pth", "/tmp/never", "--to", "native"], 1, "no such file"),
        (["push", "{folder}", "me/mine", "--metric", "accuracy"], 2, "expected NAME=VALUE"),
    ],
)
def test_wrong_use_says_what_is_wrong(
    arguments: list[str], status: int, message: str, video: Path, folder: Path, capsys: Output
) -> None:
    try:
        got = main([argument.format(video=video, folder=folder) for argument in arguments])
    except SystemExit as exit:  # argparse's own
        got = exit.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert (got, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_what_finetune_lacks_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main(["finetune", "videos", "--out", "out"]) == 1
    assert capsys.readouterr().err.endswith("needs accelerate: pip install 'timesformer-zoo[train]'\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "timesformer_zoo_cli", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=120)
    assert err == ""


# ---- list ----


def test_every_checkpoint_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # read by another program, it has all columns
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in CHECKPOINTS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert entry.license in line
        assert ("image ViT, inflated: no video seen" in line) == entry.image
        assert entry.top1 is None or f" {entry.top1} " in line  # as published, to the last digit
        assert f" {entry.num_frames} × {entry.img_size} " in line
        every = "over the whole video" if "sampling" in entry.clip else f"every {entry.clip['stride']}"
        assert f" {every}" in line


def test_a_pattern_is_part_of_a_name_or_has_wildcards(capsys: Output) -> None:
    listed = {}
    for pattern in ("k600", "timesformer_*_divided.k600", "timesformer_base_divided.k600"):
        assert main(["list", pattern, "--json"]) == 0
        listed[pattern] = [row["name"] for row in rows_of(capsys.readouterr().out)]
    names = [f"timesformer_{variant}_divided.k600" for variant in ("base", "hr", "l")]
    assert list(listed.values()) == [names, names, names[:1]]


def test_a_listed_model_is_what_create_model_makes(capsys: Output) -> None:
    assert main(["list", "timesformer_l_divided.ssv2", "--json"]) == 0
    (row,) = rows_of(capsys.readouterr().out)
    with torch.device("meta"):
        model = timm.create_model(row["name"])
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters()) == 121_435_566
    assert (row["mode"], row["num_frames"], row["img_size"]) == ("divided", model.num_frames, model.img_size[0])
    assert (row["license"], row["top1"], row["top5"]) == ("cc-by-nc-4.0", 62.0, 87.5)
    assert row["weights"] == "hf-hub:fcakyon/timesformer-large-finetuned-ssv2"


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (["--mode", "axial"], lambda name, entry: "_axial." in name),
        (["--task", "kinetics600"], lambda name, entry: entry.labels == "kinetics600"),
        (["--task", "none"], lambda name, entry: entry.labels is None),
        (["--licence", "apache-2.0"], lambda name, entry: entry.license == "apache-2.0"),
        (["k400", "--mode", "joint"], lambda name, entry: "_joint." in name and "k400" in name),
    ],
)
def test_filters(options: list[str], fits: Callable[[str, Checkpoint], bool], capsys: Output) -> None:
    assert main(["list", *options, "--json"]) == 0
    names = [row["name"] for row in rows_of(capsys.readouterr().out)]
    assert names == [name for name, entry in CHECKPOINTS.items() if fits(name, entry)]


def test_a_narrow_terminal_gets_what_fits(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name, entry in CHECKPOINTS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert entry.license in line
        assert (" image " in line) == entry.image
    assert lines[-1].startswith("image: an image ViT, inflated: no video seen.")


# ---- the command itself ----


LIGHT = """
import sys
from timesformer_zoo_cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], *([verb, "--help"] for verb in VERBS)])
def test_help_and_wrong_use_import_nothing_that_is_slow(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=True)
    modules = set(done.stderr.split())
    assert "argparse" in modules
    assert not modules & {"timesformer_zoo", "torch", "timm", "numpy", "rich"}


def test_what_is_literal_in_the_command_is_what_the_tables_say() -> None:
    assert {name: entry.about for name, entry in DATASETS.items()} == timesformer_zoo_cli.DATASETS
    assert {name: protocol.about for name, protocol in PROTOCOLS.items()} == timesformer_zoo_cli.PROTOCOLS
    assert list(timesformer_zoo_cli.RECIPES) == list(RECIPES)
    assert list(timesformer_zoo_cli.MODES) == [mode.value for mode in AttentionMode]
    assert set(timesformer_zoo_cli.TASKS) == {entry.labels or "none" for entry in CHECKPOINTS.values()}
    assert set(timesformer_zoo_cli.LICENCES) == {entry.license for entry in CHECKPOINTS.values()}
    assert parse(["classify", "video.mp4"]).model in CHECKPOINTS
    assert parse(["finetune", "videos", "--out", "out"]).model in CHECKPOINTS


def test_each_verb_has_a_module_and_its_example_is_one_that_it_takes() -> None:
    for name, verb in VERBS.items():
        assert callable(import_module(f"timesformer_zoo.cli.{name}").run)
        assert parse([name, *shlex.split(verb.example)]).verb == name


def test_the_version_is_the_packages(capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert (exit.value.code, capsys.readouterr().out) == (0, f"timesformer-zoo {timesformer_zoo.__version__}\n")


def test_a_shell_completes_verbs_options_and_choices(capsys: Output) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as exit:
        main(["--completion", "bash"])
    assert exit.value.code == 0
    script = capsys.readouterr().out
    words = r"""
        COMP_WORDS=(timesformer-zoo list --mode di); COMP_CWORD=3; COMPREPLY=()
        _shtab_timesformer_zoo; echo ${COMPREPLY[@]}
    """
    done = subprocess.run(["bash", "-c", script + words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["divided"]


def test_help_names_every_verb(capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and verb.about in out for name, verb in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: timesformer-zoo {verb}" in out
    assert f"example:\n  timesformer-zoo {verb} {VERBS[verb].example}\n" in out


def test_as_a_process(video: Path, folder: Path) -> None:
    run = [sys.executable, "-m", "timesformer_zoo_cli", "classify", str(video), "--model", str(folder), "--json"]
    result = subprocess.run([*run, "missing.mp4", "--device", "cpu"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "timesformer-zoo classify: missing.mp4: there is no such file; check the path\n"
    assert [row["path"] for row in rows_of(result.stdout)] == [str(video), "missing.mp4"]
