"""The README's path, from a folder of videos to a model that loads elsewhere, and the examples, on real footage."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest
import torch
from footage import FILMS, films_by_class, pieces, write
from hub_server import HubServer
from safetensors.torch import load_file
from videos import real_video

from timesformer_zoo import TimeSformer, load_model, load_views, predict, save_pretrained
from timesformer_zoo_cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder per film, five pieces of each: four to train on, one held out."""
    return films_by_class(tmp_path_factory.mktemp("films"), 5)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small model with weights to start from, and other classes."""
    torch.manual_seed(0)
    sizes = dict(img_size=32, num_frames=4, embed_dim=48, depth=2, num_heads=2, num_classes=2)
    model = TimeSformer(clip={"stride": 2, "crops": 2, "flip": False}, **sizes)
    return save_pretrained(model, tmp_path_factory.mktemp("start"), labels=["yes", "no"])


def run_script(name: str, *arguments: object) -> None:
    script = EXAMPLES / name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        patch.syspath_prepend(str(EXAMPLES))
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as done:
            assert done.code == 0  # noqa: PT017


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's, when it uploads
def test_from_a_folder_of_videos_to_a_model_elsewhere(films, start, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    settings = ["--epochs", "3", "--batch-size", "6", "--lr", "2e-3", "--warmup", "0", "--repeats", "1"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a bar on stderr, as on a terminal; a program reads stdout
    assert (
        main(
            [
                "finetune",
                str(films),
                "--model",
                str(start),
                "--out",
                str(out),
                "--workers",
                "0",
                "--json",
                *settings,
            ]
        )
        == 0
    )
    monkeypatch.delenv("FORCE_COLOR")
    printed = capsys.readouterr()
    assert "12 videos in 3 classes, 12 found" in printed.err
    *epochs, said = map(json.loads, printed.out.splitlines())
    assert epochs == json.loads((out / "history.json").read_text())
    assert all({"epoch", "loss", "lr", "top1", "top5", "mean_class_accuracy"} <= epoch.keys() for epoch in epochs)
    assert len(epochs) == 3

    model = out / "model"
    assert main(["evaluate", str(model), str(films), "--out", str(out / "test"), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / "test" / "results.json").read_text())
    assert results == json.loads((out / "results.json").read_text())  # what fine-tuning said at its end
    scores = {"accuracy": results["top1"], "mean_class_accuracy": results["mean_class_accuracy"]}
    assert said == {"model": str(model), **scores, "skipped": {}}
    assert (results["count"], results["crops"], results["classes"]) == (3, 2, list(FILMS))
    assert f"top-1 {results['top1']:.2%}" in printed
    assert (out / "test" / "confusion.png").exists()

    video = films / "bikes" / "bikes_00.mp4"
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "home", token="hf_me")
        assert main(["push", str(model), "me/films"]) == 0
        # Elsewhere: another process, with nothing but the name.
        code = (
            "import json, sys, timm, torch, timesformer_zoo\n"
            "from timesformer_zoo import predict\n"
            "from timesformer_zoo import load_views\n"
            "model = timm.create_model('hf-hub:me/films', pretrained=True).eval()\n"
            "torch.set_num_threads(1)\n"
            "logits = model(load_views(sys.argv[1], model))\n"
            "print(json.dumps([logits.tolist(), predict(model, sys.argv[1]).to_dict()]))\n"
        )
        command = [sys.executable, "-c", code, str(video)]
        done = subprocess.run(command, env=hub.env(tmp_path / "elsewhere"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logits, prediction = json.loads(done.stdout)
    here = load_model(model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        assert logits == here(load_views(video, here)).tolist()
    assert prediction == predict(here, video).to_dict()
    torch.set_num_threads(threads)
    assert {score["label"] for score in prediction["top"]} == set(FILMS)


def test_scripts_for_launchers(films, start, tmp_path, capsys):
    run_script("finetune.py", films, "--model", start, "--out", tmp_path, "--workers", 0, "--epochs", 1)
    run_script("evaluate.py", tmp_path / "model", films, "--protocol", "paper", "--workers", 0)
    assert "paper protocol" in capsys.readouterr().out


def test_finetune_options(films, start, tmp_path):
    options = [
        "--num-frames",
        "8",
        "--img-size",
        "48",
        "--clip",
        "sampling=uniform",
        "flip=true",
        "--track",
        "tensorboard",
    ]
    options += [
        "--recipe",
        "paper",
        "--epochs",
        "1",
        "--lr",
        "1e-4",
        "--amp",
        "bf16",
        "--grad-checkpointing",
        "--val",
        "none",
    ]
    assert (
        main(["finetune", str(films), "--model", str(start), "--out", str(tmp_path), "--workers", "0", *options]) == 0
    )
    model = load_model(tmp_path / "model")
    assert (model.num_frames, model.img_size) == (8, (48, 48))
    assert model.clip == {"stride": 2, "crops": 2, "flip": True, "sampling": "uniform"}
    assert list((tmp_path / "tensorboard").rglob("events.*"))
    assert not (tmp_path / "results.json").exists()


def test_unreadable_videos_stop_the_verb_or_are_listed(start, tmp_path, capsys):
    films = tmp_path / "films"
    for film in FILMS[:2]:
        first, second = pieces(film, 2)
        write(films / "train" / film / "0.mp4", first)
        write(films / "val" / film / "1.mp4", second)
        for split in ("train", "val"):
            (films / split / film / f"broken_{split}.mp4").write_bytes(b"no video")
    arguments = ["finetune", str(films), "--model", str(start), "--workers", "0", "--epochs", "1", "--repeats", "1"]
    assert main([*arguments, "--out", str(tmp_path / "fail")]) == 1
    assert "broken_train.mp4" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "skip"), "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    for film in FILMS[:2]:
        for split in ("train", "val"):
            assert f"skipped: {films / split / film / f'broken_{split}.mp4'}" in printed
    assert "of 2 videos" in printed


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("script", ["plain_pytorch.py", "lightning_finetune.py", "transformers_trainer.py"])
def test_in_other_peoples_code(script, films, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_script(script, films, "--model", f"local-dir:{start}", "--epochs", 1, "--workers", 0, "--out", tmp_path / "out")
    before = load_file(start / "model.safetensors")
    model = load_model(tmp_path / "out")
    assert not torch.equal(model.state_dict()["patch_embed.proj.weight"], before["patch_embed.proj.weight"])
    assert predict(model, films / "bikes" / "bikes_00.mp4").top[0].label in FILMS


def test_neighbours_tell_the_film(films, start, tmp_path, capsys):
    """Pieces of three films, of which the held-out ones are asked about; copies of a file are found."""
    folder = tmp_path / "videos"
    for path in sorted(films.rglob("*.mp4")):
        split = "val" if path.stem.endswith("_04") else "train"
        (folder / split / path.parent.name).mkdir(parents=True, exist_ok=True)
        copy(path, folder / split / path.parent.name / path.name)
    run_script("knn.py", folder, "--library", tmp_path / "knn", "--model", start, "--k", 1)
    right, *rest = capsys.readouterr().out.split("%")
    assert float(right) >= 66  # of 3, two
    assert rest == [" of 3 right; 1 neighbours of 12, 3 classes\n"]
    copy(films / "bikes" / "bikes_00.mp4", folder / "copy.mp4")
    options = ["--model", start, "--least", "0.9999"]
    run_script("near_duplicates.py", folder, "--library", tmp_path / "pairs", *options)
    pairs = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [(similarity, {Path(a).name, Path(b).name}) for similarity, a, b in pairs] == [
        ("1.000", {"copy.mp4", "bikes_00.mp4"})
    ]


def test_small_data_runs(start, tmp_path):
    arguments = [*(real_video(f"{film}.mp4") for film in FILMS), "--out", tmp_path, "--model", f"local-dir:{start}"]
    choices = ["--rates", "1e-4", "1e-3", "--seeds", "0", "1"]
    run_script("small_data.py", *arguments, *choices, "--train-clips", 2, "--test-clips", 1, "--epochs", 1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"fine-tuned", "from scratch"}
    for result in results.values():
        assert result["validation"][f"{result['rate']}"] == max(result["validation"].values())
        assert len(result["test"]) == 2
        assert result["mean"] == pytest.approx(sum(result["test"]) / 2)
    assert (tmp_path / "curve.png").exists()
