"""`timesformer-zoo finetune`: the options of a recipe, and what is asked instead of a training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from footage import films_by_class
from safetensors.torch import load_file

from timesformer_zoo import RECIPES, Recipe
from timesformer_zoo_cli import PACKAGES, main, parse

Output = pytest.CaptureFixture[str]
Finetune = Callable[..., int]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films_by_class(tmp_path_factory.mktemp("films"), 3)


@pytest.fixture
def finetune(films: Path, tmp_path: Path) -> Finetune:
    size = "--scratch --model timesformer_tiny_divided --img-size 32 --num-frames 4 --workers 0".split()  # noqa: SIM905

    def run(*options: str) -> int:
        arguments = ["finetune", str(films), "--out", str(tmp_path / "out"), *size, *options]
        try:
            return main(arguments)
        except SystemExit as exit:
            return int(exit.code or 0)

    return run


# ---- options of a recipe ----


def test_every_value_of_a_recipe_is_an_option_that_takes_what_help_shows(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split()).replace("small- data", "small-data")  # its lines are wrapped
    assert [name for name in vars(parse(["finetune", "v", "--out", "o"])) if name in Recipe().to_dict()] == []
    for name, recipe in RECIPES.items():
        options, shown = ["finetune", "v", "--out", "o"], {}
        for field, value in recipe.to_dict().items():
            option = f"--{field.replace('_', '-')}"
            assert f" {option} " in text or f" {option}, " in text
            if field == "balanced_sampling":
                options.append(option if value else "--no-balanced-sampling")
                continue
            shown[field] = (
                "none" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
            )
            options += [option, shown[field]]
            assert f"{name}: {shown[field]}" in text or f"default: {shown[field]})" in text
        args = parse(options)
        assert Recipe(**{field: getattr(args, field) for field in recipe.to_dict()}) == recipe


def test_options_of_the_layers_that_are_frozen() -> None:
    given = parse(["finetune", "v", "--out", "o", "--freeze", "4"])
    assert given.freeze == "4"
    assert parse(["finetune", "v", "--out", "o", "--head-only"]).freeze == "backbone"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--lr", "nan"], "Recipe.lr is nan, expected 0 or more"),
        (["--patience", "2"], "Recipe.best is 'last', expected a metric"),
        (["--best", "top7"], "Recipe.best is 'top7'; expected last, loss or top1"),
        (["--probe", "--lr", "1"], "--lr has no effect on --probe, which looks at --class-weights"),
        (["--probe", "--track", "tensorboard"], "--track has no effect on --probe"),
        (["--probe", "--dry-run"], "not allowed with argument"),
        (["--track", "diary"], "knows no tracker 'diary'; it knows"),
    ],
)
def test_wrong_options(finetune: Finetune, options: list[str], message: str, capsys: Output) -> None:
    assert finetune(*options) == 2
    assert message in capsys.readouterr().err


def test_a_loss_that_is_no_number_is_said_in_one_line(finetune: Finetune, capsys: Output) -> None:
    assert finetune("--lr", "1e30", "--warmup", "0", "--epochs", "1", "--clip-grad", "none", "--batch-size", "1") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("timesformer-zoo finetune: The loss at step ")
    assert last.endswith(": try a lower learning rate.")


def test_class_weights_from_a_file(finetune: Finetune, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "weights.json"
    for text, message in {
        "[1, 2": "no JSON",
        '{"bikes": 1}': "expected a weight for each of the 3 classes; 'bigbuckbunny' differs",
        '["a", 1, 2]': "all of them numbers",
        "[1, 2]": "class_weights has 2 numbers",
    }.items():
        file.write_text(text)
        assert finetune("--class-weights", str(file), "--epochs", "1") == 2
        assert message in capsys.readouterr().err
    assert finetune("--class-weights", str(tmp_path / "missing.json")) == 1
    out = tmp_path / "out" / "checkpoints"
    file.write_text('{"carphone_pristine": 0.5, "bikes": 2, "bigbuckbunny": 1}')
    assert finetune("--class-weights", str(file), "--epochs", "1", "--val", "none", "--ema", "none") == 0
    assert out.exists()
    file.write_text("[1, 2.0, 0.5]")  # the same, by index: there is nothing left to do
    assert finetune("--class-weights", str(file), "--epochs", "1", "--val", "none", "--ema", "none") == 0
    assert "nothing to train" in capsys.readouterr().err


def test_the_best_epoch_is_the_model(finetune: Finetune, tmp_path: Path, capsys: Output) -> None:
    assert finetune("--epochs", "2", "--warmup", "0", "--best", "top1", "--head-only") == 0
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    best = max(history, key=lambda entry: entry["top1"])
    said = capsys.readouterr().out
    assert f"model of epoch {best['epoch']}, the best by top1 ({best['top1']:.4g}), in " in said
    kept = next((tmp_path / "out" / "checkpoints").glob("best-*"))
    model = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert all(torch.equal(value, model[name]) for name, value in load_file(kept).items())


# ---- instead of a training ----


def test_a_dry_run_leaves_nothing(finetune: Finetune, tmp_path: Path, capsys: Output) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert finetune("--dry-run", "--track", "tensorboard", "--epochs", "2", "--json") == 0
    assert sorted(tmp_path.rglob("*")) == before
    printed = capsys.readouterr()
    planned = json.loads(printed.out)
    assert planned["steps"] == 2
    assert "trains: 2,2" in printed.err
    assert "takes about " in printed.err


def test_a_learning_rate_is_suggested(
    finetune: Finetune, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timesformer_zoo import find_lr

    monkeypatch.setitem(find_lr.__kwdefaults__, "steps", 4)  # type: ignore[arg-type]
    assert finetune("--find-lr") == 0
    said = capsys.readouterr().out
    assert "learning rate " in said
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["learning_rate.png"]


def test_a_probe_is_a_model_like_any_other(finetune: Finetune, tmp_path: Path, films: Path, capsys: Output) -> None:
    assert finetune("--probe", "--repeats", "1", "--json") == 0
    card = (tmp_path / "out" / "model" / "README.md").read_text("utf-8")
    assert "linear probe" in card
    assert "epochs" not in card  # of a recipe that was not followed
    out = tmp_path / "out"
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = json.loads((out / "results.json").read_text())
    assert said[-1]["accuracy"] == results["top1"]
    assert main(["evaluate", str(out / "model"), str(films), "--out", str(tmp_path / "again"), "--workers", "0"]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text()) == results
    assert any(entry.get("chosen") for entry in json.loads((out / "history.json").read_text()))


# ---- trackers ----


def test_tensorboard_has_the_losses_and_scores(finetune: Finetune, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert finetune("--track", "tensorboard", "--epochs", "2", "--batch-size", "3", "--warmup", "0") == 0
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "timesformer-zoo"))
    events.Reload()
    values: dict[str, list[Any]] = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    assert [event.step for event in values["loss"]] == [1, 2, 3, 4]
    assert [event.step for event in values["top1"]] == [2, 4]
    assert [event.value for event in values["top1"]] == pytest.approx([entry["top1"] for entry in history])
    assert [event.value for event in values["epoch_loss"]] == pytest.approx([entry["loss"] for entry in history])
    assert list((tmp_path / "out" / "tensorboard").rglob("hparams.yml"))


def test_a_tracker_that_is_not_installed_is_named(
    finetune: Finetune, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("accelerate.tracking")
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    for name, package in {"wandb": "wandb", "comet_ml": "comet-ml", "tensorboard": "'timesformer-zoo[train]'"}.items():
        assert finetune("--track", name) == 1
        said = capsys.readouterr().err
        assert said == f"timesformer-zoo finetune: it needs {name}: pip install {package}\n"
    assert set(tracking.LOGGER_TYPE_TO_CLASS) <= set(PACKAGES)
