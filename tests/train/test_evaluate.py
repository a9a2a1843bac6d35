"""Evaluation: views, protocols, metrics, and several processes."""

import base64
import io
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from footage import pieces, video_list, write
from PIL import Image
from ranks import join, launch
from torch import nn

from timesformer_zoo import (
    TimeSformer,
    Video,
    VideoList,
    clip_transform,
    crop_views,
    evaluate,
    mean_of,
    plot_confusion,
    predict,
    save_pretrained,
    save_worst,
)
from timesformer_zoo.train.worst import worst_in_words
from timesformer_zoo_cli import main

CLIP = dict(stride=2, fps=None, crops=3)


class Fixed(nn.Module):
    """Says which class a clip is of by its mean brightness: 0 dark, 5 bright."""

    num_classes, num_frames, img_size, clip = 6, 4, (32, 32), dict(CLIP)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        brightness = (x * 0.225 + 0.45).mean((1, 2, 3, 4)) * 6 - 0.5
        return -(brightness[:, None] - torch.arange(6.0)).abs() * self.scale


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """Seven grey videos; the last of class 5 looks like class 2, the next but one like class 4."""
    folder = tmp_path_factory.mktemp("grey")
    looks, labels = [0, 1, 2, 3, 4, 5, 2], [0, 1, 2, 3, 5, 5, 5]
    paths = [folder / f"{i}.mp4" for i in range(7)]
    for path, look in zip(paths, looks, strict=True):
        write(path, torch.full((8, 32, 48, 3), round((look + 0.5) / 6 * 255), dtype=torch.uint8))
    return video_list(paths, labels, classes=6)


def test_scores(bright):
    result = evaluate(Fixed(), bright, progress=False)
    assert (result.count, result.clips, result.crops) == (7, 1, 3)
    assert result.top1 == pytest.approx(5 / 7)
    assert result.top5 == pytest.approx(6 / 7)  # five classes are nearer to the last one's look than its own
    assert result.confusion[5] == (0, 0, 1, 0, 1, 1)
    recall = {name: scores["recall"] for name, scores in result.per_class.items()}
    assert recall == {"class 0": 1, "class 1": 1, "class 2": 1, "class 3": 1, "class 4": None, "class 5": 1 / 3}
    assert [scores["precision"] for scores in result.per_class.values()] == [1, 1, 1 / 2, 1, 0, 1]
    assert [scores["support"] for scores in result.per_class.values()] == [1, 1, 1, 1, 0, 3]
    assert result.mean_class_accuracy == pytest.approx((4 + 1 / 3) / 5)
    assert "top-1 71.43%, top-5 85.71%, mean over classes 86.67% of 7 videos" in result.summary()


def test_top5_counts_the_five_likeliest(bright):
    model = Fixed()
    model.scale.data.fill_(-1.0)  # the likeliest class is the farthest away
    result = evaluate(model, bright, progress=False)
    assert result.top1 == pytest.approx(1 / 7)
    # A video's look is the least likely of the six, and its label among the other five where it is not its look.
    assert result.top5 == pytest.approx(2 / 7)


def test_any_batch_size_and_workers_give_the_same(bright):
    results = [
        evaluate(Fixed(), bright, batch_size=size, workers=w, progress=False) for size, w in [(1, 0), (4, 2), (64, 0)]
    ]
    assert results[0] == results[1] == results[2]


def test_the_model_is_left_as_it_was(bright):
    model = Fixed().train()
    model.frozen = nn.Dropout().eval()  # as a half-frozen model has it
    evaluate(model, bright, progress=False)
    assert (model.training, model.frozen.training) == (True, False)


def test_the_model_is_left_as_it_was_by_an_evaluation_that_fails(bright):
    model = Fixed().train()
    model.scale.data = model.scale.data.expand(7)  # does not fit six classes
    with pytest.raises(RuntimeError, match="must match"):
        evaluate(model, bright, progress=False)
    assert model.training


# ---- protocols ----


