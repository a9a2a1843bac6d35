"""Which kind of target a list has, and what each video's is: said by one rule, or by the user."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer_zoo import AnnotationError, ClipSpec, VideoDataset, VideoList, make_loader, read_videos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c d"):
        (tmp_path / f"{name}.mp4").touch()
    return tmp_path


def read(root: Path, content: Any, **options: Any) -> VideoList:
    kind = "list" if isinstance(content, str) else "json"
    text = content if isinstance(content, str) else json.dumps(content)
    (root / f"train.{'csv' if kind == 'list' else 'json'}").write_text(text)
    return read_videos(kind, root, **options)


def targets(videos: VideoList) -> list[Any]:
    assert not videos.missing
    return [videos.label(sample) for sample in videos.samples]


LABELS, VALUES = {"task": "multilabel"}, {"task": "regression"}
RUN_SIT = [("run", "sit"), ("sit",)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a.mp4 0,2\nb.mp4 1\n", "several indices in a row, such as '0,2'"),
        ("a.mp4\t0;2\nb.mp4\t1\n", "such as '0;2'"),
        ('path,label\na.mp4,"0,2"\nb.mp4,1\n', "such as '0,2'"),
        ('path,label,fps\na.mp4,"0, 2",25\nb.mp4,1,25\n', "such as '0, 2'"),
        ([{"path": "a.mp4", "label": [0, 2]}, {"path": "b.mp4", "label": [1]}], "lists of labels"),
        ({"a": [0, 2], "b": [1]}, "lists of labels"),
    ],
)
def test_several_indices_are_several_labels(content: Any, why: str, root: Path) -> None:
    videos = read(root, content)
    assert (videos.task, videos.classes) == ("multilabel", ("0", "1", "2"))
    assert [sample.target for sample in videos.samples] == [(0, 2), (1,)]
    assert "taken as multilabel: " in videos.report()
    assert why in videos.report()


@pytest.mark.parametrize(
    "content",
    [
        'path,label\na.mp4,"run,sit"\nb.mp4,sit\n',
        'path,label,fps\na.mp4,"run, sit",25\nb.mp4,sit,25\n',
        "path,labels\na.mp4,run;sit\nb.mp4,sit\n",
        "a.mp4 sit|run\nb.mp4 sit\n",
        "a.mp4,run,sit\nb.mp4,sit\n",
        "path,label_1,label_2\na.mp4,sit,run\nb.mp4,,sit\n",
        "path,run,sit,fps\na.mp4,1,1,25\nb.mp4,0,1,25\n",
        "path;sit;run\na.mp4;1.0;1.0\nb.mp4;1.0;0.0\n",
        [{"path": "a.mp4", "label": ["run", "sit"]}, {"path": "b.mp4", "label": ["sit"]}],
        [{"path": "a.mp4", "run": True, "sit": True}, {"path": "b.mp4", "run": False, "sit": True}],
        {"a.mp4": ["run", "sit"], "b.mp4": ["sit"]},
    ],
)
def test_names_of_labels_and_columns_of_them(content: Any, root: Path) -> None:
    videos = read(root, content, task="multilabel")
    assert [tuple(sorted(label)) for label in targets(videos)] == RUN_SIT
    assert videos.counts() == {name: videos.counts()[name] for name in videos.classes}
    assert videos.counts()["sit"] == (2, 0)
    # The order of another split is that of the names that it is given.
    other = read(root, content, task="multilabel", labels=["sit", "run"])
    assert (other.classes, [sample.target for sample in other.samples]) == (("sit", "run"), [(0, 1), (0,)])


def test_columns_of_0_and_1_need_not_be_named(root: Path) -> None:
    videos = read(root, "path,Long Jump,sit\na.mp4,0,1\nb.mp4,1,1\n")
    assert (videos.task, videos.classes) == ("multilabel", ("Long Jump", "sit"))
    assert targets(videos) == [("sit",), ("Long Jump", "sit")]
    assert "2 columns of 0 and 1, Long Jump, sit" in videos.report()


@pytest.mark.parametrize(
    "content",
    [
        "a.mp4 0,2\nb.mp4\nc d.mp4 1\n",
        "a.mp4,0,2\nb.mp4,\nc d.mp4,1\n",
        'path,label\na.mp4,"0,2"\nb.mp4,\nc d.mp4,1\n',
        "path,label,fps\na.mp4,0;2,25\nb.mp4,,25\nc d.mp4,1,25\n",
        "path,label_0,label_1,label_2\na.mp4,1,0,1\nb.mp4,0,0,0\nc d.mp4,0,1,0\n",
        {"a.mp4": [0, 2], "b.mp4": [], "c d.mp4": [1]},
    ],
)
def test_a_video_may_have_no_label(content: Any, root: Path) -> None:
    videos = read(root, content, task="multilabel")
    assert [sample.target for sample in videos.samples] == [(0, 2), (), (1,)]
    assert "1 video without any label" in videos.report()
    batch = next(iter(make_loader(VideoDataset(videos, ClipSpec(), on_error="skip"), [[0, 1, 2]])))
    assert batch.targets.shape == (0, 3)  # none of these can be read
    dataset = VideoDataset(videos, ClipSpec())
    assert torch.equal(dataset.target(0), torch.tensor([1.0, 0.0, 1.0]))
    assert torch.equal(dataset.target(1), torch.zeros(3))


def test_class_names_with_commas_stay_whole(root: Path) -> None:
    text = 'path,label,fps\na.mp4,"put on, take off",1\nb.mp4,"sit, put on, take off",1\n'
    assert read(root, text).classes == ("put on, take off", "sit, put on, take off")
    joined = text.replace("sit, put", "sit; put")
    videos = read(root, joined, task="multilabel", labels=["sit", "put on, take off"])
    assert targets(videos) == [("put on, take off",), ("sit", "put on, take off")]
    # Names that are given settle what a bar means.
    names = ["run|sit", "run"]
    assert read(root, "a.mp4 run|sit\nb.mp4 run\n", labels=names).task == "classes"


def test_rows_of_one_video_are_joined(root: Path) -> None:
    text = "path,label,start,end\na.mp4,run,0,1\na.mp4,sit,0,1\nb.mp4,sit,,\na.mp4,run,1,2\n"
    videos = read(root, text, **LABELS)
    assert targets(videos) == [("run", "sit"), ("sit",), ("run",)]
    assert [sample.start for sample in videos.samples] == [0, None, 1]
    assert "1 row of a video that another row has, too: the labels of such rows are joined" in videos.report()
    assert len(read(root, text).samples) == 4


@pytest.mark.parametrize(
    ("content", "options", "names", "values"),
    [
        ("a.mp4 0.5\nb.mp4 3\n", {}, ("label",), [(0.5,), (3.0,)]),
        ("path,score,label\na.mp4,7,1e-1\nb.mp4,8,-3\n", {}, ("label",), [(0.1,), (-3.0,)]),
        ("a.mp4 5\nb.mp4 3\n", VALUES, ("label",), [(5.0,), (3.0,)]),
        ("path,age\na.mp4,5\nb.mp4,3.5\n", VALUES, ("age",), [(5.0,), (3.5,)]),
        ("path\tAge\tm (kg)\na.mp4\t5\t1\nb.mp4\t3\t0.9\n", VALUES, ("Age", "m (kg)"), [(5, 1), (3, 0.9)]),
        ("path,age,height\na.mp4,5,1\nb.mp4,3,0.9\n", {**VALUES, "labels": ["height"]}, ("height",), [(1,), (0.9,)]),
        ("path,label,age\na.mp4,run,5\nb.mp4,sit,3\n", VALUES, ("age",), [(5,), (3,)]),
        ("a.mp4 1 2.5\nb.mp4 3 4\n", VALUES, ("label 0", "label 1"), [(1, 2.5), (3, 4)]),
        ("a.mp4,1,2\nb.mp4,3,4\n", {**VALUES, "labels": ["x", "y"]}, ("x", "y"), [(1, 2), (3, 4)]),
        ([{"path": "a", "x": 1, "y": 2.5}, {"path": "b", "x": 3, "y": 4}], VALUES, ("x", "y"), [(1, 2.5), (3, 4)]),
        ({"a": [1, 2.5], "b": [3, 4]}, VALUES, ("label 0", "label 1"), [(1, 2.5), (3, 4)]),
        ({"a": 0.5, "b": 1}, {}, ("label",), [(0.5,), (1,)]),
    ],
)  # fmt: skip
def test_values(content: Any, options: Any, names: Any, values: Any, root: Path) -> None:
    videos = read(root, content, **options)
    assert (videos.task, videos.classes) == ("regression", names)
    assert [sample.target for sample in videos.samples] == values
    assert targets(videos)[0] == dict(zip(names, values[0], strict=True))
    assert f"2 videos in {len(names)} value{'s' if len(names) > 1 else ''}, " in videos.report()
    low, high = sorted(row[0] for row in values)
    assert f"  {names[0]}: {low:g} to {high:g}, median {(low + high) / 2:g}" in videos.report()
    assert VideoDataset(videos, ClipSpec()).target(0).tolist() == pytest.approx(values[0])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a.mp4 run|sit\nb.mp4 run\n", {}, r"'run\|sit' may be one class or several labels: say task=\"classes\" or"),
        ("path,age\na.mp4,5\nb.mp4,3\n", {}, r"no column of labels .* in age: say task=\"regression\" \(--task\)"),
        ("path,run,age\na.mp4,1,5\nb.mp4,0,3\n", {}, r"numbers in run, age: say task=\"regression\""),
        ("a.mp4,0,2\nb.mp4,1\n", {}, r"expected one label for a\.mp4, got 0 and 2.*say task=\"multilabel\" \(--task\)"),
        ("a.mp4 0,2\nb.mp4\n", {}, r"line 2: .* may have none, say task=\"multilabel\" \(--task\)"),
        ("a.mp4 0\n", {"task": "multi"}, "Unknown task: 'multi'. Choose from: classes, multilabel, regression"),
        ("a.mp4 run\nb.mp4 3\n", VALUES, r"a\.mp4: expected a number as its label, got 'run'"),
        ("a.mp4 1 2\nb.mp4 3\n", VALUES, r"b\.mp4: expected 2 numbers as its label, got '3'"),
        ("path,age\na.mp4,5\nb.mp4,\n", {**VALUES, "labels": ["age"]}, "column 'age' has '', expected a number"),
        ("path,run\na.mp4,1\nb.mp4,2\n", {**LABELS, "labels": ["run"]}, "column 'run' has '2', expected 0 or 1"),
        ("path,run,sit\na.mp4,1,0\n", {**LABELS, "labels": ["run", "jump"]}, "no column 'jump'; it has run, sit"),
        ("path,x,y\na.mp4,1,0\n", {**VALUES, "labels": ["x", "z"]}, "no column 'z'; it has x, y"),
        ("path,x,y\na.mp4,1,0\n", {**VALUES, "labels": ["z"]}, "expected a column label or class"),
        ("a.mp4 run;sit\n", {**LABELS, "labels": ["run"]}, "label 'sit' is not among the 1 class: 'run'"),
        ({"a.mp4": ["run"], "b.mp4": ["sit"]}, {"task": "classes"}, r"expected one label for each .*, got \['run'\]"),
        ("path,label,fps\na.mp4,,2\n", LABELS, "no classes of list train there"),
    ],
)  # fmt: skip
def test_what_can_be_meant_in_two_ways_says_how_to_say_it(content: Any, options: Any, message: str, root: Path) -> None:
    with pytest.raises(AnnotationError, match=message) as error:
        read(root, content, **options)
    assert "\n" not in str(error.value)
