"""Labels and values from the list to the saved model: losses, runs over one and two processes, what is then said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from footage import write
from ranks import join, launch
from safetensors.torch import load_file
from torch.nn import functional as F

from timesformer_zoo import (
    OBJECTIVES,
    TimeSformer,
    VideoList,
    clip_spec,
    evaluate,
    finetune,
    load_model,
    predict,
    predict_windows,
    probe,
    read_videos,
    save_pretrained,
    segments,
    to_transformers,
)
from timesformer_zoo.train.objective import Scale
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo_cli import main

COLOURS = {"red": 0, "green": 1, "blue": 2}
RECIPE = Recipe(epochs=8, batch_size=4, lr=3e-3, optimizer="adamw", drop_path=0.0)


def small(seed=0, classes=3, **options):
    torch.manual_seed(seed)
    clip = dict(stride=2, fps=None, crops=1, **options)
    return TimeSformer(clip=clip, img_size=32, num_frames=4, num_classes=classes, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Films of one colour with two lists: which of red, green and blue are in it, and how much of red and of blue."""
    root = tmp_path_factory.mktemp("colours")
    labels, values = ["path,colours"], ["path,redness (%),blueness"]
    for number in range(8):
        there = [name for name, bit in COLOURS.items() if number >> bit & 1]
        colour = torch.tensor([200 if name in there else 30 for name in COLOURS]) + number
        write(root / f"{number:02}.mp4", colour.to(torch.uint8).expand(10, 32, 32, 3))
        labels.append(f"{number:02}.mp4,{';'.join(there)}")
        values.append(f"{number:02}.mp4,{float(colour[0]) * 1000 + 5e5},{float(colour[2]) / 255}")
    (root / "labels").mkdir()
    (root / "values").mkdir()
    save_pretrained(small(classes=5), root / "start")
    for split in ("train", "val"):
        (root / "labels" / f"{split}.csv").write_text("\n".join(labels).replace("colours", "label"))
        (root / "values" / f"{split}.csv").write_text("\n".join(values))
    return root


def read(root: Path, kind: str, split: str = "train") -> VideoList:
    task = {"labels": "multilabel", "values": "regression"}[kind]
    return read_videos("list", root, split, annotations=root / kind, task=task)


# ---- losses ----


def test_losses_are_sums_over_the_clips_of_what_they_are_called():
    torch.manual_seed(0)
    outputs, weight = torch.randn(5, 3), torch.tensor([0.5, 1.0, 2.0])
    classes, labels, values = torch.tensor([0, 2, 1, 1, 0]), (torch.rand(5, 3) > 0.5).float(), torch.randn(5, 3)
    loss = OBJECTIVES["classes"].loss
    each = -outputs.log_softmax(1)
    torch.testing.assert_close(loss(outputs, classes), each[range(5), classes].sum())
    torch.testing.assert_close(loss(outputs, classes, weight=weight), (each[range(5), classes] * weight[classes]).sum())
    torch.testing.assert_close(loss(outputs, F.one_hot(classes).float(), 0.3), loss(outputs, classes, 0.3))
    smooth = F.one_hot(classes) * 0.7 + 0.1
    torch.testing.assert_close(loss(outputs, classes, 0.3), (each * smooth).sum())
    loss = OBJECTIVES["multilabel"].loss
    there, absent = -outputs.sigmoid().log(), -(1 - outputs.sigmoid()).log()
    torch.testing.assert_close(loss(outputs, labels), (labels * there + (1 - labels) * absent).sum() / 3)
    weighted = labels * weight * there + (1 - labels) * absent
    torch.testing.assert_close(loss(outputs, labels, weight=weight), weighted.sum() / 3)
    torch.testing.assert_close(loss(outputs, labels, 1.0), (there + absent).sum() / 6)
    loss = OBJECTIVES["regression"].loss
    far = (outputs - values).abs()
    torch.testing.assert_close(loss(outputs, values), torch.where(far < 1, far**2 / 2, far - 0.5).sum() / 3)
    with pytest.raises(ValueError, match="weights are for classes and labels"):
        loss(outputs, values, weight=weight)