@pytest.mark.parametrize(
    ("protocol", "frames"), [("official", [0, 2, 4, 7]), ("paper", [4, 6, 8, 11]), ("model", [0, 2, 4, 7])]
)
def test_protocols_are_what_they_say(tmp_path, protocol, frames):
    """16 frames, a window of 8: it starts at 0 (official) or at half of the slack (paper)."""
    torch.manual_seed(0)
    model = TimeSformer(img_size=32, num_frames=4, num_classes=7, embed_dim=32, depth=1, num_heads=2, clip=CLIP).eval()
    with torch.no_grad():
        model.head.weight.mul_(20)
    film = write(tmp_path / "film.mp4", pieces("bikes", 1)[0])
    spec = clip_transform(model).spec
    views = crop_views(Video(film).frames(frames), spec)
    with torch.no_grad():
        logits = model(views)
    expected = logits.softmax(-1).mean(0) if protocol == "paper" else logits.sum(0)
    fifth, sixth = expected.argsort(descending=True)[4:6].tolist()
    for label, top5 in ((fifth, 1.0), (sixth, 0.0)):
        result = evaluate(model, video_list([film], [label], classes=7), protocol=protocol, progress=False)
        assert result.top5 == top5
        assert result.confusion[label][int(expected.argmax())] == 1


def test_views_can_be_chosen(bright):
    model, views = Fixed(), []
    model.register_forward_pre_hook(lambda module, args: views.append(len(args[0])))
    result = evaluate(model, bright, protocol="paper", clips=2, crops=5, progress=False)
    assert sum(views) == 7 * 2 * 5
    assert max(views) <= 8  # as many at once as the batch size says, though a video has more
    assert "(paper protocol, 2 x 5 views)" in result.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"protocol": "mine"}, "Choose from: model, official, paper"), ({"crops": 0}, "crops is 0")],
)
def test_refuses_nonsense(bright, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Fixed(), bright, progress=False, **options)


def test_refuses_another_number_of_classes(bright):
    with pytest.raises(ValueError, match="The model has 6 classes, the videos have 2 classes: give"):
        evaluate(Fixed(), replace(bright, classes=("a", "b")), progress=False)


# ---- what could not be read ----


