"""The command, run in this process, and once as a process of its own."""

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest

import timesformer_zoo
from timesformer_zoo import (
    CHECKPOINTS,
    DATASETS,
    ENGINES,
    EXPLANATIONS,
    INDEXES,
    OBJECTIVES,
    PROTOCOLS,
    TASKS,
    AttentionMode,
)
from timesformer_zoo.cli.common import data_in_words
from timesformer_zoo.explanation.save import FORMATS
from timesformer_zoo.retrieval.embedding import DTYPES
from timesformer_zoo.retrieval.encoder import PER
from timesformer_zoo_cli import VERBS, choices, main, parse

Output = pytest.CaptureFixture[str]


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
        (["classify", "{video}", "--model", "{folder}", "--device", "abacus"], 2, "device abacus"),
        (["classify", "{video}", "--model", "{folder}", "--device", "meta"], 2, "device meta: can't be used ("),
        (["classify", "{video}", "--model", "{folder}", "--top-k", "0"], 2, "topk is 0"),
        (["classify", "{video}", "--model", "{folder}", "--window", "0"], 2, "window is 0"),
        (["classify", "{video}", "--windows", "--max-windows", "0"], 2, "max_windows is 0"),
        (["classify", "{video}", "--windows", "--clips", "2"], 2, "--clips is for looking once"),
        (["classify", "{video}", "--no-windows", "--step", "2"], 2, "--no-windows and --step contradict"),
        (["classify", "{video}", "--workers", "2"], 2, "--workers is of a cluster: give --engine ray, too"),
        (["classify", "{video}", "--engine", "ray", "--workers", "0"], 2, "workers is 0"),
        (["classify", "{video}", "--engine", "ray", "--address", "ray://head:10001"], 2, "with address auto"),
        (["classify", "{video}", "--retry-errors"], 2, "give it by --out"),
        (["embed", "{video}"], 2, "-o/--out"),
        (["embed", "{video}", "-o", "/tmp/never", "--per", "frame"], 2, "--per"),
        (
            ["embed", "{video}", "-o", "/tmp/never", "--per", "clip", "--step", "2"],
            2,
            "step is 2.0, which has no meaning",
        ),
        (["embed", "{video}", "-o", "/tmp/never", "--workers", "2"], 2, "--workers is of a cluster"),
        (["embed", "{video}", "-o", "/tmp/never", "--model", "resnet50"], 2, "There is no model 'resnet50'"),
        (["embed", "{video}", "-o", "{video}", "--model", "{folder}"], 1, "{video}"),
        (["search", "{folder}", "{video}"], 1, "there is no library (no library.json); make one by embed"),
        (["search", "{video}", "{video}"], 1, "this is a file, expected the folder of a library"),
        (["list", "nothing-like-it"], 1, "nothing-like-it"),
        (["list", "--labels", "ucf101"], 2, "'kinetics400', 'kinetics600'"),
        (["list", "--labels", "camera_motion", "--licence", "cc-by-nc-4.0"], 1, "no model for '*' and --labels"),
        (["convert", "{folder}", "{folder}", "--to", "native"], 1, "--force"),
        (["convert", "/missing.pth", "/tmp/never", "--to", "native"], 1, "no such file"),
        (["push", "{folder}", "me/mine", "--metric", "accuracy"], 2, "expected NAME=VALUE"),
        (["push", "{folder}", "me/mine", "--metric", "=0.5"], 2, "--metric =0.5: expected NAME=VALUE"),
        (["push", "{folder}", "me/mine", "--metric", "accuracy=nan"], 2, "expected NAME=VALUE with a number"),
        (["finetune", "/missing", "--out", "{out}"], 1, "/missing: no such folder"),
        (["push", "{folder}", "me/mine", "--example", "/missing.mp4"], 1, "/missing.mp4: there is no such file"),
    ],
)
def test_wrong_use_says_what_is_wrong(
    arguments: list[str], status: int, message: str, video: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    try:
        got = main([argument.format(video=video, folder=folder, out=tmp_path / "out") for argument in arguments])
    except SystemExit as exit:  # argparse's own
        got = exit.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert (got, out) == (status, "")
    assert message.format(video=video) in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_what_finetune_lacks_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main(["finetune", "videos", "--out", "out"]) == 1
    assert capsys.readouterr().err.endswith("needs accelerate: pip install 'timesformer-zoo[train]'\n")


def test_what_a_cluster_lacks_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["classify", "video.mp4", "--engine", "ray"]) == 1
    assert capsys.readouterr().err.endswith("needs ray: pip install 'timesformer-zoo[cluster]'\n")


def test_a_card_calls_data_by_their_folder_and_by_nothing_secret() -> None:
    login = "https://me:hunter2@host"
    for videos, name in {"/data/clips/": "clips", "hf://data/clips": "clips", f"{login}/clips?a=b/c": "clips"}.items():
        assert data_in_words(Namespace(videos=videos, data="list")) == f"{name} (list)"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "timesformer_zoo_cli", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=120)
    assert err == ""


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
    assert {name: entry.about for name, entry in DATASETS.items()} == choices.DATASETS
    assert tuple(ENGINES) == choices.ENGINES
    assert tuple(EXPLANATIONS) == choices.EXPLANATIONS
    assert [f".{name}" for name in choices.FORMATS] == list(FORMATS)
    assert tuple(INDEXES) == choices.INDEXES
    assert tuple(PER) == choices.PER
    assert tuple(DTYPES) == choices.DTYPES
    assert {name: protocol.about for name, protocol in PROTOCOLS.items()} == choices.PROTOCOLS
    assert list(choices.TASKS) == list(TASKS) == list(OBJECTIVES)
    assert list(choices.MODES) == [mode.value for mode in AttentionMode]
    assert set(choices.LABELS) == {entry.labels or "none" for entry in CHECKPOINTS.values()}
    assert set(choices.LICENCES) == {entry.license for entry in CHECKPOINTS.values()}
    assert parse(["classify", "video.mp4"]).model in CHECKPOINTS
    assert parse(["finetune", "videos", "--out", "out"]).model in CHECKPOINTS


def test_each_verb_has_a_module_and_its_example_is_one_that_it_takes() -> None:
    for name, verb in VERBS.items():
        assert callable(import_module(f"timesformer_zoo.cli.{name}").run)
        assert parse([name, *shlex.split(verb.example)]).verb == name


def test_as_many_workers_as_there_are_cores_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns of more, at every epoch."""
    for cores, workers in {1: 1, 2: 2, 64: 4}.items():
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert parse(["finetune", "videos", "--out", "run"]).workers == workers
        assert parse(["evaluate", "model", "videos"]).workers == workers


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
    assert [row["path"] for row in map(json.loads, result.stdout.splitlines())] == [str(video), "missing.mp4"]