def test_a_scale_is_taken_into_the_head_and_out_of_it():
    values = torch.tensor([[1000.0, 0.1, 7.0], [3000.0, 0.3, 7.0]])
    scale = Scale.of(values)
    assert scale.std.tolist() == pytest.approx([1000, 0.1, 1])  # of equal values there is none
    torch.testing.assert_close(scale.standardise(values), torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]))
    model, clip = small(), torch.randn(2, 3, 4, 32, 32)
    model.eval()
    with torch.no_grad():
        standard = model(clip)
        with scale.outputs_in_units(model):
            hooked = model(clip)
        scale.head_to_units(model.head)
        folded = model(clip)
        torch.testing.assert_close(folded, scale.to_units(standard))
        assert hooked.dtype == torch.float64
        torch.testing.assert_close(folded, hooked.float())
        scale.head_to_standard(model.head)
        torch.testing.assert_close(model(clip), standard, atol=1e-4, rtol=0)


# ---- runs ----


def test_learns_labels(root, tmp_path):
    videos = read(root, "labels")
    done = finetune(small(), videos, RECIPE, tmp_path, val=videos, progress=False)
    first, last = done.history[0], done.history[-1]
    assert {"mAP", "macro_f1", "micro_f1", "exact"} <= last.keys()
    assert last["mAP"] > 0.9 > first["mAP"] or last["mAP"] == 1
    assert last["loss"] < first["loss"]
    saved = save_pretrained(done.model, tmp_path / "model", labels=videos.classes)
    model = load_model(saved)
    assert clip_spec(model).task == "multilabel"
    result = evaluate(model, videos, progress=False)
    assert result.metrics == pytest.approx({name: last[name] for name in result.metrics})
    assert result.top1 is None
    said = predict(model, videos.samples[7].path, topk=1)  # red, green and blue
    assert said.labels == tuple(score.label for score in said.top)
    assert set(said.labels) == {"red", "green", "blue"}
    assert sum(score.probability for score in said.top) > 1.5
    assert predict(model, videos.samples[0].path).labels == ()
    assert not said.unclear
    assert to_transformers(model, videos.classes)[0]["problem_type"] == "multi_label_classification"


def test_learns_values_in_their_units(root, tmp_path):
    videos = read(root, "values")
    done = finetune(small(classes=2), videos, RECIPE, tmp_path, val=videos, progress=False)
    history = [entry["mae"] for entry in done.history]
    assert history[-1] < history[0] / 2
    assert done.history[-1]["r2"] > 0.7
    saved = save_pretrained(done.model, tmp_path / "model", labels=videos.classes)
    model = load_model(saved)
    result = evaluate(model, videos, progress=False)
    assert result.metrics["mae"] == pytest.approx(history[-1], rel=1e-4)
    values = predict(model, videos.samples[1].path).values
    assert list(values) == ["redness (%)", "blueness"]
    assert 5e5 < values["redness (%)"] < 8e5
    assert values == pytest.approx(result.videos[1].prediction.values)
    assert result.per_class["blueness"]["mae"] < 0.2
    # Trained further, it starts from what it knows: the first epoch is no worse than where it was, whatever the scale.
    frozen = Recipe(epochs=1, batch_size=4, lr=0.0, drop_path=0.0)
    again = finetune(load_model(saved), videos, frozen, tmp_path / "again", val=videos, progress=False)
    assert again.history[0]["mae"] == pytest.approx(history[-1], rel=1e-3)
    torch.testing.assert_close(again.model.head.weight, model.head.weight)
    # Asked again, there is nothing left to do, and the result is the same.
    done_again = finetune(small(classes=2), videos, RECIPE, tmp_path, val=videos, progress=False)
    torch.testing.assert_close(done_again.model.state_dict(), done.model.state_dict())