def test_skipped_videos_are_counted_nowhere_and_listed(bright, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = video_list([tmp_path / "broken.mp4"], [0], classes=6)
    both = replace(
        bright, samples=broken.samples + bright.samples, missing=(bright.samples[0]._replace(path="gone.mp4"),)
    )
    with pytest.raises(OSError, match=r"gone.mp4"):
        evaluate(Fixed(), both, progress=False)
    result = evaluate(Fixed(), both, on_error="skip", progress=False)
    assert (result.count, result.confusion) == (7, evaluate(Fixed(), bright, progress=False).confusion)
    assert list(result.skipped) == [str(tmp_path / "broken.mp4")]
    assert result.missing == ("gone.mp4",)
    assert "missing: gone.mp4" in result.summary()
    assert "broken.mp4" in result.summary()
    with pytest.raises(ValueError, match=r"No video could be read.*broken.mp4"):
        evaluate(Fixed(), broken, on_error="skip", progress=False)


# ---- results ----


def test_results_as_json_and_picture(bright, tmp_path):
    result = evaluate(Fixed(), bright, progress=False)
    result.save(tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert (saved["count"], saved["top1"], saved["per_class"]["class 5"]["recall"]) == (7, 5 / 7, 1 / 3)
    assert saved["confusion"][5] == [0, 0, 1, 0, 1, 1]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    plot_confusion(result, tmp_path / "confusion.svg")
    texts = re.findall(r"<!-- (.*?) -->", (tmp_path / "confusion.svg").read_text())  # matplotlib's, beside the outlines
    assert texts[:6] == texts[7:13] == [f"class {i}" for i in range(6)]
    assert texts[texts.index("label") + 1 :][:36] == [str(n) for row in result.confusion for n in row]


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As where it is not installed; to draw a hundred classes takes long, too."""

    def refuse(name, *_):
        if name == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=refuse), *sys.meta_path])


def test_results_without_matplotlib(bright, tmp_path, no_matplotlib):
    evaluate(Fixed(), bright, progress=False).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "results.json"]


def test_mean_over_splits(bright):
    result = evaluate(Fixed(), bright, progress=False)
    folds = [
        replace(result, fold=str(i + 1), metrics={**result.metrics, "top1": top1})
        for i, top1 in enumerate((0.5, 0.6, 0.7))
    ]
    mean = mean_of(folds)
    assert mean.metrics["top1"] == pytest.approx(0.6)
    assert mean.metrics["top5"] == pytest.approx(6 / 7)
    assert mean.folds == ("1", "2", "3")
    with pytest.raises(ValueError, match="one result for each fold"):
        mean_of([*folds, folds[0]])


def test_each_video_has_its_row(bright, tmp_path):
    result = evaluate(Fixed(), bright, progress=False)
    result.save(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [sample.path for sample in bright.samples]
    assert [row["target"] for row in rows] == [f"class {i}" for i in (0, 1, 2, 3, 5, 5, 5)]
    assert [row["top"][0]["label"] for row in rows] == [f"class {i}" for i in (0, 1, 2, 3, 4, 5, 2)]
    assert [len(row["top"]) for row in rows] == [5] * 7
    for row, video in zip(rows, result.videos, strict=True):
        among = {score["label"]: score["probability"] for score in row["top"]}
        if row["target"] in among:
            assert row["loss"] == pytest.approx(-math.log(among[row["target"]]))
        assert video.prediction.path == row["path"]
        said = predict_views(row["path"])  # float32, evaluate sums the views in float64
        assert [score.class_index for score in video.prediction.top] == [score.class_index for score in said.top]
        assert [s.probability for s in video.prediction.top] == pytest.approx([s.probability for s in said.top])
    part = replace(bright, samples=(bright.samples[0]._replace(start=0.04, end=0.2),))
    (video,) = evaluate(Fixed(), part, progress=False).videos
    assert (video.prediction.start, video.prediction.end) == (0.04, 0.2)


def predict_views(path):
    """What `predict` makes of the same views."""
    model = TimeSformer(img_size=32, num_frames=4, num_classes=6, embed_dim=32, depth=1, num_heads=2, clip=CLIP)
    model.forward = Fixed().forward
    return predict(model, path)


def test_the_worst_videos_are_shown(bright, tmp_path):
    result = evaluate(Fixed(), bright, progress=False)
    worst = [video.prediction.path for video in result.worst(2)]
    assert worst == [bright.samples[6].path, bright.samples[4].path]
    page = save_worst(result, tmp_path / "errors.html", 2, frames=3, height=40).read_text("utf-8")
    assert page.index(worst[0]) < page.index(worst[1])
    assert "class 5</b>, predicted class 2 " in page
    assert "http" not in page  # it opens without a network
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 6
    image = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    assert image.size == (60, 40)
    assert image.getpixel((30, 20))[0] == pytest.approx((2.5 / 6) * 255, abs=3)


def test_signatures_of_addresses_are_not_shown(bright):
    result = evaluate(Fixed(), bright, progress=False)
    first = result.videos[0]
    signed = replace(first.prediction, path="https://host/a.mp4?token=secret")
    text = worst_in_words(replace(result, videos=(replace(first, prediction=signed),)), 1)
    assert text.endswith("https://host/a.mp4?…")


def test_pictures_are_of_the_part_that_was_evaluated(tmp_path):
    film = write(tmp_path / "film.mp4", (torch.arange(10) * 20).to(torch.uint8).view(-1, 1, 1, 1).expand(10, 32, 48, 3))
    videos = video_list([film], [0], classes=6)
    videos = replace(
        videos, samples=(videos.samples[0]._replace(start=0.08, end=0.24),)
    )  # frames 2 to 5 of 25 a second
    page = save_worst(evaluate(Fixed(), videos, progress=False), tmp_path / "errors.html", frames=2).read_text("utf-8")
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)\"", page)]
    assert [image.getpixel((9, 9))[0] for image in shown] == pytest.approx([60, 100], abs=4)
    assert "film.mp4 from 0.08 s to 0.24 s" in page


def test_the_page_of_the_worst_is_written_though_a_video_is_gone(bright, tmp_path):
    write(tmp_path / "<b>.mp4", torch.zeros(8, 32, 48, 3, dtype=torch.uint8))
    gone = video_list([tmp_path / "<b>.mp4", bright.samples[0].path], [3, 0], classes=6)
    result = evaluate(Fixed(), gone, progress=False)
    (tmp_path / "<b>.mp4").unlink()
    page = save_worst(result, tmp_path / "errors.html").read_text("utf-8")
    assert "there is no such file" in page
    assert page.count("<img") == 6  # of the other
    assert "<b>.mp4" not in page


# ---- the verb, and several processes ----


def run(arguments):
    assert main(["evaluate", *arguments]) == 0


def save_model_and_lists(folder: Path, videos: VideoList) -> None:
    """A small model, and videos with lists, of which fold 2 has but two."""
    torch.manual_seed(0)
    model = TimeSformer(img_size=32, num_frames=4, num_classes=6, embed_dim=32, depth=1, num_heads=2, clip=CLIP)
    model.head.weight.data.mul_(20)  # so that its order of the videos is not one of rounding
    for fold in (1, 2):
        save_pretrained(model, folder / f"model-{fold}", labels=[f"class {i}" for i in range(6)])
    lines = [f"{sample.path} {sample.target}\n" for sample in videos.samples]
    (folder / "val.csv").write_text("".join(lines))


def test_several_processes_count_no_video_twice(bright, tmp_path, capsys):
    """Seven videos for two processes: the one more that one of them gets is not counted."""
    save_model_and_lists(tmp_path, bright)
    arguments = [str(tmp_path / "model-1"), str(tmp_path), "--data", "list", "--workers", "0"]
    run([*arguments, "--out", str(tmp_path / "one"), "--errors", "3"])
    out = capsys.readouterr().out
    assert "worst 3 of 7 videos, by loss:" in out
    page = (tmp_path / "one" / "errors.html").read_text("utf-8")
    assert all(path in out and path in page for path in re.findall(r"\S+\.mp4", out.partition("worst")[2]))
    assert join(launch(2, run, [*arguments, "--out", str(tmp_path / "two")])) == [0, 0]
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["count"] == 7
    assert one == two
    one, two = ((tmp_path / name / "predictions.jsonl").read_text().splitlines() for name in ("one", "two"))
    for a, b in zip(map(json.loads, one), map(json.loads, two), strict=True):
        assert (a["path"], a["target"], a["loss"]) == (b["path"], b["target"], pytest.approx(b["loss"]))


def test_the_verb_reports_folds_and_their_mean(
    tmp_path, bright, capsys, no_matplotlib
):  # to draw 101 classes takes long
    torch.manual_seed(0)
    lists = tmp_path / "lists"
    lists.mkdir()
    for fold in (1, 2):
        model = TimeSformer(img_size=32, num_frames=4, num_classes=101, embed_dim=32, depth=1, num_heads=2, clip=CLIP)
        save_pretrained(model, tmp_path / f"model-{fold}", labels="ucf101")
        (lists / f"testlist0{fold}.txt").write_text("Archery/0.mp4\nBiking/1.mp4\n")
    arguments = [str(tmp_path / "model-{fold}"), str(Path(bright.samples[0].path).parent), "--data", "ucf101"]
    arguments += ["--annotations", str(lists), "--fold", "1", "2", "--workers", "0", "--out", str(tmp_path / "out")]
    run(arguments)
    out = capsys.readouterr().out
    folds = [json.loads((tmp_path / "out" / f"fold-{fold}" / "results.json").read_text()) for fold in (1, 2)]
    mean = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [result["fold"] for result in folds] == mean["folds"] == ["1", "2"]
    assert mean["top5"] == sum(result["top5"] for result in folds) / 2
    assert f"ucf101 test, fold 2: top-1 {folds[1]['top1']:.2%}" in out
    assert f"mean over folds 1, 2: top-1 {mean['top1']:.2%}" in out
    assert "worst" not in out
    run([*arguments, "--json"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [*folds, mean]
