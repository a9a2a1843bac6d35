"""The command, run in this process, and once as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from small_models import tiny
from videos import real_video

from timesformer_zoo import CHECKPOINTS, label_set, predict, predict_windows, save_pretrained, set_labels
from timesformer_zoo.cli.main import VERBS, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(clip={"stride": 4, "crops": 1})
    set_labels(model, ["run", "jump", "sit", "stand", "fall"])
    return save_pretrained(model, tmp_path_factory.mktemp("models") / "mine")


Output = pytest.CaptureFixture[str]


def test_labels_and_probabilities_are_printed(video: Path, folder: Path, capsys: Output) -> None:
    assert main(["classify", str(video), "--model", str(folder), "--top-k", "2", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    path, *rows = out.splitlines()
    assert path == str(video)
    top = predict(f"local-dir:{folder}", video, 2).top
    assert [row.split() for row in rows] == [f"{score.probability:.1%} {score.label}".split() for score in top]
    assert err == ""  # the bar is for terminals


def test_json_is_what_predict_says(video: Path, folder: Path, capsys: Output) -> None:
    options = ["--model", str(folder), "--json", "--clips", "2", "--crops", "3", "--device", "cpu"]
    assert main(["classify", str(video), *options]) == 0
    assert json.loads(capsys.readouterr().out) == [predict(f"local-dir:{folder}", video, 5, 2, 3).to_dict()]


def test_windows(video: Path, folder: Path, capsys: Output) -> None:
    expected = [prediction.to_dict() for prediction in predict_windows(f"local-dir:{folder}", video, 1, step=0.3)]
    assert len(expected) > 2
    options = ["--model", str(folder), "--device", "cpu", "--top-k", "1", "--step", "0.3"]
    assert main(["classify", str(video), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["classify", str(video), *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{video}  0.0-0.5 s"


def test_a_bad_file_is_reported_and_the_rest_done(video: Path, folder: Path, tmp_path: Path, capsys: Output) -> None:
    bad = tmp_path / "bad.mp4"
    bad.touch()
    files = [str(bad), str(video), str(tmp_path / "missing.mp4")]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == str(video)
    assert [line.split(": ")[1] for line in err.splitlines()] == [files[0], files[2]]
    assert main(["classify", *files, "--model", str(folder), "--device", "cpu", "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert [("error" in result, result["path"]) for result in results] == [
        (True, files[0]),
        (False, files[1]),
        (True, files[2]),
    ]


def test_without_a_model_the_embedded_one_is_taken(capsys: Output) -> None:
    assert main(["classify", str(real_video("bikes.mp4")), "--top-k", "10", "--device", "cpu", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert sorted(score["label"] for score in result["top"]) == sorted(label_set("camera_motion"))
    assert sum(score["probability"] for score in result["top"]) == pytest.approx(1, abs=1e-5)


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
        (["list", "nothing-like-it"], 1, "nothing-like-it"),
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


# ---- list ----


def test_every_checkpoint_is_listed(capsys: Output) -> None:
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
        listed[pattern] = [row["name"] for row in json.loads(capsys.readouterr().out)]
    names = [f"timesformer_{variant}_divided.k600" for variant in ("base", "hr", "l")]
    assert list(listed.values()) == [names, names, names[:1]]


def test_a_listed_model_is_what_create_model_makes(capsys: Output) -> None:
    assert main(["list", "timesformer_l_divided.ssv2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    with torch.device("meta"):
        model = timm.create_model(row["name"])
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters()) == 121_435_566
    assert (row["mode"], row["num_frames"], row["img_size"]) == ("divided", model.num_frames, model.img_size[0])
    assert (row["license"], row["top1"], row["top5"]) == ("cc-by-nc-4.0", 62.0, 87.5)
    assert row["weights"] == "hf-hub:fcakyon/timesformer-large-finetuned-ssv2"


# ---- the command itself ----


def test_help_names_every_verb(capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and about in out for name, about in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    assert f"usage: timesformer-zoo {verb}" in capsys.readouterr().out


def test_as_a_process(video: Path, folder: Path) -> None:
    run = [sys.executable, "-m", "timesformer_zoo.cli.main", "classify", str(video), "--model", str(folder), "--json"]
    result = subprocess.run([*run, "missing.mp4", "--device", "cpu"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "timesformer-zoo classify: missing.mp4: there is no such file; check the path\n"
    assert [row["path"] for row in json.loads(result.stdout)] == [str(video), "missing.mp4"]