@pytest.mark.parametrize("options", [{"mixed_precision": "bf16"}, {"dynamo_backend": "eager"}], ids=str)
def test_values_are_judged_in_their_units_however_the_model_runs(root, tmp_path, options):
    videos = read(root, "values")
    # Of 100,000 ± 1 nothing would be left in half precision.
    far = replace(videos, samples=tuple(s._replace(target=(1e5 + s.target[1], s.target[1])) for s in videos.samples))
    recipe = replace(RECIPE, epochs=1, best="mae")
    done = finetune(
        small(classes=2), far, recipe, tmp_path, val=far, accelerator=Accelerator(**options), progress=False
    )
    mae = evaluate(done.model, far, progress=False).metrics["mae"]
    assert done.history[0]["mae"] == pytest.approx(mae, rel=0.05)


def test_an_epoch_without_a_correlation_is_not_the_best(root, tmp_path):
    videos = read(root, "values")
    same = replace(videos, samples=tuple(s._replace(target=(1.0, 2.0)) for s in videos.samples))
    recipe = replace(RECIPE, epochs=1, best="pearson")
    done = finetune(small(classes=2), videos, recipe, tmp_path, val=same, progress=False)
    assert done.history[0]["pearson"] is None
    assert done.best is None


@pytest.mark.parametrize("extra", [{"ema": 0.5}, {"mixup": 0.5}, {"cutmix": 1.0, "label_smoothing": 0.1}])
@pytest.mark.parametrize("kind", ["labels", "values"])
def test_recipes_go_with_every_kind_of_target(root, tmp_path, kind, extra):
    videos = read(root, kind)
    recipe = Recipe(**{**RECIPE.to_dict(), "epochs": 1, **extra})
    done = finetune(small(classes=len(videos.classes)), videos, recipe, tmp_path, val=videos, progress=False)
    metric = OBJECTIVES[videos.task].best
    score = evaluate(done.model, videos, progress=False).metrics[metric]
    assert score == pytest.approx(done.history[-1][metric], rel=1e-4)


def test_a_model_of_another_kind_is_refused(root):
    with pytest.raises(
        ValueError, match=r'The model is for classes .* of kind \'multilabel\': read them with task="cl'
    ):
        evaluate(small(), read(root, "labels"), progress=False)


def test_validation_of_another_kind_is_refused_before_training(root, tmp_path):
    with pytest.raises(
        ValueError, match=r"val has 2 values .* expected the 3 labels of the videos: read it with labels="
    ):
        finetune(small(), read(root, "labels"), RECIPE, tmp_path, val=read(root, "values"), progress=False)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("labels", {"balanced_sampling": True}, "balanced_sampling needs one class for each video; these have labels"),
        ("values", {"balanced_sampling": True}, "balanced_sampling needs one class for each video; these have values"),
        ("labels", {"class_weights": "balanced"}, "videos have labels; expected weights of your own"),
        ("values", {"class_weights": (1.0, 2.0)}, "videos have values; expected no class_weights"),
        (
            "labels",
            {"best": "top1"},
            "best is 'top1'; expected last, loss or mAP or macro_precision or .* or exact, which labels have",
        ),
    ],
)
def test_what_needs_classes_says_so(root, tmp_path, kind, changes, says):
    videos = read(root, kind)
    recipe = replace(RECIPE, **changes)
    with pytest.raises(ValueError, match=says):
        finetune(small(classes=len(videos.classes)), videos, recipe, tmp_path, val=videos, progress=False)


def test_a_probe_needs_classes(root, tmp_path):
    with pytest.raises(ValueError, match="a probe needs one class for each video; these have labels"):
        probe(small(), read(root, "labels"), RECIPE, tmp_path, progress=False)


@pytest.mark.parametrize("balanced", [None, (1.0, 2.0, 3.0)])
def test_the_best_epoch_of_labels_and_their_weights(root, tmp_path, balanced):
    videos = read(root, "labels")
    recipe = replace(RECIPE, epochs=2, best="mAP", class_weights=balanced, ema=0.9)
    done = finetune(small(), videos, recipe, tmp_path, val=videos, progress=False)
    assert done.best["value"] == max(entry["mAP"] for entry in done.history)
    score = evaluate(done.model, videos, progress=False).metrics["mAP"]
    assert score == pytest.approx(done.best["value"], rel=1e-6)


