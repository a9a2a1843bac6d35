"""`timesformer-zoo list`, run in this process."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch

from timesformer_zoo import CHECKPOINTS, Checkpoint
from timesformer_zoo_cli import main

Output = pytest.CaptureFixture[str]


def rows_of(out: str) -> list[dict[str, Any]]:
    """What --json prints: an object in a line."""
    return [json.loads(line) for line in out.splitlines()]


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
        (["--labels", "kinetics600"], lambda name, entry: entry.labels == "kinetics600"),
        (["--labels", "none"], lambda name, entry: entry.labels is None),
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