def test_windows_of_labels_overlap_and_values_have_none(root):
    model = small(task="multilabel")
    path = read(root, "labels").samples[3].path
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([2.0, -2.0, 1.0]))
    windows = list(predict_windows(model, path, topk=1))
    assert [segment.label for segment in segments(windows)] == ["class 0", "class 2"]
    assert {(s.start, s.end) for s in segments(windows)} == {(windows[0].start, windows[-1].end)}
    model.clip["task"] = "regression"
    with pytest.raises(ValueError, match="a regression has values and no segments"):
        segments(predict_windows(model, path))


# ---- the command, over one and two processes ----

# Plain SGD: Adam divides gradients by their size, also those that are nothing but rounding.
ARGUMENTS = "--data list --workers 0 --recipe paper --epochs 2 --batch-size 4 --lr 0.02 --drop-path 0"


def train(root, kind, task, out):
    arguments = ["finetune", str(root), "--annotations", str(root / kind), "--task", task, "--out", str(out)]
    arguments += ["--model", str(root / "start")]
    torch.manual_seed(0)  # of the new head
    assert main([*arguments, *ARGUMENTS.split()]) == 0


@pytest.mark.parametrize(
    ("kind", "task", "metric", "name", "said"),
    [
        ("labels", "multilabel", "mAP", "mean_average_precision", "mAP "),
        ("values", "regression", "mae", "mae", "mean absolute error "),
    ],
)
def test_from_a_list_to_a_model_that_says_it(root, tmp_path, capsys, kind, task, metric, name, said):
    one, two = tmp_path / "one", tmp_path / "two"
    train(root, kind, task, one)
    out = capsys.readouterr().out
    assert f"list val: {said}" in out
    assert join(launch(2, train, root, kind, task, two)) == [0, 0]
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-5, atol=1e-5, msg=lambda m, n=key: f"{n}: {m}")
    for x, y in zip(*(json.loads((folder / "history.json").read_text()) for folder in (one, two)), strict=True):
        assert x == pytest.approx(y, rel=1e-4)
    results = json.loads((one / "results.json").read_text())
    assert results["task"] == task
    card = (one / "model" / "README.md").read_text("utf-8")
    assert f"type: {name}" in card
    assert {"labels": "says which of 3 labels a clip has", "values": "estimates 2 values of a clip"}[kind] in card
    assert ('predict(model, "video.mp4").values' in card) == (kind == "values")
    assert f"{results[metric]:.{4 if results[metric] < 1000 else 6}g} |" in card

    # The saved model is of its kind, without being told so.
    scores = tmp_path / "scores"
    arguments = ["evaluate", str(one / "model"), str(root), "--annotations", str(root / kind), "--data", "list"]
    assert main([*arguments, "--workers", "0", "--out", str(scores), "--errors", "2"]) == 0
    out = capsys.readouterr().out
    assert "worst 2 of 8 videos, by loss:" in out
    again = json.loads((scores / "results.json").read_text())
    assert again[metric] == pytest.approx(results[metric], rel=1e-5)
    assert not (scores / "confusion.png").exists()
    assert (scores / "errors.html").read_text("utf-8").count("<img") == 12
    row = json.loads((scores / "predictions.jsonl").read_text().splitlines()[7])
    videos = sorted(root.glob("*.mp4"))
    for options in (["--no-windows"], ["--window", "0.2"]):
        command = ["classify", str(videos[7]), "--model", str(one / "model"), *options]
        assert main(command) == 0
        text = capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["task"] == task
        if task == "regression":
            assert row["target"] == pytest.approx({"redness (%)": 707000.0, "blueness": 207 / 255})
            assert list(answer.get("values") or answer["summary"]) == list(row["target"])
            assert f"{videos[7]}: redness (%) " in text
        else:
            assert row["target"] == ["blue", "green", "red"]
            first = text.splitlines()[0]
            labels = answer["labels"] if "labels" in answer else [entry["label"] for entry in answer["summary"]]
            assert all(label in first for label in labels)
            assert ("no label" in first) == (not labels)
    assert row["path"] == str(videos[7])
